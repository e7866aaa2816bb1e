"""Encodes what tests pass to the program: values as data, functions and objects of the tests as numbers."""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType, ModuleType, WrapperDescriptorType
from typing import TYPE_CHECKING, Any, cast

from rewards.sandbox.codec import CodecError, encode
from rewards.sandbox.judge.errors import GuestError
from rewards.sandbox.judge.remote import Remote, number_of
from rewards.sandbox.structures import Outgoing

if TYPE_CHECKING:
    from rewards.sandbox.judge.connection import Connection

TESTS = "keel_tests"  #: `__name__` of every module that tests run in
_MOST_ITEMS = 100_000
_BASES: tuple[Any, ...] = (int, float, str, list, tuple, dict)
_ITERATORS = (type({}.keys()), type({}.values()), type({}.items()), zip, map, filter, enumerate, reversed)


class Lent:
    """Objects of the tests that the program may use: call, and read public attributes of where they are the tests'."""

    def __init__(self) -> None:
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}

    def lend(self, value: Any) -> int:
        """The number under which the program knows `value`."""
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return self._numbers[id(value)]

    def __getitem__(self, number: int) -> Any:
        return self._objects[number]

    def attribute(self, target: Any, name: Any) -> Any:
        """What the program may see of `target`. Raises AttributeError."""
        if type(name) is not str or name.startswith("_") or not _is_of_tests(target):
            raise AttributeError(str(name))
        return getattr(target, name)


class Sending(Outgoing):
    """One message's worth of encoding."""

    def __init__(self, connection: Connection) -> None:
        super().__init__(connection.structures)
        self._connection = connection

    def foreign(self, value: Any, depth: int) -> Any:
        """Handles back to the guest, references into the library, loans."""
        if isinstance(value, Remote):
            return ["o", number_of(value)]
        if isinstance(value, GuestError) and value.keel_number is not None:
            return ["o", value.keel_number]
        if isinstance(value, type) and issubclass(value, GuestError):
            return ["o", value.keel_class]  # type: ignore[attr-defined]
        reference = _reference(value)
        if reference is not None:
            return reference
        if isinstance(value, BaseException) and type(value).__module__ == "builtins":
            return ["E", type(value).__name__, *[encode(item, self._other, depth + 1) for item in value.args]]
        if isinstance(value, _ITERATORS) or (isinstance(value, Iterator) and type(value).__module__ == "builtins"):
            return ["I", *self._items(cast("Iterator[Any]", value), depth)]
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
            array = numpy.asarray(value)
            return ["n", array.dtype.str, list(array.shape), encode(array.ravel().tolist(), self._other, depth + 1)]
        for base in _BASES:
            if isinstance(value, base) and not _is_of_tests(value):
                return encode(base(value), self._other, depth)
        if callable(value) or _is_of_tests(value):
            return ["K", self._connection.lent.lend(value)]
        raise CodecError(f"a {type(value).__name__}")

    def _items(self, value: Iterator[Any], depth: int) -> list[Any]:
        items = list(itertools.islice(value, _MOST_ITEMS + 1))
        if len(items) > _MOST_ITEMS:
            raise CodecError("an iterator without end")
        return [encode(item, self._other, depth + 1) for item in items]


def _is_of_tests(value: Any) -> bool:
    module = type(value).__module__
    return module == TESTS or module == "unittest.mock"


def _reference(value: Any) -> list[str] | None:
    """Where the guest finds the same thing in its own library: a builtin type, ``str.upper``, ``operator.add``."""
    if isinstance(value, MethodDescriptorType | WrapperDescriptorType):
        module, name = value.__objclass__.__module__, value.__qualname__
    elif isinstance(value, BuiltinFunctionType):
        if not isinstance(value.__self__, ModuleType):
            return None
        module, name = value.__self__.__name__, value.__qualname__
    elif isinstance(value, type | FunctionType):
        module, name = value.__module__, value.__qualname__
    else:
        return None
    if module.partition(".")[0] not in sys.stdlib_module_names:
        return None
    try:
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        return None
    return ["R", module, name] if found is value else None
