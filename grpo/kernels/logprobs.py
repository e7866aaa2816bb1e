"""Log-probabilities of target tokens from hidden states, a chunk of tokens at a time."""

# torch leaves some of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def target_logprobs(logits: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """log softmax(logits / temperature)[target] and the entropy of that tempered distribution.

    Args:
        logits: [L, V], any float type; computed in float32.
        targets: [L] int64.
        temperature: > 0. The engine samples from the tempered distribution, so the ratio must use it too.

    Returns:
        (logprobs [L] float32, entropy [L] float32 in nats, detached).
    """
    assert logits.ndim == 2 and targets.shape == logits.shape[:1]
    scaled = logits.float() / temperature
    log_normaliser = torch.logsumexp(scaled, dim=-1)
    logprobs = scaled.gather(-1, targets[:, None]).squeeze(-1) - log_normaliser
    with torch.no_grad():
        # From logprobs, not as log_normaliser - E[scaled]: that one loses digits, and its sign, to large logits.
        all_logprobs = scaled - log_normaliser[:, None]
        probabilities = torch.exp(all_logprobs)
        # A masked entry has logit -inf and probability 0; its product must count 0, not NaN.
        entropy = -torch.where(probabilities > 0, probabilities * all_logprobs, 0.0).sum(-1)
    return logprobs, entropy


def chunked_logprobs(
    head: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, *, temperature: float, chunk_tokens: int
) -> tuple[Tensor, Tensor]:
    """`target_logprobs` of ``head(hidden)`` without ever holding [L, V] logits of all tokens.

    Each chunk's logits are recomputed in the backward pass.

    Args:
        head: maps [*, H] to [*, V].
        hidden: [L, H].
        targets: [L] int64.
        chunk_tokens: tokens whose logits exist at one time.

    Returns:
        (logprobs [L], entropy [L]), float32.
    """
    assert hidden.ndim == 2 and targets.shape == hidden.shape[:1]

    def one_chunk(part: Tensor, part_targets: Tensor) -> tuple[Tensor, Tensor]:
        return target_logprobs(head(part), part_targets, temperature)

    chunks = zip(hidden.split(chunk_tokens), targets.split(chunk_tokens), strict=True)
    if len(hidden) <= chunk_tokens or not torch.is_grad_enabled():
        parts = [one_chunk(part, part_targets) for part, part_targets in chunks]
    else:
        parts = [checkpoint(one_chunk, part, part_targets, use_reentrant=False) for part, part_targets in chunks]
    return torch.cat([logprobs for logprobs, _ in parts]), torch.cat([entropy for _, entropy in parts])
