"""The simulated cluster against closed forms, and what must hold whatever it is given."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import ASYNC, ONE_STEP_OFF, SYNC, ScheduleMode
from grpo.schedule.samplers import constant, long_tailed, measured
from grpo.schedule.simulated_cluster import SimulatedCluster
from grpo.schedule.simulated_engine import DecodeCost, SimulatedEngine
from grpo.schedule.simulation import simulate

STALENESS = {SYNC: 0, ONE_STEP_OFF: 1, ASYNC: 2}
COST = DecodeCost(fixed_s=0.5, sequence_s=0.25, prompt_token_s=0.0)


def cluster(**changes: Any) -> SimulatedCluster:
    """One worker that decodes eight sequences at a time, two steps' worth of engine time a step: 20 tokens x 2.5 s."""
    given: dict[str, Any] = {
        "num_workers": 1,
        "max_num_seqs": 8,
        "decode": COST,
        "lengths": constant(20.0),
        "groups_per_step": 2,
        "group_size": 4,
        "learner_s": constant(10.0),
    }
    return SimulatedCluster(**(given | changes))


def test_an_engine_shares_its_time() -> None:
    """Three sequences, two at a time: steps of 1 s with two, of 0.75 s with one."""
    engine = SimulatedEngine(COST, max_num_seqs=2)
    engine.submit(0.0, 7, [4.0, 6.0, 3.0], 0.0)
    assert (engine.num_active, engine.num_waiting) == (2, 1)
    assert engine.next_end() == 4.0
    engine.advance(4.0)
    assert engine.ended() == [(7, 0)] and engine.num_active == 2, "the third takes the place"
    assert engine.next_end() == 6.0, "the second had two tokens left"
    engine.advance(5.0)
    engine.set_speed(5.0, 0.5)
    assert engine.next_end() == 7.0, "the last second takes two"
    engine.advance(7.0)
    engine.set_speed(7.0, 1.0)
    engine.policy_version = 3
    assert engine.ended() == [(7, 0)]
    assert engine.next_end() == 7.75
    engine.advance(7.75)
    assert engine.ended() == [(7, 0)], "it began under version 0"
    assert engine.num_decoded == pytest.approx(13.0) and engine.busy_s == pytest.approx(6.75)


def test_a_prompt_is_read_once_a_group_and_holds_up_all() -> None:
    engine = SimulatedEngine(replace(COST, prompt_token_s=0.1), max_num_seqs=4)
    engine.submit(0.0, 0, [2.0, 2.0], 30.0)
    assert engine.next_end() == pytest.approx(3.0 + 2 * 1.0)


def test_by_turns_a_step_is_the_sum_of_its_parts() -> None:
    """Constant lengths, one worker, one wave: 20 steps of 2.5 s, then judge, learner, sync, controller."""
    found = simulate(
        cluster(judge_s=constant(3.0), sync_s=constant(2.0), overhead_s=constant(1.0)), SYNC, max_staleness=0, steps=4
    )
    assert found.step_s == pytest.approx(50.0 + 3.0 + 10.0 + 2.0 + 1.0)
    assert found.rollout_s == pytest.approx(50.0) and found.learner_s == pytest.approx(10.0)
    assert found.bound_s == pytest.approx(50.0)
    assert found.engine_idle_share == pytest.approx(16 / 66)
    assert found.learner_idle_share == pytest.approx(53 / 66), "waiting for groups"
    assert found.num_by_staleness == {0: 4 * 8}


@pytest.mark.parametrize(("learner_s", "expected"), [(10.0, 50.0), (50.0, 50.0), (120.0, 120.0)])
def test_without_variance_sampling_ahead_reaches_the_bound(learner_s: float, expected: float) -> None:
    for mode in (ONE_STEP_OFF, ASYNC):
        found = simulate(cluster(learner_s=constant(learner_s)), mode, max_staleness=STALENESS[mode], steps=6)
        assert found.bound_s == pytest.approx(expected)
        assert found.step_s == pytest.approx(expected, rel=1e-6), mode


def test_rollout_bound_and_learner_bound_limits() -> None:
    tail = long_tailed(100, 10, 1000)
    slow_engines = cluster(
        num_workers=4,
        lengths=tail,
        groups_per_step=80,
        learner_s=constant(1.0),
        decode=DecodeCost(fixed_s=1, sequence_s=0),
    )
    found = simulate(slow_engines, ASYNC, max_staleness=4, steps=6)
    assert found.engine_unused_share < 0.05 and found.over_bound < 1.05
    assert found.learner_idle_share > 0.95
    slow_learner = replace(slow_engines, learner_s=constant(50 * found.rollout_s))
    found = simulate(slow_learner, ASYNC, max_staleness=4, steps=6)
    assert found.learner_idle_share < 1e-9 and found.over_bound == pytest.approx(1.0)
    assert found.engine_idle_share > 0.9


