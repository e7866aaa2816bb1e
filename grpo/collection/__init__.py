"""Where the groups of a step come from: sampled for it alone, or taken from a stream that never stops."""

from __future__ import annotations

from grpo.collection.lockstep import LockstepCollector
from grpo.collection.protocol import Collector, Waits
from grpo.collection.streaming import StreamingCollector
from grpo.config import SYNC, RunConfig
from grpo.fleet import Fleet
from grpo.report.display import Display
from grpo.schedule.intake import Intake


def make_collector(
    config: RunConfig, fleet: Fleet, intake: Intake, display: Display, *, finished_steps: int
) -> Collector:
    """The collector of `schedule.mode`."""
    if config.schedule.mode is SYNC:
        return LockstepCollector(config, fleet, intake, display)
    return StreamingCollector(config, fleet, intake, display, finished_steps=finished_steps)


__all__ = ["Collector", "LockstepCollector", "StreamingCollector", "Waits", "make_collector"]
