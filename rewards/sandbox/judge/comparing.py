"""Compares output and values with what was expected. Pure."""

# Values of any type are what this file is about: strict checking would only say that they are unknown.
# pyright: basic

from __future__ import annotations

import math
import re
from typing import Any, cast

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+", re.ASCII)
_LONGEST_NUMBER = 400


def lines_of(text: str) -> list[str]:
    """Lines without trailing white space, and without empty lines at the end."""
    lines = [line.rstrip() for line in text.split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines


def same_output(actual: str, expected: str, tolerance: float) -> tuple[bool, bool]:
    """Whether two texts agree line by line, and whether the tolerance was needed.

    Args:
        tolerance: with one above 0, a line also agrees if its words do, pairwise, as text or as finite decimal
            numbers no further apart than that, absolutely or relatively. Two whole numbers have to be equal.
    """
    ours, theirs = lines_of(actual), lines_of(expected)
    if ours == theirs:
        return True, False
    if tolerance <= 0 or len(ours) != len(theirs):
        return False, False
    pairs = zip(ours, theirs, strict=True)
    return all(one == other or _same_words(one.split(), other.split(), tolerance) for one, other in pairs), True


def same_value(actual: Any, expected: Any, tolerance: float) -> bool:
    """Whether a value is what a JSON document says: tuples are arrays, keys are texts, a truth value is no number.

    Anything that is not of an exact builtin type is not.
    """
    kind = type(actual)
    if type(expected) is list:
        if kind is not list and kind is not tuple:
            return False
        theirs = cast("list[Any]", expected)
        return len(actual) == len(theirs) and all(
            same_value(one, other, tolerance) for one, other in zip(actual, theirs, strict=True)
        )
    if type(expected) is dict:
        if kind is not dict:
            return False
        ours: dict[Any, Any] = {str(key) if type(key) is int else key: value for key, value in actual.items()}
        wanted = cast("dict[str, Any]", expected)
        if len(ours) != len(actual) or ours.keys() != wanted.keys():
            return False
        return all(same_value(ours[key], wanted[key], tolerance) for key in wanted)
    if type(expected) in (int, float) and kind in (int, float):
        if actual == expected or tolerance <= 0 or kind is type(expected) is int:
            return actual == expected
        return _close(float(actual), float(expected), tolerance)
    return kind is type(expected) and kind in (str, bool, type(None)) and actual == expected


def _same_words(ours: list[str], theirs: list[str], tolerance: float) -> bool:
    return len(ours) == len(theirs) and all(
        one == other or _same_number(one, other, tolerance) for one, other in zip(ours, theirs, strict=True)
    )


def _same_number(one: str, other: str, tolerance: float) -> bool:
    if max(len(one), len(other)) > _LONGEST_NUMBER or not (_NUMBER.fullmatch(one) and _NUMBER.fullmatch(other)):
        return False
    if _WHOLE.fullmatch(one) and _WHOLE.fullmatch(other):
        return int(one) == int(other)  # a count that is off by one is wrong, however large it is
    return _close(float(one), float(other), tolerance)


def _close(one: float, other: float, tolerance: float) -> bool:
    finite = math.isfinite(one) and math.isfinite(other)
    return finite and math.isclose(one, other, rel_tol=tolerance, abs_tol=tolerance)
