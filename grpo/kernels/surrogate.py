"""The policy-gradient surrogate and its importance weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Surrogate(NamedTuple):
    """Per-token loss and what happened to the ratio; all [L]."""

    loss: Tensor
    ratio: Tensor
    clipped_low: Tensor
    clipped_high: Tensor


#: Bound of a log-ratio before it is exponentiated, nats: exp(88) is infinite in float32, and inf * 0 is NaN.
MAX_LOG_RATIO = 20.0


def bounded_ratio(logprobs: Tensor, other_logprobs: Tensor) -> Tensor:
    """p / p_other, [L] -> [L], with the log-ratio held within +-`MAX_LOG_RATIO`, beyond which it has no gradient."""
    return torch.exp((logprobs - other_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def clipped_surrogate(
    logprobs: Tensor, proximal_logprobs: Tensor, advantages: Tensor, *, clip_low: float, clip_high: float
) -> Surrogate:
    """PPO's pessimistic clip: -min(r A, clip(r, 1 - low, 1 + high) A), r = p / p_proximal.

    A token counts as clipped only where the clip removed its gradient: below with A < 0, above with A > 0.

    Args:
        logprobs: [L], with gradient.
        proximal_logprobs: [L], of the policy at the start of the step.
        advantages: [L].
        clip_low, clip_high: clip(r) lies in [1 - low, 1 + high].

    Source: https://arxiv.org/abs/1707.06347; separate bounds: DAPO, https://arxiv.org/abs/2503.14476.
    """
    assert logprobs.shape == proximal_logprobs.shape == advantages.shape
    ratio = bounded_ratio(logprobs, proximal_logprobs)
    bounded = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = -torch.minimum(ratio * advantages, bounded * advantages)
    return Surrogate(
        loss=loss,
        ratio=ratio,
        clipped_low=(ratio < 1.0 - clip_low) & (advantages < 0),
        clipped_high=(ratio > 1.0 + clip_high) & (advantages > 0),
    )


def truncated_importance_weights(proximal_logprobs: Tensor, behavior_logprobs: Tensor, cap: float) -> Tensor:
    """min(p_proximal / p_behavior, cap) for each token, [L], without gradient.

    Corrects for the engine having sampled from slightly (or, when asynchronous, plainly) other probabilities than
    the learner computes. Source: https://fengyao.notion.site/off-policy-rl; Espeholt et al. 2018,
    https://arxiv.org/abs/1802.01561 (the truncation).
    """
    assert proximal_logprobs.shape == behavior_logprobs.shape
    return bounded_ratio(proximal_logprobs.detach(), behavior_logprobs).clamp(max=cap)
