"""What every form does before its first test: the task's own code first, then the program's."""

from __future__ import annotations

import ast
import contextlib
import importlib
from collections.abc import Collection, Iterable
from types import ModuleType
from typing import Any

from rewards.sandbox.judge.connection import Connection, GuestGone
from rewards.sandbox.judge.hoist import SNAPSHOT, snapshot
from rewards.sandbox.judge.lending import TESTS
from rewards.sandbox.judge.names import module_names


class TaskFault(Exception):
    """The task's own code does not work, whatever the program."""


def describe(error: BaseException) -> str:
    """Name and text of an exception."""
    try:
        return f"{type(error).__name__}: {error}".rstrip(": ")
    except Exception:  # noqa: BLE001 - its own __str__
        return type(error).__name__


def fresh_namespace(task: dict[str, Any], sources: Iterable[str]) -> dict[str, Any]:
    """A namespace for tests: the modules they name, what the preamble defines. Raises TaskFault."""
    namespace = ModuleType(TESTS).__dict__
    namespace[SNAPSHOT] = snapshot
    for name, module in module_names(sources).items():
        try:
            namespace[name] = importlib.import_module(module)
        except ImportError:
            continue  # then the program may define it, or the test fails
    run_own(task["preamble"], "<preamble>", namespace)
    return namespace


def run_own(source: str, name: str, namespace: dict[str, Any]) -> None:
    """Run code of the task in the judge. Raises TaskFault."""
    try:
        exec(compile(source, name, "exec", dont_inherit=True), namespace)
    except Exception as error:
        raise TaskFault(f"{name}: {describe(error)}") from error


def run_setup(task: dict[str, Any], namespace: dict[str, Any]) -> bool:
    """Run the task's setup; False if it needs names of the program. Raises TaskFault."""
    try:
        exec(compile(task["setup"], "<setup>", "exec", dont_inherit=True), namespace)
    except NameError:
        return False
    except Exception as error:
        raise TaskFault(f"<setup>: {describe(error)}") from error
    return True


def load_program(
    task: dict[str, Any], connection: Connection, namespace: dict[str, Any], names: Collection[str] = ()
) -> bool:
    """Have the guest run preamble and source, and take those of `names` that it defines; False if the source raised.

    Raises:
        TaskFault: the preamble does not run. The guest has not seen the source by then.
        GuestGone: the source ended the process.
    """
    if task["preamble"]:
        try:
            connection.ask("execute", None, task["preamble"], "<preamble>")
            connection.structures = _classes(namespace)
            connection.ask("structures")
        except Exception as error:
            raise TaskFault(f"<preamble>: {describe(error)}") from error
    if _only_imports(task["setup"]):
        with contextlib.suppress(Exception):  # the judge has run it: here it is a courtesy
            connection.ask("execute", None, task["setup"], "<setup>")
    try:
        namespace.update(connection.load(task["source"], sorted(names)))
    except MemoryError:
        connection.tally.out_of_memory()
        return False
    except GuestGone:
        raise
    except BaseException as error:  # noqa: BLE001 - SystemExit of the program, too
        connection.tally.raised(describe(error))
        return False
    return True


def _only_imports(setup: str) -> bool:
    """Then it holds nothing that the program must not see, and may rely on."""
    return bool(setup.strip()) and all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(setup).body)


def _classes(namespace: dict[str, Any]) -> dict[str, type]:
    return {
        name: value
        for name, value in namespace.items()
        if isinstance(value, type) and value.__module__ == TESTS and not issubclass(value, BaseException)
    }
