"""Settings of every kind travel to a worker process as they are."""

from __future__ import annotations

import pickle

import pytest

from rewards.answer import Answer, Mode
from rewards.code import Scoring, UnitTests
from rewards.function import Function
from rewards.judge import Judge
from rewards.length import Length
from rewards.reasoning_gym import ReasoningGym
from rewards.repetition import Repetition, Unit
from rewards.rubric import ScoreFormat


@pytest.mark.parametrize(
    "settings",
    [
        Answer.Settings(mode=Mode.MATH),
        Function.Settings(path="a.b:c", arguments={"x": [1]}),
        Judge.Settings(base_url="http://h/v1", model="m", score_format=ScoreFormat.JSON, extra_body={"seed": None}),
        Length.Settings(max_tokens=5, buffer_tokens=2),
        ReasoningGym.Settings(),
        Repetition.Settings(unit=Unit.WORDS),
        UnitTests.Settings(scoring=Scoring.ALL),
    ],
)
def test_settings_can_be_pickled(settings: object) -> None:
    assert pickle.loads(pickle.dumps(settings)) == settings
