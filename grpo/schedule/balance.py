"""Which rollout worker gets the next group, and how many groups keep a worker busy."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

#: Weight of the newest group in the expected lengths.
_SMOOTHING = 0.05


@dataclass(slots=True)
class Balance:
    """Outstanding work of each worker, in tokens: prompts once, and what their completions will probably be.

    A group is never divided: its members find their prompt in one prefix cache. A call costs O(log of the workers).

    Attributes:
        num_workers: how many there are.
        group_size: completions of a prompt.
        expected_tokens: of one completion; learned from those that are done.
        expected_longest: of a group's longest completion; learned too, twice the other to begin with.
    """

    num_workers: int
    group_size: int
    expected_tokens: float
    expected_longest: float = field(init=False)
    _work: list[float] = field(init=False)
    _least: list[tuple[float, int]] = field(init=False)  # heap of (work, worker); what is not true any more stays in it
    _given: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])

    def __post_init__(self) -> None:
        self.expected_longest = 2.0 * self.expected_tokens
        self._work = [0.0] * self.num_workers
        self._least = [(0.0, worker) for worker in range(self.num_workers)]

    def assign(self, uid: int, num_prompt_tokens: float) -> int:
        """The worker for group `uid`: the one with the least left to decode."""
        while self._least[0][0] != self._work[self._least[0][1]]:
            heapq.heappop(self._least)
        worker = self._least[0][1]
        tokens = num_prompt_tokens + self.group_size * self.expected_tokens
        self._given[uid] = (worker, tokens)
        self._set(worker, self._work[worker] + tokens)
        return worker

    def done(self, uid: int, lengths: Sequence[float] = ()) -> None:
        """Group `uid` is no work any more.

        Args:
            lengths: of its completions, tokens; none where it was given up.
        """
        worker, tokens = self._given.pop(uid)
        self._set(worker, self._work[worker] - tokens)
        if lengths:
            self.expected_tokens += _SMOOTHING * (sum(lengths) / len(lengths) - self.expected_tokens)
            self.expected_longest += _SMOOTHING * (max(lengths) - self.expected_longest)

    def groups_in_flight(self, max_num_seqs: int) -> int:
        """Groups that keep all workers decoding `max_num_seqs` completions each.

        A group is in flight until its longest completion ends, its other members for as long as they are themselves.
        By Little's law (https://doi.org/10.1287/opre.9.3.383) S completions are being decoded where S / G x (longest
        over mean length) groups are in flight. Another is added, so that an engine need not wait for the next.
        """
        spread = max(1.0, self.expected_longest / max(1.0, self.expected_tokens))
        return self.num_workers * (math.ceil(max_num_seqs / self.group_size * spread) + 1)

    def worker_of(self, uid: int) -> int:
        """Where group `uid` is."""
        return self._given[uid][0]

    def outstanding(self) -> tuple[float, ...]:
        """Tokens each worker has left, by its expectation."""
        return tuple(self._work)

    def _set(self, worker: int, work: float) -> None:
        self._work[worker] = work
        heapq.heappush(self._least, (work, worker))
        if len(self._least) > 8 * self.num_workers + 64:
            self._least = [(left, index) for index, left in enumerate(self._work)]
            heapq.heapify(self._least)
