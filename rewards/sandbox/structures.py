"""Instances of the task's own classes (list nodes, trees) between judge and guest, attribute by attribute.

Both sides have the classes, because both run the task's preamble. Instances go through a table beside the value, so
that a chain of ten thousand nodes does not nest, and cycles and shared nodes stay what they are.
"""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, cast

from rewards.sandbox.codec import CodecError, decode, encode


class Outgoing(ABC):
    """One message's worth of encoding. Subclasses say what becomes of values that are neither builtin nor structures.

    Attributes:
        table: [class name, [[attribute, value], ...]] of each structure met.
    """

    def __init__(self, structures: Mapping[str, type]) -> None:
        self._structures = structures
        self.table: list[Any] = []
        self._numbers: dict[int, int] = {}
        self._waiting: list[tuple[int, Any]] = []

    def encode(self, value: Any) -> Any:
        """`value` as JSON. Raises CodecError."""
        message = encode(value, self._other)
        while self._waiting:
            number, structure = self._waiting.pop()
            pairs = [[name, encode(item, self._other)] for name, item in _attributes(structure).items()]
            self.table[number] = [type(structure).__name__, pairs]
        return message

    @abstractmethod
    def foreign(self, value: Any, depth: int) -> Any:
        """JSON of anything else."""

    def _other(self, value: Any, depth: int) -> Any:
        if self._structures.get(type(value).__name__) is not type(value):
            return self.foreign(value, depth)
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self.table)
            self.table.append(None)
            self._waiting.append((number, value))
        return ["S", number]


class Incoming(ABC):
    """One message's worth of decoding."""

    def __init__(self, structures: Mapping[str, type], table: Any) -> None:
        if type(table) is not list:
            raise CodecError("the table is no list")
        self._structures, self._table = structures, cast("list[Any]", table)
        self._built: dict[int, Any] = {}
        self._waiting: list[tuple[Any, list[Any]]] = []

    def decode(self, message: Any) -> Any:
        """The value of `message`. Raises CodecError."""
        value = decode(message, self._other)
        while self._waiting:
            structure, pairs = self._waiting.pop()
            for pair in pairs:
                if type(pair) is not list or len(cast("list[Any]", pair)) != 2:
                    raise CodecError("an attribute is a name and a value")
                name, item = cast("list[Any]", pair)
                if type(name) is not str or not name.isidentifier() or name.startswith("__"):
                    raise CodecError("bad name of an attribute")
                object.__setattr__(structure, name, decode(item, self._other))
        return value

    @abstractmethod
    def foreign(self, items: list[Any], depth: int) -> Any:
        """The value of any other tag."""

    def _other(self, items: list[Any], depth: int) -> Any:
        if items[0] != "S":
            return self.foreign(items, depth)
        number = items[1]
        if type(number) is not int or not 0 <= number < len(self._table):
            raise CodecError("no such structure")
        if number not in self._built:
            name, pairs = self._table[number]
            if type(name) is not str or type(pairs) is not list:
                raise CodecError("bad structure")
            self._built[number] = structure = object.__new__(self._structures[name])
            self._waiting.append((structure, cast("list[Any]", pairs)))
        return self._built[number]


def _attributes(structure: Any) -> dict[str, Any]:
    slots: Iterable[str] = (name for kind in type(structure).__mro__ for name in getattr(kind, "__slots__", ()))
    found = {name: getattr(structure, name) for name in slots if hasattr(structure, name)}
    found.update(getattr(structure, "__dict__", {}))
    return found
