"""How fast Keel samples, measured against bare vLLM on the same requests: behind `grpo bench rollout`."""
