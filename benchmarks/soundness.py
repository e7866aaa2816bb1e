"""Does asynchronous training reach the reward of synchronous training, and what does truncation protect it from?

A random model with a reward it can raise. Synchronous and asynchronous runs are paired by seed; they are called the
same where the 95% confidence interval of the mean paired difference (Student's t) lies within a margin stated
beforehand. Two more arms drift further from their engines, by a small step, more staleness and a larger learning rate,
one with truncated importance sampling and one without any.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from statistics import fmean, stdev
from typing import Any

import numpy as np
from common import arguments, exit_missed, print_table, train, write_json

from launch.closing import quarter_means

#: Half the width of "the same": this share of what synchronous training gains from its first to its last quarter.
MARGIN = 0.1
#: One engine and one learner rank on a core each.
LEARNABLE = (
    "experiment=tiny_cpu",
    "rollout.num_workers=1",
    "learner.num_ranks=1",
    "rollout.group_size=8",
    "~reward.weights.unit_tests",
    "reward.weights.pattern=1",
    "reward.terms.pattern.settings.regex='[a-m]'",
)
_CALM = ("rollout.prompts_per_step=8", "learner.lr=0.005")
_DRIFTING = (
    "rollout.prompts_per_step=4",
    "learner.lr=0.02",
    "schedule.mode=async",
    "schedule.max_staleness=8",
)
SYNC, ASYNC, CORRECTED, UNCORRECTED = "sync", "async", "drifting, truncated", "drifting, uncorrected"
ARMS: Mapping[str, Sequence[str]] = {
    SYNC: _CALM,
    ASYNC: (*_CALM, "schedule.mode=async", "schedule.max_staleness=2"),
    CORRECTED: _DRIFTING,
    UNCORRECTED: (*_DRIFTING, "algorithm.importance=none"),
}


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile above the median of Student's t distribution, to about 1e-4: its density, summed and inverted."""
    x = np.linspace(0.0, 100.0, 1_000_001)
    scale = math.exp(math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)) / math.sqrt(degrees * math.pi)
    density = scale * (1.0 + x * x / degrees) ** (-(degrees + 1) / 2)
    below = 0.5 + np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2) * x[1]])
    return float(np.interp(probability, below, x))


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """95%, of the mean of independent values, by Student's t; infinite for a single one."""
    if len(values) < 2:
        return -math.inf, math.inf
    half = t_quantile(0.975, len(values) - 1) * stdev(values) / math.sqrt(len(values))
    return fmean(values) - half, fmean(values) + half


def account(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What one run reached, and how far its policy was from what had been sampled."""
    first, last = quarter_means(metrics)

    def of(name: str) -> list[float]:
        return [row[name] for row in metrics if math.isfinite(row.get(name, math.nan))]

    return {
        "first": first,
        "last": last,
        "mean": fmean(of("reward/mean")),
        "staleness_mean": fmean(of("staleness/mean")),
        "staleness_max": max(of("staleness/max")),
        "kl_behavior_policy_max": max(of("learner/kl_behavior_policy")),
        "max_abs_logprob_difference": max(of("learner/max_abs_logprob_difference")),
        "effective_sample_share_min": min(of("learner/effective_sample_share")),
    }


def parse() -> argparse.Namespace:
    """Options."""
    parser = arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--side-by-side", type=int, default=2, help="runs at a time; most of a run is its start")
    return parser.parse_args()


def trained(options: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The runs of every arm, in the order of the seeds. All arms of a seed run before those of the next."""

    def one(arm: str, seed: int) -> dict[str, Any]:
        metrics, wall_s = train([*LEARNABLE, *ARMS[arm], f"seed={seed}", f"steps={options.steps}", *options.overrides])
        found = account(metrics)
        print(f"seed {seed}, {arm}: {found['first']:.3f} -> {found['last']:.3f} in {wall_s:.0f} s", flush=True)
        return {"seed": seed, "wall_s": wall_s, **found, "metrics": metrics}

    with ThreadPoolExecutor(options.side_by_side) as pool:
        futures = [(arm, pool.submit(one, arm, seed)) for seed in options.seeds for arm in ARMS]
        try:
            runs: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
            for arm, future in futures:
                runs[arm].append(future.result())
        finally:
            pool.shutdown(cancel_futures=True)
    return runs


def verdict(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The paired difference of asynchronous and synchronous runs in their last quarter, against the margin."""
    differences = [a["last"] - s["last"] for a, s in zip(runs[ASYNC], runs[SYNC], strict=True)]
    low, high = confidence_interval(differences)
    margin = MARGIN * fmean(run["last"] - run["first"] for run in runs[SYNC])
    return {
        "differences": differences,
        "difference": fmean(differences),
        "low": low,
        "high": high,
        "margin": margin,
        "is_same": -margin <= low and high <= margin,
    }


def main() -> None:
    """Train all arms; exits with 1 where sync and async are not shown to be the same."""
    options = parse()
    runs = trained(options)
    found = verdict(runs)
    figures = {"benchmark": "soundness", "overrides": options.overrides, "steps": options.steps}
    write_json(options.json, {**figures, "arms": {arm: list(ARMS[arm]) for arm in ARMS}, "runs": runs, **found})

    def row(arm: str) -> list[object]:
        mean = {name: fmean(run[name] for run in runs[arm]) for name in account(runs[arm][0]["metrics"])}
        names = ("first", "last", "staleness_mean", "kl_behavior_policy_max", "max_abs_logprob_difference")
        return [arm, *(mean[name] for name in names), mean["effective_sample_share_min"]]

    print_table(
        f"Mean of {len(options.seeds)} seeds, {options.steps} steps",
        ["arm", "first quarter", "last quarter", "staleness", "max KL(b||pi)", "max |dlogp|", "min ESS"],
        [row(arm) for arm in ARMS],
    )
    said = "the same within the margin" if found["is_same"] else "not shown to be the same"
    said += "" if found["low"] <= 0 <= found["high"] else ", though the difference is not 0 by chance"
    print(
        f"async - sync, last quarter: {found['difference']:+.3f}, 95% interval {found['low']:+.3f} to "
        f"{found['high']:+.3f}, margin {found['margin']:.3f} ({MARGIN:.0%} of the gain): {said}"
    )
    exit_missed([] if found["is_same"] else ["async and sync are not shown to be the same"])


if __name__ == "__main__":
    main()
