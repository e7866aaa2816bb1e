"""The three mixing rules over domains, gates, failed and absent terms, against plain float64 loops."""

from __future__ import annotations

import math
from statistics import stdev

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import AdvantageKind, AlgorithmConfig, Mixture
from grpo.scoring import score_groups
from rewards.mixture import Gate, TermWeights
from tests.builders import make_judged

NAN = math.nan
TERMS = ("unit_tests", "b", "c")
#: Valid, failed (NaN), absent (None).
values = st.sampled_from([0.0, 0.25, 0.5, 1.0, -1.0, NAN, None])
weights = st.fixed_dictionaries({}, optional={name: st.sampled_from([0.0, 1.0, 0.5, -2.0, 3.0]) for name in TERMS})
EPS = 1e-4


@st.composite
def steps(draw):
    """Groups of (domain, {term: [G]}), mixtures of two domains, gates."""
    size = draw(st.integers(2, 4))
    column = st.lists(values, min_size=size, max_size=size)
    groups = draw(
        st.lists(
            st.tuples(st.sampled_from(["code", "talk"]), st.fixed_dictionaries(dict.fromkeys(TERMS, column))),
            min_size=1,
            max_size=4,
        )
    )
    mixtures = {"code": draw(weights), "talk": draw(weights)}
    gates = draw(st.sampled_from([{}, {"b": Gate(term="unit_tests", at_least=0.5)}]))
    return groups, mixtures, gates


def through_gates(terms, gates):
    """Terms as they enter the mixture; None absent, NaN failed."""
    counted = {name: list(column) for name, column in terms.items()}
    for name, gate in gates.items():
        for i, by in enumerate(terms[gate.term]):
            if by is not None and terms[name][i] is not None:
                counted[name][i] = NAN if math.isnan(by) else counted[name][i] * (by >= gate.at_least)
    return counted


def rewards_of(terms, mixture):
    """R of each completion; NaN where a weighted term failed or none is there."""
    mixed = []
    for i in range(len(terms["unit_tests"])):
        there = [(w, terms[name][i]) for name, w in mixture.items() if w and terms[name][i] is not None]
        mixed.append(math.fsum(w * r for w, r in there) if there else NAN)
    return mixed


def standardised(column, valid):
    """(r - mean) / (std + eps) over the members that are there; 0 for the others and without two different values."""
    kept = [r for r, v in zip(column, valid, strict=True) if v]
    if len(set(kept)) < 2:
        return [0.0] * len(column)
    mean, spread = math.fsum(kept) / len(kept), stdev(kept) + EPS
    return [(r - mean) / spread if v else 0.0 for r, v in zip(column, valid, strict=True)]


def expected(rule, groups, mixtures):
    """Advantages of every group, [P][G], and which groups some weighted term can tell apart."""
    advantages, members, teaches = [], [], []
    for domain, terms in groups:
        mixture = {name: w for name, w in mixtures[domain].items() if w}
        rewards = rewards_of(terms, mixture)
        valid = [not math.isnan(r) for r in rewards]
        if rule is Mixture.weighted_sum:
            advantages.append(standardised(rewards, valid))
            continue
        total, seen, teaching = [0.0] * len(rewards), [False] * len(rewards), False
        for name, weight in mixture.items():
            there = [v and terms[name][i] is not None for i, v in enumerate(valid)]
            z = standardised(terms[name], there)
            teaching = teaching or any(z)
            total = [t + weight * one for t, one in zip(total, z, strict=True)]
            seen = [a or b for a, b in zip(seen, there, strict=True)]
        advantages.append(total)
        members.append(seen)
        teaches.append(teaching)
    if rule is not Mixture.gdpo:
        return advantages
    batch = [(p, g) for p, seen in enumerate(members) for g, m in enumerate(seen) if m and teaches[p]]
    white = [[0.0] * len(row) for row in advantages]
    if len(batch) > 1:
        flat = [advantages[p][g] for p, g in batch]
        mean, spread = math.fsum(flat) / len(flat), stdev(flat) + EPS
        for p, g in batch:
            white[p][g] = (advantages[p][g] - mean) / spread
    return white


