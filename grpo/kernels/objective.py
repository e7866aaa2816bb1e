"""The loss of each token: ratio, surrogate, importance weight, KL and entropy put together as configured.

loss_t = w_t * surrogate_t + beta * kl_t - alpha * H_t

The only place where they are put together; grpo/kernels/fused_token_loss.py says the same to a GPU.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grpo.config import AlgorithmConfig, Importance, KLPlacement, RatioLevel, RatioTo, Surrogate
from grpo.kernels.importance import mask_outside, off_policy_mask, sequence_importance, token_importance, truncate
from grpo.kernels.kl import kl_penalty
from grpo.kernels.surrogate import (
    cispo_surrogate,
    clipped_surrogate,
    reinforce_surrogate,
    sequence_ratio,
    token_ratio,
)
from grpo.records import LossTokens


class Objective(NamedTuple):
    """What a loss is made of, [L] float32 each.

    Attributes:
        loss: token losses, not yet weighted by the aggregation; with gradient.
        ratio: p / p_anchor of the token, or of its sequence.
        importance: the weight on the surrogate, masks included; without gradient.
    """

    loss: Tensor
    ratio: Tensor
    importance: Tensor


def is_token_level(config: AlgorithmConfig) -> bool:
    """Whether a token's loss depends on no other token's logprob: then its gradient is known as soon as its own is."""
    return (
        config.ratio_level is RatioLevel.token
        and config.importance not in (Importance.sequence_truncate, Importance.sequence_mask)
        and config.off_policy_threshold is None
    )


def has_kl_loss(config: AlgorithmConfig) -> bool:
    """Whether the loss has a KL term; a penalty in the reward is none."""
    return config.kl_coefficient > 0 and config.kl_in is KLPlacement.loss


def has_kl_reward(config: AlgorithmConfig) -> bool:
    """Whether a KL penalty is taken from the reward, so that the reference is asked before there is any advantage."""
    return config.kl_coefficient > 0 and config.kl_in is KLPlacement.reward


def needs_proximal(config: AlgorithmConfig) -> bool:
    """Whether the loss of a step with several updates looks at the policy at its start."""
    has_ratio = config.surrogate is not Surrogate.reinforce and config.ratio_to is RatioTo.proximal
    return has_ratio or config.importance is not Importance.none


def objective(logprobs: Tensor, entropy: Tensor, tokens: LossTokens, config: AlgorithmConfig) -> Objective:
    """Loss of each token.

    Args:
        logprobs: [L] of the targets under the current policy, with gradient.
        entropy: [L] of the current policy; its gradient is used where there is an entropy bonus.
        tokens: the rest, [L] each. Whole sequences, unless `is_token_level`.
        config: the algorithm.
    """
    assert logprobs.shape == entropy.shape == tokens.targets.shape
    proximal = logprobs.detach() if tokens.proximal is None else tokens.proximal
    anchor = proximal if config.ratio_to is RatioTo.proximal else tokens.behavior
    if config.ratio_level is RatioLevel.sequence:
        ratio = sequence_ratio(logprobs, anchor, tokens.sequence_index, tokens.num_sequences)
    else:
        ratio = token_ratio(logprobs, anchor)
    weight = _importance(logprobs, proximal, tokens, config)
    loss = weight * _surrogate(logprobs, ratio, tokens.advantages, config)
    if has_kl_loss(config):
        assert tokens.reference is not None
        penalty = kl_penalty(config.kl_estimator, logprobs, tokens.reference, tokens.behavior)
        loss = loss + config.kl_coefficient * penalty
    if config.entropy_coefficient:
        loss = loss - config.entropy_coefficient * entropy
    return Objective(loss=loss, ratio=ratio.detach(), importance=weight)


def _surrogate(logprobs: Tensor, ratio: Tensor, advantages: Tensor, config: AlgorithmConfig) -> Tensor:
    low, high = config.clip_low, config.clip_high
    if config.surrogate is Surrogate.clip:
        return clipped_surrogate(ratio, advantages, clip_low=low, clip_high=high, dual_clip=config.dual_clip)
    if config.surrogate is Surrogate.cispo:
        return cispo_surrogate(logprobs, ratio, advantages, clip_low=low, clip_high=high)
    return reinforce_surrogate(logprobs, advantages)


def _importance(logprobs: Tensor, proximal: Tensor, tokens: LossTokens, config: AlgorithmConfig) -> Tensor:
    weight = torch.ones_like(tokens.behavior)
    if config.importance in (Importance.sequence_truncate, Importance.sequence_mask):
        weight = sequence_importance(proximal, tokens.behavior, tokens.sequence_index, tokens.num_sequences)
    elif config.importance is not Importance.none:
        weight = token_importance(proximal, tokens.behavior)
    if config.importance in (Importance.token_truncate, Importance.sequence_truncate):
        weight = truncate(weight, config.importance_cap)
    elif config.importance in (Importance.token_mask, Importance.sequence_mask):
        weight = mask_outside(weight, config.importance_floor, config.importance_cap)
    if config.off_policy_threshold is not None:
        weight = weight * off_policy_mask(
            logprobs,
            tokens.behavior,
            tokens.advantages,
            tokens.sequence_index,
            tokens.num_sequences,
            config.off_policy_threshold,
        )
    return weight
