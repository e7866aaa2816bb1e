"""A terminal that is redrawn in place, four times a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping

from rich.console import Console, RenderableType
from rich.live import Live
from rich.text import Text

from grpo.report.panel import draw
from grpo.report.panel_state import PanelState
from grpo.report.plain_display import step_line
from grpo.report.plan import RunPlan
from grpo.report.run_log import Level, RunLog, printable


class LiveDisplay:
    """Keeps one panel up to date at the foot of the terminal; other output scrolls by above it.

    Args:
        console: where to draw.
        run_log: gets steps, warnings and notes as lines.
    """

    def __init__(self, console: Console, run_log: RunLog) -> None:
        self._console = console
        self._run_log = run_log
        self._state: PanelState | None = None
        self._live: Live | None = None
        # The refresh thread draws while the run's thread writes.
        self._lock = threading.Lock()

    def start(self, plan: RunPlan) -> None:
        """Draw the panel from now on."""
        self._stop()
        self._state = PanelState(plan=plan)
        self._run_log.write(Level.NOTE, f"{plan.experiment}: {plan.model}, {plan.num_steps} steps")
        self._live = Live(
            console=self._console, get_renderable=self._draw, refresh_per_second=4, vertical_overflow="crop"
        )
        self._live.start(refresh=True)

    def phase(self, name: str, done: int, total: int) -> None:
        """Show what is going on now."""
        if self._state is not None:
            with self._lock:
                self._state.set_phase(name, done, total)

    def step(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of a finished step."""
        if self._state is not None:
            with self._lock:
                self._state.finish_step(metrics)
            self._run_log.write(Level.STEP, step_line(self._state.progress, metrics))

    def warn(self, message: str) -> None:
        """Show a warning in the panel; it stays among the most recent until newer ones push it out."""
        self._run_log.write(Level.WARNING, message)
        if self._state is None or self._live is None:
            self._console.print(Text(f"warning: {printable(message)}", style="yellow"))
        else:
            with self._lock:
                self._state.warnings.add(printable(message))

    def note(self, message: str) -> None:
        """Print a line above the panel."""
        self._run_log.write(Level.NOTE, message)
        self._console.print(Text(printable(message), style="dim"))

    def close(self) -> None:
        """Draw a last time, leave that on the screen and give the cursor back. May be called twice."""
        try:
            self._stop()
        finally:
            self._run_log.close()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            with self._lock:
                if self._state is not None:
                    self._state.close(time.monotonic())
            live.stop()

    def _draw(self) -> RenderableType:
        if self._state is None:
            return Text()
        with self._lock:
            width, height = self._console.size
            return draw(self._state, width=width, height=height, now=time.monotonic())
