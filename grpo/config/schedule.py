"""When completions are sampled, how old they may be when they are trained on, and which groups a step takes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from grpo.config.checks import at_least, positive, within
from grpo.errors import ConfigError

#: How sampling and training follow one another.
#:
#: sync: a step is sampled with the weights of the step before, then trained on; engines and learner take turns.
#: one_step_off: the next step is sampled while this one is trained on; engines take weights between steps.
#: async: sampling never stops; weights arrive while completions are being decoded.
#:
#: Made by call, since the configuration names its members and `async` is a keyword.
ScheduleMode = StrEnum("ScheduleMode", {"sync": "sync", "one_step_off": "one_step_off", "async": "async"})
SYNC, ONE_STEP_OFF, ASYNC = (ScheduleMode(name) for name in ("sync", "one_step_off", "async"))
_IMPLIED_STALENESS = {SYNC: 0, ONE_STEP_OFF: 1}
_DEFAULT_STALENESS = 2


class InFlight(StrEnum):
    """What becomes of the keys and values of unfinished completions when new weights arrive."""

    keep = "keep"
    recompute = "recompute"


@dataclass(slots=True, kw_only=True)
class ScheduleConfig:
    """Scheduling of rollouts against training."""

    mode: ScheduleMode = SYNC
    max_staleness: int | None = None  #: updates between a completion's oldest token and the step that trains on it
    in_flight: InFlight = InFlight.keep  #: keys and values of unfinished completions under new weights
    max_groups_per_worker: int | None = None  #: groups handed to an engine at a time; null: what keeps it full
    over_sample: float = (
        0.0  #: above 0, a step does not wait for its slowest groups; sync: share of groups sampled more
    )
    replace_without_signal: bool = False  #: sample fresh prompts for groups whose reward terms do not vary
    max_replacements: float = 4.0  #: groups dropped for that before a step takes them after all, per group of a step
    retire_pass_rate: float | None = None  #: tasks that pass at this rate are not drawn again

    def __post_init__(self) -> None:
        at_least("schedule", self, 0, "max_staleness")
        at_least("schedule", self, 1, "max_groups_per_worker")
        positive("schedule", self, "max_replacements")
        within("schedule", self, 0, 4, "over_sample")
        if self.retire_pass_rate is not None:
            within("schedule", self, 0.01, 1, "retire_pass_rate")
        fixed = _IMPLIED_STALENESS.get(self.mode)
        if fixed is not None and self.max_staleness not in (None, fixed):
            raise ConfigError(
                "schedule.max_staleness",
                self.max_staleness,
                f"schedule.mode={self.mode.value} has a staleness of {fixed}",
                "Drop it, or set schedule.mode=async.",
            )
        if self.mode is ASYNC and self.max_staleness == 0:
            raise ConfigError(
                "schedule.max_staleness",
                0,
                "schedule.mode=async samples while it trains, which takes 1 or more",
                "Set 1 or more (2 to 4 is usual), or schedule.mode=sync.",
            )
        if self.mode is not ASYNC and self.in_flight is not InFlight.keep:
            raise ConfigError(
                "schedule.in_flight",
                self.in_flight.value,
                f"no completion is unfinished when weights arrive in schedule.mode={self.mode.value}",
                "Drop it, or set schedule.mode=async.",
            )

    @property
    def staleness(self) -> int:
        """`max_staleness`, or what the mode implies."""
        if self.max_staleness is not None:
            return self.max_staleness
        return _IMPLIED_STALENESS.get(self.mode, _DEFAULT_STALENESS)
