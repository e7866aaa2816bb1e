"""The tests that a task brings, out of `Attempt.reference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from rewards.sandbox.program import Form, Program


class MalformedReferenceError(ValueError):
    """The task's own data can't be read; the message names the field."""


def read_tests(reference: Mapping[str, object]) -> Program | None:
    """The task's tests as a `Program` that still has no source; None if it brings none.

    `form` is "asserts" where it is not given. Each form reads its own fields and needs these: "asserts" `tests`;
    "check" `test` and `entry_point`; "test_file" `test`; "stdin" `cases`; "calls" `cases` and `entry_point`. Every form
    may have `preamble` and `setup`.

    Raises:
        MalformedReferenceError: tests are there, and something about them is not as `Program` says.
    """
    try:
        form = Form(str(reference.get("form") or Form.ASSERTS))
    except ValueError as error:
        raise MalformedReferenceError(f"form={reference.get('form')!r}: there are {', '.join(Form)}") from error
    field = {Form.ASSERTS: "tests", Form.CHECK: "test", Form.TEST_FILE: "test"}.get(form, "cases")
    if not reference.get(field):
        return None
    program = Program(
        source="",
        form=form,
        preamble=_text(reference, "preamble"),
        setup=_text(reference, "setup"),
        entry_point=_text(reference, "entry_point") or None,
    )
    if form in (Form.CHECK, Form.CALLS) and program.entry_point is None:
        raise MalformedReferenceError(f"entry_point: form {form.value!r} needs one")
    match form:
        case Form.ASSERTS:
            return replace(program, tests=_texts(reference))
        case Form.CHECK:
            return replace(program, test=_text(reference, "test"))
        case Form.TEST_FILE:
            return replace(program, test=_text(reference, "test"), module=_module(reference))
        case Form.STDIN:
            return replace(program, cases=_cases(reference, {"input": str, "output": str}))
        case Form.CALLS:
            return replace(program, cases=_cases(reference, {"args": list, "expected": object}))


def _text(reference: Mapping[str, object], field: str) -> str:
    value = reference.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise MalformedReferenceError(f"{field}: {type(value).__name__}, no text")
    return value


def _texts(reference: Mapping[str, object]) -> tuple[str, ...]:
    items = _sequence(reference, "tests")
    if not all(isinstance(item, str) for item in items):
        raise MalformedReferenceError("tests: not all of them are text")
    return tuple(cast("Sequence[str]", items))


def _module(reference: Mapping[str, object]) -> str:
    name = _text(reference, "module") or "solution"
    if not all(part.isidentifier() for part in name.split(".")):  # the sandbox makes a file of it
        raise MalformedReferenceError(f"module={name!r}: not the name of a module")
    return name


def _cases(reference: Mapping[str, object], kinds: Mapping[str, type]) -> tuple[Mapping[str, object], ...]:
    cases: list[Mapping[str, object]] = []
    for index, item in enumerate(_sequence(reference, "cases")):
        case = cast("Mapping[str, object]", item if isinstance(item, Mapping) else {})
        if not all(name in case and isinstance(case[name], kind) for name, kind in kinds.items()):
            raise MalformedReferenceError(f"cases[{index}]: needs {', '.join(kinds)}")
        cases.append({name: case[name] for name in kinds})
    return tuple(cases)


def _sequence(reference: Mapping[str, object], field: str) -> Sequence[object]:
    value = reference[field]
    if not isinstance(value, list | tuple):
        raise MalformedReferenceError(f"{field}: {type(value).__name__}, no list")
    return cast("Sequence[object]", value)
