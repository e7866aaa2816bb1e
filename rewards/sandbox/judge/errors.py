"""Exceptions of a guest, rebuilt in the judge."""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any, cast

from rewards.sandbox.codec import CodecError

if TYPE_CHECKING:
    from rewards.sandbox.judge.connection import Connection


class GuestError(Exception):
    """Mixed into every class made for a class of the program."""

    keel_number: int | None = None
    keel_text: str = ""
    keel_connection: Any = None

    def __str__(self) -> str:
        return self.keel_text

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or self.keel_number is None:
            raise AttributeError(name)
        return self.keel_connection.ask("get", self.keel_number, name)


def error_class(connection: Connection, kind: Any) -> type[BaseException]:
    """The judge's class for what a guest calls the class of an exception. Raises CodecError."""
    if type(kind) is not list or len(cast("list[Any]", kind)) < 2:
        raise CodecError("bad class")
    parts = cast("list[Any]", kind)
    if parts[0] == "T":
        return _builtin(parts[1])
    lineage, base_name = parts[1], parts[2]
    base: type[BaseException] = _builtin(base_name)
    for number, name in reversed(lineage):
        if type(number) is not int or type(name) is not str:
            raise CodecError("bad class")
        known = connection.error_classes.get(number)
        if known is None:
            bases = (base,) if issubclass(base, GuestError) else (GuestError, _ordinary(base))
            fields = {"keel_connection": connection, "__module__": "solution", "keel_class": number}
            known = connection.error_classes[number] = type(name, bases, fields)
        base = known
    return base


def rebuilt_error(kind: type[BaseException], args: list[Any], text: Any, number: Any) -> BaseException:
    """An exception to raise in the judge."""
    try:
        error = kind(*args)
    except Exception:  # noqa: BLE001 - a builtin that wants other arguments
        error = _ordinary(kind, plain=True)(*args[:1])
    if isinstance(error, GuestError):
        error.keel_text = text if type(text) is str else ""
        error.keel_number = number if type(number) is int else None
    return error


def _builtin(name: Any) -> type[BaseException]:
    found = getattr(builtins, name, None) if type(name) is str else None
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        raise CodecError("no such exception")
    return found


def _ordinary(kind: type[BaseException], plain: bool = False) -> type[BaseException]:
    """A base that takes any arguments."""
    if issubclass(kind, UnicodeError):
        return ValueError
    return RuntimeError if plain and not issubclass(kind, ValueError) else ValueError if plain else kind
