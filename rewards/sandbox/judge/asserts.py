"""Form "asserts": every statement counts by itself."""

from __future__ import annotations

from types import CodeType
from typing import Any

from rewards.sandbox.judge.connection import Connection, GuestGone
from rewards.sandbox.judge.hoist import compile_tests
from rewards.sandbox.judge.names import program_names
from rewards.sandbox.judge.preparation import (
    TaskFault,
    describe,
    fresh_namespace,
    load_program,
    run_setup,
)


def judge_asserts(task: dict[str, Any], connection: Connection) -> None:
    """Run the tests one by one; one that does not pass does not stop the later ones."""
    tally = connection.tally
    tests: list[str] = task["tests"]
    tally.total(len(tests))
    try:
        namespace = fresh_namespace(task, [*tests, task["setup"]])
        is_set_up = run_setup(task, namespace)
        names = program_names([*tests, "" if is_set_up else task["setup"]], task["entry_point"], namespace)
        codes = [compile_tests(test, f"<test {index}>", names) for index, test in enumerate(tests)]
    except (SyntaxError, ValueError, RecursionError) as error:
        raise TaskFault(f"test: {describe(error)}") from error
    if not load_program(task, connection, namespace, names):
        return
    if not is_set_up:
        try:
            exec(compile(task["setup"], "<setup>", "exec", dont_inherit=True), namespace)
        except Exception as error:  # noqa: BLE001 - it needs what the program should have defined
            tally.raised(f"setup: {describe(error)}")
            return
    for index, code in enumerate(codes):
        run_test(connection, index, code, namespace)


def run_test(connection: Connection, index: int, code: CodeType, namespace: dict[str, Any]) -> None:
    """Run one test and tell the pool. Raises GuestGone if there is nobody left to test."""
    try:
        exec(code, namespace)
    except GuestGone:
        raise
    except MemoryError:
        connection.tally.out_of_memory()
        connection.tally.failed(index, "MemoryError")
    except BaseException as error:  # noqa: BLE001 - SystemExit of the program, too
        connection.tally.failed(index, describe(error))
    else:
        if connection.gone:  # a test that swallows everything has not passed
            raise GuestGone(connection.gone)
        connection.tally.passed(index)
