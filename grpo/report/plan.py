"""What a display knows of a run beforehand, and its estimate of the time left."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from grpo.report.series import mean


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPlan:
    """What is about to run.

    Attributes:
        experiment: name in the title.
        model: the policy's name or path.
        output_dir: the run directory.
        num_steps: last step of the run.
        first_step: first step of this process; above 1 after a resume.
    """

    experiment: str
    model: str
    output_dir: str
    num_steps: int
    first_step: int = 1


@dataclass(slots=True, kw_only=True)
class Progress:
    """Steps done and the time they took.

    Attributes:
        step: last finished step.
        step_times_s: wall seconds of the most recent steps.
    """

    plan: RunPlan
    step: int = 0
    step_times_s: deque[float] = field(default_factory=lambda: deque[float](maxlen=20))

    def __post_init__(self) -> None:
        self.step = self.plan.first_step - 1

    def finish_step(self, metrics: Mapping[str, float], elapsed_s: float) -> None:
        """Count a finished step.

        Args:
            elapsed_s: seconds since the last one; stands in where `time/step_s` is missing.
        """
        self.step = int(metrics.get("step", self.step + 1))
        seconds = metrics.get("time/step_s", math.nan)
        self.step_times_s.append(seconds if math.isfinite(seconds) else elapsed_s)

    def remaining_s(self, since_step_s: float = 0.0) -> float:
        """Seconds left by the mean of recent steps, `since_step_s` into the current one; NaN before the first."""
        left = (self.plan.num_steps - self.step) * mean(list(self.step_times_s))
        return max(0.0, left - since_step_s) if math.isfinite(left) else math.nan
