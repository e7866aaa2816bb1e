"""KL estimators: values by hand, accuracy near zero, and the docstring's table checked on a whole categorical.

On V tokens every expectation is a sum, so what an estimator's gradient is on average needs no sampling: tokens are
enumerated, weighed by the policy they would be sampled from, and that weight carries no gradient.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grpo.config import KLEstimator
from grpo.kernels import kl

V = 7
ESTIMATORS = {"k1": kl.k1, "k2": kl.k2, "k3": kl.k3}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float32)


def test_values_by_hand():
    # p = 0.5, p_ref = 0.25: d = log p_ref - log p = -log 2 = -0.6931472
    logprobs, reference = tensor(math.log(0.5)), tensor(math.log(0.25))
    assert kl.k1(logprobs, reference).item() == pytest.approx(0.6931472, rel=1e-6)
    assert kl.k2(logprobs, reference).item() == pytest.approx(0.2402265, rel=1e-6)
    assert kl.k3(logprobs, reference).item() == pytest.approx(0.1931472, rel=1e-6)  # 0.5 - 1 + 0.6931472
    behavior = tensor(math.log(0.125))  # ratio 4
    assert kl.weighted_k3(logprobs, reference, behavior).item() == pytest.approx(0.7725887, rel=1e-6)


@pytest.mark.parametrize("estimator", KLEstimator)
def test_each_is_found_by_its_name(estimator):
    logprobs, reference, behavior = tensor(-1.0, -2.0), tensor(-1.5, -1.0), tensor(-0.5, -3.0)
    expected = (
        kl.weighted_k3(logprobs, reference, behavior)
        if estimator is KLEstimator.weighted_k3
        else ESTIMATORS[estimator.value](logprobs, reference)
    )
    assert kl.kl_penalty(estimator, logprobs, reference, behavior).tolist() == expected.tolist()


@pytest.mark.parametrize("d", [1e-4, -1e-4, 3e-4, -3e-4, 1e-7, -1e-7])
def test_k3_is_accurate_near_zero_in_float32(d):
    # Logprobs near 0, so that d itself is representable; exp(d) - d - 1 would return 0 here.
    logprobs, reference = tensor(0.0), tensor(d)
    exact = reference.item() ** 2 / 2 * (1 + reference.item() / 3)
    # One rounding of expm1(d), d itself being the larger part of it: relative to d^2 / 2 that is 2^-24 / |d|.
    assert kl.k3(logprobs, reference).item() == pytest.approx(exact, rel=2**-23 / abs(d), abs=1e-16)
    assert kl.k3(logprobs, reference).item() >= 0


@pytest.mark.parametrize("d", [1e-4, -1e-4, 1e-7, -1e-7])
def test_the_gradient_of_k3_is_accurate_near_zero_in_float32(d):
    logprobs, reference = tensor(0.0).requires_grad_(), tensor(d)
    (gradient,) = torch.autograd.grad(kl.k3(logprobs, reference).sum(), logprobs)
    assert gradient.item() == pytest.approx(-math.expm1(reference.item()), rel=1e-3, abs=6e-8)


@given(st.lists(st.tuples(st.floats(-60, 0, width=32), st.floats(-60, 0, width=32)), min_size=1, max_size=20))
def test_k2_and_k3_are_never_negative_and_0_where_equal(pairs):
    logprobs, reference = (torch.tensor(side) for side in zip(*pairs, strict=True))
    for name in ("k2", "k3"):
        assert (ESTIMATORS[name](logprobs, reference) >= 0).all()
        assert (ESTIMATORS[name](logprobs, logprobs) == 0).all()
    assert (kl.weighted_k3(logprobs, reference, reference) >= 0).all()


@given(st.floats(-60, -(2**-10), width=32), st.integers(-100, 100))
def test_k3_is_never_negative_a_few_roundings_from_0(logprob, steps):
    """Where two engines computed the same number in two ways."""
    logprobs = tensor(logprob)
    reference = (logprobs.view(torch.int32) + steps).view(torch.float32)
    assert kl.k3(logprobs, reference).item() >= 0


@pytest.fixture(params=range(3))
def categorical(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor, Tensor]:
    """Policy logits, and the logprobs of a reference and of a behavior policy, [V] each."""
    generator = torch.Generator().manual_seed(request.param)
    logits = torch.randn(V, generator=generator, dtype=torch.float64, requires_grad=True)
    reference, behavior = torch.randn(2, V, generator=generator, dtype=torch.float64).log_softmax(-1)
    return logits, reference, behavior


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits)[0]


def reverse_kl(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference)."""
    logprobs = logits.log_softmax(-1)
    return (logprobs.exp() * (logprobs - reference)).sum()


