"""Every kind of advantage against hand-computed numbers, a plain loop, and its identities."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.config import AdvantageKind
from grpo.errors import ConfigError
from grpo.kernels import advantages as kernels

NAN = math.nan
KINDS = [kind.value for kind in AdvantageKind]
SCALED = {"group_std", "batch_std"}
kinds = pytest.mark.parametrize("kind", KINDS)


def advantages(kind, rewards, valid=None, *, eps=1e-4):
    tensor = torch.tensor(rewards, dtype=torch.float64)
    mask = torch.isfinite(tensor) if valid is None else torch.tensor(valid)
    return getattr(kernels, kind)(tensor, mask, **({"eps": eps} if kind in SCALED else {}))


def looped(kind, rewards, valid, *, eps=1e-4):
    """The formulae of the docstrings in Python floats, group by group, member by member."""
    members = [[r for r, v in zip(*group, strict=True) if v] for group in zip(rewards, valid, strict=True)]
    # A group with under two members, or one value only, teaches nothing and is in no statistic.
    teaching = [group for group in members if len(set(group)) > 1]
    all_centred = [r - math.fsum(group) / len(group) for group in teaching for r in group]
    batch = math.sqrt(math.fsum(c * c for c in all_centred) / (len(all_centred) - 1)) if all_centred else NAN
    result = []
    for row, mask, group in zip(rewards, valid, members, strict=True):
        if len(set(group)) < 2:
            result.append([0.0] * len(row))
            continue
        mean, n = math.fsum(group) / len(group), len(group)
        formula = {
            "group_std": lambda r, m=mean, g=group: (r - m) / (statistics.stdev(g) + eps),
            "group_mean": lambda r, m=mean: r - m,
            "batch_std": lambda r, m=mean: (r - m) / (batch + eps),
            "leave_one_out": lambda r, m=mean, n=n: r - (n * m - r) / (n - 1),
            "max_rl": lambda r, m=mean: (r - m) / m,
        }[kind]
        result.append([formula(r) if v else 0.0 for r, v in zip(row, mask, strict=True)])
    return result


#: Sums of eighths are exact, so identities can be asked for tightly.
eighths = st.integers(-40, 40).map(lambda n: n / 8)


@st.composite
def batches(draw, *, lowest=-40, max_groups=4):
    """Rewards and validity, [P][G] each, P and G drawn."""
    size = draw(st.integers(2, 7))
    values = st.integers(lowest, 40).map(lambda n: n / 8)
    row = st.lists(st.tuples(values, st.sampled_from([True, True, True, False])), min_size=size, max_size=size)
    drawn = draw(st.lists(row, min_size=1, max_size=max_groups))
    return [[r for r, _ in group] for group in drawn], [[v for _, v in group] for group in drawn]


def draw_batch(data, kind, **options):
    return data.draw(batches(lowest=0 if kind == "max_rl" else -40, **options))


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


# Numbers by hand


def test_std_is_bessel_corrected():
    # mean 2.5; squared deviations 2.25 + 0.25 + 0.25 + 2.25 = 5; 5 / 3 -> std 1.2909944 (5 / 4 would give 1.1180340)
    result = advantages("group_std", [[1.0, 2.0, 3.0, 4.0]], eps=0.0)
    assert result.tolist()[0] == pytest.approx([-1.1618950, -0.3872983, 0.3872983, 1.1618950], abs=1e-6)


def test_eps_is_added_to_the_std_not_to_the_variance():
    # [0, 1]: std = sqrt(0.5); A = 0.5 / (0.7071068 + 0.5)
    assert advantages("group_std", [[0.0, 1.0]], eps=0.5).tolist()[0] == pytest.approx(
        [-0.4142136, 0.4142136], abs=1e-6
    )
    assert advantages("batch_std", [[0.0, 1.0]], eps=0.5).tolist()[0] == pytest.approx(
        [-0.4142136, 0.4142136], abs=1e-6
    )


def test_without_std_only_the_mean_goes():
    assert advantages("group_mean", [[1.0, 2.0, 6.0]]).tolist() == [[-2.0, -1.0, 3.0]]


def test_batch_std_is_over_the_centred_rewards_of_all_groups():
    # Centred: -1, 1, 0 and -4, 2, 2; squares 1 + 1 + 16 + 4 + 4 = 26; 26 / 5 -> 2.2803509 (26 / 6 would give 2.0816660)
    result = advantages("batch_std", [[9.0, 11.0, 10.0], [0.0, 6.0, 6.0]], eps=0.0)
    assert result[0].tolist() == pytest.approx([-0.4385290, 0.4385290, 0.0], abs=1e-6)
    assert result[1].tolist() == pytest.approx([-1.7541160, 0.8770580, 0.8770580], abs=1e-6)


def test_groups_without_signal_do_not_shrink_the_batch_std():
    # -1, 1 and -2, 2: 10 / 3 -> 1.8257419. The 4 zeros of the others would make it 10 / 7 -> 1.1952286.
    rewards = [[0.0, 2.0], [7.0, 7.0], [1.0, 5.0], [NAN, 3.0]]
    result = advantages("batch_std", rewards, eps=0.0)
    assert result.tolist()[0] == pytest.approx([-0.5477226, 0.5477226], abs=1e-6)
    assert result.tolist()[1] == result.tolist()[3] == [0.0, 0.0]
    assert result.tolist()[2] == pytest.approx([-1.0954451, 1.0954451], abs=1e-6)


def test_leave_one_out_has_the_mean_of_the_others():
    # 1 - (2 + 6) / 2, 2 - (1 + 6) / 2, 6 - (1 + 2) / 2
    assert advantages("leave_one_out", [[1.0, 2.0, 6.0]]).tolist() == [[-3.0, -1.5, 4.5]]


def test_leave_one_out_counts_valid_members_only():
    assert advantages("leave_one_out", [[1.0, NAN, 2.0]]).tolist() == [[-1.0, 0.0, 1.0]]


def test_max_rl_divides_by_the_mean():
    # Means 0.25 and 0.75: one pass among four is worth more than three.
    result = advantages("max_rl", [[1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 1.0]])
    assert result[0].tolist() == [3.0, -1.0, -1.0, -1.0]
    assert result[1].tolist() == pytest.approx([1 / 3, 1 / 3, -1.0, 1 / 3])


@pytest.mark.parametrize("nobody", [[0.0, 0.0, 0.0], [NAN, 0.0, 0.0], [NAN, 0.0, NAN], [NAN, NAN, NAN]])
def test_max_rl_of_a_group_that_never_passes_is_0(nobody):
    assert advantages("max_rl", [nobody, [0.0, 0.5, 1.0]]).tolist() == [[0.0] * 3, [-1.0, 0.0, 1.0]]


def test_max_rl_refuses_a_negative_reward_by_name():
    with pytest.raises(ConfigError) as caught:
        advantages("max_rl", [[0.0, 1.0], [-0.25, 1.0]])
    assert (caught.value.field, caught.value.value) == ("algorithm.advantage", "max_rl")
    assert "-0.25 is negative" in str(caught.value)
    assert "algorithm.advantage=group_mean" in str(caught.value)


def test_max_rl_looks_at_valid_rewards_only():
    assert advantages("max_rl", [[-9.0, 0.0, 1.0]], [[False, True, True]]).tolist() == [[0.0, -1.0, 1.0]]


def test_groups_do_not_mix():
    result = advantages("group_mean", [[0.0, 2.0], [100.0, 108.0], [5.0, 5.0]])
    assert result.tolist() == [[-1.0, 1.0], [-4.0, 4.0], [0.0, 0.0]]


# What counts


@kinds
@pytest.mark.parametrize("garbage", [NAN, math.inf, -math.inf, 1e30])
def test_an_invalid_member_enters_no_statistic(garbage, kind):
    result = advantages(kind, [[1.0, garbage, 2.0, 3.0]], [[True, False, True, True]], eps=0.0)
    step = {"leave_one_out": 1.5, "max_rl": 0.5}.get(kind, 1.0)
    assert result.tolist()[0] == pytest.approx([-step, 0.0, 0.0, step])
    assert result[0, 1].item() == 0.0


@kinds
@pytest.mark.parametrize("eps", [0.0, 1e-4])
@pytest.mark.parametrize("rewards", [[NAN, NAN, NAN], [NAN, 3.0, NAN]])
def test_fewer_than_two_valid_members_give_exact_zeros(rewards, eps, kind):
    assert advantages(kind, [rewards], eps=eps).tolist() == [[0.0, 0.0, 0.0]]
    beside = advantages(kind, [rewards, [0.0, 1.0, 2.0]], eps=eps)
    assert beside[0].tolist() == [0.0, 0.0, 0.0]
    assert torch.equal(beside[1:], advantages(kind, [[0.0, 1.0, 2.0]], eps=eps))


@kinds
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [2, 3, 6, 7, 10])
@pytest.mark.parametrize("value", [0.1, 0.3, 1 / 3, -0.7, 1e6 + 0.1, 0.0])
def test_equal_rewards_give_exact_zeros_whatever_their_rounding(value, size, dtype, kind):
    value = abs(value) if kind == "max_rl" else value
    rewards = torch.full((1, size), value, dtype=dtype)
    valid = torch.ones(1, size, dtype=torch.bool)
    result = getattr(kernels, kind)(rewards, valid, **({"eps": 1e-4} if kind in SCALED else {}))
    assert result.tolist() == [[0.0] * size]


@kinds
def test_equal_valid_rewards_beside_a_different_invalid_one_are_no_signal(kind):
    assert advantages(kind, [[0.1, 0.1, 7.0, 0.1]], [[True, True, False, True]]).tolist() == [[0.0] * 4]


@kinds
def test_the_result_is_float32_from_any_dtype(kind):
    for dtype in (torch.float64, torch.bfloat16, torch.int64):
        rewards, valid = torch.tensor([[0, 2]], dtype=dtype), torch.ones(1, 2, dtype=torch.bool)
        result = getattr(kernels, kind)(rewards, valid, **({"eps": 0.0} if kind in SCALED else {}))
        size = {"group_mean": 1.0, "leave_one_out": 2.0, "max_rl": 1.0}.get(kind, math.sqrt(0.5))
        assert result.dtype == torch.float32
        assert result[0].tolist() == pytest.approx([-size, size])


# Properties


@kinds
@given(data=st.data(), eps=st.sampled_from([1e-8, 1e-4, 0.5]))
def test_matches_the_formula(kind, data, eps):
    rewards, valid = draw_batch(data, kind)
    expected = looped(kind, rewards, valid, eps=eps)
    result = advantages(kind, rewards, valid, eps=eps)
    assert_near(result.double(), torch.tensor(expected, dtype=torch.float64))
    for row, mask in zip(result.tolist(), valid, strict=True):
        assert all(a == 0.0 for a, v in zip(row, mask, strict=True) if not v)


@kinds
@given(data=st.data())
def test_each_group_sums_to_zero(kind, data):
    rewards, valid = draw_batch(data, kind)
    for total in advantages(kind, rewards, valid).double().sum(dim=1).tolist():
        assert total == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "max_rl"])
@given(data=st.data(), shifts=st.lists(eighths, min_size=4, max_size=4))
def test_a_constant_added_to_a_group_changes_nothing(kind, data, shifts):
    rewards, valid = draw_batch(data, kind)
    shifted = [[r + shift for r in group] for group, shift in zip(rewards, shifts, strict=False)]
    assert_near(advantages(kind, shifted, valid), advantages(kind, rewards, valid))


@kinds
@given(data=st.data(), factor=st.sampled_from([0.5, 4.0, 1024.0]))
def test_what_a_factor_on_all_rewards_does(kind, data, factor):
    rewards, valid = draw_batch(data, kind)
    plain = advantages(kind, rewards, valid, eps=0.0)
    scaled = advantages(kind, [[r * factor for r in group] for group in rewards], valid, eps=0.0)
    cancels = kind in {"group_std", "batch_std", "max_rl"}
    assert_near(scaled, plain if cancels else plain * factor)


@kinds
@given(data=st.data())
def test_reordering_members_and_groups_reorders_advantages(kind, data):
    rewards, valid = draw_batch(data, kind)
    groups = data.draw(st.permutations(range(len(rewards))))
    members = data.draw(st.permutations(range(len(rewards[0]))))
    moved = advantages(
        kind, [[rewards[p][g] for g in members] for p in groups], [[valid[p][g] for g in members] for p in groups]
    )
    assert_near(moved, advantages(kind, rewards, valid)[list(groups)][:, list(members)])


@kinds
@given(data=st.data())
def test_an_invalid_member_is_as_good_as_not_there(kind, data):
    rewards, valid = draw_batch(data, kind, max_groups=1)
    kept = [r for r, v in zip(rewards[0], valid[0], strict=True) if v]
    whole = advantages(kind, rewards, valid)[0][torch.tensor(valid[0])]
    assert_near(whole, advantages(kind, [kept])[0] if kept else torch.zeros(0))


@kinds
@given(data=st.data(), value=st.integers(0, 40).map(lambda n: n / 8))
def test_a_group_without_signal_is_as_good_as_not_there(kind, data, value):
    rewards, valid = draw_batch(data, kind)
    beside = advantages(kind, [[value] * len(rewards[0]), *rewards], [[True] * len(rewards[0]), *valid])
    assert beside[0].tolist() == [0.0] * len(rewards[0])
    assert_near(beside[1:], advantages(kind, rewards, valid))


@given(batch=batches())
def test_identities_between_kinds(batch):
    rewards, valid = batch
    mean = advantages("group_mean", rewards, valid)
    count = torch.tensor(valid).sum(dim=1, keepdim=True)
    assert_near(advantages("leave_one_out", rewards, valid), mean * count / (count - 1).clamp(min=1))
    for row in range(len(rewards)):
        one = [rewards[row]], [valid[row]]
        assert_near(advantages("batch_std", *one), advantages("group_std", *one))
    batch_std = advantages("batch_std", rewards, valid, eps=0.0)
    if (mean != 0).any():  # one factor for all of the batch, which makes the spread 1
        factors = (batch_std / mean)[mean != 0]
        assert_near(factors, factors[:1].expand_as(factors))
        kept = (torch.tensor(valid) & (mean != 0).any(dim=1, keepdim=True)).sum().item()
        assert batch_std.double().square().sum().item() == pytest.approx(kept - 1, rel=1e-5)
