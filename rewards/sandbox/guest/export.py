"""The candidate's side of values: what is not of an exact builtin type becomes data where it can, else a handle."""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import builtins
import enum
import importlib
import sys
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any, cast

from rewards.sandbox.codec import CodecError, decode, encode
from rewards.sandbox.structures import Incoming, Outgoing

#: What an instance of a subclass is worth, whatever the subclass overrides.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, lambda value: int.__add__(value, 0)),
    (float, lambda value: float.__add__(value, 0.0)),
    (str, str.__str__),
    (bytes, lambda value: bytes.__add__(value, b"")),
    (dict, lambda value: dict(dict.items(value))),
    (list, lambda value: list(list.__iter__(value))),
    (tuple, lambda value: tuple(tuple.__iter__(value))),
    (set, lambda value: set(set.__iter__(value))),
    (frozenset, lambda value: frozenset(frozenset.__iter__(value))),
)


class Handles:
    """Objects that the judge refers to by number. One object, one number."""

    def __init__(self) -> None:
        self._objects: list[Any] = []
        self._numbers: dict[int, int] = {}
        self.callbacks: dict[int, Callback] = {}  #: one for each number: programs compare and remove them

    def number(self, value: Any) -> int:
        """The number of an object, which then lives as long as the process."""
        known = self._numbers.get(id(value))
        if known is None:
            known = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return known

    def __getitem__(self, number: int) -> Any:
        return self._objects[number]


class Export(Outgoing):
    """One message's worth of encoding.

    Args:
        structures: the task's own classes by name; their instances cross attribute by attribute.
        declared: classes that the tests know by name; their instances never cross by value.
    """

    def __init__(self, handles: Handles, structures: dict[str, type], declared: set[type]) -> None:
        super().__init__(structures)
        self._handles, self._declared = handles, declared

    def foreign(self, value: Any, depth: int) -> Any:
        """Data where that is possible, else a handle."""
        if isinstance(value, Callback):
            return ["K", value._keel_number]
        if isinstance(value, type):
            return self._class(value)
        if isinstance(value, ModuleType):
            return ["M", value.__name__]
        if not self._declared.intersection(type(value).__mro__):
            plain = self._plain(value, depth)
            if plain is not None:
                return plain
        return self._opaque(value)

    def _plain(self, value: Any, depth: int) -> Any:
        """Subclasses of builtin types as the builtin value; numpy's values as numpy's."""
        if isinstance(value, enum.Enum) and not isinstance(value, int | str):
            return None
        if isinstance(value, tuple) and isinstance(getattr(type(value), "_fields", None), tuple):
            items = [encode(item, self._other, depth + 1) for item in tuple.__iter__(value)]
            return ["N", type(value).__name__, list(type(value)._fields), *items]  # type: ignore[attr-defined]
        numpy, given = sys.modules.get("numpy"), cast("Any", value)
        if numpy is not None and isinstance(value, numpy.generic):
            return encode(given.item(), self._no_more, depth)
        if numpy is not None and isinstance(value, numpy.ndarray):
            return ["n", given.dtype.str, list(given.shape), encode(given.ravel().tolist(), self._no_more, depth)]
        for base, convert in _BASES:
            if isinstance(value, base):
                return encode(convert(value), self._other, depth)
        return None

    def _no_more(self, value: Any, depth: int) -> Any:
        del depth
        raise CodecError(f"{type(value).__name__} inside a numpy value")

    def _class(self, kind: type) -> Any:
        if getattr(builtins, kind.__name__, None) is kind:
            return ["T", kind.__name__]
        return ["C", *self._lineage(kind)]

    def _lineage(self, kind: type) -> list[Any]:
        """[[[handle, name] of the class and its bases up to the first builtin], name of that builtin]."""
        own: list[Any] = []
        for base in kind.__mro__:
            if getattr(builtins, base.__name__, None) is base:
                return [own, base.__name__]
            own.append([self._handles.number(base), base.__name__])
        return [own, "object"]

    def _opaque(self, value: Any) -> Any:
        kind = type(value)
        is_library = kind.__module__.partition(".")[0] in sys.stdlib_module_names
        truth: bool | None = None
        if is_library and not isinstance(value, FunctionType):
            try:
                truth = bool(value)
            except Exception:  # noqa: BLE001 - then it has none
                truth = None
        lineage = [] if kind.__module__ == "builtins" else [self._handles.number(base) for base in kind.__mro__[:-1]]
        return ["o", self._handles.number(value), kind.__name__, lineage, truth]


class Import(Incoming):
    """One message's worth of decoding; `call` reaches the tests' functions."""

    def __init__(self, handles: Handles, structures: dict[str, type], table: list[Any], call: Any) -> None:
        super().__init__(structures, table)
        self._handles, self._call = handles, call

    def foreign(self, items: list[Any], depth: int) -> Any:
        """Objects of this side, functions of the tests, and what the library has on both sides."""
        tag = items[0]
        if tag == "o":
            return self._handles[items[1]]
        if tag == "K":
            return self._handles.callbacks.setdefault(items[1], Callback(items[1], self._call))
        if tag == "R":
            target: Any = importlib.import_module(items[1])
            for name in items[2].split("."):
                target = getattr(target, name)
            return target
        if tag == "I":
            return iter([decode(item, self._other, depth + 1) for item in items[1:]])
        if tag == "n":
            numpy: Any = importlib.import_module("numpy")
            return numpy.array(decode(items[3], self._other, depth + 1), dtype=items[1]).reshape(items[2])
        if tag == "E":
            return getattr(builtins, items[1])(*[decode(item, self._other, depth + 1) for item in items[2:]])
        raise CodecError(f"tag {tag!r}")


class Callback:
    """Stands for a function or an object of the tests."""

    def __init__(self, number: int, call: Any) -> None:
        self._keel_number, self._keel_call = number, call

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._keel_call("call", self._keel_number, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._keel_call("get", self._keel_number, (name,), {})
