"""Checks of the embedded Python task set (grpo/data/builtin/python_tasks.jsonl).

The reference solutions and the tests in the file are the project's own, so they
are run with a plain ``exec`` here; model output never goes through this path.
"""

import ast
import json
from collections import Counter
from pathlib import Path

import pytest

PATH = Path(__file__).resolve().parents[3] / "grpo" / "data" / "builtin" / "python_tasks.jsonl"
KEYS = ["id", "level", "prompt", "entry_point", "signature", "tests", "solution"]
CONSTANTS = ["None", "0", '""', "[]", "True", "False"]


def load_rows():
    with PATH.open(encoding="utf-8") as handle:
        return [json.loads(line) for line in handle]


ROWS = load_rows()
each_task = pytest.mark.parametrize("row", ROWS, ids=[str(row.get("id")) for row in ROWS])


def parse_signature(row):
    """The function node of the row's signature line."""
    module = ast.parse(row["signature"] + "\n    pass\n")
    assert len(module.body) == 1
    node = module.body[0]
    assert isinstance(node, ast.FunctionDef)
    return node


def argument_names(row):
    return [arg.arg for arg in parse_signature(row).args.args]


def failed_tests(source, tests):
    """The tests that do not pass after ``source`` has run, each in a fresh namespace."""
    failed = []
    for test in tests:
        namespace = {}
        try:
            exec(source, namespace)
            exec(test, namespace)
        except Exception:  # noqa: BLE001 - a wrong body may fail in any way
            failed.append(test)
    return failed


def test_file_has_enough_rows():
    assert len(ROWS) >= 150


@pytest.mark.parametrize("key", ["id", "prompt", "entry_point", "solution"])
def test_values_are_unique(key):
    repeated = [value for value, n in Counter(row[key] for row in ROWS).items() if n > 1]
    assert repeated == []


def test_all_levels_are_present():
    assert {row["level"] for row in ROWS} == {1, 2, 3}


@each_task
def test_keys_and_types(row):
    assert list(row) == KEYS
    assert type(row["level"]) is int and row["level"] in (1, 2, 3)
    for key in ("id", "prompt", "entry_point", "signature", "solution"):
        assert isinstance(row[key], str) and row[key].strip()
    assert isinstance(row["tests"], list) and 4 <= len(row["tests"]) <= 6
    assert all(isinstance(test, str) for test in row["tests"])
    assert len(set(row["tests"])) == len(row["tests"])


@each_task
def test_signature_and_prompt_agree(row):
    node = parse_signature(row)
    assert node.name == row["entry_point"]
    assert argument_names(row)
    call = row["signature"].removeprefix("def ").removesuffix(":")
    assert f"`{call}`" in row["prompt"]
    assert "\n" not in row["prompt"]
    assert 6 <= len(row["prompt"].split()) <= 22


@each_task
def test_solution_and_tests_compile(row):
    assert row["solution"].startswith(row["signature"] + "\n")
    compile(row["solution"], row["id"], "exec")
    for test in row["tests"]:
        assert "\n" not in test
        module = ast.parse(test)
        assert len(module.body) == 1 and isinstance(module.body[0], ast.Assert)
        names = {n.id for n in ast.walk(module) if isinstance(n, ast.Name)}
        assert row["entry_point"] in names


@each_task
def test_reference_solution_passes(row):
    assert failed_tests(row["solution"], row["tests"]) == []


@each_task
def test_trivial_bodies_fail(row):
    survivors = [
        body
        for body in CONSTANTS + argument_names(row)
        if not failed_tests(f"{row['signature']}\n    return {body}\n", row["tests"])
    ]
    assert survivors == []


HELPFUL = [
    json.loads(line) for line in PATH.with_name("helpful_prompts.jsonl").read_text(encoding="utf-8").splitlines()
]


def test_helpful_prompts_are_short_and_all_different():
    assert len(HELPFUL) >= 60
    for key in ("id", "prompt"):
        assert len({row[key] for row in HELPFUL}) == len(HELPFUL)
    for row in HELPFUL:
        assert list(row) == ["id", "level", "prompt", "domain"]
        assert row["level"] in (1, 2, 3)
        assert row["domain"] == "helpfulness"
        assert 4 <= len(row["prompt"].split()) <= 30
        assert row["prompt"].isascii()
