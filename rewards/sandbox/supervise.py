"""The zygote's side of one running candidate: read it, time it, kill it and whatever it left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from rewards.sandbox.program import Limits

REPORT_BYTES = 4 << 20
_DRAIN_BYTES = 1 << 20
_CPU_CHECK_S = 0.005
_CONTROL_CLOSED = "control closed"


class ControlClosedError(Exception):
    """The pool closed the control socket while a candidate ran."""


@dataclass(slots=True)
class Sink:
    """The reading end of a pipe. Keeps the first `limit` bytes; the rest is read and dropped."""

    fd: int
    limit: int
    data: bytearray = field(default_factory=bytearray)

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
            self.data += piece[: max(0, self.limit - len(self.data))]
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """How a candidate's main process ended.

    Attributes:
        status: wait status.
        killed_for: the limit it was killed for, "cpu" or "wall"; empty if it ended by itself.
        cpu_s: CPU seconds, waited-for children included.
        wall_s: seconds since `supervise` began.
    """

    status: int
    killed_for: str
    cpu_s: float
    wall_s: float


def supervise(pid: int, sinks: tuple[Sink, ...], control_fd: int, limits: Limits) -> Death:
    """Wait for the child `pid` to end, kill it at a limit, then kill and reap all its descendants.

    Raises:
        ControlClosedError: the pool is gone. The candidate and its descendants are dead by then.
    """
    start = time.monotonic()
    pidfd = os.pidfd_open(pid)
    try:
        killed_for = _wait(pid, pidfd, sinks, control_fd, limits)
    finally:
        os.close(pidfd)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # before reaping: until then nobody else can have this id
    _, status, usage = os.wait4(pid, 0)
    kill_leftovers()
    for sink in sinks:
        sink.drain()
    if killed_for == _CONTROL_CLOSED:
        raise ControlClosedError
    cpu_s = usage.ru_utime + usage.ru_stime
    return Death(status=status, killed_for=killed_for, cpu_s=cpu_s, wall_s=time.monotonic() - start)


def _wait(pid: int, pidfd: int, sinks: tuple[Sink, ...], control_fd: int, limits: Limits) -> str:
    """Read and time the candidate until it is dead; what it was killed for."""
    deadline, killed_for = time.monotonic() + limits.wall_time_s, ""
    by_fd = {sink.fd: sink for sink in sinks}
    poller = select.poll()
    for fd in (pidfd, control_fd, *by_fd):
        os.set_blocking(fd, fd == control_fd)
        poller.register(fd, select.POLLIN)
    while True:
        wall_left_s = deadline - time.monotonic()
        cpu_left_s = limits.cpu_time_s - _cpu_time(pid)
        if not killed_for and min(wall_left_s, cpu_left_s) <= 0:
            killed_for = "cpu" if cpu_left_s <= 0 else "wall"
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        # It may not use CPU time faster than wall time, but for threads that leave the interpreter.
        ready = [fd for fd, _ in poller.poll(max(_CPU_CHECK_S, min(wall_left_s, cpu_left_s)) * 1000)]
        for fd in ready:
            if fd in by_fd and not by_fd[fd].drain():
                poller.unregister(fd)
        if control_fd in ready:  # nothing is sent during a job: this is the end of file
            killed_for = _CONTROL_CLOSED
            poller.unregister(control_fd)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if pidfd in ready:
            return killed_for


def _cpu_time(pid: int) -> float:
    """CPU seconds of a process, all its threads."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): precise, and not the candidate's to reset
    except OSError:
        return 0.0  # just died, or no such clock here (gVisor): RLIMIT_CPU decides


def kill_leftovers() -> None:
    """Kill and reap every child. We are their subreaper, so orphans come to us, generation after generation."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.0005)


def _children() -> list[int]:
    own = os.getpid()
    try:
        return [int(pid) for pid in Path(f"/proc/self/task/{own}/children").read_bytes().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid, stat in processes() if int(stat[1]) == own]


def processes() -> list[tuple[int, list[str]]]:
    """Every process with the fields of its /proc/PID/stat from the state on: state, parent, group, session, ..."""
    found: list[tuple[int, list[str]]] = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):  # it ended meanwhile
                stat = (process / "stat").read_text("utf-8", "replace")
                found.append((int(process.name), stat.rpartition(")")[2].split()))
    return found
