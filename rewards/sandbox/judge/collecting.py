"""Finds the tests of a test file, and runs one."""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import inspect
import itertools
import unittest
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from rewards.sandbox.judge.pytest_api import PARAMETERS, SKIP, USED
from rewards.sandbox.judge.pytest_fixtures import Fixtures


class Skipped(Exception):
    """The test does not want to count."""


@dataclass(frozen=True, slots=True)
class TestCase:
    """One test: a name and a call that raises if the test does not pass."""

    name: str
    run: Callable[[], None]


class _Result(unittest.TestResult):
    """Takes the first failure of a unittest test, without the text of its traceback."""

    def __init__(self) -> None:
        super().__init__()
        self.problem: BaseException | None = None
        self.is_skipped = False

    def addError(self, test: Any, err: Any) -> None:
        self.problem = self.problem or err[1]

    addFailure = addError

    def addSubTest(self, test: Any, subtest: Any, err: Any) -> None:
        if err is not None:
            self.problem = self.problem or err[1]

    def addSkip(self, test: Any, reason: str) -> None:
        self.is_skipped = True

    def addExpectedFailure(self, test: Any, err: Any) -> None:
        self.is_skipped = True  # any wrong program fails it as well

    def addUnexpectedSuccess(self, test: Any) -> None:
        self.problem = AssertionError("passed, and was expected to fail")


def collect(namespace: dict[str, Any]) -> tuple[list[TestCase], Callable[[], None]]:
    """Tests in the order of the file, and what to call when all have run."""
    own = [value for value in namespace.values() if getattr(value, "__module__", None) == namespace["__name__"]]
    fixtures = Fixtures({name: value for name, value in namespace.items() if inspect.isfunction(value)})
    tests: list[TestCase] = []
    for value in dict.fromkeys(item for item in own if isinstance(item, type) or inspect.isfunction(item)):
        if isinstance(value, type) and issubclass(value, unittest.TestCase):
            tests += _unittest_tests(value)
        elif isinstance(value, type) and value.__name__.startswith("Test"):
            tests += _class_tests(value, fixtures)
        elif inspect.isfunction(value) and value.__name__.startswith("test"):
            tests += _function_tests(value.__name__, value, fixtures, ())
    return tests, fixtures.close


def _unittest_tests(kind: type[unittest.TestCase]) -> Iterator[TestCase]:
    is_ready: list[bool] = []

    def run(name: str) -> None:
        if not is_ready:
            kind.setUpClass()
            is_ready.append(True)
        result = _Result()
        kind(name).run(result)
        if result.problem is not None:
            raise result.problem
        if result.is_skipped:
            raise Skipped

    for name in unittest.TestLoader().getTestCaseNames(kind):
        yield TestCase(f"{kind.__name__}.{name}", lambda name=name: run(name))


def _class_tests(kind: type[Any], fixtures: Fixtures) -> Iterator[TestCase]:
    names = [name for base in reversed(kind.__mro__) for name in vars(base) if name.startswith("test")]
    for name in dict.fromkeys(names):
        function = inspect.getattr_static(kind, name)
        if inspect.isfunction(function):
            yield from _function_tests(f"{kind.__name__}.{name}", function, fixtures, (kind,))


def _function_tests(
    name: str, function: Callable[..., Any], fixtures: Fixtures, owner: tuple[type[Any], ...]
) -> Iterator[TestCase]:
    marks = [*getattr(function, PARAMETERS, ()), *(mark for kind in owner for mark in getattr(kind, PARAMETERS, ()))]
    choices = [[(mark, row) for row in mark.rows] for mark in marks]
    for needed in fixtures.needed_by(function):
        values = fixtures.params(needed)
        if values is not None:
            choices.append([(needed, value) for value in values])
    for index, chosen in enumerate(itertools.product(*choices)):
        case = _Call(function, fixtures, owner)
        for source, row in chosen:
            if isinstance(source, str):
                case.params[source] = row
            else:
                target = case.params if source.is_indirect else case.known
                target.update(zip(source.names, row, strict=True))
        yield TestCase(f"{name}[{index}]" if choices else name, case.run)


@dataclass(slots=True)
class _Call:
    """A test function with the parameters of one case."""

    function: Callable[..., Any]
    fixtures: Fixtures
    owner: tuple[type[Any], ...]
    known: dict[str, Any] = field(default_factory=dict[str, Any])
    params: dict[str, Any] = field(default_factory=dict[str, Any])

    def run(self) -> None:
        """Set up, call, tear down."""
        notes = [self.function, *self.owner]
        if any(getattr(note, SKIP, False) for note in notes):
            raise Skipped
        with ExitStack() as stack:
            try:
                self._call(stack)
            except unittest.SkipTest as skip:
                raise Skipped from skip

    def _call(self, stack: ExitStack) -> None:
        known = dict(self.known)
        positional: list[Any] = []
        if self.owner:
            instance = self.owner[0]()
            positional.append(instance)
            for name, is_first in (("setup_class", True), ("setup_method", False), ("setup", False)):
                _hook(instance, name, self.function, is_first)
            stack.callback(_hook, instance, "teardown_method", self.function, False)
        known["self"] = positional[0] if positional else None
        used = [name for note in (self.function, *self.owner) for name in getattr(note, USED, ())]
        for name in (*self.fixtures.automatic(), *used):
            self.fixtures.value(name, known, stack, self.params)
        names = [name for name in inspect.signature(self.function).parameters if name != "self"]
        defaults: MappingProxyType[str, inspect.Parameter] = inspect.signature(self.function).parameters
        given = {
            name: self.fixtures.value(name, known, stack, self.params)
            for name in names
            if name in known or defaults[name].default is inspect.Parameter.empty
        }
        result = self.function(*positional, **given)
        if inspect.iscoroutine(result):
            import asyncio

            asyncio.run(result)


def _hook(instance: Any, name: str, function: Callable[..., Any], is_class: bool) -> None:
    hook = getattr(type(instance) if is_class else instance, name, None)
    if hook is not None:
        hook(function) if not is_class and len(inspect.signature(hook).parameters) else hook()
