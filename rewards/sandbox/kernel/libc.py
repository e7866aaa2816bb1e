"""System calls that Python's os module does not offer. Linux only; every function raises OSError."""

from __future__ import annotations

import ctypes
import os

from rewards.sandbox.kernel.syscalls import architecture

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_KEEPCAPS, PR_SET_NAME = 1, 4, 8, 15
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 36, 38, 39

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)
_holding_the_gil = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_Argument = int | bytes | ctypes.Array[ctypes.c_char] | None


def syscall(name: str, *arguments: _Argument) -> int:
    """Call by the name that `syscalls` knows. Raises OSError, with ENOSYS for a call unknown on this machine."""
    machine = architecture()
    number = machine.numbers.get(name) if machine else None
    if number is None:
        raise OSError(38, f"{name}: no number for this machine")
    wide = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *wide), name)


def fork() -> int:
    """fork(2) without what Python does after one, which is half of what a fork costs here.

    That work mends locks that other threads may have held, and reseeds `random`. A process with one thread has nothing
    to mend, and its children are to have the same seed.
    """
    return _checked(_holding_the_gil.fork(), "fork")


def prctl(option: int, *values: int) -> int:
    """prctl(2)."""
    wide = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    return _checked(_libc.prctl(option, *wide), f"prctl({option})")


def name_process(name: bytes) -> None:
    """What ps and top show, at most 15 bytes."""
    _checked(_libc.prctl(PR_SET_NAME, ctypes.c_char_p(name), 0, 0, 0), "prctl(PR_SET_NAME)")


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(ctypes.c_int(flags)), f"unshare(0x{flags:x})")


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else text.encode() for text in (source, target, kind, options)]
    result = _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])
    _checked(result, f"mount {target}")


def pivot_root_here() -> None:
    """Make the working directory the root, and let go of the old one."""
    syscall("pivot_root", b".", b".")
    _checked(_libc.umount2(b".", MNT_DETACH), "umount of the old root")
    os.chdir("/")


def _checked(result: int, what: str) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")
    return result
