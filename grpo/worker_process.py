"""What every worker process does first, and how its death is explained."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path


def log_to_file(path: Path) -> None:
    """Send this process's stdout and stderr, and those of its children, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def free_port(host: str) -> int:
    """A TCP port on `host` that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return probe.getsockname()[1]


def last_traceback(log: str, *, limit: int = 40) -> str:
    """The last Python traceback in a worker's log, or its last lines, at most `limit` lines.

    vLLM reports the failure of a subprocess by a second traceback that says only "see root cause above"; the one
    that names the cause is preferred.
    """
    lines = [re.sub(r"^\([^)]*pid=\d+\)\s*", "", line) for line in log.splitlines()]
    lines = [re.sub(r"^ERROR \d\d-\d\d [\d:]+ \[[^]]*\]\s?", "", line) for line in lines]
    starts = [i for i, line in enumerate(lines) if line.lstrip().startswith("Traceback (most recent call last)")]
    blocks = [lines[a:b] for a, b in zip(starts, [*starts[1:], len(lines)], strict=True)]
    causes = [b for b in blocks if not any("root cause above" in line.lower() for line in b)]
    chosen = causes[-1] if causes else lines
    return "\n".join(chosen[:limit] if causes else chosen[-limit:])
