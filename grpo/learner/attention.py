"""Attention over packed sequences, as an attention implementation that transformers' own modules call."""

from __future__ import annotations

from functools import lru_cache
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
    bundles: tuple[tuple[int, tuple[int, ...]], ...],
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention in which every completion sees its own shared prompt and itself, and nothing else.

    Args:
        query: [1, heads, N, head_dim].
        key, value: [1, kv_heads, N, head_dim].
        bundles: see `MicroBatch.bundles`.

    Returns:
        ([1, N, heads, head_dim], None).
    """
    lengths = [n for prompt, completions in bundles for n in (prompt, *completions)]
    assert query.shape[0] == 1 and sum(lengths) == query.shape[2]
    queries, keys, values = (iter(t.split(lengths, dim=2)) for t in (query, key, value))
    parts: list[Tensor] = []
    for prompt, completions in bundles:
        prompt_key, prompt_value = next(keys), next(values)
        parts.append(
            functional.scaled_dot_product_attention(
                next(queries), prompt_key, prompt_value, is_causal=True, scale=scaling, enable_gqa=True
            )
        )
        for length in completions:
            parts.append(
                functional.scaled_dot_product_attention(
                    next(queries),
                    torch.cat([prompt_key, next(keys)], dim=2),
                    torch.cat([prompt_value, next(values)], dim=2),
                    attn_mask=_completion_mask(prompt, length, query.device),
                    scale=scaling,
                    enable_gqa=True,
                )
            )
    return torch.cat(parts, dim=2).transpose(1, 2), None


@lru_cache(maxsize=64)
def _completion_mask(prompt: int, length: int, device: torch.device) -> Tensor:
    """[T, P + T] bool: token i of a completion sees the prompt and the completion up to itself."""
    return torch.ones(length, prompt + length, dtype=torch.bool, device=device).tril(diagonal=prompt)


def register() -> None:
    """Make `NAME` known to transformers in this process; calling it again changes nothing.

    No mask function is registered under the name, so transformers builds no mask.
    """
    AttentionInterface.register(NAME, packed_attention)
