"""The reward term `unit_tests`, from answer to verdict."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

import pytest

from rewards.base import Attempt, Outcome
from rewards.code import UnitTests

TESTS = ["assert f(1) == 2", "assert f(2) == 3", "assert f(3) == 4", "assert f(0) == 1"]
RIGHT = "```python\ndef f(x):\n    return x + 1\n```"
HALF = "```python\ndef f(x):\n    return x + 1 if x < 2 else 0\n```"
HANGS = "```python\ndef f(x):\n    while x == 3: pass\n    return x + 1\n```"
LEAVES = "```python\nimport os\ndef f(x):\n    return x + 1 if x < 2 else os._exit(0)\n```"


@pytest.fixture(scope="module")
def fraction() -> Iterator[UnitTests]:
    reward = UnitTests(scoring="fraction", cpu_time_s=0.5, wall_time_s=30.0, memory_mib=128)
    yield reward
    reward.close()


@pytest.fixture(scope="module")
def every() -> Iterator[UnitTests]:
    reward = UnitTests(scoring="all", cpu_time_s=0.5, wall_time_s=30.0, memory_mib=128, slots=1)
    yield reward
    reward.close()


@pytest.mark.parametrize(
    ("completion", "passed", "reason"),
    [
        pytest.param(RIGHT, 4, "", id="right"),
        pytest.param(HALF, 2, "failed", id="half right"),
        pytest.param(HANGS, 2, "timeout", id="passed two, then hung"),
        pytest.param(LEAVES, 1, "failed", id="passed one, then left"),
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
    (share,), (whole,) = fraction.judge([one]), every.judge([one])
    assert (share.outcome, share.value, share.reason) == (Outcome.VALID, passed / 4, reason)
    assert (whole.outcome, whole.value, whole.reason) == (Outcome.VALID, float(passed == 4), reason)
    assert share.details == whole.details == {"tests_passed": passed, "tests_total": 4}


def test_a_batch_keeps_its_order(fraction: UnitTests, attempt: Callable[..., Attempt]) -> None:
    batch = [attempt(answer, tests=TESTS) for answer in (RIGHT, "(", HALF, RIGHT)]
    batch.insert(1, attempt(RIGHT))
    verdicts = fraction.judge(batch)
    assert [v.value for v in verdicts if v.outcome is Outcome.VALID] == [1.0, 0.0, 0.5, 1.0]
    assert verdicts[1].outcome is Outcome.ABSENT
    assert fraction.judge([]) == []


@pytest.mark.parametrize("reference", [{}, {"tests": []}, {"tests": None}])
def test_without_tests_the_term_is_absent(
    fraction: UnitTests, attempt: Callable[..., Attempt], reference: dict[str, object]
) -> None:
    (verdict,) = fraction.judge([attempt(RIGHT, **reference)])
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSENT, "no_tests")


@pytest.mark.parametrize("extra", [{"tests": "assert f(1) == 2"}, {"tests": [1]}, {"setup": 1}, {"entry_point": 1}])
def test_a_malformed_reference_is_no_zero(
    fraction: UnitTests, attempt: Callable[..., Attempt], extra: dict[str, object]
) -> None:
    (verdict,) = fraction.judge([attempt(RIGHT, **{"tests": TESTS, **extra})])
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "malformed_reference")


@pytest.mark.parametrize("extra", [{"setup": "import no_such_module_of_ours"}, {"tests": ["assert f(1 == 2"]}])
def test_a_broken_task_is_no_zero(
    fraction: UnitTests, attempt: Callable[..., Attempt], extra: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        (verdict,) = fraction.judge([attempt(RIGHT, **{"tests": TESTS, **extra})])
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "sandbox_fault")
    assert "setup or test of the task" in caplog.text


def test_prefill_and_setup(fraction: UnitTests, attempt: Callable[..., Attempt]) -> None:
    one = attempt(
        "    return math.floor(x) + ONE\n```\nThat's it.",
        prefill="```python\ndef f(x):\n",
        tests=("assert f(1.5) == TWO",),
        setup="import math\nONE, TWO = 1, 2",
        entry_point="f",
    )
    assert fraction.judge([one])[0].value == 1.0
