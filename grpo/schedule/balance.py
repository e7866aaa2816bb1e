"""Which rollout worker gets the next group: the one with the least left to decode."""

from __future__ import annotations

from dataclasses import dataclass, field

#: Weight of the newest group in the expected length of a completion.
_SMOOTHING = 0.05


@dataclass(slots=True)
class Balance:
    """Outstanding work of each worker, in tokens: prompts once, and what their completions will probably be.

    A group is never divided: its members find their prompt in one prefix cache.

    Attributes:
        num_workers: how many there are.
        group_size: completions of a prompt.
        expected_tokens: of one completion; learned from those that are done.
    """

    num_workers: int
    group_size: int
    expected_tokens: float
    _work: list[float] = field(init=False)
    _given: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])

    def __post_init__(self) -> None:
        self._work = [0.0] * self.num_workers

    def assign(self, uid: int, num_prompt_tokens: int) -> int:
        """The worker for group `uid`."""
        worker = min(range(self.num_workers), key=self._work.__getitem__)
        tokens = num_prompt_tokens + self.group_size * self.expected_tokens
        self._work[worker] += tokens
        self._given[uid] = (worker, tokens)
        return worker

    def done(self, uid: int, num_tokens: int | None = None) -> None:
        """Group `uid` is no work any more.

        Args:
            num_tokens: decoded for it; None where it was given up.
        """
        worker, tokens = self._given.pop(uid)
        self._work[worker] -= tokens
        if num_tokens is not None:
            self.expected_tokens += _SMOOTHING * (num_tokens / self.group_size - self.expected_tokens)

    def worker_of(self, uid: int) -> int:
        """Where group `uid` is."""
        return self._given[uid][0]

    def outstanding(self) -> tuple[float, ...]:
        """Tokens each worker has left, by its expectation."""
        return tuple(self._work)
