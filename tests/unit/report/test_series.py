from __future__ import annotations

import math

import pytest

from grpo.report.series import (
    compare_quarters,
    format_duration,
    format_number,
    reward_terms,
    rolling_mean,
    time_shares,
)


def test_rolling_mean_trails_and_skips_nan() -> None:
    assert rolling_mean([1.0, math.nan, 3.0, 5.0], window=2) == [1.0, 1.0, 3.0, 4.0]
    assert math.isnan(rolling_mean([math.nan])[0])


def test_quarters_by_hand() -> None:
    quarters = compare_quarters([0.0, 2.0, 9.0, 9.0, 9.0, 9.0, 4.0, 8.0])
    assert quarters is not None
    assert (quarters.first, quarters.last, quarters.difference, quarters.num_steps) == (1.0, 6.0, 5.0, 2)
    # Variances 2 and 8 (Bessel), two steps each: sqrt((2 + 8) / 2).
    assert quarters.standard_error == pytest.approx(math.sqrt(5.0))


def test_quarters_of_short_runs() -> None:
    assert compare_quarters([1.0]) is None
    short = compare_quarters([1.0, math.nan, 3.0])
    assert short is not None
    assert short.difference == 2.0
    assert math.isnan(short.standard_error)


def test_reward_terms_are_those_with_a_mean() -> None:
    row = {"reward/mean": 1.0, "reward/b/mean": 1.0, "reward/a/mean": 1.0, "reward/a/failed": 0.0, "x/y/mean": 1.0}
    assert reward_terms([row]) == ["b", "a"]


def test_time_shares() -> None:
    assert time_shares({"time/rollout_s": 3.0, "time/learner_s": 1.0, "time/idle_s": math.nan}) == {
        "rollout": 0.75,
        "learner": 0.25,
    }
    assert time_shares({}) == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.73849, "0.738"),
        (0.00123, "0.0012"),
        (-9.8, "-9.80"),
        (40.0, "40.0"),
        (983.6, "984"),
        (4250.0, "4,250"),
        (1e-6, "1.0e-06"),
        (math.nan, "-"),
        (math.inf, "inf"),
    ],
)
def test_format_number(value: float, text: str) -> None:
    assert format_number(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3723, "1:02:03"), (math.nan, "-")])
def test_format_duration(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
