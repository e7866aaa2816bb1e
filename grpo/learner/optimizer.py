"""AdamW and its learning rate."""

from __future__ import annotations

import math

import torch
from torch import nn

from grpo.config import LearnerConfig, LRSchedule


def make_optimizer(model: nn.Module, config: LearnerConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters; weight decay on matrices only (norm gains and biases are left alone)."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]],
        lr=config.lr,
        betas=(config.beta1, config.beta2),
        eps=config.eps,
        fused=True,
    )


def learning_rate(config: LearnerConfig, update: int, total_updates: int) -> float:
    """Learning rate of optimiser update `update` (0-based) of `total_updates`.

    Linear warm-up over `warmup_steps` updates reaches `lr` at update `warmup_steps`; after it constant, or linear or
    cosine decay to ``min_lr_ratio * lr`` at the last update.
    """
    if update < config.warmup_steps:
        return config.lr * (update + 1) / (config.warmup_steps + 1)
    if config.lr_schedule is LRSchedule.constant:
        return config.lr
    span = max(1, total_updates - 1 - config.warmup_steps)
    progress = min(1.0, (update - config.warmup_steps) / span)
    shape = 1.0 - progress if config.lr_schedule is LRSchedule.linear else 0.5 * (1.0 + math.cos(math.pi * progress))
    return config.lr * (config.min_lr_ratio + (1.0 - config.min_lr_ratio) * shape)
