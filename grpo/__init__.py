"""Keel: a distributed GRPO trainer. Ray actors split vLLM rollout workers from FSDP2 learners."""

__version__ = "0.1.0"
