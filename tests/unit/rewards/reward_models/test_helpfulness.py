"""The term `helpfulness`: its settings, and the way from them to a verdict in each form."""

from __future__ import annotations

import asyncio
import inspect
from pathlib import Path
from typing import Any

import pytest

from rewards import registry
from rewards.base import Outcome, RewardError
from rewards.helpfulness import DEFAULT_MODEL, Form
from tests.unit.rewards import chat_server as server
from tests.unit.rewards.reward_models import checkpoints as made
from tests.unit.rewards.reward_models.attempts import attempts

KEY = "reward.terms.helpfulness.settings"


def settings(**values: Any) -> Any:
    return registry.settings_of("helpfulness", values, KEY)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"form": "classifier"}, r"form='classifier': "),
        ({"form": "armorm", "model": ""}, r"model='': form=armorm needs one"),
        ({"max_length": 3}, r"max_length=3: set at least 16"),
        ({"micro_batch_tokens": 0}, r"micro_batch_tokens=0: set at least 16"),
        ({"opponents_per_attempt": 0}, r"opponents_per_attempt=0: set at least 1, or null"),
        ({"dtype": "int8"}, r"dtype='int8': "),
        ({"judge": {"model": "m"}}, r"judge=.*is for form=judge"),
        ({"form": "judge"}, r"judge\.base_url='': "),
        ({"form": "judge", "judge": {"modle": "x"}}, r"judge\.modle='x': unknown key\. Did you mean 'model'"),
    ],
)
def test_what_can_not_work_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=rf"^{KEY}\.{message}"):
        settings(**values)


def test_the_default_is_the_shipped_model_and_a_judge_fetches_none() -> None:
    assert settings().model == DEFAULT_MODEL
    assert registry.model_fields(settings()) == ["model"]
    assert settings(form="judge", judge={"base_url": "http://localhost:1/v1", "model": "m"}).model == ""


@pytest.mark.parametrize("form", [form for form in Form if form is not Form.judge])
def test_each_form_from_settings_to_verdicts(tmp_path: Path, form: Form) -> None:
    builders = {
        Form.sequence_classification: made.classifier,
        Form.armorm: made.armorm,
        Form.pairwise: made.language_model,
    }
    builders[form](tmp_path)
    values = settings(form=form.value, model=str(tmp_path), device="cpu")
    registry.preflight("helpfulness", values, KEY)
    reward = registry.build("helpfulness", values, KEY)
    verdicts = reward.judge(attempts(made.ANSWERS))
    assert not inspect.isawaitable(verdicts)
    assert [verdict.outcome for verdict in verdicts] == [Outcome.VALID] * len(made.ANSWERS)
    assert len({verdict.value for verdict in verdicts}) == len(made.ANSWERS)
    reward.close()


@pytest.mark.parametrize("form", ["armorm", "pairwise"])
def test_a_model_of_another_form_is_refused_before_anything_starts(tmp_path: Path, form: str) -> None:
    made.classifier(tmp_path)
    with pytest.raises(RewardError, match=rf"^{KEY}\.model=.*set the form that fits it"):
        registry.preflight("helpfulness", settings(form=form, model=str(tmp_path)), KEY)


def test_a_name_that_nobody_resolved_is_refused() -> None:
    with pytest.raises(RewardError, match=rf"^{KEY}\.model='.*no model directory here"):
        registry.preflight("helpfulness", settings(), KEY)


def test_a_judge_is_asked_about_helpfulness() -> None:
    with server.serving(server.says("Fine.\nScore: 7"), server.raw(400)) as endpoint:
        values = settings(form="judge", judge={"base_url": endpoint.url, "model": "m", "max_concurrency": 1})
        registry.preflight("helpfulness", values, KEY)
        reward = registry.build("helpfulness", values, KEY)
        answered = reward.judge(attempts(["good", "bad"], (("user", "Why?"),)))
        assert inspect.isawaitable(answered)

        async def verdicts() -> Any:
            return await answered

        first, second = asyncio.run(verdicts())
        reward.close()
    assert sorted([first.outcome, second.outcome]) == [Outcome.FAILED, Outcome.VALID]
    assert {first.value, second.value} >= {0.7}
    assert "How helpful is the answer" in endpoint.bodies[0]["messages"][-1]["content"]
