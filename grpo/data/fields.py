"""Typed access to the fields of a row; every failure is a `DataError` that names the field."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import cast

from grpo.errors import DataError

Row = Mapping[str, object]
Messages = tuple[tuple[str, str], ...]
_TYPE_NAMES = {str: "a string", int: "an integer", list: "a list of strings", dict: "an object"}
_ROLES = ("system", "user", "assistant")


class LeftOut(Exception):
    """A well-formed row that is no task for this reader; its text is the reason under which such rows are counted."""


def _field(row: Row, name: str, kind: type, *, optional: bool = False) -> object:
    """The value of a field; None where an optional one is absent or null (columnar files fill gaps with nulls)."""
    value = row.get(name)
    if value is None and optional:
        return None
    if name not in row:
        found = ", ".join(map(str, row)) or "no fields"
        raise DataError(f"missing field {name!r} (the row has {found}; see data.schema)")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise DataError(f"field {name!r}: expected {_TYPE_NAMES[kind]}, found {describe(value)}")
    return value


def optional_text(row: Row, name: str) -> str | None:
    """A string; None where the field is absent or null."""
    return cast("str | None", _field(row, name, str, optional=True))


def optional_integer(row: Row, name: str) -> int | None:
    """An integer; None where the field is absent or null."""
    return cast("int | None", _field(row, name, int, optional=True))


def optional_object(row: Row, name: str) -> Row | None:
    """An object with fields; None where the field is absent or null."""
    return cast("Row | None", _field(row, name, dict, optional=True))


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


def content_id(prefix: str, *parts: str) -> str:
    """An id for a row of a set that has none: a hash of what the row says, so that it survives a new order."""
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
    return f"{prefix}#{digest[:12]}"


def is_content_id(task_id: str) -> bool:
    """Whether `content_id` made it: then two of the same are one row twice, not two tasks with one name."""
    return task_id[-13:-12] == "#"


def strings(row: Row, name: str, *, optional: bool = False) -> tuple[str, ...]:
    """A list of strings; not empty unless optional."""
    values = cast("list[object] | None", _field(row, name, list, optional=optional)) or []
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(f"field {name!r}: expected a list of strings, found {describe(value)} at index {index}")
    if not values and not optional:
        raise DataError(f"field {name!r}: an empty list; a task needs at least one test")
    return tuple(cast("list[str]", values))


def messages(row: Row, name: str) -> Messages:
    """Chat messages, a list of objects with `role` and `content`; the last one is the user's, to be answered."""
    turns = chat(row, name)
    if turns[-1][0] != "user":
        raise DataError(f"field {name!r}: the last message is the {turns[-1][0]}'s; there is nothing to answer")
    return turns


def chat(row: Row, name: str) -> Messages:
    """Chat messages, whoever has the last word."""
    values = row.get(name)
    if not isinstance(values, list) or not values:
        raise DataError(f"field {name!r}: expected a list of messages, found {describe(values)}")
    return tuple(_message(value, f"{name}.{index}") for index, value in enumerate(cast("list[object]", values)))


def _message(value: object, where: str) -> tuple[str, str]:
    if not isinstance(value, Mapping):
        raise DataError(f"field {where!r}: expected an object with role and content, found {describe(value)}")
    turn = cast(Row, value)
    role, content = turn.get("role"), turn.get("content")
    if role not in _ROLES or not isinstance(role, str):
        raise DataError(f"field '{where}.role': expected {', '.join(_ROLES)}, found {describe(role)}")
    if not isinstance(content, str) or not content.strip():
        raise DataError(f"field '{where}.content': expected a string that is not empty, found {describe(content)}")
    return role, content


def decoded(row: Row, name: str) -> object:
    """A value that public sets keep as text: JSON, or Python's way of writing it. Values that are no text stay."""
    value = row.get(name)
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataError(f"field {name!r}: neither JSON nor a Python literal, {describe(value)}") from error


def at(row: Row, path: str) -> object:
    """The value at a dotted path, e.g. ``instances.0.input``; None where the row has no such place."""
    if path in row:
        return row[path]
    value: object = row
    for part in path.split("."):
        if isinstance(value, Mapping):
            value = cast(Row, value).get(part)
        elif isinstance(value, list) and part.isdecimal():
            items = cast("Sequence[object]", value)
            value = items[int(part)] if int(part) < len(items) else None
        else:
            return None
    return value


def renamed(row: Row, names: Mapping[str, str]) -> Row:
    """The row with the fields that `data.fields` maps: name in the schema -> dotted path in the row."""
    if not names:
        return row
    found = {name: at(row, path) for name, path in names.items()}
    kept = {name: value for name, value in row.items() if name not in names}
    return kept | {name: value for name, value in found.items() if value is not None}


def describe(value: object) -> str:
    """A value in an error message, cut short."""
    return "null" if value is None else f"{type(value).__name__} {str(value)[:40]!r}"
