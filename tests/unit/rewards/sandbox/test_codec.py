"""Values between judge and guest: exact types arrive, nothing else is believed."""

from __future__ import annotations

import collections
import datetime
import decimal
import fractions
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.sandbox.codec import CodecError, decode, encode
from rewards.sandbox.structures import Incoming, Outgoing

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
HASHABLE = st.recursive(SCALARS, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=6)
VALUES = st.recursive(
    HASHABLE,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(HASHABLE, inner, max_size=3) | st.sets(HASHABLE),
    max_leaves=20,
)


def refuse(value: Any, depth: int) -> Any:
    raise CodecError(f"{value!r} at {depth}")


def through(value: Any) -> Any:
    return decode(json.loads(json.dumps(encode(value, refuse))), refuse)


def same_types(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return all(same_types(a, b) for a, b in zip(one.items(), other.items(), strict=True))
    if isinstance(one, list | tuple):
        return all(same_types(a, b) for a, b in zip(one, other, strict=True))
    return one == other


@given(VALUES)
def test_values_come_back_exactly(value: Any) -> None:
    assert same_types(through(value), value)


LIBRARY: list[Any] = [
    decimal.Decimal("1.10"),
    fractions.Fraction(-3, 7),
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4),
    datetime.timedelta(days=-1, microseconds=5),
    datetime.time(1, 2, 3, 4),
    collections.deque([1, [2]], 3),
    collections.Counter("aab"),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    range(5, -5, -2),
    2 - 3.5j,
    bytearray(b"\0x"),
    1 << 5000,
    float("inf"),
]


@pytest.mark.parametrize("value", LIBRARY, ids=repr)
def test_the_librarys_values_come_back_exactly(value: Any) -> None:
    back = through(value)
    assert back == value
    assert type(back) is type(value)


def test_nan_comes_back_as_another_nan() -> None:
    nan = float("nan")
    back = through([nan])
    assert math.isnan(back[0])
    assert back != [nan]  # no object is shared, so that a list can't be equal by identity


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=12,
)
TAGS = st.sampled_from([*"lcszditrxbBNoKMTCSn", "Decimal", "date", "deque", "Counter", "StringIO"])


@given(st.recursive(JUNK | TAGS, lambda inner: st.lists(inner | TAGS, max_size=5), max_leaves=15))
@settings(max_examples=500)
def test_junk_is_a_codec_error_or_an_exact_value(message: Any) -> None:
    try:
        value = decode(message, refuse)
    except CodecError:
        return
    assert type(value).__module__ in ("builtins", "decimal", "fractions", "datetime", "collections", "_io")


@pytest.mark.parametrize(
    "message", [["i", 5], ["c", "1", "2"], ["x", "eval", "1"], ["x", "Decimal", 1], {}, [], ["l"] * 2]
)
def test_malformed_messages(message: Any) -> None:
    if message == ["l", "l"]:
        assert decode(message, refuse) == ["l"]
    else:
        with pytest.raises(CodecError):
            decode(message, refuse)


def test_depth_is_bounded_both_ways() -> None:
    value: Any = []
    for _ in range(1000):
        value = [value]
    with pytest.raises(CodecError, match="deep"):
        encode(value, refuse)
    message: Any = ["l"]
    for _ in range(1000):
        message = ["l", message]
    with pytest.raises(CodecError):
        decode(message, refuse)


class Node:
    def __init__(self, value: Any = None, following: Node | None = None) -> None:
        self.value, self.following = value, following


class Out(Outgoing):
    def foreign(self, value: Any, depth: int) -> Any:
        return refuse(value, depth)


class In(Incoming):
    def foreign(self, items: list[Any], depth: int) -> Any:
        return refuse(items, depth)


def test_a_chain_of_structures_does_not_nest() -> None:
    head = None
    for index in range(20_000):
        head = Node(index, head)
    out = Out({"Node": Node})
    message = json.loads(json.dumps([out.encode(head), out.table]))
    found = In({"Node": Node}, message[1]).decode(message[0])
    for index in reversed(range(20_000)):
        assert type(found) is Node and found.value == index
        found = found.following
    assert found is None


def test_cycles_and_shared_structures_stay() -> None:
    ring = Node(1)
    ring.following = ring
    out = Out({"Node": Node})
    first, second = In({"Node": Node}, out.table).decode(out.encode([ring, ring]))
    assert first is second and first.following is first


@pytest.mark.parametrize(
    ("message", "table"),
    [
        (["S", 0], []),
        (["S", -1], [["Node", []]]),
        (["S", True], [["Node", []], ["Node", []]]),
        (["S", 0], [["Other", []]]),
        (["S", 0], [["Node", [["__class__", 1]]]]),
        (["S", 0], [["Node", [["a b", 1]]]]),
        (["S", 0], [["Node", 5]]),
        (["S", 0], [5]),
        (["S", 0], {}),
    ],
)
def test_hostile_structures(message: Any, table: Any) -> None:
    with pytest.raises(CodecError):
        In({"Node": Node}, table).decode(message)
