"""Between the learner and the kernels: what a loss needs of a micro-batch, and what is reported of it.

loss = sum_t w_t * [ importance_t * surrogate_t + beta * kl_t - alpha * entropy_t ]

The loss itself is computed by grpo/kernels/head.py, token by token with grpo/kernels/objective.py.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grpo.config import AlgorithmConfig, RatioTo, Surrogate
from grpo.kernels.head import HeadLoss
from grpo.kernels.importance import token_importance
from grpo.kernels.kl import k3
from grpo.kernels.objective import Objective, objective
from grpo.kernels.surrogate import clip_flags
from grpo.records import LossOutput, LossTokens, MicroBatch


def loss_tokens(batch: MicroBatch, *, proximal: Tensor | None = None, reference: Tensor | None = None) -> LossTokens:
    """All that is known of a micro-batch's loss tokens before the head runs.

    Args:
        proximal: [L] logprobs of the policy at the start of the step; None where those are the current ones.
        reference: [L] logprobs of the reference; required where the loss has a KL term.
    """
    return LossTokens(
        targets=batch.targets,
        advantages=batch.advantages,
        weights=batch.loss_weights,
        behavior=batch.behavior_logprobs,
        proximal=proximal,
        reference=reference,
        sequence_index=batch.sequence_index,
        num_sequences=sum(len(completions) for _, completions in batch.bundles),
    )


@torch.no_grad()
def loss_output(head: HeadLoss, tokens: LossTokens, config: AlgorithmConfig) -> LossOutput:
    """The loss of one micro-batch with the numerators and extremes of its metrics, defined in docs/metrics.md."""
    logprobs = head.logprobs
    found = objective(logprobs, head.entropy, tokens, config)
    proximal = logprobs if tokens.proximal is None else tokens.proximal
    weight = token_importance(proximal, tokens.behavior)
    low, high = _clipped(found, tokens.advantages, config)
    sums = {
        "tokens": logprobs.new_tensor(float(len(tokens))),
        "loss": head.loss.detach(),
        "entropy": head.entropy.sum(),
        "clip_low": low.sum(dtype=torch.float32),
        "clip_high": high.sum(dtype=torch.float32),
        # KL(behavior || policy) on tokens sampled from behavior: k3 with the roles set accordingly.
        "kl_behavior_policy": k3(tokens.behavior, logprobs).sum(),
        "importance": weight.sum(),
        "importance_squared": weight.square().sum(),
        "importance_masked": (found.importance == 0).sum(dtype=torch.float32),
    }
    if config.dual_clip is not None:
        bound = (tokens.advantages < 0) & (found.ratio > config.dual_clip)
        sums["dual_clip"] = bound.sum(dtype=torch.float32)
    if tokens.reference is not None:
        sums["kl_reference"] = k3(logprobs, tokens.reference).sum()
    # The step's only update: the ratio to the proximal policy is 1 by construction, so the one that can be off is the
    # ratio to what the engine sampled from.
    on_policy = tokens.proximal is None and config.ratio_to is RatioTo.proximal
    ratio = weight if on_policy else found.ratio
    maxima = {
        "max_abs_logprob_difference": _maximum((logprobs - tokens.behavior).abs(), 0.0),
        "ratio_max_deviation": _maximum((ratio - 1.0).abs(), 0.0),
        "ratio_max": _maximum(ratio, 0.0),
    }
    minima = {"ratio_min": -_maximum(-ratio, -torch.inf)}
    return LossOutput(loss=head.loss, sums=sums, maxima=maxima, minima=minima)


def _clipped(found: Objective, advantages: Tensor, config: AlgorithmConfig) -> tuple[Tensor, Tensor]:
    """Tokens below the lower and above the upper bound on which the bound had an effect."""
    bounds = {"clip_low": config.clip_low, "clip_high": config.clip_high}
    if config.surrogate is Surrogate.clip:
        return clip_flags(found.ratio, advantages, **bounds)
    if config.surrogate is Surrogate.cispo:  # clips the weight whatever the sign of the advantage
        return (
            clip_flags(found.ratio, -torch.ones_like(advantages), **bounds).low,
            clip_flags(found.ratio, torch.ones_like(advantages), **bounds).high,
        )
    nowhere = torch.zeros_like(advantages, dtype=torch.bool)
    return nowhere, nowhere


def _maximum(values: Tensor, empty: float) -> Tensor:
    return values.max() if values.numel() else values.new_tensor(empty)
