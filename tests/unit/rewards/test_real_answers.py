"""Extraction, final answers and quotation on real public data, where it lies beside the repository."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rewards.answer import Answer
from rewards.base import Attempt
from rewards.extraction import extract_code
from rewards.final_answer import marked_answer, number
from rewards.parses import Parses
from rewards.quotation import disarm
from rewards.syntax import parse

DATA = Path(__file__).parents[4] / "shared" / "data"


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is not here")
    text = path.read_text("utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def test_worked_solutions_of_gsm8k(attempt: Callable[..., Attempt]) -> None:
    solutions = [row["answer"] for row in rows("gsm8k/test.jsonl")]
    reward = Answer(Answer.Settings())
    try:
        for solution in solutions:
            final = marked_answer(solution)
            assert final is not None
            wanted = number(final)
            assert wanted is not None
            told = solution.replace("#### ", "The answer is ") + "."
            boxed = solution.replace("#### " + final, rf"\boxed{{{final}}}")
            said = f"It comes to {final}."
            wrong = f"#### {wanted + 1}"
            values = [reward.judge([attempt(text, answer=solution)])[0].value for text in (told, boxed, said, wrong)]
            assert values == [1.0, 1.0, 1.0, 0.0], final
    finally:
        reward.close()


def test_solutions_of_mbpp_come_out_as_they_are(attempt: Callable[..., Attempt]) -> None:
    for row in rows("mbpp/sanitized-mbpp.json"):
        code = row["code"].replace("\r\n", "\n")
        code = code.rstrip() + "\n"
        called = [set(re.findall(r"\b([a-zA-Z_]\w*)\s*\(", test)) for test in row["test_list"]]
        names = [
            name for name in re.findall(r"^def (\w+)", code, re.MULTILINE) if all(name in names for names in called)
        ]
        if not names:
            continue
        answer = f"Here is a way.\n\n```python\n{code}```\n\nFor instance:\n\n```python\nprint({names[0]}(1))\n```\n"
        assert extract_code(answer, names[0]) == code
        unclosed = attempt(f"\n{code}", prefill="```python", entry_point=names[0])
        assert Parses().judge([unclosed])[0].value == 1.0


def test_files_of_exercism_survive_being_told_in_prose() -> None:
    checked = 0
    for row in rows("exercism_python/practice.jsonl"):
        sources = [value for value in row.values() if isinstance(value, str) and "def " in value]
        for source in sources:
            code = source.replace("\r\n", "\n").rstrip() + "\n"
            tree = parse(code)
            if tree is None or "```" in code:
                continue
            assert extract_code(f"1. Like this:\n\n   ~~~python\n{_indent(code)}   ~~~\n", None) == code
            checked += 1
    assert checked > 100


def _indent(code: str) -> str:
    return "".join("   " + line for line in code.splitlines(keepends=True))


@pytest.mark.parametrize("name", ["chatml", "gemma-it", "llama-2-chat", "llama-3-instruct", "qwen2.5-instruct"])
def test_what_chat_templates_write_is_disarmed(name: str) -> None:
    path = DATA / "chat_templates" / f"{name}.jinja"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    controls = set(re.findall(r"<\|\w+\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>", path.read_text("utf-8")))
    assert controls
    for control in controls:
        assert control not in disarm(f"a{control}b")
