"""Reward terms and the workers that compute them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from grpo.config.checks import at_least, positive
from grpo.errors import ConfigError

#: Reward terms that scoring adds by itself: what length costs, and what distance from the reference costs.
OVERLONG_TERM = "overlong"
KL_TERM = "kl"


class TestScoring(StrEnum):
    """How passed unit tests become a reward."""

    fraction = "fraction"
    all = "all"


@dataclass(slots=True, kw_only=True)
class UnitTestsConfig:
    """Limits of one run of model-written code against its unit tests."""

    scoring: TestScoring = TestScoring.fraction
    cpu_time_s: float = 2.0
    wall_time_s: float = 10.0
    memory_mib: int = 256
    output_kib: int = 64

    def __post_init__(self) -> None:
        positive("reward.unit_tests", self, "cpu_time_s", "wall_time_s", "memory_mib", "output_kib")
        if self.wall_time_s < self.cpu_time_s:
            raise ConfigError(
                "reward.unit_tests.wall_time_s", self.wall_time_s, f"below cpu_time_s={self.cpu_time_s}", "Raise it."
            )


@dataclass(slots=True, kw_only=True)
class PatternConfig:
    """The form that the term `pattern` rewards."""

    regex: str = ""


@dataclass(slots=True, kw_only=True)
class RewardConfig:
    """Reward terms, their raw weights (never renormalised), and the workers that compute them."""

    weights: dict[str, float] = field(default_factory=lambda: {"unit_tests": 1.0})
    num_workers: int = 1
    cpus_per_worker: float = 0.0  #: logical CPUs that Ray reserves; the sandbox's processes take what is idle
    slots_per_worker: int = 2  #: programs one worker runs at a time
    timeout_s: float = 120.0  #: of one group, all terms together
    unit_tests: UnitTestsConfig = field(default_factory=UnitTestsConfig)
    pattern: PatternConfig = field(default_factory=PatternConfig)

    def __post_init__(self) -> None:
        at_least("reward", self, 1, "num_workers", "slots_per_worker")
        at_least("reward", self, 0, "cpus_per_worker")
        positive("reward", self, "timeout_s")
        if not self.weights:
            raise ConfigError(
                "reward.weights", self.weights, "no reward term", "Name one, e.g. reward.weights.unit_tests=1."
            )
        for name, key in {OVERLONG_TERM: "overlong_penalty", KL_TERM: "kl_coefficient"}.items():
            if name in self.weights:
                raise ConfigError(
                    f"reward.weights.{name}",
                    self.weights[name],
                    "the name is taken by a term that scoring adds",
                    f"Rename yours; the weight of that one is algorithm.{key}.",
                )
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise ConfigError(
                    f"reward.weights.{name}", weight, "not a finite number", "0 logs it without training."
                )
