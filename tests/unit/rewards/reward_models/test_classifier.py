"""Sequence classification: batched as one by one, whatever the padding; no silent random head."""

from __future__ import annotations

import itertools
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaForSequenceClassification

from rewards.base import Outcome, RewardError
from rewards.reward_models.classifier import SequenceClassifier
from rewards.reward_models.encoding import ChatEncoder
from rewards.reward_models.loading import Checkpoint, Dtype
from rewards.reward_models.scorers import PointwiseScorer
from tests.unit.rewards.reward_models import checkpoints as made
from tests.unit.rewards.reward_models.attempts import attempts

TOLERANCE = 1e-4


def load(path: Path, *, max_length: int = 2048, label: str = "", dtype: Dtype = Dtype.float32) -> SequenceClassifier:
    checkpoint = Checkpoint(path=path, dtype=dtype, device="cpu")
    return SequenceClassifier(checkpoint, ChatEncoder(checkpoint.tokenizer()), max_length=max_length, label=label)


def scores(model: SequenceClassifier, answers: Any, micro_batch_tokens: int) -> list[float]:
    verdicts = PointwiseScorer(model, micro_batch_tokens).judge(attempts(answers))
    assert all(verdict.outcome is Outcome.VALID for verdict in verdicts)
    return [verdict.value for verdict in verdicts]


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return made.classifier(tmp_path_factory.mktemp("classifier"))


def oracle(path: Path) -> list[float]:
    """Row by row, unpadded, in plain transformers, from ids put together by hand."""
    model = LlamaForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    with torch.no_grad():
        return [model(torch.tensor([made.by_hand(answer)])).logits.item() for answer in made.ANSWERS]


@pytest.fixture(scope="module")
def expected(path: Path) -> list[float]:
    return oracle(path)


@pytest.mark.parametrize("micro_batch_tokens", [16, 400, 1000, 100_000])
def test_batched_is_one_by_one(path: Path, expected: list[float], micro_batch_tokens: int) -> None:
    model = load(path)
    assert scores(model, made.ANSWERS, micro_batch_tokens) == pytest.approx(expected, abs=TOLERANCE)
    assert min(abs(a - b) for a, b in itertools.combinations(expected, 2)) > 100 * TOLERANCE, "a mix-up would show"


def test_order_does_not_matter(path: Path, expected: list[float]) -> None:
    order = random.Random(0).sample(range(len(made.ANSWERS)), len(made.ANSWERS))
    found = scores(load(path), [made.ANSWERS[place] for place in order], 1000)
    assert found == pytest.approx([expected[place] for place in order], abs=TOLERANCE)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad_id", [3, 263, None, -1])
def test_padding_does_not_matter(tmp_path: Path, side: str, pad_id: int | None) -> None:
    """Padding that is the turn's end (3), that occurs nowhere (263), and none: each row is as when it is alone."""
    options = {"padding_side": side, "pad_token": made.EOT}
    made.classifier(tmp_path, tokenizer_options=options)
    made.configure(tmp_path, pad_token_id=pad_id)
    assert scores(load(tmp_path), made.ANSWERS, 100_000) == pytest.approx(oracle(tmp_path), abs=TOLERANCE)


def test_the_last_token_is_read_unless_it_is_the_padding(tmp_path: Path, expected: list[float]) -> None:
    model = LlamaForSequenceClassification.from_pretrained(made.classifier(tmp_path), dtype=torch.float32).eval()
    with torch.no_grad():
        states = model.model(torch.tensor([made.by_hand("6")])).last_hidden_state
        last, before = (model.score(states)[0, place].item() for place in (-1, -2))
    assert expected[0] == pytest.approx(before, abs=TOLERANCE)
    made.configure(tmp_path, pad_token_id=None)
    assert scores(load(tmp_path), made.ANSWERS, 1000)[0] == pytest.approx(last, abs=TOLERANCE)


def test_truncation_keeps_the_end(path: Path) -> None:
    prompt = made.PROMPT
    short, long = load(path, max_length=64), load(path)
    row = short.encode(prompt, made.ANSWERS[3])
    whole = long.encode(prompt, made.ANSWERS[3])
    assert (row.is_truncated, whole.is_truncated) == (True, False)
    assert list(row.ids) == [0, *whole.ids[-63:]]
    [verdict] = PointwiseScorer(short, 1000).judge(attempts(made.ANSWERS[3:4]))
    assert verdict.details["truncated"] == 1


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_a_broken_model_fails_and_never_scores_0(tmp_path: Path, broken: float) -> None:
    made.edit_weights(made.classifier(tmp_path), "score.weight", torch.full((1, made.HIDDEN), broken))
    verdicts = PointwiseScorer(load(tmp_path), 1000).judge(attempts(made.ANSWERS))
    assert {verdict.outcome for verdict in verdicts} == {Outcome.FAILED}
    assert all(verdict.reason.startswith("reward is ") and math.isnan(verdict.value) for verdict in verdicts)


def test_a_head_that_is_not_in_the_checkpoint_is_refused(tmp_path: Path) -> None:
    made.edit_weights(made.classifier(tmp_path), "score.weight", None)
    with pytest.raises(RewardError, match=r"score\.weight not in the checkpoint, so .* random weights"):
        load(tmp_path)


def test_a_head_of_another_shape_is_refused(tmp_path: Path) -> None:
    made.edit_weights(made.classifier(tmp_path), "score.weight", torch.zeros(2, made.HIDDEN))
    with pytest.raises(RewardError, match="model="):
        load(tmp_path)


def test_a_language_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"a LlamaForCausalLM, not a \*ForSequenceClassification"):
        load(made.language_model(tmp_path))


def test_several_labels_need_a_choice(tmp_path: Path, path: Path, expected: list[float]) -> None:
    made.classifier(tmp_path)
    weight = torch.nn.functional.pad(torch.ones(1, made.HIDDEN), (0, 0, 1, 0))
    made.edit_weights(tmp_path, "score.weight", weight)
    made.configure(tmp_path, id2label={"0": "bad", "1": "good"}, label2id={"bad": 0, "good": 1})
    with pytest.raises(RewardError, match=r"label='': the model has 2 labels, \{0: 'bad', 1: 'good'\}"):
        load(tmp_path)
    with pytest.raises(RewardError, match=r"label='fine': no such label"):
        load(tmp_path, label="fine")
    assert scores(load(tmp_path, label="bad"), made.ANSWERS[:2], 1000) == [0, 0]
    assert scores(load(tmp_path, label="good"), made.ANSWERS, 1000) == scores(
        load(tmp_path, label="1"), made.ANSWERS, 1000
    )


def test_bfloat16_weights_have_a_float32_head(path: Path, expected: list[float]) -> None:
    found = scores(load(path, dtype=Dtype.bfloat16), made.ANSWERS, 1000)
    assert found == pytest.approx(expected, abs=0.5)
    assert any(value != torch.tensor(value).bfloat16().item() for value in found), "rounded to three digits"


def test_a_conversation_that_the_template_refuses_fails_alone(path: Path, expected: list[float]) -> None:
    good, bad = attempts(made.ANSWERS[:1])[0], attempts(["x"], prompt=(("tool", "y"),))[0]
    verdicts = PointwiseScorer(load(path), 1000).judge([bad, good])
    assert verdicts[0].reason == "chat_template_refused"
    assert verdicts[0].outcome is Outcome.FAILED
    assert verdicts[1].value == pytest.approx(expected[0], abs=TOLERANCE)
