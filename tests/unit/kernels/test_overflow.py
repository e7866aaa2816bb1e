"""A policy that has drifted far, or an engine that says -inf, must not turn a loss or a gradient into NaN."""

from __future__ import annotations

import math

import pytest
import torch

from grpo.config import AlgorithmConfig, Importance, KLEstimator
from grpo.kernels.importance import mask_outside, sequence_importance, token_importance, truncate
from grpo.kernels.kl import weighted_k3
from grpo.kernels.objective import objective
from grpo.kernels.surrogate import bounded_exp, clipped_surrogate, sequence_ratio, token_ratio
from grpo.records import LossTokens
from tests.oracles import label, losses_that_admit

LOG_RATIOS = [-math.inf, -3e38, -200.0, -21.0, 21.0, 200.0, 3e38, math.inf]
CONFIGS = losses_that_admit(AlgorithmConfig(kl_coefficient=0.1, off_policy_threshold=0.5))


def test_the_bound_is_20_nats_inside_it_nothing_changes():
    assert bounded_exp(torch.tensor(20.0)).item() == pytest.approx(math.exp(20), rel=1e-6)
    assert bounded_exp(torch.tensor([20.5, 1e9, math.inf])).tolist() == pytest.approx([math.exp(20)] * 3, rel=1e-6)
    assert bounded_exp(torch.tensor([-20.5, -1e9, -math.inf])).tolist() == pytest.approx([math.exp(-20)] * 3, rel=1e-6)


@pytest.mark.parametrize(("log_ratio", "slope"), [(19.0, True), (-19.0, True), (21.0, False), (-21.0, False)])
def test_beyond_the_bound_there_is_no_gradient(log_ratio, slope):
    logprobs = torch.tensor([log_ratio], dtype=torch.float64, requires_grad=True)
    ratio = token_ratio(logprobs, torch.zeros(1, dtype=torch.float64))
    (gradient,) = torch.autograd.grad(ratio.sum(), logprobs)
    assert gradient.item() == (pytest.approx(math.exp(log_ratio)) if slope else 0.0)


@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("log_ratio", [-200.0, 200.0])
@pytest.mark.parametrize("dual_clip", [None, 3.0])
def test_a_huge_log_ratio_stays_finite(advantage: float, log_ratio: float, dual_clip: float | None) -> None:
    logprobs = torch.tensor([log_ratio], requires_grad=True)
    index = torch.zeros(1, dtype=torch.int64)
    for ratio in (token_ratio(logprobs, torch.zeros(1)), sequence_ratio(logprobs, torch.zeros(1), index, 1)):
        loss = clipped_surrogate(ratio, torch.tensor([advantage]), clip_low=0.2, clip_high=0.2, dual_clip=dual_clip)
        (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
        assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()


def test_weighted_k3_stays_finite_where_only_the_behavior_is_far() -> None:
    logprobs = torch.tensor([0.0], requires_grad=True)
    value = weighted_k3(logprobs, torch.tensor([0.1]), torch.tensor([-200.0]))
    (gradient,) = torch.autograd.grad(value.sum(), logprobs)
    assert torch.isfinite(value).all() and torch.isfinite(gradient).all()


@pytest.mark.parametrize("behavior", [-math.inf, -1e30])
def test_an_impossible_behavior_logprob_is_capped_or_masked(behavior):
    proximal, sampled = torch.tensor([-1.0, -1.0]), torch.tensor([behavior, behavior])
    weights = token_importance(proximal, sampled)
    assert torch.isfinite(weights).all()
    assert truncate(weights, 2.0).tolist() == [2.0, 2.0]
    assert mask_outside(weights, 0.5, 2.0).tolist() == [0.0, 0.0]
    whole = sequence_importance(proximal, sampled, torch.tensor([0, 0]), 1)
    assert truncate(whole, 2.0).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("far", ["proximal", "behavior", "reference"])
@pytest.mark.parametrize("config", CONFIGS, ids=label)
def test_whatever_the_algorithm_a_distant_policy_leaves_loss_and_gradient_finite(config, far):
    size = len(LOG_RATIOS)
    current = torch.full((size,), -1.0)
    near = {"proximal": current + 0.1, "behavior": current - 0.1, "reference": current + 0.2}
    if far != "reference":
        distant = current - torch.tensor(LOG_RATIOS)
    else:  # exp(d) - 1 - d grows with -d as well, and is infinite where it is
        distant = current + torch.tensor([d for d in LOG_RATIOS if math.isfinite(d)] + [math.inf, 1e30])
    for advantage in (-1.0, 1.0):
        tokens = LossTokens(
            targets=torch.zeros(size, dtype=torch.int64),
            advantages=torch.full((size,), advantage),
            weights=torch.full((size,), 0.1),
            sequence_index=torch.arange(size),
            num_sequences=size,
            **{**near, far: distant},
        )
        logprobs = current.clone().requires_grad_()
        loss = objective(logprobs, torch.ones(size), tokens, config).loss
        (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
        assert torch.isfinite(loss).all(), loss
        assert torch.isfinite(gradient).all(), gradient


@pytest.mark.parametrize("estimator", KLEstimator)
@pytest.mark.parametrize("d", [-60.0, -25.0, 25.0, 60.0])
def test_a_distant_reference_gives_a_finite_penalty(estimator, d):
    config = AlgorithmConfig(kl_coefficient=1.0, kl_estimator=estimator, importance=Importance.none)
    zero = torch.zeros(1)
    tokens = LossTokens(
        targets=torch.zeros(1, dtype=torch.int64),
        advantages=zero,
        weights=zero + 1.0,
        behavior=zero,
        proximal=None,
        reference=zero + d,
        sequence_index=torch.zeros(1, dtype=torch.int64),
        num_sequences=1,
    )
    logprobs = zero.clone().requires_grad_()
    loss = objective(logprobs, zero, tokens, config).loss
    (gradient,) = torch.autograd.grad(loss.sum(), logprobs)
    assert torch.isfinite(loss).all() and torch.isfinite(gradient).all()
