"""Which group may be sampled now, and when a step's groups are complete."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from grpo.schedule.staleness import deadline, room

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a schedule has to keep to.

    Attributes:
        groups_per_step: P.
        max_staleness: k, in steps; 0 samples and trains by turns.
        last_step: of the run.
        max_in_flight: groups that the engines are given at a time, to begin with. More would wait there and grow old.
    """

    groups_per_step: int
    max_staleness: int
    last_step: int
    max_in_flight: int


class Scheduler(Generic[T]):
    """Groups from admission to the step that trains on them. Each event costs O(log of the outstanding groups).

    A group is *in flight* while it is sampled, *open* until it is ready, *ready* until a step takes it, and outstanding
    all that time. Admission stops while a step waits for the learner: what is sampled later is fresher. While the
    learner waits for the last group of a step it goes on, however many others are ready.
    """

    def __init__(self, limits: Limits, *, finished_steps: int = 0) -> None:
        self.limits = limits
        self.policy_version = finished_steps
        self.next_step = finished_steps + 1
        self._in_flight: set[int] = set()
        self._deadlines: dict[int, int] = {}  # of open groups, by uid
        self._due = Counter[int]()  # open groups by deadline
        self._ready: list[tuple[int, int, T]] = []  # heap of deadline, arrival, group
        self._ready_due = Counter[int]()  # ready groups by deadline
        self._arrivals = count()
        #: Groups that the engines may have at a time.
        self.max_in_flight = limits.max_in_flight
        #: Share of open groups that are expected to become ready; below 1, more are sampled than needed if all did.
        self.expected_share = 1.0

    @property
    def num_in_flight(self) -> int:
        """Groups that engines are sampling."""
        return len(self._in_flight)

    @property
    def num_open(self) -> int:
        """Groups that are being sampled or judged."""
        return len(self._deadlines)

    @property
    def num_ready(self) -> int:
        """Groups that wait for a step."""
        return len(self._ready)

    def may_admit(self) -> bool:
        """Whether one more group may be handed to an engine now."""
        limits = self.limits
        if len(self._in_flight) >= self.max_in_flight or self._is_complete():
            return False
        return self.num_ready + math.ceil(self.num_open * self.expected_share) < room(
            policy_version=self.policy_version,
            next_step=self.next_step,
            last_step=limits.last_step,
            groups_per_step=limits.groups_per_step,
            max_staleness=limits.max_staleness,
        )

    def admit(self, uid: int) -> None:
        """Group `uid` goes to an engine that holds the current version."""
        assert uid not in self._deadlines, "a group is admitted once"
        due = deadline(self.policy_version, self.limits.max_staleness)
        self._deadlines[uid] = due
        self._due[due] += 1
        self._in_flight.add(uid)

    def sampled(self, uid: int) -> None:
        """The engine is done with it; it is being judged."""
        self._in_flight.remove(uid)

    def ready(self, uid: int, group: T) -> None:
        """It is judged, and waits for a step."""
        due = self._close(uid)
        self._ready_due[due] += 1
        heapq.heappush(self._ready, (due, next(self._arrivals), group))

    def drop(self, uid: int) -> None:
        """It will not be trained on; its place is free for another."""
        self._close(uid)

    def take(self) -> list[T] | None:
        """The groups of the next step, earliest deadline first; None while they are not complete.

        Complete: there are P, and none that is still open would miss its deadline for it.
        """
        if not self._is_complete():
            return None
        taken = [self._pop() for _ in range(self.limits.groups_per_step)]
        self.next_step += 1
        return taken

    def overdue(self) -> list[int]:
        """Groups in flight that alone keep the next step waiting. Whoever will not wait aborts and drops them."""
        due, number = self._waits_for()
        if len(self._ready) < self.limits.groups_per_step or not number:
            return []
        return sorted(uid for uid in self._in_flight if self._deadlines[uid] <= due)[:number]

    def expired(self) -> list[T]:
        """Take out what no step may train on any more. Nothing, unless more became ready than `expected_share` said."""
        late: list[T] = []
        while self._ready and self._ready[0][0] < self.next_step:
            late.append(self._pop())
        return late

    def advance(self, policy_version: int) -> None:
        """All engines hold `policy_version`."""
        assert policy_version >= self.policy_version
        self.policy_version = policy_version

    def _is_complete(self) -> bool:
        return len(self._ready) >= self.limits.groups_per_step and not self._waits_for()[1]

    def _waits_for(self) -> tuple[int, int]:
        """(deadline, how many): open groups due by then that the next step must not leave behind; how many may be 0.

        For every deadline d, what stays behind and is due by d has to fit into the later steps up to d. It always does
        if nothing younger is taken (`to_take` is 0 then), but for what this very step is the last one for.
        """
        per_step, to_take = self.limits.groups_per_step, self.limits.groups_per_step
        num_open = num_staying = 0
        for due in range(self.next_step, deadline(self.policy_version, self.limits.max_staleness) + 1):
            num_open += self._due.get(due, 0)
            ready = self._ready_due.get(due, 0)
            taken = min(to_take, ready)
            to_take -= taken
            num_staying += ready - taken
            if due == self.next_step and num_open:
                return due, num_open
            too_many = num_staying + math.ceil(num_open * self.expected_share) - (due - self.next_step) * per_step
            if num_open and to_take and too_many > 0:
                return due, too_many
        return self.next_step, 0

    def _pop(self) -> T:
        due, _, group = heapq.heappop(self._ready)
        self._ready_due[due] -= 1
        if not self._ready_due[due]:
            del self._ready_due[due]
        return group

    def _close(self, uid: int) -> int:
        self._in_flight.discard(uid)
        due = self._deadlines.pop(uid)
        self._due[due] -= 1
        if not self._due[due]:
            del self._due[due]
        return due
