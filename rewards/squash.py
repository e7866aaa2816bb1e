"""A score of any size made into a value from 0 to 1."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.base import RewardError

#: Beside a composed model's weights; what is known of its head.
_FACTS = "reward_head.json"


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
            brought = _read(model)
            center = brought.get("center") if center is None else center
            scale = brought.get("scale") if scale is None else scale
        for name, value in (("center", center), ("scale", scale)):
            if value is None:
                raise RewardError(
                    f"{name}=null: the model {str(model)!r} does not say how its scores spread ({_FACTS}); "
                    "set the mean of its scores on answers like yours as center, and their standard deviation as scale."
                )
        assert center is not None and scale is not None
        return cls(center=center, scale=scale)


def _read(model: Path) -> dict[str, Any]:
    try:
        return json.loads((model / _FACTS).read_text(encoding="utf-8")).get("calibration", {})
    except (OSError, ValueError, AttributeError):
        return {}
