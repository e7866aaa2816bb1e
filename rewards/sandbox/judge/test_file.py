"""Form "test_file": a pytest- or unittest-style file that imports the program."""

from __future__ import annotations

import ast
import builtins
from typing import Any

from rewards.sandbox.judge.collecting import Skipped, TestCase, collect
from rewards.sandbox.judge.connection import Connection, GuestGone
from rewards.sandbox.judge.hoist import compile_tests
from rewards.sandbox.judge.names import tree_of
from rewards.sandbox.judge.preparation import TaskFault, describe, fresh_namespace, load_program, run_setup
from rewards.sandbox.judge.program_module import Imports, ProgramModule
from rewards.sandbox.judge.pytest_api import make_module


def judge_test_file(task: dict[str, Any], connection: Connection) -> None:
    """Import the file, run its tests one by one."""
    tally, module = connection.tally, task["module"]
    try:
        tree = tree_of(task["test"])
        code = compile_tests(task["test"], "<tests>", _imported(tree, module))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise TaskFault(f"test: {describe(error)}") from error
    tally.total(_count(tree))
    namespace = fresh_namespace(task, [])
    run_setup(task, namespace)
    imports = Imports(ProgramModule(module, connection), {"pytest": make_module()})
    namespace["__builtins__"] = {**vars(builtins), "__import__": imports}
    if not load_program(task, connection, namespace):
        return
    try:
        exec(code, namespace)
    except GuestGone:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) or not imports.was_used:
            raise TaskFault(f"test: {describe(error)}") from error
        tally.raised(describe(error))  # most often an ImportError: the program does not define what is tested
        return
    tests, close = collect(namespace)
    tally.total(len(tests))
    num_skipped = sum(_run(test, index, connection) for index, test in enumerate(tests))
    try:
        close()
    except Exception as error:  # noqa: BLE001 - the end of a fixture, which called the program
        tally.failed(len(tests) - 1, describe(error))
    tally.total(len(tests) - num_skipped)


def _run(test: TestCase, index: int, connection: Connection) -> bool:
    """Run one test; whether it was skipped. Raises GuestGone."""
    tally = connection.tally
    try:
        test.run()
    except Skipped:
        return True
    except GuestGone:
        raise
    except MemoryError:
        tally.out_of_memory()
        tally.failed(index, f"{test.name}: MemoryError")
    except BaseException as error:  # noqa: BLE001 - SystemExit of the program, too
        tally.failed(index, f"{test.name}: {describe(error)}")
    else:
        if connection.gone:  # a test that swallows everything has not passed
            raise GuestGone(connection.gone)
        tally.passed(index)
    return False


def _imported(tree: ast.Module, module: str) -> set[str]:
    """Names by which the file knows the program."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == module:
            names.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            names.update(alias.asname or alias.name for alias in node.names if alias.name == module)
    return names


def _count(tree: ast.Module) -> int:
    """Test functions, as far as they can be seen without running anything."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return sum(isinstance(node, kinds) and node.name.startswith("test") for node in ast.walk(tree))
