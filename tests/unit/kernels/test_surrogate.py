"""The clipped surrogate and the truncated importance weight, by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels.surrogate import clipped_surrogate, truncated_importance_weights


def surrogate(ratio, advantage, *, low=0.2, high=0.3):
    """One token; returns (loss, d loss / d logprob, clipped_low, clipped_high)."""
    proximal = torch.tensor([-1.0], dtype=torch.float64)
    logprobs = (proximal + math.log(ratio)).requires_grad_()
    result = clipped_surrogate(
        logprobs, proximal, torch.tensor([advantage], dtype=torch.float64), clip_low=low, clip_high=high
    )
    assert result.ratio.item() == pytest.approx(ratio)
    (grad,) = torch.autograd.grad(result.loss.sum(), logprobs)
    return result.loss.item(), grad.item(), result.clipped_low.item(), result.clipped_high.item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient", "low", "high"),
    [
        # Inside the bounds: loss = -r A, gradient -r A.
        (1.0, 2.0, -2.0, -2.0, False, False),
        (1.1, 2.0, -2.2, -2.2, False, False),
        (0.9, -2.0, 1.8, 1.8, False, False),
        # Above, A > 0: the clip binds. -1.3 * 2
        (1.5, 2.0, -2.6, 0.0, False, True),
        # Above, A < 0: the pessimist keeps the unclipped term. -1.5 * -2
        (1.5, -2.0, 3.0, 3.0, False, False),
        # Below, A > 0: unclipped. -0.5 * 2
        (0.5, 2.0, -1.0, -1.0, False, False),
        # Below, A < 0: the clip binds. -0.8 * -2
        (0.5, -2.0, 1.6, 0.0, True, False),
        # No advantage: nothing, and nothing counts as clipped.
        (1.5, 0.0, 0.0, 0.0, False, False),
        (0.5, 0.0, 0.0, 0.0, False, False),
    ],
)
def test_by_hand(ratio, advantage, loss, gradient, low, high):
    found = surrogate(ratio, advantage)
    assert found[0] == pytest.approx(loss)
    assert found[1] == (0.0 if gradient == 0 else pytest.approx(gradient))
    assert found[2:] == (low, high)


def test_on_policy_the_gradient_is_that_of_reinforce():
    logprobs = torch.tensor([-0.3, -2.0, -7.0], requires_grad=True)
    advantages = torch.tensor([1.5, -0.5, 0.0])
    clipped_surrogate(logprobs, logprobs.detach(), advantages, clip_low=0.2, clip_high=0.2).loss.sum().backward()
    assert logprobs.grad is not None
    torch.testing.assert_close(logprobs.grad, -advantages)


def test_bounds_of_zero_still_learn_on_policy():
    assert surrogate(1.0, 2.0, low=0.0, high=0.0) == (-2.0, -2.0, False, False)


@given(
    ratio=st.floats(0.05, 20.0),
    advantage=st.floats(-5, 5),
    low=st.floats(0, 0.9),
    high=st.floats(0, 3),
)
def test_pessimism_and_flags(ratio, advantage, low, high):
    loss, gradient, clipped_low, clipped_high = surrogate(ratio, advantage, low=low, high=high)
    ratio = math.exp(math.log(ratio))
    bounded = min(max(ratio, 1 - low), 1 + high)
    assert loss == pytest.approx(max(-ratio * advantage, -bounded * advantage), rel=1e-9, abs=1e-12)
    assert loss >= -ratio * advantage - 1e-9  # never more hopeful than without the clip
    if clipped_low or clipped_high:
        assert gradient == 0.0
    else:
        assert gradient == pytest.approx(-ratio * advantage, rel=1e-9, abs=1e-12)
    assert not (clipped_low and clipped_high)


def test_importance_weights_are_capped_above_only_and_carry_no_gradient():
    proximal = torch.tensor([-1.0, -1.0, -1.0, -9.0], requires_grad=True)
    behavior = torch.tensor([-1.0, -1.0 - math.log(1.5), -4.0, -1.0])
    weights = truncated_importance_weights(proximal, behavior, 2.0)
    assert weights.tolist() == pytest.approx([1.0, 1.5, 2.0, math.exp(-8)], rel=1e-6)
    assert not weights.requires_grad


def test_an_impossible_behavior_logprob_is_capped_too():
    weights = truncated_importance_weights(torch.tensor([-1.0, -1.0]), torch.tensor([-math.inf, -1e30]), 2.0)
    assert weights.tolist() == [2.0, 2.0]
