"""The weighted sum of terms, against the formula, and which groups hold a signal."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.base import Outcome, RewardError, Verdict
from rewards.mixture import GATED, Gate, TermWeights, gated, has_signal, weighted_sum

numbers = st.floats(-1e3, 1e3, allow_subnormal=False)
verdicts = st.one_of(numbers.map(Verdict.valid), st.just(Verdict.failed("x")), st.just(Verdict.absent()))


def test_by_hand() -> None:
    terms = {"a": [Verdict.valid(0.5), Verdict.valid(1.0)], "b": [Verdict.valid(2.0), Verdict.absent()]}
    assert weighted_sum(terms, {"a": 1.0, "b": 0.25}) == [1.0, 1.0]  # the weights add up to 1.25 and stay so


def test_a_failed_term_is_not_zero() -> None:
    assert math.isnan(weighted_sum({"a": [Verdict.failed("crash")], "b": [Verdict.valid(1)]}, {"a": 0.1, "b": 1})[0])


def test_a_term_of_weight_zero_is_only_logged() -> None:
    terms = {"a": [Verdict.failed("crash")], "b": [Verdict.valid(1.0)], "unweighted": [Verdict.failed("crash")]}
    assert weighted_sum(terms, {"a": 0.0, "b": 2.0}) == [2.0]


def test_nothing_to_mix_is_nan() -> None:
    assert math.isnan(weighted_sum({"a": [Verdict.absent()], "b": [Verdict.valid(1)]}, {"a": 1.0, "b": 0.0})[0])
    assert math.isnan(weighted_sum({"a": [Verdict.valid(1.0)]}, {"a": 0.0})[0])
    assert weighted_sum({"a": []}, {"a": 1.0}) == []


def test_impossible_mixtures_are_refused() -> None:
    with pytest.raises(RewardError, match=r"reward\.weights names b, but only \['a'\]"):
        weighted_sum({"a": [Verdict.valid(1)]}, {"a": 1.0, "b": 1.0})
    with pytest.raises(RewardError, match="different numbers of attempts"):
        weighted_sum({"a": [Verdict.valid(1)], "b": []}, {"a": 1.0, "b": 1.0})


@settings(deadline=None, database=None)
@given(st.data(), st.integers(1, 3), st.integers(1, 5))
def test_formula(data: st.DataObject, num_terms: int, group: int) -> None:
    names = [f"term{k}" for k in range(num_terms)]
    terms = {name: data.draw(st.lists(verdicts, min_size=group, max_size=group)) for name in names}
    weights = {name: data.draw(st.one_of(st.just(0.0), numbers)) for name in names}
    for index, mixed in enumerate(weighted_sum(terms, weights)):
        weighted = [(weights[name], terms[name][index]) for name in names if weights[name]]
        valid = [w * v.value for w, v in weighted if v.outcome is Outcome.VALID]
        if not valid or any(v.outcome is Outcome.FAILED for _, v in weighted):
            assert math.isnan(mixed)
        else:
            assert mixed == pytest.approx(sum(valid), rel=1e-9, abs=1e-6)


@settings(deadline=None, database=None)
@given(st.lists(numbers, min_size=1, max_size=5), numbers.filter(bool))
def test_scaling_a_weight_scales_the_reward(values: list[float], weight: float) -> None:
    terms = {"a": [Verdict.valid(value) for value in values]}
    once, twice = weighted_sum(terms, {"a": weight}), weighted_sum(terms, {"a": 2 * weight})
    assert twice == pytest.approx([2 * value for value in once], abs=1e-300)


def column(*values: float | None) -> list[Verdict]:
    """NaN: failed; None: absent."""
    return [
        Verdict.absent() if v is None else Verdict.failed("x") if math.isnan(v) else Verdict.valid(v) for v in values
    ]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (column(1, 1, 1), column(2, 2, 2), False),
        (column(1, 1, 0), column(2, 2, 2), True),
        (column(1, 0), column(0, 1), True),  # the sum is constant, the terms are not
        (column(1, 1, 1), column(None, 0, None), False),
        (column(1, 1, 1), column(None, 2, None), True),  # no term varies, but one is absent, so the sum does
        (column(1, None, 0), column(None, 2, None), True),
        (column(1, 0), column(2, math.nan), False),  # one completion is left
        (column(1, 1, 0), column(2, 2, math.nan), False),  # the one that differs is invalid as a whole
        (column(1, 1, 0), column(2, math.nan, 2), True),
        (column(math.nan, math.nan), column(1, 2), False),
        (column(None, None), column(None, None), False),
        (column(0.0, -0.0), column(1, 1), False),
    ],
)
def test_a_signal_is_a_term_that_varies(a: list[Verdict], b: list[Verdict], expected: bool) -> None:
    assert has_signal({"a": a, "b": b}, {"a": 1.0, "b": -0.5}) is expected


def test_a_term_that_is_only_logged_is_no_signal() -> None:
    terms = {"a": column(1, 1), "b": column(0, 1), "unweighted": column(3, 4)}
    assert not has_signal(terms, {"a": 1.0, "b": 0.0})
    assert not has_signal(terms, {"b": 0.0})
    assert has_signal({**terms, "b": column(math.nan, math.nan), "a": column(0, 1)}, {"a": 1.0, "b": 0.0})


@given(st.data(), st.integers(1, 3), st.integers(1, 5))
def test_without_a_signal_the_sum_is_constant(data: st.DataObject, num_terms: int, group: int) -> None:
    names = [f"term{k}" for k in range(num_terms)]
    few = st.one_of(st.integers(0, 1).map(float).map(Verdict.valid), st.sampled_from(column(None, math.nan)))
    terms = {name: data.draw(st.lists(few, min_size=group, max_size=group)) for name in names}
    weights = {name: data.draw(st.sampled_from([0.0, 1.0, -0.5])) for name in names}
    kept = {reward for reward in weighted_sum(terms, weights) if not math.isnan(reward)}
    assert has_signal(terms, weights) or len(kept) <= 1


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("pattern>=1", Gate(term="pattern", at_least=1.0)),
        ("  unit_tests >= 0.5 ", Gate(term="unit_tests", at_least=0.5)),
        ("a.b>=-1e-3", Gate(term="a.b", at_least=-1e-3)),
    ],
)
def test_gates_are_written_in_one_line(text: str, gate: Gate) -> None:
    assert Gate.parse(text) == gate


@pytest.mark.parametrize(
    "text", ["", "pattern", "pattern>1", ">=1", "pattern>=", "pattern>=x", "pattern>=nan", "a>=1>=2"]
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    with pytest.raises(RewardError, match="is no condition of the form TERM>=NUMBER"):
        Gate.parse(text)


def test_gates_by_hand() -> None:
    by = [Verdict.valid(1.0), Verdict.valid(0.5), Verdict.failed("x"), Verdict.absent("no_tests")]
    term = [Verdict.valid(2.0, {"n": 1}) for _ in by]
    found = gated({"a": by, "b": term}, {"b": Gate(term="a", at_least=1.0)})
    assert found["a"] == tuple(by)
    assert [v.value for v in found["b"][:2]] == [2.0, 0.0]
    assert [v.reason for v in found["b"]] == ["", GATED, "gate_failed", ""]
    assert [v.outcome for v in found["b"]] == [Outcome.VALID, Outcome.VALID, Outcome.FAILED, Outcome.VALID]
    assert found["b"][1].details == {"n": 1}


def test_a_gate_opens_nothing() -> None:
    by, term = [Verdict.valid(1.0)] * 2, [Verdict.failed("x"), Verdict.absent()]
    assert gated({"a": by, "b": term}, {"b": Gate(term="a", at_least=0.0)})["b"] == tuple(term)


def test_a_mixture_of_a_domain_replaces_the_default() -> None:
    weights = TermWeights(default={"a": 1.0, "b": 0.0}, by_domain={"talk": {"c": 2.0}})
    assert weights.of("code") == {"a": 1.0, "b": 0.0}
    assert weights.of("talk") == {"c": 2.0}
    assert weights.terms == ("a", "b", "c")
