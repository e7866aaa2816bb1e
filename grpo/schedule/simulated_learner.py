"""The learner on a simulated clock: one step at a time, slowed down by whoever shares its cores."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class SimulatedLearner:
    """A step's work, seconds of its own speed.

    Attributes:
        left_s: of the step, as of `since`.
        since: time of the last change.
        speed: share of its own speed.
        is_busy: whether it works on a step.
        plan: counts changes; an event that was planned before the last one is void.
    """

    left_s: float = 0.0
    since: float = 0.0
    speed: float = 1.0
    is_busy: bool = False
    plan: int = 0

    def begin(self, now: float, seconds: float) -> None:
        """A step, at full speed."""
        self.left_s, self.since, self.speed, self.is_busy = seconds, now, 1.0, True

    def end(self) -> float:
        """When the step ends, if nothing changes before."""
        return self.since + self.left_s / self.speed

    def set_speed(self, now: float, speed: float) -> None:
        """From `now` on."""
        self.left_s -= (now - self.since) * self.speed
        self.since, self.speed = now, speed
