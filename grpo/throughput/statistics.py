"""Statistics of what was sampled; pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np

#: Fewer running sequences than this share of the most there were: the engine decodes a tail.
TAIL_RUNNING = 0.25
#: A completion longer than so many medians is of the tail.
TAIL_LENGTH = 2.0

Spans = Sequence[tuple[float, float]]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Mean, maximum, and 50th, 95th and 99th percentile; needs one value.

    A percentile is the smallest value that so many per cent of the values do not exceed (nearest rank).
    """
    p50, p95, p99 = np.percentile(values, [50, 95, 99], method="inverted_cdf")
    found = {"mean": np.mean(values), "p50": p50, "p95": p95, "p99": p99, "max": np.max(values)}
    return {name: float(value) for name, value in found.items()}


def paired_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over rounds of the ratio in that round: what slows a machine down for a while falls on both."""
    return median(a / b for a, b in zip(ours, theirs, strict=True))


def tail_time_share(running: Spans, *, started: float, ended: float) -> float:
    """Share of a round after the last moment at which `TAIL_RUNNING` of the most sequences, or more, still ran.

    Args:
        running: when each sequence was being decoded.
        started, ended: of the round; all spans lie within.
    """
    # An end before a beginning at the same moment: one sequence follows another, they never ran together.
    events = sorted([(start, 1) for start, _ in running] + [(end, -1) for _, end in running])
    counts = np.cumsum([step for _, step in events])
    least = TAIL_RUNNING * counts.max()
    last = max(i for i in range(len(events)) if counts[i] >= least)
    return (ended - events[last + 1][0]) / (ended - started)


def tail_token_share(lengths: Sequence[int]) -> float:
    """Share of all tokens that are in completions longer than `TAIL_LENGTH` medians."""
    limit = TAIL_LENGTH * median(lengths)
    return sum(length for length in lengths if length > limit) / sum(lengths)


def tokens_over_time(
    running: Spans, lengths: Sequence[int], *, started: float, ended: float, num_bins: int
) -> list[float]:
    """Tokens per second in each of `num_bins` equal parts of a round.

    A completion's tokens count evenly between its first and its last; those of one without duration, all at once.
    """
    edges = np.linspace(started, ended, num_bins + 1)
    begins, ends = np.asarray(running, dtype=np.float64).T
    durations = np.maximum(ends - begins, 1e-9)
    done = np.clip((edges[:, None] - begins) / durations, 0.0, 1.0) @ np.asarray(lengths, dtype=np.float64)
    return (np.diff(done) / np.diff(edges)).tolist()


def spread(values: Sequence[float]) -> float:
    """Interquartile range over median."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float((high - low) / middle)
