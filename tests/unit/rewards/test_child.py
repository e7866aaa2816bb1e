"""A function in a process that can be stopped."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rewards.child import Child, ChildError

ROOT = Path(__file__).parents[3]
Make = Callable[..., Child]


@pytest.fixture
def child() -> Iterator[Make]:
    made: list[Child] = []

    def make(name: str, timeout_s: float = 20.0, memory_mib: int = 512) -> Child:
        made.append(Child(f"tests.unit.rewards.child_functions:{name}", timeout_s=timeout_s, memory_mib=memory_mib))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_calls_from_several_threads(child: Make) -> None:
    double = child("double")
    results: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda number=number: results.update({number: double.call(number)}))
        for number in range(9)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: 2 * number for number in range(9)}


def test_any_text_travels(child: Make) -> None:
    text = "\ud800\0 é\n\u2028" + "x" * 300_000  # more than a pipe holds
    assert child("echo").call(text) == text


@pytest.mark.parametrize(("name", "argument"), [("sleep", 30.0), ("spin", 300_000_000)])
def test_what_takes_too_long_is_killed_and_the_next_call_works(child: Make, name: str, argument: float) -> None:
    slow = child(name, timeout_s=0.5)
    start = time.monotonic()
    with pytest.raises(ChildError) as caught:
        slow.call(argument)
    assert caught.value.reason == "timeout"
    assert time.monotonic() - start < 15
    assert slow.call(0) in ("slept", 1)


@pytest.mark.parametrize(
    ("name", "argument", "reason"),
    [
        ("die", 3, "died"),
        ("die", 0, "died"),
        ("crash", 11, "died"),
        ("fail", "x", "raised KeyError"),
        ("fill_memory", 1 << 34, "raised MemoryError"),
    ],
)
def test_what_breaks_says_why(child: Make, name: str, argument: object, reason: str) -> None:
    broken = child(name)
    for _ in range(2):
        with pytest.raises(ChildError) as caught:
            broken.call(argument)
        assert caught.value.reason == reason


def test_secrets_stay_here(child: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEST_JUDGE_KEY", "sk-secret")
    assert child("secrets").call("TEST_JUDGE_KEY") is None


def test_a_function_that_is_not_there(child: Make) -> None:
    with pytest.raises(ChildError, match="did not start"):
        child("missing").call()


def test_closing(child: Make) -> None:
    process = child("process")
    pid = process.call()
    process.close()
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(RuntimeError, match="is closed"):
        process.call()


def test_it_ends_with_its_parent_even_while_it_works() -> None:
    script = (
        "import os, sys, threading, time\n"
        "from rewards.child import Child\n"
        "child = Child('tests.unit.rewards.child_functions:sleep', timeout_s=60)\n"
        "child.call(0)\n"
        "threading.Thread(target=child.call, args=(50,), daemon=True).start()\n"
        "time.sleep(0.2)\n"
        "print(child._process.pid, flush=True)\n"
        "os._exit(0)\n"
    )
    output = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    deadline = time.monotonic() + 20
    while Path(f"/proc/{int(output)}/stat").exists() and _state(int(output)) != "Z":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
