"""Files that are rewritten while a run lives: a reader sees the old or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Generator[Path, None, None]:
    """A path beside `path` to write to; it takes `path`'s place when the block ends and vanishes when it raises."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        with aside.open("rb") as written:
            os.fsync(written.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write or atomically rewrite `path` with `text`, UTF-8."""
    with replacing(path) as aside:
        # Model output may hold lone surrogates, which UTF-8 can't encode: a report must not fail over one.
        aside.write_text(text, encoding="utf-8", errors="replace")
