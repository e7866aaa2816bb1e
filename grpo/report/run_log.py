"""run.log: everything said about a run, with its time, free of terminal control codes."""

from __future__ import annotations

import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path

_CONTROL = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_NUMBER = re.compile(r"\d[\d.,]*(?:e[+-]?\d+)?%?")
_WARNING_LINE = re.compile(r"\S+ WARNING (.*)")


class Level(StrEnum):
    """Kind of a line in run.log."""

    STEP = "STEP"
    NOTE = "NOTE"
    WARNING = "WARNING"


class RunLog:
    """Appends to run.log, a line at a time; later lines of one message are indented.

    Args:
        path: the file; null logs nowhere.
    """

    def __init__(self, path: Path | None) -> None:
        # Line buffered: what was said before a crash is what one needs to read after it.
        self._file = None if path is None else path.open("a", encoding="utf-8", errors="replace", buffering=1)

    def write(self, level: Level, message: str) -> None:
        """Append one message. Does nothing once closed."""
        if self._file is not None and not self._file.closed:
            time = datetime.now().astimezone().isoformat(timespec="seconds")
            self._file.write(f"{time} {level} " + printable(message).replace("\n", "\n    ") + "\n")

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file is not None:
            self._file.close()


class WarningTally:
    """Warnings counted by wording: two that differ only in their numbers are one, shown in its latest wording."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[str, int]] = {}

    def add(self, message: str) -> None:
        """Count one warning and make it the most recent."""
        key = _NUMBER.sub("#", message)
        _, count = self._counts.pop(key, ("", 0))
        self._counts[key] = (message, count + 1)

    def recent(self, limit: int | None = None) -> list[tuple[str, int]]:
        """Messages and how often each came, most recent first."""
        return list(reversed(self._counts.values()))[:limit]


def printable(text: str) -> str:
    """`text` without control characters but for line ends and tabs: worker output must not steer the terminal."""
    return _CONTROL.sub("", text.replace("\r\n", "\n").rstrip("\n"))


def read_warnings(path: Path) -> list[tuple[str, int]]:
    """Warnings in a run.log and how often each came, most recent first; empty where there is no file."""
    tally = WarningTally()
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if found := _WARNING_LINE.fullmatch(line):
                tally.add(found[1])
    return tally.recent()
