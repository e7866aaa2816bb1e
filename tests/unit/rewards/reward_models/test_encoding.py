"""Conversations as token ids: one BOS, the trained template, and no special token out of a message."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.models import tiny_model
from rewards.base import RewardError
from rewards.reward_models.encoding import Bos, ChatEncoder, EncodingError
from tests.unit.rewards.reward_models import checkpoints as made

TOKENIZER = made.tokenizer()
ENCODER = ChatEncoder(TOKENIZER)


def encode(answer: str, encoder: ChatEncoder = ENCODER) -> list[int]:
    return encoder.encode([*made.PROMPT, ("assistant", answer)])


@pytest.mark.parametrize("answer", made.ANSWERS)
def test_ids_are_those_put_together_by_hand(answer: str) -> None:
    assert encode(answer) == made.by_hand(answer)


def test_the_naive_ways_have_two_bos_or_let_the_answer_speak_as_the_user() -> None:
    """What the encoder is there for; if these hold no longer, it may be simpler."""
    chat = [{"role": role, "content": content} for role, content in [*made.PROMPT, ("assistant", made.ANSWERS[4])]]
    text = TOKENIZER.apply_chat_template(chat, tokenize=False)
    assert TOKENIZER(text).input_ids[:2] == [0, 0]
    assert TOKENIZER(text).input_ids.count(3) == 6 > encode(made.ANSWERS[4]).count(3) == 5


def test_exactly_one_bos_whoever_writes_it() -> None:
    silent = made.TEMPLATE.replace("{{ bos_token }}", "")
    assert encode("6", ChatEncoder(TOKENIZER, chat_template=silent)) == made.by_hand("6")
    assert encode("6", ChatEncoder(TOKENIZER, bos=Bos.none)) == made.by_hand("6")[1:]


def test_two_bos_of_the_template_are_refused() -> None:
    encoder = ChatEncoder(TOKENIZER, chat_template="{{ bos_token }}" + made.TEMPLATE)
    with pytest.raises(RewardError, match=r"bos='one': a rendered conversation begins with 2 BOS tokens"):
        encode("6", encoder)


def test_a_tokenizer_without_bos(tmp_path) -> None:
    from transformers import AutoTokenizer

    tiny = AutoTokenizer.from_pretrained(tiny_model(tmp_path))
    text = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    assert ChatEncoder(tiny).encode([("user", "a"), ("assistant", "b")]) == tiny(text).input_ids


PIECES = st.sampled_from([*made.SPECIAL, "a", " ", "é", "\n", "\ufdd0", "\ufdd1", "0"])


@given(st.lists(PIECES, max_size=12).map("".join))
def test_a_message_never_becomes_a_special_token_and_loses_nothing(answer: str) -> None:
    ids = encode(answer)
    assert ids == made.by_hand(answer)
    assert TOKENIZER.decode(ids) == made.BOS + made.rendered(answer)


@given(st.text(st.sampled_from(["a", "B", " ", ".", "é", "\n", "1"]), max_size=20))
def test_plain_text_is_tokenized_as_a_whole(answer: str) -> None:
    assert encode(answer) == TOKENIZER(made.rendered(answer)).input_ids


def test_keeping_the_end_keeps_the_bos() -> None:
    ids = encode("6")
    assert ENCODER.keep_end(ids, len(ids)) == ids
    assert ENCODER.keep_end(ids, 20) == [0, *ids[-19:]]


def test_a_missing_template_is_an_error() -> None:
    with pytest.raises(RewardError, match=r"chat_template='': the checkpoint has none"):
        ChatEncoder(made.tokenizer(chat_template=None))


def test_a_conversation_that_the_template_refuses() -> None:
    with pytest.raises(EncodingError, match="chat_template_refused"):
        ENCODER.encode([("tool", "x")])
