"""Form "check": the task's ``check(candidate)``, as in HumanEval and in LeetCode's sets. One test."""

from __future__ import annotations

from typing import Any

from rewards.sandbox.judge.asserts import run_test
from rewards.sandbox.judge.connection import Connection
from rewards.sandbox.judge.hoist import compile_tests
from rewards.sandbox.judge.names import program_names
from rewards.sandbox.judge.preparation import TaskFault, describe, fresh_namespace, load_program, run_setup

_CANDIDATE = "candidate"


def judge_check(task: dict[str, Any], connection: Connection) -> None:
    """Call `check` with what the entry point evaluates to in the program."""
    entry_point: str = task["entry_point"] or ""
    connection.tally.total(1)
    try:
        namespace = fresh_namespace(task, [task["test"], task["setup"]])
        run_setup(task, namespace)
        names = program_names([task["test"]], None, namespace) - {"check", _CANDIDATE}
        code = compile_tests(task["test"], "<test>", names | {_CANDIDATE})
        call = compile(f"check({_CANDIDATE})", "<test>", "exec", dont_inherit=True)
        compile(entry_point, "<entry point>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError) as error:
        raise TaskFault(f"test: {describe(error)}") from error
    own = set(namespace)
    if not load_program(task, connection, namespace, names - own):
        return
    helpers = namespace.keys() - own
    try:
        candidate = connection.ask("evaluate", None, entry_point)
    except Exception as error:  # noqa: BLE001 - most often a NameError: the program does not define it
        connection.tally.failed(0, describe(error))
        return
    try:
        exec(code, namespace)
    except Exception as error:
        if not helpers:
            raise TaskFault(f"test: {describe(error)}") from error
        connection.tally.failed(0, describe(error))
        return
    namespace[_CANDIDATE] = candidate
    if entry_point.isidentifier():
        namespace.setdefault(entry_point, candidate)
    run_test(connection, 0, call, namespace)
