"""The five forms of tests, in real jobs."""

# ruff: noqa: E501 - programs and their tests, a line each

from __future__ import annotations

from typing import Any

import pytest

from rewards.sandbox.pool import Sandbox
from rewards.sandbox.program import Flag, Form, Kind, Limits, Program, ProgramResult

LIMITS = Limits(cpu_time_s=2.0, wall_time_s=30.0)


@pytest.fixture
def judge(sandbox: Sandbox) -> Any:
    def run(form: Form, source: str, **task: Any) -> ProgramResult:
        return sandbox.run(Program(source=source, form=form, limits=LIMITS, **task))

    return run


def score(result: ProgramResult) -> tuple[str, int, int]:
    return result.kind.value, result.num_passed, result.num_tests


ASSERTS = [
    ("def f(x):\n    x.sort()", ("y = [2, 1]\nf(y)\nassert y == [1, 2]",)),
    ("def f(d):\n    d['a'] = 1", ("d = {}; f(d); assert d == {'a': 1}",)),
    ("def f(s):\n    s.add(3)", ("s = {1}; f(s); assert s == {1, 3}",)),
    (
        "def f(n):\n    yield from range(n)",
        ("assert list(f(3)) == [0, 1, 2]", "assert 2 in f(3)", "assert next(f(1)) == 0"),
    ),
    ("def f(n):\n    return lambda x: x + n", ("assert f(1)(2) == 3",)),
    (
        "def f(g, x):\n    return [g(y) for y in x]",
        ("assert f(lambda y: y * 2, [1, 2]) == [2, 4]", "f(str.upper, ['a'])"),
    ),
    ("def f(x):\n    return sorted(x, key=len)", ("assert f(['aa', 'b']) == ['b', 'aa']",)),
    ("import collections\ndef f(x):\n    return collections.Counter(x)", ("assert f('aab') == {'a': 2, 'b': 1}",)),
    (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(x):\n    return P(x, 2)",
        ("assert f(1) == (1, 2)", "assert f(1).y == 2"),
    ),
    (
        "import re\ndef f(s):\n    return re.match('a', s)",
        ("assert f('a')", "assert not f('b')", "assert f('a') is not None"),
    ),
    ("def f(x):\n    raise KeyError(x)", ("try:\n    f('k')\nexcept KeyError as e:\n    assert e.args == ('k',)",)),
    ("def sum(a, b):\n    return a * b", ("assert sum(2, 3) == 6",)),
    ("def f(x):\n    return type(x)", ("assert f(1) is int", "assert f('') == str")),
    ("def f(x):\n    return map(abs, x)", ("assert sorted(f([-1, 2])) == [1, 2]",)),
    (
        "def f(x):\n    return x.real + next(iter(x for x in [1]))",
        ("assert f(2.5) == 3.5", "assert math.isclose(f(1), 2)"),
    ),
    (
        "def f(x):\n    print(x)\n    return {'k': [x, (x,)]}",
        ("assert f(1) == {'k': [1, (1,)]}", "assert f(1)['k'][1] == (1,)"),
    ),
    ("def f(*a, **k):\n    return [*a, k]", ("assert f(1, *[2], z=3) == [1, 2, {'z': 3}]",)),
    ("def f(x):\n    return 10 ** x", ("assert f(400) == 10 ** 400", "assert f(0.5) == 10 ** 0.5")),
]


@pytest.mark.parametrize(("source", "tests"), ASSERTS)
def test_asserts_see_what_they_would_see_in_one_process(judge: Any, source: str, tests: tuple[str, ...]) -> None:
    result = judge(Form.ASSERTS, source, tests=tests)
    assert score(result) == ("passed", len(tests), len(tests)), result
    assert result.flags == frozenset()


def test_numpy_values_cross(judge: Any) -> None:
    pytest.importorskip("numpy")
    source = "import numpy as np\ndef f(n):\n    return np.arange(n) * 2\ndef g(x):\n    return x.sum() / 2"
    tests = (
        "assert (f(3) == np.array([0, 2, 4])).all() and f(3).shape == (3,)",
        "assert g(np.array([1.0, 2.0])) == 1.5",
        "assert list(f(2)) == [0, 2]",
    )
    assert score(judge(Form.ASSERTS, source, tests=tests)) == ("passed", 3, 3)


