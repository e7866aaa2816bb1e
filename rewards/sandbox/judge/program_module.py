"""The program as a module that a test file imports."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from rewards.sandbox.judge.connection import Connection


class ProgramModule(ModuleType):
    """Looks names up in the program at the moment they are asked for."""

    def __init__(self, name: str, connection: Connection) -> None:
        super().__init__(name)
        self.__dict__["_keel_connection"] = connection

    def __getattr__(self, name: str) -> Any:
        connection: Connection = self.__dict__["_keel_connection"]
        if name == "__all__":
            names = connection.ask("public")
            return [item for item in names if type(item) is str and not hasattr(builtins, item)]
        if name.startswith("__"):
            raise AttributeError(name)
        found = connection.find([name])
        if name not in found:
            raise AttributeError(f"the program has no {name!r}")
        return found[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__"):
            super().__setattr__(name, value)
        else:
            self.__dict__["_keel_connection"].ask("assign", None, name, value)

    def __delattr__(self, name: str) -> None:
        self.__dict__["_keel_connection"].ask("remove", None, name)


class Imports:
    """The ``__import__`` of a test file: the program's module, pytest's stand-in, and the judge's own library."""

    def __init__(self, module: ProgramModule, stand_ins: Mapping[str, ModuleType]) -> None:
        self._program = module.__name__
        self.was_used = False  #: whether the program was imported
        self._modules = {module.__name__: module, **stand_ins}
        for name, value in self._modules.items():
            sys.modules.setdefault(name, value)  # for unittest.mock.patch, which imports by itself

    def __call__(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Sequence[str] | None = (), level: int = 0
    ) -> Any:
        self.was_used |= name == self._program
        if name in self._modules:  # `from .solution import f`, too
            return self._modules[name]
        return builtins.__import__(name, globals, locals, fromlist or (), level)
