"""`grpo report RUN`: write a run's page and curve again from its files."""

from __future__ import annotations

import sys
from pathlib import Path

from grpo.report.curve import write_reward_curve
from grpo.report.html import write_report
from grpo.report.metrics_log import read_metrics
from grpo.report.run_directory import RunDirectory


def main(arguments: list[str]) -> None:
    """Write `RUN/report.html` and `RUN/reward_curve.png`."""
    if len(arguments) != 1:
        sys.exit("usage: grpo report RUN")
    run = RunDirectory(Path(arguments[0]))
    if not run.metrics.is_file():
        print(f"grpo report: {run.path} holds no metrics.jsonl; name a run directory.", file=sys.stderr)
        sys.exit(2)
    write_reward_curve(run.reward_curve, read_metrics(run.metrics), title=run.path.name)
    print(write_report(run.path))