HUMAN_EVAL = {
    "preamble": "from typing import List\n\ndef poly(xs: list, x: float):\n    return sum(c * x**i for i, c in enumerate(xs))\n",
    "test": "METADATA = {}\ndef check(candidate):\n    assert abs(poly([2, -1], candidate([2, -1]))) < 1e-4\n",
    "entry_point": "find_zero",
}


def test_check_of_human_eval(judge: Any) -> None:
    right = "def find_zero(xs: List[float]) -> float:\n    return -xs[0] / xs[1]"
    assert score(judge(Form.CHECK, right, **HUMAN_EVAL)) == ("passed", 1, 1)
    assert score(judge(Form.CHECK, "def find_zero(xs): return 0.5", **HUMAN_EVAL)) == ("failed", 0, 1)
    assert "NameError" in judge(Form.CHECK, "def other(xs): return 2", **HUMAN_EVAL).message
    # The helper is the task's, not the program's.
    cheat = "def poly(xs, x): return 0\ndef find_zero(xs): return 0.5"
    assert score(judge(Form.CHECK, cheat, **HUMAN_EVAL)) == ("failed", 0, 1)


LIST_NODES = """
class ListNode:
    def __init__(self, val=0, next=None):
        self.val, self.next = val, next

def list_node(values):
    head = None
    for value in reversed(values):
        head = ListNode(value, head)
    return head

def is_same_list(p, q):
    while p and q:
        if p.val != q.val:
            return False
        p, q = p.next, q.next
    return not p and not q
"""


def test_check_of_leet_code_with_list_nodes(judge: Any) -> None:
    source = (
        "class Solution:\n    def reverse(self, head: ListNode) -> ListNode:\n        before = None\n"
        "        while head:\n            head.next, before, head = before, head, head.next\n        return before"
    )
    task = {
        "preamble": LIST_NODES,
        "entry_point": "Solution().reverse",
        "test": (
            "def check(candidate):\n    assert is_same_list(candidate(head=list_node([1, 2, 3])), list_node([3, 2, 1]))\n"
            "    assert is_same_list(candidate(list_node(range(3000))), list_node(range(2999, -1, -1)))\n"
        ),
    }
    assert score(judge(Form.CHECK, source, **task)) == ("passed", 1, 1)
    wrong = "class Solution:\n    def reverse(self, head): return head"
    assert score(judge(Form.CHECK, wrong, **task)) == ("failed", 0, 1)
    cyclic = "class Solution:\n    def reverse(self, head):\n        head.next = head\n        return head"
    assert judge(Form.CHECK, cyclic, **task).kind is Kind.FAILED


CASES = ({"args": [[3, 1]], "expected": [1, 3]}, {"args": [[]], "expected": []}, {"args": [[2]], "expected": [5]})


@pytest.mark.parametrize(
    ("source", "entry_point"),
    [
        ("def f(x): return sorted(x)", "f"),
        ("class Solution:\n    def f(self, x): return tuple(sorted(x))", "Solution().f"),
    ],
)
def test_calls(judge: Any, source: str, entry_point: str) -> None:
    result = judge(Form.CALLS, source, entry_point=entry_point, cases=CASES)
    assert score(result) == ("failed", 2, 3)
    assert result.message == "case 2: " + ("[2]" if entry_point == "f" else "(2,)") + ", not [5]"
    assert score(judge(Form.CALLS, source, entry_point=entry_point, cases=CASES[:2])) == ("passed", 2, 2)
    assert judge(Form.CALLS, source, entry_point=entry_point, cases=({"args": 1},)).kind is Kind.SANDBOX_FAULT


def test_scripts(judge: Any) -> None:
    source = "import sys\nfrom math import pi\nn = int(input())\nif __name__ == '__main__':\n    print(n * pi, file=sys.stdout)"
    cases = ({"input": "1\n", "output": "3.141592653589793\n"}, {"input": "2", "output": "6.2831853"})
    result = judge(Form.STDIN, source, cases=cases)
    assert score(result) == ("failed", 1, 2)
    result = judge(Form.STDIN, source, cases=cases, float_tolerance=1e-6)
    assert (score(result), result.flags) == (("passed", 2, 2), {Flag.FLOAT_TOLERANCE})


