"""Typed access to the fields of a row; every failure is a `DataError` that names the field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from grpo.errors import DataError

Row = Mapping[str, object]
_TYPE_NAMES = {str: "a string", int: "an integer", list: "a list of strings"}


def _field(row: Row, name: str, kind: type, *, optional: bool = False) -> object:
    """The value of a field; None where an optional one is absent or null (columnar files fill gaps with nulls)."""
    value = row.get(name)
    if value is None and optional:
        return None
    if name not in row:
        found = ", ".join(map(str, row)) or "no fields"
        raise DataError(f"missing field {name!r} (the row has {found}; see data.schema)")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"field {name!r}: expected {_TYPE_NAMES[kind]}, found {_describe(value)}")
    return value


def optional_text(row: Row, name: str) -> str | None:
    """A string; None where the field is absent or null."""
    return cast("str | None", _field(row, name, str, optional=True))


def optional_integer(row: Row, name: str) -> int | None:
    """An integer; None where the field is absent or null."""
    return cast("int | None", _field(row, name, int, optional=True))


def required_text(row: Row, name: str) -> str:
    """A string that holds more than white space."""
    value = cast(str, _field(row, name, str))
    if not value.strip():
        raise DataError(f"field {name!r}: empty")
    return value


def identifier(row: Row, name: str) -> str:
    """An id as a string; integers are common in public sets."""
    value = row.get(name)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else required_text(row, name)


def strings(row: Row, name: str, *, optional: bool = False) -> tuple[str, ...]:
    """A list of strings; not empty unless optional."""
    values = cast("list[object] | None", _field(row, name, list, optional=optional)) or []
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"field {name!r}: expected a list of strings, found {_describe(value)} at index {index}")
    if not values and not optional:
        raise DataError(f"field {name!r}: an empty list; a task needs at least one test")
    return tuple(cast("list[str]", values))


def _describe(value: object) -> str:
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
