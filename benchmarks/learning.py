"""Does the default preset learn? Mean reward of the first and the last quarter of the steps, for several seeds."""

from __future__ import annotations

import sys

from common import arguments, print_table, train, write_json

from launch.closing import quarter_means

REQUIRED_GAIN = 0.1


def main() -> None:
    """Train once a seed; exits with 1 where a seed gains less than `REQUIRED_GAIN`."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    runs: list[dict[str, object]] = []
    gains: list[float] = []
    for seed in options.seeds:
        metrics, elapsed = train([f"seed={seed}", *options.overrides])
        first, last = quarter_means(metrics)
        gains.append(last - first)
        runs.append(
            {"seed": seed, "first": first, "last": last, "gain": last - first, "wall_s": elapsed, "metrics": metrics}
        )
        print(f"seed {seed}: {first:.3f} -> {last:.3f} in {elapsed:.0f} s", flush=True)
    write_json(options.json, {"benchmark": "learning", "overrides": options.overrides, "runs": runs})
    rows = [[r["seed"], r["first"], r["last"], r["gain"], f"{r['wall_s']:.0f}"] for r in runs]
    print_table(
        f"Mean reward by quarter (a gain of {REQUIRED_GAIN} is required of every seed)",
        ["seed", "first quarter", "last quarter", "gain", "wall s"],
        rows,
    )
    sys.exit(0 if min(gains) >= REQUIRED_GAIN else 1)


if __name__ == "__main__":
    main()
