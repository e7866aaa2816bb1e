"""Reward terms, what they weigh in which domain, and the workers that compute them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from grpo.config.checks import at_least, positive, within
from grpo.errors import ConfigError
from rewards.base import RewardError
from rewards.mixture import Gate, TermWeights
from rewards.settings import read_settings

#: Reward terms that scoring adds by itself: what length costs, and what distance from the reference costs.
OVERLONG_TERM = "overlong"
KL_TERM = "kl"


@dataclass(slots=True, kw_only=True)
class TermConfig:
    """How one reward term is made and where it runs: the values of ``reward.terms.NAME``."""

    kind: str | None = None  #: reward kind; null: the term's own name
    timeout_s: float | None = None  #: of one group; null: reward.timeout_s
    retries: int | None = None  #: null: reward.retries
    num_workers: int = 0  #: workers of its own; 0: it runs in those that all such terms share
    cpus_per_worker: float = 0.0
    gpus_per_worker: float = 0.0
    concurrency: int = 1  #: groups one worker has in hand at a time; more pays where a term waits for a server
    settings: dict[str, Any] = field(default_factory=dict[str, Any])  #: of the kind; see docs/rewards.md


@dataclass(slots=True, kw_only=True)
class RewardConfig:
    """Reward terms, their raw weights (never renormalised), and the workers that compute them."""

    weights: dict[str, float] = field(default_factory=lambda: {"unit_tests": 1.0})
    mixtures: dict[str, Any] = field(default_factory=dict[str, Any])  #: domain -> weights that replace `weights` there
    gates: dict[str, str] = field(default_factory=dict[str, str])  #: term -> "OTHER>=NUMBER", else it is worth 0
    terms: dict[str, Any] = field(default_factory=dict[str, Any])  #: term -> TermConfig
    num_workers: int = 1  #: shared by all terms that have none of their own
    cpus_per_worker: float = 0.0  #: logical CPUs that Ray reserves; the sandbox's processes take what is idle
    timeout_s: float = 120.0  #: of one term on one group
    retries: int = 1  #: times a group is judged anew by a term that failed on some of it
    max_failed_share: float = 0.2  #: of a term's verdicts in a step; above it the run pauses; 1: never

    def __post_init__(self) -> None:
        at_least("reward", self, 1, "num_workers")
        at_least("reward", self, 0, "cpus_per_worker", "retries")
        positive("reward", self, "timeout_s")
        within("reward", self, 0.0, 1.0, "max_failed_share")
        _check_weights("reward.weights", self.weights)
        for domain, weights in self.mixtures.items():
            _check_weights(f"reward.mixtures.{domain}", weights)
        for name in self.terms:
            self.term(name)
            if name not in self.term_weights.terms:
                raise ConfigError(
                    f"reward.terms.{name}",
                    self.terms[name],
                    "no mixture has a term of this name",
                    f"Set reward.weights.{name}, 0 to log it only.",
                )
        self._check_gates()

    @property
    def term_weights(self) -> TermWeights:
        """What weighs how much in which domain, and the gates."""
        by_domain = {domain: {k: float(w) for k, w in weights.items()} for domain, weights in self.mixtures.items()}
        gates = {name: self._gate(name) for name in self.gates}
        return TermWeights(default=dict(self.weights), by_domain=by_domain, gates=gates)

    def term(self, name: str) -> TermConfig:
        """How the term `name` is made; all defaults where ``reward.terms`` does not name it. Raises ConfigError."""
        key, values = f"reward.terms.{name}", cast("object", self.terms.get(name, {}))
        if not isinstance(values, Mapping):
            raise ConfigError(key, values, "no mapping", f"Set e.g. {key}.settings={{...}}.")
        given = cast("Mapping[str, Any]", values)
        try:
            term = read_settings(TermConfig, given, key)
        except RewardError as error:
            problem, _, remedy = str(error).removeprefix(f"{key}.").partition(". ")
            raise ConfigError(key, given, problem, remedy or "docs/config.md lists the keys.") from None
        at_least(key, term, 0, "retries", "num_workers", "cpus_per_worker", "gpus_per_worker")
        at_least(key, term, 1, "concurrency")
        positive(key, term, "timeout_s")
        if not term.num_workers and (term.cpus_per_worker or term.gpus_per_worker):
            raise ConfigError(
                f"{key}.num_workers",
                0,
                "CPUs or GPUs are asked for workers that it has none of",
                "Set it to 1 or more.",
            )
        return term

    def _gate(self, name: str) -> Gate:
        try:
            return Gate.parse(self.gates[name])
        except RewardError:
            raise ConfigError(
                f"reward.gates.{name}", self.gates[name], "no condition", "Write TERM>=NUMBER, e.g. 'pattern>=1'."
            ) from None

    def _check_gates(self) -> None:
        for name in self.gates:
            gate = self._gate(name)
            for place, weights in {"reward.weights": self.weights, **_by_place(self.mixtures)}.items():
                if name in weights and gate.term not in weights:
                    raise ConfigError(
                        f"reward.gates.{name}",
                        self.gates[name],
                        f"{place} has {name} but not {gate.term}, which its gate asks",
                        f"Set {place}.{gate.term}=0 to compute it without training on it.",
                    )
            if name not in self.term_weights.terms:
                raise ConfigError(
                    f"reward.gates.{name}",
                    self.gates[name],
                    "no mixture has such a term",
                    f"Set reward.weights.{name}.",
                )


def _by_place(mixtures: Mapping[str, Any]) -> dict[str, Any]:
    return {f"reward.mixtures.{domain}": weights for domain, weights in mixtures.items()}


def _check_weights(place: str, weights: object) -> None:
    if not isinstance(weights, Mapping) or not weights:
        raise ConfigError(place, cast("object", weights), "no reward term", f"Name one, e.g. {place}.unit_tests=1.")
    taken = {OVERLONG_TERM: "overlong_penalty", KL_TERM: "kl_coefficient"}
    for name, weight in cast("Mapping[str, object]", weights).items():
        key = f"{place}.{name}"
        if name in taken:
            raise ConfigError(
                key,
                weight,
                "the name is taken by a term that scoring adds",
                f"Rename yours; the weight of that one is algorithm.{taken[name]}.",
            )
        if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
            raise ConfigError(key, weight, "not a finite number", "0 logs it without training.")
