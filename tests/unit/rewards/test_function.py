"""The reward `function`: other people's code becomes honest verdicts."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from rewards.base import Attempt, Outcome, Reward, RewardError, Verdict
from rewards.function import Function

HERE = "tests.unit.rewards.user_functions"


def judge(name: str, attempts: list[Attempt], **settings: Any) -> list[Verdict]:
    reward = Function(Function.Settings(path=f"{HERE}:{name}", **settings))
    assert isinstance(reward, Reward)
    if inspect.iscoroutinefunction(reward.judge):
        return asyncio.run(cast("Any", reward.judge(attempts)))
    return list(cast("Any", reward.judge(attempts)))


@pytest.mark.parametrize(
    ("name", "settings", "values"),
    [
        ("length", {}, [1, 3, 0]),
        ("length", {"arguments": {"scale": 0.5}}, [0.5, 1.5, 0]),
        ("slow_length", {}, [1, 3, 0]),
        ("ranks", {"batched": True}, [1, 2, 0]),
        ("slow_ranks", {"batched": True}, [1, 2, 0]),
        ("weigh", {}, [2, 2, 2]),
        ("weigh.later", {}, [3, 3, 3]),
        ("slow_weigh", {}, [4, 4, 4]),
    ],
)
def test_values(attempt: Callable[..., Attempt], name: str, settings: dict[str, Any], values: list[float]) -> None:
    verdicts = judge(name, [attempt("a"), attempt("abc"), attempt("")], **settings)
    assert [verdict.value for verdict in verdicts] == values
    assert {verdict.outcome for verdict in verdicts} == {Outcome.VALID}


@pytest.mark.parametrize(
    ("completion", "outcome", "reason"),
    [
        ("none", Outcome.ABSENT, "not_applicable"),
        ("nan", Outcome.FAILED, "reward is nan"),
        ("true", Outcome.VALID, ""),
        ("fraction", Outcome.VALID, ""),
        ("text", Outcome.FAILED, "not_a_number"),
        ("verdict", Outcome.FAILED, "my_reason"),
        ("else", Outcome.FAILED, "KeyError"),
    ],
)
def test_what_it_may_return(attempt: Callable[..., Attempt], completion: str, outcome: Outcome, reason: str) -> None:
    (verdict,) = judge("whatever", [attempt(completion)])
    assert (verdict.outcome, verdict.reason) == (outcome, reason)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("raises", "ZeroDivisionError"), ("raises_later", "ZeroDivisionError"), ("stops", "StopIteration")],
)
def test_what_it_raises_is_no_zero(
    attempt: Callable[..., Attempt], name: str, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    bad, *_ = verdicts = judge(name, [attempt(""), attempt("")])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.FAILED] * 2
    assert bad.reason == reason
    assert f"{name}(" in caplog.text or "Traceback" in caplog.text


def test_the_others_keep_their_values(attempt: Callable[..., Attempt]) -> None:
    verdicts = judge("raises", [attempt("ab"), attempt(""), attempt("abcd")])
    assert [verdict.outcome for verdict in verdicts] == [Outcome.VALID, Outcome.FAILED, Outcome.VALID]
    assert [verdicts[0].value, verdicts[2].value] == [0.5, 0.25]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("one_short", "wrong_number_of_values"),
        ("one_number", "wrong_number_of_values"),
        ("raises", "AttributeError"),  # it is given a tuple
    ],
)
def test_a_batch_that_goes_wrong(attempt: Callable[..., Attempt], name: str, reason: str) -> None:
    verdicts = judge(name, [attempt("a"), attempt("b")], batched=True)
    assert [(verdict.outcome, verdict.reason) for verdict in verdicts] == [(Outcome.FAILED, reason)] * 2


@pytest.mark.parametrize("path", ["", "module", "module:", ":f", "a b:f", "module:f()", "../x:f"])
def test_a_path_of_another_form_is_refused(path: str) -> None:
    with pytest.raises(RewardError, match=r"^path='.*': set it in the form"):
        Function.Settings(path=path)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("no_such_module_of_ours:f", r"^path='no_such.*ModuleNotFoundError.*PYTHONPATH"),
        (f"{HERE}:missing", r"^path=.*AttributeError"),
        (f"{HERE}:NUMBER", r"^path=.*is a int; name a function"),
    ],
)
def test_a_path_that_leads_nowhere_is_found_early(path: str, message: str) -> None:
    settings = Function.Settings(path=path)
    for early in (Function.check, Function):
        with pytest.raises(RewardError, match=message):
            early(settings)


def test_a_module_that_breaks_on_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_rewards_of_mine.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(RewardError, match=r"^path='broken_rewards_of_mine:f': .*ZeroDivisionError"):
        Function.check(Function.Settings(path="broken_rewards_of_mine:f"))


def test_arguments_that_do_not_fit() -> None:
    with pytest.raises(RewardError, match=r"^arguments=\{'size': 1\}: .*length does not take them"):
        Function.check(Function.Settings(path=f"{HERE}:length", arguments={"size": 1}))


@pytest.mark.parametrize(("name", "expected"), [("length", False), ("slow_length", True), ("slow_weigh", True)])
def test_the_worker_can_tell_which_way_to_ask(name: str, expected: bool) -> None:
    reward = Function(Function.Settings(path=f"{HERE}:{name}"))
    assert inspect.iscoroutinefunction(reward.judge) is expected
