"""What a forked candidate gives up before it runs: descriptors, privileges, resources. Linux only.

Not here yet: namespaces, Landlock and seccomp. See rewards/README.md for what that leaves open.
"""

from __future__ import annotations

import fcntl
import functools
import math
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rewards.sandbox import privileges
from rewards.sandbox.program import Limits

REPORT_FD = 3
ZYGOTE_DESCRIPTORS = 256  #: a zygote's own descriptors stay below this, so that its children know what to close
CANDIDATE_DESCRIPTORS = 64
_MEMORY_RESERVE_BYTES = 32 << 20  #: lets a candidate that ran out of memory still say so
_TASK_COUNT_SLACK = 256  #: for what the same user starts elsewhere meanwhile


def confine(limits: Limits, directory: Path, output_fd: int, report_fd: int, uid: int | None, num_tasks: int) -> None:
    """Turn this freshly forked process into a candidate.

    Args:
        directory: private directory, becomes the working and home directory.
        output_fd: becomes stdout and stderr.
        report_fd: becomes descriptor `REPORT_FD`.
        uid: user and group to become; None keeps this process's.
        num_tasks: tasks that count against RLIMIT_NPROC already.

    Raises OSError: the caller must treat it as a fault of the sandbox.
    """
    parent = os.getppid()
    os.setsid()
    _place_descriptors(output_fd, report_fd)
    os.chdir(directory)
    _set_rlimits(limits, num_tasks)
    if uid is not None:
        privileges.become(uid)
    privileges.prctl(privileges.PR_SET_PDEATHSIG, signal.SIGKILL)  # now: a change of user clears it
    if os.getppid() != parent:
        raise OSError("the zygote died while it forked")
    privileges.prctl(privileges.PR_SET_DUMPABLE, 0)
    privileges.prctl(privileges.PR_SET_NO_NEW_PRIVS, 1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _set_interpreter(str(directory))


def memory_reserve() -> Callable[[], None]:
    """A call that opens the memory reserve. Made beforehand, since making it takes memory too."""
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    return functools.partial(resource.setrlimit, resource.RLIMIT_AS, (hard, hard))


def _place_descriptors(output_fd: int, report_fd: int) -> None:
    # First out of the way, then into place: a source may sit on another's target.
    sources = [os.open(os.devnull, os.O_RDONLY), output_fd, output_fd, report_fd]
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in sources]
    for target, fd in enumerate(moved):
        os.dup2(fd, target, inheritable=target != REPORT_FD)
    os.closerange(REPORT_FD + 1, ZYGOTE_DESCRIPTORS)


def _set_rlimits(limits: Limits, num_tasks: int) -> None:
    mapped = int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()
    memory, cpu = mapped + limits.memory_bytes, math.ceil(limits.cpu_time_s) + 1
    tasks = num_tasks + limits.num_threads + (_TASK_COUNT_SLACK if num_tasks else 0)
    for kind, soft, hard in (
        (resource.RLIMIT_AS, memory, memory + _MEMORY_RESERVE_BYTES),
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_FSIZE, limits.tmp_bytes, limits.tmp_bytes),
        (resource.RLIMIT_NOFILE, CANDIDATE_DESCRIPTORS, CANDIDATE_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_NPROC, tasks, tasks),
    ):
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:  # raising a hard limit needs privileges
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def _set_interpreter(directory: str) -> None:
    os.environ.clear()
    os.environ.update(HOME=directory, TMPDIR=directory, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    tempfile.tempdir = None  # look it up anew
    sys.argv = ["solution.py"]
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout = os.fdopen(1, "w", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, errors="replace", closefd=False)
