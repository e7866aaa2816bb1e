"""Gates: fitted by hand-made states, and the shipped one, which decides where the term `compassion` applies."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from grpo.config import ModelConfig
from grpo.errors import DataError, ModelError
from grpo.models import resolve_model
from grpo.reward_heads.gate import GateReport, fit_gate, read_labelled, read_one_sided
from grpo.reward_heads.head import RewardHead
from rewards import registry
from rewards.base import Attempt, Outcome, RewardError
from rewards.prompt_gate import PromptGate
from rewards.relevance import relevance
from rewards.reward_models.loading import Checkpoint, Dtype
from tests.conftest import ROOT

SHIPPED = ROOT / "grpo" / "reward_heads" / "shipped" / "smollm2-135m-relevance.safetensors"
PROMPTS = ROOT / "grpo" / "data" / "builtin" / "compassion_relevance.jsonl"
HELD_OUT = [row for row in read_labelled([PROMPTS]) if row.held_out]


def resolved(name: str) -> Path:
    try:
        return resolve_model(ModelConfig(path=name))
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def gate() -> PromptGate:
    return PromptGate(Checkpoint(path=resolved(SHIPPED.stem), dtype=Dtype.float32, device="cpu"), max_length=512)


def test_the_layer_that_tells_the_classes_apart_is_chosen() -> None:
    random = np.random.default_rng(0)
    passes = np.arange(60) % 3 == 0  # a third: the larger class must not draw the threshold
    states = random.normal(size=(60, 2, 5)).astype(np.float32)
    states[:, 1, 2] += np.where(passes, 7.0, 1.0)
    texts = [f"prompt {i}" for i in range(60)]
    weights, threshold, layer, facts = fit_gate(states, passes, texts, (4, 9), (0.1, 1.0))
    assert layer == 9
    assert facts["accuracy"] > 0.95
    assert ((states[:, 1] @ weights >= threshold) == passes).mean() > 0.95
    assert threshold / weights[2] == pytest.approx(4.0, abs=1.0)


def test_a_report_by_hand() -> None:
    passes = np.array([True, True, True, False, False])
    report = GateReport.of(passes, np.array([True, True, False, True, False]))
    assert report.precision.share == pytest.approx(2 / 3)
    assert report.recall.share == pytest.approx(2 / 3)
    assert report.specificity.share == pytest.approx(1 / 2)
    assert set(GateReport.of(passes[:3], passes[:3]).as_dict()) == {"precision", "recall"}


def test_rows_are_read_and_bad_ones_named(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"prompt": f"p {i}"}) + "\n" for i in range(100)))
    rows = read_one_sided([file], passes=False, held_out_share=0.3)
    assert {row.passes for row in rows} == {False}
    assert 15 <= sum(row.held_out for row in rows) <= 45
    with pytest.raises(DataError, match=r"rows\.jsonl:1: a row without relevant, split"):
        read_labelled([file])


def test_the_shipped_gate_says_what_it_achieves() -> None:
    facts = RewardHead.load(SHIPPED).facts
    for fact in ("source", "licence", "date", "num_training_prompts", "threshold"):
        assert facts[fact], fact
    assert facts["held_out"]["compassion_relevance"]["recall"]["count"] == sum(row.passes for row in HELD_OUT)


def test_the_shipped_gate_does_as_stated_and_better_than_the_lexicon(gate: PromptGate) -> None:
    passes = np.array([row.passes for row in HELD_OUT])
    found = np.array([gate.lets_through((("user", row.text),)) for row in HELD_OUT])
    stated = RewardHead.load(SHIPPED).facts["held_out"]["compassion_relevance"]
    report = GateReport.of(passes, found)
    # A score near the threshold may fall on the other side on another processor.
    assert report.recall.share == pytest.approx(stated["recall"]["share"], abs=0.03)
    assert report.specificity.share == pytest.approx(stated["specificity"]["share"], abs=0.03)
    words = GateReport.of(passes, np.array([relevance([("user", row.text)]).is_relevant for row in HELD_OUT]))
    assert report.recall.share > words.recall.share and report.precision.share > words.precision.share


def test_the_term_is_absent_by_the_prompt_alone(gate: PromptGate) -> None:
    del gate  # only to have its model composed
    values = {"model": str(resolved("smollm2-135m-compassion")), "gate_model": str(resolved(SHIPPED.stem))}
    reward = registry.build("compassion", registry.settings_of("compassion", values, "x"), "x")
    answers = ["Keep them warm and let them roam.", "", "What is 17 * 23?"]
    concerned = reward.judge([attempt("How do I keep eight hens in a small yard?", answer) for answer in answers])
    nobody = reward.judge([attempt("What is 17 * 23?", answer) for answer in (*answers, "Hens suffer in cages.")])
    assert isinstance(concerned, list) and isinstance(nobody, list)
    assert {verdict.outcome for verdict in concerned} == {Outcome.VALID}
    assert {verdict.reason for verdict in nobody} == {"not_relevant"}


def test_own_words_pass_whatever_the_gate_says() -> None:
    values = {
        "model": str(resolved("smollm2-135m-compassion")),
        "gate_model": str(resolved(SHIPPED.stem)),
        "relevant_words": ["tardigrade"],
    }
    reward = registry.build("compassion", registry.settings_of("compassion", values, "x"), "x")
    verdicts = reward.judge([attempt("Write a Python function for table tardigrade.", "pass")])
    assert isinstance(verdicts, list)
    assert verdicts[0].outcome is Outcome.VALID


def test_a_model_without_a_threshold_is_no_gate() -> None:
    settings = registry.settings_of("compassion", {"gate_model": str(resolved("smollm2-135m-compassion"))}, "x")
    with pytest.raises(RewardError, match=r"gate_model=.*tells no threshold"):
        registry.preflight("compassion", settings, "x")


def test_a_gate_that_is_not_needed_is_not_fetched() -> None:
    for values in ({"apply": "always"}, {"gate": "lexicon"}):
        settings = registry.settings_of("compassion", values, "x")
        assert settings.gate_model == ""


def attempt(prompt: str, answer: str) -> Attempt:
    return Attempt(
        prompt=(("user", prompt),),
        prefill="",
        completion=answer,
        token_ids=(),
        reference={},
        finish_reason="stop",
        domain="helpfulness",
    )
