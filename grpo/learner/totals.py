"""Metrics of a step, from the sums and extremes of its micro-batches on all ranks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor

from grpo.records import LossOutput

#: Sums of flags are reported as shares.
_SHARES = frozenset({"clip_low", "clip_high", "dual_clip", "importance_masked"})


class StepTotals:
    """Adds up `LossOutput`s; empty at the start of a step."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._maxima: dict[str, Tensor] = {}
        self._minima: dict[str, Tensor] = {}

    def add(self, output: LossOutput) -> None:
        """Count a micro-batch in."""
        for combine, totals, new in (
            (torch.add, self._sums, output.sums),
            (torch.maximum, self._maxima, output.maxima),
            (torch.minimum, self._minima, output.minima),
        ):
            for name, value in new.items():
                totals[name] = combine(totals[name], value) if name in totals else value

    def metrics(self) -> dict[str, float]:
        """`learner/...` quantities of the step, equal on all ranks. A collective."""
        sums = _all_reduce(self._sums, dist.ReduceOp.SUM)
        extremes = _all_reduce(self._maxima, dist.ReduceOp.MAX) | _all_reduce(self._minima, dist.ReduceOp.MIN)
        tokens = sums.pop("tokens")
        counts = {"loss": sums.pop("loss"), "num_loss_tokens": tokens}
        if not tokens:  # every completion was masked: there is nothing to take a mean of
            return {f"learner/{name}": value for name, value in counts.items()}
        importance, squared = sums.pop("importance"), sums.pop("importance_squared")
        means = {f"{name}_share" if name in _SHARES else name: value / tokens for name, value in sums.items()}
        effective = {"effective_sample_share": importance**2 / (tokens * squared)}
        return {f"learner/{name}": value for name, value in (counts | means | extremes | effective).items()}


def _all_reduce(values: Mapping[str, Tensor], how: dist.ReduceOp.RedOpType) -> dict[str, float]:
    names = sorted(values)
    stacked = torch.stack([values[name].double() for name in names])
    dist.all_reduce(stacked, how)
    return dict(zip(names, stacked.tolist(), strict=True))
