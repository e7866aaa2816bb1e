"""Importance weights and masks: by hand, against loops, and without gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels.importance import mask_outside, off_policy_mask, sequence_importance, token_importance, truncate

LN2 = math.log(2)
#: Tokens of three sequences, not side by side: 0, 0, 0 | 1, 1 | 2.
INDEX = torch.tensor([0, 1, 0, 2, 1, 0])


def test_token_weights_by_hand():
    proximal = torch.tensor([-1.0, -1.0, -9.0])
    behavior = torch.tensor([-1.0, -1.0 - LN2, -1.0])
    assert token_importance(proximal, behavior).tolist() == pytest.approx([1.0, 2.0, math.exp(-8)])


def test_sequence_weights_are_products():
    gaps = torch.tensor([LN2, -LN2, LN2, 0.0, 3 * LN2, LN2])  # 2 2 2 | 1/2 8 | 1
    proximal = torch.full((6,), -3.0)
    found = sequence_importance(proximal, proximal - gaps, INDEX, 3)
    assert found.tolist() == pytest.approx([8.0, 4.0, 8.0, 1.0, 4.0, 8.0])


def test_sequence_weight_of_one_token_is_its_token_weight():
    proximal, behavior = torch.tensor([-0.5, -4.0, -2.0]), torch.tensor([-1.0, -3.5, -2.0])
    found = sequence_importance(proximal, behavior, torch.tensor([1, 0, 2]), 3)
    torch.testing.assert_close(found, token_importance(proximal, behavior))


def test_truncation_and_mask_by_hand():
    weights = torch.tensor([0.0, 0.3, 0.5, 1.0, 5.0, 5.1])
    assert truncate(weights, 2.0).tolist() == pytest.approx([0.0, 0.3, 0.5, 1.0, 2.0, 2.0])
    assert mask_outside(weights, 0.5, 5.0).tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0, 5.0, 0.0])  # bounds are in


@given(st.lists(st.floats(0, 100, width=32), min_size=1, max_size=9), st.floats(0, 3), st.floats(0.01, 5))
def test_truncation_and_mask_match_a_loop(values, floor, width):
    # Rounded to float32 as the weights are, so that no rounding lies between a weight and its bound.
    cap = torch.tensor(floor + width).item()
    floor = torch.tensor(floor).item()
    weights = torch.tensor(values)
    assert truncate(weights, cap).tolist() == [min(v, cap) for v in values]
    assert mask_outside(weights, floor, cap).tolist() == [v if floor <= v <= cap else 0.0 for v in values]


def test_off_policy_mask_by_hand():
    # Drift of log p_behavior - log p, mean by sequence: 0.3, 0.5, 0.7.
    drift = torch.tensor([0.0, 0.2, 0.3, 0.7, 0.8, 0.6])
    policy = torch.full((6,), -2.0)
    negative = torch.full((6,), -1.0)

    def mask(advantages, threshold):
        return off_policy_mask(policy, policy + drift, advantages, INDEX, 3, threshold).tolist()

    assert mask(negative, 0.4) == [1.0, 0.0, 1.0, 0.0, 0.0, 1.0]
    assert mask(negative, 0.6) == [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]
    assert mask(-negative, 0.4) == [1.0] * 6  # successes are kept
    assert mask(negative * 0.0, 0.4) == [1.0] * 6
    # The other way, where the policy has become more likely, is not masked.
    assert off_policy_mask(policy + 9.0, policy, negative, INDEX, 3, 0.4).tolist() == [1.0] * 6


def test_a_drift_at_the_threshold_is_kept():
    policy = torch.tensor([-2.0, -2.0])
    found = off_policy_mask(policy, policy + 0.5, torch.tensor([-1.0, -1.0]), torch.tensor([0, 0]), 1, 0.5)
    assert found.tolist() == [1.0, 1.0]


def test_none_carries_a_gradient():
    proximal = torch.tensor([-1.0, -3.0, -2.0, -0.5, -4.0, -1.5], requires_grad=True)
    behavior = (proximal.detach() - 0.1).requires_grad_()
    weights = token_importance(proximal, behavior)
    assert not weights.requires_grad
    assert not sequence_importance(proximal, behavior, INDEX, 3).requires_grad
    assert not off_policy_mask(proximal, behavior, torch.full((6,), -1.0), INDEX, 3, 0.1).requires_grad
    moving = weights.clone().requires_grad_()
    assert not truncate(moving, 2.0).requires_grad
    assert not mask_outside(moving, 0.5, 2.0).requires_grad
