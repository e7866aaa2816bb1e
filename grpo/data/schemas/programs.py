"""Sets whose tests are inputs and outputs: APPS, TACO, SYNTHETIC-1. Of a whole program, or of one function's calls."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import cast

from grpo.config import DataConfig
from grpo.data.fields import LeftOut, Row, content_id, decoded, describe, identifier, optional_text, required_text
from grpo.data.schemas.common import CODE, MATH, fenced, make_task, with_answer
from grpo.errors import DataError
from grpo.records import Task

# Phrases by which statements say that a judge program compares, not the text of the output.
_SEVERAL_RIGHT = re.compile(
    r"\b(?:print|output|return|find|report|write) any(?: one)?(?: of (?:them|these|the))?\b"
    r"|\bany of (?:them|these) (?:is|are|will be) (?:accepted|correct|fine)"
    r"|\b(?:any|multiple|several) (?:valid |correct |possible |optimal )*(?:answers?|solutions?|outputs?)"
    r" (?:is|are|will be|may be|can be) (?:accepted|allowed|acceptable|correct|fine)"
    r"|\b(?:there are|if there (?:are|exist)) (?:multiple|several|many) (?:\w+ )?(?:answers|solutions|ways)"
    r"[^.]{0,40}\bany\b",
    re.IGNORECASE,
)
#: Reasons under which sound rows are left out.
NO_TESTS, SPECIAL_JUDGE = "no test cases", "several outputs are right, and no judge comes with the row"


def apps_task(row: Row, config: DataConfig) -> Task:
    """Read a row of APPS: problem_id, question, input_output (JSON: inputs, outputs, maybe fn_name), starter_code.

    Source: Hendrycks et al. 2021, https://arxiv.org/abs/2105.09938.

    Raises:
        DataError: as `keel_task`.
        LeftOut: there are no test cases, or the statement says that several outputs are right.
    """
    return _tested_task(row, config, f"apps-{identifier(row, 'problem_id')}")


def taco_task(row: Row, config: DataConfig) -> Task:
    """Read a row of TACO: APPS's fields, without an id of its own, which is made from the question.

    Source: Li et al. 2023, https://arxiv.org/abs/2312.14852.

    Raises:
        DataError, LeftOut: as `apps_task`.
    """
    return _tested_task(row, config, content_id("taco", required_text(row, "question")))


def synthetic1_task(row: Row, config: DataConfig) -> Task:
    """Read a row of SYNTHETIC-1 or of a set in its layout: problem_id, prompt, verification_info.

    `verification_info` is an object, or text of one: {language, test_cases: [{input, output, type, fn_name}]} for
    code, {ground_truth} for mathematics. Types are stdin_stdout (the default) and function_call.

    Source: https://huggingface.co/datasets/PrimeIntellect/SYNTHETIC-1.

    Raises:
        DataError: as `keel_task`.
        LeftOut: no test cases, another language than Python, or another kind of verification.
    """
    info = decoded(row, "verification_info")
    if not isinstance(info, Mapping):
        raise DataError(f"field 'verification_info': expected an object, found {describe(info)}")
    details, prompt = cast(Row, info), required_text(row, "prompt")
    task_id = identifier(row, "problem_id") if row.get("problem_id") is not None else content_id("synthetic1", prompt)
    truth = details.get("ground_truth")
    if truth is not None and "test_cases" not in details:
        return make_task(config, task_id=task_id, prompt=prompt, reference=with_answer(str(truth)), domain=MATH)
    if "test_cases" not in details:
        raise LeftOut("a kind of verification other than test cases or a known answer")
    language = details.get("language") or "python"
    if str(language).lower() not in ("python", "python3"):
        raise LeftOut("a language other than Python")
    if _SEVERAL_RIGHT.search(prompt):
        raise LeftOut(SPECIAL_JUDGE)
    return make_task(config, task_id=task_id, prompt=prompt, reference=_typed_cases(details), domain=CODE)


def _tested_task(row: Row, config: DataConfig, task_id: str) -> Task:
    question, starter = required_text(row, "question").strip(), optional_text(row, "starter_code") or ""
    if row.get("input_output") in (None, "", "{}", "[]"):
        raise LeftOut(NO_TESTS)
    found = decoded(row, "input_output")
    if not isinstance(found, Mapping):
        raise DataError(f"field 'input_output': expected an object, found {describe(found)}")
    tests = cast(Row, found)
    inputs, outputs = _list(tests, "inputs"), _list(tests, "outputs")
    name = optional_text(tests, "fn_name")
    if len(inputs) != len(outputs):
        raise DataError(f"field 'input_output': {len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        raise LeftOut(NO_TESTS)
    if _SEVERAL_RIGHT.search(question):
        raise LeftOut(SPECIAL_JUDGE)
    if starter.strip():
        question = f"{question}\n\nUse this starter code:\n\n{fenced(starter)}"
    elif name:
        question = f"{question}\n\nWrite a function named `{name}`."
    else:
        question = f"{question}\n\nWrite a program that reads from standard input and writes to standard output."
    reference = _calls(name, inputs, outputs) if name else _stdin(inputs, outputs)
    return make_task(config, task_id=task_id, prompt=question, reference=reference, domain=CODE)


def _stdin(inputs: Sequence[object], outputs: Sequence[object]) -> dict[str, object]:
    """Inputs and outputs are texts; some rows have them as lists of lines."""
    pairs = zip(inputs, outputs, strict=True)
    return {"form": "stdin", "cases": [{"input": _text(i, "inputs"), "output": _text(o, "outputs")} for i, o in pairs]}


def _calls(name: str, inputs: Sequence[object], outputs: Sequence[object]) -> dict[str, object]:
    """Each input is the list of arguments of one call.

    Many rows wrap what a call returns in a list of one, and do not say so. A function of which every answer is a list
    of one is far less common than that habit, so where all outputs are, they are unwrapped.
    """
    answers = [cast("list[object]", o) for o in outputs if isinstance(o, list) and len(cast("list[object]", o)) == 1]
    expected = [answer[0] for answer in answers] if len(answers) == len(outputs) else list(outputs)
    for value in inputs:
        if not isinstance(value, list):
            raise DataError(f"field 'inputs': a call's arguments must be a list, found {describe(value)}")
    cases = [{"args": args, "expected": answer} for args, answer in zip(inputs, expected, strict=True)]
    return {"form": "calls", "entry_point": name, "cases": cases}


def _typed_cases(details: Row) -> dict[str, object]:
    cases = _list(details, "test_cases")
    if not cases:
        raise LeftOut(NO_TESTS)
    if not all(isinstance(case, Mapping) for case in cases):
        raise DataError("field 'test_cases': expected a list of objects")
    rows = cast("list[Row]", cases)
    names = {case.get("fn_name") or details.get("fn_name") for case in rows if case.get("type") == "function_call"}
    kinds = {case.get("type") or "stdin_stdout" for case in rows}
    inputs, outputs = [case.get("input") for case in rows], [case.get("output") for case in rows]
    if kinds == {"stdin_stdout"}:
        return _stdin(inputs, outputs)
    if kinds != {"function_call"}:
        raise DataError(f"field 'type': expected stdin_stdout or function_call, found {', '.join(map(str, kinds))}")
    name = names.pop() if len(names) == 1 else None
    if not isinstance(name, str):
        raise DataError("field 'fn_name': expected one function's name for all test cases")
    pairs = zip(inputs, outputs, strict=True)
    values = [(decoded({"input": i}, "input"), decoded({"output": o}, "output")) for i, o in pairs]
    return _calls(name, [v[0] for v in values], [v[1] for v in values])


def _list(row: Row, name: str) -> list[object]:
    value = row.get(name)
    if not isinstance(value, list):
        raise DataError(f"field {name!r}: expected a list, found {describe(value)}")
    return cast("list[object]", value)


def _text(value: object, name: str) -> str:
    if isinstance(value, list):
        return "\n".join(_text(line, name) for line in cast("list[object]", value))
    if not isinstance(value, str):
        raise DataError(f"field {name!r}: expected a string or a list of lines, found {describe(value)}")
    return value
