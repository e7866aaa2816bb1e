"""The reward contract: `Attempt` in, `Verdict` out, through any object that fulfils `Reward`."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable

#: Marks a `Settings` field that names a model.
MODEL: Mapping[str, bool] = {"model": True}


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
    def failed(cls, reason: str, details: Mapping[str, float] | None = None) -> Verdict:
        """The verifier itself broke."""
        return cls(outcome=Outcome.FAILED, value=math.nan, reason=reason, details=details or {})

    @classmethod
    def absent(cls, reason: str = "") -> Verdict:
        """The term does not apply to this attempt."""
        return cls(outcome=Outcome.ABSENT, value=math.nan, reason=reason)


@runtime_checkable
class Reward(Protocol):
    """One reward term at work in a reward worker, which asks it for the verdicts of one group at a time.

    A reward kind is a class with this protocol and two things more: a nested plain dataclass ``Settings`` of keyword
    fields with defaults and invariants (absent where there is nothing to set), and a constructor that takes one. It may
    have a static method ``check(settings)``, which the driver calls before anything starts: it raises `RewardError` for
    what can be found out cheaply, such as a missing API key or a sandbox that can't isolate.

    A `Settings` field with ``metadata=MODEL`` names a model: the driver turns a built-in name or a hub id into a local
    directory before the reward sees it.
    """

    def judge(self, attempts: Sequence[Attempt]) -> Sequence[Verdict] | Awaitable[Sequence[Verdict]]:
        """One verdict for each attempt, in order; ``def`` or ``async def``.

        A plain method runs in a thread of its own, one group at a time, so that it may block; several groups may be in
        an async one at once. Must not raise for a bad completion: that is a valid low value. Whatever it does raise
        becomes failed verdicts.

        Args:
            attempts: the completions of one prompt.
        """
        ...

    def close(self) -> None:
        """Release processes and memory. Called once, when the worker ends."""
        ...
