"""The mathematics of GRPO: one formula a function, pure torch, float32 accumulation.

Symbols: P prompts, G group, L loss tokens, V vocabulary, H hidden size. Logprobs are in nats.
"""
