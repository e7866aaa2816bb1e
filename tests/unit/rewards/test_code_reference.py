"""What the reward `unit_tests` makes of a task's reference."""

from __future__ import annotations

from typing import Any

import pytest

from rewards.code_reference import MalformedReferenceError, read_tests
from rewards.sandbox.program import Form, Program

CALL = {"args": [1], "expected": None}


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        pytest.param(
            {"tests": ["assert f(1)"], "setup": "import math", "entry_point": "f"},
            Program(source="", tests=("assert f(1)",), setup="import math", entry_point="f"),
            id="asserts",
        ),
        pytest.param({"tests": ("a", "b"), "setup": None}, Program(source="", tests=("a", "b")), id="bare asserts"),
        pytest.param(
            {"form": "check", "test": "def check(c): pass", "entry_point": "Solution().f", "preamble": "import re"},
            Program(
                source="",
                form=Form.CHECK,
                test="def check(c): pass",
                entry_point="Solution().f",
                preamble="import re",
            ),
            id="check",
        ),
        pytest.param(
            {"form": "test_file", "test": "from a.b import f", "module": "a.b"},
            Program(source="", form=Form.TEST_FILE, test="from a.b import f", module="a.b"),
            id="test_file",
        ),
        pytest.param(
            {"form": "test_file", "test": "x", "module": ""},
            Program(source="", form=Form.TEST_FILE, test="x"),
            id="module",
        ),
        pytest.param(
            {"form": "stdin", "cases": [{"input": "1", "output": "2", "type": "stdin_stdout"}]},
            Program(source="", form=Form.STDIN, cases=({"input": "1", "output": "2"},)),
            id="stdin",
        ),
        pytest.param(
            {"form": "calls", "entry_point": "f", "cases": [CALL]},
            Program(source="", form=Form.CALLS, entry_point="f", cases=(CALL,)),
            id="calls",
        ),
    ],
)
def test_forms(reference: dict[str, Any], expected: Program) -> None:
    assert read_tests(reference) == expected


@pytest.mark.parametrize(
    "reference",
    [
        {},
        {"tests": []},
        {"tests": None},
        {"answer": "4"},
        {"form": "check", "test": "", "entry_point": "f"},
        {"form": "test_file"},
        {"form": "stdin", "cases": []},
        {"form": "calls", "cases": None},
    ],
)
def test_no_tests(reference: dict[str, Any]) -> None:
    assert read_tests(reference) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ({"form": "doctest", "tests": ["x"]}, "form='doctest': there are asserts, check, test_file, stdin, calls"),
        ({"tests": "assert f(1)"}, "tests: str, no list"),
        ({"tests": [1]}, "tests: not all"),
        ({"tests": ["x"], "setup": 1}, "setup: int"),
        ({"tests": ["x"], "preamble": []}, "preamble: list"),
        ({"tests": ["x"], "entry_point": 1}, "entry_point: int"),
        ({"form": "check", "test": ["x"], "entry_point": "f"}, "test: list"),
        ({"form": "check", "test": "x"}, "entry_point: form 'check' needs one"),
        ({"form": "test_file", "test": "x", "module": "../x"}, "module='../x'"),
        ({"form": "stdin", "cases": {"input": "1"}}, "cases: dict, no list"),
        ({"form": "stdin", "cases": [{"input": "1"}]}, r"cases\[0\]: needs input, output"),
        ({"form": "stdin", "cases": [{"input": "1", "output": "2"}, {"input": 1, "output": "2"}]}, r"cases\[1\]"),
        ({"form": "stdin", "cases": ["1"]}, r"cases\[0\]"),
        ({"form": "calls", "cases": [CALL]}, "entry_point: form 'calls' needs one"),
        ({"form": "calls", "entry_point": "f", "cases": [{"args": [1]}]}, r"cases\[0\]: needs args, expected"),
        ({"form": "calls", "entry_point": "f", "cases": [{"args": 1, "expected": 1}]}, r"cases\[0\]"),
    ],
)
def test_malformed(reference: dict[str, Any], message: str) -> None:
    with pytest.raises(MalformedReferenceError, match=f"^{message}"):
        read_tests(reference)
