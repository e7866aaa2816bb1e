"""Pure parts of the judge: names, order of evaluation, comparison, pytest's stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.sandbox.judge.comparing import same_output, same_value
from rewards.sandbox.judge.hoist import SNAPSHOT, compile_tests, snapshot
from rewards.sandbox.judge.names import module_names, program_names
from rewards.sandbox.judge.pytest_api import Approx, raises


def passes(test: str, function: Callable[..., Any], **names: Any) -> bool:
    try:
        exec(compile_tests(test, "<test>", {"f"}), {"f": function, SNAPSHOT: snapshot, **names})
    except AssertionError:
        return False
    return True


def empties(x: list[int]) -> list[int]:
    x.clear()
    return []


@pytest.mark.parametrize(
    "test",
    [
        "x = [2, 1]\nassert f(x) == sorted(x)",
        "x = [2, 1]\nassert sorted(x) == f(x)",
        "x = [2, 1]\nassert f(x) == x",
        "x = [2, 1]\nassert x == f(x)",
        "def check(f):\n    x = [2, 1]\n    assert f(x) == sorted(x)\ncheck(f)",
        "import unittest\nx = [2, 1]\nunittest.TestCase().assertEqual(f(x), sorted(x))",
        "import unittest\nx = [2, 1]\nunittest.TestCase().assertEqual(sorted(x), f(x), 'message')",
        "import unittest\nx = [2, 1]\nunittest.TestCase().assertListEqual(f(x), x)",
    ],
)
def test_what_is_expected_is_evaluated_before_the_program_can_change_it(test: str) -> None:
    assert not passes(test, empties)
    assert passes(test, sorted) or "== x" in test or "x ==" in test or "(f(x), x)" in test


@pytest.mark.parametrize(
    "test",
    [
        "x = [2, 1]\nf(x)\nassert x == []",
        "assert f([1]) == [] and f([2]) == []",
        "assert f([1]) is not None",
        "assert [] == f([1])",
        "assert not f([3]), 'message'",
        "assert f([1]) == f([2])",
        "for x in ([1], [2]):\n    assert f(x) == [], x",
        "class A:\n    assert f([1]) == list('')",
    ],
)
def test_other_tests_mean_what_they_say(test: str) -> None:
    assert passes(test, empties)


def test_names_that_mean_the_program() -> None:
    assert program_names(["assert f(abs(x)) == g"], None, {"x"}) == {"f", "g"}
    assert program_names(["assert math.isclose(f(1), 2)", "np.sum(f(1))"], None, []) == {"f"}
    assert program_names(["assert sum(1, 2) == 3"], None, []) == {"sum"}
    assert program_names(["assert sum(f(1)) == 3"], "sum", []) == {"f", "sum"}
    assert program_names(["x = 3\nassert [y for y in f(x)] == [1]"], None, []) == {"f"}
    assert program_names(["assert f(1) == 2"], "Solution().g", []) == {"Solution", "f"}
    assert program_names(["assert profile(1) == 2"], None, []) == {"profile"}  # a module's name, called
    assert module_names(["math.pi + np.pi", "a.b"]) == {"math": "math", "np": "numpy"}


@pytest.mark.parametrize(
    ("actual", "expected", "tolerance", "same"),
    [
        ("1\n2\n", "1\n2", 0.0, True),
        ("1  \n2\n\n\n", "1\n2", 0.0, True),
        ("1\r\n2", "1\n2", 0.0, True),
        ("1", "1\n2", 0.0, False),
        ("1\n2\n3", "1\n2", 0.0, False),
        ("", "1", 0.0, False),
        ("", "", 0.0, True),
        (" 1", "1", 0.0, False),
        ("0.3000001 x", "0.3 x", 1e-6, True),
        ("0.3000001 x", "0.3 x", 0.0, False),
        ("0.31", "0.3", 1e-6, False),
        ("1 2", "1 2 3", 1e-6, False),
        ("nan", "1", 1.0, False),
        ("inf", "1e999", 1.0, False),
        ("1_0", "10", 1.0, False),
        ("0x1p3", "8", 1.0, False),
        ("٣", "3", 1.0, False),
        ("9" * 500, "1" * 500, 1.0, False),
        ("10000000", "10000001", 1e-6, False),
        ("+7", "7", 1e-6, True),
        ("10000000.0", "10000001", 1e-6, True),
    ],
)
def test_output(actual: str, expected: str, tolerance: float, same: bool) -> None:
    assert same_output(actual, expected, tolerance)[0] is same


@pytest.mark.parametrize(
    ("actual", "expected", "same"),
    [
        ((1, [2, 3]), [1, [2, 3]], True),
        ([1, 2], [1, 2, 3], False),
        ([1, 2, 3], [1, 2], False),
        (1.0, 1, True),
        (True, 1, False),
        (1, True, False),
        (True, True, True),
        (None, None, True),
        (None, False, False),
        ("1", 1, False),
        ({1: "a"}, {"1": "a"}, True),
        ({1: "a", "1": "a"}, {"1": "a"}, False),
        ({"a": 1}, {"a": 1, "b": 2}, False),
        (float("nan"), float("nan"), False),
        ({1}, [1], False),
        (b"a", "a", False),
        (0.1 + 0.2, 0.3, False),
    ],
)
def test_values(actual: Any, expected: Any, same: bool) -> None:
    assert same_value(actual, expected, 0.0) is same


def test_values_within_a_tolerance() -> None:
    assert same_value([0.1 + 0.2], [0.3], 1e-9)
    assert same_value(10_000_000.0, 10_000_001, 1e-6)
    assert not same_value(10_000_000, 10_000_001, 1e-6), "whole numbers are exact"
    assert not same_value([float("inf")], [1e308], 1e-1)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=3),
)


@given(JSON)
def test_json_is_the_same_as_itself(value: Any) -> None:
    assert same_value(value, value, 0.0)


def test_approx_is_pytests() -> None:
    values: list[Any] = [0, 1, 1.0000001, 1.00001, 1e-13, 2, True, "a", None, [1.0], (1.0000001,), {"a": 1.0000001}]
    expected: list[Any] = [0, 1, 1.0, [1.0], (1.0,), {"a": 1.0}]
    for actual in values:
        for wanted in expected:
            ours = actual == Approx(wanted)
            theirs = actual == pytest.approx(wanted)
            assert ours == theirs or type(actual) is not type(wanted), (actual, wanted)
    assert Approx(1.0, abs=0.1) == 1.05
    assert Approx(100.0, rel=0.1) == 109.0
    assert Approx(1.0, abs=0.01) != 1.05
    assert Approx(float("nan"), nan_ok=True) == float("nan")
    assert Approx(float("nan")) != float("nan")


def test_raises() -> None:
    with raises((KeyError, ValueError), match="a.c") as caught:
        raise ValueError("abc")
    assert (str(caught.value), caught.type) == ("abc", ValueError)
    with pytest.raises(AssertionError, match="did not raise"), raises(ValueError):
        pass
    with pytest.raises(KeyError), raises(ValueError):
        raise KeyError
    with pytest.raises(AssertionError, match="does not match"), raises(ValueError, match="x"):
        raise ValueError("y")
    assert raises(ZeroDivisionError, lambda x: 1 / x, 0).type is ZeroDivisionError