SCRIPTS = {
    "large input and output": (
        "import sys\nfor line in sys.stdin: print(line.strip())",
        "x" * 99 + "\n",
        20_000,
        "passed",
    ),
    "does not read": ("print('x' * 99)", "y\n", 100_000, "failed"),
    "reads by descriptor": ("import os\nwhile d := os.read(0, 4096): os.write(1, d)", "é" * 30 + "\n", 500, "passed"),
    "sys.exit(0)": ("import sys\nprint(sys.stdin.read(), end='')\nsys.exit(0)", "a\n", 1, "passed"),
    "sys.exit(3)": ("import sys\nprint(sys.stdin.read(), end='')\nsys.exit(3)", "a\n", 1, "error"),
    "raises at the end": ("import sys\nprint(sys.stdin.read(), end='')\n1 / 0", "a\n", 1, "error"),
    "exit handler prints": ("import sys, atexit\natexit.register(print, sys.stdin.read(), end='')", "a\n", 1, "passed"),
    "a thread prints": (
        "import sys, threading, time\nthreading.Thread(target=lambda: (time.sleep(.1), print(input()))).start()",
        "a\n",
        1,
        "passed",
    ),
    "reads past the end": ("print(input()); input()", "a\n", 1, "error"),
}


@pytest.mark.parametrize(("source", "line", "count", "kind"), SCRIPTS.values(), ids=SCRIPTS.keys())
def test_scripts_and_their_streams(judge: Any, source: str, line: str, count: int, kind: str) -> None:
    result = judge(Form.STDIN, source, cases=({"input": line * count, "output": line * count},))
    assert result.kind.value == kind, result


def test_cases_of_a_script_share_nothing_and_stop_at_a_time_out(sandbox: Sandbox) -> None:
    counts = "import os\nprint(len(os.listdir('.')))\nopen('mark', 'w')"
    case = {"input": "", "output": "0"}
    assert score(sandbox.run(Program(source=counts, form=Form.STDIN, cases=(case,) * 3))) == ("passed", 3, 3)
    loops = "if input() == 'x':\n    while True: pass\nprint(1)"
    cases = tuple({"input": text, "output": "1"} for text in ("a", "x", "b", "c"))
    limits = Limits(cpu_time_s=0.3)
    assert score(sandbox.run(Program(source=loops, form=Form.STDIN, cases=cases, limits=limits))) == ("timeout", 1, 4)


BANK = """
class OverdrawnError(Exception):
    def __init__(self, missing):
        super().__init__(f"{missing} missing")
        self.missing = missing

class Account:
    RATE = 3
    def __init__(self, owner): self.owner, self.balance, self.log = owner, 0, []
    def put(self, amount):
        if amount < 0: raise ValueError("negative")
        self.balance += amount
    def take(self, amount):
        if amount > self.balance: raise OverdrawnError(amount - self.balance)
        self.balance -= amount
        return self
    def each(self, function): return [function(n) for n in range(2)]
    def __enter__(self): return self
    def __exit__(self, *a): self.balance = -1
    def __len__(self): return self.balance
    def __iter__(self): return iter([self.owner])
    def __repr__(self): return f"Account({self.owner})"
    @staticmethod
    def bank(): return "B"
    @classmethod
    def open(cls): return cls("new")

def greet(name): print("hello", name)
"""
BANK_TESTS = """
import unittest
from unittest.mock import patch
import io, contextlib
import bank
from bank import Account, OverdrawnError, greet

class AccountTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls): cls.rate = Account.RATE
    def setUp(self): self.account = Account("a")
    def test_attributes(self):
        self.account.put(3)
        self.assertEqual(self.account.balance, self.rate)
        self.account.owner = "b"
        self.assertEqual(self.account.owner, "b")
        self.assertEqual((Account.bank(), Account.open().owner), ("B", "new"))
        self.assertIsInstance(self.account, Account)
        self.assertNotIsInstance(self.account, list)
        self.assertEqual(repr(self.account), "Account(a)" if 0 else "Account(b)")
    def test_raises(self):
        with self.assertRaises(OverdrawnError) as caught:
            self.account.take(5)
        self.assertEqual(caught.exception.missing, 5)
        self.assertEqual(str(caught.exception), "5 missing")
        self.assertEqual(caught.exception.args[0], "5 missing")
        with self.assertRaisesRegex(ValueError, "neg"):
            self.account.put(-1)
    def test_protocols(self):
        self.account.put(2)
        self.assertEqual(len(self.account), 2)
        self.assertEqual(list(self.account), ["a"])
        with self.account as inner:
            self.assertIs(inner, self.account)
        self.assertEqual(self.account.balance, -1)
    def test_callback(self):
        seen = []
        self.assertEqual(self.account.each(lambda n: seen.append(n) or n + 1), [1, 2])
        self.assertEqual(seen, [0, 1])
    def test_output(self):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            greet("you")
        self.assertEqual(out.getvalue(), "hello you\\n")
        with patch("bank.greet", return_value=7):
            self.assertEqual(bank.greet("x"), 7)
    @unittest.skip("not today")
    def test_skipped(self): self.fail()
    def test_fails(self):
        for n in range(3):
            with self.subTest(n=n):
                self.assertLess(n, 2)

if __name__ == "__main__":
    unittest.main()
"""


