"""The simulated half of `schedule.py`: clusters of growing size, all with the same work for each GPU."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from grpo.config import ASYNC, ONE_STEP_OFF, SYNC, ScheduleMode
from grpo.schedule.samplers import Sampler, constant, long_tailed, measured
from grpo.schedule.simulated_cluster import SimulatedCluster
from grpo.schedule.simulated_engine import DecodeCost
from grpo.schedule.simulation import simulate

SIZES = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
#: Mode and staleness of each arm.
MODES: dict[str, tuple[ScheduleMode, int]] = {
    "sync": (SYNC, 0),
    "one step off": (ONE_STEP_OFF, 1),
    "async, k=2": (ASYNC, 2),
    "async, k=3": (ASYNC, 3),
}
BAR_ARM = "async, k=3"

# Stated, not measured. Half of the GPUs sample, an engine on each; half train. A step has the same work for each GPU
# whatever their number. The longest completion takes about 1.6 steps of a balanced cluster: longer than is comfortable,
# and k = 3 is the smallest staleness that leaves it the time (see docs/architecture.md).
MAX_NUM_SEQS = 32
GROUP_SIZE = 8
GROUPS_PER_ENGINE = 16
DECODE = DecodeCost(fixed_s=0.010, sequence_s=0.0002, prompt_token_s=0.00002)
PROMPT_TOKENS = 256.0
MEDIAN_TOKENS, SPREAD, LONGEST_TOKENS = 1024, 10, 10240
SYNC_S = 2.0
JUDGE_MEDIAN_S, JUDGE_LONGEST_S = 1.0, 30.0
OVERHEAD_S = 0.5
LENGTHS = long_tailed(MEDIAN_TOKENS, SPREAD, LONGEST_TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One simulated run.

    Attributes:
        learner_share: time of the learner over that of full engines, for the same step.
        groups_per_worker: in flight, at most; None: as the collector has it.
        lengths: of completions that were measured, tokens; none: those stated above.
    """

    gpus: int
    arm: str
    learner_share: float = 1.0
    groups_per_worker: int | None = None
    lengths: tuple[int, ...] = ()
    seed: int = 0


def cluster(case: Case) -> SimulatedCluster:
    """What the case is simulated on."""
    lengths: Sampler = measured(case.lengths) if case.lengths else LENGTHS
    mean = float(lengths(np.random.default_rng(0), 200_000).mean())
    engine_token_s = DECODE.step_s(MAX_NUM_SEQS) / MAX_NUM_SEQS + PROMPT_TOKENS * DECODE.prompt_token_s / (
        GROUP_SIZE * mean
    )
    workers = case.gpus // 2
    return SimulatedCluster(
        num_workers=workers,
        max_num_seqs=MAX_NUM_SEQS,
        decode=DECODE,
        lengths=lengths,
        prompt_lengths=constant(PROMPT_TOKENS),
        groups_per_step=GROUPS_PER_ENGINE * workers,
        group_size=GROUP_SIZE,
        learner_s=constant(0.0),
        learner_token_s=case.learner_share * engine_token_s / workers,
        sync_s=constant(SYNC_S),
        judge_s=long_tailed(JUDGE_MEDIAN_S, SPREAD, JUDGE_LONGEST_S),
        overhead_s=constant(OVERHEAD_S),
    )


def outcome(case: Case) -> dict[str, Any]:
    """Figures of one case. Large clusters average over their engines, so fewer steps do."""
    mode, max_staleness = MODES[case.arm]
    steps = 12 if case.gpus <= 512 else 5
    found = simulate(
        cluster(case),
        mode,
        max_staleness=max_staleness,
        steps=steps,
        groups_per_worker=case.groups_per_worker,
        seed=case.seed,
    )
    figures = {name: value for name, value in asdict(case).items() if name != "lengths"}
    return figures | {"steps": steps, **asdict(found), "over_bound": found.over_bound}


def outcomes(cases: Sequence[Case]) -> list[dict[str, Any]]:
    """Figures of all, the largest first to begin, in the order of `cases`."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        futures = {case: pool.submit(outcome, case) for case in sorted(cases, key=lambda case: -case.gpus)}
        return [futures[case].result() for case in cases]


def measured_lengths(rollouts: Path) -> tuple[int, ...]:
    """Lengths of all completions in a run's rollout files, tokens."""
    files = sorted(rollouts.glob("*.parquet"))
    tables = [pq.read_table(file, columns=["token_ids"]) for file in files]
    return tuple(len(ids) for table in tables for ids in table["token_ids"].to_pylist())


def stated() -> dict[str, object]:
    """The parameters, for the JSON."""
    return {
        "max_num_seqs": MAX_NUM_SEQS,
        "group_size": GROUP_SIZE,
        "groups_per_engine": GROUPS_PER_ENGINE,
        "decode": asdict(DECODE),
        "prompt_tokens": PROMPT_TOKENS,
        "median_tokens": MEDIAN_TOKENS,
        "spread": SPREAD,
        "longest_tokens": LONGEST_TOKENS,
        "sync_s": SYNC_S,
        "judge_median_s": JUDGE_MEDIAN_S,
        "judge_longest_s": JUDGE_LONGEST_S,
        "overhead_s": OVERHEAD_S,
    }
