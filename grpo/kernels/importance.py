"""Importance weights for tokens that the engine sampled from other probabilities than the learner computes.

Even with the same weights the two differ by kernels, rounding and number format; with an asynchronous engine they
differ plainly. The weight w = p_proximal / p_behavior corrects for it, and is bounded or masked because its variance
grows with its size. None of these carries a gradient.

Sources: https://fengyao.notion.site/off-policy-rl (token and sequence truncation); Espeholt et al. 2018,
https://arxiv.org/abs/1802.01561 (the truncation); IcePop: https://ringtech.notion.site/icepop (two-sided mask);
DeepSeek-V3.2, https://arxiv.org/abs/2512.02556, section 3.1 (off-policy sequence masking).
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.kernels.sequences import sequence_mean, sequence_sum
from grpo.kernels.surrogate import bounded_exp, token_ratio


@torch.no_grad()
def token_importance(proximal_logprobs: Tensor, behavior_logprobs: Tensor) -> Tensor:
    """p_proximal / p_behavior of each token, [L] -> [L]. Biased for a whole sequence, but of small variance."""
    return token_ratio(proximal_logprobs, behavior_logprobs)


@torch.no_grad()
def sequence_importance(
    proximal_logprobs: Tensor, behavior_logprobs: Tensor, sequence_index: Tensor, num_sequences: int
) -> Tensor:
    """The product of a sequence's token weights, given to each of its tokens, [L] -> [L].

    Unbiased, and of a variance that grows exponentially with the length.
    """
    assert proximal_logprobs.shape == behavior_logprobs.shape == sequence_index.shape
    total = sequence_sum(proximal_logprobs - behavior_logprobs, sequence_index, num_sequences)
    return bounded_exp(total.to(torch.float32))[sequence_index]


@torch.no_grad()
def truncate(weights: Tensor, cap: float) -> Tensor:
    """min(w, cap), [L] -> [L]."""
    return weights.clamp(max=cap)


@torch.no_grad()
def mask_outside(weights: Tensor, floor: float, cap: float) -> Tensor:
    """w where floor <= w <= cap, else 0, [L] -> [L]: what is too far off is not trained on at all."""
    return torch.where((weights >= floor) & (weights <= cap), weights, 0.0)


@torch.no_grad()
def off_policy_mask(
    logprobs: Tensor,
    behavior_logprobs: Tensor,
    advantages: Tensor,
    sequence_index: Tensor,
    num_sequences: int,
    threshold: float,
) -> Tensor:
    """0 for tokens of sequences with A < 0 and mean(log p_behavior - log p) > threshold, else 1, [L] -> [L].

    Pushing down what the policy has already left behind only destabilises it; successes are kept however old.

    Args:
        threshold: nats a token.
    """
    assert logprobs.shape == behavior_logprobs.shape == advantages.shape == sequence_index.shape
    drift = sequence_mean(behavior_logprobs - logprobs, sequence_index, num_sequences)[sequence_index]
    return torch.where((advantages < 0) & (drift > threshold), 0.0, 1.0)
