"""Standard output of a candidate: written to its descriptor, and told to the judge, whose tests may look at it."""

from __future__ import annotations

import contextlib
import io
import os
import sys

_MOST_CHARS = 1 << 16


class Printed:
    """Collects what the program prints between two replies, while it also goes to descriptor 1."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._left = _MOST_CHARS
        self._stream = _Tee(self)
        sys.stdout = self._stream

    def add(self, text: str) -> None:
        """Remember `text`, as far as there is room."""
        if self._left > 0:
            self._pieces.append(text[: self._left])
            self._left -= len(text)

    def take(self) -> str:
        """What was printed since the last call."""
        if not self._pieces:
            return ""
        with contextlib.suppress(Exception):
            self._stream.flush()
        text = "".join(self._pieces)
        self._pieces, self._left = [], _MOST_CHARS
        return text


class _Tee(io.TextIOWrapper):
    def __init__(self, printed: Printed) -> None:
        super().__init__(os.fdopen(1, "wb", closefd=False), encoding="utf-8", errors="replace")
        self._printed = printed

    def write(self, text: str, /) -> int:
        self._printed.add(text)
        return super().write(text)
