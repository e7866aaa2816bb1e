"""The reward `reasoning_gym`, with the package's own tasks and verifiers."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from rewards.base import Attempt, Outcome, RewardError
from rewards.reasoning_gym import ReasoningGym

needs_package = pytest.mark.skipif(
    importlib.util.find_spec("reasoning_gym") is None, reason="reasoning-gym is not installed"
)


@pytest.fixture(scope="module")
def reward() -> Iterator[ReasoningGym]:
    made = ReasoningGym(ReasoningGym.Settings(timeout_s=60.0))
    yield made
    made.close()


def entries(dataset: str, count: int = 3) -> list[dict[str, Any]]:
    package: Any = importlib.import_module("reasoning_gym")
    return list(package.create_dataset(dataset, size=count, seed=7))


@needs_package
@pytest.mark.parametrize("dataset", ["basic_arithmetic", "leg_counting", "spell_backward", "simple_equations"])
def test_its_own_answers_are_right(reward: ReasoningGym, attempt: Callable[..., Attempt], dataset: str) -> None:
    for entry in entries(dataset):
        task = {"reasoning_gym": {"dataset": dataset, "entry": entry}}
        tagged, boxed, bare, wrong = reward.judge(
            [
                attempt(f"<think><answer>no</answer></think> So <answer> {entry['answer']} </answer>", **task),
                attempt(f"It is \\boxed{{{entry['answer']}}}", **task),
                attempt(f"{entry['answer']}\n", **task),
                attempt("<answer>certainly not</answer>", **task),
            ]
        )
        assert (tagged.value, boxed.value, bare.value) == (1.0, 1.0, 1.0)
        assert wrong.outcome is Outcome.VALID
        assert wrong.value < 0.5


@needs_package
def test_other_tasks_and_broken_ones(reward: ReasoningGym, attempt: Callable[..., Attempt]) -> None:
    verdicts = reward.judge(
        [
            attempt("5"),
            attempt("5", reasoning_gym="leg_counting"),
            attempt("5", reasoning_gym={"dataset": "leg_counting"}),
            attempt("5", reasoning_gym={"dataset": "no_such_set", "entry": {"answer": "5"}}),
            attempt("5", reasoning_gym={"dataset": "leg_counting", "entry": {}}),
        ]
    )
    assert verdicts[0].outcome is Outcome.ABSENT
    assert {verdict.outcome for verdict in verdicts[1:]} == {Outcome.FAILED}
    assert [verdict.reason for verdict in verdicts[1:]] == [
        "malformed_reference",
        "malformed_reference",
        "unknown_dataset",
        "reasoning_gym_raised",
    ]


def test_a_missing_package_is_found_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RewardError, match="pip install reasoning-gym"):
        ReasoningGym.check(ReasoningGym.Settings())


@pytest.mark.parametrize(
    ("fields", "message"), [({"tag": "<answer>"}, "tag='<answer>': "), ({"timeout_s": 0.0}, r"timeout_s=0\.0: ")]
)
def test_bad_settings_are_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=f"^{message}"):
        ReasoningGym.Settings(**fields)
