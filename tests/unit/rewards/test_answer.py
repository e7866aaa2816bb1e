"""The reward `answer`."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rewards.answer import Answer, Mode
from rewards.base import Attempt, Outcome, RewardError, Verdict

needs_math = pytest.mark.skipif(importlib.util.find_spec("math_verify") is None, reason="math-verify is not installed")


def judge(attempt: Attempt, **settings: Any) -> Verdict:
    reward = Answer(Answer.Settings(**settings))
    try:
        (verdict,) = reward.judge([attempt])
        return verdict
    finally:
        reward.close()


@pytest.mark.parametrize(
    ("completion", "known", "value", "reason"),
    [
        ("48/2 = 24, and 48+24 = 72.\n#### 72", "Natalia sold 48/2 = <<48/2=24>>24.\n#### 72", 1.0, ""),
        (r"\boxed{72}", "72", 1.0, ""),
        ("It is 72 dollars.", "72", 1.0, ""),
        ("It is 72 dollars.", 72, 1.0, ""),
        ("The answer is 1,000.0", "1000", 1.0, ""),
        (r"\boxed{\frac{1}{2}}", "0.5", 1.0, ""),
        (r"\boxed{0.3333333}", "1/3", 1.0, ""),
        (r"\boxed{0.333}", "1/3", 0.0, "wrong"),
        (r"\boxed{71} is not 72", "72", 0.0, "wrong"),
        ("<think>It is 72.</think> It is 71.", "72", 0.0, "wrong"),
        ("I don't know.", "72", 0.0, "no_answer"),
        (r"\boxed{many}", "72", 0.0, "no_answer"),
        ("", "72", 0.0, "no_answer"),
    ],
)
def test_numeric(attempt: Callable[..., Attempt], completion: str, known: object, value: float, reason: str) -> None:
    verdict = judge(attempt(completion, answer=known))
    assert (verdict.outcome, verdict.value, verdict.reason) == (Outcome.VALID, value, reason)


def test_tolerance_is_relative_above_one(attempt: Callable[..., Attempt]) -> None:
    close = attempt(r"\boxed{1000.5}", answer="1000")
    assert judge(close, tolerance=0.0005).value == 1.0
    assert judge(close, tolerance=0.00049).value == 0.0
    assert judge(attempt(r"\boxed{0.001}", answer="0"), tolerance=0.0).value == 0.0
    assert judge(attempt(r"\boxed{0.001}", answer="0"), tolerance=0.001).value == 1.0


def test_whole_numbers_are_equal_or_not(attempt: Callable[..., Attempt]) -> None:
    assert judge(attempt(r"\boxed{1450001}", answer="1450000")).value == 0.0
    assert judge(attempt(r"\boxed{1450000.000}", answer="1450000")).value == 1.0


@pytest.mark.parametrize(
    ("completion", "known", "settings", "value"),
    [
        ("Well.\nParis.", "Paris", {}, 1.0),
        ("Well.\nParis, I think.", "Paris", {}, 0.0),
        (r"\boxed{\text{Paris}}", "Paris", {}, 1.0),
        ("The answer is paris.", "Paris", {}, 0.0),
        ("The answer is paris.", "Paris", {"ignore_case": True}, 1.0),
        ("Paris", "Paris", {"marked_only": True}, 0.0),
        ("<answer>Paris</answer>", "Paris", {"marked_only": True}, 1.0),
    ],
)
def test_exact(
    attempt: Callable[..., Attempt], completion: str, known: str, settings: dict[str, Any], value: float
) -> None:
    assert judge(attempt(completion, answer=known), mode=Mode.EXACT, **settings).value == value


@pytest.mark.parametrize("known", [None, ""])
def test_without_a_known_answer_it_is_absent(attempt: Callable[..., Attempt], known: object) -> None:
    assert judge(attempt("72", answer=known)).outcome is Outcome.ABSENT
    assert judge(attempt("72")).reason == "no_reference_answer"


@pytest.mark.parametrize("known", [["72"], True, {}, "seventy-two"])
def test_a_known_answer_that_can_not_be_read_is_no_zero(attempt: Callable[..., Attempt], known: object) -> None:
    verdict = judge(attempt("72", answer=known))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "malformed_reference")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tolerance": -1.0}, r"tolerance=-1\.0: "),
        ({"tolerance": 1.0}, "tolerance="),
        ({"timeout_s": 0.0}, r"timeout_s=0\.0: "),
    ],
)
def test_bad_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=f"^{message}"):
        Answer.Settings(**fields)


def test_a_missing_package_is_found_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    Answer.check(Answer.Settings())
    for early in (Answer.check, Answer):
        with pytest.raises(RewardError, match=r"^mode='math': needs the package math-verify; pip install math-verify"):
            early(Answer.Settings(mode=Mode.MATH))


@pytest.fixture(scope="module")
def math() -> Iterator[Answer]:
    reward = Answer(Answer.Settings(mode=Mode.MATH, timeout_s=30.0))
    yield reward
    reward.close()


@needs_math
@pytest.mark.parametrize(
    ("completion", "known", "value"),
    [
        (r"\boxed{(x+1)^2}", "x^2+2x+1", 1.0),
        (r"\boxed{(x+1)^2}", "x^2+2x+2", 0.0),
        (r"\boxed{\sqrt{12}}", r"2\sqrt{3}", 1.0),
        (r"\boxed{\{2, 1\}}", r"\{1,2\}", 1.0),
        (r"\boxed{x = 5}", "5", 1.0),
        (r"\boxed{0.5}", r"So it is \boxed{\frac{1}{2}}.", 1.0),
        (r"\boxed{50\%}", "50", 1.0),
        ("Hence $y = 3$ and so the area is $9\\pi$.", r"9\pi", 1.0),
        ("Nothing.", "5", 0.0),
        (r"\boxed{\frac{1}{0}}", "5", 0.0),
        (r"\boxed{\text{no solution}}", "no solution", 1.0),
        (r"\boxed{}{}}\frac{", "5", 0.0),
    ],
)
def test_math(math: Answer, attempt: Callable[..., Attempt], completion: str, known: str, value: float) -> None:
    (verdict,) = math.judge([attempt(completion, answer=known)])
    assert (verdict.outcome, verdict.value) == (Outcome.VALID, value), verdict.reason


@needs_math
def test_math_works_in_any_thread(math: Answer, attempt: Callable[..., Attempt]) -> None:
    values: list[float] = []
    group = [attempt(rf"\boxed{{{k}x + x}}", answer="3x") for k in range(4)]
    threads = [
        threading.Thread(target=lambda: values.extend(verdict.value for verdict in math.judge(group))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == [0.0] * 9 + [1.0] * 3


@needs_math
def test_an_answer_that_computes_for_ever_is_no_zero(attempt: Callable[..., Attempt]) -> None:
    reward = Answer(Answer.Settings(mode=Mode.MATH, timeout_s=1.0))
    try:
        reward.judge([attempt(r"\boxed{x}", answer="y")])  # its libraries are warm from here on
        (verdict,) = reward.judge([attempt(r"\boxed{9^{9^{9^{9}}}}", answer="5")])
    finally:
        reward.close()
    assert verdict.outcome is Outcome.FAILED
    assert verdict.reason in ("math_timeout", "math_died", "math_raised")
