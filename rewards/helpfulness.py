"""Reward term `helpfulness`: what a reward model, a preference model or a judge says of an answer."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from rewards.base import MODEL, Attempt, RewardError, Verdict
from rewards.judge import Judge
from rewards.reward_models.encoding import Bos, ChatEncoder
from rewards.reward_models.loading import Checkpoint, Dtype
from rewards.settings import read_settings

_LOG = logging.getLogger(__name__)
_SMALLEST_LENGTH = 16
DEFAULT_MODEL = "smollm2-135m-helpful"
_QUESTION = (
    "This was asked:\n{prompt}\n\nThis is the answer:\n{answer}\n\nHow helpful is the answer to who asked: is it "
    "correct, complete, to the point, clear and honest about what it can't know? Length alone is no merit."
)


class Form(StrEnum):
    """What kind of model judges."""

    sequence_classification = "sequence_classification"  #: one score at the conversation's end
    armorm = "armorm"  #: many objectives and a gate, as ArmoRM-Llama3-8B-v0.1
    pairwise = "pairwise"  #: a language model that compares two answers
    judge = "judge"  #: a chat model behind an endpoint, asked for a grade


class Opponents(StrEnum):
    """What a pairwise model compares an answer with."""

    group = "group"  #: the other answers to the same prompt
    reference = "reference"  #: the task's known answer


class Scorer(Protocol):
    """What a form is made into."""

    def judge(self, attempts: Sequence[Attempt]) -> Sequence[Verdict] | Awaitable[Sequence[Verdict]]:
        """One verdict for each attempt of a group."""
        ...


class Helpfulness:
    """The value is what the model says: a score of any size, a probability to win (0 to 1), or a grade (0 to 1).

    A conversation that the model's template refuses, and a score that is NaN or infinite, are failed verdicts.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """Of `helpfulness`.

        Attributes:
            form: what kind of model judges.
            model: reward model: a built-in name, a local directory or a Hugging Face id. Not used by form=judge.
            dtype: number format of its weights; "auto": bfloat16 on a GPU, float32 on a CPU.
            device: "auto", "cpu", "cuda" or "cuda:N". A worker sees the GPUs of ``gpus_per_worker``.
            max_length: tokens of a conversation; the beginning of a longer one is cut off.
            micro_batch_tokens: tokens of one forward pass, padding included.
            chat_template: Jinja text in place of the checkpoint's own.
            bos: "one" or "none".
            label: which of a classifier's several labels is the reward: name or number.
            opponents: "group" or "reference" (the task's ``reference["answer"]``), of form=pairwise.
            opponents_per_attempt: of the group, for each answer; null: all, which takes G (G - 1) forward passes for a
                group of G. Rounded up to an even number.
            judge: the settings of form=judge: those of the kind `judge`, with a question about helpfulness.
        """

        form: Form = Form.sequence_classification
        model: str = field(default=DEFAULT_MODEL, metadata=MODEL)
        dtype: Dtype = Dtype.auto
        device: str = "auto"
        max_length: int = 4096
        micro_batch_tokens: int = 16384
        chat_template: str = ""
        bos: Bos = Bos.one
        label: str = ""
        opponents: Opponents = Opponents.group
        opponents_per_attempt: int | None = None
        judge: dict[str, Any] = field(default_factory=dict[str, Any])

        def __post_init__(self) -> None:
            for name in ("max_length", "micro_batch_tokens"):
                if getattr(self, name) < _SMALLEST_LENGTH:
                    raise RewardError(f"{name}={getattr(self, name)}: set at least {_SMALLEST_LENGTH}.")
            if self.opponents_per_attempt is not None and self.opponents_per_attempt < 1:
                raise RewardError(f"opponents_per_attempt={self.opponents_per_attempt}: set at least 1, or null.")
            if self.form is Form.judge:
                self.model = ""  # so that nobody fetches it
                self.judge_settings()
            elif not self.model:
                raise RewardError(f"model='': form={self.form.value} needs one, e.g. {DEFAULT_MODEL!r}.")
            elif self.judge:
                raise RewardError(f"judge={self.judge!r}: is for form=judge; form is {self.form.value}.")

        def judge_settings(self) -> Judge.Settings:
            """Of the judge. Raises RewardError for what can't work."""
            return read_settings(Judge.Settings, {"question": _QUESTION, **self.judge}, "judge")

        def checkpoint(self) -> Checkpoint:
            """The model on disk."""
            return Checkpoint(path=Path(self.model), dtype=self.dtype, device=self.device)

    def __init__(self, settings: Settings) -> None:
        self._judge = Judge(settings.judge_settings()) if settings.form is Form.judge else None
        self._scorer: Scorer = self._judge or _load(settings)

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError, from headers alone, for a model that does not fit the form, or a missing API key."""
        from rewards.reward_models.armorm import check_armorm
        from rewards.reward_models.classifier import check_classifier
        from rewards.reward_models.pairwise import check_pairwise

        if settings.form is Form.judge:
            return Judge.check(settings.judge_settings())
        checks = {
            Form.sequence_classification: check_classifier,
            Form.armorm: check_armorm,
            Form.pairwise: check_pairwise,
        }
        return checks[settings.form](settings.checkpoint())

    def judge(self, attempts: Sequence[Attempt]) -> Sequence[Verdict] | Awaitable[Sequence[Verdict]]:
        """One verdict for each attempt, in order; to be awaited where the form is "judge"."""
        return self._scorer.judge(attempts)

    def close(self) -> None:
        """Close a judge's connections; a model's memory goes with this object."""
        if self._judge is not None:
            self._judge.close()


def _load(settings: Helpfulness.Settings) -> Scorer:
    from rewards.reward_models.armorm import ArmoRM
    from rewards.reward_models.classifier import SequenceClassifier
    from rewards.reward_models.pairwise import PairwisePreference
    from rewards.reward_models.scorers import PairwiseScorer, PointwiseScorer

    checkpoint = settings.checkpoint()
    Helpfulness.check(settings)
    encoder = ChatEncoder(checkpoint.tokenizer(), chat_template=settings.chat_template, bos=settings.bos)
    length, batch = min(settings.max_length, checkpoint.longest()), settings.micro_batch_tokens
    _LOG.info("%s: %s on %s", settings.form.value, settings.model, checkpoint.place())
    if settings.form is Form.armorm:
        return PointwiseScorer(ArmoRM(checkpoint, encoder, max_length=length), batch)
    if settings.form is Form.pairwise:
        model = PairwisePreference(checkpoint, encoder, max_length=length)
        against_reference = settings.opponents is Opponents.reference
        return PairwiseScorer(model, batch, settings.opponents_per_attempt, against_reference=against_reference)
    return PointwiseScorer(SequenceClassifier(checkpoint, encoder, max_length=length, label=settings.label), batch)
