"""What does sampling ahead bring, and how far is a step from the longer one of rollout and learner?

First real engines on this machine in every mode, and how well the simulator says their step times from the synchronous
run alone. Then the simulator's clusters of 8 to 4,096 GPUs, with the real scheduler.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from common import arguments, exit_missed, print_table, write_json
from schedule_cluster import BAR_ARM, GROUP_SIZE, MAX_NUM_SEQS, MODES, SIZES, Case, measured_lengths, outcomes, stated
from schedule_real import BASE, predictions, rounds

from launch.configuration import load_config

#: Step time of `BAR_ARM` over the longer one of rollout and learner.
MAX_OVER_BOUND = 1.10
#: Where the learner's share and the number of groups in flight are varied.
VARIED_GPUS = 64
SHARES = (0.5, 2.0)


def parse() -> argparse.Namespace:
    """Options."""
    parser = arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=1, help="of real runs; 0: only simulate")
    parser.add_argument("--steps", type=int, default=60, help="of each real run")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, metavar="GPUS")
    parser.add_argument("--rollouts", type=Path, metavar="DIR", help="take the lengths from these rollout files")
    return parser.parse_args()


def real(options: argparse.Namespace) -> dict[str, Any] | None:
    """Real runs, and what the simulator says of them."""
    if not options.rounds:
        return None
    runs = rounds(options.rounds, options.steps, options.overrides)
    found = predictions(runs, load_config([*BASE, *options.overrides, f"steps={options.steps}"]))
    print_table(
        "Real engines on this machine: seconds a step, and the simulator's error",
        ["mode", "real s", "over sync", "own cores", "shared cores", "slowed"],
        [
            [row["mode"], row["real_s"], row["over_sync"]]
            + [f"{row[kind]['error']:+.0%}" for kind in ("own cores", "shared cores", "slowed")]
            for row in found
        ],
    )
    return {"modes": found, "runs": runs}


def simulated(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(all modes at all sizes, with equal shares of rollout and learner; what is varied at one size)."""
    lengths = () if options.rollouts is None else measured_lengths(options.rollouts)
    sizes = [Case(gpus=gpus, arm=arm, lengths=lengths) for gpus in options.sizes for arm in MODES]
    one = Case(gpus=VARIED_GPUS, arm=BAR_ARM, lengths=lengths)
    varied = [
        Case(gpus=VARIED_GPUS, arm=arm, lengths=lengths, learner_share=share) for share in SHARES for arm in MODES
    ]
    few = Case(gpus=one.gpus, arm=one.arm, lengths=lengths, groups_per_worker=MAX_NUM_SEQS // GROUP_SIZE + 1)
    found = outcomes([*sizes, *varied, few])
    return found[: len(sizes)], found[len(sizes) :]


def plot(path: Path, found: Sequence[Mapping[str, Any]]) -> None:
    """Step time over the bound by size, a line a mode."""
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for arm in MODES:
        rows = [row for row in found if row["arm"] == arm]
        axes.plot([row["gpus"] for row in rows], [row["over_bound"] for row in rows], marker="o", label=arm)
    axes.axhline(MAX_OVER_BOUND, color="grey", linestyle="--", linewidth=1)
    axes.set_xscale("log", base=2)
    sizes = sorted({row["gpus"] for row in found})
    axes.set_xticks(sizes, labels=[str(size) for size in sizes])
    axes.set_ylim(bottom=1.0)
    axes.set_xlabel("GPUs, half of them for rollout")
    axes.set_ylabel("step time over max(rollout, learner)")
    axes.legend()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def show(sizes: Sequence[int], by_size: Sequence[dict[str, Any]], varied: Sequence[dict[str, Any]]) -> None:
    """Print what was simulated."""

    def row(name: str, value: float, rows: Sequence[Mapping[str, Any]]) -> list[object]:
        found = {one["arm"]: one["over_bound"] for one in rows if one[name] == value}
        return [value, *(found[arm] for arm in MODES)]

    *shares, few = varied
    print_table(
        f"Simulated at {VARIED_GPUS} GPUs: step time over max(rollout, learner)",
        ["learner / rollout", *MODES],
        [row("learner_share", share, shares) for share in SHARES],
    )
    print(f"{BAR_ARM} with only {few['groups_per_worker']} groups in flight for each engine: {few['over_bound']:.3f}")
    print_table(
        f"Simulated, rollout and learner equal: step time over max(rollout, learner); {BAR_ARM}: {MAX_OVER_BOUND:.2f}",
        ["GPUs", *MODES],
        [row("gpus", size, by_size) for size in sizes],
    )


def main() -> None:
    """All of it; exits with 1 where `BAR_ARM` is further from the bound than `MAX_OVER_BOUND` at any size."""
    options = parse()
    on_this_machine = real(options)
    by_size, varied = simulated(options)
    figures = {"benchmark": "schedule", "overrides": options.overrides, "stated": stated()}
    write_json(options.json, {**figures, "real": on_this_machine, "by_size": by_size, "varied": varied})
    if options.json is not None:
        plot(options.json.with_suffix(".png"), by_size)

    show(options.sizes, by_size, varied)
    exit_missed(
        [
            f"{row['gpus']} GPUs: {row['over_bound']:.3f} times the bound"
            for row in by_size
            if row["arm"] == BAR_ARM and not row["over_bound"] <= MAX_OVER_BOUND
        ]
    )


if __name__ == "__main__":
    main()
