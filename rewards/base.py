"""The reward contract: `Attempt` in, `Verdict` out, through any object that fulfils `Reward`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable


class RewardError(ValueError):
    """A reward that can't be built from its configuration; the message names the key and the remedy."""


class Outcome(StrEnum):
    """What became of one reward term on one completion."""

    VALID = "valid"  #: a finite number that may be trained on
    FAILED = "failed"  #: the verifier broke; excluded from every statistic, never read as 0
    ABSENT = "absent"  #: the term does not apply to this task


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One completion as a reward sees it.

    Attributes:
        prompt: chat messages as (role, content) pairs.
        prefill: text the assistant turn was started with; it belongs to the answer but was not sampled.
        completion: sampled text, without `prefill` and without special tokens.
        token_ids: sampled token ids, [T].
        reference: the task's own data, e.g. its unit tests. Read-only.
        finish_reason: why sampling ended: "stop", "length" or "aborted".
        domain: name of the data domain, e.g. "code".
    """

    prompt: tuple[tuple[str, str], ...]
    prefill: str
    completion: str
    token_ids: tuple[int, ...]
    reference: Mapping[str, object]
    finish_reason: str
    domain: str

    @property
    def answer(self) -> str:
        """The assistant's whole turn: prefill and completion."""
        return self.prefill + self.completion


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a reward says of one attempt. Build it with `Verdict.valid`, `.failed` or `.absent`.

    Attributes:
        outcome: valid, failed or absent.
        value: finite float when valid, else NaN.
        reason: why it failed or is absent; short and stable, since failures are counted by it.
        details: named extra numbers, e.g. ``{"tests_passed": 2, "tests_total": 4}``.
    """

    outcome: Outcome
    value: float
    reason: str = ""
    details: Mapping[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def valid(cls, value: float, details: Mapping[str, float] | None = None, reason: str = "") -> Verdict:
        """A finite reward. A NaN or infinity becomes a failure: it must not reach an advantage."""
        if not math.isfinite(value):
            return cls.failed(f"reward is {value}")
        return cls(outcome=Outcome.VALID, value=float(value), reason=reason, details=details or {})

    @classmethod
    def failed(cls, reason: str) -> Verdict:
        """The verifier itself broke."""
        return cls(outcome=Outcome.FAILED, value=math.nan, reason=reason)

    @classmethod
    def absent(cls, reason: str = "") -> Verdict:
        """The term does not apply to this attempt."""
        return cls(outcome=Outcome.ABSENT, value=math.nan, reason=reason)


@runtime_checkable
class Reward(Protocol):
    """One reward term. Instances live in a reward worker and are asked for batches of attempts."""

    name: str

    def judge(self, attempts: list[Attempt]) -> list[Verdict]:
        """One verdict for each attempt, in order. Must not raise for a bad completion: that is a valid low value."""
        ...

    def close(self) -> None:
        """Release processes and memory. Called once, when the worker ends."""
        ...
