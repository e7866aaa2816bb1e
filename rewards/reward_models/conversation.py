"""What a reward model of one score sees, and says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from rewards.reward_models.encoding import Messages


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A conversation as token ids.

    Attributes:
        ids: at most the model's maximum, BOS included.
        is_truncated: its beginning was cut off.
        prompt_end: index of the prompt's last token, where a model reads it separately.
    """

    ids: Sequence[int]
    is_truncated: bool = False
    prompt_end: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What a model says of one conversation.

    Attributes:
        value: any number; NaN if the model is broken.
        details: its parts by name.
    """

    value: float
    details: Mapping[str, float] = field(default_factory=dict[str, float])


class PointwiseModel(Protocol):
    """A reward model that gives each conversation one score."""

    def encode(self, prompt: Messages, answer: str) -> Row:
        """Token ids. Raises EncodingError if the chat template refuses the conversation."""
        ...

    def score(self, rows: Sequence[Row], micro_batch_tokens: int) -> list[Score]:
        """One score for each row; it does not depend on the other rows or on the batches."""
        ...
