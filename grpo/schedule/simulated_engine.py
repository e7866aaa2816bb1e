"""One engine on a simulated clock: continuous batching as processor sharing."""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

#: Two sequences that end within this share of a token end together.
_TOGETHER = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeCost:
    """Seconds of one decode step with n sequences, `fixed_s + sequence_s` n, and of reading a prompt.

    Attributes:
        fixed_s: whatever the number of sequences: reading the weights, launching kernels.
        sequence_s: of each sequence in the step.
        prompt_token_s: of each prompt token; a group's prompt is read once, all its sequences wait meanwhile.
    """

    fixed_s: float
    sequence_s: float
    prompt_token_s: float = 0.0

    def step_s(self, num_active: int) -> float:
        """One token for each of `num_active` sequences, seconds."""
        return self.fixed_s + self.sequence_s * num_active


class SimulatedEngine:
    """Up to `max_num_seqs` sequences are decoded together, each by a token a step; the others wait in line.

    All active sequences make the same progress, so one number says how far they are, and a heap which ends next: an
    event costs O(log `max_num_seqs`). Attributes are in seconds and tokens.

    Attributes:
        speed: share of its own speed; 0 pauses it.
        num_decoded: tokens so far.
        busy_s: seconds so far of decoding and reading prompts, of its own speed.
    """

    def __init__(self, cost: DecodeCost, max_num_seqs: int) -> None:
        self.cost, self.max_num_seqs = cost, max_num_seqs
        self.speed = 1.0
        self.policy_version = 0
        self.num_decoded = 0.0
        self.busy_s = 0.0
        self._now = 0.0
        self._progress = 0.0  # tokens that a sequence would have, had it been active from the start
        self._debt_s = 0.0  # of prompts to be read
        self._active: list[tuple[float, int, int, int]] = []  # heap of (progress at its end, number, group, version)
        self._waiting: deque[tuple[int, float, float]] = deque()  # (group, tokens, seconds to read its prompt)
        self._numbers = count()

    @property
    def num_active(self) -> int:
        """Sequences that are being decoded."""
        return len(self._active)

    @property
    def num_waiting(self) -> int:
        """Sequences that wait in line."""
        return len(self._waiting)

    def submit(self, now: float, group: int, lengths: Sequence[float], num_prompt_tokens: float) -> None:
        """One group: a sequence of each length, tokens. The first reads the prompt, the others find it cached."""
        self.advance(now)
        prefill_s = self.cost.prompt_token_s * num_prompt_tokens
        for length in lengths:
            self._waiting.append((group, length, prefill_s))
            prefill_s = 0.0
        self._fill()

    def advance(self, now: float) -> None:
        """Decode until `now`, which is not after `next_end`."""
        elapsed, self._now = (now - self._now) * self.speed, now
        if not self._active or elapsed <= 0:
            return
        self.busy_s += elapsed
        reading = min(elapsed, self._debt_s)
        self._debt_s -= reading
        tokens = (elapsed - reading) / self.cost.step_s(len(self._active))
        self._progress += tokens
        self.num_decoded += tokens * len(self._active)

    def set_speed(self, now: float, speed: float) -> None:
        """From `now` on. What waits in a paused engine begins when it goes on."""
        self.advance(now)
        self.speed = speed
        self._fill()

    def next_end(self) -> float:
        """When the next sequence ends, if nothing happens before; infinity where none will."""
        if not self._active or self.speed <= 0:
            return math.inf
        left = max(0.0, self._active[0][0] - self._progress) * self.cost.step_s(len(self._active))
        return self._now + (self._debt_s + left) / self.speed

    def ended(self) -> list[tuple[int, int]]:
        """Take out the sequences that have ended: (group, policy version of the first token) each."""
        found: list[tuple[int, int]] = []
        while self._active and self._active[0][0] <= self._progress + _TOGETHER:
            _, _, group, version = heapq.heappop(self._active)
            found.append((group, version))
        self._fill()
        return found

    def _fill(self) -> None:
        while self._waiting and self.speed > 0 and len(self._active) < self.max_num_seqs:
            group, length, prefill_s = self._waiting.popleft()
            self._debt_s += prefill_s
            entry = (self._progress + length, next(self._numbers), group, self.policy_version)
            heapq.heappush(self._active, entry)
