"""Empties the directory that programs write to, whatever they made of it."""

from __future__ import annotations

import contextlib
import os


def used_bytes(directory: str, is_own_file_system: bool) -> int:
    """How much is stored beneath `directory`, roughly."""
    if is_own_file_system:
        state = os.statvfs(directory)
        return (state.f_blocks - state.f_bfree) * state.f_frsize
    total = 0
    for root, names, files in os.walk(directory):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
        total += 4096 * len(names)
    return total


def empty(directory: str) -> None:
    """Remove everything in `directory`. A tree is flattened first, so that no depth of nesting can stop this."""
    while True:
        with os.scandir(directory) as entries:
            found = list(entries)
        if not found:
            return
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                _dissolve(directory, entry.path)
            else:
                os.unlink(entry.path)


def _dissolve(top: str, path: str) -> None:
    """Move what is in `path` up to `top`, and remove it."""
    os.chmod(path, 0o700)
    for index, name in enumerate(os.listdir(path)):
        target = os.path.join(top, f".{os.urandom(8).hex()}{index}")
        child = os.path.join(path, name)
        if os.path.isdir(child) and not os.path.islink(child):
            os.chmod(child, 0o700)  # to move a directory is to write to it
        os.rename(child, target)
    os.rmdir(path)
