"""Where a step's time goes, and how much of it is orchestration: neither generation, reward, learner nor transfer.

Generation is the time inside the engine, learner the time inside forward, backward and optimiser, transfer the sending
and loading of weights; what a step takes beyond them (packing, Ray calls, logging) is overhead.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from statistics import median

from common import arguments, print_table, train, write_json

MAX_OVERHEAD = 0.05


def split(row: Mapping[str, float]) -> dict[str, float]:
    """Seconds of one step by what they were spent on."""
    parts = {
        "generation": row["rollout/generate_s"],
        "reward (waited for)": row["time/reward_s"],
        "learner": row["learner/compute_s"],
        "weight transfer and load": row["sync/transfer_s"] + row["sync/load_s"],
    }
    return parts | {"overhead": row["time/step_s"] - sum(parts.values())}


def main() -> None:
    """Train some steps and print the median split; exits with 1 where the overhead is above `MAX_OVERHEAD`."""
    parser = arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("--steps", type=int, default=6)
    options = parser.parse_args()
    metrics, _ = train([f"steps={options.steps}", *options.overrides])
    steps = [split(row) for row in metrics[1:]]  # the first step warms up caches and allocators
    totals = [sum(step.values()) for step in steps]
    seconds = {name: median(step[name] for step in steps) for name in steps[0]}
    shares = {name: median(step[name] / t for step, t in zip(steps, totals, strict=True)) for name in steps[0]}
    figures = {
        "benchmark": "step",
        "overrides": options.overrides,
        "seconds": seconds,
        "shares": shares,
        "metrics": metrics,
    }
    write_json(options.json, figures)
    print_table(
        f"One step, median of {len(steps)} (overhead must stay under {MAX_OVERHEAD:.0%})",
        ["part", "seconds", "share"],
        [[name, seconds[name], f"{shares[name]:.1%}"] for name in seconds],
    )
    sys.exit(0 if shares["overhead"] < MAX_OVERHEAD else 1)


if __name__ == "__main__":
    main()
