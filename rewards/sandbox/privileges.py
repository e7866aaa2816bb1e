"""Who a candidate is: its user, its capabilities, its prctl flags. Linux only."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import sysconfig
import time
from pathlib import Path

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38
_CAP_DAC_READ_SEARCH = 2
_CAPABILITY_VERSION_3 = 0x20080522
_FIRST_UID, _NUM_UIDS = 60000, 5000
_TASK_COUNT_AGE_S = 1.0

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
    return _FIRST_UID + os.getpid() % _NUM_UIDS if os.geteuid() == 0 else None


def user_tasks() -> int:
    """Processes and threads of this user, at most a second old: RLIMIT_NPROC counts them all."""
    global _task_count
    taken, count = _task_count
    if time.monotonic() - taken > _TASK_COUNT_AGE_S:
        count, uid = 0, os.getuid()
        for process in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it ended meanwhile
                if process.name.isdigit() and process.stat().st_uid == uid:
                    count += sum(1 for _ in (process / "task").iterdir())
        _task_count = (time.monotonic(), count)
    return count


def become(uid: int) -> None:
    """Give up root for user and group `uid`. Raises OSError."""
    keep_reading = not _interpreter_is_public()
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
                return
        raise OSError(ctypes.get_errno(), "capset")


def _interpreter_is_public() -> bool:
    """Whether any user may read this interpreter's library, e.g. not when it lives under /root."""
    library = Path(sysconfig.get_path("stdlib")).resolve()
    return all(path.stat().st_mode & 0o5 == 0o5 for path in (library, *library.parents))
