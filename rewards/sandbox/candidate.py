"""Runs inside the forked child: the source, then its tests one by one, each reported as soon as it is known.

Candidate and tests share a process, so a determined program can still forge a pass. What this file ensures is that
none does so by accident: reports carry a nonce that no candidate-visible global holds, builtins are restored before
every test, and nothing counts unless the last report arrived.
"""

from __future__ import annotations

import builtins
import functools
import os
import random
import sys
from collections.abc import Callable
from types import CodeType, ModuleType
from typing import Any

from rewards.sandbox.confine import REPORT_FD, memory_reserve

MESSAGE_CHARS = 200


class Reporter:
    """Writes ``nonce event index message`` lines; only the process that made it may."""

    __slots__ = ("_exit", "_fd", "_getpid", "_nonce", "_pid", "_write")

    def __init__(self, nonce: str, fd: int = REPORT_FD) -> None:
        # Bound now, because the candidate may replace them in their modules.
        self._write, self._getpid, self._exit = os.write, os.getpid, os._exit
        self._fd, self._nonce, self._pid = fd, nonce.encode(), os.getpid()

    def send(self, event: bytes, index: int = 0, message: str = "") -> None:
        """Report one event."""
        if self._getpid() != self._pid:  # a candidate forked and its child came back here
            self._exit(1)
        text = message.encode("ascii", "backslashreplace").replace(b"\n", b"\\n")
        self._write(self._fd, b"%b %b %d %b\n" % (self._nonce, event, index, text))

    def leave(self) -> None:
        """End this process now, whatever threads or exit handlers the candidate left."""
        self._exit(0)


def run_candidate(job: dict[str, Any], reporter: Reporter) -> None:
    """Run `job` (source, setup, tests), report, and leave. Raises only if the candidate tampered with us."""
    _follow(job, Steps(_fresh_module().__dict__, reporter), reporter)
    reporter.leave()


def _follow(job: dict[str, Any], steps: Steps, reporter: Reporter) -> None:
    stdout = sys.stdout
    try:
        setup = _compiled(job["setup"], "<setup>")
        tests = [_compiled(test, f"<test {index}>") for index, test in enumerate(job["tests"])]
    except (SyntaxError, ValueError, RecursionError) as error:
        reporter.send(b"bad_task", 0, _describe(error))
        return
    failure = steps.run(lambda: setup)
    if failure is not None:
        reporter.send(b"bad_task", 0, failure)
        return
    reporter.send(b"ready")
    for step in (lambda: _compiled(job["source"], "<solution>"), lambda: setup):
        failure = steps.run(step)
        if failure is not None:
            reporter.send(b"raised", 0, failure)
            return
    for index, test in enumerate(tests):
        failure = steps.run(lambda test=test: test)
        reporter.send(b"pass" if failure is None else b"fail", index, failure or "")
    try:
        stdout.flush()
    except BaseException:  # noqa: BLE001 - its output is not worth a verdict
        steps.restore_builtins()
    reporter.send(b"done")


class Steps:
    """Executes code in the candidate's namespace and survives what it does."""

    __slots__ = ("_execute", "_namespace", "_open_reserve", "_reporter", "restore_builtins")

    def __init__(self, namespace: dict[str, Any], reporter: Reporter) -> None:
        self._namespace, self._reporter = namespace, reporter
        self._execute, self._open_reserve = exec, memory_reserve()
        restore: Callable[[], None] = functools.partial(builtins.__dict__.update, dict(builtins.__dict__))
        self.restore_builtins = restore

    def run(self, step: Callable[[], CodeType]) -> str | None:
        """Compile and execute one step; None if it ran through, else what it raised."""
        try:
            self._execute(step(), self._namespace)
            self.restore_builtins()
            return None
        except MemoryError:
            pass  # leave the handler first: the traceback holds the frames that hold the memory
        except BaseException as error:  # noqa: BLE001 - SystemExit must not end us either
            self.restore_builtins()
            return _describe(error)
        self._open_reserve()
        self.restore_builtins()
        self._reporter.send(b"memory")
        return "MemoryError"


def _fresh_module() -> ModuleType:
    """The module `solution`, also known as __main__: dataclasses, pickle and typing look a class's module up."""
    for name in [name for name in sys.modules if name.split(".")[0] == "rewards"]:
        del sys.modules[name]
    module = ModuleType("solution")
    sys.modules["solution"] = sys.modules["__main__"] = module
    random.seed(0)  # equal programs, equal verdicts
    return module


def _compiled(source: str, name: str) -> CodeType:
    return compile(source, name, "exec", dont_inherit=True)


def _describe(error: BaseException) -> str:
    name = type(error).__name__
    try:
        return f"{name}: {error}"[:MESSAGE_CHARS]
    except BaseException:  # noqa: BLE001 - the candidate's own __str__
        return name[:MESSAGE_CHARS]
