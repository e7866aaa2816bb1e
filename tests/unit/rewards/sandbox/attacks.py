"""Reads attacks.txt: hostile programs, each with the task it attacks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.sandbox.program import Form, Limits, Program

_REACH = """
import ctypes, fcntl, multiprocessing, os, resource, signal, socket, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
try:
    print("ESCAPED", repr({expression})[:80], flush=True)
except BaseException as error:
    print("HELD", repr(error)[:80], flush=True)
def f(x): return x
"""
_TEST_FILE = """
import unittest
import pytest
from solution import f

class TestSecret(unittest.TestCase):
    def test_two(self):
        self.assertEqual(f(2), 7316549)

    def test_close(self):
        self.assertAlmostEqual(f(3), 7316550)

def test_three():
    assert f(3) == 7316550

def test_near():
    assert f(2) == pytest.approx(7316549)
"""
_TASKS: dict[Form, dict[str, Any]] = {
    Form.ASSERTS: {"setup": "SECRET = 7316549", "tests": ("assert f(2) == SECRET", "assert f(3) == SECRET + 1")},
    Form.STDIN: {"cases": ({"input": "2\n", "output": "7316549\n"},), "float_tolerance": 1e-6},
    Form.CALLS: {"cases": ({"args": [2], "expected": 7316549}, {"args": [3], "expected": 1}), "entry_point": "f"},
    Form.CHECK: {
        "preamble": "def helper(x):\n    return x + 7316547\n",
        "test": (
            "def check(candidate):\n    assert candidate(2) == helper(2)\n    assert helper(candidate(3)) > 7316549\n"
        ),
        "entry_point": "f",
    },
    Form.TEST_FILE: {"test": _TEST_FILE},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """A hostile program."""

    name: str
    form: Form
    source: str
    test: str = ""

    def program(self, limits: Limits) -> Program:
        """The program, with a task that it can't solve by honest means."""
        task = {**_TASKS[self.form], **({"tests": (self.test,), "setup": ""} if self.test else {})}
        return Program(source=self.source, form=self.form, limits=limits, **task)


def read_attacks() -> list[Attack]:
    """All of attacks.txt, in its order."""
    text = (Path(__file__).parent / "attacks.txt").read_text("utf-8")
    attacks: list[Attack] = []
    for section in text.split("\n--- ")[1:]:
        name, _, rest = section.partition("\n")
        expression = rest.split("\n=== ")[0].strip()
        attacks.append(Attack(name=name, form=Form.ASSERTS, source=_REACH.format(expression=expression)))
    for section in text.split("\n=== ")[1:]:
        title, _, source = section.partition("\n")
        form, _, name = title.partition(": ")
        test = ""
        if source.startswith("#! test: "):
            first, _, source = source.partition("\n")
            test = first.removeprefix("#! test: ")
        attacks.append(Attack(name=f"{form}: {name}", form=Form(form), source=source, test=test))
    return attacks
