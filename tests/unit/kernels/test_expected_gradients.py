"""What each advantage climbs: the expectation of its estimator, exact, over all outcomes of a one-parameter policy.

A completion passes with probability p = sigmoid(theta) and has then reward 1, else 0. Its score, d log pi / d theta, is
1 - p where it passes and -p where not, and dp / d theta = p (1 - p).
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from grpo.kernels.advantages import batch_std, group_mean, group_std, leave_one_out, max_rl

PASS_RATES = (0.03, 0.3, 0.5, 0.85)


def expected(kernel, num_members, p):
    """E[ 1/n sum_i A_i score_i ] over the 2^n outcomes."""
    outcomes = torch.tensor(list(itertools.product([0.0, 1.0], repeat=num_members)), dtype=torch.float64)
    probability = torch.where(outcomes > 0, p, 1 - p).prod(dim=1)
    score = torch.where(outcomes > 0, 1 - p, -p)
    # Each outcome is a batch of its own, so that batch statistics see no other.
    advantages = torch.cat([kernel(row[None], torch.ones(1, num_members, dtype=torch.bool)) for row in outcomes])
    return (probability * (advantages * score).mean(dim=1)).sum().item()


def pass_at_k_gradient(k, p):
    """d/d theta of 1 - (1 - p)^k."""
    return k * (1 - p) ** (k - 1) * p * (1 - p)


@pytest.mark.parametrize("p", PASS_RATES)
@pytest.mark.parametrize("num_members", [2, 3, 5, 8])
def test_leave_one_out_climbs_the_pass_rate(num_members, p):
    assert expected(leave_one_out, num_members, p) == pytest.approx(p * (1 - p), rel=1e-6)


@pytest.mark.parametrize("p", PASS_RATES)
@pytest.mark.parametrize("num_members", [2, 3, 5, 8])
def test_the_groups_own_mean_costs_one_part_in_n(num_members, p):
    assert expected(group_mean, num_members, p) == pytest.approx((num_members - 1) / num_members * p * (1 - p))


@pytest.mark.parametrize("p", PASS_RATES)
@pytest.mark.parametrize("num_members", [2, 3, 5, 8])
def test_max_rl_climbs_a_harmonic_mixture_of_pass_at_k(num_members, p):
    mixture = math.fsum(pass_at_k_gradient(k, p) / k for k in range(1, num_members))
    assert expected(max_rl, num_members, p) == pytest.approx(mixture, rel=1e-5)
    # The term k = n is what zeros in groups where nobody passes cost: there, A = -1 would be unbiased for n terms.
    all_fail = (1 - p) ** num_members * p  # probability times 1/n sum of -1 * -p
    whole = math.fsum(pass_at_k_gradient(k, p) / k for k in range(1, num_members + 1))
    assert expected(max_rl, num_members, p) + all_fail == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("p", PASS_RATES)
def test_max_rl_goes_to_the_logarithm_of_the_pass_rate(p):
    errors = [abs(expected(max_rl, n, p) / (1 - p) - 1) for n in (2, 4, 8)]  # d log p / d theta = 1 - p
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx((1 - p) ** 7, rel=1e-3, abs=1e-6)


def test_a_standard_deviation_is_another_objective():
    # Over the pass rate's own gradient it weighs rare passes and rare failures more than even odds.
    for kernel in (lambda r, v: group_std(r, v, eps=1e-4), lambda r, v: batch_std(r, v, eps=1e-4)):
        weight = [expected(kernel, 8, p) / (p * (1 - p)) for p in (0.1, 0.5, 0.9)]
        assert weight[0] == pytest.approx(weight[2], rel=1e-5)
        assert weight[0] > 1.2 * weight[1]
