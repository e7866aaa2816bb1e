"""What the benchmarks share: running the trainer, describing the machine, printing a table, writing JSON."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from grpo.report.environment import describe_environment
from grpo.report.metrics_log import read_metrics

#: A yardstick that spreads wider than this measures the machine's other work.
MAX_SPREAD = 0.1


def arguments(description: str, *, overrides: bool = True) -> argparse.ArgumentParser:
    """A parser with ``--json`` and, if wanted, free overrides of the configuration."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures there")
    if overrides:
        parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys as for grpo train")
    return parser


def train(overrides: Sequence[str]) -> tuple[list[dict[str, float]], float]:
    """Run `grpo train` in a process of its own.

    Returns:
        Its metrics, a row a step, and the wall seconds of the whole process.

    Raises:
        SystemExit: the run failed; its output is printed.
    """
    with trained(overrides) as (directory, elapsed):
        return read_metrics(directory / "metrics.jsonl"), elapsed


@contextmanager
def trained(overrides: Sequence[str]) -> Iterator[tuple[Path, float]]:
    """As `train`, but gives its run directory, which is gone afterwards, in place of the metrics."""
    with tempfile.TemporaryDirectory(prefix="keel-benchmark-") as scratch:
        directory = Path(scratch) / "run"
        command = [sys.executable, "-m", "launch.cli", "train", "quiet=true", "export=false", *overrides]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, f"output_dir={directory}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        elapsed = time.perf_counter() - started
        if done.returncode:
            sys.exit(done.stdout)
        yield directory, elapsed


def write_json(path: Path | None, figures: dict[str, Any]) -> None:
    """Write figures with a description of the machine and of the versions that made them."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": describe_environment(), **figures}
        path.write_text(json.dumps(content, indent=1) + "\n")


def versions(*distributions: str) -> dict[str, str | None]:
    """Installed versions; None for what is not there."""
    found: dict[str, str | None] = {}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def warn_if_busy(spreads: Iterable[float]) -> None:
    """Say so where the yardstick itself was uneven: its interquartile range over its median."""
    if (widest := max(spreads, default=0.0)) > MAX_SPREAD:
        print(f"the yardstick's times spread by {widest:.0%}: was the machine busy? Nothing above is worth much then")


def exit_missed(missed: Sequence[str]) -> NoReturn:
    """End with 1 and the bars that were missed, or with 0."""
    for reason in missed:
        print(f"missed: {reason}")
    sys.exit(1 if missed else 0)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A short table, the last thing a benchmark prints."""
    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    for row in rows:
        table.add_row(*(f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row))
    Console(width=110).print(table)
