"""What Python source defines and needs."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.syntax import bound_names, defines, has_method, missing_names, parse


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(): 0", True),
        ("async def f(): 0", True),
        ("class f: 0", True),
        ("f = g = 1", True),
        ("a, (f, b) = 1, (2, 3)", True),
        ("f: int = 1", True),
        ("from math import gcd as f", True),
        ("import f.g", True),
        ("import g.f", False),
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
    assert missing_names(code) == set()


def test_parsing_never_warns() -> None:
    code = r"a = '\d'; b = 1 is 1"
    assert parse(code) is not None  # the test run turns warnings into errors
    assert missing_names(code) == set()


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("def f(x):\n    return g(x) + math.pi + y", {"g", "math", "y"}),
        ("import math\ny = 1\ndef f(x):\n    z = 1\n    return math.pi + y + z", set()),
        ("def f(x):\n    return [i for i in range(x)] + k", {"k"}),
        ("class A(B):\n    c = D\n    def m(self): return self.e + c", {"B", "D", "c"}),
        ("def f():\n    global n\n    n = 1\ndef g():\n    return n", set()),
        ("x: List[int] = f", {"List", "f"}),
        ("print(__name__)", set()),
    ],
)
def test_missing_names(code: str, expected: set[str]) -> None:
    assert missing_names(code) == expected


def test_methods() -> None:
    tree = ast.parse("class A:\n    def m(self): 0\nclass B:\n    async def n(self): 0\ndef m(): 0")
    assert [has_method(tree, *names) for names in (("A", "m"), ("B", "n"), ("B", "m"), ("m", "m"))] == [
        True,
        True,
        False,
        False,
    ]
    assert bound_names(tree) == {"A", "B", "m"}


@given(st.text(alphabet="ab=():.,\n defclas'\"\\\0\ud800", max_size=60))
def test_any_text(code: str) -> None:
    tree = parse(code)
    assert (tree is None) or bound_names(tree) is not None
    assert isinstance(missing_names(code), set)
