"""The term `compassion`: settings, the gate, what the judge's grades become."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards import registry
from rewards.base import Attempt, Outcome, RewardError, Verdict
from rewards.compassion import Compassion, Gate, settle
from rewards.compassion_rubric import NOBODY
from rewards.squash import Squash
from tests.unit.rewards import chat_server as server

HENS = "How many hens can I keep in a shed?"
SUM = "What is 17 * 23?"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


def attempt(prompt: str, completion: str) -> Attempt:
    return Attempt(
        prompt=(("user", prompt),),
        prefill="",
        completion=completion,
        token_ids=(),
        reference={},
        finish_reason="stop",
        domain="helpfulness",
    )


def ask(url: str, attempts: Sequence[Attempt], **settings: Any) -> Sequence[Verdict]:
    judge = {"base_url": url, "model": "m", "timeout_s": 20.0, "retries": 0, "max_concurrency": 1}
    own = registry.settings_of("compassion", {"form": "judge", "judge": judge, "gate": "lexicon", **settings}, "term")
    reward = registry.build("compassion", own, "term")
    try:
        verdicts = reward.judge(attempts)
        assert not isinstance(verdicts, Sequence)
        return asyncio.run(_await(verdicts))
    finally:
        reward.close()


async def _await(verdicts: Any) -> Sequence[Verdict]:
    return await verdicts


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"model": ""}, "model="),
        ({"form": "judge"}, "judge.base_url="),
        ({"judge": {"model": "m"}}, "judge="),
        ({"form": "judge", "judge": {"low": 1}}, "judge.low="),
        ({"pairs": "x.jsonl"}, "pairs="),
        ({"scale": 0.0}, "scale="),
        ({"max_length": 3}, "max_length="),
        ({"gate_model": ""}, "gate_model="),
        ({"relevant_words": ["hen", " "]}, "relevant_words="),
        ({"apply": "sometimes"}, "apply="),
    ],
)
def test_settings_that_cannot_work_are_named(settings: dict[str, Any], key: str) -> None:
    with pytest.raises(RewardError, match=rf"^reward\.terms\.c\.settings\.{key}"):
        registry.settings_of("compassion", settings, "reward.terms.c.settings")


def test_the_driver_learns_which_field_names_a_model() -> None:
    settings = registry.settings_of("compassion", {}, "term")
    assert registry.model_fields(settings) == ["model", "gate_model"]
    assert settings.model == "smollm2-135m-compassion"


def test_a_judge_grades_by_the_rubric() -> None:
    with server.serving(server.says("The hens are seen.\nScore: 8")) as endpoint:
        (verdict,) = ask(endpoint.url, [attempt(HENS, "Six, with perches.")])
    assert verdict == Verdict.valid(0.8, {"score": 8.0})
    system, question = (message["content"] for message in endpoint.bodies[0]["messages"])
    assert "insects" in system and "from -1 to 10" in system
    assert HENS in question and "Six, with perches." in question


def test_a_judge_that_breaks_gives_no_number() -> None:
    with server.serving(server.raw(500)) as endpoint:
        (verdict,) = ask(endpoint.url, [attempt(HENS, "Six.")])
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "endpoint_http_500")


def test_a_prompt_that_concerns_nobody_is_absent_and_not_asked_about() -> None:
    with server.serving(server.says("Score: 3")) as endpoint:
        verdicts = ask(endpoint.url, [attempt(SUM, "391"), attempt(SUM, "Think of the hens in their cages!")])
        assert [verdict.outcome for verdict in verdicts] == [Outcome.ABSENT] * 2
        assert {verdict.reason for verdict in verdicts} == {"not_relevant"}
        assert not endpoint.bodies
        (always,) = ask(endpoint.url, [attempt(SUM, "391")], apply="always")
    assert always.value == pytest.approx(0.3)


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_whether_it_applies_depends_on_the_prompt_alone(completions: list[str]) -> None:
    class Recorder:
        def __init__(self) -> None:
            self.seen: list[str] = []

        def __call__(self, attempts: Sequence[Attempt]) -> list[Verdict]:
            self.seen += [one.completion for one in attempts]
            return [Verdict.valid(0.5) for _ in attempts]

    recorder, reward = Recorder(), object.__new__(Compassion)
    reward._settings, reward._scores = Compassion.Settings(gate=Gate.lexicon), recorder  # pyright: ignore
    reward._judge = reward._gate = None  # pyright: ignore
    hens = reward.judge([attempt(HENS, text) for text in completions])
    sums = reward.judge([attempt(SUM, text) for text in completions])
    assert isinstance(hens, Sequence) and isinstance(sums, Sequence)
    assert all(verdict.outcome is Outcome.VALID for verdict in hens)
    assert all(verdict.outcome is Outcome.ABSENT for verdict in sums)
    assert recorder.seen == completions


def graded(*scores: float) -> list[Verdict]:
    return [Verdict.valid((score + 1) / 11, {"score": score}) for score in scores]


def test_nobody_is_decided_for_a_whole_group() -> None:
    group = [attempt(HENS, text) for text in "abc"]
    assert [v.outcome for v in settle(group, graded(NOBODY, NOBODY, NOBODY))] == [Outcome.ABSENT] * 3
    # One answer alone can't opt out: its question does concern someone, as the others show.
    assert [v.value for v in settle(group, graded(10, NOBODY, 0))] == [1.0, 0.0, 0.0]
    one, other = settle([attempt(HENS, "a"), attempt(SUM, "b")], graded(5, NOBODY))
    assert one.value == 0.5 and other.outcome is Outcome.ABSENT


def test_grades_between_nobody_and_the_scale_are_none() -> None:
    (verdict,) = settle([attempt(HENS, "a")], graded(-0.5))
    assert (verdict.outcome, verdict.reason) == (Outcome.FAILED, "judge_unparseable")


def test_a_broken_grade_stays_broken() -> None:
    broken = Verdict.failed("endpoint_timeout")
    assert settle([attempt(HENS, "a"), attempt(HENS, "b")], [broken, *graded(NOBODY)])[0] is broken


def test_scores_are_squashed_around_the_training_answers() -> None:
    squash = Squash(center=2.0, scale=4.0)
    assert squash(2.0) == 0.5
    assert squash(6.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert squash(-1e6) == 0.0 and squash(1e6) == 1.0


def test_the_spread_comes_from_the_settings_or_the_model(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"^center=null"):
        Squash.of(tmp_path, None, 1.0)
    assert Squash.of(tmp_path, 0.5, 2.0) == Squash(center=0.5, scale=2.0)
    facts = {"calibration": {"center": 1.0, "scale": 3.0}}
    (tmp_path / "reward_head.json").write_text(json.dumps(facts), encoding="utf-8")
    assert Squash.of(tmp_path, None, None) == Squash(center=1.0, scale=3.0)
    assert Squash.of(tmp_path, 7.0, None) == Squash(center=7.0, scale=3.0)
