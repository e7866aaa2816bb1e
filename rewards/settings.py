"""Plain values out of a configuration, made into a checked dataclass."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from rewards.base import RewardError

T = TypeVar("T")


def read_settings(kind: type[T], values: Mapping[str, Any], key: str) -> T:
    """An instance of the dataclass `kind` out of plain values; numbers, enums and nested dataclasses are converted.

    Args:
        key: dotted key that the values stand under, for messages.

    Raises:
        RewardError: an unknown field, a wrong type, or what `kind` itself refuses; names key, value and remedy.
    """
    known = [entry.name for entry in fields(kind)]  # pyright: ignore[reportArgumentType]
    for name, value in values.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise RewardError(f"{key}.{name}={value!r}: unknown key. {hint}There are: {', '.join(known) or 'none'}.")
    try:
        return TypeAdapter(kind).validate_python(dict(values))
    except ValidationError as error:
        raise RewardError(_explain(error, key)) from None


def _explain(error: ValidationError, key: str) -> str:
    """The first thing that is wrong, in one line."""
    first = error.errors(include_url=False)[0]
    place = ".".join([key, *(str(part) for part in first["loc"])])
    own = first.get("ctx", {}).get("error")
    if isinstance(own, ValueError):  # raised by an invariant; it names its field itself
        return f"{place}.{own}"
    return f"{place}={first['input']!r}: {first['msg'][0].lower()}{first['msg'][1:]}."
