"""Form "calls": the entry point, called with JSON arguments."""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

from typing import Any

from rewards.sandbox.judge.comparing import same_value
from rewards.sandbox.judge.connection import Connection, GuestGone
from rewards.sandbox.judge.preparation import TaskFault, describe, fresh_namespace, load_program


def judge_calls(task: dict[str, Any], connection: Connection) -> None:
    """Every case counts by itself."""
    tally, cases = connection.tally, task["cases"]
    tally.total(len(cases))
    for case in cases:
        if type(case.get("args")) is not list or "expected" not in case:
            raise TaskFault("a case is {'args': list, 'expected': value}")
    try:
        compile(task["entry_point"] or "", "<entry point>", "eval", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        raise TaskFault(f"entry point: {describe(error)}") from error
    if not load_program(task, connection, fresh_namespace(task, [])):
        return
    for index, case in enumerate(cases):
        try:
            # Evaluated for each case: `Solution().method` gets an object of its own, as it would from the site.
            function = connection.ask("evaluate", None, task["entry_point"])
            if not callable(function):
                raise TypeError(f"{task['entry_point']} is not a function")
            value = function(*case["args"])
        except GuestGone:
            raise
        except MemoryError:
            tally.out_of_memory()
            tally.failed(index, "MemoryError")
        except BaseException as error:  # noqa: BLE001 - SystemExit of the program, too
            tally.failed(index, describe(error))
        else:
            if same_value(value, case["expected"], task["float_tolerance"]):
                tally.passed(index)
            else:
                tally.failed(index, f"case {index}: {_short(value)}, not {_short(case['expected'])}")


def _short(value: Any) -> str:
    kind = type(value)
    return repr(value)[:100] if kind in (int, float, str, bool, list, tuple, dict, type(None)) else f"a {kind.__name__}"
