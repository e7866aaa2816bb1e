"""The schedule under random delays: nothing too old, nothing lost, nothing twice, no standstill."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.schedule.scheduler import Limits, Scheduler
from grpo.schedule.staleness import deadline, room, staleness


@dataclass(slots=True)
class World:
    """Engines, reward workers and a learner on one simulated clock.

    Each group takes a random time to be sampled and to be judged; some have no signal, some are lost with their worker
    and begin again. New weights are in force a random time after a step's training.
    """

    scheduler: Scheduler[int]
    draw: Callable[[], float]  #: a random number in [0, 1)
    share_without_signal: float = 0.0
    share_lost: float = 0.0
    aborts: bool = False  #: a step does not wait for its slowest groups
    now: float = 0.0
    began_with: dict[int, int] = field(default_factory=dict[int, int])
    trained: list[list[tuple[int, int]]] = field(default_factory=list[list[tuple[int, int]]])
    dropped: list[int] = field(default_factory=list[int])
    again: list[int] = field(default_factory=list[int])
    tries: Counter[int] = field(default_factory=Counter[int])
    drawn: int = 0
    events: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    numbers: int = 0
    is_learning: bool = False
    peak_outstanding: int = 0
    expired: int = 0

    def at(self, delay: float, event: Callable[[], object]) -> None:
        self.numbers += 1
        heapq.heappush(self.events, (self.now + delay, self.numbers, event))

    def run(self) -> None:
        self.pump()
        while self.events:
            self.now, _, event = heapq.heappop(self.events)
            event()
            self.pump()

    def pump(self) -> None:
        while self.scheduler.may_admit():
            uid = self.again.pop() if self.again else self.drawn
            self.drawn += uid == self.drawn
            self.scheduler.admit(uid)
            self.began_with[uid] = self.scheduler.policy_version
            long_tail = 30.0 if self.draw() < 0.1 else 1.0
            self.at(
                self.draw() * long_tail, lambda uid=uid, n=self.tries[uid]: n == self.tries[uid] and self.sampled(uid)
            )
        self.peak_outstanding = max(self.peak_outstanding, self.scheduler.num_open + self.scheduler.num_ready)
        for uid in self.scheduler.overdue() if self.aborts and not self.is_learning else ():
            self.scheduler.drop(uid)
            self.again.append(uid)
            self.tries[uid] += 1  # nothing arrives of what was aborted
        if not self.is_learning and (batch := self.scheduler.take()) is not None:
            late = self.scheduler.expired()
            self.expired += len(late)
            self.again += late
            self.is_learning = True
            self.trained.append([(uid, self.began_with[uid]) for uid in batch])
            self.at(2.0 * self.draw(), lambda: self.at(self.draw(), self.updated))

    def sampled(self, uid: int) -> None:
        if self.draw() < self.share_lost:
            self.scheduler.drop(uid)
            self.again.append(uid)
            return
        self.scheduler.sampled(uid)
        self.at(self.draw(), lambda: self.judged(uid))

    def judged(self, uid: int) -> None:
        if self.draw() < self.share_without_signal:
            self.scheduler.drop(uid)
            self.dropped.append(uid)
        else:
            self.scheduler.ready(uid, uid)

    def updated(self) -> None:
        self.is_learning = False
        self.scheduler.advance(len(self.trained))


def limits(per_step: int, max_staleness: int, steps: int, max_in_flight: int = 1000) -> Limits:
    return Limits(groups_per_step=per_step, max_staleness=max_staleness, last_step=steps, max_in_flight=max_in_flight)


@given(
    per_step=st.integers(1, 7),
    max_staleness=st.integers(0, 4),
    max_in_flight=st.integers(1, 40),
    without_signal=st.sampled_from([0.0, 0.3, 0.8]),
    lost=st.sampled_from([0.0, 0.2]),
    aborts=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
@settings(max_examples=400, deadline=None)
def test_random_schedules(
    per_step: int, max_staleness: int, max_in_flight: int, without_signal: float, lost: float, aborts: bool, seed: int
) -> None:
    steps = 8
    scheduler = Scheduler[int](limits(per_step, max_staleness, steps, max_in_flight))
    world = World(
        scheduler, random.Random(seed).random, share_without_signal=without_signal, share_lost=lost, aborts=aborts
    )
    world.run()
    assert [len(batch) for batch in world.trained] == [per_step] * steps, "it came to a standstill"
    for number, batch in enumerate(world.trained):
        for _, version in batch:
            assert 0 <= staleness(number + 1, version) <= max_staleness
    used = [uid for batch in world.trained for uid, _ in batch]
    assert len(used) == len(set(used)) == per_step * steps
    assert sorted(used + world.dropped) == list(range(world.drawn)), "a prompt was lost or used twice"
    assert world.expired == 0, "a group was too old for any step"
    assert world.peak_outstanding <= (max_staleness + 1) * per_step
    assert scheduler.num_open == scheduler.num_ready == 0


@given(share=st.sampled_from([0.25, 0.5]), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_over_sampling_hands_back_what_grew_too_old(share: float, seed: int) -> None:
    scheduler = Scheduler[int](limits(4, 1, 10))
    scheduler.expected_share = share
    world = World(scheduler, random.Random(seed).random)  # all have signal: more become ready than was expected
    world.run()
    used = [uid for batch in world.trained for uid, _ in batch]
    assert len(world.trained) == 10 and len(used) == len(set(used)) == 40
    assert all(0 <= staleness(n + 1, v) <= 1 for n, batch in enumerate(world.trained) for _, v in batch)


def test_without_staleness_nothing_is_sampled_while_a_step_is_trained() -> None:
    scheduler = Scheduler[str](limits(2, 0, 3))
    for uid in (0, 1):
        assert scheduler.may_admit()
        scheduler.admit(uid)
    assert not scheduler.may_admit(), "two are enough for a step"
    for uid in (1, 0):
        assert scheduler.take() is None
        scheduler.sampled(uid)
        scheduler.ready(uid, f"group {uid}")
    assert scheduler.take() == ["group 1", "group 0"]
    assert not scheduler.may_admit(), "the weights are not those of the next step yet"
    scheduler.advance(1)
    assert scheduler.may_admit()


def test_a_step_waits_for_the_group_it_is_the_last_one_for() -> None:
    scheduler = Scheduler[int](limits(2, 1, 9))
    for uid in range(4):
        scheduler.admit(uid)
    assert not scheduler.may_admit()
    for uid in (1, 2):
        scheduler.ready(uid, uid)
    assert scheduler.take() == [1, 2]
    scheduler.advance(1)
    scheduler.admit(4)
    scheduler.admit(5)
    for uid in (3, 4, 5):
        scheduler.ready(uid, uid)
    assert scheduler.take() is None, "group 0 is of version 0: step 2 is its last"
    scheduler.ready(0, 0)
    assert sorted(scheduler.take() or []) == [0, 3]
    assert sorted(scheduler.take() or []) == [4, 5]


def test_younger_groups_do_not_take_the_places_of_older_ones() -> None:
    """One group a step. Of three of version 0, due at step 3, one is trained on; then a younger one is ready first."""
    scheduler = Scheduler[int](limits(1, 2, 9))
    for uid in range(3):
        scheduler.admit(uid)
    scheduler.ready(0, 0)
    assert scheduler.take() == [0]
    scheduler.advance(1)
    scheduler.admit(3)
    scheduler.ready(3, 3)
    assert scheduler.take() is None, "with it, step 3 would be left to both 1 and 2"
    scheduler.ready(2, 2)
    assert scheduler.take() == [2]
    assert scheduler.take() is None, "1 is due"
    scheduler.ready(1, 1)
    assert scheduler.take() == [1] and scheduler.expired() == []


def test_admission_goes_on_while_a_step_waits_for_its_last_group() -> None:
    scheduler = Scheduler[int](limits(1, 1, 9))
    scheduler.admit(0)
    scheduler.admit(1)
    scheduler.ready(0, 0)
    assert not scheduler.may_admit(), "step 1 is complete"
    assert scheduler.take() == [0]
    scheduler.advance(1)
    assert scheduler.may_admit()
    scheduler.admit(2)
    scheduler.ready(2, 2)
    assert scheduler.take() is None, "1 is due"
    assert not scheduler.may_admit(), "there is room for two in all"
    scheduler.drop(1)
    assert scheduler.take() == [2]


def test_admission_rests_while_a_whole_step_waits() -> None:
    scheduler = Scheduler[int](limits(2, 4, 9))
    for uid in range(2):
        scheduler.admit(uid)
        scheduler.ready(uid, uid)
    assert not scheduler.may_admit()
    assert scheduler.take() is not None
    assert scheduler.may_admit()


@pytest.mark.parametrize(
    ("version", "next_step", "expected"),
    [(0, 1, 12), (0, 2, 8), (0, 3, 4), (0, 4, 0), (0, 9, 0), (7, 8, 12), (8, 10, 4), (9, 10, 4), (9, 11, 0)],
)
def test_room(version: int, next_step: int, expected: int) -> None:
    """Two steps of staleness, four groups a step, ten steps."""
    found = room(policy_version=version, next_step=next_step, last_step=10, groups_per_step=4, max_staleness=2)
    assert found == expected
    assert staleness(deadline(version, 2), version) == 2
