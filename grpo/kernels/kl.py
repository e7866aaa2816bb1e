"""Per-token estimators of KL(policy || reference) on tokens sampled from the policy.

With d = log p_ref - log p and r = p / p_behavior. What each one's gradient is, when it sits in the loss:

=============  ======================  ==============================================
estimator      value                   on-policy expected gradient
=============  ======================  ==============================================
k1             -d                      0: a penalty in the loss that does nothing
k2             d^2 / 2                 that of the reverse KL, exact
k3             expm1(d) - d            that of the forward KL (as in the GRPO paper)
weighted k3    r * (expm1(d) - d)      that of the reverse KL, exact also off-policy
=============  ======================  ==============================================

In the reward, subtracted before the advantage, k1 has the gradient of the reverse KL: there it is a number that weighs
log p, not something that is differentiated.

Sources: Schulman, http://joschu.net/blog/kl-approx.html; gradients: https://arxiv.org/abs/2506.09477,
https://arxiv.org/abs/2510.01555, https://arxiv.org/abs/2512.21852; weighted k3: DeepSeek-V3.2,
https://arxiv.org/abs/2512.02556.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.config import KLEstimator
from grpo.kernels.surrogate import MAX_LOG_RATIO, token_ratio


def k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """log p - log p_ref, [L] -> [L]: unbiased, high variance, may be negative."""
    assert logprobs.shape == reference_logprobs.shape
    return logprobs - reference_logprobs


def k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """(log p - log p_ref)^2 / 2, [L] -> [L]: biased, low variance, never negative."""
    assert logprobs.shape == reference_logprobs.shape
    return 0.5 * (logprobs - reference_logprobs).square()


def k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """exp(d) - 1 - d with d = log p_ref - log p, [L] -> [L]: unbiased, low variance, never negative.

    Written with expm1: in float32 exp(d) - d - 1 is 0 already at d = 1e-4. d is held below `MAX_LOG_RATIO`, where
    exp(d) would soon be infinite; a token that the policy itself sampled does not get there.
    """
    assert logprobs.shape == reference_logprobs.shape
    d = (reference_logprobs - logprobs).clamp(max=MAX_LOG_RATIO)
    return torch.expm1(d) - d


def weighted_k3(logprobs: Tensor, reference_logprobs: Tensor, behavior_logprobs: Tensor) -> Tensor:
    """(p / p_behavior) * k3, gradient through both factors, [L] -> [L]."""
    return token_ratio(logprobs, behavior_logprobs) * k3(logprobs, reference_logprobs)


def kl_penalty(
    estimator: KLEstimator, logprobs: Tensor, reference_logprobs: Tensor, behavior_logprobs: Tensor
) -> Tensor:
    """The estimator of that name, [L] -> [L]; only `weighted_k3` looks at the behavior."""
    if estimator is KLEstimator.weighted_k3:
        return weighted_k3(logprobs, reference_logprobs, behavior_logprobs)
    return {KLEstimator.k1: k1, KLEstimator.k2: k2, KLEstimator.k3: k3}[estimator](logprobs, reference_logprobs)