def test_shared_cores_gain_nothing_from_overlap() -> None:
    """Engine and learner each fill the machine: sampling ahead takes as long as taking turns."""
    shared = cluster(overlap_speed=0.5, learner_s=constant(50.0))
    by_turns = simulate(shared, SYNC, max_staleness=0, steps=4)
    ahead = simulate(shared, ONE_STEP_OFF, max_staleness=1, steps=4)
    assert by_turns.bound_s == pytest.approx(100.0)
    assert by_turns.step_s == pytest.approx(100.0) and ahead.step_s == pytest.approx(100.0)
    alone = simulate(replace(shared, overlap_speed=1.0), ONE_STEP_OFF, max_staleness=1, steps=4)
    assert alone.step_s == pytest.approx(50.0)


def test_groups_in_flight_are_counted_by_their_longest_member() -> None:
    """As many groups as an engine has places for leave it half empty: most members of a group end long before it."""
    tail = cluster(
        num_workers=8,
        lengths=long_tailed(200, 10, 2000),
        groups_per_step=128,
        decode=DecodeCost(fixed_s=1, sequence_s=0),
    )
    enough = simulate(tail, ASYNC, max_staleness=4, steps=6)
    too_few = simulate(tail, ASYNC, max_staleness=4, steps=6, groups_per_worker=2)
    assert enough.engine_unused_share < 0.05
    assert too_few.engine_unused_share > 0.3


@given(
    mode_and_staleness=st.sampled_from([(SYNC, 0), (ONE_STEP_OFF, 1), (ASYNC, 1), (ASYNC, 2), (ASYNC, 5)]),
    num_workers=st.integers(1, 5),
    groups_per_step=st.integers(1, 7),
    max_num_seqs=st.integers(1, 9),
    learner_s=st.sampled_from([0.0, 3.0, 40.0]),
    without_signal=st.sampled_from([0.0, 0.5]),
    overlap_speed=st.sampled_from([0.5, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=120)
def test_nothing_is_lost_and_nothing_too_old(
    mode_and_staleness: tuple[ScheduleMode, int],
    num_workers: int,
    groups_per_step: int,
    max_num_seqs: int,
    learner_s: float,
    without_signal: float,
    overlap_speed: float,
    seed: int,
) -> None:
    mode, max_staleness = mode_and_staleness
    given_ = cluster(
        num_workers=num_workers,
        max_num_seqs=max_num_seqs,
        groups_per_step=groups_per_step,
        group_size=3,
        lengths=long_tailed(5, 10, 60),
        prompt_lengths=measured([3.0, 9.0]),
        judge_s=measured([0.0, 2.0, 11.0]),
        sync_s=measured([0.0, 0.5]),
        overhead_s=measured([0.0, 0.3]),
        learner_s=constant(learner_s),
        learner_token_s=0.01,
        share_without_signal=without_signal,
        overlap_speed=overlap_speed,
        decode=DecodeCost(fixed_s=0.05, sequence_s=0.01, prompt_token_s=0.002),
    )
    warm_up, steps = 2, 5
    found = simulate(given_, mode, max_staleness=max_staleness, steps=steps, warm_up=warm_up, seed=seed)
    assert set(found.num_by_staleness) <= set(range(max_staleness + 1))
    assert found.num_trained == (warm_up + steps) * groups_per_step
    # Every completion of every group of the steps in the account, once each.
    assert sum(found.num_by_staleness.values()) == steps * groups_per_step * 3
    outstanding = found.num_drawn - found.num_trained - found.num_dropped
    assert 0 <= outstanding <= (max_staleness + 1) * groups_per_step * (4 if without_signal else 1)
    assert found.num_expired == 0 or without_signal
    again = simulate(given_, mode, max_staleness=max_staleness, steps=steps, warm_up=warm_up, seed=seed)
    assert again == found, "the same seed, the same run"
    other = simulate(given_, mode, max_staleness=max_staleness, steps=steps, warm_up=warm_up, seed=seed + 1)
    assert other.step_s != found.step_s
    for share in (found.learner_idle_share, found.engine_idle_share, found.engine_unused_share):
        assert -1e-9 <= share <= 1.0


def test_lengths_have_the_spread_that_was_asked_for() -> None:
    drawn = long_tailed(1000, 10, 1e9)(np.random.default_rng(0), 200_000)
    low, high = np.quantile(drawn, [0.5, 0.99])
    assert low == pytest.approx(1000, rel=0.02) and high == pytest.approx(10_000, rel=0.04)
    assert long_tailed(1000, 10, 4096)(np.random.default_rng(0), 10_000).max() == 4096
