"""How often a reward prefers what people preferred, and whether that is more than a taste for length."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grpo.data.preferences import PreferencePair
from grpo.errors import DataError
from rewards import registry
from rewards.base import Attempt, Outcome

_Z95 = 1.959963984540054  # two-sided 95% of the normal distribution


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """A share of successes with its 95% interval.

    Attributes:
        count: trials.
        share: of successes; a tie is half a success. NaN without trials.
        low, high: Wilson's score interval, https://doi.org/10.1080/01621459.1927.10502953.
    """

    count: int
    share: float
    low: float
    high: float

    @classmethod
    def of(cls, margins: np.ndarray) -> Share:
        """Share of margins above 0."""
        n = len(margins)
        if not n:
            return cls(count=0, share=math.nan, low=math.nan, high=math.nan)
        p = float(((margins > 0) + 0.5 * (margins == 0)).mean())
        center, half = p + _Z95**2 / (2 * n), _Z95 * math.sqrt(p * (1 - p) / n + _Z95**2 / (4 * n * n))
        scale = 1 + _Z95**2 / n
        return cls(count=n, share=p, low=(center - half) / scale, high=(center + half) / scale)

    def __str__(self) -> str:
        return f"{self.share:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.count}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PairReport:
    """Agreement with people's choices.

    Attributes:
        accuracy: over all pairs.
        chosen_longer, chosen_shorter: over the pairs where people chose the longer or the shorter answer, in
            characters.
        longer_answer: what one gets by always choosing the longer answer.
        log_loss: mean of log(1 + exp(-margin)), nats; of use where the margin is a log-odds, as a head's is.
    """

    accuracy: Share
    chosen_longer: Share
    chosen_shorter: Share
    longer_answer: Share
    log_loss: float

    @classmethod
    def of(cls, pairs: Sequence[PreferencePair], margins: np.ndarray) -> PairReport:
        """From the score of the chosen answer minus that of the rejected one, [N]."""
        longer = np.array([len(pair.chosen[-1][1]) - len(pair.rejected[-1][1]) for pair in pairs])
        return cls(
            accuracy=Share.of(margins),
            chosen_longer=Share.of(margins[longer > 0]),
            chosen_shorter=Share.of(margins[longer < 0]),
            longer_answer=Share.of(longer),
            log_loss=float(np.logaddexp(0.0, -margins).mean()),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def score_pairs(model: Path, pairs: Sequence[PreferencePair], **settings: Any) -> np.ndarray:
    """Score of the chosen answer minus that of the rejected one, through the reward term `helpfulness`, [N].

    Args:
        model: directory of a reward model.
        settings: further ones of the term, e.g. ``form="armorm"``.

    Raises:
        RewardError: a model or settings that can't work.
        DataError: a pair that the model gives no score.
    """
    key = "helpfulness"
    reward = registry.build(key, registry.settings_of(key, {"model": str(model), **settings}, key), key)
    margins: list[float] = []
    for pair in pairs:
        verdicts = reward.judge([_attempt(pair, answer[-1][1]) for answer in (pair.chosen, pair.rejected)])
        assert isinstance(verdicts, Sequence), "no form that answers later is asked here"
        chosen, rejected = verdicts
        for verdict in verdicts:
            if verdict.outcome is not Outcome.VALID:
                raise DataError(f"pair {pair.pair_id}: no score ({verdict.reason})")
        margins.append(chosen.value - rejected.value)
    reward.close()
    return np.array(margins)


def _attempt(pair: PreferencePair, answer: str) -> Attempt:
    return Attempt(
        prompt=pair.prompt,
        prefill="",
        completion=answer,
        token_ids=(),
        reference={},
        finish_reason="stop",
        domain="preferences",
    )