def test_a_unittest_file(judge: Any) -> None:
    result = judge(Form.TEST_FILE, BANK, test=BANK_TESTS, module="bank")
    assert score(result) == ("failed", 5, 6)
    assert result.message == "AccountTest.test_fails: AssertionError: 2 not less than 2"
    assert result.flags == frozenset()


PYTEST_TESTS = """
import pytest
from solution import *
from solution import divide as d

@pytest.fixture
def three():
    yield 3

@pytest.fixture(params=[1, 2])
def number(request, three):
    return request.param + three

@pytest.mark.parametrize("a, b, expected", [(6, 3, 2), (1, 4, 0.25), pytest.param(0, 1, 0, id="zero")])
def test_divide(a, b, expected):
    assert d(a, b) == pytest.approx(expected)

@pytest.mark.parametrize("a", [1, 2])
@pytest.mark.parametrize("b", [1, 2])
def test_product(a, b): assert divide(a * b, b) == a

def test_zero():
    with pytest.raises(ZeroDivisionError, match="division") as info:
        divide(1, 0)
    assert "zero" in str(info.value)

def test_fixture(number, three): assert divide(number, 1) in (4, 5) and three == 3

def test_printed(capsys):
    shout("a")
    assert capsys.readouterr().out == "A\\n"

def test_file(tmp_path):
    (tmp_path / "x").write_text("text")
    assert read(str(tmp_path / "x")) == "text"

def test_patched(monkeypatch):
    monkeypatch.setattr("solution.divide", lambda a, b: 9)
    assert twice(1) == 18

async def test_waits(): assert divide(1, 1) == 1

@pytest.mark.skip
def test_skipped(): assert False

@pytest.mark.xfail
def test_expected_to_fail(): assert divide(1, 1) == 2

class TestGroup:
    def setup_method(self): self.value = 4
    @pytest.mark.parametrize("x", [1, 2])
    def test_method(self, x, three): assert divide(self.value, x) * three in (12, 6)
    def helper(self): assert False
"""


def test_a_pytest_file(judge: Any) -> None:
    source = (
        "def divide(a, b): return a / b\ndef shout(x): print(x.upper())\ndef read(p): return open(p).read()\n"
        "def twice(x): return 2 * divide(x, 1)"
    )
    result = judge(Form.TEST_FILE, source, test=PYTEST_TESTS)
    assert score(result) == ("passed", 16, 16), result
    result = judge(Form.TEST_FILE, source.replace("a / b", "a // b"), test=PYTEST_TESTS)
    assert score(result) == ("failed", 15, 16)


EXPECTED_TO_FAIL = """
import unittest, pytest, solution
@pytest.mark.xfail
def test_marked(): assert solution.f(1) == 2
class TestOther(unittest.TestCase):
    @unittest.expectedFailure
    def test_decorated(self): self.assertEqual(solution.f(1), 2)
"""


