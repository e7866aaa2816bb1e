"""KL estimators: values by hand, accuracy near zero, and the docstring's table checked on a whole categorical."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels import kl

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


@pytest.mark.parametrize("d", [1e-4, -1e-4, 3e-4, -3e-4])
def test_k3_is_accurate_near_zero_in_float32(d):
    # Logprobs near 0, so that d itself is representable; exp(d) - d - 1 would return 0 here.
    logprobs, reference = tensor(0.0), tensor(d)
    exact = math.expm1(reference.item()) - reference.item()
    assert kl.k3(logprobs, reference).item() == pytest.approx(exact, rel=2e-3)
    assert kl.k3(logprobs, reference).item() > 0


@given(st.lists(st.tuples(st.floats(-60, 0, width=32), st.floats(-60, 0, width=32)), min_size=1, max_size=20))
def test_k2_and_k3_are_never_negative_and_0_where_equal(pairs):
    logprobs, reference = (torch.tensor(side) for side in zip(*pairs, strict=True))
    for name in ("k2", "k3"):
        assert (ESTIMATORS[name](logprobs, reference) >= 0).all()
        assert (ESTIMATORS[name](logprobs, logprobs) == 0).all()
    assert (kl.weighted_k3(logprobs, reference, reference) >= 0).all()


@pytest.fixture
def categorical():
    """Policy logits and the logprobs of a reference and of a behavior policy, V = 5."""
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, generator=generator, dtype=torch.float64, requires_grad=True)
    reference, behavior = torch.randn(2, 5, generator=generator, dtype=torch.float64).log_softmax(-1)
    return logits, reference, behavior


def gradient(value, logits):
    return torch.autograd.grad(value, logits)[0]


def reverse_kl(logits, reference):
    logprobs = logits.log_softmax(-1)
    return (logprobs.exp() * (logprobs - reference)).sum()


def forward_kl(logits, reference):
    return (reference.exp() * (reference - logits.log_softmax(-1))).sum()


def expected_gradient(estimator, logits, sampled_from, *arguments):
    """E over tokens drawn from `sampled_from` of the gradient of the estimator in the loss, all tokens enumerated."""
    values = estimator(logits.log_softmax(-1), *arguments)
    return gradient((sampled_from.exp().detach() * values).sum(), logits)


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
    assert not torch.allclose(found, gradient(reverse_kl(logits, reference), logits), rtol=0.05)


@pytest.mark.parametrize("on_policy", [True, False])
def test_weighted_k3_has_the_gradient_of_the_reverse_kl_also_off_policy(categorical, on_policy):
    logits, reference, behavior = categorical
    sampled_from = logits.detach().log_softmax(-1) if on_policy else behavior
    found = expected_gradient(kl.weighted_k3, logits, sampled_from, reference, sampled_from)
    torch.testing.assert_close(found, gradient(reverse_kl(logits, reference), logits))


def test_k2_off_policy_is_biased(categorical):
    logits, reference, behavior = categorical
    found = expected_gradient(kl.k2, logits, behavior, reference)
    assert not torch.allclose(found, gradient(reverse_kl(logits, reference), logits), rtol=0.05)


@pytest.mark.parametrize("name", ["k1", "k3"])
def test_k1_and_k3_estimate_the_reverse_kl_without_bias(categorical, name):
    logits, reference, _ = categorical
    logprobs = logits.detach().log_softmax(-1)
    mean = (logprobs.exp() * ESTIMATORS[name](logprobs, reference)).sum()
    torch.testing.assert_close(mean, reverse_kl(logits.detach(), reference))
