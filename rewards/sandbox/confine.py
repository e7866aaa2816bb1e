"""What a forked candidate gives up before it runs: descriptors, privileges, resources. Linux only.

Not here yet: namespaces, Landlock and seccomp. See rewards/README.md for what that leaves open.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import functools
import math
import os
import resource
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rewards.sandbox.program import Limits

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
REPORT_FD = 3
NUM_DESCRIPTORS = 64
MEMORY_RESERVE_BYTES = 32 << 20  #: lets a candidate that ran out of memory still say so
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522
_TASK_COUNT_AGE_S = 1.0
_TASK_COUNT_SLACK = 256

_libc = ctypes.CDLL(None, use_errno=True)
_task_count = (-math.inf, 0)


def prctl(option: int, value: int) -> None:
    """prctl(2). Raises OSError."""
    if _libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}, {value})")


def name_process(name: bytes) -> None:
    """What ps and top show, at most 15 bytes. Raises OSError."""
    if _libc.prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NAME)")


def candidate_uid() -> int | None:
    """The user a root-owned zygote hands its candidates to; None if this process can't change user.

    One for each zygote, so that candidates can't signal each other and RLIMIT_NPROC counts one program only.
    """
    return 60000 + os.getpid() % 5000 if os.geteuid() == 0 else None


def interpreter_is_public() -> bool:
    """Whether any user may read this interpreter's library, e.g. not when it lives under /root."""
    library = Path(sysconfig.get_path("stdlib")).resolve()
    return all(path.stat().st_mode & 0o5 == 0o5 for path in (library, *library.parents))


def user_tasks() -> int:
    """Processes and threads of this user, at most a second old: RLIMIT_NPROC counts them all."""
    global _task_count
    taken, count = _task_count
    if time.monotonic() - taken > _TASK_COUNT_AGE_S:
        count, uid = 0, os.getuid()
        for name in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError):  # it ended meanwhile
                if os.stat(f"/proc/{name}").st_uid == uid:
                    count += len(os.listdir(f"/proc/{name}/task"))
        _task_count = (time.monotonic(), count)
    return count


def confine(limits: Limits, directory: str, output_fd: int, report_fd: int, uid: int | None, num_tasks: int) -> None:
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
        _become(uid)
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # after _become: a change of user clears it
    if os.getppid() != parent:
        raise OSError("the zygote died while it forked")
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(HOME=directory, TMPDIR=directory, OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1")
    tempfile.tempdir = None
    sys.argv = ["solution.py"]
    sys.stdin = open(0, closefd=False)
    sys.stdout = open(1, "w", closefd=False, errors="replace")
    sys.stderr = open(2, "w", closefd=False, errors="replace", buffering=1)


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
    os.closerange(REPORT_FD + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def _set_rlimits(limits: Limits, num_tasks: int) -> None:
    with open("/proc/self/statm", "rb") as statm:
        mapped = int(statm.read().split()[0]) * resource.getpagesize()
    memory, cpu = mapped + limits.memory_bytes, math.ceil(limits.cpu_time_s) + 1
    tasks = num_tasks + limits.num_processes + (_TASK_COUNT_SLACK if num_tasks else 0)
    for kind, soft, hard in (
        (resource.RLIMIT_AS, memory, memory + MEMORY_RESERVE_BYTES),
        (resource.RLIMIT_CPU, cpu, cpu + 1),
        (resource.RLIMIT_FSIZE, limits.file_bytes, limits.file_bytes),
        (resource.RLIMIT_NOFILE, NUM_DESCRIPTORS, NUM_DESCRIPTORS),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_NPROC, tasks, tasks),
    ):
        ceiling = resource.getrlimit(kind)[1]
        if ceiling != resource.RLIM_INFINITY:  # raising a hard limit needs privileges
            soft, hard = min(soft, ceiling), min(hard, ceiling)
        resource.setrlimit(kind, (soft, hard))


def _become(uid: int) -> None:
    keep_reading = not interpreter_is_public()
    if keep_reading:
        prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    if keep_reading:
        # Otherwise `import` would fail. A candidate can then read what root can read, as it could before, but write
        # nothing. Containers may withhold the capability: then only preloaded modules can be imported.
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        for mask in (1 << _CAP_DAC_READ_SEARCH, 0):
            if _libc.capset(header, (ctypes.c_uint32 * 6)(mask, mask, 0, 0, 0, 0)) == 0:
                break
        else:
            raise OSError(ctypes.get_errno(), "capset")
