"""What the controller itself costs: the stream of groups, its schedule, ledger and queues, scoring, metrics of a step.

Engines and reward workers are replaced by ones that answer at once, or after a random time; there is no learner, no
Ray and no file. All else is what a run uses. Throughput is per second of CPU time, so on one core; the work of the
stand-ins (a record for each group) is part of it. Peak memory is that of the resident set above what was there before.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from common import arguments, exit_missed, print_table, write_json
from measuring import PeakMemory
from transformers import AutoTokenizer

from grpo.collection import StreamingCollector
from grpo.config import RunConfig
from grpo.data.prompts import PromptStream
from grpo.data.sources import load_tasks
from grpo.fleet import Fleet
from grpo.models import resolve_model
from grpo.records import Completion, FinishReason, Group, JudgedGroup, Prompt
from grpo.report.display import make_display
from grpo.schedule.intake import Intake
from grpo.scoring import score_groups
from grpo.step_metrics import rollout_metrics, staleness_metrics
from launch.configuration import load_config
from rewards.base import Verdict

#: Completions a second, on one core.
REQUIRED_RATE = 5000.0
#: Cost of a completion in the longest run over that in the shortest.
MAX_GROWTH = 1.5
#: Peak memory of the longest run above that of the second shortest; later ones need no more, but for what an allocator
#: keeps.
MAX_MEMORY_GROWTH = 32 << 20
SIZES = (10**3, 10**4, 10**5, 10**6)
OVERRIDES = (
    "experiment=tiny_cpu",
    "schedule.mode=async",
    "rollout.num_workers=16",
    "rollout.prompts_per_step=64",
    "rollout.group_size=8",
    "rollout.max_num_seqs=64",
    "rollout.max_new_tokens=512",
    "model.max_length=1024",
    "learner.micro_batch_tokens=1024",
)
TERM = "unit_tests"
_NUM_KINDS = 64


class InstantFleet:
    """Engines and reward workers that have their answers ready.

    Args:
        mean_delay_s: of a group, exponential; 0 answers at once.
    """

    log_dir = Path("logs")

    def __init__(self, config: RunConfig, mean_delay_s: float) -> None:
        self.rewards = self
        self.policy_version = 0
        self._delay_s, self._random = mean_delay_s, np.random.default_rng(0)
        random, size = np.random.default_rng(1), config.rollout.group_size
        self._completions = [
            tuple(_completion(int(random.integers(16, config.rollout.max_new_tokens))) for _ in range(size))
            for _ in range(_NUM_KINDS)
        ]
        self._verdicts = [
            tuple(Verdict.valid(float(value)) for value in random.integers(0, 2, size)) for _ in range(_NUM_KINDS)
        ]
        self._stamped: tuple[int, list[tuple[Completion, ...]]] = (-1, [])

    async def seed(self, seeds: Sequence[int]) -> None:
        """Nothing to seed."""

    async def sample(self, worker: int, prompt: Prompt) -> Group:
        """Completions of the weights that are in force."""
        version = self.policy_version
        if self._stamped[0] != version:
            stamped = [
                tuple(replace(c, version_spans=((version, len(c.token_ids)),)) for c in group)
                for group in self._completions
            ]
            self._stamped = (version, stamped)
        completions = self._stamped[1][prompt.uid % _NUM_KINDS]
        await asyncio.sleep(self._random.exponential(self._delay_s) if self._delay_s else 0)
        return Group(prompt=prompt, completions=completions, worker=worker, latency_s=1.0, num_cached_prompt_tokens=0)

    async def judge(self, group: Group) -> JudgedGroup:
        """Verdicts that are known already."""
        return JudgedGroup(group=group, verdicts={TERM: self._verdicts[group.prompt.uid % _NUM_KINDS]})


def _completion(length: int) -> Completion:
    return Completion(
        token_ids=np.zeros(length, dtype=np.int64),
        behavior_logprobs=np.full(length, -1.0, dtype=np.float32),
        text="",
        finish_reason=FinishReason.STOP,
        version_spans=((0, length),),
    )


async def run(config: RunConfig, prompts: PromptStream, mean_delay_s: float) -> None:
    """Every step of a run, as `Controller._one_step` makes them, without learner, weight sync and files."""
    fleet = InstantFleet(config, mean_delay_s)
    intake = Intake(config, prompts)
    display = make_display(True, None)
    collector = StreamingCollector(config, cast("Fleet", fleet), intake, display, finished_steps=0)
    await collector.start()
    try:
        for step in range(1, config.steps + 1):
            judged, _ = await collector.collect(step)
            scored = score_groups(
                judged, config.reward.term_weights, config.algorithm, max_new_tokens=config.rollout.max_new_tokens
            )
            metrics = intake.commit(judged) | collector.metrics()
            await collector.quiesce()
            fleet.policy_version = step
            collector.advance(step)
            metrics |= rollout_metrics(scored, prompts.domains) | staleness_metrics(scored, step)
            assert metrics["staleness/max"] <= config.schedule.staleness
    finally:
        await collector.close()


def measured(config: RunConfig, prompts: PromptStream, num_completions: int, mean_delay_s: float) -> dict[str, Any]:
    """One run of about so many completions."""
    per_step = config.num_sequences
    steps = max(2, round(num_completions / per_step))
    config = replace(config, steps=steps)
    with PeakMemory(torch.device("cpu")) as peak:
        started, cpu_started = time.perf_counter(), time.process_time()
        asyncio.run(run(config, prompts, mean_delay_s))
        cpu_s, wall_s = time.process_time() - cpu_started, time.perf_counter() - started
    made = steps * per_step
    return {
        "completions": made,
        "mean_delay_s": mean_delay_s,
        "cpu_s": cpu_s,
        "wall_s": wall_s,
        "per_s": made / cpu_s,
        "us_each": 1e6 * cpu_s / made,
        "peak_extra_bytes": peak.extra_bytes,
    }


def parse() -> argparse.Namespace:
    """Options."""
    parser = arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="completions of a run")
    parser.add_argument("--delay-ms", type=float, default=20.0, help="mean delay of a group, in a run of its own")
    return parser.parse_args()


def misses(found: Sequence[dict[str, Any]]) -> list[str]:
    """The bars that were missed by runs of growing size."""
    missed = [
        f"{one['completions']} completions: {one['per_s']:.0f} a second, {REQUIRED_RATE:.0f} are required"
        for one in found
        if one["per_s"] < REQUIRED_RATE
    ]
    growth = found[-1]["us_each"] / found[0]["us_each"]
    if growth > MAX_GROWTH:
        missed.append(f"a completion of the longest run costs {growth:.2f} times one of the shortest")
    peaks = [one["peak_extra_bytes"] for one in found]
    if len(peaks) > 2 and None not in peaks and peaks[-1] - peaks[1] > MAX_MEMORY_GROWTH:
        missed.append(f"peak memory grew by {(peaks[-1] - peaks[1]) / 2**20:.0f} MiB")
    return missed


def main() -> None:
    """Measure all sizes; exits with 1 where a bar is missed."""
    options = parse()
    torch.set_num_threads(1)
    config = load_config([*OVERRIDES, *options.overrides])
    tokenizer = AutoTokenizer.from_pretrained(resolve_model(config.model))
    prompts = PromptStream(load_tasks(config.data), tokenizer, config.data, seed=config.seed)
    measured(config, prompts, options.sizes[0], 0.0)  # loads what is loaded late
    found = [measured(config, prompts, size, 0.0) for size in options.sizes]
    delayed = measured(config, prompts, 10 * options.sizes[0], options.delay_ms / 1e3)
    figures = {"benchmark": "controller", "overrides": [*OVERRIDES, *options.overrides]}
    write_json(options.json, {**figures, "runs": found, "delayed": delayed})
    rows = [
        [
            f"{one['completions']}" + (f", {options.delay_ms:g} ms" if one["mean_delay_s"] else ""),
            f"{one['per_s']:.0f}",
            one["us_each"],
            "?" if one["peak_extra_bytes"] is None else f"{one['peak_extra_bytes'] / 2**20:.1f}",
        ]
        for one in [*found, delayed]
    ]
    print_table(
        f"The controller's own work on one core (at least {REQUIRED_RATE:.0f} a second; growth at most {MAX_GROWTH})",
        ["completions", "a second", "µs each", "peak MiB"],
        rows,
    )
    exit_missed(misses(found))


if __name__ == "__main__":
    main()
