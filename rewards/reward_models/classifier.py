"""Sequence classification: one score at a conversation's end, as in FsfairX-LLaMA3-RM and Skywork-Reward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from rewards.base import RewardError
from rewards.reward_models.batching import as_floats, pad_right, run_in_batches, unused_id
from rewards.reward_models.conversation import Row, Score
from rewards.reward_models.encoding import ChatEncoder, Messages
from rewards.reward_models.loading import Checkpoint

if TYPE_CHECKING:
    from torch import Tensor

_SUFFIX = "ForSequenceClassification"


class SequenceClassifier:
    """Any model that transformers loads with AutoModelForSequenceClassification.

    A row's score is what transformers gives for it alone and unpadded: the head's output at its last token that is not
    the configuration's `pad_token_id`. Where that is also the end of a turn, as in many models trained with it, this is
    the token before; such a model was trained to be read there. The tokenizer's own padding does not matter.

    Args:
        checkpoint: where it is.
        encoder: its chat template and tokenizer.
        max_length: tokens of a conversation; the beginning of a longer one is cut off.
        label: which of several labels is the reward: its name or number; empty where there is one.

    Raises:
        RewardError: no classifier, a head that is not in the checkpoint, or several labels and none chosen.
    """

    def __init__(self, checkpoint: Checkpoint, encoder: ChatEncoder, *, max_length: int, label: str = "") -> None:
        from transformers import AutoModelForSequenceClassification

        check_classifier(checkpoint)
        self._model: Any = checkpoint.load(AutoModelForSequenceClassification)
        self._label = _label_index(self._model.config, label)
        self._encoder, self._max_length, self._place = encoder, max_length, checkpoint.place()
        self._text_config: Any = self._model.config.get_text_config()
        own = self._text_config.pad_token_id
        self._own_pad_id: int | None = own if own is not None and 0 <= own < self._text_config.vocab_size else None
        _compute_head_in_float32(self._model)

    def encode(self, prompt: Messages, answer: str) -> Row:
        """The conversation, its end kept."""
        ids = self._encoder.encode([*prompt, ("assistant", answer)])
        return Row(ids=self._encoder.keep_end(ids, self._max_length), is_truncated=len(ids) > self._max_length)

    def score(self, rows: Sequence[Row], micro_batch_tokens: int) -> list[Score]:
        """The chosen label's logit of each row."""
        return run_in_batches(rows, lambda row: len(row.ids), micro_batch_tokens, self._forward)

    def _forward(self, rows: list[Row]) -> list[Score]:
        import torch

        token_rows = [row.ids for row in rows]
        pad_id = self._own_pad_id
        if pad_id is None:  # the last token is read, if the padding can be told from it
            pad_id = unused_id(token_rows, self._text_config.vocab_size)
            self._text_config.pad_token_id = pad_id
            if pad_id is None and len(rows) > 1:
                return [score for row in rows for score in self._forward([row])]
        ids, mask = pad_right(token_rows, pad_id or 0, self._place)
        with torch.inference_mode():
            logits: Tensor = self._model(input_ids=ids, attention_mask=mask).logits
        return [Score(value=value) for value in as_floats(logits[:, self._label])]


def check_classifier(checkpoint: Checkpoint) -> None:
    """Raise RewardError, from config.json alone, for what is no sequence classification model."""
    name = checkpoint.architecture()
    if not name.endswith(_SUFFIX):
        raise RewardError(
            f"model={str(checkpoint.path)!r}: a {name or 'model without a named architecture'}, not a *{_SUFFIX}; "
            "set the form that fits it, or give another model."
        )


def _label_index(config: Any, label: str) -> int:
    names: dict[int, str] = dict(config.id2label)
    if not label:
        if config.num_labels == 1:
            return 0
        raise RewardError(f"label='': the model has {config.num_labels} labels, {names}; name the one that counts.")
    for index, name in names.items():
        if label in (name, str(index)):
            return index
    raise RewardError(f"label={label!r}: no such label; the model has {names}.")


def _compute_head_in_float32(model: Any) -> None:
    """Decoders end in a linear layer `score`; in bfloat16 it would round rewards to three digits."""
    import torch

    head = getattr(model, "score", None)
    if isinstance(head, torch.nn.Linear):
        head.float().register_forward_pre_hook(lambda _, inputs: (cast("Tensor", inputs[0]).float(),))
