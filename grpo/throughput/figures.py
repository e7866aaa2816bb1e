"""From rounds to the figures that are reported, ready for JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from grpo.records import RequestTiming
from grpo.throughput.measure import BARE, KEEL, Measurement
from grpo.throughput.statistics import (
    paired_ratio,
    spread,
    summary,
    tail_time_share,
    tail_token_share,
    tokens_over_time,
)
from grpo.throughput.workload import Round

#: Least tokens/s of Keel over bare vLLM's.
MIN_RATIO = 0.97
_NUM_BINS = 40


def figures(measured: Measurement) -> dict[str, Any]:
    """All figures.

    Returns:
        `requests` (of each prompt its uid, task, tokens and lengths asked for, [G] or null), `arms` (see
        `arm_figures`), `paired_ratio` and `paired_ratios` of tokens/s, Keel's over bare vLLM's, and `missed`, the bars
        that were missed.
    """
    rates = {name: [one.tokens_per_s for one in rounds] for name, rounds in measured.rounds.items()}
    ratio = paired_ratio(rates[KEEL], rates[BARE])
    return {
        "paired_ratio": ratio,
        "paired_ratios": [ours / theirs for ours, theirs in zip(rates[KEEL], rates[BARE], strict=True)],
        "missed": misses(ratio),
        "arms": {name: arm_figures(rounds) for name, rounds in measured.rounds.items()},
        "requests": [
            {
                "uid": request.prompt.uid,
                "task_id": request.prompt.task.task_id,
                "num_prompt_tokens": len(request.prompt.token_ids),
                "lengths": request.lengths,
            }
            for request in measured.requests
        ],
    }


def misses(ratio: float) -> list[str]:
    """The bar, where it was missed."""
    return [] if ratio >= MIN_RATIO else [f"Keel samples at {ratio:.3f} of bare vLLM's tokens/s, not {MIN_RATIO}"]


def arm_figures(rounds: Sequence[Round]) -> dict[str, Any]:
    """Figures of one arm.

    Returns:
        `tokens_per_s`, of all engines, and `tokens_per_s_by_worker`: medians over rounds. `spread` of the former:
        interquartile range over median. `prefix_cache_hit_rate`: prompt tokens found in the cache over those asked for,
        in all rounds. Of all completions of all rounds `queue_s` (admission to the first batch), `first_token_s`
        (admission to first token), `latency_s` (admission to last token) and `length` (tokens), each as by `summary`.
        `tail_time_share` and `tail_token_share`: medians over rounds. `rounds`: each one's seconds, tokens, tokens/s
        and `tokens_per_s_over_time`, in 40 equal parts.
    """
    rates = [one.tokens_per_s for one in rounds]
    groups = [group for one in rounds for group in one.groups]
    timings = [timing for group in groups for timing in group.timings]
    asked = sum(group.num_prompt_tokens for group in groups)
    return {
        "tokens_per_s": median(rates),
        "tokens_per_s_by_worker": _by_worker(rounds),
        "spread": spread(rates),
        "prefix_cache_hit_rate": sum(group.num_cached_tokens for group in groups) / asked,
        "queue_s": summary([t.scheduled_s - t.admitted_s for t in timings]),
        "first_token_s": summary([t.first_token_s - t.admitted_s for t in timings]),
        "latency_s": summary([t.finished_s - t.admitted_s for t in timings]),
        "length": summary([length for group in groups for length in group.lengths]),
        "tail_time_share": median(_tail_time(one) for one in rounds),
        "tail_token_share": median(tail_token_share(_lengths(one)) for one in rounds),
        "rounds": [_round(one) for one in rounds],
    }


def latencies(measured: Measurement) -> Mapping[str, list[float]]:
    """Seconds from admission to last token, of every completion by arm."""
    return {
        name: [t.finished_s - t.admitted_s for one in rounds for t in _timings(one)]
        for name, rounds in measured.rounds.items()
    }


def _by_worker(rounds: Sequence[Round]) -> dict[str, float]:
    workers = sorted({group.worker for one in rounds for group in one.groups})
    return {str(worker): median(_tokens_of(one, worker) / one.elapsed_s for one in rounds) for worker in workers}


def _tokens_of(one: Round, worker: int) -> int:
    return sum(sum(group.lengths) for group in one.groups if group.worker == worker)


def _round(one: Round) -> dict[str, Any]:
    over_time = tokens_over_time(
        _running(one), _lengths(one), started=one.started_s, ended=one.ended_s, num_bins=_NUM_BINS
    )
    return {
        "elapsed_s": one.elapsed_s,
        "num_tokens": one.num_tokens,
        "tokens_per_s": one.tokens_per_s,
        "tokens_per_s_over_time": over_time,
    }


def _tail_time(one: Round) -> float:
    return tail_time_share(_running(one), started=one.started_s, ended=one.ended_s)


def _running(one: Round) -> list[tuple[float, float]]:
    return [(t.first_token_s, t.finished_s) for t in _timings(one)]


def _timings(one: Round) -> list[RequestTiming]:
    return list(chain.from_iterable(group.timings for group in one.groups))


def _lengths(one: Round) -> list[int]:
    return list(chain.from_iterable(group.lengths for group in one.groups))
