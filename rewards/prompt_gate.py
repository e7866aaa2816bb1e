"""The gate of `compassion` as a small model: does a prompt concern someone who can fare well or badly?

Like the lexicon (relevance.py) it reads the prompt alone, so that no answer decides whether it is judged.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

from rewards.base import RewardError
from rewards.head_facts import FACTS_FILE, read_facts
from rewards.reward_models.classifier import SequenceClassifier, check_classifier
from rewards.reward_models.conversation import Row
from rewards.reward_models.encoding import ChatEncoder, EncodingError, Messages
from rewards.reward_models.loading import Checkpoint

_LOG = logging.getLogger(__name__)


class PromptGate:
    """Lets a prompt through where the model's score reaches the threshold that it brings.

    Args:
        checkpoint: a sequence classification model made by ``grpo reward_head gate``.
        max_length: tokens of a prompt; the beginning of a longer one is cut off.

    Raises:
        RewardError: no such model.
    """

    def __init__(self, checkpoint: Checkpoint, *, max_length: int) -> None:
        self._threshold = _threshold(checkpoint.path)
        self._encoder = ChatEncoder(checkpoint.tokenizer())
        self._model = SequenceClassifier(checkpoint, self._encoder, max_length=max_length)
        self._max_length = max_length

    def lets_through(self, prompt: Messages) -> bool:
        """Whether the prompt passes. One that the model can't judge does: better judged for nothing than not at all."""
        said: Sequence[tuple[str, str]] = [message for message in prompt if message[0] != "system"]
        try:
            ids = self._encoder.encode(said)
        except EncodingError as error:
            _LOG.warning("a prompt can't be judged by the gate and passes: %s", error.__cause__ or error)
            return True
        row = Row(ids=self._encoder.keep_end(ids, self._max_length), is_truncated=len(ids) > self._max_length)
        [score] = self._model.score([row], self._max_length)
        return not score.value < self._threshold  # so worded, NaN passes


def check_gate(checkpoint: Checkpoint) -> None:
    """Raise RewardError, from headers alone, for a model that is no gate."""
    check_classifier(checkpoint)
    _threshold(checkpoint.path)


def _threshold(model: Path) -> float:
    threshold = read_facts(model).get("threshold")
    if not isinstance(threshold, float) or not math.isfinite(threshold):
        raise RewardError(
            f"gate_model={str(model)!r}: {FACTS_FILE} there tells no threshold; set a model made by grpo reward_head "
            "gate, or gate=lexicon."
        )
    return threshold
