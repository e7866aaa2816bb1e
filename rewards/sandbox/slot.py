"""One place in the pool: a zygote and its sockets, as the pool's process sees them."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rewards.sandbox import frames
from rewards.sandbox.classify import Event
from rewards.sandbox.interpreter import this_interpreter
from rewards.sandbox.program import Form, Program
from rewards.sandbox.survey import Layer, LayerState

_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from rewards.sandbox.worker.zygote import main; main()"
_START_TIMEOUT_S = 120.0
_GRACE_S = 60.0  #: beyond the limits, which the zygote enforces; after that the zygote itself is stuck
_STOP_TIMEOUT_S = 10.0


class ZygoteDiedError(Exception):
    """The zygote ended, or stopped answering, while a program was entrusted to it."""


class Slot:
    """Owns at most one zygote at a time. One thread may call `run`; any thread may call `interrupt`."""

    def __init__(self, root: Path, index: int, tmp_bytes: int, without: Collection[Layer]) -> None:
        self._root, self._index, self._tmp_bytes, self._without = root, index, tmp_bytes, tuple(without)
        self._directory: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self.layers: tuple[LayerState, ...] = ()
        self.leftovers = 0  #: processes that outlived the last program

    @property
    def pid(self) -> int | None:
        """The zygote's process id."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start a zygote without waiting for it.

        Call it from a thread that outlives the zygote: PR_SET_PDEATHSIG follows the thread that made the process,
        so a zygote made in a passing thread would die with that thread.
        """
        self._directory = Path(tempfile.mkdtemp(prefix=f"slot-{self._index}-", dir=self._root))
        self._directory.chmod(0o711)  # programs of another user pass through to their own
        interpreter = this_interpreter()
        settings = {
            "parent": os.getpid(),
            "base": str(self._directory),
            "packages": interpreter.packages,
            "readable": interpreter.readable,
            "tmp_bytes": self._tmp_bytes,
            "without": self._without,
        }
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        # Without its library path a relocated interpreter does not start at all.
        kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
        environment = {"MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(
                # No site (-S): .pth files run code. Not -I, which would ignore PYTHONHASHSEED.
                [
                    sys.executable,
                    "-s",
                    "-S",
                    "-P",
                    "-B",
                    "-c",
                    _BOOT,
                    _ROOT,
                    str(theirs.fileno()),
                    json.dumps(settings),
                ],
                env={**kept, **environment, "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
            )
        self._control, self.layers = ours, ()

    def wait_ready(self) -> None:
        """Wait until the zygote has isolated itself. Raises ZygoteDiedError."""
        if self._control is None:
            raise ZygoteDiedError("not running")
        if self.layers:
            return
        hello = self._hear(time.monotonic() + _START_TIMEOUT_S, None, [])
        if "fault" in hello:
            raise ZygoteDiedError(hello["fault"])
        self.layers = tuple(
            LayerState(layer=Layer(layer), in_force=in_force, reason=reason)
            for layer, in_force, reason in hello["layers"]
        )

    def run(self, program: Program) -> tuple[dict[str, Any], list[Event]]:
        """The facts of one program's death and what its judge said of it. Raises ZygoteDiedError."""
        self.wait_ready()
        assert self._control is not None
        is_script = program.form is Form.STDIN
        order = {"limits": asdict(program.limits), "is_script": is_script, "module": program.module}
        ours, theirs = socket.socketpair()
        heard: list[bytes] = []
        with ours:
            try:
                with theirs:
                    socket.send_fds(self._control, [json.dumps(order).encode()], [theirs.fileno()])
                with contextlib.suppress(
                    BrokenPipeError, ConnectionResetError
                ):  # the judge is dead: its zygote says why
                    frames.send(ours.fileno(), _task(program))
                ours.setblocking(False)
                facts = self._hear(time.monotonic() + program.limits.wall_time_s + _GRACE_S, ours, heard)
            except OSError as error:
                raise ZygoteDiedError(f"{type(error).__name__}: {error}") from error
        self.leftovers = facts.get("leftovers", 0)
        lines = b"".join(heard).split(b"\n")[:-1]
        return facts, [json.loads(line) for line in lines]

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
            self._process = None
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None
        self.layers = ()

    def _hear(self, deadline: float, judge: socket.socket | None, heard: list[bytes]) -> dict[str, Any]:
        """The zygote's next message; meanwhile takes what the judge says, lest it wait for us."""
        assert self._control is not None
        poller = select.poll()
        poller.register(self._control, select.POLLIN)
        if judge is not None:
            poller.register(judge, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)]
            if not ready:
                raise ZygoteDiedError("no answer")
            if judge is not None and judge.fileno() in ready and not _take(judge, heard):
                poller.unregister(judge)
            if self._control.fileno() in ready:
                try:
                    message = frames.receive(self._control.fileno())
                except (EOFError, OSError, frames.FrameError) as error:
                    raise ZygoteDiedError(f"{type(error).__name__}: {error}") from error
                while judge is not None and _take(judge, heard):
                    pass
                return message


def _take(judge: socket.socket, heard: list[bytes]) -> bool:
    """Read what is there; False at the end, or where there is nothing now."""
    try:
        piece = judge.recv(1 << 16)
    except (BlockingIOError, ConnectionResetError):
        return False
    if piece:
        heard.append(piece)
    return bool(piece)


def _task(program: Program) -> dict[str, Any]:
    """What the judge gets to see."""
    return {
        "form": program.form.value,
        "source": program.source,
        "preamble": program.preamble,
        "setup": program.setup,
        "tests": program.tests,
        "test": program.test,
        "entry_point": program.entry_point,
        "module": program.module,
        "cases": [dict(case) for case in program.cases],
        "float_tolerance": program.float_tolerance,
    }
