"""Series of metrics over steps, and the few statistics that displays, pictures and the report share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance

#: Parts of a step's wall time, `time/<part>_s`, in the order they are drawn.
TIME_PARTS: tuple[str, ...] = ("rollout", "reward", "learner", "sync", "idle")

Metrics = Mapping[str, float]


def column(history: Sequence[Metrics], name: str) -> list[float]:
    """One metric over all steps; NaN where a step lacks it."""
    return [float(metrics.get(name, math.nan)) for metrics in history]


def is_recorded(values: Sequence[float]) -> bool:
    """Whether a series holds any finite number."""
    return any(math.isfinite(value) for value in values)


def reward_terms(history: Sequence[Metrics]) -> list[str]:
    """Names of the reward terms that appear as `reward/<term>/mean`, in order of first appearance."""
    parts = (name.split("/") for name in dict.fromkeys(name for metrics in history for name in metrics))
    return [part[1] for part in parts if len(part) == 3 and part[0] == "reward" and part[2] == "mean"]


def rolling_mean(values: Sequence[float], window: int = 5) -> list[float]:
    """Mean of each value and the up to `window` - 1 before it, NaN left out."""
    return [mean(values[max(0, end - window) : end]) for end in range(1, len(values) + 1)]


def mean(values: Sequence[float]) -> float:
    """Mean of the finite values; NaN without any."""
    finite = [value for value in values if math.isfinite(value)]
    return fmean(finite) if finite else math.nan


def time_shares(metrics: Metrics) -> dict[str, float]:
    """Share of each recorded time part in their sum; empty where no time was recorded."""
    seconds = {part: float(metrics.get(f"time/{part}_s", 0.0)) for part in TIME_PARTS}
    seconds = {part: value for part, value in seconds.items() if math.isfinite(value) and value > 0}
    total = sum(seconds.values())
    return {part: value / total for part, value in seconds.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuarterComparison:
    """First against last quarter of a run's steps.

    Attributes:
        first, last: mean over the steps of the quarter.
        standard_error: of the difference, from the spread (Bessel's std) between steps inside each quarter; NaN
            where a quarter is a single step.
        num_steps: steps in each quarter.
    """

    first: float
    last: float
    standard_error: float
    num_steps: int

    @property
    def difference(self) -> float:
        """Last minus first."""
        return self.last - self.first


def compare_quarters(values: Sequence[float]) -> QuarterComparison | None:
    """Compare the first with the last quarter of the finite values; none below two values."""
    finite = [value for value in values if math.isfinite(value)]
    if len(finite) < 2:
        return None
    size = max(1, len(finite) // 4)
    first, last = finite[:size], finite[-size:]
    error = math.sqrt((variance(first) + variance(last)) / size) if size > 1 else math.nan
    return QuarterComparison(first=fmean(first), last=fmean(last), standard_error=error, num_steps=size)


def format_number(value: float) -> str:
    """About three significant digits, for people; "-" for NaN."""
    if not math.isfinite(value):
        return "-" if math.isnan(value) else str(value)
    size = abs(value)
    if size != 0 and not 1e-4 <= size < 1e7:
        return f"{value:.1e}"
    decimals = next((digits for limit, digits in ((1e-9, 3), (0.1, 4), (1, 3), (10, 2), (100, 1)) if size < limit), 0)
    return f"{value:,.{decimals}f}"


def format_duration(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss; "-" where unknown."""
    if not math.isfinite(seconds):
        return "-"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
