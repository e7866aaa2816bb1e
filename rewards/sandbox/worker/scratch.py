"""Empties the directory that programs write to, whatever they made of it."""

from __future__ import annotations

import contextlib
import os

_BLOCK_BYTES = 4096


def exceeds(directory: str, most_bytes: int, is_own_file_system: bool) -> bool:
    """Whether more than `most_bytes` are stored beneath `directory`. An entry counts as a block at least."""
    if is_own_file_system:
        state = os.statvfs(directory)
        return (state.f_blocks - state.f_bfree) * state.f_frsize > most_bytes
    total, waiting = 0, [directory]
    while waiting:
        # Counted as it comes: a program that makes names without end must not get to make more while we list them.
        with contextlib.suppress(OSError), os.scandir(waiting.pop()) as entries:
            for entry in entries:
                total += max(_BLOCK_BYTES, entry.stat(follow_symlinks=False).st_blocks * 512)
                if total > most_bytes:
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return False


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
