"""A function in a process of its own, which can be stopped: some libraries loop for ever on what a model writes.

This is a limit on time and memory, and keeps the environment's secrets out. It is no jail: for code that a model wrote
there is `rewards.sandbox`.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

_ROOT = str(Path(__file__).resolve().parents[1])
_BOOT = "import sys; sys.path.append(sys.argv[1]); from rewards.child import main; main()"
_START_S = 120.0
_ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")


class ChildError(Exception):
    """No answer came.

    Attributes:
        reason: "timeout", "died", or "raised" with the type of what the function raised.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason


class Child:
    """Calls the function at `path` in a child process, one call at a time, from any thread.

    The child starts with the first call, is killed when a call takes too long, and is started anew for the next one.

    Args:
        path: ``package.module:function``; takes and returns what JSON can carry.
        timeout_s: seconds for one call, the child's start not counted.
        memory_mib: address space of the child.
    """

    def __init__(self, path: str, *, timeout_s: float, memory_mib: int = 4096) -> None:
        self._path, self._timeout_s, self._memory_mib = path, timeout_s, memory_mib
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False

    def call(self, *arguments: object) -> Any:
        """What the function returns.

        Raises:
            ChildError: it took too long, raised, or its process died.
            RuntimeError: the child is closed.
        """
        with self._lock:
            process = self._started()
            try:
                _write(process, json.dumps(arguments).encode("ascii"), self._timeout_s)
                answer = json.loads(_line(process, self._timeout_s))
            except TimeoutError as error:
                self._stop()
                raise ChildError("timeout", f"{self._path} took more than {self._timeout_s:g} s") from error
            except (OSError, EOFError) as error:
                status = self._stop()
                raise ChildError("died", f"the process of {self._path} ended with status {status}") from error
        if "raised" in answer:
            raise ChildError(f"raised {answer['raised']}", answer["message"])
        return answer["value"]

    def close(self) -> None:
        """End the process. Waits for a call under way, at most its time limit."""
        with self._lock:
            self._closed = True
            self._stop()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise RuntimeError(f"the child for {self._path} is closed")
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", _BOOT, _ROOT, self._path, str(self._memory_mib), str(os.getpid())],
                env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ} | _ONE_THREAD,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            try:
                _line(self._process, _START_S)  # says that it is ready
            except (TimeoutError, OSError, EOFError) as error:
                raise ChildError("died", f"the process of {self._path} did not start: {self._stop()}") from error
        return self._process

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return process.wait()


def _write(process: subprocess.Popen[bytes], line: bytes, timeout_s: float) -> None:
    assert process.stdin is not None
    os.set_blocking(process.stdin.fileno(), False)
    deadline, left = time.monotonic() + timeout_s, memoryview(line + b"\n")
    while left:
        if not select.select([], [process.stdin], [], max(0.0, deadline - time.monotonic()))[1]:
            raise TimeoutError
        left = left[os.write(process.stdin.fileno(), left) :]


def _line(process: subprocess.Popen[bytes], timeout_s: float) -> bytes:
    assert process.stdout is not None
    deadline, line = time.monotonic() + timeout_s, bytearray()
    while not line.endswith(b"\n"):
        if not select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise TimeoutError
        piece = os.read(process.stdout.fileno(), 1 << 16)
        if not piece:
            raise EOFError
        line += piece
    return bytes(line)


def main() -> None:
    """The child's whole life. Arguments (sys.argv): package root, path, MiB of memory, the parent's process id."""
    path, memory_bytes, parent = sys.argv[2], int(sys.argv[3]) << 20, int(sys.argv[4])
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # whatever a library prints
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    module, _, name = path.partition(":")
    function = getattr(importlib.import_module(module), name)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    replies.write(b'{"ready": true}\n')
    for line in sys.stdin.buffer:
        try:
            answer = {"value": function(*cast("list[Any]", json.loads(line)))}
        except Exception as error:  # noqa: BLE001 - it is told to the parent
            answer = {"raised": type(error).__name__, "message": str(error)[:500]}
        replies.write(json.dumps(answer).encode("ascii") + b"\n")


def _end_with(parent: int) -> None:
    """End when the parent is gone, even while a call hangs."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os._exit(0)
