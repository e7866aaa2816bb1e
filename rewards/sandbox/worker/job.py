"""One program: two forks, the guest first, so that it exists before the tests arrive."""

from __future__ import annotations

import fcntl
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rewards.sandbox.guest.script import run_script
from rewards.sandbox.guest.serve import serve
from rewards.sandbox.judge.judge import judge
from rewards.sandbox.kernel import libc, seccomp
from rewards.sandbox.program import Limits
from rewards.sandbox.survey import Layer
from rewards.sandbox.worker import scratch
from rewards.sandbox.worker.isolation import Isolation
from rewards.sandbox.worker.limits import JUDGE_MEMORY_BYTES, judge_cpu_time_s, limit
from rewards.sandbox.worker.watch import Child, Output, leftovers, watch

_FIRST_FREE = 32  #: where descriptors wait while the low numbers are cleared
_FAULT = 70


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What all jobs of a zygote share.

    Attributes:
        mapped_bytes: address space of the zygote itself.
        reserve: memory that a guest lets go of when it has no more.
    """

    isolation: Isolation
    control: socket.socket
    child_filter: bytes
    mapped_bytes: int
    reserve: list[Any]
    null_fd: int


def run_job(workshop: Workshop, job: socket.socket, limits: Limits, is_script: bool, module: str) -> dict[str, Any]:
    """Fork guest and judge, watch them die, tidy up. `job` is the judge's line to the pool; it is closed here.

    Raises ControlClosedError: the pool is gone.
    """
    pipes = [os.pipe() for _ in range(5 if is_script else 3)]
    to_guest, from_guest, output = pipes[:3]
    stdin, stdout = pipes[3:] if is_script else ((workshop.null_fd, -1), (-1, output[1]))

    def be_guest() -> None:
        _settle([stdin[0], stdout[1], output[1], to_guest[0], from_guest[1]])
        own_tasks = limits.num_threads + 8 if workshop.isolation.own_tasks else None
        memory = workshop.mapped_bytes + limits.memory_bytes
        _confine(workshop, limits.cpu_time_s, memory, limits.tmp_bytes, own_tasks)
        os.write(4, b"R")
        (run_script if is_script else serve)(3, 4, module, workshop.reserve)

    def be_judge() -> None:
        ends = [workshop.null_fd, workshop.null_fd, output[1], from_guest[0], to_guest[1], job.detach()]
        _settle([*ends, stdin[1], stdout[0]] if is_script else ends)
        memory = workshop.mapped_bytes + JUDGE_MEMORY_BYTES
        _confine(workshop, judge_cpu_time_s(limits), memory, limits.tmp_bytes, None)
        judge()

    guest = _fork(be_guest)
    referee = _fork(be_judge)
    job.close()
    for pair in pipes:
        for fd in pair:
            if fd != output[0]:
                os.close(fd)
    isolation = workshop.isolation
    is_own = isolation.layers[Layer.MOUNT_NAMESPACE][0]
    try:
        kept = Output(output[0], limits.output_bytes)
        is_full = partial(scratch.exceeds, isolation.scratch, limits.tmp_bytes, is_own)
        facts = watch(guest, referee, kept, workshop.control.fileno(), limits, is_full)
    finally:
        os.close(output[0])
        left = leftovers()
        scratch.empty(isolation.scratch)
    return {**facts, "leftovers": left}


def _fork(life: Callable[[], None]) -> Child:
    zygote = os.getpid()
    pid = libc.fork()
    if pid == 0:
        try:
            libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == zygote:
                life()
        except BaseException:  # noqa: BLE001 - whatever it is, no program may run in here
            traceback.print_exc()  # into the output, if that is in place: then the verdict shows it
            sys.stderr.flush()
        finally:
            os._exit(_FAULT)
    return Child(pid, os.pidfd_open(pid))


def _settle(ends: list[int]) -> None:
    """Make `ends` the descriptors 0, 1, 2, ... and close all others."""
    os.setsid()
    waiting = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE) for fd in ends]
    for target, fd in enumerate(waiting):
        os.dup2(fd, target, inheritable=False)
    libc.syscall("close_range", len(ends), 0xFFFFFFFF, 0)


def _confine(workshop: Workshop, cpu_time_s: float, memory: int, file_bytes: int, num_tasks: int | None) -> None:
    without = workshop.isolation.without
    if Layer.RESOURCE_LIMITS not in without:
        limit(cpu_time_s, memory, file_bytes, num_tasks)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    if Layer.SYSTEM_CALLS not in without:
        seccomp.install(seccomp.with_pid(workshop.child_filter, os.getpid()))


def mapped_bytes() -> int:
    """Address space of this process now."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()
