"""Ratios and surrogates: numbers by hand, the formulas in a loop, and the identities of the docstrings."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grpo.config import AlgorithmConfig, Surrogate
from grpo.kernels.surrogate import (
    cispo_surrogate,
    clip_flags,
    clipped_surrogate,
    reinforce_surrogate,
    sequence_ratio,
    token_ratio,
)
from tests import oracles

LOW, HIGH = 0.2, 0.3
#: (ratio, advantage, loss, d loss / d logprob, below, above)
BY_HAND = [
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
]
ratios = st.floats(0.05, 20.0)
advantages = st.floats(-5, 5)


def f64(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def clip(ratio: float, advantage: float, *, low: float = LOW, high: float = HIGH, dual: float | None = None):
    """(loss, d loss / d logprob) of one token."""
    logprobs = f64(math.log(ratio) - 1.0).requires_grad_()
    loss = clipped_surrogate(
        token_ratio(logprobs, f64(-1.0)), f64(advantage), clip_low=low, clip_high=high, dual_clip=dual
    )
    return loss.item(), torch.autograd.grad(loss.sum(), logprobs)[0].item()


def cispo(ratio: float, advantage: float, logprob: float = -1.0, *, low: float = LOW, high: float = HIGH):
    logprobs = f64(logprob).requires_grad_()
    anchor = f64(logprob - math.log(ratio))
    loss = cispo_surrogate(logprobs, token_ratio(logprobs, anchor), f64(advantage), clip_low=low, clip_high=high)
    return loss.item(), torch.autograd.grad(loss.sum(), logprobs)[0].item()


@pytest.mark.parametrize(("ratio", "advantage", "loss", "gradient", "low", "high"), BY_HAND)
def test_clip_by_hand(ratio, advantage, loss, gradient, low, high):
    found = clip(ratio, advantage)
    assert found[0] == pytest.approx(loss)
    assert found[1] == (0.0 if gradient == 0 else pytest.approx(gradient))
    flags = clip_flags(f64(ratio), f64(advantage), clip_low=LOW, clip_high=HIGH)
    assert (flags.low.item(), flags.high.item()) == (low, high)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "gradient"),
    [
        (5.0, -2.0, 6.0, 0.0),  # unclipped 10, held at 3 * 2
        (2.5, -2.0, 5.0, 5.0),  # below 3: as without
        (0.5, -2.0, 1.6, 0.0),  # the lower bound of the clip still binds
        (5.0, 2.0, -2.6, 0.0),  # a positive advantage is not concerned
        (1.1, 2.0, -2.2, -2.2),
        (5.0, 0.0, 0.0, 0.0),
    ],
)
def test_dual_clip_by_hand(ratio, advantage, loss, gradient):
    found = clip(ratio, advantage, dual=3.0)
    assert found[0] == pytest.approx(loss)
    assert found[1] == (0.0 if gradient == 0 else pytest.approx(gradient))


@pytest.mark.parametrize(
    ("ratio", "advantage", "weight"),
    [(1.0, 2.0, 1.0), (1.1, -2.0, 1.1), (5.0, 2.0, 1.3), (5.0, -2.0, 1.3), (0.1, 2.0, 0.8), (0.1, -2.0, 0.8)],
)
def test_cispo_by_hand(ratio, advantage, weight):
    loss, gradient = cispo(ratio, advantage, logprob=-1.5)
    assert loss == pytest.approx(-weight * advantage * -1.5)
    assert gradient == pytest.approx(-weight * advantage)  # never 0: no token loses its gradient


def test_reinforce_by_hand():
    logprobs = f64(-0.5, -4.0).requires_grad_()
    loss = reinforce_surrogate(logprobs, f64(2.0, -3.0))
    assert loss.tolist() == [1.0, -12.0]
    assert torch.autograd.grad(loss.sum(), logprobs)[0].tolist() == [-2.0, 3.0]


@given(ratio=ratios, advantage=advantages, low=st.floats(0, 0.9), high=st.floats(0, 3))
def test_clip_is_pessimistic_and_its_flags_mark_lost_gradients(ratio, advantage, low, high):
    loss, gradient = clip(ratio, advantage, low=low, high=high)
    flags = clip_flags(f64(ratio), f64(advantage), clip_low=low, clip_high=high)
    bounded = min(max(ratio, 1 - low), 1 + high)
    assert loss == pytest.approx(max(-ratio * advantage, -bounded * advantage), rel=1e-9, abs=1e-12)
    assert loss >= -ratio * advantage - 1e-9  # never more hopeful than without the clip
    if flags.low.item() or flags.high.item():
        assert gradient == pytest.approx(0.0, abs=1e-12)
    else:
        assert gradient == pytest.approx(-ratio * advantage, rel=1e-9, abs=1e-12)
    assert not (flags.low.item() and flags.high.item())


@given(ratio=ratios, advantage=advantages, bound=st.floats(1.01, 6.0))
def test_dual_clip_bounds_the_loss_of_negative_advantages_only(ratio, advantage, bound):
    plain, dual = clip(ratio, advantage)[0], clip(ratio, advantage, dual=bound)[0]
    assert dual == pytest.approx(min(plain, -bound * advantage) if advantage < 0 else plain)


@given(ratio=st.floats(1 - LOW + 1e-6, 1 + HIGH - 1e-6), advantage=advantages, logprob=st.floats(-9, 0))
def test_inside_the_bounds_cispo_has_the_gradient_of_clip(ratio, advantage, logprob):
    assert cispo(ratio, advantage, logprob)[1] == pytest.approx(clip(ratio, advantage)[1], rel=1e-9, abs=1e-12)


@given(st.lists(st.tuples(st.floats(-9, 0), advantages), min_size=1, max_size=6))
def test_on_policy_all_three_have_the_gradient_of_reinforce(rows):
    values, gains = (f64(*side) for side in zip(*rows, strict=True))

    def gradient(surrogate):
        logprobs = values.clone().requires_grad_()
        loss = surrogate(logprobs, token_ratio(logprobs, logprobs.detach()))
        return torch.autograd.grad(loss.sum(), logprobs)[0]

    bounds = {"clip_low": 0.0, "clip_high": 0.0}  # even the narrowest
    for surrogate in (
        lambda p, r: reinforce_surrogate(p, gains),
        lambda p, r: clipped_surrogate(r, gains, **bounds),
        lambda p, r: clipped_surrogate(r, gains, dual_clip=1.5, **bounds),
        lambda p, r: cispo_surrogate(p, r, gains, **bounds),
    ):
        torch.testing.assert_close(gradient(surrogate), -gains)


def test_token_ratio_by_hand():
    found = token_ratio(torch.tensor([-1.0, -1.0, -2.0]), torch.tensor([-1.0, -1.0 - math.log(2), -1.0]))
    assert found.tolist() == pytest.approx([1.0, 2.0, math.exp(-1)])


def test_sequence_ratio_by_hand():
    # Sequence 0: log-ratios ln 2 and ln 8, geometric mean 4. Sequence 2: ln 3. Sequence 1 has no token here.
    logprobs = torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64).requires_grad_()
    anchor = logprobs.detach() - f64(math.log(2), math.log(3), math.log(8))
    found = sequence_ratio(logprobs, anchor, torch.tensor([0, 2, 0]), 3)
    assert found.tolist() == pytest.approx([4.0, 3.0, 4.0])
    # d r / d logprob of each of the sequence's two tokens is r / 2, and both tokens have r.
    (gradient,) = torch.autograd.grad(found.sum(), logprobs)
    assert gradient.tolist() == pytest.approx([4.0, 3.0, 4.0])


def test_sequence_ratio_of_one_token_is_its_token_ratio():
    logprobs, anchor = f64(-0.5, -2.0, -7.0).requires_grad_(), f64(-1.0, -1.5, -6.5)
    by_sequence = sequence_ratio(logprobs, anchor, torch.tensor([2, 0, 1]), 3)
    by_token = token_ratio(logprobs, anchor)
    torch.testing.assert_close(by_sequence, by_token)
    weights = f64(1.0, -2.0, 3.0)
    first, second = (torch.autograd.grad((weights * r).sum(), logprobs)[0] for r in (by_sequence, by_token))
    torch.testing.assert_close(first, second)


def test_sequence_ratio_does_not_grow_with_length():
    for length in (1, 10, 5000):
        logprobs = torch.full((length,), -1.0)
        found = sequence_ratio(logprobs, logprobs - 0.1, torch.zeros(length, dtype=torch.int64), 1)
        torch.testing.assert_close(found, torch.full((length,), math.exp(0.1)))


def test_on_policy_gspo_has_the_gradient_of_reinforce():
    logprobs = f64(-0.5, -2.0, -7.0).requires_grad_()
    index, gains = torch.tensor([0, 0, 1]), f64(2.0, 2.0, -3.0)  # one advantage a sequence
    ratio = sequence_ratio(logprobs, logprobs.detach(), index, 2)
    loss = clipped_surrogate(ratio, gains, clip_low=LOW, clip_high=HIGH)
    torch.testing.assert_close(torch.autograd.grad(loss.sum(), logprobs)[0], -gains)


@pytest.mark.parametrize(("kind", "dual"), [*((kind, None) for kind in Surrogate), (Surrogate.clip, 1.5)])
def test_surrogates_match_the_loop(kind, dual):
    case = oracles.make_case(seed=3)
    config = AlgorithmConfig(surrogate=kind, clip_low=LOW, clip_high=HIGH, dual_clip=dual)
    assert case.proximal is not None
    logprobs, gains = f64(*case.logprobs), f64(*case.advantages)
    ratio = token_ratio(logprobs, f64(*case.proximal))
    found = {
        Surrogate.clip: clipped_surrogate(ratio, gains, clip_low=LOW, clip_high=HIGH, dual_clip=dual),
        Surrogate.cispo: cispo_surrogate(logprobs, ratio, gains, clip_low=LOW, clip_high=HIGH),
        Surrogate.reinforce: reinforce_surrogate(logprobs, gains),
    }[kind]
    expected = [
        oracles.surrogate(a, p, r, r, config)
        for a, p, r in zip(case.advantages, case.logprobs, ratio.tolist(), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
