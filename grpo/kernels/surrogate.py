"""Probability ratios and the surrogates built on them: what the policy gradient is the gradient of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grpo.kernels.sequences import sequence_mean

#: Bound of a log-ratio before it is exponentiated, nats: exp(88) is infinite in float32, and inf * 0 is NaN.
MAX_LOG_RATIO = 20.0


class ClipFlags(NamedTuple):
    """Where the clip took effect, [L] bool each."""

    low: Tensor
    high: Tensor


def bounded_exp(log_ratio: Tensor) -> Tensor:
    """exp of a log-ratio held within +-`MAX_LOG_RATIO`; beyond it there is no gradient. Any shape."""
    return torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def token_ratio(logprobs: Tensor, anchor_logprobs: Tensor) -> Tensor:
    """p / p_anchor of each token, [L] -> [L], bounded as in `bounded_exp`."""
    assert logprobs.shape == anchor_logprobs.shape
    return bounded_exp(logprobs - anchor_logprobs)


def sequence_ratio(logprobs: Tensor, anchor_logprobs: Tensor, sequence_index: Tensor, num_sequences: int) -> Tensor:
    """GSPO's ratio exp(mean over the sequence's tokens of log p - log p_anchor), given to each of them, [L] -> [L].

    The geometric mean of the token ratios, so its size does not depend on the length. Equals `token_ratio` for
    sequences of one token.

    Source: Zheng et al. 2025, https://arxiv.org/abs/2507.18071, equation 7.
    """
    assert logprobs.shape == anchor_logprobs.shape == sequence_index.shape
    mean = sequence_mean(logprobs - anchor_logprobs, sequence_index, num_sequences)
    return bounded_exp(mean.to(logprobs.dtype))[sequence_index]


def clipped_surrogate(
    ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float, dual_clip: float | None = None
) -> Tensor:
    """PPO's pessimistic clip, -min(r A, clip(r, 1 - low, 1 + high) A), [L].

    With `dual_clip` = c the loss of a token with A < 0 is at most -c A: the unclipped side is unbounded there, and one
    token far off the proximal policy could outweigh all others.

    Args:
        ratio: [L], with gradient.
        advantages: [L].
        clip_low, clip_high: clip(r) lies in [1 - low, 1 + high].
        dual_clip: above 1; None: no bound.

    Source: https://arxiv.org/abs/1707.06347; separate bounds: DAPO, https://arxiv.org/abs/2503.14476; dual clip: Ye et
    al. 2020, https://arxiv.org/abs/1912.09729, equation 4.
    """
    assert ratio.shape == advantages.shape
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = -torch.minimum(ratio * advantages, bounded * advantages)
    if dual_clip is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -dual_clip * advantages), loss)
    return loss


def cispo_surrogate(
    logprobs: Tensor, ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> Tensor:
    """-sg[clip(r, 1 - low, 1 + high)] A log p, [L]; sg stops the gradient.

    REINFORCE with a clipped importance weight: no token loses its gradient, its weight is bounded. Inside the bounds
    its gradient equals that of `clipped_surrogate`.

    Source: MiniMax-M1, https://arxiv.org/abs/2506.13585, equation 4; ScaleRL, https://arxiv.org/abs/2510.13786.
    """
    assert logprobs.shape == ratio.shape == advantages.shape
    return -ratio.detach().clamp(1.0 - clip_low, 1.0 + clip_high) * advantages * logprobs


def reinforce_surrogate(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """-A log p, [L]. On-policy its gradient equals that of the other two.

    Source: Williams 1992, https://doi.org/10.1007/BF00992696.
    """
    assert logprobs.shape == advantages.shape
    return -advantages * logprobs


def clip_flags(ratio: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float) -> ClipFlags:
    """Tokens whose gradient the pessimistic clip removed: below the lower bound with A < 0, above the upper with A > 0.

    Args:
        ratio, advantages: [L].
    """
    assert ratio.shape == advantages.shape
    return ClipFlags(
        low=(ratio < 1.0 - clip_low) & (advantages < 0),
        high=(ratio > 1.0 + clip_high) & (advantages > 0),
    )
