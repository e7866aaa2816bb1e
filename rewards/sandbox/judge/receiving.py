"""Decodes what a guest sends: data into exact values, handles into `Remote`."""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import builtins
import collections
import importlib
import keyword
import math
import re
import sys
from typing import TYPE_CHECKING, Any

from rewards.sandbox.codec import CodecError, decode
from rewards.sandbox.judge.errors import error_class
from rewards.sandbox.judge.remote import Origin, Remote, RemoteClass
from rewards.sandbox.structures import Incoming

if TYPE_CHECKING:
    from rewards.sandbox.judge.connection import Connection

_DTYPE = re.compile(r"[<>|=]?[biufc]\d{1,2}|[<>|=]?U\d{1,4}")


class Receiving(Incoming):
    """One message's worth of decoding. Everything in it is the guest's claim; nothing but data is taken from it."""

    def __init__(self, connection: Connection, table: Any) -> None:
        super().__init__(connection.structures, table)
        self._connection = connection

    def foreign(self, items: list[Any], depth: int) -> Any:
        """Handles, classes, and what stands for an object of the judge's own."""
        tag = items[0]
        if tag == "o":
            _, number, name, lineage, truth = items
            return self._remote(number, name, lineage, truth)
        if tag == "K":
            return self._connection.lent[_number(items[1])]
        if tag == "T":
            return _builtin_type(items[1])
        if tag == "C":
            return self._class(items)
        if tag == "N":
            return self._named_tuple(items, depth)
        if tag == "M":
            return _module(items[1])
        if tag == "n":
            return self._array(items)
        raise CodecError("unknown tag")

    def _remote(self, number: Any, name: Any, lineage: Any, truth: Any) -> Remote:
        known = self._connection.remotes.get(_number(number))
        if known is not None:
            return known
        if type(name) is not str or (truth is not None and type(truth) is not bool):
            raise CodecError("bad handle")
        bases = frozenset(_number(base) for base in lineage)
        origin = Origin(connection=self._connection, number=number, name=name, lineage=bases, truth=truth)
        self._connection.remotes[number] = remote = Remote(origin)
        return remote

    def _class(self, items: list[Any]) -> Any:
        _, lineage, base = items
        if isinstance(getattr(builtins, base, None), type) and issubclass(getattr(builtins, base), BaseException):
            return error_class(self._connection, items)
        number, name = lineage[0]
        known = self._connection.remotes.get(_number(number))
        if known is None:
            bases = frozenset(_number(base_number) for base_number, _ in lineage)
            origin = Origin(connection=self._connection, number=number, name=str(name), lineage=bases)
            known = self._connection.remotes[number] = RemoteClass(origin)
        return known

    def _named_tuple(self, items: list[Any], depth: int) -> Any:
        _, name, fields = items[:3]
        if not all(type(field) is str and field.isidentifier() and field[0] != "_" for field in [name, *fields]):
            raise CodecError("bad names of a named tuple")
        if any(keyword.iskeyword(field) for field in [name, *fields]) or len(fields) != len(items) - 3:
            raise CodecError("bad named tuple")
        # Made by the judge's own library, from nothing but names.
        kind: Any = collections.namedtuple(name, fields)
        return kind(*[decode(item, self._other, depth + 1) for item in items[3:]])

    def _array(self, items: list[Any]) -> Any:
        _, dtype, shape, flat = items
        if type(dtype) is not str or not _DTYPE.fullmatch(dtype):
            raise CodecError("an array of that type can't cross")
        values = decode(flat, self._other)
        if math.prod(_number(size) for size in shape) != len(values):
            raise CodecError("bad shape")
        numpy: Any = importlib.import_module("numpy")
        return numpy.array(values, dtype=dtype).reshape(shape)


def _number(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise CodecError("bad number")
    return value


def _builtin_type(name: Any) -> type:
    found = getattr(builtins, name, None) if type(name) is str else None
    if not isinstance(found, type):
        raise CodecError("no such type")
    return found


def _module(name: Any) -> Any:
    if type(name) is not str or name.partition(".")[0] not in sys.stdlib_module_names:
        raise CodecError("no such module")
    return importlib.import_module(name)  # the judge's own
