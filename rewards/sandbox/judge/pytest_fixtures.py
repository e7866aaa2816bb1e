"""Fixtures of a test file, and the few of pytest's own that such files use: tmp_path, capsys, monkeypatch, request."""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import inspect
import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

from rewards.sandbox.judge.pytest_api import FIXTURE, FixtureMark


class Captured(NamedTuple):
    """What capsys.readouterr() returns."""

    out: str
    err: str


class Capture:
    """capsys: the program's output arrives in the judge's sys.stdout, with the reply to the call that wrote it."""

    def __init__(self) -> None:
        self._out, self._err = io.StringIO(), io.StringIO()
        self._before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = self._out, self._err

    def readouterr(self) -> Captured:
        """What was written since the last call."""
        texts = Captured(self._out.getvalue(), self._err.getvalue())
        for stream in (self._out, self._err):
            stream.seek(0)
            stream.truncate()
        return texts

    def stop(self) -> None:
        """Give the streams back."""
        sys.stdout, sys.stderr = self._before


class MonkeyPatch:
    """monkeypatch, undone after the test."""

    def __init__(self) -> None:
        self._undo = ExitStack()

    def setattr(self, target: Any, name: Any, value: Any = None, raising: bool = True) -> None:
        """Set an attribute; ``setattr("module.name", value)`` too."""
        from unittest import mock

        if isinstance(target, str):
            self._undo.enter_context(mock.patch(target, name, create=not raising))
        else:
            self._undo.enter_context(mock.patch.object(target, name, value, create=not raising))

    def setenv(self, name: str, value: str, prepend: str | None = None) -> None:
        """Set a variable of the judge's environment, which the program does not see."""
        from unittest import mock

        del prepend
        self._undo.enter_context(mock.patch.dict(os.environ, {name: value}))

    def setitem(self, mapping: Any, name: Any, value: Any) -> None:
        """Set an item."""
        from unittest import mock

        self._undo.enter_context(mock.patch.dict(mapping, {name: value}))

    def undo(self) -> None:
        """Take everything back."""
        self._undo.close()


class Fixtures:
    """Resolves the arguments of tests by name. Wider scopes than a test live until `close`."""

    def __init__(self, functions: dict[str, Callable[..., Any]]) -> None:
        self._functions: dict[str, tuple[Callable[..., Any], FixtureMark]] = {}
        for name, function in functions.items():
            mark = getattr(function, FIXTURE, None)
            if isinstance(mark, FixtureMark):
                self._functions[mark.name or name] = function, mark
        self._shared: dict[str, Any] = {}
        self._lasting = ExitStack()

    def automatic(self) -> list[str]:
        """Fixtures that every test has."""
        return [name for name, (_, mark) in self._functions.items() if mark.is_automatic]

    def params(self, name: str) -> tuple[Any, ...] | None:
        """Values that a fixture goes through."""
        found = self._functions.get(name)
        return found[1].params if found else None

    def needed_by(self, function: Callable[..., Any]) -> list[str]:
        """All fixtures that `function` needs, directly or not."""
        names, waiting = [], [*_arguments(function), *self.automatic()]
        while waiting:
            name = waiting.pop(0)
            if name not in names:
                names.append(name)
                if name in self._functions:
                    waiting += _arguments(self._functions[name][0])
        return names

    def value(self, name: str, known: dict[str, Any], stack: ExitStack, params: dict[str, Any]) -> Any:
        """The value of a fixture for one test. Raises LookupError if there is none of that name."""
        if name in known:
            return known[name]
        if name not in self._functions:
            known[name] = _own_fixture(name, stack)
            return known[name]
        function, mark = self._functions[name]
        lasts = mark.scope != "function" and name not in params
        if lasts and name in self._shared:
            return self._shared[name]
        request = SimpleNamespace(param=params.get(name), addfinalizer=stack.callback)
        given = {
            argument: request if argument == "request" else self.value(argument, known, stack, params)
            for argument in _arguments(function)
        }
        value = _start(function, given, self._lasting if lasts else stack)
        (self._shared if lasts else known)[name] = value
        return value

    def close(self) -> None:
        """End what outlived its test."""
        self._lasting.close()


def _arguments(function: Callable[..., Any]) -> list[str]:
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _start(function: Callable[..., Any], given: dict[str, Any], stack: ExitStack) -> Any:
    if not inspect.isgeneratorfunction(function):
        return function(**given)
    steps: Iterator[Any] = function(**given)
    stack.callback(next, steps, None)
    return next(steps)


def _own_fixture(name: str, stack: ExitStack) -> Any:
    if name in ("tmp_path", "tmpdir"):
        # In the directory that the program can reach too; it is emptied after the program.
        return Path(tempfile.mkdtemp(dir=os.environ.get("TMPDIR")))
    if name in ("capsys", "capfd"):
        capture = Capture()
        stack.callback(capture.stop)
        return capture
    if name == "monkeypatch":
        patch = MonkeyPatch()
        stack.callback(patch.undo)
        return patch
    raise LookupError(f"no fixture {name!r}")