@pytest.mark.parametrize("rule", list(Mixture))
@settings(max_examples=300)
@given(step=steps())
def test_every_rule_over_domains_gates_failures_and_absence(rule, step):
    groups, mixtures, gates = step
    judged = [
        make_judged(terms["unit_tests"], others={n: terms[n] for n in TERMS[1:]}, uid=uid, domain=domain)
        for uid, (domain, terms) in enumerate(groups)
    ]
    config = AlgorithmConfig(mixture=rule, advantage=AdvantageKind.group_std, advantage_eps=EPS)
    asked = TermWeights(default={"unit_tests": 1.0}, by_domain=mixtures, gates=gates)
    scored = score_groups(judged, asked, config, max_new_tokens=8)
    counted = [(domain, through_gates(terms, gates)) for domain, terms in groups]
    for found, wanted in zip(scored, expected(rule, counted, mixtures), strict=True):
        assert found.advantages.tolist() == pytest.approx(wanted, rel=1e-5, abs=1e-6)
    for found, (domain, terms) in zip(scored, counted, strict=True):
        mixed = rewards_of(terms, mixtures[domain])
        assert found.rewards.tolist() == pytest.approx(mixed, rel=1e-6, nan_ok=True)
        assert all((a == 0.0) or not math.isnan(r) for a, r in zip(found.advantages.tolist(), mixed, strict=True))


def test_each_domain_has_its_own_mixture():
    asked = TermWeights(default={"unit_tests": 1.0}, by_domain={"talk": {"b": 2.0, "unit_tests": 0.0}})
    others = {"b": [3.0, 1.0]}
    judged = [make_judged([1.0, 0.0], others=others, domain=d, uid=i) for i, d in enumerate(["code", "talk"])]
    code, talk = score_groups(judged, asked, AlgorithmConfig(), max_new_tokens=8)
    assert code.rewards.tolist() == [1.0, 0.0]
    assert talk.rewards.tolist() == [6.0, 2.0]
    assert talk.verdicts["unit_tests"][0].value == 1.0  # logged


def test_a_term_that_a_domain_does_not_compute_is_missed_by_nobody():
    asked = TermWeights(default={"unit_tests": 1.0}, by_domain={"talk": {"b": 1.0}})
    talk = make_judged([1.0, 0.0], others={"b": [0.0, 1.0]}, domain="talk", uid=1)
    judged = [make_judged([1.0, 0.0]), talk]
    for rule in Mixture:
        first, second = score_groups(judged, asked, AlgorithmConfig(mixture=rule), max_new_tokens=8)
        assert first.advantages[0] > 0 > first.advantages[1]
        assert second.advantages[0] < 0 < second.advantages[1]


def test_a_closed_gate_is_reported_and_the_raw_value_kept():
    gates = {"b": Gate(term="unit_tests", at_least=1.0)}
    asked = TermWeights(default={"unit_tests": 0.0, "b": 1.0}, gates=gates)
    [scored] = score_groups(
        [make_judged([1.0, 0.5, NAN, None], others={"b": [0.5, 0.75, 0.25, 0.125]})],
        asked,
        AlgorithmConfig(),
        max_new_tokens=8,
    )
    assert scored.rewards.tolist() == pytest.approx([0.5, 0.0, NAN, 0.125], nan_ok=True)
    assert [v.value for v in scored.verdicts["b"]] == [0.5, 0.75, 0.25, 0.125]
    assert scored.num_gated == {"b": 1}


def test_a_missing_term_is_said_not_guessed():
    asked = TermWeights(default={"unit_tests": 1.0, "b": 1.0})
    with pytest.raises(ValueError, match="names b, but only"):
        score_groups([make_judged([1.0, 0.0])], asked, AlgorithmConfig(), max_new_tokens=8)
