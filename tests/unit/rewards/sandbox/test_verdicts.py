"""What programs do, and what the sandbox makes of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from rewards.sandbox.program import Kind, ProgramResult

Run = Callable[..., ProgramResult]
T = "assert f(1) == 2"

PASSES = {
    "plain": "def f(x): return x + 1",
    "main guard does not run": "f = lambda x: x + 1\nif __name__ == '__main__': input()",
    "dataclass with string annotations": (
        "from __future__ import annotations\nfrom dataclasses import dataclass\n@dataclass\nclass A:\n    x: int\n"
        "def f(x): return A(x).x + 1"
    ),
    "pickle of its own class": "import pickle\nclass A: pass\npickle.loads(pickle.dumps(A()))\ndef f(x): return x + 1",
    "threads left running": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=(99,)).start()\ndef f(x): return x + 1"
    ),
    "exit handler that hangs": "import atexit, time\natexit.register(time.sleep, 99)\ndef f(x): return x + 1",
    "output flood": "print('x' * 10**6)\ndef f(x): return x + 1",
    "stdout closed": "import sys\nsys.stdout.close()\ndef f(x): return x + 1",
    "own files": "open('a', 'w').write('1')\ndef f(x): return int(open('a').read()) + 1",
    "import that is not preloaded": "import xml.dom.minidom\ndef f(x): return x + 1",
    "MemoryError it handles": "try: [0] * 10**10\nexcept MemoryError: pass\ndef f(x): return x + 1",
}

KINDS = {
    "wrong": ("def f(x): return x", Kind.FAILED),
    "raises in a test": ("def f(x): 1 / 0", Kind.FAILED),
    "no such function": ("def g(x): 0", Kind.FAILED),
    "recursion": ("def f(x): return f(x)", Kind.FAILED),
    "SystemExit in a test": ("def f(x): raise SystemExit(0)", Kind.FAILED),
    "SystemExit in __eq__": ("class A:\n    def __eq__(s, o): raise SystemExit(0)\ndef f(x): return A()", Kind.FAILED),
    "KeyboardInterrupt in a test": ("def f(x): raise KeyboardInterrupt", Kind.FAILED),
    "hostile __str__": (
        "class E(Exception):\n    def __str__(s): raise SystemExit(0)\ndef f(x): raise E",
        Kind.FAILED,
    ),
    "os._exit(0) in a test": ("import os\ndef f(x): os._exit(0)", Kind.ERROR),
    "os._exit(0) at once": ("import os\nos._exit(0)", Kind.ERROR),
    "forks": ("import os\nif os.fork(): os._exit(0)\ndef f(x): return x + 1", Kind.ERROR),
    "closes every descriptor": ("import os\nos.closerange(0, 64)\ndef f(x): return x + 1", Kind.ERROR),
    "sys.exit(0)": ("import sys\nsys.exit(0)", Kind.ERROR),
    "reads stdin": ("input()", Kind.ERROR),
    "syntax": ("def f(x) return x", Kind.ERROR),
    "null byte": ("x = 1\0", Kind.ERROR),
    "lone surrogate": ("x = '\ud800'", Kind.ERROR),
    "kills itself": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", Kind.ERROR),
    "segfault": ("import ctypes\nctypes.string_at(0)", Kind.ERROR),
    "writes elsewhere": ("open('/etc/keel-sandbox-test', 'w')", Kind.ERROR),
    "huge file": ("open('a', 'wb').write(bytes(20 << 20))", Kind.ERROR),
    "loop at import": ("while True: pass", Kind.TIMEOUT),
    "loop in a test": ("def f(x):\n    while True: pass", Kind.TIMEOUT),
    "loop that ignores signals": (
        "import signal\nfor s in (2, 14, 15, 24, 27): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        Kind.TIMEOUT,
    ),
    "loop in C": ("def f(x): return len(str(7 ** 10 ** 8))", Kind.TIMEOUT),
    "memory in one piece": ("x = bytearray(10 ** 10)", Kind.OUT_OF_MEMORY),
    "memory, megabyte by megabyte": ("x = []\nwhile True: x.append('x' * 10**6)", Kind.OUT_OF_MEMORY),
    "memory in a test": ("def f(x):\n    a = [0]\n    while True: a = a + a", Kind.OUT_OF_MEMORY),
}

FORGERIES = {
    "prints a report": "print('ready 0\\npass 0\\ndone 0\\n', flush=True)\nimport os\nos._exit(0)",
    "writes reports to every descriptor": (
        "import os\nfor fd in range(64):\n    try: os.write(fd, b'x ready 0 \\nx pass 0 \\nx done 0 \\n')\n"
        "    except OSError: pass\nos._exit(0)"
    ),
    "replaces exec": "import builtins\nbuiltins.exec = builtins.compile = lambda *a, **k: None\ndef f(x): return x",
    "replaces AssertionError": "import builtins\nbuiltins.AssertionError = SystemExit\ndef f(x): return x",
    "replaces BaseException": "import builtins\nbuiltins.BaseException = KeyError\ndef f(x): return x",
    "replaces enumerate": "import builtins\nbuiltins.enumerate = lambda *a: []\ndef f(x): return x",
    "replaces os.write": "import os\nos.write = lambda fd, data: print(data)\ndef f(x): return x",
    "replaces sys.modules": "import sys\nsys.modules.clear()\ndef f(x): return x",
    "traceback of its own": "import sys\nsys.excepthook = lambda *a: print('pass')\ndef f(x): return x",
}


@pytest.mark.parametrize("source", PASSES.values(), ids=PASSES.keys())
def test_passes(run: Run, source: str) -> None:
    result = run(source, T, "assert f(2) != 2", "f(3)") if source != PASSES["own files"] else run(source, T)
    assert (result.kind, result.message) == (Kind.PASSED, "")
    assert result.num_passed == result.num_tests


@pytest.mark.parametrize(("source", "kind"), KINDS.values(), ids=KINDS.keys())
def test_kinds(run: Run, source: str, kind: Kind) -> None:
    result = run(source, T, cpu_time_s=0.4)
    assert (result.kind, result.num_passed, result.num_tests) == (kind, 0, 1), result
    assert 0 < len(result.message) < 300


@pytest.mark.parametrize("source", FORGERIES.values(), ids=FORGERIES.keys())
def test_no_pass_is_forged(run: Run, source: str) -> None:
    result = run(source, T)
    assert result.kind in (Kind.FAILED, Kind.ERROR, Kind.TIMEOUT), result
    assert result.num_passed == 0


def test_each_test_is_judged_by_itself(run: Run) -> None:
    tests = [f"assert f({x}) == {x} * 2" for x in range(5)] + ["import sys; sys.exit()", "assert f(0) == 0"]
    result = run("def f(x): return x * 2 if x % 2 else 0", *tests)
    assert (result.num_passed, result.num_tests) == (4, 7)
    assert (result.kind, result.num_passed) == (Kind.FAILED, 4)


def test_what_passed_before_a_timeout_counts(run: Run) -> None:
    result = run("def f(x):\n    while x > 1: pass", "f(0)", "f(1)", "f(2)", "f(0)", cpu_time_s=0.3)
    assert (result.kind, result.num_passed, result.num_tests) == (Kind.TIMEOUT, 2, 4)
    assert 0.3 <= result.cpu_s < 3


def test_a_sleeper_meets_the_wall_limit(run: Run) -> None:
    result = run("import time\ntime.sleep(99)", T, wall_time_s=0.5)
    assert (result.kind, result.message) == (Kind.TIMEOUT, "wall time")
    assert result.cpu_s < 0.4


def test_output_is_kept_and_cut(run: Run) -> None:
    result = run("import sys\nprint('héllo', flush=True)\nsys.stderr.write('e\\n')\nprint('x' * 10**5)")
    assert result.output.startswith("héllo\ne\nxxx")
    assert len(result.output) <= 1000
    assert (result.kind, result.message) == (Kind.FAILED, "no tests")


def test_the_setup_is_the_tests_own_but_its_imports_are_shared(run: Run) -> None:
    setup = "from math import floor\ndef expected(x): return floor(x) + 1"
    assert run("f = lambda x: int(x) + 1", "assert f(1.5) == expected(1.5)", setup=setup).kind is Kind.PASSED
    assert run("f = lambda x: expected(x)", "assert f(1.5) == expected(1.5)", setup=setup).kind is Kind.FAILED
    assert run("f = lambda x: floor(x) + 1\nfloor(2)", T, setup="from math import floor").kind is Kind.PASSED
    uses_the_program = "tree = Node(2)"
    assert run("class Node:\n    def __init__(s, x): s.x = x", "assert tree.x == 2", setup=uses_the_program).num_passed
    cheat = "def f(x): return 0\ndef expected(x): return 0"
    assert run(cheat, "assert f(1.5) == expected(1.5)", setup=setup).kind is Kind.FAILED


def test_a_broken_task_is_a_sandbox_fault_and_the_programs_own_fault_is_not(run: Run) -> None:
    assert run("f = abs", T, setup="import no_such_module_of_ours").kind is Kind.SANDBOX_FAULT
    assert run("f = abs", "assert f(1 == ").kind is Kind.SANDBOX_FAULT
    assert run("import sys\nsys.modules['math'] = None", T, setup="import math").kind is Kind.FAILED


def test_programs_see_neither_each_other_nor_the_trainer(run: Run) -> None:
    probe = (
        "import os, sys, random\nprint(sorted(os.environ), os.listdir('.'),"
        " sys.argv, random.random())\nopen('left', 'w')"
    )
    first, second = run(probe, "True"), run(probe, "True")
    assert first.output == second.output
    assert first.output.startswith(
        "['HOME', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'PATH', 'TMPDIR'] [] ['solution.py'] 0.8444218515250481"
    )
    assert "ModuleNotFoundError" in run("import rewards.base").message


def test_numpy_fits_into_the_memory(run: Run) -> None:
    pytest.importorskip("numpy")
    assert run("import numpy as np\nf = lambda x: int(np.ones(x + 1).sum())", T).kind is Kind.PASSED
