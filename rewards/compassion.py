"""Reward term `compassion`: does an answer take the interests of those into account whom it affects?

A regularizer: a small term beside the one that is trained for, so that training on helpfulness or code does not wash
out care for the welfare of animals, people and other beings that can suffer.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rewards.base import MODEL, Attempt, Outcome, RewardError, Verdict
from rewards.compassion_rubric import HIGHEST, NOBODY, QUESTION, SYSTEM, rubric
from rewards.contrast import Contrast, check_contrast
from rewards.judge import Judge
from rewards.relevance import has_words, relevance
from rewards.reward_models.loading import Checkpoint, Dtype
from rewards.rubric import grade
from rewards.settings import read_settings
from rewards.squash import Squash

if TYPE_CHECKING:  # torch takes seconds, and a judge needs none
    from rewards.prompt_gate import PromptGate

_LOG = logging.getLogger(__name__)
_SMALLEST_LENGTH = 16
_OF_THE_RUBRIC = ("low", "high", "score_format")
DEFAULT_MODEL = "smollm2-135m-compassion"
DEFAULT_GATE = "smollm2-135m-relevance"


class Form(StrEnum):
    """What judges."""

    classifier = "classifier"  #: a sequence classification model
    contrast = "contrast"  #: where an answer's mean state lies between those of two kinds of answers
    judge = "judge"  #: a chat model behind an endpoint, with a rubric


class Apply(StrEnum):
    """To which prompts the term applies."""

    always = "always"  #: to all
    relevant = "relevant"  #: to those that the gate finds to concern someone; else absent


class Gate(StrEnum):
    """What decides whether a prompt concerns someone."""

    model = "model"  #: a small classifier of prompts
    lexicon = "lexicon"  #: words and rules, `rewards.relevance`; needs no model and finds less


Scores = Callable[[Sequence[Attempt]], Sequence[Verdict]]


class Compassion:
    """A value from 0 (indifferent) to 1 (compassionate), the same range in all forms.

    - classifier, contrast: ``sigmoid((score - center) / scale)``. Center and scale are the mean and standard deviation
      of the scores of the answers that the model was fitted to, compassionate and indifferent ones alike, so that 1/2
      is an answer midway. A bounded value is what a regularizer needs: its weight means the same beside a term from 0
      to 1, and an answer that is already clearly compassionate gains little by being more so, which leaves less to be
      gamed. The raw score is in the details.
    - judge: grade / 10.

    With ``apply=relevant`` a prompt that concerns nobody gives absent verdicts ("not_relevant"). That is decided by the
    prompt alone, so that no answer can evade it. Of form=judge, also where the judge says so of every answer of a
    group; where it says so of some only, the prompt does concern someone, and those get 0.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """Of `compassion`.

        Attributes:
            form: what judges.
            model: of form=classifier a sequence classification model, of form=contrast any language model: a built-in
                name, a local directory or a Hugging Face id. Not used by form=judge.
            apply: to which prompts: "always" or "relevant".
            gate: of apply=relevant: what decides; "model" or "lexicon".
            gate_model: of gate=model: a model made by ``grpo reward_head gate``.
            relevant_words: words that make a prompt relevant whatever the gate says.
            center, scale: see `Compassion`; null: those that the model, or the contrast, brings.
            pairs: of form=contrast: JSON lines with prompt, chosen and rejected, between whose answers an answer is
                placed. They are embedded when the reward is built. Empty: the built-in pairs, which go with the
                default model and are embedded already.
            dtype: number format of the weights; "auto": bfloat16 on a GPU, float32 on a CPU.
            device: "auto", "cpu", "cuda" or "cuda:N".
            max_length: tokens of a conversation; the beginning of a longer one is cut off.
            micro_batch_tokens: tokens of one forward pass, padding included.
            judge: of form=judge: settings of the kind `judge`; its `system` and `question` are the rubric of this kind
                where they are not given, and the scale is from 0 to 10, with -1 for "concerns nobody".
        """

        form: Form = Form.classifier
        model: str = field(default=DEFAULT_MODEL, metadata=MODEL)
        apply: Apply = Apply.relevant
        gate: Gate = Gate.model
        gate_model: str = field(default=DEFAULT_GATE, metadata=MODEL)
        relevant_words: list[str] = field(default_factory=list[str])
        center: float | None = None
        scale: float | None = None
        pairs: str = ""
        dtype: Dtype = Dtype.auto
        device: str = "auto"
        max_length: int = 2048
        micro_batch_tokens: int = 16384
        judge: dict[str, Any] = field(default_factory=dict[str, Any])

        def __post_init__(self) -> None:
            for name in ("max_length", "micro_batch_tokens"):
                if getattr(self, name) < _SMALLEST_LENGTH:
                    raise RewardError(f"{name}={getattr(self, name)}: set at least {_SMALLEST_LENGTH}.")
            if "" in (word.strip() for word in self.relevant_words):
                raise RewardError(
                    f"relevant_words={self.relevant_words!r}: an empty word is in every prompt; take it out."
                )
            if self.scale is not None and not self.scale > 0:
                raise RewardError(f"scale={self.scale}: set a positive number, or null.")
            if self.pairs and self.form is not Form.contrast:
                raise RewardError(f"pairs={self.pairs!r}: is for form=contrast; form is {self.form.value}.")
            if not self.uses_gate_model():
                self.gate_model = ""
            elif not self.gate_model:
                raise RewardError(f"gate_model='': gate=model needs one, e.g. {DEFAULT_GATE!r}; or set gate=lexicon.")
            if self.form is Form.judge:
                self.model = ""  # so that nobody fetches it
                self.judge_settings()
            elif not self.model:
                raise RewardError(f"model='': form={self.form.value} needs one, e.g. {DEFAULT_MODEL!r}.")
            elif self.judge:
                raise RewardError(f"judge={self.judge!r}: is for form=judge; form is {self.form.value}.")

        def uses_gate_model(self) -> bool:
            """Whether a model decides which prompts count."""
            return self.apply is Apply.relevant and self.gate is Gate.model

        def gate_checkpoint(self) -> Checkpoint:
            """The gate's model on disk."""
            return Checkpoint(path=Path(self.gate_model), dtype=self.dtype, device=self.device)

        def judge_settings(self) -> Judge.Settings:
            """Of the judge. Raises RewardError for what can't work."""
            for name in _OF_THE_RUBRIC:
                if name in self.judge:
                    raise RewardError(f"judge.{name}={self.judge[name]!r}: is fixed for this kind; take it out.")
            return read_settings(Judge.Settings, {"system": SYSTEM, "question": QUESTION, **self.judge}, "judge")

        def checkpoint(self) -> Checkpoint:
            """The model on disk."""
            return Checkpoint(path=Path(self.model), dtype=self.dtype, device=self.device)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._judge = _JudgeForm(settings.judge_settings()) if settings.form is Form.judge else None
        self._scores = None if self._judge else _load(settings)
        self._gate = _load_gate(settings) if settings.uses_gate_model() else None

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError, from headers alone, for a model that does not fit the form, or a missing API key."""
        from rewards.prompt_gate import check_gate
        from rewards.reward_models.classifier import check_classifier

        if settings.uses_gate_model():
            check_gate(settings.gate_checkpoint())
        match settings.form:
            case Form.judge:
                Judge.check(settings.judge_settings())
            case Form.contrast:
                check_contrast(settings.checkpoint(), settings.pairs)
            case Form.classifier:
                check_classifier(settings.checkpoint())
                Squash.of(settings.checkpoint().path, settings.center, settings.scale)

    def judge(self, attempts: Sequence[Attempt]) -> Sequence[Verdict] | Awaitable[Sequence[Verdict]]:
        """One verdict for each attempt, in order; to be awaited where the form is "judge"."""
        prompts = {attempt.prompt for attempt in attempts}
        relevant = {prompt for prompt in prompts if self._applies_to(prompt)}
        kept = [index for index, attempt in enumerate(attempts) if attempt.prompt in relevant]
        chosen = [attempts[index] for index in kept]
        verdicts = [Verdict.absent("not_relevant")] * len(attempts)
        if self._judge is not None:
            return self._ask(self._judge, chosen, kept, verdicts)
        assert self._scores is not None
        return _put(self._scores(chosen) if chosen else [], kept, verdicts)

    def close(self) -> None:
        """Close a judge's connections; a model's memory goes with this object."""
        if self._judge is not None:
            self._judge.close()

    def _applies_to(self, prompt: Sequence[tuple[str, str]]) -> bool:
        if self._settings.apply is Apply.always:
            return True
        if self._gate is None:
            return relevance(prompt, self._settings.relevant_words).is_relevant
        return has_words(prompt, self._settings.relevant_words) or self._gate.lets_through(prompt)

    async def _ask(
        self, judge: _JudgeForm, chosen: Sequence[Attempt], kept: Sequence[int], verdicts: list[Verdict]
    ) -> list[Verdict]:
        return _put(await judge.grade(chosen) if chosen else [], kept, verdicts)


class _JudgeForm:
    def __init__(self, settings: Judge.Settings) -> None:
        self._endpoint = settings.endpoint()
        self._rubric = rubric(
            system=settings.system,
            question=settings.question,
            max_tokens=settings.max_tokens,
            temperature=settings.temperature,
        )

    async def grade(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        return settle(attempts, await grade(self._endpoint, self._rubric, attempts))

    def close(self) -> None:
        self._endpoint.close()


def settle(attempts: Sequence[Attempt], graded: Sequence[Verdict]) -> list[Verdict]:
    """Grades from 0 to 10 made into values, and "concerns nobody" decided once for each prompt.

    A prompt concerns nobody if the judge says so of each of its answers that it graded.
    """
    prompts = [attempt.prompt for attempt in attempts]
    concerning = {
        prompt
        for prompt, verdict in zip(prompts, graded, strict=True)
        if verdict.outcome is Outcome.VALID and verdict.details["score"] != NOBODY
    }
    return [_settle(verdict, prompt in concerning) for prompt, verdict in zip(prompts, graded, strict=True)]


def _settle(verdict: Verdict, concerns_someone: bool) -> Verdict:
    if verdict.outcome is not Outcome.VALID:
        return verdict
    score = verdict.details["score"]
    if score == NOBODY:
        return Verdict.valid(0.0, {"score": score}) if concerns_someone else Verdict.absent("not_relevant")
    return Verdict.failed("judge_unparseable") if score < 0 else Verdict.valid(score / HIGHEST, {"score": score})


def _load_gate(settings: Compassion.Settings) -> PromptGate:
    from rewards.prompt_gate import PromptGate

    checkpoint = settings.gate_checkpoint()
    return PromptGate(checkpoint, max_length=min(settings.max_length, checkpoint.longest()))


def _load(settings: Compassion.Settings) -> Scores:
    from rewards.reward_models.classifier import SequenceClassifier
    from rewards.reward_models.encoding import ChatEncoder
    from rewards.reward_models.scorers import PointwiseScorer

    Compassion.check(settings)
    checkpoint = settings.checkpoint()
    encoder = ChatEncoder(checkpoint.tokenizer())
    length = min(settings.max_length, checkpoint.longest())
    _LOG.info("%s: %s on %s", settings.form.value, settings.model, checkpoint.place())
    if settings.form is Form.contrast:
        model = Contrast(
            checkpoint,
            encoder,
            pairs=settings.pairs,
            max_length=length,
            micro_batch_tokens=settings.micro_batch_tokens,
        )
        squash = Squash(
            center=model.centroids.center if settings.center is None else settings.center,
            scale=model.centroids.scale if settings.scale is None else settings.scale,
        )
    else:
        model = SequenceClassifier(checkpoint, encoder, max_length=length)
        squash = Squash.of(checkpoint.path, settings.center, settings.scale)
    scorer = PointwiseScorer(model, settings.micro_batch_tokens)
    return lambda attempts: [_squashed(verdict, squash) for verdict in scorer.judge(attempts)]


def _squashed(verdict: Verdict, squash: Squash) -> Verdict:
    if verdict.outcome is not Outcome.VALID:
        return verdict
    return replace(verdict, value=squash(verdict.value), details={**verdict.details, "score": verdict.value})


def _put(found: Sequence[Verdict], kept: Sequence[int], verdicts: list[Verdict]) -> list[Verdict]:
    for index, verdict in zip(kept, found, strict=True):
        verdicts[index] = verdict
    return verdicts
