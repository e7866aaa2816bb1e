"""The GRPO loss of one micro-batch: kernels put together, weighted by global denominators.

loss = sum_t w_t * [ tis_t * surrogate_t + beta * kl_t ]
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.config import AlgorithmConfig, KLEstimator
from grpo.kernels import kl
from grpo.kernels.surrogate import Surrogate, bounded_ratio, clipped_surrogate, truncated_importance_weights
from grpo.records import LossOutput, MicroBatch


def policy_loss(
    logprobs: Tensor,
    entropy: Tensor,
    batch: MicroBatch,
    config: AlgorithmConfig,
    *,
    proximal_logprobs: Tensor | None = None,
    reference_logprobs: Tensor | None = None,
) -> LossOutput:
    """Loss and metric numerators of one micro-batch.

    Args:
        logprobs: [L] of the current policy, with gradient.
        entropy: [L], detached.
        batch: supplies behavior logprobs, advantages and the aggregation's weights, [L] each.
        config: the algorithm.
        proximal_logprobs: [L] of the policy at the start of the step; None when this is the step's only update, where
            they are the current ones.
        reference_logprobs: [L]; required when ``config.kl_coefficient`` is not 0.

    Returns:
        The weighted loss, to be summed over micro-batches and ranks, and metric sums over loss tokens.
    """
    # A filler has weight 0. What goes in is blanked, not what comes out: the gradient of a masked NaN is still NaN.
    counted = batch.loss_weights > 0
    logprobs, behavior, advantages = (
        torch.where(counted, values, 0.0) for values in (logprobs, batch.behavior_logprobs, batch.advantages)
    )
    proximal = logprobs.detach() if proximal_logprobs is None else torch.where(counted, proximal_logprobs, 0.0)
    reference = None if reference_logprobs is None else torch.where(counted, reference_logprobs, 0.0)
    surrogate = clipped_surrogate(logprobs, proximal, advantages, clip_low=config.clip_low, clip_high=config.clip_high)
    token_loss = surrogate.loss
    if config.importance_cap is not None:
        token_loss = token_loss * truncated_importance_weights(proximal, behavior, config.importance_cap)
    if config.kl_coefficient:
        assert reference is not None
        penalty = _kl_penalty(config.kl_estimator, logprobs, reference, behavior)
        token_loss = token_loss + config.kl_coefficient * penalty
    loss = (token_loss * batch.loss_weights).sum()
    sums, maxima = _metrics(logprobs.detach(), proximal, behavior, entropy, surrogate, counted)
    if proximal_logprobs is None:
        # The step's only update: the ratio to the proximal policy is 1 by construction, so the one that can be off is
        # the ratio to what the engine sampled from.
        deviation = (bounded_ratio(proximal, behavior) - 1.0).abs()
        maxima["ratio_max_deviation"] = _maximum(deviation, counted)
    if reference is not None:
        sums["kl_reference"] = _sum(kl.k3(logprobs.detach(), reference), counted)
    sums["loss"] = loss.detach()
    return LossOutput(loss=loss, sums=sums, maxima=maxima)


def _kl_penalty(estimator: KLEstimator, logprobs: Tensor, reference: Tensor, behavior: Tensor) -> Tensor:
    if estimator is KLEstimator.weighted_k3:
        return kl.weighted_k3(logprobs, reference, behavior)
    return {KLEstimator.k1: kl.k1, KLEstimator.k2: kl.k2, KLEstimator.k3: kl.k3}[estimator](logprobs, reference)


def _sum(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values.to(torch.float32), 0.0).sum()


def _metrics(
    logprobs: Tensor, proximal: Tensor, behavior: Tensor, entropy: Tensor, surrogate: Surrogate, counted: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    weight = bounded_ratio(proximal, behavior)
    ratio = surrogate.ratio.detach()
    sums = {
        "tokens": counted.sum().to(torch.float32),
        "entropy": _sum(entropy, counted),
        "clip_low": _sum(surrogate.clipped_low, counted),
        "clip_high": _sum(surrogate.clipped_high, counted),
        # KL(behavior || policy) on tokens sampled from behavior: k3 with the roles set accordingly.
        "kl_behavior_policy": _sum(kl.k3(behavior, logprobs), counted),
        "importance": _sum(weight, counted),
        "importance_squared": _sum(weight.square(), counted),
    }
    maxima = {
        "max_abs_logprob_difference": _maximum((logprobs - behavior).abs(), counted),
        "ratio_max_deviation": _maximum((ratio - 1.0).abs(), counted),
    }
    return sums, maxima


def _maximum(values: Tensor, counted: Tensor) -> Tensor:
    kept = torch.where(counted, values, 0.0)
    return kept.max() if kept.numel() else values.new_zeros(())
