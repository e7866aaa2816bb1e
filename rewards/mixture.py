"""Several reward terms, one number, and whether they hold a signal.

In order: what weighs how much in a domain (`TermWeights`), which terms count on which attempt (`gated`), the sum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from rewards.base import Outcome, RewardError, Verdict

_GATE = re.compile(r"\s*(?P<term>[^>=]+?)\s*>=\s*(?P<bound>[^\s>=]+)\s*")
#: Reason of a verdict that a closed gate made 0.
GATED = "gated"
#: Verdicts of every term, [G] each.
Verdicts = Mapping[str, Sequence[Verdict]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A condition on one term that another term waits for.

    Attributes:
        term: whose verdict is looked at; its weight may be 0.
        at_least: the value it must reach.
    """

    term: str
    at_least: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """A gate out of ``"TERM>=NUMBER"``. Raises RewardError."""
        match = _GATE.fullmatch(text)
        try:
            bound = float(match["bound"]) if match else math.nan
        except ValueError:
            bound = math.nan
        if match is None or not math.isfinite(bound):
            raise RewardError(f"{text!r} is no condition of the form TERM>=NUMBER, e.g. 'pattern>=1'.")
        return cls(term=match["term"], at_least=bound)


@dataclass(frozen=True, slots=True, kw_only=True)
class TermWeights:
    """Which terms are computed in which domain, and what they weigh.

    Attributes:
        default: raw weight of each term, for domains without a mixture of their own; 0 means logged, not trained.
        by_domain: mixtures of single domains; such a one replaces `default` as a whole.
        gates: by the name of the term that waits.
    """

    default: Mapping[str, float]
    by_domain: Mapping[str, Mapping[str, float]] = field(default_factory=dict[str, Mapping[str, float]])
    gates: Mapping[str, Gate] = field(default_factory=dict[str, Gate])

    def of(self, domain: str) -> Mapping[str, float]:
        """Weights of the terms that are computed in `domain`."""
        return self.by_domain.get(domain, self.default)

    @property
    def terms(self) -> tuple[str, ...]:
        """All terms of all mixtures, each once."""
        return tuple(dict.fromkeys(name for weights in (self.default, *self.by_domain.values()) for name in weights))


def gated(verdicts: Verdicts, gates: Mapping[str, Gate]) -> dict[str, tuple[Verdict, ...]]:
    """`verdicts` as they enter the mixture: a term whose gate is closed is worth exactly 0.

    So r_k = r_k if r_g >= t else 0, the conditioned reward of GDPO (https://arxiv.org/abs/2601.05242). A term that can
    be negative is better off behind a closed gate: shift it first. Where the gate's term failed, nobody knows whether
    it is open, and the gated term is failed too; where it is absent the gate asks nothing.
    """
    return {
        name: tuple(_through(gates[name], one, by) for one, by in zip(column, verdicts[gates[name].term], strict=True))
        if name in gates and gates[name].term in verdicts
        else tuple(column)
        for name, column in verdicts.items()
    }


def _through(gate: Gate, verdict: Verdict, by: Verdict) -> Verdict:
    if verdict.outcome is not Outcome.VALID or by.outcome is Outcome.ABSENT:
        return verdict
    if by.outcome is Outcome.FAILED:
        return Verdict.failed("gate_failed", verdict.details)
    return verdict if by.value >= gate.at_least else replace(verdict, value=0.0, reason=GATED)


def weighted_sum(verdicts: Verdicts, weights: Mapping[str, float]) -> list[float]:
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


def has_signal(verdicts: Verdicts, weights: Mapping[str, float]) -> bool:
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
