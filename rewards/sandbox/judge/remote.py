"""Objects of the program, as the tests see them: everything is asked of the guest, nothing is believed beyond data.

What an object says about itself (an attribute, its length, its items, its text) is fixed before the tests look at it,
like the value of a call. What must not be left to it is a comparison with the expected value: whoever sees that value
can answer as it pleases. So an object never equals a builtin value; ordering, arithmetic and membership are refused.
Only for objects of a class that the tests themselves know by name, such as the `Fraction` that the task was to write,
they are asked, and the verdict carries a flag.
"""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rewards.sandbox.program import Flag

if TYPE_CHECKING:
    from rewards.sandbox.judge.connection import Connection

#: Methods of builtin containers that compare with what they are given.
_COMPARING = {"startswith", "endswith", "issubset", "issuperset", "isdisjoint", "equals", "allclose"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the guest said of an object when it handed it over.

    Attributes:
        lineage: handles of its class and that class's bases.
        truth: its truth value, where its class is of the standard library.
    """

    connection: Connection
    number: int
    name: str
    lineage: frozenset[int] = frozenset()
    truth: bool | None = None


def origin_of(remote: Remote) -> Origin:
    """The guest's statement on `remote`."""
    return object.__getattribute__(remote, "_keel_origin")


def number_of(remote: Remote) -> int:
    """The handle of `remote`."""
    return origin_of(remote).number


def is_declared(remote: Remote) -> bool:
    """Whether the tests know `remote`, a class, or the class of `remote`, by name; any class qualifies as such."""
    origin = origin_of(remote)
    return type(remote) is RemoteClass or not origin.lineage.isdisjoint(origin.connection.declared)


class Remote:
    """An object of the program."""

    __slots__ = ("_keel_origin",)

    def __init__(self, origin: Origin) -> None:
        object.__setattr__(self, "_keel_origin", origin)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        origin = origin_of(self)
        return origin.connection.ask("call", origin.number, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in ("__deepcopy__", "__copy__", "__reduce_ex__", "__wrapped__"):
            raise AttributeError(name)
        origin = origin_of(self)
        if name in _COMPARING and not is_declared(self):
            raise TypeError(f"{name}() of an object of the program's own can't be asked for the truth")
        return origin.connection.ask("get", origin.number, name)

    def __setattr__(self, name: str, value: Any) -> None:
        origin = origin_of(self)
        origin.connection.ask("set", origin.number, name, value)

    def __deepcopy__(self, memo: Any) -> Remote:
        return self

    def __bool__(self) -> bool:
        origin = origin_of(self)
        if origin.truth is not None:
            return origin.truth
        return _truth(self, "bool")

    def __eq__(self, other: object) -> bool:
        if self is other:
            origin_of(self).connection.tally.flags.add(Flag.DELEGATED)
            return True
        return isinstance(other, Remote) and is_declared(self) and _truth(self, "eq", other)

    def __ne__(self, other: object) -> bool:
        if isinstance(other, Remote) and self is not other and is_declared(self):
            return _truth(self, "ne", other)
        return not self == other

    def __hash__(self) -> int:
        return self._keel_apply("hash") if is_declared(self) else hash(number_of(self))

    def __contains__(self, item: object) -> bool:
        if is_declared(self):
            return _truth(self, "contains", item)
        return any(item == own for own in self)

    def __iter__(self) -> Any:
        return self._keel_apply("iter")

    def __str__(self) -> str:
        return _text(self._keel_apply("str"))

    def __repr__(self) -> str:
        return _text(self._keel_apply("repr"))

    def __format__(self, form: str) -> str:
        return _text(self._keel_apply("format", form))

    def __enter__(self) -> Any:
        return self.__getattr__("__enter__")()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> Any:
        leave = self.__getattr__("__exit__")
        return leave(None, None, None) if kind is None else leave(kind, error, None)

    def _keel_apply(self, operation: str, *args: Any) -> Any:
        return origin_of(self).connection.ask("apply", None, operation, self, *args)


class RemoteClass(Remote):
    """A class of the program that is no exception."""

    __slots__ = ()

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, Remote) and number_of(self) in origin_of(instance).lineage

    def __eq__(self, other: object) -> bool:
        return self is other

    def __ne__(self, other: object) -> bool:
        return self is not other

    def __hash__(self) -> int:
        return hash(number_of(self))

    def __bool__(self) -> bool:
        return True


def _text(value: Any) -> str:
    if type(value) is not str:
        raise TypeError("no text")
    return value


def _truth(remote: Remote, operation: str, *others: object) -> bool:
    """Ask an object of a declared class for the truth; the tests leave no choice."""
    if not is_declared(remote):
        raise TypeError(f"{operation} of an object of the program's own can't be asked for the truth")
    connection = origin_of(remote).connection
    connection.tally.flags.add(Flag.DELEGATED)
    return connection.ask("apply", None, operation, remote, *others) is True


def _ordering(operation: str) -> Callable[[Remote, object], bool]:
    return lambda self, other: _truth(self, operation, other)


def _arithmetic(operation: str, is_reflected: bool) -> Callable[..., Any]:
    def apply(self: Remote, *others: Any) -> Any:
        if not is_declared(self):
            raise TypeError(f"{operation} with an object of the program's own would show it the test's value")
        connection = origin_of(self).connection
        if others and not isinstance(others[0], Remote):
            connection.tally.flags.add(Flag.DELEGATED)
        operands = (*others, self) if is_reflected else (self, *others)
        return connection.ask("apply", None, operation, *operands)

    return apply


def _plain(operation: str) -> Callable[..., Any]:
    return lambda self, *args: self._keel_apply(operation, *args)


for _name in ("lt", "le", "gt", "ge"):
    setattr(Remote, f"__{_name}__", _ordering(_name))
for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "lshift", "rshift", "xor"):
    setattr(Remote, f"__{_name}__", _arithmetic(_name, False))
    setattr(Remote, f"__r{_name}__", _arithmetic(_name, True))
for _name in ("and", "or"):
    setattr(Remote, f"__{_name}__", _arithmetic(f"{_name}_", False))
    setattr(Remote, f"__r{_name}__", _arithmetic(f"{_name}_", True))
for _name in ("neg", "pos", "invert"):
    setattr(Remote, f"__{_name}__", _arithmetic(_name, False))
for _name in ("len", "next", "reversed", "getitem", "setitem", "delitem", "int", "float", "abs", "round"):
    setattr(Remote, f"__{_name}__", _plain(_name))
