"""Verdicts on attempts out of scores and probabilities."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

from rewards.base import Attempt, Verdict
from rewards.reward_models.conversation import PointwiseModel, Row
from rewards.reward_models.encoding import EncodingError
from rewards.reward_models.pairwise import PairwisePreference, opponents

_LOG = logging.getLogger(__name__)


class PointwiseScorer:
    """The score of each attempt by itself."""

    def __init__(self, model: PointwiseModel, micro_batch_tokens: int) -> None:
        self._model, self._micro_batch_tokens = model, micro_batch_tokens

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict for each attempt; details: the model's own, and `truncated` (1 or 0)."""
        verdicts: dict[int, Verdict] = {}
        rows: dict[int, Row] = {}
        for index, attempt in enumerate(attempts):
            try:
                rows[index] = self._model.encode(attempt.prompt, attempt.answer)
            except EncodingError as error:
                _LOG.warning("a conversation can't be scored: %s", error.__cause__ or error)
                verdicts[index] = Verdict.failed(str(error))
        scores = self._model.score(list(rows.values()), self._micro_batch_tokens)
        for index, score in zip(rows, scores, strict=True):
            details = {**score.details, "truncated": float(rows[index].is_truncated)}
            verdicts[index] = Verdict.valid(score.value, details)
        return [verdicts[index] for index in range(len(attempts))]


class PairwiseScorer:
    """The mean probability that an attempt beats its opponents.

    Args:
        model: compares two answers.
        micro_batch_tokens: of one forward pass.
        opponents_per_attempt: of the group; None: all others.
        against_reference: the one opponent is the task's known answer instead.
    """

    def __init__(
        self,
        model: PairwisePreference,
        micro_batch_tokens: int,
        opponents_per_attempt: int | None,
        *,
        against_reference: bool,
    ) -> None:
        self._model, self._micro_batch_tokens = model, micro_batch_tokens
        self._opponents_per_attempt, self._against_reference = opponents_per_attempt, against_reference

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict for each attempt; absent without an opponent."""
        if not attempts:
            return []
        try:
            return self._by_reference(attempts) if self._against_reference else self._by_group(attempts)
        except EncodingError as error:
            _LOG.warning("a comparison can't be made: %s", error.__cause__ or error)
            return [Verdict.failed(str(error))] * len(attempts)

    def _by_group(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        games = opponents(len(attempts), self._opponents_per_attempt)
        won: list[list[float]] = [[] for _ in attempts]
        for (first, second), probability in zip(games, self._play(attempts, games), strict=True):
            won[first].append(probability)
            won[second].append(1 - probability)
        return [_mean(results, "no_opponent") for results in won]

    def _play(self, attempts: Sequence[Attempt], games: Sequence[tuple[int, int]]) -> list[float]:
        answers = [(attempts[i].answer, attempts[j].answer) for i, j in games]
        return self._model.win_probabilities(attempts[0].prompt, answers, self._micro_batch_tokens)

    def _by_reference(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        reference = attempts[0].reference.get("answer")
        if not isinstance(reference, str) or not reference.strip():
            return [Verdict.absent("no_reference_answer")] * len(attempts)
        answers = [(attempt.answer, reference) for attempt in attempts]
        won = self._model.win_probabilities(attempts[0].prompt, answers, self._micro_batch_tokens)
        return [_mean([probability], "no_opponent") for probability in won]


def _mean(results: Sequence[float], reason: str) -> Verdict:
    if not results:
        return Verdict.absent(reason)
    return Verdict.valid(math.fsum(results) / len(results), {"opponents": float(len(results))})
