"""Sums and means over the tokens of each sequence, where all sequences of a micro-batch lie in one row of tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def sequence_sum(values: Tensor, sequence_index: Tensor, num_sequences: int) -> Tensor:
    """Sum of `values` over the tokens of each sequence, [L] -> [S] float64, with gradient.

    In float64: CUDA adds in whatever order its blocks come, and there the order no longer shows in float32.

    Args:
        values: [L].
        sequence_index: [L] int64, 0 .. S - 1.
        num_sequences: S; one without tokens gets 0.
    """
    assert values.ndim == 1 and values.shape == sequence_index.shape
    total = torch.zeros(num_sequences, dtype=torch.float64, device=values.device)
    return total.index_add(0, sequence_index, values.to(torch.float64))


def sequence_mean(values: Tensor, sequence_index: Tensor, num_sequences: int) -> Tensor:
    """Mean of `values` over the tokens of each sequence, [L] -> [S] float64, with gradient; 0 where it has none."""
    count = sequence_sum(torch.ones_like(values, requires_grad=False), sequence_index, num_sequences)
    return sequence_sum(values, sequence_index, num_sequences) / count.clamp(min=1)
