"""A cluster on a simulated clock: what a schedule makes of given lengths and times.

Engines, judges, learner and weight sync are models; the scheduler, the balance of the workers and the filter of groups
without signal are those that a run uses. The same seed draws the same lengths and times for the same groups and steps
in every mode. Left out are the deaths of workers and the time that messages take.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from grpo.config import ONE_STEP_OFF, SYNC, ScheduleMode
from grpo.records import Completion, FinishReason, Group, JudgedGroup, Prompt, Task
from grpo.schedule.balance import Balance
from grpo.schedule.resampling import SignalFilter
from grpo.schedule.scheduler import Limits, Scheduler
from grpo.schedule.simulated_cluster import SimulatedCluster, SimulatedRun
from grpo.schedule.simulated_engine import SimulatedEngine
from grpo.schedule.simulated_learner import SimulatedLearner
from grpo.schedule.simulation_account import Account, run_between
from grpo.schedule.staleness import staleness


@dataclass(slots=True)
class _Sampled:
    """A group, drawn with all that will happen to it."""

    uid: int
    lengths: list[float]
    num_prompt_tokens: float
    judge_s: float
    has_signal: bool
    versions: list[int] = field(default_factory=list[int])  # of the first token of each sequence that has ended


#: The filter counts groups; what is in them is no matter here.
_ANY_GROUP = JudgedGroup(
    group=Group(
        prompt=Prompt(
            uid=0,
            task=Task(task_id="any", domain="any", messages=(), prefill="", reference={}),
            token_ids=np.zeros(1, dtype=np.int64),
        ),
        completions=(
            Completion(
                token_ids=np.zeros(1, dtype=np.int64),
                behavior_logprobs=np.zeros(1, dtype=np.float32),
                text="",
                finish_reason=FinishReason.STOP,
                version_spans=((0, 1),),
            ),
        ),
        worker=0,
        latency_s=0.0,
        num_cached_prompt_tokens=0,
    ),
    verdicts={},
)


def simulate(
    cluster: SimulatedCluster,
    mode: ScheduleMode,
    *,
    max_staleness: int,
    steps: int,
    warm_up: int = 3,
    groups_per_worker: int | None = None,
    seed: int = 0,
) -> SimulatedRun:
    """Run `warm_up + steps` steps and account for the last `steps` of them.

    Args:
        max_staleness: k, steps; 0 with sync and 1 with one_step_off.
        groups_per_worker: groups in flight for each engine, at most; None: as many as keep it full.
    """
    assert steps >= 1 and warm_up >= 1
    return _Simulation(cluster, mode, max_staleness, (warm_up, steps), groups_per_worker, seed).run()


class _Simulation:
    def __init__(
        self,
        cluster: SimulatedCluster,
        mode: ScheduleMode,
        max_staleness: int,
        steps: tuple[int, int],
        groups_per_worker: int | None,
        seed: int,
    ) -> None:
        self._cluster, self._mode, self._steps = cluster, mode, steps
        self._groups_per_worker = groups_per_worker
        streams = np.random.SeedSequence(seed).spawn(2)
        self._of_groups, self._of_steps = (np.random.default_rng(s) for s in streams)
        limits = Limits(
            groups_per_step=cluster.groups_per_step,
            max_staleness=max_staleness,
            # The last steps of a run have the engines to themselves. They are not made, and are in no account.
            last_step=sum(steps) + max_staleness + 1,
            max_in_flight=cluster.groups_per_step if mode is SYNC else 0,
        )
        self._scheduler = Scheduler[_Sampled](limits)
        longest = float(cluster.lengths(np.random.default_rng(streams[0]), 1000).max())
        self._balance = Balance(cluster.num_workers, cluster.group_size, longest / 2)
        self._filter = SignalFilter(is_on=cluster.share_without_signal > 0, most_dropped=cluster.most_dropped)
        self._engines = [SimulatedEngine(cluster.decode, cluster.max_num_seqs) for _ in range(cluster.num_workers)]
        self._plans = [0] * cluster.num_workers  # which of an engine's events is still true
        self._changed = set[int]()  # engines whose next event has to be found
        self._groups: dict[int, _Sampled] = {}
        self._again = deque[_Sampled]()
        self._events: list[tuple[float, int, Callable[..., None], tuple[int, ...]]] = []
        self._numbers = count()
        self._now = 0.0
        self._is_quiet = False
        self._is_syncing = False
        self._learner = SimulatedLearner()
        self._free_since = 0.0
        self._total = Account()
        self._accounts: dict[int, Account] = {}  # after each step

    def run(self) -> SimulatedRun:
        warm_up, steps = self._steps
        self._pump()
        while warm_up + steps not in self._accounts:
            assert self._events, "the schedule came to a standstill"
            self._now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)
            self._pump()
        return run_between(self._accounts[warm_up], self._accounts[warm_up + steps], steps, self._cluster)

    def _at(self, delay: float, event: Callable[..., None], *arguments: int) -> None:
        heapq.heappush(self._events, (self._now + delay, next(self._numbers), event, arguments))

    # The controller.

    def _pump(self) -> None:
        """After every event: hand out what there is room for, take a step, see when each engine is heard of next."""
        scheduler = self._scheduler
        if self._mode is not SYNC:
            scheduler.max_in_flight = self._in_flight_limit()
        self._admit()
        if not (self._learner.is_busy or self._is_syncing or self._is_quiet) and self._now >= self._free_since:
            self._take()
        if self._is_quiet and not self._is_syncing and not scheduler.num_in_flight:
            self._sync()
        if self._cluster.overlap_speed < 1.0:
            self._share_cores()
        for worker in self._changed:
            self._plans[worker] += 1
            end = self._engines[worker].next_end()
            if end < math.inf:
                self._at(end - self._now, self._engine_event, worker, self._plans[worker])
        self._changed.clear()

    def _in_flight_limit(self) -> int:
        if self._groups_per_worker is not None:
            return self._groups_per_worker * self._cluster.num_workers
        return self._balance.groups_in_flight(self._cluster.max_num_seqs)

    def _admit(self) -> None:
        if self._mode is SYNC and self._now < self._free_since:
            return  # a step is sampled when the controller asks for it
        while not self._is_quiet and self._scheduler.may_admit():
            group = self._again.popleft() if self._again else self._draw()
            self._scheduler.admit(group.uid)
            self._groups[group.uid] = group
            worker = self._balance.assign(group.uid, group.num_prompt_tokens)
            self._engines[worker].submit(self._now, group.uid, group.lengths, group.num_prompt_tokens)
            self._changed.add(worker)

    def _draw(self) -> _Sampled:
        cluster, random, uid = self._cluster, self._of_groups, self._total.num_drawn
        self._total.num_drawn += 1
        return _Sampled(
            uid=uid,
            lengths=cluster.lengths(random, cluster.group_size).tolist(),
            num_prompt_tokens=float(cluster.prompt_lengths(random, 1)[0]),
            judge_s=float(cluster.judge_s(random, 1)[0]),
            has_signal=random.random() >= cluster.share_without_signal,
        )

    # Engines and judges.

    def _engine_event(self, worker: int, plan: int) -> None:
        if plan != self._plans[worker]:
            return
        engine = self._engines[worker]
        engine.advance(self._now)
        self._changed.add(worker)
        for uid, version in engine.ended():
            group = self._groups[uid]
            group.versions.append(version)
            if len(group.versions) == len(group.lengths):
                self._balance.done(uid, group.lengths)
                self._scheduler.sampled(uid)
                self._at(group.judge_s, self._judged, uid)

    def _judged(self, uid: int) -> None:
        group = self._groups.pop(uid)
        if self._filter.accepts(_ANY_GROUP, group.has_signal):
            self._scheduler.ready(uid, group)
            return
        self._scheduler.drop(uid)
        self._total.num_dropped += 1
        self._total.engine_work_s += self._work_s(group)

    def _work_s(self, group: _Sampled) -> float:
        """Seconds of one full engine."""
        cluster = self._cluster
        return sum(group.lengths) * cluster.full_token_s + group.num_prompt_tokens * cluster.decode.prompt_token_s

    # Learner and weight sync.

    def _take(self) -> None:
        if (batch := self._scheduler.take()) is None:
            return
        late = self._scheduler.expired()
        for group in late:
            group.versions.clear()
        self._again += late
        self._total.num_expired += len(late)
        self._total.num_trained += len(batch)
        self._total.waited_s += self._now - self._free_since
        self._total.engine_work_s += sum(map(self._work_s, batch))
        step = self._scheduler.next_step - 1
        self._total.by_staleness.update(staleness(step, v) for group in batch for v in group.versions)
        tokens = sum(length for group in batch for length in group.lengths)
        seconds = float(self._cluster.learner_s(self._of_steps, 1)[0]) + self._cluster.learner_token_s * tokens
        self._total.learned_s += seconds
        self._learner.begin(self._now, seconds)
        self._plan_learner()
        self._admit()

    def _plan_learner(self) -> None:
        self._learner.plan += 1
        self._at(self._learner.end() - self._now, self._learned, self._learner.plan)

    def _learned(self, plan: int) -> None:
        if plan != self._learner.plan:
            return
        self._learner.is_busy = False
        if self._mode is ONE_STEP_OFF:
            self._is_quiet = True  # what is being decoded is finished first
        else:
            self._sync()

    def _sync(self) -> None:
        self._is_syncing = True
        self._set_speed(0.0)
        self._at(float(self._cluster.sync_s(self._of_steps, 1)[0]), self._synced)

    def _synced(self) -> None:
        self._is_syncing = self._is_quiet = False
        version = self._scheduler.policy_version + 1
        for engine in self._engines:
            engine.policy_version = version
        self._set_speed(1.0)
        self._filter.finish_step([_ANY_GROUP])
        self._scheduler.advance(version)
        self._scheduler.expected_share = self._filter.share if self._filter.is_on else 1.0
        self._accounts[version] = self._total.at(self._now, self._engines)
        self._free_since = self._now + float(self._cluster.overhead_s(self._of_steps, 1)[0])
        self._at(self._free_since - self._now, self._free)

    def _free(self) -> None:
        """The learner may take a step; `_pump` sees to it."""

    def _set_speed(self, speed: float) -> None:
        for worker, engine in enumerate(self._engines):
            engine.set_speed(self._now, speed)
            self._changed.add(worker)

    def _share_cores(self) -> None:
        """Engines and learner slow each other down while both are at work."""
        slow, learner = self._cluster.overlap_speed, self._learner
        if not self._is_syncing and self._engines[0].speed != (speed := slow if learner.is_busy else 1.0):
            self._set_speed(speed)
        is_decoding = any(engine.num_active for engine in self._engines)
        if learner.is_busy and learner.speed != (speed := slow if is_decoding else 1.0):
            learner.set_speed(self._now, speed)
            self._plan_learner()
