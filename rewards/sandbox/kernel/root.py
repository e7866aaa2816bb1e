"""A root directory of our own: an empty tmpfs that shows the interpreter, its libraries and one scratch directory."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence

from rewards.sandbox.kernel import libc

SCRATCH = "/scratch"
_SIZE = "size=2m,nr_inodes=4096,mode=755"
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4


def build_root(base: str, readable: Sequence[str], tmp_bytes: int, uid: int) -> None:
    """Move this process into a new root at the empty directory `base`. It must own its mount namespace.

    Args:
        readable: absolute paths to show, read-only. Device files are shown as they are.
        tmp_bytes: size of the scratch directory, which is also /tmp unless something shown lies beneath /tmp.
        uid: user who owns the scratch directory.

    Raises OSError.
    """
    libc.mount("none", "/", None, libc.MS_REC | libc.MS_PRIVATE)
    libc.mount("sandbox", base, "tmpfs", libc.MS_NOSUID | libc.MS_NODEV, _SIZE)
    for path in sorted(readable):
        _show(base, path)
    os.mkdir(base + SCRATCH)
    flags = libc.MS_NOSUID | libc.MS_NODEV | libc.MS_NOEXEC
    libc.mount("scratch", base + SCRATCH, "tmpfs", flags, f"size={tmp_bytes},nr_inodes=4096,mode=700")
    os.chown(base + SCRATCH, uid, uid)
    if not os.path.lexists(base + "/tmp"):
        os.symlink(SCRATCH, base + "/tmp")
    libc.mount("none", base, None, libc.MS_REMOUNT | libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV, _SIZE)
    os.chdir(base)
    libc.pivot_root_here()


def _show(base: str, path: str) -> None:
    target = base + path
    if os.path.lexists(target):
        return  # beneath something shown already
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.mkdir(target)
    else:
        os.close(os.open(target, os.O_CREAT, 0o644))
    libc.mount(path, target, None, libc.MS_BIND | libc.MS_REC)
    if not path.startswith("/dev/"):
        _make_read_only(target)


def _make_read_only(target: str) -> None:
    attributes = struct.pack("=QQQQ", _ATTR_RDONLY | _ATTR_NOSUID | _ATTR_NODEV, 0, 0, 0)
    try:
        libc.syscall("mount_setattr", _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes))
    except OSError as error:
        if error.errno != 38:  # before Linux 5.12, only the topmost mount can be changed
            raise
        # What the outer namespace has set must stay set.
        kept = os.statvfs(target).f_flag & (libc.MS_NOEXEC | os.ST_NOATIME | os.ST_NODIRATIME)
        flags = libc.MS_RDONLY | libc.MS_NOSUID | libc.MS_NODEV | kept
        if os.statvfs(target).f_flag & os.ST_RELATIME:
            flags |= 1 << 21  # MS_RELATIME
        libc.mount("none", target, None, libc.MS_REMOUNT | libc.MS_BIND | flags)
