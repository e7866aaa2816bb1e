"""Runs a program as a script: once, as ``__main__``, with its standard input, to its end."""

from __future__ import annotations

import atexit
import os
import sys
import threading
import traceback
from types import ModuleType
from typing import Any

from rewards.sandbox import frames

_MESSAGE_CHARS = 500


def run_script(read_fd: int, write_fd: int, module: str, reserve: list[Any]) -> None:
    """Take preamble and source from the judge, run them, say how it ended, and leave. Does not return."""
    del module
    preamble, source = frames.receive(read_fd)
    os.close(read_fd)
    main = ModuleType("__main__")
    sys.modules["__main__"] = main
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="replace", closefd=False)
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="replace", closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, encoding="utf-8", errors="replace", closefd=False)
    kind, code = "", 0
    try:
        exec(compile(preamble, "<preamble>", "exec", dont_inherit=True), main.__dict__)
        exec(compile(source, "<solution>", "exec", dont_inherit=True), main.__dict__)
    except SystemExit as leave:
        code = leave.code if isinstance(leave.code, int) else 0 if leave.code is None else 1
    except MemoryError:
        kind = "MemoryError"
    except BaseException as error:  # noqa: BLE001 - whatever the program raises is how it ended
        kind = _describe(error)
    if kind == "MemoryError":
        reserve.clear()
    try:
        if not kind:
            threading._shutdown()  # type: ignore[attr-defined] # an interpreter waits for the threads that are no daemons
            atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]
        sys.stdout.flush()
    except BaseException as error:  # noqa: BLE001 - as above
        kind = kind or _describe(error)
    try:
        frames.send(write_fd, [kind, code])
    finally:
        os._exit(code & 255 if not kind else 1)


def _describe(error: BaseException) -> str:
    try:
        traceback.print_exception(error, limit=-10)
        return f"{type(error).__name__}: {error}"[:_MESSAGE_CHARS]
    except BaseException:  # noqa: BLE001 - its own __str__
        return "an exception that can't be described"
