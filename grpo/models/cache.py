"""The cache of model directories that Keel builds itself: each is built once and appears whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from grpo.errors import ModelError


def cache_root() -> Path:
    """``$KEEL_CACHE``, else ``$XDG_CACHE_HOME/keel``, else ``~/.cache/keel``."""
    if chosen := os.environ.get("KEEL_CACHE"):
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "keel"


def cached_model(name: str, build: Callable[[Path], object]) -> Path:
    """The directory ``models/<name>`` of the cache, built by `build` if it is not there yet.

    A second process waits for the first. The directory is written aside and renamed, so a process that is killed leaves
    none; on file systems without locks two builders may race, and the one that renames first wins.

    Raises:
        ModelError: the cache can't be written.
    """
    directory = cache_root() / "models" / name
    if directory.is_dir():
        return directory
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with _locked(directory.with_name(f".{name}.lock")):
            if not directory.is_dir():
                _build_aside(directory, build)
    except OSError as error:
        raise ModelError(
            f"can't write the model cache {directory.parent} ({error}). Free space there, or set KEEL_CACHE to "
            "another directory"
        ) from error
    return directory


def _build_aside(directory: Path, build: Callable[[Path], object]) -> None:
    for leftover in directory.parent.glob(f".{directory.name}.*.tmp"):
        shutil.rmtree(leftover, ignore_errors=True)
    aside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    aside.mkdir()
    try:
        build(aside)
        aside.rename(directory)
    except OSError:
        if not directory.is_dir():  # else: another process was faster, on a file system without locks
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        with suppress(OSError):  # a network file system without locks: the rename alone must do
            fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed, or its process dies
        yield
