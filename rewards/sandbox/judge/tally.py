"""What a judge tells the pool, line by line, so that what was found before a death counts."""

from __future__ import annotations

import json
import os

_MESSAGE_CHARS = 400


class Tally:
    """Writes one JSON list a line: event, index, message."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.flags: set[str] = set()

    def ready(self) -> None:
        """The guest is confined, and has not seen the source: whatever ends it from now on is its own doing."""
        self._say("ready")

    def fault(self, message: str) -> None:
        """The task's own code does not work."""
        self._say("fault", 0, message)

    def total(self, count: int) -> None:
        """How many tests there are."""
        self._say("total", count)

    def passed(self, index: int) -> None:
        """Test `index` passed."""
        self._say("pass", index)

    def failed(self, index: int, message: str) -> None:
        """Test `index` did not pass."""
        self._say("fail", index, message)

    def raised(self, message: str) -> None:
        """The source did not run."""
        self._say("raised", 0, message)

    def out_of_memory(self) -> None:
        """The program said that it has no more memory."""
        self._say("memory")

    def gone(self, message: str) -> None:
        """The guest left, or broke the protocol."""
        self._say("gone", 0, message)

    def done(self) -> None:
        """Everything was asked."""
        for flag in sorted(self.flags):
            self._say("flag", 0, flag)
        self._say("done")

    def _say(self, event: str, index: int = 0, message: str = "") -> None:
        data = json.dumps([event, index, message[:_MESSAGE_CHARS]]).encode("ascii") + b"\n"
        view = memoryview(data)
        while view:
            view = view[os.write(self._fd, view) :]
