"""Who a process is: its user and its capabilities. Linux only; every function raises OSError."""

from __future__ import annotations

import ctypes
import os

from rewards.sandbox.kernel.libc import PR_SET_KEEPCAPS, prctl, syscall

CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
_VERSION_3 = 0x20080522


def set_capabilities(kept: int = 0) -> None:
    """Give up every capability whose bit is not in `kept`."""
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)(kept, kept, 0, 0, 0, 0)
    syscall("capset", bytes(header), bytes(sets))


def permitted_capabilities() -> int:
    """Bits of the permitted set, from /proc."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1], 16) for line in status if line.startswith("CapPrm"))


def become(uid: int, kept: int) -> None:
    """Give up root for user and group `uid`, keeping only the capabilities in `kept`."""
    if kept:
        prctl(PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    set_capabilities(kept)
