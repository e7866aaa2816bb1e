"""Mixtures of reward terms against hand-computed numbers, a plain loop, and their identities."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.kernels.advantages import group_mean, group_std
from grpo.kernels.mixtures import gdpo, mo_grpo, standardised_terms, whitened

NAN = math.nan
MIXTURES = {"gdpo": gdpo, "mo_grpo": mo_grpo}
mixtures = pytest.mark.parametrize("name", list(MIXTURES))


def assert_near(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def mixed(name, terms, weights, *, present=None, standardise=None, eps=1e-4):
    """Terms [K][P][G]; where `present` is not given, a NaN is absent."""
    values = torch.tensor(terms, dtype=torch.float64)
    mask = torch.isfinite(values) if present is None else torch.tensor(present)
    scaled = [True] * len(terms) if standardise is None else standardise
    return MIXTURES[name](values, mask, torch.tensor(weights, dtype=torch.float64), scaled, eps=eps)


def looped(name, terms, present, weights, standardise, *, eps):
    """The formulae of the docstrings, number by number."""
    num_groups, size = len(terms[0]), len(terms[0][0])
    total = [[0.0] * size for _ in range(num_groups)]
    teaching = [False] * num_groups
    for term, there, weight, scaled in zip(terms, present, weights, standardise, strict=True):
        for p in range(num_groups):
            kept = [term[p][g] for g in range(size) if there[p][g]]
            if len(set(kept)) < 2:
                continue
            teaching[p] = teaching[p] or weight != 0
            scale = statistics.stdev(kept) + eps if scaled else 1.0
            for g in range(size):
                if there[p][g]:
                    total[p][g] += weight * (term[p][g] - math.fsum(kept) / len(kept)) / scale
    if name == "mo_grpo":
        return total
    batch = [(p, g) for p in range(num_groups) for g in range(size) if teaching[p] and any(t[p][g] for t in present)]
    if not batch:
        return [[0.0] * size for _ in range(num_groups)]
    values = [total[p][g] for p, g in batch]
    mean, std = math.fsum(values) / len(values), statistics.stdev(values)
    white = [[0.0] * size for _ in range(num_groups)]
    for p, g in batch:
        white[p][g] = (total[p][g] - mean) / (std + eps)
    return white


@st.composite
def steps(draw):
    """Terms and presence [K][P][G], weights [K], which terms are standardised [K]; a few completions are in no term."""
    num_terms, num_groups, size = draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(2, 6))
    number = st.integers(-8, 8).map(lambda n: n / 8)
    mostly = st.sampled_from([True, True, True, True, False])

    def grid(element):
        return draw(st.lists(st.lists(element, min_size=size, max_size=size), min_size=num_groups, max_size=num_groups))

    whole = grid(mostly)
    terms = [grid(number) for _ in range(num_terms)]
    present = [
        [[a and b for a, b in zip(x, y, strict=True)] for x, y in zip(grid(mostly), whole, strict=True)]
        for _ in range(num_terms)
    ]
    weights = draw(st.lists(st.sampled_from([1.0, 0.25, -2.0, 3.0]), min_size=num_terms, max_size=num_terms))
    standardise = draw(st.lists(mostly, min_size=num_terms, max_size=num_terms))
    return terms, present, weights, standardise


# Numbers by hand


def test_each_term_is_standardised_in_its_group_and_weighed_raw():
    # Group 0: [1, 0, 2] has std 1 -> 0, -1, 1; [10, 30, 20] has std 10 -> -1, 1, 0.
    # Group 1: the first term says nothing; [0, 0, 3] has std sqrt(3) -> -0.5773503, -0.5773503, 1.1547005.
    terms = [[[1.0, 0.0, 2.0], [5.0, 5.0, 5.0]], [[10.0, 30.0, 20.0], [0.0, 0.0, 3.0]]]
    result = mixed("mo_grpo", terms, [2.0, 0.5], eps=0.0)
    assert result.dtype == torch.float32
    assert result[0].tolist() == pytest.approx([-0.5, -1.5, 2.0])
    assert result[1].tolist() == pytest.approx([-0.2886751, -0.2886751, 0.5773503], abs=1e-6)


def test_gdpo_whitens_over_the_batch():
    # As above: squares 0.25 + 2.25 + 4 + 0.0833333 * 2 + 0.3333333 = 7; 7 / 5 -> 1.1832160 (7 / 6 would give 1.0801234)
    terms = [[[1.0, 0.0, 2.0], [5.0, 5.0, 5.0]], [[10.0, 30.0, 20.0], [0.0, 0.0, 3.0]]]
    result = mixed("gdpo", terms, [2.0, 0.5], eps=0.0)
    assert result.dtype == torch.float32
    assert result[0].tolist() == pytest.approx([-0.4225771, -1.2677314, 1.6903085], abs=1e-6)
    assert result[1].tolist() == pytest.approx([-0.2439750, -0.2439750, 0.4879500], abs=1e-6)


def test_eps_is_added_to_both_standard_deviations():
    # z = -0.5, 0.5 over (0.7071068 + 0.5) = -+0.4142136; its std 0.5857864; 0.4142136 / (0.5857864 + 0.5)
    assert mixed("gdpo", [[[0.0, 1.0]]], [1.0], eps=0.5)[0].tolist() == pytest.approx([-0.3814867, 0.3814867], abs=1e-6)


def test_whitening_takes_the_batchs_own_mean_away():
    # Members 1, 3, 8: mean 4; squares 9 + 1 + 16 = 26; 26 / 2 -> 3.6055513
    values = torch.tensor([[1.0, 3.0], [100.0, 8.0]])
    result = whitened(values, torch.tensor([[True, True], [False, True]]), eps=0.0)
    assert result[0].tolist() == pytest.approx([-0.8320503, -0.2773501], abs=1e-6)
    assert result[1].tolist() == pytest.approx([0.0, 1.1094004], abs=1e-6)
    assert result[1, 0].item() == 0.0


@pytest.mark.parametrize("members", [[[False, False]], [[True, False]]])
def test_nothing_to_whiten_is_0(members):
    assert whitened(torch.tensor([[3.0, NAN]]), torch.tensor(members), eps=0.0).tolist() == [[0.0, 0.0]]


def test_a_term_that_is_not_standardised_keeps_its_size():
    # z of [0, 0, 3] as above; [0.001, 0.003, 0.002] only loses its mean.
    result = mixed(
        "mo_grpo", [[[0.0, 0.0, 3.0]], [[1e-3, 3e-3, 2e-3]]], [1.0, -0.5], standardise=[True, False], eps=0.0
    )
    assert result[0].tolist() == pytest.approx([-0.5773503 + 5e-4, -0.5773503 - 5e-4, 1.1547005], abs=1e-6)


# What counts


def test_an_absent_term_gives_nothing_and_enters_no_statistic_of_its_own():
    # [1, ., 3] is -+0.7071068 over 2 members, not 3; the second completion has the other term alone.
    result = mixed("mo_grpo", [[[1.0, NAN, 3.0]], [[0.0, 2.0, 1.0]]], [1.0, 1.0], eps=0.0)
    assert result[0].tolist() == pytest.approx([-0.7071068 - 1.0, 1.0, 0.7071068], abs=1e-6)


@mixtures
@pytest.mark.parametrize("garbage", [NAN, math.inf, 1e30])
def test_a_completion_in_no_term_is_not_there(name, garbage):
    """What scoring makes of a completion on which a weighted term failed."""
    terms = [[[1.0, garbage, 0.0, 2.0]], [[4.0, garbage, 4.0, 1.0]]]
    present = [[[True, False, True, True]]] * 2
    result = mixed(name, terms, [1.0, 0.5], present=present)
    assert result[0, 1].item() == 0.0
    kept = mixed(name, [[[1.0, 0.0, 2.0]], [[4.0, 4.0, 1.0]]], [1.0, 0.5])
    assert_near(result[:, [0, 2, 3]], kept)


@mixtures
@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_a_group_in_which_no_term_varies_is_exactly_0_beside_others(name, eps):
    alone = mixed(name, [[[0.0, 1.0, 2.0]], [[3.0, 0.0, 0.0]]], [1.0, 0.5], eps=eps)
    constant, single = [[0.1, 0.1, 0.1], [0.3, 0.3, 0.3]], [[NAN, 7.0, NAN], [NAN, 5.0, NAN]]
    terms = [[constant[k], [[0.0, 1.0, 2.0], [3.0, 0.0, 0.0]][k], single[k]] for k in range(2)]
    result = mixed(name, terms, [1.0, 0.5], eps=eps)
    assert result[0].tolist() == result[2].tolist() == [0.0, 0.0, 0.0]
    assert_near(result[1:2], alone)


@mixtures
def test_a_term_of_weight_0_makes_no_group_informative(name):
    terms = [[[0.0, 1.0], [2.0, 2.0]], [[5.0, 5.0], [0.0, 9.0]]]
    result = mixed(name, terms, [1.0, 0.0])
    assert result[1].tolist() == [0.0, 0.0]
    assert_near(result[:1], mixed(name, [terms[0][:1]], [1.0]))


@mixtures
def test_no_term_at_all_is_0(name):
    values = torch.zeros(0, 2, 3, dtype=torch.float64)
    result = MIXTURES[name](values, values.bool(), torch.zeros(0), [], eps=1e-4)
    assert result.tolist() == [[0.0] * 3] * 2


# Properties


@mixtures
@given(step=steps(), eps=st.sampled_from([1e-4, 0.5]))
def test_matches_the_formula(name, step, eps):
    terms, present, weights, standardise = step
    expected = looped(name, terms, present, weights, standardise, eps=eps)
    result = mixed(name, terms, weights, present=present, standardise=standardise, eps=eps)
    assert_near(result.double(), torch.tensor(expected, dtype=torch.float64))


@given(step=steps())
def test_standardised_terms_have_mean_0_and_std_1_or_are_exactly_0(step):
    terms, present, _, standardise = step
    values, mask = torch.tensor(terms, dtype=torch.float64), torch.tensor(present)
    result = standardised_terms(values, mask, standardise, eps=0.0)
    assert result.dtype == torch.float64
    assert (result[~mask] == 0).all()
    for k, p in ((k, p) for k in range(len(terms)) for p in range(len(terms[0]))):
        kept, raw = result[k, p][mask[k, p]].tolist(), values[k, p][mask[k, p]].tolist()
        if len(set(raw)) < 2:
            assert kept == [0.0] * len(kept)
        else:
            assert math.fsum(kept) == pytest.approx(0, abs=1e-12)
            assert statistics.stdev(kept) == pytest.approx(1 if standardise[k] else statistics.stdev(raw))


@mixtures
@given(step=steps())
def test_each_group_sums_to_zero(name, step):
    terms, present, weights, standardise = step
    result = mixed(name, terms, weights, present=present, standardise=standardise)
    assert result.double().sum(dim=1).tolist() == pytest.approx([0.0] * len(terms[0]), abs=1e-5)


@mixtures
@given(step=steps(), data=st.data())
def test_reordering_members_groups_and_terms_reorders_advantages(name, step, data):
    terms, present, weights, standardise = step
    ks, ps, gs = (data.draw(st.permutations(range(n))) for n in (len(terms), len(terms[0]), len(terms[0][0])))

    def moved(grids):
        return [[[grids[k][p][g] for g in gs] for p in ps] for k in ks]

    plain = mixed(name, terms, weights, present=present, standardise=standardise)
    result = mixed(
        name,
        moved(terms),
        [weights[k] for k in ks],
        present=moved(present),
        standardise=[standardise[k] for k in ks],
    )
    assert_near(result, plain[list(ps)][:, list(gs)])


@mixtures
@given(step=steps(), shift=st.integers(-8, 8), factor=st.sampled_from([0.5, 4.0, 256.0]))
def test_where_a_term_is_standardised_its_zero_and_its_unit_do_not_matter(name, step, shift, factor):
    terms, present, weights, _ = step
    other = [[[v * factor + shift for v in group] for group in terms[0]], *terms[1:]]
    plain = mixed(name, terms, weights, present=present, eps=1e-12)
    assert_near(mixed(name, other, weights, present=present, eps=1e-12), plain)


@given(step=steps(), factor=st.sampled_from([0.5, 4.0]))
def test_only_proportions_of_weights_matter_to_gdpo(step, factor):
    terms, present, weights, standardise = step
    scaled = [w * factor for w in weights]
    mo = mixed("mo_grpo", terms, weights, present=present, standardise=standardise)
    assert_near(mixed("mo_grpo", terms, scaled, present=present, standardise=standardise), mo * factor)
    if mo.abs().max() > 1e-6:  # terms that cancel everywhere leave nothing but rounding to whiten
        plain = mixed("gdpo", terms, weights, present=present, standardise=standardise, eps=1e-12)
        result = mixed("gdpo", terms, scaled, present=present, standardise=standardise, eps=1e-12)
        assert_near(result, plain)


@given(step=steps())
def test_one_term_is_grpo_whitened_or_not(step):
    (term, *_), (there, *_), _, _ = step
    rewards, valid = torch.tensor(term, dtype=torch.float64), torch.tensor(there)
    plain = group_std(rewards, valid, eps=1e-4)
    assert_near(mixed("mo_grpo", [term], [1.0], present=[there]), plain)
    informative = (plain != 0).any(dim=1, keepdim=True)
    assert_near(mixed("gdpo", [term], [1.0], present=[there]), whitened(plain, valid & informative, eps=1e-4))
    centred = mixed("mo_grpo", [term], [1.0], present=[there], standardise=[False])
    assert_near(centred, group_mean(rewards, valid))
