"""What every worker process does first, and how its death is explained."""

from __future__ import annotations

import os
import re
import socket
import sys
from itertools import pairwise
from pathlib import Path

from grpo.config import RunConfig


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


def node_address(config: RunConfig) -> str:
    """The address other workers reach this process at: loopback where the cluster is this machine alone."""
    if config.cluster.address is None:
        return "127.0.0.1"
    import ray

    return ray.util.get_node_ip_address()


def last_traceback(log: str, *, limit: int = 40) -> str:
    """The last Python traceback in a worker's log that names a cause, at most `limit` lines; "" without one.

    vLLM follows the traceback of a failed subprocess with others that only say where to look for the root cause.
    """
    lines = [re.sub(r"^\([^)]*pid=\d+\) ?", "", line) for line in log.splitlines()]
    lines = [re.sub(r"^ERROR \d\d-\d\d [\d:]+ \[[^]]*\]\s?", "", line) for line in lines]
    starts = [i for i, line in enumerate(lines) if line.lstrip().startswith("Traceback (most recent call last)")]
    blocks = [lines[a:b] for a, b in pairwise([*starts, len(lines)])]
    causes = [b for b in blocks if not any("root cause" in line.lower() for line in b)]
    return "\n".join(_around_error(causes[-1], limit)) if causes else ""


def _around_error(block: list[str], limit: int) -> list[str]:
    """At most `limit` lines of a traceback and what was logged after it: those around the error and its message."""
    error = next((i for i, line in enumerate(block) if i and re.match(r"[A-Za-z_][\w.]*(:|$)", line)), len(block) - 1)
    end = min(len(block), error + 1 + limit // 4)
    return block[max(0, end - limit) : end] if len(block) > limit else block
