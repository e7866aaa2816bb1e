"""What a simulation adds up, and what that says of a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from grpo.schedule.simulated_cluster import SimulatedCluster, SimulatedRun
from grpo.schedule.simulated_engine import SimulatedEngine


@dataclass(slots=True)
class Account:
    """Sums from the start up to a moment; seconds, tokens, groups."""

    now: float = 0.0
    waited_s: float = 0.0
    learned_s: float = 0.0
    engine_work_s: float = 0.0  # of full engines
    engine_busy_s: float = 0.0
    num_decoded: float = 0.0
    num_drawn: int = 0
    num_trained: int = 0
    num_dropped: int = 0
    num_expired: int = 0
    by_staleness: Counter[int] = field(default_factory=Counter[int])

    def at(self, now: float, engines: Sequence[SimulatedEngine]) -> Account:
        """A copy, as of `now`; all engines have come so far."""
        return replace(
            self,
            now=now,
            engine_busy_s=sum(engine.busy_s for engine in engines),
            num_decoded=sum(engine.num_decoded for engine in engines),
            by_staleness=Counter(self.by_staleness),
        )


def run_between(start: Account, end: Account, steps: int, cluster: SimulatedCluster) -> SimulatedRun:
    """The `steps` steps between two accounts."""
    elapsed = end.now - start.now
    rollout_s = (end.engine_work_s - start.engine_work_s) / steps / cluster.num_workers
    learner_s = (end.learned_s - start.learned_s) / steps
    capacity = elapsed * cluster.num_workers / cluster.full_token_s
    together = 1.0 / cluster.overlap_speed - 1.0  # what each second of the smaller one costs the larger one
    return SimulatedRun(
        step_s=elapsed / steps,
        rollout_s=rollout_s,
        learner_s=learner_s,
        bound_s=max(rollout_s, learner_s) + together * min(rollout_s, learner_s),
        learner_idle_share=(end.waited_s - start.waited_s) / elapsed,
        engine_idle_share=1.0 - (end.engine_busy_s - start.engine_busy_s) / elapsed / cluster.num_workers,
        engine_unused_share=1.0 - (end.num_decoded - start.num_decoded) / capacity,
        num_by_staleness=dict(sorted((end.by_staleness - start.by_staleness).items())),
        num_drawn=end.num_drawn,
        num_trained=end.num_trained,
        num_dropped=end.num_dropped,
        num_expired=end.num_expired,
    )
