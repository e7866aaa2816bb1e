"""One place in the pool: a zygote, its socket and its directory, as the pool's process sees them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewards.sandbox import wire
from rewards.sandbox.directories import remove_tree
from rewards.sandbox.program import Program
from rewards.sandbox.supervise import processes

_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from rewards.sandbox.zygote import main; main()"
_START_TIMEOUT_S = 120.0
_GRACE_S = 60.0  #: beyond the wall limit, which the zygote enforces; after that the zygote itself is stuck
_STOP_TIMEOUT_S = 10.0


class ZygoteDiedError(Exception):
    """The zygote ended, or stopped answering, while a program was entrusted to it."""


class Slot:
    """Owns at most one zygote at a time. One thread may call `run`; any thread may call `interrupt`."""

    def __init__(self, root: Path, index: int) -> None:
        self._root = root
        self._index = index
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._ready = False
        self._candidate = 0

    @property
    def pid(self) -> int | None:
        """The zygote's process id."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a zygote without waiting for it.

        Call it from a thread that outlives the zygote: PR_SET_PDEATHSIG follows the thread that made the process,
        so a zygote made in a passing thread would die with that thread.
        """
        # A directory for each zygote: what is left of a killed one may still be tidying up its own.
        self._root.mkdir(exist_ok=True)
        self._directory = Path(tempfile.mkdtemp(prefix=f"slot-{self._index}-", dir=self._root))
        for directory in (self._root, self._directory):
            directory.chmod(0o711)  # candidates of another user pass through to their own
        ours, theirs = socket.socketpair()
        # Without its library path a relocated interpreter does not start at all.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        arguments = [_ROOT, str(theirs.fileno()), str(os.getpid()), str(self._directory)]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-s", "-P", "-B", "-c", _BOOT, *arguments],
                env={**kept, "MALLOC_ARENA_MAX": "1", "PYTHONHASHSEED": "0"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        self._control, self._ready = ours, False

    def run(self, program: Program) -> Mapping[str, Any]:
        """The facts of one program's death, as `classify` reads them. Raises ZygoteDiedError."""
        if self._control is None:
            raise ZygoteDiedError("not running")
        job = {
            "source": program.source,
            "setup": program.setup,
            "tests": program.tests,
            "limits": asdict(program.limits),
        }
        try:
            if not self._ready:
                self._control.settimeout(_START_TIMEOUT_S)
                wire.receive(self._control)
                self._ready = True
            self._control.settimeout(program.limits.wall_time_s + _GRACE_S)
            wire.send(self._control, job)
            self._candidate = wire.receive(self._control)["started"]
            facts = wire.receive(self._control)
        except (EOFError, OSError) as error:  # TimeoutError is an OSError
            raise ZygoteDiedError(f"{type(error).__name__}: {error}") from error
        self._candidate = 0
        return facts

    def interrupt(self) -> None:
        """Tell the zygote to end, which also wakes a thread in `run`."""
        if self._control is not None:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)

    def stop(self) -> None:
        """End the zygote and whatever it ran, and remove its directory. Does nothing when called again."""
        self.interrupt()
        if self._process is not None:
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._candidate:
                _kill_session(self._candidate)
            self._process, self._candidate = None, 0
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._directory is not None:
            remove_tree(self._directory)
            self._directory = None


def _kill_session(session: int) -> None:
    """Kill what a candidate started, when its zygote no longer can. What has left the session escapes."""
    while members := [pid for pid, stat in processes() if int(stat[3]) == session and stat[0] not in "ZX"]:
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
