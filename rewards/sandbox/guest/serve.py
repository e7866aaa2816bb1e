"""The candidate's loop: do what the judge asks for, with the program's objects, and say what came of it.

Nothing here is a secret or a defence. The program can change all of it; what it can't reach is the judge.
"""

from __future__ import annotations

import builtins
import operator
import os
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from rewards.sandbox import frames
from rewards.sandbox.guest.export import Export, Handles, Import
from rewards.sandbox.guest.streams import Printed

_MESSAGE_CHARS = 2000
_OPERATIONS: dict[str, Callable[..., Any]] = {
    name: getattr(builtins, name) for name in ("len", "iter", "next", "repr", "str", "bool", "hash", "abs", "int")
} | {name: getattr(builtins, name) for name in ("float", "round", "reversed", "divmod", "pow", "format", "dir")}


class Server:
    """Serves one judge.

    Args:
        read_fd, write_fd: descriptors to the judge.
        module: name the program goes by, beside ``__main__``.
        reserve: memory to let go of when there is none left, so that this can still be said.
    """

    def __init__(self, read_fd: int, write_fd: int, module: str, reserve: list[Any]) -> None:
        self._read_fd, self._write_fd, self._reserve = read_fd, write_fd, reserve
        self._handles, self._structures, self._declared = Handles(), dict[str, type](), set[type]()
        self._thread = threading.get_ident()
        self._module = ModuleType(module)
        self._printed = Printed()
        # dataclasses, pickle and typing look a class's module up.
        sys.modules[module] = sys.modules["__main__"] = self._module

    def run(self) -> None:
        """Serve until the judge is gone."""
        while True:
            self._answer(frames.receive(self._read_fd))

    def _answer(self, request: list[Any]) -> None:
        try:
            reply = self._perform(request)
        except MemoryError:
            reply = None
        except BaseException as error:  # noqa: BLE001 - whatever the program raises goes to the judge
            try:
                reply = self._raised(error)
            except BaseException:  # noqa: BLE001 - its own __str__, its own properties
                reply = ["!", ["T", "RuntimeError"], ["an exception that can't be described"], "", None, []]
        if reply is None:  # out of the handler: the traceback holds the frames that hold the memory
            self._reserve.clear()
            reply = ["!", ["T", "MemoryError"], [], "", None, []]
        try:
            frames.send(self._write_fd, [*reply, self._printed.take()])
        except MemoryError:
            self._reserve.clear()
            frames.send(self._write_fd, ["!", ["T", "MemoryError"], [], "", None, [], ""])

    def _perform(self, request: list[Any]) -> list[Any]:
        operation, target, args, kwargs, table = request
        values = Import(self._handles, self._structures, table, self._call_judge)
        given = [values.decode(item) for item in args]
        named = {name: values.decode(item) for name, item in kwargs.items()}
        result = self._do(operation, target, given, named)
        export = Export(self._handles, self._structures, self._declared)
        if operation in ("names", "load"):
            found = [[name, export.encode(value)] for name, value in result.items()]
            return ["=", found, export.table, []]
        value = export.encode(result)
        changed: list[Any] = []
        for index, (item, before) in enumerate(zip(given, args, strict=True)):
            if type(before) is list and before[0] in ("l", "d", "s", "B", "S"):
                after = export.encode(item)
                if before[0] == "S" or after != before:
                    changed.append([index, after])
        return ["=", value, export.table, changed]

    def _do(self, operation: str, target: int | None, args: list[Any], kwargs: dict[str, Any]) -> Any:
        names = self._module.__dict__
        if operation == "call":
            return self._handles[target or 0](*args, **kwargs)
        if operation == "get":
            return getattr(self._handles[target or 0], args[0])
        if operation == "set":
            return setattr(self._handles[target or 0], args[0], args[1])
        if operation == "apply":
            name = args[0]
            function = _OPERATIONS.get(name) or getattr(operator, name)
            return function(*args[1:])
        if operation == "names":
            return {name: names[name] for name in args if name in names}
        if operation == "public":
            return names.get("__all__") or [name for name in names if not name.startswith("_")]
        if operation == "declare":
            self._declared.update(self._handles[number] for number in args)
            return None
        if operation == "assign":
            names[args[0]] = args[1]
            return None
        if operation == "remove":
            names.pop(args[0], None)
            return None
        if operation == "evaluate":
            return eval(args[0], names)
        if operation in ("execute", "load"):
            exec(compile(args[0], args[1], "exec", dont_inherit=True), names)
            return {name: names[name] for name in args[2:] if name in names}
        if operation == "structures":
            found = {name: value for name, value in names.items() if isinstance(value, type)}
            self._structures.update({n: v for n, v in found.items() if v.__module__ == names["__name__"]})
            return None
        raise RuntimeError(f"unknown operation {operation!r}")

    def _raised(self, error: BaseException) -> list[Any]:
        export = Export(self._handles, self._structures, self._declared)
        kind = export.encode(type(error))
        try:
            arguments = [export.encode(argument) for argument in error.args]
        except Exception:  # noqa: BLE001 - evil arguments
            arguments = []
        return ["!", kind, arguments, str(error)[:_MESSAGE_CHARS], self._handles.number(error), export.table]

    def _call_judge(self, operation: str, number: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Ask for something of an object of the tests; serves the judge's own requests until the answer is there."""
        if threading.get_ident() != self._thread:
            raise RuntimeError("functions of the tests can only be called from the main thread")
        export = Export(self._handles, self._structures, self._declared)
        named = {name: export.encode(value) for name, value in kwargs.items()}
        message = ["?", operation, number, [export.encode(value) for value in args], named, export.table]
        frames.send(self._write_fd, [*message, self._printed.take()])
        while True:
            answer = frames.receive(self._read_fd)
            if answer[0] == "=":
                return Import(self._handles, self._structures, answer[2], self._call_judge).decode(answer[1])
            if answer[0] == "!":
                kind = getattr(builtins, answer[1], RuntimeError)
                if isinstance(answer[3], int):
                    raise self._handles[answer[3]]
                raise kind(*answer[2])
            self._answer(answer)


def serve(read_fd: int, write_fd: int, module: str, reserve: list[Any]) -> None:
    """Be a candidate until the judge is gone. Does not return."""
    try:
        Server(read_fd, write_fd, module, reserve).run()
    except (EOFError, OSError, frames.FrameError):
        pass
    finally:
        os._exit(0)
