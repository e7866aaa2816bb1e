"""Learning rate schedules by hand, and which parameters decay."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from grpo.config import LearnerConfig, LRSchedule
from grpo.learner.optimizer import learning_rate, make_optimizer


def rates(total, **options):
    config = LearnerConfig(lr=1.0, **options)
    return [learning_rate(config, update, total) for update in range(total)]


def test_constant():
    assert rates(4) == [1.0] * 4


def test_warm_up_reaches_lr_and_never_starts_at_0():
    assert rates(6, warmup_steps=3) == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, 1.0])


def test_linear():
    assert rates(5, lr_schedule=LRSchedule.linear) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_linear_to_a_floor_after_warm_up():
    found = rates(7, lr_schedule=LRSchedule.linear, warmup_steps=2, min_lr_ratio=0.2)
    assert found == pytest.approx([1 / 3, 2 / 3, 1.0, 0.8, 0.6, 0.4, 0.2])


def test_cosine():
    root = math.sqrt(0.5)
    found = rates(5, lr_schedule=LRSchedule.cosine)
    assert found == pytest.approx([1.0, (1 + root) / 2, 0.5, (1 - root) / 2, 0.0], abs=1e-12)
    assert rates(3, lr_schedule=LRSchedule.cosine, min_lr_ratio=0.5) == pytest.approx([1.0, 0.75, 0.5])


@given(
    schedule=st.sampled_from(LRSchedule),
    warmup=st.integers(0, 12),
    total=st.integers(1, 10),
    floor=st.floats(0, 1),
    beyond=st.integers(0, 5),
)
def test_rates_rise_then_fall_within_bounds(schedule, warmup, total, floor, beyond):
    config = LearnerConfig(lr=2.0, lr_schedule=schedule, warmup_steps=warmup, min_lr_ratio=floor)
    found = [learning_rate(config, update, total) for update in range(total + beyond)]
    assert all(0 <= rate <= 2.0 + 1e-12 for rate in found)
    rising, falling = found[: warmup + 1], found[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert found[0] > 0
    if schedule is not LRSchedule.constant and total > warmup + 1:
        assert found[total - 1] == pytest.approx(2.0 * floor, abs=1e-12)


def test_matrices_decay_vectors_do_not_and_frozen_parameters_stay_out():
    model = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Embedding(5, 2), nn.Linear(2, 2))
    model[3].requires_grad_(False)
    optimizer = make_optimizer(model, LearnerConfig(lr=0.5, weight_decay=0.1, beta1=0.8, beta2=0.9, eps=1e-6))
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    expected = {id(p): 0.1 if p.ndim >= 2 else 0.0 for p in model.parameters() if p.requires_grad}
    assert decays == expected
    for group in optimizer.param_groups:
        assert (group["lr"], group["betas"], group["eps"]) == (0.5, (0.8, 0.9), 1e-6)


def test_a_model_of_matrices_only():
    model = nn.Linear(2, 2, bias=False)
    optimizer = make_optimizer(model, LearnerConfig(lr=0.1, weight_decay=0.0))
    before = model.weight.detach().clone()
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    # Adam's first step is lr x sign of the gradient.
    torch.testing.assert_close(model.weight.detach(), before - 0.1)
