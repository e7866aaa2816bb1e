"""The real half of `schedule.py`: runs on this machine, and a simulation of them from the synchronous one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np
from common import trained
from schedule_cluster import measured_lengths

from grpo.config import ASYNC, ONE_STEP_OFF, SYNC, RunConfig, ScheduleMode
from grpo.report.metrics_log import read_metrics
from grpo.schedule.samplers import measured
from grpo.schedule.simulated_cluster import SimulatedCluster
from grpo.schedule.simulated_engine import DecodeCost
from grpo.schedule.simulation import simulate

#: One engine and one learner rank with a thread each. All completions of a step fit into the engine at once.
BASE = (
    "experiment=tiny_cpu",
    "rollout.num_workers=1",
    "learner.num_ranks=1",
    "rollout.group_size=8",
    "rollout.prompts_per_step=8",
    "rollout.max_num_seqs=64",
    "rollout.max_new_tokens=96",
    "~reward.weights.unit_tests",
    "reward.weights.pattern=1",
    "reward.terms.pattern.settings.regex='[a-m]'",
)
MODES: dict[str, tuple[ScheduleMode, int]] = {"sync": (SYNC, 0), "one_step_off": (ONE_STEP_OFF, 1), "async": (ASYNC, 2)}
#: Half a batch: without it nobody could tell the cost of a decode step from that of a sequence in it.
HALF = "sync, half a batch"
#: Steps at the start that warm up, and at the end, where nothing more is sampled.
SKIPPED = 4


def run(name: str, steps: int, overrides: Sequence[str]) -> dict[str, Any]:
    """One real run: its steps but the first and last, and the lengths of all completions."""
    mode = ("schedule.mode=sync", "rollout.prompts_per_step=4") if name == HALF else (f"schedule.mode={name}",)
    with trained([*BASE, *overrides, *mode, f"steps={steps}"]) as (directory, wall_s):
        rows = read_metrics(directory / "metrics.jsonl")[SKIPPED:-SKIPPED]
        return {"name": name, "wall_s": wall_s, "lengths": measured_lengths(directory / "rollouts"), "steps": rows}


def rounds(num_rounds: int, steps: int, overrides: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """All arms `num_rounds` times by turns, every other time in the opposite order."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in (*MODES, HALF)}
    for number in range(num_rounds):
        for name in list(runs) if number % 2 == 0 else reversed(runs):
            runs[name].append(run(name, steps, overrides))
            print(f"{name}: {step_s(runs[name][-1:]):.3f} s a step, {runs[name][-1]['wall_s']:.0f} s", flush=True)
    return runs


def column(runs: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    """A metric of all steps of the runs."""
    return [row[metric] for run in runs for row in run["steps"]]


def step_s(runs: Sequence[Mapping[str, Any]]) -> float:
    """Seconds a step, mean."""
    return fmean(column(runs, "time/step_s"))


def decode_cost(runs: Sequence[Mapping[str, Any]]) -> DecodeCost:
    """From synchronous runs: a step's sampling takes a x (longest completion) + b x (tokens), least squares.

    All its completions begin together and each ends by itself, so that is the sum of a + b n over its decode steps with
    n completions. Where noise makes one of the two negative, the other explains all. Reading prompts is part of both.
    """
    longest, tokens, seconds = (
        np.asarray(column(runs, metric))
        for metric in ("rollout/completion_length_max", "rollout/num_tokens", "rollout/generate_s")
    )
    (a, b), *_ = np.linalg.lstsq(np.stack([longest, tokens], 1), seconds, rcond=None)
    if a < 0:
        a, b = 0.0, seconds.sum() / tokens.sum()
    if b < 0:
        a, b = seconds.sum() / longest.sum(), 0.0
    return DecodeCost(fixed_s=float(a), sequence_s=float(b))


def calibrated(runs: Mapping[str, Sequence[Mapping[str, Any]]], config: RunConfig) -> SimulatedCluster:
    """This machine, as the synchronous runs show it, with engine and learner on cores of their own."""
    by_turns = runs["sync"]
    waits = zip(
        column(by_turns, "time/rollout_s"),
        column(by_turns, "rollout/generate_s"),
        column(by_turns, "time/reward_s"),
        strict=True,
    )
    return SimulatedCluster(
        num_workers=config.rollout.num_workers,
        max_num_seqs=config.rollout.max_num_seqs,
        decode=decode_cost([*by_turns, *runs[HALF]]),
        lengths=measured([length for one in by_turns for length in one["lengths"]]),
        groups_per_step=config.rollout.prompts_per_step,
        group_size=config.rollout.group_size,
        learner_s=measured(column(by_turns, "time/learner_s")),
        sync_s=measured(column(by_turns, "time/sync_s")),
        # From the engine's last token to the verdicts: calls, the way of the data, scoring.
        judge_s=measured([max(0.0, rollout - generate) + reward for rollout, generate, reward in waits]),
        overhead_s=measured(column(by_turns, "time/idle_s")),
    )


def predictions(
    runs: Mapping[str, Sequence[Mapping[str, Any]]], config: RunConfig, steps: int = 100
) -> list[dict[str, Any]]:
    """Of every mode: seconds a step, real and simulated, with cores of their own and with shared ones.

    `slowed` takes from each real run how much longer its learner took than in the synchronous one: what engine and
    learner do to each other on this machine. The other two are the ends of what is possible.
    """
    base, found = calibrated(runs, config), list[dict[str, Any]]()
    alone = fmean(column(runs["sync"], "time/learner_s"))
    for name, (mode, max_staleness) in MODES.items():
        slowed = min(1.0, max(0.25, alone / fmean(column(runs[name], "time/learner_s"))))
        real = step_s(runs[name])
        row: dict[str, Any] = {"mode": name, "real_s": real, "over_sync": real / step_s(runs["sync"])}
        for kind, speed in (("own cores", 1.0), ("shared cores", 0.5), ("slowed", slowed)):
            simulated = simulate(
                replace(base, overlap_speed=speed), mode, max_staleness=max_staleness, steps=steps, warm_up=SKIPPED
            )
            row[kind] = {"overlap_speed": speed, "step_s": simulated.step_s, "error": simulated.step_s / real - 1.0}
        found.append(row)
    return found