def test_what_is_expected_to_fail_earns_nothing(judge: Any) -> None:
    """A program that does nothing but raise must not pass it."""
    result = judge(Form.TEST_FILE, "def f(x): raise RuntimeError", test=EXPECTED_TO_FAIL)
    assert score(result) == ("failed", 0, 0), result
    alone = EXPECTED_TO_FAIL + "def test_real(): assert solution.f(1) == 1\n"
    assert score(judge(Form.TEST_FILE, "def f(x): return x", test=alone)) == ("passed", 1, 1)


@pytest.mark.parametrize(
    ("source", "test", "kind", "message"),
    [
        ("x = 1", "from solution import f\ndef test(): pass", Kind.ERROR, "ImportError: cannot import name 'f'"),
        ("f = abs", "import no_such_module_of_ours\ndef test(): pass", Kind.SANDBOX_FAULT, "ModuleNotFoundError"),
        ("f = abs", "def test(: pass", Kind.SANDBOX_FAULT, "SyntaxError"),
        ("f = abs", "1 / 0", Kind.SANDBOX_FAULT, "ZeroDivisionError"),
        ("f = abs", "from solution import f", Kind.FAILED, "no tests"),
        ("def f(:", "from solution import f\ndef test(): f(1)", Kind.ERROR, "SyntaxError"),
        ("f = abs", "from solution import f\ndef test(unknown): f(1)", Kind.FAILED, "no fixture 'unknown'"),
        ("f = abs", "from solution import f\nx = f('a')\ndef test(): pass", Kind.ERROR, "TypeError"),
    ],
)
def test_files_that_do_not_get_to_their_tests(judge: Any, source: str, test: str, kind: Kind, message: str) -> None:
    result = judge(Form.TEST_FILE, source, test=test)
    assert (result.kind, message in result.message, result.num_passed) == (kind, True, 0), result


RATIONAL = """
class Rational:
    def __init__(self, n, d): self.n, self.d = n, d
    def __eq__(self, other): return self.n * other.d == other.n * self.d
    def __add__(self, other): return Rational(self.n * other.d + other.n * self.d, self.d * other.d)
    def __lt__(self, other): return self.n * other.d < other.n * self.d
"""


def test_truth_that_only_the_program_can_tell_is_flagged(judge: Any) -> None:
    test = "from solution import Rational as R\ndef test():\n    assert R(1, 2) + R(1, 3) == R(5, 6)\n    assert R(1, 3) < R(1, 2)"
    result = judge(Form.TEST_FILE, RATIONAL, test=test)
    assert (result.kind, result.flags) == (Kind.PASSED, {Flag.DELEGATED})
    data = "from solution import Rational as R\ndef test():\n    s = R(1, 2) + R(1, 3)\n    assert (s.n, s.d) == (5, 6)"
    result = judge(Form.TEST_FILE, RATIONAL, test=data)
    assert (result.kind, result.flags) == (Kind.PASSED, frozenset())
    # An object equals no builtin value, whatever its class says.
    assert (
        judge(
            Form.TEST_FILE, RATIONAL, test="from solution import *\ndef test(): assert Rational(1, 1) == 1"
        ).num_passed
        == 0
    )


def test_the_preamble_is_the_tasks(judge: Any) -> None:
    assert judge(
        Form.ASSERTS, "def f(): return g()", preamble="def g(): return 1", tests=("assert f() == 1",)
    ).num_passed
    broken = judge(Form.ASSERTS, "def f(): return 1", preamble="1 / 0", tests=("assert f() == 1",))
    assert (broken.kind, "<preamble>" in broken.message) == (Kind.SANDBOX_FAULT, True)


def test_threads_of_the_tests_take_turns(judge: Any) -> None:
    test = (
        "import threading\nfrom solution import Counter\ndef test():\n    c = Counter()\n"
        "    ts = [threading.Thread(target=lambda: [c.add() for _ in range(50)]) for _ in range(4)]\n"
        "    [t.start() for t in ts]; [t.join() for t in ts]\n    assert c.n == 200"
    )
    source = "class Counter:\n    n = 0\n    def add(self): self.n += 1"
    assert score(judge(Form.TEST_FILE, source, test=test)) == ("passed", 1, 1)
