"""The GRPO loss of one micro-batch: kernels put together, weighted by global denominators.

loss = sum_t w_t * [ tis_t * surrogate_t + beta * kl_t ]
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.config import AlgorithmConfig, KLEstimator
from grpo.kernels import kl
from grpo.kernels.surrogate import Surrogate, clipped_surrogate, truncated_importance_weights
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
    proximal = logprobs.detach() if proximal_logprobs is None else proximal_logprobs
    surrogate = clipped_surrogate(
        logprobs, proximal, batch.advantages, clip_low=config.clip_low, clip_high=config.clip_high
    )
    token_loss = surrogate.loss
    if config.importance_cap is not None:
        weights = truncated_importance_weights(proximal, batch.behavior_logprobs, config.importance_cap)
        token_loss = token_loss * weights
    penalty = None
    if config.kl_coefficient:
        assert reference_logprobs is not None
        penalty = _kl_penalty(config.kl_estimator, logprobs, reference_logprobs, batch.behavior_logprobs)
        token_loss = token_loss + config.kl_coefficient * penalty
    # A filler has weight 0; where() instead of a product, so that a NaN in it can't leak.
    counted = batch.loss_weights > 0
    loss = torch.where(counted, token_loss * batch.loss_weights, 0.0).sum()
    sums, maxima = _metrics(logprobs.detach(), proximal, entropy, surrogate, batch, counted)
    if reference_logprobs is not None:
        sums["kl_reference"] = _sum(kl.k3(logprobs.detach(), reference_logprobs), counted)
    sums["loss"] = loss.detach()
    return LossOutput(loss=loss, sums=sums, maxima=maxima)


def _kl_penalty(estimator: KLEstimator, logprobs: Tensor, reference: Tensor, behavior: Tensor) -> Tensor:
    if estimator is KLEstimator.weighted_k3:
        return kl.weighted_k3(logprobs, reference, behavior)
    return {KLEstimator.k1: kl.k1, KLEstimator.k2: kl.k2, KLEstimator.k3: kl.k3}[estimator](logprobs, reference)


def _sum(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values.to(torch.float32), 0.0).sum()


def _metrics(
    logprobs: Tensor, proximal: Tensor, entropy: Tensor, surrogate: Surrogate, batch: MicroBatch, counted: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    log_ratio = proximal - batch.behavior_logprobs
    weight = torch.exp(log_ratio)
    ratio = surrogate.ratio.detach()
    sums = {
        "tokens": counted.sum().to(torch.float32),
        "entropy": _sum(entropy, counted),
        "clip_low": _sum(surrogate.clipped_low, counted),
        "clip_high": _sum(surrogate.clipped_high, counted),
        # KL(behavior || policy) on tokens sampled from behavior: k3 with the roles set accordingly.
        "kl_behavior_policy": _sum(kl.k3(batch.behavior_logprobs, logprobs), counted),
        "importance": _sum(weight, counted),
        "importance_squared": _sum(weight.square(), counted),
    }
    maxima = {
        "max_abs_logprob_difference": _maximum((logprobs - batch.behavior_logprobs).abs(), counted),
        "ratio_max_deviation": _maximum((ratio - 1.0).abs(), counted),
    }
    return sums, maxima


def _maximum(values: Tensor, counted: Tensor) -> Tensor:
    kept = torch.where(counted, values, 0.0)
    return kept.max() if kept.numel() else values.new_zeros(())
