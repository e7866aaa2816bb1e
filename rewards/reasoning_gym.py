"""Reward kind `reasoning_gym`: what reasoning-gym itself says of an answer to one of its tasks."""

from __future__ import annotations

import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from rewards.base import Attempt, RewardError, Verdict
from rewards.child import Child, ChildError
from rewards.final_answer import marked_answer
from rewards.thought import after_thought

_LOG = logging.getLogger(__name__)


class ReasoningGym:
    """The score, from 0 to 1, that the task's data set gives the answer; absent for tasks of other origin.

    The task brings ``reference["reasoning_gym"] = {"dataset": name, "entry": {...}}``, the entry as reasoning-gym made
    it. The answer is what stands in the last ``<answer></answer>``, else what `rewards.final_answer.marked_answer`
    finds, else all that follows the thought. Scores come from a process of its own, since some verifiers evaluate what
    the model wrote: where that takes too long, dies or raises, the verdict is failed.

    Source: reasoning-gym, Stojanovski et al. 2025, https://arxiv.org/abs/2505.24760,
    https://github.com/open-thought/reasoning-gym.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """What `reward.terms.<name>.settings` holds."""

        tag: str = "answer"  #: tag that the model is told to put its answer in
        timeout_s: float = 5.0  #: of one answer

        def __post_init__(self) -> None:
            if not re.fullmatch(r"[\w-]+", self.tag):
                raise RewardError(f"tag={self.tag!r}: set the tag's name alone, e.g. 'answer'.")
            if not self.timeout_s > 0:
                raise RewardError(f"timeout_s={self.timeout_s}: set a positive number of seconds.")

    def __init__(self, settings: Settings) -> None:
        self.check(settings)
        self._tagged = re.compile(rf"<{settings.tag}>(.*?)</{settings.tag}>", re.DOTALL | re.IGNORECASE)
        self._child = Child("rewards.reasoning_gym_score:score", timeout_s=settings.timeout_s)

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError if the package is not installed."""
        del settings
        if importlib.util.find_spec("reasoning_gym") is None:
            raise RewardError("kind 'reasoning_gym': needs the package reasoning-gym; pip install reasoning-gym.")

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict for each attempt."""
        return [self._judge(attempt) for attempt in attempts]

    def close(self) -> None:
        """End the process that scores."""
        self._child.close()

    def _judge(self, attempt: Attempt) -> Verdict:
        task = attempt.reference.get("reasoning_gym")
        if task is None:
            return Verdict.absent("no_reasoning_gym_task")
        fields = cast("Mapping[str, object]", task if isinstance(task, Mapping) else {})
        dataset, entry = fields.get("dataset"), fields.get("entry")
        if not isinstance(dataset, str) or not isinstance(entry, Mapping):
            return Verdict.failed("malformed_reference")
        try:
            value = self._child.call(dataset, dict(cast("Mapping[str, object]", entry)), self._answer(attempt))
        except ChildError as error:
            _LOG.warning("reasoning-gym gave no score in %s: %s", dataset, error)
            return Verdict.failed(f"reasoning_gym_{error.reason.split()[0]}")
        if value is None:
            _LOG.warning("reasoning-gym has no data set %r", dataset)
            return Verdict.failed("unknown_dataset")
        return Verdict.valid(value)

    def _answer(self, attempt: Attempt) -> str:
        text = after_thought(attempt.answer)
        tagged = self._tagged.findall(text)
        return tagged[-1].strip() if tagged else (marked_answer(text) or text.strip())
