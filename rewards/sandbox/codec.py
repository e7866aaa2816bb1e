"""Values between judge and candidate, as JSON. Exact builtin types cross by value; a caller decides about the rest.

``None``, booleans, floats, strings and small integers stand for themselves; everything else is a list that starts
with a tag. Decoding builds objects of exactly the builtin types, whatever the other side claims: a candidate's
subclass of int arrives as an int. Decoding raises `CodecError` for anything that is not of this form.
"""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import io
from collections.abc import Callable
from typing import Any, cast

MAX_DEPTH = 150
_SEQUENCE_TAGS: dict[type, str] = {list: "l", tuple: "t", set: "s", frozenset: "z"}
_SEQUENCE_TYPES: dict[str, Callable[[Any], Any]] = {tag: kind for kind, tag in _SEQUENCE_TAGS.items()}


class CodecError(ValueError):
    """A value that can't cross, or a message that is no value."""


Other = Callable[[Any, int], Any]  #: value, depth -> JSON, for what is not of an exact builtin type
OtherTag = Callable[[list[Any], int], Any]  #: tagged list, depth -> value


def encode(value: Any, other: Other, depth: int = 0) -> Any:
    """`value` as JSON; `other` is asked about every type not known here. Raises CodecError."""
    kind = type(value)
    if value is None or kind is str or kind is bool or kind is float:
        return value
    if kind is int:
        return value if -(1 << 62) < value < (1 << 62) else ["i", hex(value)]
    if depth > MAX_DEPTH:
        raise CodecError("nested too deep")
    tag = _SEQUENCE_TAGS.get(kind)
    if tag is not None:
        return [tag, *[encode(item, other, depth + 1) for item in value]]
    if kind is dict:
        return ["d", *[encode(part, other, depth + 1) for pair in value.items() for part in pair]]
    if kind is bytes or kind is bytearray:
        return ["b" if kind is bytes else "B", value.hex()]
    if kind is complex:
        return ["c", value.real, value.imag]
    if kind is range:
        return ["r", *[encode(part, other, depth + 1) for part in (value.start, value.stop, value.step)]]
    taken = _LIBRARY_BY_TYPE.get(kind)
    if taken is not None:
        name, parts = taken
        return ["x", name, *[encode(part, other, depth + 1) for part in parts(value)]]
    return other(value, depth)


def decode(message: Any, other: OtherTag, depth: int = 0) -> Any:
    """The value that `message` stands for; `other` is asked about every tag not known here. Raises CodecError."""
    if message is None or type(message) in (str, bool, float, int):
        return message
    if type(message) is not list or not message or depth > MAX_DEPTH:
        raise CodecError("not a value, or nested too deep")
    items = cast("list[Any]", message)
    tag = items[0]
    try:
        if tag in _SEQUENCE_TYPES:
            return _SEQUENCE_TYPES[tag]([decode(item, other, depth + 1) for item in items[1:]])
        if tag == "d":
            parts = [decode(item, other, depth + 1) for item in items[1:]]
            return dict(zip(parts[::2], parts[1::2], strict=True))
        plain = _PLAIN.get(tag)
        if plain is not None:
            return plain(*items[1:])
        if tag == "r":
            return range(*[_exact(decode(item, other, depth + 1), int) for item in items[1:]])
        if tag == "x":
            parts = [decode(item, other, depth + 1) for item in items[2:]]
            return _LIBRARY_BY_NAME[items[1]](*parts)
        return other(items, depth)
    except (TypeError, ValueError, KeyError, IndexError, ArithmeticError, AttributeError) as error:
        raise CodecError(f"{tag!r:.40}: {type(error).__name__}: {error}"[:200]) from error


def _exact(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise CodecError(f"{kind.__name__} expected")
    return value


_PLAIN: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(_exact(text, str), 16),
    "b": lambda text: bytes.fromhex(text),
    "B": lambda text: bytearray.fromhex(text),
    "c": lambda real, imag: complex(_exact(real, float), _exact(imag, float)),
}

#: Exact types of the standard library that cross by value: name, constructor, arguments that rebuild one.
_LIBRARY: tuple[tuple[str, type, Callable[..., Any], Callable[[Any], tuple[Any, ...]]], ...] = (
    ("Decimal", decimal.Decimal, lambda text: decimal.Decimal(_exact(text, str)), lambda v: (str(v),)),
    (
        "Fraction",
        fractions.Fraction,
        lambda top, bottom: fractions.Fraction(_exact(top, int), _exact(bottom, int)),
        lambda v: (v.numerator, v.denominator),
    ),
    ("date", datetime.date, datetime.date, lambda v: (v.year, v.month, v.day)),
    ("time", datetime.time, datetime.time, lambda v: (v.hour, v.minute, v.second, v.microsecond)),
    (
        "datetime",
        datetime.datetime,
        datetime.datetime,
        lambda v: (v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond),
    ),
    ("timedelta", datetime.timedelta, datetime.timedelta, lambda v: (v.days, v.seconds, v.microseconds)),
    (
        "deque",
        collections.deque,
        lambda items, most: collections.deque(items, most),
        lambda v: (list(v), v.maxlen),
    ),
    ("Counter", collections.Counter, lambda pairs: collections.Counter(_exact(pairs, dict)), lambda v: (dict(v),)),
    (
        "OrderedDict",
        collections.OrderedDict,
        lambda pairs: collections.OrderedDict(_exact(pairs, dict)),
        lambda v: (dict(v),),
    ),
    (
        "defaultdict",
        collections.defaultdict,
        lambda pairs: collections.defaultdict(None, _exact(pairs, dict)),
        lambda v: (dict(v),),
    ),
    ("StringIO", io.StringIO, lambda text: io.StringIO(_exact(text, str)), lambda v: (v.getvalue(),)),
    ("BytesIO", io.BytesIO, lambda data: io.BytesIO(_exact(data, bytes)), lambda v: (v.getvalue(),)),
)
_LIBRARY_BY_TYPE = {kind: (name, parts) for name, kind, _, parts in _LIBRARY}
_LIBRARY_BY_NAME = {name: build for name, _, build, _ in _LIBRARY}
