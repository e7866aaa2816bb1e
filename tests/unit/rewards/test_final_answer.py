"""Final answers out of solutions."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.final_answer import last_line, last_number, marked_answer, number, plain
from rewards.thought import after_thought


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So \boxed{42}.", "42"),
        (r"\boxed{1} no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{1} and \boxed{2", "1"),
        (r"\fbox{7}", "7"),
        (r"\boxed {x_{1}}", "x_{1}"),
        (r"\boxed{}", None),
        ("He has 3 apples.\n#### 1,234\n", "1,234"),
        ("<answer> 12\n</answer>", "12"),
        ("The answer is 12.5. I am sure.", "12.5"),
        ("The final answer is: **C**", "C"),
        ("Answer: $x = 3$", "$x = 3$"),
        ("The answer is yes", "yes"),
        ("#### 5\nThe answer is 6. \\boxed{7}", "7"),
        ("The answers are many", None),
        ("unanswer: 5", None),
        ("", None),
    ],
)
def test_marked(text: str, expected: str | None) -> None:
    assert marked_answer(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,234.5", Fraction("1234.5")),
        ("-3", -3),
        ("−4", -4),
        ("- 5", -5),
        ("1e-3", Fraction(1, 1000)),
        ("3/4", Fraction(3, 4)),
        (r"\frac{3}{4}", Fraction(3, 4)),
        (r"-\dfrac12", Fraction(-1, 2)),
        ("$5", 5),
        ("-$5", -5),
        (r"\$1{,}000", 1000),
        ("5%", 5),
        ("18 dollars", 18),
        ("x = -7.", -7),
        (".5", Fraction(1, 2)),
        ("3.", 3),
        (r"\text{5 apples}", 5),
        ("10-5", None),
        ("1,2", None),
        ("2.5.1", None),
        ("v2", None),
        ("3/0", None),
        ("1e999999", None),
        ("9" * 5000, None),
        ("nan", None),
        ("", None),
    ],
)
def test_number(text: str, expected: Fraction | int | None) -> None:
    assert number(text) == expected


@given(st.fractions(max_denominator=10**6))
def test_a_fraction_is_read_exactly(value: Fraction) -> None:
    assert number(f"It is {value}") == value


@given(st.integers(-(10**15), 10**15))
def test_thousands_are_read(value: int) -> None:
    assert number(f"{value:,} m") == value


def test_last_things() -> None:
    assert last_number("From 3 to 4,500 or \\frac{1}{2}, v9") == "1/2"
    assert last_number("none") is None
    assert last_line("a\n b \n\n") == "b"
    assert last_line(" \n") is None
    assert after_thought("<think>1</think>2</think>3") == "3"
    assert after_thought("<think>1") == "<think>1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" $x$. ", "x"),
        (r"\text{blue  sky}", "blue sky"),
        (r"\left( 1,\; 2 \right)", "( 1, 2 )"),
        (r"\leftarrow", r"\leftarrow"),
        ("**B**", "B"),
        (r"\(y\)", "y"),
    ],
)
def test_plain(text: str, expected: str) -> None:
    assert plain(text) == expected


@given(st.one_of(st.text(), st.text(alphabet="\\boxed{}#answer is:0123,./-$eE%", max_size=80)))
def test_any_text(text: str) -> None:
    for read in (marked_answer, number, last_number, last_line, plain, after_thought):
        read(text)
