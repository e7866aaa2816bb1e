"""Statistics of sampled completions, against numbers worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.throughput.statistics import (
    paired_ratio,
    spread,
    summary,
    tail_time_share,
    tail_token_share,
    tokens_over_time,
)


def test_percentiles_are_values_that_were_observed() -> None:
    found = summary([float(value) for value in range(200, 0, -1)])
    assert found == {"mean": 100.5, "p50": 100.0, "p95": 190.0, "p99": 198.0, "max": 200.0}


def test_percentiles_of_few_values_are_the_next_one_up() -> None:
    assert summary([1.0, 2.0, 4.0]) == {"mean": pytest.approx(7 / 3), "p50": 2.0, "p95": 4.0, "p99": 4.0, "max": 4.0}


def test_the_ratio_is_the_median_of_each_rounds_own() -> None:
    # The ratio of the medians would be 30 / 40.
    assert paired_ratio([10.0, 30.0, 90.0], [10.0, 40.0, 100.0]) == 0.9


def test_rounds_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="argument 2 is longer"):
        paired_ratio([1.0], [1.0, 2.0])


def test_the_tail_begins_when_fewer_than_a_quarter_still_run() -> None:
    eight = [(1.0, 4.0)] * 5 + [(1.0, 6.0), (1.0, 8.0), (1.0, 12.0)]
    # 8 run, 2 are a quarter: from second 8 on only one does, to the end of the round at 20.
    assert tail_time_share(eight, started=0.0, ended=20.0) == pytest.approx(12 / 20)


def test_a_lull_in_the_middle_is_no_tail() -> None:
    two_waves = [(0.0, 2.0)] * 4 + [(5.0, 9.0)] * 4
    assert tail_time_share(two_waves, started=0.0, ended=10.0) == pytest.approx(0.1)


def test_sequences_that_follow_one_another_never_ran_together() -> None:
    # Counted together at second 5, two would run at most, and one alone would be no tail at all.
    chain = [(0.0, 5.0)] * 8 + [(5.0, 6.0)]
    assert tail_time_share(chain, started=0.0, ended=10.0) == pytest.approx(0.5)


def test_tail_tokens_are_those_of_completions_over_two_medians() -> None:
    assert tail_token_share([10, 10, 10, 20, 21]) == pytest.approx(21 / 71)
    assert tail_token_share([7, 7, 7]) == 0.0


def test_tokens_count_evenly_between_first_and_last() -> None:
    rates = tokens_over_time([(0.0, 4.0), (1.0, 2.0)], [8, 10], started=0.0, ended=4.0, num_bins=4)
    assert rates == pytest.approx([2.0, 12.0, 2.0, 2.0])


def test_a_completion_of_one_token_is_there_at_once() -> None:
    rates = tokens_over_time([(1.5, 1.5)], [1], started=0.0, ended=4.0, num_bins=4)
    assert rates == pytest.approx([0.0, 1.0, 0.0, 0.0])


@given(
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.integers(1, 500)), min_size=1, max_size=20),
    st.integers(1, 50),
)
def test_no_token_is_lost_over_time(drawn: list[tuple[float, float, int]], num_bins: int) -> None:
    spans = [(min(a, b), max(a, b)) for a, b, _ in drawn]
    lengths = [length for *_, length in drawn]
    rates = tokens_over_time(spans, lengths, started=-1.0, ended=11.0, num_bins=num_bins)
    assert sum(rates) * 12.0 / num_bins == pytest.approx(sum(lengths), rel=1e-6)


def test_spread_is_the_interquartile_range_over_the_median() -> None:
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
