"""The judge's line to its guest: asks, decodes answers into exact values, lends out functions of the tests."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any, cast

from rewards.sandbox import frames
from rewards.sandbox.codec import CodecError
from rewards.sandbox.judge.errors import GuestError, error_class, rebuilt_error
from rewards.sandbox.judge.lending import Lent, Sending
from rewards.sandbox.judge.receiving import Receiving
from rewards.sandbox.judge.remote import Remote, is_declared, number_of
from rewards.sandbox.judge.tally import Tally

_LONGEST_REPLY = 16 << 20
_MOST_CALLBACKS_DEEP = 50


class GuestGone(BaseException):
    """The guest died or broke the protocol. No Exception: tests must not mistake it for one of the program's."""


class Connection:
    """One guest. Tests may use it from several threads; requests then take turns.

    Attributes:
        structures: the task's own classes, by name.
        declared: handles of classes that the tests know by name.
        gone: why the guest can't be asked any more; empty while it can.
    """

    def __init__(self, read_fd: int, write_fd: int, tally: Tally) -> None:
        self._read_fd, self._write_fd, self.tally = read_fd, write_fd, tally
        self._lock = threading.RLock()
        self._depth = 0
        self.structures: dict[str, type] = {}
        self.declared: set[int] = set()
        self.lent = Lent()
        self.error_classes: dict[int, type[Exception]] = {}
        self.remotes: dict[int, Remote] = {}
        self.gone = ""

    def ask(self, operation: str, target: int | None = None, *args: Any, **kwargs: Any) -> Any:
        """The value of a request.

        Raises:
            GuestGone: the guest died or broke the protocol, now or before.
            Exception: what the program raised.
        """
        with self._lock:
            return self._value(*self._exchange(operation, target, args, kwargs), args)

    def find(self, names: Sequence[str]) -> dict[str, Any]:
        """Those of `names` that the program defines. Classes among them become known to the tests."""
        return self._found("names", names, names)

    def load(self, source: str, names: Sequence[str]) -> dict[str, Any]:
        """Run the program, and `find` those of `names` that it defines, in one exchange. Raises what it raises."""
        return self._found("load", (source, "<solution>", *names), names)

    def _found(self, operation: str, args: Sequence[Any], names: Sequence[str]) -> dict[str, Any]:
        with self._lock:
            found, table, _ = self._exchange(operation, None, args, {})
            try:
                values = Receiving(self, table)
                pairs = {name: values.decode(value) for name, value in found}
            except (CodecError, TypeError, ValueError) as error:
                raise self.lose(f"protocol: {error}") from None
            known = {name: value for name, value in pairs.items() if name in names}
            self.declare(*known.values())
            return known

    def declare(self, *values: Any) -> None:
        """Let the classes among `values` be known to the tests."""
        numbers = [number_of(value) for value in values if isinstance(value, Remote) and is_declared(value)]
        new = [number for number in numbers if number not in self.declared]
        if new:
            self.declared.update(new)
            self._value(*self._exchange("declare", None, new, {}), ())

    def lose(self, reason: str) -> GuestGone:
        """Give the guest up."""
        self.gone = self.gone or reason
        return GuestGone(self.gone)

    def _exchange(
        self, operation: str, target: int | None, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Any, Any, Any]:
        """Value, table and changed arguments, all still as JSON."""
        sending = Sending(self)
        try:
            given = [sending.encode(value) for value in args]
            named = {name: sending.encode(value) for name, value in kwargs.items()}
        except CodecError as error:
            raise TypeError(f"can't pass this to the program: {error}") from None
        self._send([operation, target, given, named, sending.table])
        while True:
            reply = self._receive()
            try:
                if reply[0] == "=":
                    _, value, table, changed, printed = reply
                    self._show(printed)
                    return value, table, changed
                if reply[0] == "!":
                    _, kind, arguments, text, number, table, printed = reply
                    self._show(printed)
                    values = Receiving(self, table)
                    decoded = [values.decode(item) for item in arguments]
                    raised = rebuilt_error(error_class(self, kind), decoded, text, number)
                elif reply[0] == "?":
                    self._answer(reply)
                    continue
                else:
                    raise CodecError("neither value nor error")
            except (CodecError, TypeError, ValueError, KeyError, IndexError, MemoryError, RecursionError) as error:
                raise self.lose(f"protocol: {type(error).__name__}: {error}"[:200]) from None
            raise raised

    def _value(self, value: Any, table: Any, changed: Any, args: Sequence[Any]) -> Any:
        try:
            values = Receiving(self, table)
            result = values.decode(value)
            for index, after in changed:
                if type(index) is not int or not 0 <= index < len(args):
                    raise CodecError("no such argument")
                _write_back(args[index], values.decode(after))
            return result
        except (CodecError, TypeError, ValueError, KeyError, MemoryError, RecursionError) as error:
            raise self.lose(f"protocol: {type(error).__name__}: {error}"[:200]) from None

    def _answer(self, message: list[Any]) -> None:
        """Do what the program asks of an object that was lent to it."""
        _, operation, number, args, kwargs, table, printed = message
        self._show(printed)
        values = Receiving(self, table)
        given = [values.decode(item) for item in args]
        named = {str(name): values.decode(item) for name, item in kwargs.items()}
        target = self.lent[number]
        self._depth += 1
        try:
            if self._depth > _MOST_CALLBACKS_DEEP:
                raise RecursionError("calls back and forth, nested too deep")
            result = self.lent.attribute(target, given[0]) if operation == "get" else target(*given, **named)
            sending = Sending(self)
            answer = ["=", sending.encode(result), sending.table]
        except Exception as error:  # noqa: BLE001 - the tests' own function raised: the program may handle that
            name = next(base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins")
            answer = ["!", name, [str(error)], error.keel_number if isinstance(error, GuestError) else None]
        finally:
            self._depth -= 1
        self._send(answer)

    def _send(self, message: Any) -> None:
        if self.gone:
            raise GuestGone(self.gone)
        try:
            frames.send(self._write_fd, message)
        except OSError:
            raise self.lose("it left before its tests were done") from None

    def _receive(self) -> list[Any]:
        try:
            reply = frames.receive(self._read_fd, _LONGEST_REPLY)
        except EOFError:
            raise self.lose("it left before its tests were done") from None
        except (frames.FrameError, MemoryError) as error:
            raise self.lose(f"protocol: {error}") from None
        if type(reply) is not list or not reply:
            raise self.lose("protocol: not a message")
        return cast("list[Any]", reply)

    def _show(self, printed: Any) -> None:
        if type(printed) is str and printed and sys.stdout is not sys.__stdout__:
            sys.stdout.write(printed)  # a test is looking


def _write_back(argument: Any, after: Any) -> None:
    """Give a mutable argument the contents that the program left in its copy."""
    if type(argument) is not type(after):
        return
    if type(argument) in (list, bytearray):
        argument[:] = after
    elif type(argument) in (dict, set):
        argument.clear()
        argument.update(after)
    elif hasattr(argument, "__dict__"):
        argument.__dict__.update(after.__dict__)
