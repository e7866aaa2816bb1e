"""Pairwise preference: both orders, every opponent, and the same numbers however they are batched."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForCausalLM

from rewards.base import Outcome, RewardError
from rewards.reward_models.encoding import ChatEncoder
from rewards.reward_models.loading import Checkpoint
from rewards.reward_models.pairwise import PairwisePreference, opponents
from rewards.reward_models.scorers import PairwiseScorer
from tests.unit.rewards.reward_models import checkpoints as made
from tests.unit.rewards.reward_models.attempts import attempts

TOLERANCE = 1e-4
QUESTION = (("user", "Why?"),)
ANSWERS = ("Because.", "", "It rains, so the street is wet.", "No {b} idea {a}")
#: Of the model's card: with it, chat messages become the context.
CONTEXT_TEMPLATE = (
    "\n{% for message in messages %}{% if loop.index0 % 2 == 0 %}\n\n<turn> user\n {{ message['content'] }}{% else %}"
    "\n\n<turn> assistant\n {{ message['content'] }}{% endif %}{% endfor %}\n\n\n"
)


def load(path: Path, max_length: int = 2048) -> PairwisePreference:
    checkpoint = Checkpoint(path=path, device="cpu")
    return PairwisePreference(checkpoint, ChatEncoder(checkpoint.tokenizer()), max_length=max_length)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    return made.language_model(tmp_path_factory.mktemp("pairwise"))


def oracle(path: Path, first: str, second: str) -> float:
    """P(first wins): one order at a time, unpadded, the text written out."""
    model = LlamaForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    tokenizer = made.tokenizer()
    label = [tokenizer.convert_tokens_to_ids(name) for name in "AB"]
    found = []
    for a, b, wanted in ((first, second, 0), (second, first, 1)):
        context = tokenizer.apply_chat_template(
            [{"role": "user", "content": "Why?"}], chat_template=CONTEXT_TEMPLATE, tokenize=False
        )
        text = f"[CONTEXT] {context} [RESPONSE A] {a} [RESPONSE B] {b} \n".strip()
        text = f"<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>"
        text += "<|start_header_id|>assistant<|end_header_id|>\n\n"
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(text).input_ids])).logits[0, -1, label]
        found.append(torch.softmax(logits, 0)[wanted].item())
    return sum(found) / 2


@pytest.mark.parametrize("micro_batch_tokens", [16, 300, 100_000])
def test_a_group_is_the_mean_over_all_opponents_and_both_orders(path: Path, micro_batch_tokens: int) -> None:
    scorer = PairwiseScorer(load(path), micro_batch_tokens, None, against_reference=False)
    verdicts = scorer.judge(attempts(ANSWERS, QUESTION))
    for i, verdict in enumerate(verdicts):
        others = [oracle(path, ANSWERS[i], other) for j, other in enumerate(ANSWERS) if j != i]
        assert verdict.value == pytest.approx(sum(others) / 3, abs=TOLERANCE)
        assert verdict.details == {"opponents": 3}
    assert sum(verdict.value for verdict in verdicts) == pytest.approx(len(ANSWERS) / 2), "a win is another's loss"


def test_against_the_reference(path: Path) -> None:
    scorer = PairwiseScorer(load(path), 1000, None, against_reference=True)
    verdicts = scorer.judge(attempts(ANSWERS, QUESTION, answer="It rains."))
    expected = [oracle(path, answer, "It rains.") for answer in ANSWERS]
    assert [verdict.value for verdict in verdicts] == pytest.approx(expected, abs=TOLERANCE)
    for reference in ({}, {"answer": " "}, {"answer": 3}):
        outcomes = {verdict.outcome for verdict in scorer.judge(attempts(ANSWERS, QUESTION, **reference))}
        assert outcomes == {Outcome.ABSENT}


def test_swapped_pairs_and_equal_answers(path: Path) -> None:
    model = load(path)
    there, back, same = model.win_probabilities(QUESTION, [("x", "yy"), ("yy", "x"), ("z", "z")], 1000)
    assert there + back == pytest.approx(1)
    assert same == pytest.approx(0.5)
    assert there != pytest.approx(0.5, abs=10 * TOLERANCE)


def test_an_attempt_without_opponents_is_absent(path: Path) -> None:
    scorer = PairwiseScorer(load(path), 1000, None, against_reference=False)
    assert scorer.judge([]) == []
    [verdict] = scorer.judge(attempts(["alone"], QUESTION))
    assert (verdict.outcome, verdict.reason) == (Outcome.ABSENT, "no_opponent")


def test_a_refused_prompt_and_a_broken_model_fail(tmp_path: Path, path: Path) -> None:
    made.edit_weights(made.language_model(tmp_path), "lm_head.weight", torch.full((264, made.HIDDEN), math.nan))
    verdicts = PairwiseScorer(load(tmp_path), 1000, 2, against_reference=False).judge(attempts(ANSWERS, QUESTION))
    assert {verdict.reason for verdict in verdicts} == {"reward is nan"}
    assert {verdict.outcome for verdict in verdicts} == {Outcome.FAILED}


def test_truncation_keeps_the_end(path: Path) -> None:
    short, whole = load(path, 60), load(path)
    kept, all_ids = short._encode(QUESTION, "a", "b" * 50), whole._encode(QUESTION, "a", "b" * 50)
    assert kept == [0, *all_ids[-59:]]


def test_a_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RewardError, match=r"a LlamaForSequenceClassification, not a \*ForCausalLM"):
        load(made.classifier(tmp_path))


@given(st.integers(0, 20), st.one_of(st.none(), st.integers(1, 25)))
def test_everyone_has_the_same_number_of_opponents(count: int, per_attempt: int | None) -> None:
    games = opponents(count, per_attempt)
    assert len(set(games)) == len(games)
    assert all(0 <= i < j < count for i, j in games)
    met = Counter(player for game in games for player in game)
    wanted = max(0, count - 1) if per_attempt is None else min(max(0, count - 1), per_attempt + per_attempt % 2)
    assert {met[player] for player in range(count)} <= {wanted}
