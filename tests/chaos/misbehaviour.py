"""Reward kinds that go wrong in every way, installed like those of a package of one's own.

`install` writes what pip would: a dist-info directory with entry points. It has to be on the path of the workers.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rewards.base import Attempt, Verdict

KINDS = ("steady", "sleepy", "deadly", "raising", "untidy", "partial", "waiting", "patient", "souring")


def install(directory: Path) -> None:
    """Make the kinds of this module known to every process that has `directory` on its path."""
    made = directory / "misbehaviour-1.0.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text("Metadata-Version: 2.1\nName: misbehaviour\nVersion: 1.0\n")
    lines = [f"{kind} = {__name__}:{kind.capitalize()}" for kind in KINDS]
    (made / "entry_points.txt").write_text("\n".join(["[keel.rewards]", *lines]) + "\n")


class _Kind:
    @dataclass(slots=True, kw_only=True)
    class Settings:
        directory: str = ""  #: where calls leave a mark
        times: int = 1000  #: first so many calls that go wrong, over all processes

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def _goes_wrong(self) -> bool:
        """Whether this call is among the first `times`."""
        marks = Path(self._settings.directory)
        count = len(list(marks.glob(f"{type(self).__name__}-*")))
        (marks / f"{type(self).__name__}-{count}").touch()
        return count < self._settings.times

    def close(self) -> None:
        pass


class Steady(_Kind):
    """Always 0.5."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        return [Verdict.valid(0.5) for _ in attempts]


class Sleepy(Steady):
    """Hangs."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if self._goes_wrong():
            time.sleep(600)
        return super().judge(attempts)


class Deadly(Steady):
    """Takes its process along."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if self._goes_wrong():
            os._exit(1)
        return super().judge(attempts)


class Raising(Steady):
    """Raises."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if self._goes_wrong():
            raise KeyError("a bug of its author")
        return super().judge(attempts)


class Souring(Steady):
    """Goes wrong after the first `times` calls, until someone writes "mended"."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if not self._goes_wrong() and not (Path(self._settings.directory) / "mended").exists():
            raise ConnectionError("the server it needs is gone")
        return [Verdict.valid(len(attempt.completion) / 100) for attempt in attempts]


class Untidy(Steady):
    """Leaves one out."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        return super().judge(attempts)[1:]


class Partial(Steady):
    """NaN for the second attempt, which would be read as valid elsewhere; other values the second time."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if self._goes_wrong():
            return [Verdict.valid(float("nan") if i == 1 else 0.25) for i in range(len(attempts))]
        return super().judge(attempts)


class Waiting(Steady):
    """Answers once `patient` has been asked, which must not be behind it in a queue."""

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        deadline = time.monotonic() + 30
        while not list(Path(self._settings.directory).glob("Patient-*")):
            if time.monotonic() > deadline:
                return [Verdict.failed("waited_in_vain") for _ in attempts]
            time.sleep(0.01)
        return super().judge(attempts)


class Patient(_Kind):
    """Asynchronous: the first so many calls wait until all of them are there; the others hang."""

    async def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if not self._goes_wrong():
            await asyncio.sleep(600)
        while len(list(Path(self._settings.directory).glob("Patient-*"))) < self._settings.times:
            await asyncio.sleep(0.01)
        return [Verdict.valid(1.0) for _ in attempts]
