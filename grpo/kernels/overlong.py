"""A penalty on completions that come near the length limit."""

from __future__ import annotations

import torch
from torch import Tensor


def soft_overlong_penalty(lengths: Tensor, *, max_length: int, buffer: int) -> Tensor:
    """0 up to max_length - buffer tokens, then down on a line to -1 at max_length, and -1 beyond.

    Between the two: (max_length - buffer - length) / buffer.

    Args:
        lengths: tokens, any shape.
        max_length: tokens.
        buffer: tokens, 1 to max_length. Whole tokens, so that the edge of the buffer is exactly 0: a rounding error
            there would tell completions apart that are equal.

    Returns:
        float32, of the shape of `lengths`.

    Source: DAPO, Yu et al. 2025, https://arxiv.org/abs/2503.14476, eq. 13.
    """
    assert 1 <= buffer <= max_length
    penalty = (max_length - buffer - lengths.to(torch.float64)) / buffer
    return penalty.clamp(-1.0, 0.0).to(torch.float32)
