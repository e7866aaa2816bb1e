"""Group-relative advantages against hand-computed numbers, a plain loop, and their identities."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels.advantages import group_advantages

NAN = math.nan

#: Sums of eighths are exact, so identities can be asked for tightly.
eighths = st.integers(-40, 40).map(lambda n: n / 8)
groups = st.lists(st.tuples(eighths, st.booleans()), min_size=2, max_size=9)


def advantages(rewards, valid=None, *, divide_by_std=True, eps=1e-4):
    tensor = torch.tensor(rewards, dtype=torch.float64)
    mask = torch.isfinite(tensor) if valid is None else torch.tensor(valid)
    return group_advantages(tensor, mask, divide_by_std=divide_by_std, eps=eps)


def looped(rewards, valid, *, divide_by_std, eps):
    """The formula of the docstring, one group, in Python floats."""
    kept = [r for r, v in zip(rewards, valid, strict=True) if v]
    if len(kept) < 2 or len(set(kept)) == 1:
        return [0.0] * len(rewards)
    mean = math.fsum(kept) / len(kept)
    scale = statistics.stdev(kept) + eps if divide_by_std else 1.0
    return [(r - mean) / scale if v else 0.0 for r, v in zip(rewards, valid, strict=True)]


def test_std_is_bessel_corrected():
    # mean 2.5; squared deviations 2.25 + 0.25 + 0.25 + 2.25 = 5; 5 / 3 -> std 1.2909944 (5 / 4 would give 1.1180340)
    result = advantages([[1.0, 2.0, 3.0, 4.0]], eps=0.0)
    assert result.tolist()[0] == pytest.approx([-1.1618950, -0.3872983, 0.3872983, 1.1618950], abs=1e-6)


def test_eps_is_added_to_the_std_not_to_the_variance():
    # [0, 1]: std = sqrt(0.5); A = 0.5 / (0.7071068 + 0.5)
    assert advantages([[0.0, 1.0]], eps=0.5).tolist()[0] == pytest.approx([-0.4142136, 0.4142136], abs=1e-6)


def test_without_std_only_the_mean_goes():
    assert advantages([[1.0, 2.0, 6.0]], divide_by_std=False).tolist() == [[-2.0, -1.0, 3.0]]


def test_groups_do_not_mix():
    result = advantages([[0.0, 2.0], [100.0, 108.0], [5.0, 5.0]], divide_by_std=False)
    assert result.tolist() == [[-1.0, 1.0], [-4.0, 4.0], [0.0, 0.0]]


@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize("garbage", [NAN, math.inf, -math.inf, 1e30])
def test_an_invalid_member_enters_no_statistic(garbage, divide_by_std):
    result = advantages([[1.0, garbage, 2.0, 3.0]], [[True, False, True, True]], divide_by_std=divide_by_std, eps=0.0)
    assert result.tolist()[0] == pytest.approx([-1.0, 0.0, 0.0, 1.0])
    assert result[0, 1].item() == 0.0


@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize("rewards", [[NAN, NAN, NAN], [NAN, 3.0, NAN]])
def test_fewer_than_two_valid_members_give_exact_zeros(rewards, divide_by_std):
    assert advantages([rewards], divide_by_std=divide_by_std).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("divide_by_std", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [2, 3, 6, 7, 10])
@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, -0.7, 1e6 + 0.1, 0.0])
def test_equal_rewards_give_exact_zeros_whatever_their_rounding(value, size, dtype, divide_by_std):
    rewards = torch.full((1, size), value, dtype=dtype)
    valid = torch.ones(1, size, dtype=torch.bool)
    result = group_advantages(rewards, valid, divide_by_std=divide_by_std, eps=1e-4)
    assert result.tolist() == [[0.0] * size]


def test_equal_valid_rewards_beside_a_different_invalid_one_are_no_signal():
    assert advantages([[0.1, 0.1, 7.0, 0.1]], [[True, True, False, True]]).tolist() == [[0.0, 0.0, 0.0, 0.0]]


def test_the_result_is_float32_from_any_dtype():
    for dtype in (torch.float64, torch.bfloat16, torch.int64):
        result = group_advantages(
            torch.tensor([[0, 2]], dtype=dtype), torch.ones(1, 2, dtype=torch.bool), divide_by_std=False, eps=1.0
        )
        assert result.dtype == torch.float32
        assert result.tolist() == [[-1.0, 1.0]]


@given(group=groups, divide_by_std=st.booleans(), eps=st.sampled_from([1e-8, 1e-4, 0.5]))
def test_matches_the_formula(group, divide_by_std, eps):
    rewards, valid = zip(*group, strict=True)
    result = advantages([rewards], [valid], divide_by_std=divide_by_std, eps=eps)
    assert result.tolist()[0] == pytest.approx(
        looped(rewards, valid, divide_by_std=divide_by_std, eps=eps), rel=1e-5, abs=1e-6
    )


@given(group=groups, divide_by_std=st.booleans())
def test_valid_advantages_sum_to_zero(group, divide_by_std):
    rewards, valid = zip(*group, strict=True)
    assert advantages([rewards], [valid], divide_by_std=divide_by_std).sum().item() == pytest.approx(0, abs=1e-5)


@given(group=groups, shift=eighths, divide_by_std=st.booleans())
def test_a_constant_added_to_a_group_changes_nothing(group, shift, divide_by_std):
    rewards, valid = zip(*group, strict=True)
    plain = advantages([rewards], [valid], divide_by_std=divide_by_std)
    shifted = advantages([[r + shift for r in rewards]], [valid], divide_by_std=divide_by_std)
    torch.testing.assert_close(shifted, plain, rtol=1e-5, atol=1e-6)


@given(group=groups, divide_by_std=st.booleans(), data=st.data())
def test_reordering_members_reorders_advantages(group, divide_by_std, data):
    order = data.draw(st.permutations(range(len(group))))
    rewards, valid = zip(*group, strict=True)
    plain = advantages([rewards], [valid], divide_by_std=divide_by_std)[0]
    moved = advantages([[rewards[i] for i in order]], [[valid[i] for i in order]], divide_by_std=divide_by_std)[0]
    torch.testing.assert_close(moved, plain[list(order)], rtol=1e-5, atol=1e-6)


@given(group=groups)
def test_an_invalid_member_is_as_good_as_not_there(group):
    rewards, valid = zip(*group, strict=True)
    kept = [r for r, v in group if v]
    whole = advantages([rewards], [valid])[0][torch.tensor(valid)]
    expected = advantages([kept])[0] if kept else torch.zeros(0)
    torch.testing.assert_close(whole, expected, rtol=1e-5, atol=1e-6)


@given(group=groups, factor=st.sampled_from([0.5, 4.0, 1024.0]))
def test_the_scale_of_the_reward_cancels_without_eps(group, factor):
    rewards, valid = zip(*group, strict=True)
    plain = advantages([rewards], [valid], eps=0.0)
    torch.testing.assert_close(
        advantages([[r * factor for r in rewards]], [valid], eps=0.0), plain, rtol=1e-5, atol=1e-6
    )
