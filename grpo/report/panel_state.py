"""What the live panel shows, as it changes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from grpo.report.plan import Progress, RunPlan
from grpo.report.run_log import WarningTally, printable


@dataclass(slots=True, kw_only=True)
class PanelState:
    """Everything the panel shows. Times are `time.monotonic()` seconds."""

    plan: RunPlan
    metrics: Mapping[str, float] = field(default_factory=dict[str, float])
    mean_rewards: list[float] = field(default_factory=list[float])
    warnings: WarningTally = field(default_factory=WarningTally)
    phase: tuple[str, int, int] = ("starting", 0, 0)
    started_at: float = field(default_factory=time.monotonic)
    phase_at: float = field(default_factory=time.monotonic)
    step_at: float = field(default_factory=time.monotonic)
    closed_at: float | None = None
    progress: Progress = field(init=False)

    def __post_init__(self) -> None:
        self.progress = Progress(plan=self.plan)

    def set_phase(self, name: str, done: int, total: int) -> None:
        """Enter or go on with a phase."""
        if name != self.phase[0]:
            self.phase_at = time.monotonic()
        self.phase = (printable(name), done, total)

    def finish_step(self, metrics: Mapping[str, float]) -> None:
        """Take over the metrics of a finished step."""
        now = time.monotonic()
        self.progress.finish_step(metrics, now - self.step_at)
        self.step_at = now
        self.metrics = dict(metrics)
        self.mean_rewards.append(float(metrics.get("reward/mean", math.nan)))

    def close(self, now: float) -> None:
        """Stop the clocks."""
        self.closed_at = now