def forward_kl(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || policy)."""
    return (reference.exp() * (reference - logits.log_softmax(-1))).sum()


def expected_gradient(estimator, logits: Tensor, sampled_from: Tensor, *arguments: Tensor) -> Tensor:
    """E over tokens drawn from `sampled_from` of the gradient of the estimator in the loss."""
    values = estimator(logits.log_softmax(-1), *arguments)
    return gradient((sampled_from.exp().detach() * values).sum(), logits)


def test_the_exact_gradients_are_those_of_the_textbook(categorical):
    logits, reference, _ = categorical
    p = logits.detach().softmax(-1)
    log_ratio = logits.detach().log_softmax(-1) - reference
    # d KL(p || q) / d z_j = p_j (log p_j / q_j - KL); d KL(q || p) / d z_j = p_j - q_j.
    torch.testing.assert_close(gradient(reverse_kl(logits, reference), logits), p * (log_ratio - (p * log_ratio).sum()))
    torch.testing.assert_close(gradient(forward_kl(logits, reference), logits), p - reference.exp())


def test_k1_in_the_loss_has_no_expected_gradient(categorical):
    logits, reference, _ = categorical
    found = expected_gradient(kl.k1, logits, logits.log_softmax(-1), reference)
    torch.testing.assert_close(found, torch.zeros_like(logits), atol=1e-12, rtol=0)


def test_k2_has_the_gradient_of_the_reverse_kl(categorical):
    logits, reference, _ = categorical
    found = expected_gradient(kl.k2, logits, logits.log_softmax(-1), reference)
    torch.testing.assert_close(found, gradient(reverse_kl(logits, reference), logits))


def test_k3_has_the_gradient_of_the_forward_kl(categorical):
    logits, reference, _ = categorical
    found = expected_gradient(kl.k3, logits, logits.log_softmax(-1), reference)
    torch.testing.assert_close(found, gradient(forward_kl(logits, reference), logits))
    assert distance(found, gradient(reverse_kl(logits, reference), logits)) > 0.05


@pytest.mark.parametrize("on_policy", [True, False])
def test_weighted_k3_has_the_gradient_of_the_reverse_kl_also_off_policy(categorical, on_policy):
    logits, reference, behavior = categorical
    sampled_from = logits.detach().log_softmax(-1) if on_policy else behavior
    found = expected_gradient(kl.weighted_k3, logits, sampled_from, reference, sampled_from)
    torch.testing.assert_close(found, gradient(reverse_kl(logits, reference), logits))
    values = kl.weighted_k3(logits.detach().log_softmax(-1), reference, sampled_from)
    torch.testing.assert_close((sampled_from.exp() * values).sum(), reverse_kl(logits.detach(), reference))


def distance(found: Tensor, expected: Tensor) -> float:
    """Of two gradients, relative to the expected one."""
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", ["k1", "k2", "k3"])
def test_the_others_are_biased_off_policy(categorical, name):
    logits, reference, behavior = categorical
    found = expected_gradient(ESTIMATORS[name], logits, behavior, reference)
    assert distance(found, gradient(reverse_kl(logits, reference), logits)) > 0.1
    assert distance(found, gradient(forward_kl(logits, reference), logits)) > 0.1


def test_k1_in_the_reward_has_the_gradient_of_the_reverse_kl(categorical):
    """Subtracted from the reward it is a number that weighs log p: A = -(log p - log p_ref), loss -A log p."""
    logits, reference, _ = categorical
    logprobs = logits.log_softmax(-1)
    penalty = kl.k1(logprobs, reference).detach()
    exact = gradient(reverse_kl(logits, reference), logits)
    found = gradient((logprobs.exp().detach() * penalty * logits.log_softmax(-1)).sum(), logits)
    torch.testing.assert_close(found, exact)
    # A baseline, such as the group's mean, changes nothing in expectation.
    centred = gradient((logprobs.exp().detach() * (penalty - 0.7) * logits.log_softmax(-1)).sum(), logits)
    torch.testing.assert_close(centred, exact)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_estimate_the_reverse_kl_without_bias(categorical, name):
    logits, reference, _ = categorical
    logprobs = logits.detach().log_softmax(-1)
    mean = (logprobs.exp() * ESTIMATORS[name](logprobs, reference)).sum()
    torch.testing.assert_close(mean, reverse_kl(logits.detach(), reference))


def test_k2_does_not(categorical):
    logits, reference, _ = categorical
    logprobs = logits.detach().log_softmax(-1)
    exact = reverse_kl(logits.detach(), reference)
    assert abs((logprobs.exp() * kl.k2(logprobs, reference)).sum() / exact - 1) > 0.005
