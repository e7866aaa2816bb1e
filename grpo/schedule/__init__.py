"""Which prompts are sampled when, and which groups a step trains on: bookkeeping without clocks or workers."""
