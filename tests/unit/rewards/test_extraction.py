"""Which part of an answer is the program."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.extraction import defines, extract_code, parse

F = "def f(x):\n    return x\n"


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        pytest.param(f"Sure!\n```python\n{F}```\nDone.", F, id="closed"),
        pytest.param(f"```python\n{F}", F, id="unclosed"),
        pytest.param(f"```\n{F}```", F, id="untagged"),
        pytest.param(f"```Python3\n{F}```", F, id="other spelling"),
        pytest.param(f"``` python title=a.py\n{F}```", F, id="info string"),
        pytest.param(F, F, id="no fence: the whole text"),
        pytest.param("", "", id="empty"),
        pytest.param(f"```python\n{F}```\n```python\nprint(f(1))\n```", F, id="usage in a later block"),
        pytest.param(f"```python\ndef f(x): 0\n```\nBetter:\n```python\n{F}```", F, id="the last definition wins"),
        pytest.param(f"```bash\npip install f\n```\n```python\n{F}```\n```text\n1\n```", F, id="other languages"),
        pytest.param(f"```python\n```python\n{F}```", F, id="prefilled fence repeated"),
        pytest.param(f"1. Like so:\n   ```python\n   {F.replace(chr(10), chr(10) + '   ')}```", F, id="in a list"),
        pytest.param("```python\ndef f(x): return 1```", "def f(x): return 1\n", id="fence on the last line"),
        pytest.param("```python\nf = lambda x: x\n```\n```python\n1\n```", "f = lambda x: x\n", id="assignment"),
        pytest.param(
            "```python\ndef f(x):\n    return (\n```\n```\nno\n```", "def f(x):\n    return (\n", id="truncated"
        ),
        pytest.param("```python\n\n```\n", "```python\n\n```\n", id="blank block: the whole text, which won't parse"),
    ],
)
def test_extract(answer: str, expected: str) -> None:
    assert extract_code(answer, "f") == expected


def test_without_the_entry_point_the_last_block_counts() -> None:
    answer = "```python\na = 1\n```\n```python\nb = 2\n```"
    assert extract_code(answer, "f") == extract_code(answer, None) == "b = 2\n"


def test_only_other_languages_are_better_than_prose() -> None:
    assert extract_code("So:\n```pycon\na = 1\n```", None) == "a = 1\n"


def test_the_entry_point_is_taken_literally() -> None:
    assert extract_code("```python\ndef fx(): 0\n```\n```python\n1\n```", "f.") == "1\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(): 0", True),
        ("async def f(): 0", True),
        ("class f: 0", True),
        ("f = g = 1", True),
        ("a, (f, b) = 1, (2, 3)", True),
        ("f: int = 1", True),
        ("f: int", False),
        ("class A:\n    def f(self): 0", False),
        ("def g():\n    f = 1", False),
        ("f(1)", False),
    ],
)
def test_defines(code: str, expected: bool) -> None:
    assert defines(ast.parse(code), "f") is expected


@pytest.mark.parametrize(
    "code",
    ["def", "a = '\ud800'", "x\0y", "(" * 5000, "-" * 100_000 + "1", "x = " + "9" * 5000, "\u00a0x = 1", "  a\n b"],
)
def test_hopeless_text_does_not_parse(code: str) -> None:
    assert parse(code) is None


def test_parsing_never_warns() -> None:
    assert parse(r"a = '\d'; b = 1 is 1") is not None  # the test run turns warnings into errors


@settings(deadline=None, database=None)
@given(st.text(alphabet="`ab \n:=def", max_size=80), st.one_of(st.none(), st.text(max_size=5)))
def test_any_text_gives_a_program(answer: str, entry_point: str | None) -> None:
    assert isinstance(extract_code(answer, entry_point), str)
