"""A small stand-in for pytest: what test files of coding tasks use, without the second that importing pytest takes.

raises, approx, mark.parametrize / skip / skipif / xfail (other marks say nothing here), param, fixture, skip, fail,
importorskip. `pytest_fixtures` has the fixtures. Behaviour follows https://docs.pytest.org/en/stable/reference/.
"""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import importlib
import math
import re
import unittest
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import ModuleType, TracebackType
from typing import Any, cast

#: Names under which the stand-in leaves its notes on the tests' functions.
PARAMETERS, SKIP, FIXTURE, USED = (f"keel_{name}" for name in ("parameters", "skip", "fixture", "used"))


class Raises:
    """``with raises(ValueError, match="..."):``, and then `value`, `type` and `match` of what was raised."""

    def __init__(self, expected: Any, match: str | None = None) -> None:
        self._expected, self._match = expected, match
        self.value: BaseException | None = None
        self.type: type[BaseException] | None = None

    def __enter__(self) -> Raises:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if kind is None:
            raise AssertionError(f"did not raise {self._expected}")
        if not issubclass(kind, self._expected):
            return False
        self.value, self.type = error, kind
        if self._match is not None:
            self.match(self._match)
        return True

    def match(self, pattern: str) -> bool:
        """Whether the message matches. Raises AssertionError if not."""
        if not re.search(pattern, str(self.value)):
            raise AssertionError(f"{pattern!r} does not match {str(self.value)!r:.200}")
        return True


def raises(expected: Any, *args: Any, match: str | None = None, **kwargs: Any) -> Any:
    """pytest.raises, as a context or with a function to call."""
    context = Raises(expected, match)
    if not args:
        return context
    with context:
        args[0](*args[1:], **kwargs)
    return context


class Approx:
    """pytest.approx for numbers, and for lists, tuples and dicts of them. Only exact builtin numbers are close."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, expected: Any, rel: float | None = None, abs: float | None = None, nan_ok: bool = False) -> None:
        self._expected, self._rel, self._abs, self._nan_ok = expected, rel, abs, nan_ok

    def __eq__(self, actual: object) -> bool:
        return self._same(actual, self._expected)

    def __ne__(self, actual: object) -> bool:
        return not self == actual

    def __repr__(self) -> str:
        return f"approx({self._expected!r})"

    def _same(self, actual: Any, expected: Any) -> bool:
        for convert in ("tolist",):  # numpy's arrays
            actual = getattr(actual, convert)() if type(actual).__module__ == "numpy" else actual
            expected = getattr(expected, convert)() if type(expected).__module__ == "numpy" else expected
        if isinstance(expected, Mapping):
            wanted = cast("Mapping[Any, Any]", expected)
            if not isinstance(actual, dict) or cast("dict[Any, Any]", actual).keys() != wanted.keys():
                return False
            return all(self._same(actual[key], wanted[key]) for key in wanted)
        if isinstance(expected, list | tuple):
            items = cast("list[Any]", expected)
            is_sequence = isinstance(actual, list | tuple) and len(cast("list[Any]", actual)) == len(items)
            return is_sequence and all(self._same(a, b) for a, b in zip(actual, items, strict=True))
        return self._close(actual, expected)

    def _close(self, actual: Any, expected: Any) -> bool:
        if type(actual) not in (int, float, bool, complex, Decimal):
            return type(actual) is type(expected) and actual == expected
        if isinstance(expected, float) and math.isnan(expected):
            return self._nan_ok and isinstance(actual, float) and math.isnan(actual)
        if actual == expected:
            return True
        if not isinstance(expected, int | float | complex | Decimal) or math.isinf(abs(expected)):
            return False
        absolute = 1e-12 if self._abs is None else self._abs
        relative = (0.0 if self._abs is not None else 1e-6) if self._rel is None else self._rel
        return float(abs(actual - expected)) <= max(absolute, relative * float(abs(expected)))


@dataclass(frozen=True, slots=True)
class Parameters:
    """One parametrize mark: names and rows of values."""

    names: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    is_indirect: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """pytest.param"""

    values: tuple[Any, ...]
    is_skipped: bool = False


class Mark:
    """A mark, or a mark with arguments: `mark.skip`, `mark.skipif(...)`, `mark.anything`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs and callable(args[0]) and self.name != "parametrize":
            return self._apply(args[0])
        return lambda target: self._apply(target, *args, **kwargs)

    def _apply(self, target: Any, *args: Any, **kwargs: Any) -> Any:
        if self.name == "parametrize":
            marks = [*getattr(target, PARAMETERS, ()), _parameters(*args, **kwargs)]
            setattr(target, PARAMETERS, marks)
        elif self.name == "skip" or (self.name == "skipif" and args and bool(args[0])):
            setattr(target, SKIP, True)
        elif self.name == "xfail" and (not args or bool(args[0])):
            # It would pass for whatever the program raises, and so for every program that does nothing right.
            setattr(target, SKIP, True)
        elif self.name == "usefixtures":
            setattr(target, USED, [*getattr(target, USED, ()), *args])
        return target


def _parameters(names: Any, values: Any, indirect: Any = False, **kwargs: Any) -> Parameters:
    listed = [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else list(names)
    is_single = isinstance(names, str) and "," not in names
    rows: list[tuple[Any, ...]] = []
    for value in values:
        if isinstance(value, Row):
            if not value.is_skipped:
                rows.append(value.values)
        else:
            rows.append((value,) if is_single else tuple(value))
    return Parameters(tuple(listed), tuple(rows), bool(indirect))


def param(*values: Any, marks: Any = (), id: str | None = None) -> Row:
    """pytest.param; of its marks only `skip` counts."""
    del id
    listed = marks if isinstance(marks, list | tuple) else [marks]
    return Row(values, any(isinstance(mark, Mark) and mark.name == "skip" for mark in cast("list[Any]", listed)))


@dataclass(frozen=True, slots=True)
class FixtureMark:
    """What pytest.fixture was told."""

    scope: str = "function"
    is_automatic: bool = False
    params: tuple[Any, ...] | None = None
    name: str | None = None


def fixture(
    function: Callable[..., Any] | None = None,
    *,
    scope: str = "function",
    params: Any = None,
    autouse: bool = False,
    ids: Any = None,
    name: str | None = None,
) -> Any:
    """pytest.fixture, bare or with arguments."""
    del ids
    mark = FixtureMark(scope, autouse, tuple(params) if params is not None else None, name)

    def apply(target: Callable[..., Any]) -> Callable[..., Any]:
        setattr(target, FIXTURE, mark)
        return target

    return apply if function is None else apply(function)


def skip(reason: str = "", **_: Any) -> None:
    """Skip the running test."""
    raise unittest.SkipTest(reason)


def fail(reason: str = "", **_: Any) -> None:
    """Fail the running test."""
    raise AssertionError(reason)


def import_or_skip(name: str, **_: Any) -> ModuleType:
    """Import, or skip the test."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise unittest.SkipTest(str(error)) from error


class _Marks:
    def __getattr__(self, name: str) -> Mark:
        return Mark(name)


def make_module() -> ModuleType:
    """The module that ``import pytest`` gives a test file."""
    module = ModuleType("pytest")
    names = {"raises": raises, "approx": Approx, "mark": _Marks(), "param": param, "fixture": fixture}
    module.__dict__.update(names, skip=skip, fail=fail, importorskip=import_or_skip)
    module.__dict__["main"] = lambda *args, **kwargs: 0
    return module
