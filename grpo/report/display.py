"""What a run shows while it goes: the `Display` protocol and the choice of one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from rich.console import Console

from grpo.report.live_display import LiveDisplay
from grpo.report.plain_display import PlainDisplay
from grpo.report.plan import RunPlan
from grpo.report.run_log import RunLog

__all__ = ["Display", "LiveDisplay", "PlainDisplay", "RunPlan", "make_display"]

_MIN_WIDTH, _MIN_HEIGHT = 64, 18


class Display(Protocol):
    """Shows a run to a person. No method raises for a missing metric or before `start`."""

    def start(self, plan: RunPlan) -> None:
        """Say what is about to run."""
        ...

    def phase(self, name: str, done: int, total: int) -> None:
        """Say what is going on now, e.g. ("sampling", 3, 8); `total` 0 where there is nothing to count."""
        ...

    def step(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of a finished step; `metrics["step"]` is its number, else they are counted."""
        ...

    def warn(self, message: str) -> None:
        """Show a warning."""
        ...

    def note(self, message: str) -> None:
        """Say something in passing."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was. May be called twice, and while an exception is on its way."""
        ...


def make_display(quiet: bool, run_log_path: Path | None) -> Display:
    """A live display on a terminal that can be redrawn, else one line a step.

    Args:
        quiet: one line a step even on a terminal.
        run_log_path: run.log; null logs nowhere.
    """
    console = Console()
    width, height = console.size
    redrawable = console.is_terminal and not console.is_dumb_terminal and console.encoding.startswith("utf")
    if quiet or not redrawable or width < _MIN_WIDTH or height < _MIN_HEIGHT:
        return PlainDisplay(RunLog(run_log_path))
    return LiveDisplay(console, RunLog(run_log_path))
