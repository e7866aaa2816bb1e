"""From rounds to figures, and what is refused: options, and rounds that can't be compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from grpo.config import RunConfig
from grpo.errors import ConfigError, WorkerError
from grpo.records import RequestTiming
from grpo.throughput.figures import arm_figures, figures
from grpo.throughput.measure import BARE, KEEL, Measurement, check
from grpo.throughput.workload import Options, Request, Round, SampledGroup, measured_config, replayed
from tests.builders import make_completion, make_group


def timing(admitted: float, scheduled: float, first: float, finished: float) -> RequestTiming:
    return RequestTiming(admitted_s=admitted, scheduled_s=scheduled, first_token_s=first, finished_s=finished)


def one_round(elapsed_s: float = 10.0) -> Round:
    first = SampledGroup(
        uid=0,
        worker=0,
        num_prompt_tokens=6,
        num_cached_tokens=2,
        lengths=(4, 6),
        timings=(timing(100.0, 101.0, 102.0, 104.0), timing(100.0, 101.0, 102.0, 106.0)),
    )
    second = replace(first, uid=1, worker=1, num_cached_tokens=0, lengths=(10, 20))
    return Round(started_s=100.0, ended_s=100.0 + elapsed_s, groups=(first, second))


def requests(*lengths: tuple[int, ...] | None) -> list[Request]:
    prompts = [make_group([make_completion([3])], uid=uid, prompt=(1, 2, 3)).prompt for uid in range(len(lengths))]
    return [Request(prompt=prompt, lengths=each) for prompt, each in zip(prompts, lengths, strict=True)]


def test_figures_of_an_arm() -> None:
    found = arm_figures([one_round(), one_round(8.0), one_round()])
    assert found["tokens_per_s"] == 4.0 and found["tokens_per_s_by_worker"] == {"0": 1.0, "1": 3.0}
    assert found["prefix_cache_hit_rate"] == pytest.approx(2 / 12)
    assert found["queue_s"]["p50"] == 1.0 and found["first_token_s"]["max"] == 2.0
    assert found["latency_s"]["mean"] == pytest.approx(5.0) and found["latency_s"]["p99"] == 6.0
    assert found["length"]["mean"] == 10.0 and found["tail_token_share"] == pytest.approx(20 / 40)
    assert [one["num_tokens"] for one in found["rounds"]] == [40, 40, 40]


def test_a_bar_that_is_missed_is_named_with_its_number() -> None:
    asked = tuple(requests((4, 6), (10, 20)))
    slow = figures(Measurement(requests=asked, rounds={KEEL: (one_round(10.0),), BARE: (one_round(9.0),)}))
    assert slow["paired_ratios"] == [pytest.approx(0.9)]
    assert slow["missed"] == ["Keel samples at 0.900 of bare vLLM's tokens/s, not 0.97"]
    equal = figures(Measurement(requests=asked, rounds={KEEL: (one_round(),), BARE: (one_round(),)}))
    assert equal["missed"] == [] and equal["requests"][1]["lengths"] == (10, 20)


def test_lengths_are_replayed_by_prompt_whatever_order_groups_came_in() -> None:
    backwards = replace(one_round(), groups=one_round().groups[::-1])
    assert [one.lengths for one in replayed(requests(None, None), backwards)] == [(4, 6), (10, 20)]


def test_a_round_of_other_lengths_or_groups_is_not_compared() -> None:
    check("keel", requests((4, 6), (10, 20)), one_round())
    check("keel", requests(None, None), one_round())
    with pytest.raises(WorkerError, match=r"keel.*\(10, 20\) tokens for prompt 1.*\(10, 21\)"):
        check("keel", requests((4, 6), (10, 21)), one_round())
    with pytest.raises(WorkerError, match="other groups"):
        check("keel", requests((4, 6)), one_round())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 0}, "--groups=0: there is nothing to sample. Set 1 or more."),
        ({"rounds": 0}, "--rounds=0: a ratio takes a round. Set 1 or more (5 is usual)."),
    ],
)
def test_options_that_measure_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Options(**options)
    assert str(caught.value) == message


@pytest.mark.parametrize(("device", "share"), [("cpu", 0.8), ("cuda", 0.4)])
def test_engines_that_share_a_gpu_take_half_of_it_each(device: str, share: float) -> None:
    config = RunConfig()
    config.rollout.gpu_memory_utilization = 0.8
    config.rollout.engine_args = {"seed": 3}
    measured = measured_config(config, device).rollout
    assert measured.gpu_memory_utilization == share
    assert measured.engine_args == {"seed": 3, "disable_log_stats": False}
    assert config.rollout.engine_args == {"seed": 3}  # training keeps no statistics
