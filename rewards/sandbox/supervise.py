"""The zygote's side of one running candidate: read it, time it, kill it and whatever it left."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass, field

from rewards.sandbox.program import Limits

REPORT_BYTES = 4 << 20
_DRAIN_BYTES = 1 << 20
_CPU_CHECK_S = 0.005


class ControlClosed(Exception):
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
        ControlClosed: the pool is gone. The candidate and its descendants are dead by then.
    """
    start = time.monotonic()
    pidfd = os.pidfd_open(pid)
    poller = select.poll()
    by_fd = {sink.fd: sink for sink in sinks}
    for fd in (pidfd, control_fd, *by_fd):
        poller.register(fd, select.POLLIN)
    killed_for, orphaned = "", False
    try:
        while True:
            patience_s = _patience(pid, limits, time.monotonic() - start)
            if not killed_for and isinstance(patience_s, str):
                killed_for = patience_s
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            events = poller.poll(1000 if isinstance(patience_s, str) else patience_s * 1000)
            for fd, _ in events:
                if fd in by_fd and not by_fd[fd].drain():
                    poller.unregister(fd)
                elif fd == control_fd:  # nothing is ever sent during a job: this is the end of file
                    orphaned = True
                    poller.unregister(control_fd)
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            if any(fd == pidfd for fd, _ in events):
                break
    finally:
        os.close(pidfd)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)  # before reaping: until then nobody else can have this id
    _, status, usage = os.wait4(pid, 0)
    kill_leftovers()
    for sink in sinks:
        sink.drain()
    if orphaned:
        raise ControlClosed
    cpu_s = usage.ru_utime + usage.ru_stime
    return Death(status=status, killed_for=killed_for, cpu_s=cpu_s, wall_s=time.monotonic() - start)


def _patience(pid: int, limits: Limits, elapsed_s: float) -> float | str:
    """Seconds that may pass before the next look, or the name of the limit that is used up."""
    if elapsed_s >= limits.wall_time_s:
        return "wall"
    try:
        used_s = time.clock_gettime((~pid << 3) | 2)  # clock_getcpuclockid(3): precise, and not the candidate's to reset
    except OSError:
        used_s = 0.0  # just died, or no such clock here (gVisor): RLIMIT_CPU decides
    if used_s >= limits.cpu_time_s:
        return "cpu"
    return min(max(limits.cpu_time_s - used_s, _CPU_CHECK_S), limits.wall_time_s - elapsed_s)


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
        with open(f"/proc/self/task/{own}/children", "rb") as children:
            return [int(pid) for pid in children.read().split()]
    except FileNotFoundError:  # a kernel without CONFIG_PROC_CHILDREN
        return [pid for pid, stat in processes() if int(stat[1]) == own]


def processes() -> list[tuple[int, list[str]]]:
    """Every process with the fields of its /proc/PID/stat from the state on: state, parent, group, session, ..."""
    found: list[tuple[int, list[str]]] = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
            found.append((int(name), stat.read().rpartition(")")[2].split()))
    return found
