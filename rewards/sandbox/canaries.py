"""Attacks that a sandbox tries on itself when it starts. One that succeeds, and the sandbox refuses to work."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rewards.sandbox.program import Kind, Limits, Program, ProgramResult
from rewards.sandbox.survey import CanaryState

_LIMITS = Limits(cpu_time_s=1.0, wall_time_s=20.0)
_SHORT = Limits(cpu_time_s=0.2, wall_time_s=20.0)

_READ = "def f(path):\n    return open(path).read()\n"
_CONNECT = """
def f(port):
    import socket
    with socket.create_connection(("127.0.0.1", port), 1) as line:
        line.sendall(b"out")
    return True
"""
_FORK = "def f():\n    import os\n    pid = os.fork()\n    return True if pid else os._exit(0)\n"
_WRITE = "def f(path):\n    open(path, 'w').write('out')\n    return True\n"
_FORGE = """
class Yes:
    __eq__ = __ge__ = __le__ = __gt__ = __lt__ = __contains__ = lambda *_: True
    __ne__ = lambda *_: False
    __hash__ = lambda _: 0
def f():
    import os, sys
    for fd in range(3, 64):
        for line in (b'["pass",0,""]\\n["done",0,""]\\n', b'\\0\\0\\0\\x0f["=",7,[],[],""]'):
            try:
                os.write(fd, line)
            except OSError:
                pass
    return Yes()
"""
_OUTLIVE = """
import os, signal, threading
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGXCPU, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)
for leave in (os.setsid, os.fork):
    try:
        leave()
    except OSError:
        pass
def spin():
    while True:
        pass
threading.Thread(target=spin).start()
spin()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What running a canary came to."""

    result: ProgramResult
    leftovers: int


Run = Callable[[Program], Outcome]


def try_canaries(run: Run, directory: Path) -> tuple[CanaryState, ...]:
    """Run every canary in a real job.

    Args:
        directory: of the pool; what a canary should not reach lies in it.
    """
    secret = directory / "secret"
    secret.write_text(os.urandom(16).hex())
    secret.chmod(0o644)
    outside = directory / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    try:
        states = [
            _returns(run, "read a file", _READ, f"f({str(secret)!r}) == {secret.read_text()!r}"),
            _returns(run, "start a process", _FORK, "f() is True"),
            _forges(run),
            _outlives(run),
        ]
        with _listener() as line:
            state = _returns(run, "open a connection", _CONNECT, f"f({line.getsockname()[1]}) is True")
            states.append(
                state if not _was_reached(line) else CanaryState(name=state.name, held=False, reason="got out")
            )
        state = _returns(run, "write outside", _WRITE, f"f({str(outside / 'mark')!r}) is True")
        reached = any(outside.iterdir())
        states.append(CanaryState(name=state.name, held=False, reason="wrote") if reached else state)
    finally:
        secret.unlink()
        for left in outside.iterdir():
            left.unlink()
        outside.rmdir()
    return tuple(states)


def _returns(run: Run, name: str, source: str, test: str) -> CanaryState:
    """The canary escaped if its test passes; it held if the program ran and was refused."""
    result = run(Program(source=source, tests=(f"assert {test}",), limits=_LIMITS)).result
    if result.kind is Kind.PASSED:
        return CanaryState(name=name, held=False, reason="it could")
    if result.kind is not Kind.FAILED:
        return CanaryState(name=name, held=False, reason=f"did not run: {result.kind.value}: {result.message}")
    return CanaryState(name=name, held=True, reason=result.message)


def _forges(run: Run) -> CanaryState:
    name = "forge a verdict"
    result = run(Program(source=_FORGE, tests=("assert f() == 12345", "assert f() < 0"), limits=_LIMITS)).result
    held = result.kind is not Kind.PASSED and result.kind is not Kind.SANDBOX_FAULT
    return CanaryState(name=name, held=held, reason=f"{result.kind.value}: {result.message}")


def _outlives(run: Run) -> CanaryState:
    name = "outlive its limit"
    outcome = run(Program(source=_OUTLIVE, tests=("assert False",), limits=_SHORT))
    held = outcome.result.kind is Kind.TIMEOUT and outcome.leftovers == 0
    return CanaryState(name=name, held=held, reason=f"{outcome.result.kind.value}, {outcome.leftovers} processes left")


@contextmanager
def _listener() -> Generator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as line:
        line.setblocking(False)
        yield line


def _was_reached(line: socket.socket) -> bool:
    try:
        line.accept()[0].close()
    except BlockingIOError:
        return False
    return True
