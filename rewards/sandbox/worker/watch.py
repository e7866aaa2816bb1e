"""Watches a guest and its judge until both are dead, and kills what exceeds a limit."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rewards.sandbox.program import Limits
from rewards.sandbox.worker.limits import judge_cpu_time_s

_DRAIN_BYTES = 1 << 20
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.002, 0.05
_JUDGE_GRACE_S = 10.0  #: of wall time, for a judge to say what it knows once its guest is dead
_NUM_CPUS = os.cpu_count() or 1


class ControlClosedError(Exception):
    """The pool closed the control socket while a program ran."""


@dataclass(slots=True)
class Output:
    """The reading end of a pipe. Keeps the first `limit` bytes; the rest is read and dropped."""

    fd: int
    limit: int
    kept: bytearray = field(default_factory=bytearray)

    def drain(self) -> bool:
        """Read what is there, at most `_DRAIN_BYTES` so that a flood can't hold us. False at end of file."""
        taken = 0
        while taken < _DRAIN_BYTES:
            try:
                piece = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return True
            if not piece:
                return False
            taken += len(piece)
            self.kept += piece[: max(0, self.limit - len(self.kept))]
        return True


@dataclass(slots=True)
class Child:
    """A process that we started and have to reap."""

    pid: int
    pidfd: int
    status: int | None = None
    cpu_s: float = 0.0

    def cpu_time_s(self) -> float:
        """CPU seconds so far, all its threads."""
        if self.status is not None:
            return self.cpu_s
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3): not the guest's to reset
        except OSError:
            return 0.0  # just died, or no such clock here (gVisor): RLIMIT_CPU decides

    def kill(self) -> None:
        """Safe: until it is reaped nobody else can have this id."""
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Take note of its death."""
        _, self.status, usage = os.wait4(self.pid, 0)
        self.cpu_s = usage.ru_utime + usage.ru_stime
        os.close(self.pidfd)


def watch(
    guest: Child, judge: Child, output: Output, control_fd: int, limits: Limits, is_full: Callable[[], bool]
) -> dict[str, Any]:
    """Both processes' deaths, as `classify` reads them.

    Args:
        is_full: whether the guest has written more to its temporary directory than it may.

    Raises:
        ControlClosedError: the pool is gone. Both are dead by then.
    """
    start = time.monotonic()
    poller, children = select.poll(), {guest.pidfd: guest, judge.pidfd: judge}
    for fd in (*children, output.fd, control_fd):
        poller.register(fd, select.POLLIN)
    os.set_blocking(output.fd, False)
    killed_for, deadline, closed, was_left = "", start + limits.wall_time_s, False, False
    while children:
        now = time.monotonic()
        cpu_left_s = limits.cpu_time_s - guest.cpu_time_s()
        judge_left_s = judge_cpu_time_s(limits) - judge.cpu_time_s()
        if not killed_for:
            killed_for = _exceeded(cpu_left_s, judge_left_s, deadline - now, is_full())
            if killed_for:
                guest.kill()
                judge.kill()  # what it knows it has said
        wait_s = min(_LONGEST_WAIT_S, deadline - now, cpu_left_s / _NUM_CPUS, judge_left_s)
        for fd, _ in poller.poll(max(_SHORTEST_WAIT_S, wait_s) * 1000):
            if fd == output.fd:
                if not output.drain():
                    poller.unregister(fd)
            elif fd == control_fd:  # nothing is sent during a job: this is the end of file
                closed = True
                poller.unregister(fd)
                guest.kill()
                judge.kill()
            else:
                poller.unregister(fd)
                child = children.pop(fd)
                child.reap()
                if child is judge:
                    was_left = guest.status is None
                    guest.kill()  # nobody asks anything of it any more
                else:
                    deadline = min(deadline, time.monotonic() + _JUDGE_GRACE_S)
    output.drain()
    if closed:
        raise ControlClosedError
    return {
        "guest_status": guest.status,
        "judge_status": judge.status,
        "killed_for": killed_for,
        "outlived_judge": was_left,
        "cpu_s": guest.cpu_s,
        "judge_cpu_s": judge.cpu_s,
        "wall_s": time.monotonic() - start,
        "output": bytes(output.kept).decode("utf-8", "replace"),
    }


def _exceeded(cpu_left_s: float, judge_left_s: float, wall_left_s: float, is_full: bool) -> str:
    if cpu_left_s <= 0:
        return "cpu"
    if judge_left_s <= 0:
        return "judge cpu"
    if is_full:
        return "temporary files"
    return "wall" if wall_left_s <= 0 else ""


def leftovers() -> int:
    """Kill and count children that neither guest nor judge is. There are none unless seccomp is off."""
    count = 0
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return count
        if pid == 0:
            return count + 1  # alive, and not ours to find without /proc: it dies with the zygote
        count += 1
