"""The reward `unit_tests`, from answer to verdict."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rewards.base import Attempt, Outcome, RewardError, Verdict
from rewards.code import Scoring, UnitTests

TESTS = ["assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4", "assert f(0) == 1"]
RIGHT = "```python\ndef f(x):\n    return x + 1\n```"
HALF = "```python\ndef f(x):\n    return x + 1 if x < 2 else 0\n```"
HANGS = "```python\ndef f(x):\n    while x == 3: pass\n    return x + 1\n```"
METHOD = "```python\nclass Solution:\n    def f(self, x):\n        return x + 1\n```"

CHECK = {"form": "check", "entry_point": "f", "test": "def check(candidate):\n    assert candidate(1) == 2"}
TEST_FILE = {
    "form": "test_file",
    "entry_point": "f",
    "test": "from solution import f\ndef test_one():\n    assert f(1) == 2\ndef test_two():\n    assert f(5) == 6\n",
}
STDIN = {"form": "stdin", "cases": [{"input": "1\n", "output": "2\n"}, {"input": "5\n", "output": "6\n"}]}
CALLS = {"form": "calls", "entry_point": "f", "cases": [{"args": [1], "expected": 2}, {"args": [5], "expected": 6}]}
READS = "```python\nprint(int(input()) + 1)\n```\nInput:\n```\n1\n```\nOutput:\n```\n2\n```"

BEGUN = {**CHECK, "preamble": 'def g(x):\n    return x\n\ndef f(x):\n    """One more."""\n'}
CALLS_FLOAT = {"form": "calls", "entry_point": "f", "cases": [{"args": [0.1], "expected": 1.1000001}]}

LIMITS: dict[str, Any] = {"cpu_time_s": 0.5, "wall_time_s": 30.0, "memory_mib": 128, "allow_unsafe": True}


def judge(reward: UnitTests, *attempts: Attempt) -> list[Verdict]:
    return asyncio.run(reward.judge(attempts))


@pytest.fixture(scope="module")
def fraction() -> Iterator[UnitTests]:
    reward = UnitTests(UnitTests.Settings(**LIMITS))
    yield reward
    reward.close()


@pytest.fixture(scope="module")
def every() -> Iterator[UnitTests]:
    reward = UnitTests(UnitTests.Settings(scoring=Scoring.ALL, slots=1, **LIMITS))
    yield reward
    reward.close()


@pytest.mark.parametrize(
    ("completion", "passed", "reason"),
    [
        pytest.param(RIGHT, 4, "", id="right"),
        pytest.param(HALF, 2, "failed", id="half right"),
        pytest.param(HANGS, 2, "timeout", id="passed two, then hung"),
        pytest.param("```python\ndef f(x:\n```", 0, "syntax_error", id="does not parse"),
        pytest.param("```python\ndef f(x): return x + 1\nreturn\n```", 0, "syntax_error", id="does not compile"),
        pytest.param("```python\n1 / 0\n```", 0, "error", id="raises"),
        pytest.param("```python\nf = [0] * 10 ** 9\n```", 0, "out_of_memory", id="too big"),
        pytest.param("", 0, "failed", id="empty"),
    ],
)
def test_verdicts(
    fraction: UnitTests, every: UnitTests, attempt: Callable[..., Attempt], completion: str, passed: int, reason: str
) -> None:
    one = attempt(completion, tests=TESTS, entry_point="f")
    (share,), (whole,) = judge(fraction, one), judge(every, one)
    assert (share.outcome, share.value, share.reason) == (Outcome.VALID, passed / 4, reason)
    assert (whole.outcome, whole.value, whole.reason) == (Outcome.VALID, float(passed == 4), reason)
    assert share.details == whole.details == {"tests_passed": passed, "tests_total": 4}


def test_leaving_early_earns_nothing_more(fraction: UnitTests, attempt: Callable[..., Attempt]) -> None:
    leaves = "```python\nimport os\ndef f(x):\n    return x + 1 if x < 2 else os._exit(0)\n```"
    (verdict,) = judge(fraction, attempt(leaves, tests=TESTS, entry_point="f"))
    assert verdict.outcome is Outcome.VALID
    assert verdict.value <= 0.5


@pytest.mark.parametrize(
    ("reference", "completion", "value", "total"),
    [
        pytest.param(CHECK, RIGHT, 1.0, 1, id="check, right"),
        pytest.param(CHECK, "```python\ndef f(x): return x\n```", 0.0, 1, id="check, wrong"),
        pytest.param(CHECK, METHOD, 1.0, 1, id="check, as a method of Solution"),
        pytest.param({**CHECK, "entry_point": "Solution().f"}, METHOD, 1.0, 1, id="check of Solution"),
        pytest.param(
            {**CHECK, "preamble": "from math import floor"},
            "```python\ndef f(x): return floor(x) + 1\n```",
            1.0,
            1,
            id="check with a preamble",
        ),
        pytest.param(BEGUN, "    return g(x) + 1\n\ndef other():\n    return (1)\n", 1.0, 1, id="only the body"),
        pytest.param(BEGUN, "```python\n    return g(x) + 1\n```", 1.0, 1, id="only the body, in a block"),
        pytest.param(BEGUN, "```python\ndef f(x):\n    return g(x) + 1\n```", 1.0, 1, id="body with its signature"),
        pytest.param(BEGUN, "    return g(x)\n", 0.0, 1, id="only a wrong body"),
        pytest.param(TEST_FILE, RIGHT, 1.0, 2, id="test file, right"),
        pytest.param(TEST_FILE, HALF, 0.5, 2, id="test file, half"),
        pytest.param(
            {**TEST_FILE, "test": TEST_FILE["test"].replace("solution", "box"), "module": "box"},
            RIGHT,
            1.0,
            2,
            id="module",
        ),
        pytest.param(STDIN, READS, 1.0, 2, id="stdin, right"),
        pytest.param(STDIN, "```python\ninput()\nprint(2)\n```", 0.5, 2, id="stdin, half"),
        pytest.param(
            STDIN,
            "```python\nif __name__ == '__main__':\n    print(int(input()) + 1)\n```",
            1.0,
            2,
            id="stdin, main block",
        ),
        pytest.param(CALLS, RIGHT, 1.0, 2, id="calls, right"),
        pytest.param(CALLS, HALF, 0.5, 2, id="calls, half"),
        pytest.param(CALLS, METHOD, 1.0, 2, id="calls, as a method of Solution"),
    ],
)
def test_other_forms(
    fraction: UnitTests,
    attempt: Callable[..., Attempt],
    reference: dict[str, Any],
    completion: str,
    value: float,
    total: int,
) -> None:
    (verdict,) = judge(fraction, attempt(completion, **reference))
    assert (verdict.outcome, verdict.value) == (Outcome.VALID, value), verdict.reason
    assert verdict.details["tests_total"] == total


@pytest.mark.parametrize("reference", [CHECK, TEST_FILE, STDIN, CALLS])
def test_no_python_is_an_honest_zero(
    fraction: UnitTests, attempt: Callable[..., Attempt], reference: dict[str, Any]
) -> None:
    (verdict,) = judge(fraction, attempt("```python\ndef f(x:\n```", **reference))
    assert (verdict.outcome, verdict.value, verdict.reason) == (Outcome.VALID, 0.0, "syntax_error")


def test_a_batch_keeps_its_order(fraction: UnitTests, attempt: Callable[..., Attempt]) -> None:
    batch = [attempt(answer, tests=TESTS) for answer in (RIGHT, "(", HALF, RIGHT)]
    batch.insert(1, attempt(RIGHT))
    verdicts = judge(fraction, *batch)
    assert [v.value for v in verdicts if v.outcome is Outcome.VALID] == [1.0, 0.0, 0.5, 1.0]
    assert verdicts[1].outcome is Outcome.ABSENT
    assert judge(fraction) == []


def test_groups_share_the_slots(fraction: UnitTests, attempt: Callable[..., Attempt]) -> None:
    async def several() -> list[list[Verdict]]:
        groups = [[attempt(answer, tests=TESTS)] * 2 for answer in (RIGHT, HALF, RIGHT)]
        return list(await asyncio.gather(*(fraction.judge(group) for group in groups)))

    assert [[verdict.value for verdict in group] for group in asyncio.run(several())] == [[1, 1], [0.5, 0.5], [1, 1]]


@pytest.mark.parametrize("reference", [{}, {"tests": []}, {"form": "stdin", "cases": []}])
def test_without_tests_the_term_is_absent(
    fraction: UnitTests, attempt: Callable[..., Attempt], reference: dict[str, object]
) -> None:
    (verdict,) = judge(fraction, attempt(RIGHT, **reference))
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSENT, "no_tests")


@pytest.mark.parametrize("extra", [{"tests": "assert f(1) == 2"}, {"setup": 1}, {"form": "check", "test": "x"}])
def test_a_malformed_reference_is_no_zero(
    fraction: UnitTests, attempt: Callable[..., Attempt], extra: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (verdict,) = judge(fraction, attempt(RIGHT, **{"tests": TESTS, **extra}))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "malformed_reference")
    assert "domain 'code'" in caplog.text


@pytest.mark.parametrize(
    "extra",
    [
        {"setup": "import no_such_module_of_ours"},
        {"tests": ["assert f(1 == 2"]},
        {"form": "check", "test": "def check(:", "entry_point": "f"},
        {"form": "test_file", "test": "def test(:"},
    ],
)
def test_a_broken_task_is_no_zero(
    fraction: UnitTests, attempt: Callable[..., Attempt], extra: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (verdict,) = judge(fraction, attempt(RIGHT, **{"tests": TESTS, **extra}))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "sandbox_fault")
    assert "sandbox fault: " in caplog.text


def test_prefill_and_setup(fraction: UnitTests, attempt: Callable[..., Attempt]) -> None:
    one = attempt(
        "    return math.floor(x) + 1\n```\nThat's it.",
        prefill="```python\nimport math\ndef f(x):\n",
        tests=("assert f(1.5) == TWO",),
        setup="TWO = 2",
        entry_point="f",
    )
    assert judge(fraction, one)[0].value == 1.0


@pytest.mark.parametrize("name", ["cpu_time_s", "wall_time_s", "memory_mib", "output_kib", "tmp_mib", "slots"])
def test_limits_must_be_positive(name: str) -> None:
    with pytest.raises(RewardError, match=f"^{name}=0: set a positive number"):
        UnitTests.Settings(**{name: 0})  # pyright: ignore[reportArgumentType]


def test_a_tolerance_for_numbers(attempt: Callable[..., Attempt]) -> None:
    values: list[float] = []
    for tolerance in (0.0, 1e-6):
        reward = UnitTests(UnitTests.Settings(float_tolerance=tolerance, slots=1, **LIMITS))
        try:
            values += [judge(reward, attempt(RIGHT, **CALLS_FLOAT))[0].value]
        finally:
            reward.close()
    assert values == [0.0, 1.0]
    with pytest.raises(RewardError, match=r"^float_tolerance=1\.0: "):
        UnitTests.Settings(float_tolerance=1.0)


def test_a_machine_that_can_not_isolate_is_found_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(RewardError, match="needs Linux"):
        UnitTests.check(UnitTests.Settings())


def test_programs_of_a_group_can_not_forge_a_pass(fraction: UnitTests, attempt: Callable[..., Attempt]) -> None:
    forgeries = [
        "class Yes:\n    def __eq__(self, other): return True\ndef f(x): return Yes()",
        "import os\ndef f(x): os._exit(0)",
        "import builtins\nbuiltins.AssertionError = type('A', (), {})\ndef f(x): return 0",
        "import sys\nprint('ok ok ok')\nsys.exit(0)",
    ]
    verdicts = judge(fraction, *(attempt(f"```python\n{code}\n```", tests=TESTS[:1]) for code in forgeries))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.VALID] * 4
    assert [verdict.value for verdict in verdicts[1:]] == [0.0] * 3
    # Whether an object is asked for the truth is for the sandbox to say, and then it says so.
    assert verdicts[0].value == 0.0 or verdicts[0].details.get("delegated") == 1
