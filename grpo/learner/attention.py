"""Attention over packed sequences, as an attention implementation that transformers' own modules call."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AttentionInterface

NAME = "keel_packed"


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    segments: tuple[int, ...],
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention inside each packed sequence, none across sequences, no N x N mask.

    Args:
        query: [1, heads, N, head_dim].
        key, value: [1, kv_heads, N, head_dim].
        segments: length of each packed sequence; they sum to N.

    Returns:
        ([1, N, heads, head_dim], None).
    """
    assert query.shape[0] == 1 and sum(segments) == query.shape[2]
    parts = [
        functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(query.split(segments, 2), key.split(segments, 2), value.split(segments, 2), strict=True)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2), None


def register() -> None:
    """Make `NAME` known to transformers in this process; calling it again changes nothing.

    No mask function is registered under the name, so transformers builds no mask.
    """
    AttentionInterface.register(NAME, packed_attention)
