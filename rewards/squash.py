"""A score of any size made into a value from 0 to 1."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rewards.base import RewardError
from rewards.head_facts import FACTS_FILE, read_facts


@dataclass(frozen=True, slots=True, kw_only=True)
class Squash:
    """sigmoid((score - center) / scale).

    Attributes:
        center: score that becomes 1/2.
        scale: one unit; at center + scale the value is 0.731.
    """

    center: float
    scale: float

    def __call__(self, score: float) -> float:
        """From 0 to 1."""
        z = (score - self.center) / self.scale
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))

    @classmethod
    def of(cls, model: Path, center: float | None, scale: float | None) -> Squash:
        """As given, else as the head in a model directory brings it.

        Raises:
            RewardError: neither says.
        """
        if center is None or scale is None:
            brought = read_facts(model).get("calibration", {})
            center = brought.get("center") if center is None else center
            scale = brought.get("scale") if scale is None else scale
        for name, value in (("center", center), ("scale", scale)):
            if value is None:
                raise RewardError(
                    f"{name}=null: the model {str(model)!r} does not say how its scores spread ({FACTS_FILE}); "
                    "set the mean of its scores on answers like yours as center, and their standard deviation as scale."
                )
        assert center is not None and scale is not None
        return cls(center=center, scale=scale)
