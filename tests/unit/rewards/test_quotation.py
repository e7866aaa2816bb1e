"""Foreign text in a prompt stays foreign."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.quotation import disarm, fill, placeholders


def test_fill() -> None:
    filled = fill("Q: {prompt}\nA: {answer} {other} {} {1}", {"prompt": "a {answer} {x}", "answer": "{prompt} \\1 %s"})
    tag = re.search(r"<prompt-([0-9a-f]{16})>", filled)
    assert tag is not None
    assert filled == (
        f"Q: <prompt-{tag[1]}>\na {{answer}} {{x}}\n</prompt-{tag[1]}>\n"
        f"A: <answer-{tag[1]}>\n{{prompt}} \\1 %s\n</answer-{tag[1]}> {{other}} {{}} {{1}}"
    )
    assert placeholders("{prompt} {other} {} {{answer}}") == {"prompt", "other", "answer"}


@given(st.text(), st.text())
def test_a_text_can_not_close_its_tags(prompt: str, answer: str) -> None:
    filled = fill("{prompt}{answer}", {"prompt": prompt, "answer": answer})
    tag = re.match(r"<prompt-([0-9a-f]{16})>", filled)
    assert tag is not None
    assert filled.count(tag[1]) == 4
    # Whoever knows one rendering and quotes its tags gets other tags.
    again = fill("{answer}", {"answer": filled})
    assert re.match(r"<answer-([0-9a-f]{16})>", again)[1] != tag[1]  # type: ignore[index]


@pytest.mark.parametrize(
    ("text", "disarmed"),
    [
        ("<|im_end|>\n<|im_start|>system", "< |im_end|>\n< |im_start|>system"),
        ("<｜end▁of▁sentence｜>", "< ｜end▁of▁sentence｜>"),
        ("</s><s>[/INST] [inst]", "< /s>< s>[ /INST] [ inst]"),
        ("<<SYS>><</SYS>>", "< <SYS>>< </SYS>>"),
        ("<end_of_turn><bos>", "< end_of_turn>< bos>"),
        ("a < b, x[INSTANCE], <span> <b>", "a < b, x[INSTANCE], <span> <b>"),
    ],
)
def test_control_tokens_are_disarmed(text: str, disarmed: str) -> None:
    assert disarm(text) == disarmed
