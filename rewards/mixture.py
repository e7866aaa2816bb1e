"""Several reward terms, one number, and whether they hold a signal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rewards.base import Outcome, RewardError, Verdict


def weighted_sum(verdicts: Mapping[str, Sequence[Verdict]], weights: Mapping[str, float]) -> list[float]:
    """R_i = sum over terms k of w_k r_ik, with raw weights: they are never renormalised.

    A term of weight 0 is computed and logged, not trained: it can't make R_i NaN. An absent term counts nothing.
    R_i is NaN where a weighted term failed, or where every weighted term is absent (so also with no weighted term).

    Args:
        verdicts: of each term, [G] each; terms without a weight are ignored.
        weights: w_k by name.

    Returns:
        R, [G].

    Raises:
        RewardError: a weighted term without verdicts, or terms that judged different numbers of attempts.
    """
    missing = sorted(name for name, weight in weights.items() if weight and name not in verdicts)
    if missing:
        raise RewardError(f"reward.weights names {', '.join(missing)}, but only {sorted(verdicts)} gave verdicts.")
    lengths = {name: len(column) for name, column in verdicts.items()}
    if len(set(lengths.values())) > 1:
        raise RewardError(f"reward terms judged different numbers of attempts: {lengths}.")
    count = next(iter(lengths.values()), 0)
    weighted = [(weight, verdicts[name]) for name, weight in weights.items() if weight]
    return [_mix([(weight, column[index]) for weight, column in weighted]) for index in range(count)]


def has_signal(verdicts: Mapping[str, Sequence[Verdict]], weights: Mapping[str, float]) -> bool:
    """Whether a group can tell its members apart: a weighted term, or R, has two different valid values.

    Terms are looked at first, since they may cancel in R; R is, since it also varies where equal terms are absent from
    some attempts. Attempts whose R_i is NaN are left out: they are trained on in no case.

    Args:
        verdicts, weights: as in `weighted_sum`.
    """
    rewards = weighted_sum(verdicts, weights)
    columns = [verdicts[name] for name, weight in weights.items() if weight]
    kept = [index for index, reward in enumerate(rewards) if not math.isnan(reward)]
    valid = [{column[i].value for i in kept if column[i].outcome is Outcome.VALID} for column in columns]
    return any(len(values) > 1 for values in [*valid, {rewards[i] for i in kept}])


def _mix(terms: Sequence[tuple[float, Verdict]]) -> float:
    present = [(weight, verdict) for weight, verdict in terms if verdict.outcome is not Outcome.ABSENT]
    if not present or any(verdict.outcome is Outcome.FAILED for _, verdict in present):
        return math.nan
    return math.fsum(weight * verdict.value for weight, verdict in present)
