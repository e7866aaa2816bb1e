"""Dynamic sampling: groups without signal give way to fresh prompts, and what that does to the sample is measured.

As in DAPO (https://arxiv.org/abs/2503.14476, section 3.2); tasks that are always solved are left out as in ScaleRL
(https://arxiv.org/abs/2510.13786).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from grpo.records import JudgedGroup
from rewards.base import Outcome

#: Weight of the newest step in the measured share of groups with signal.
_SMOOTHING = 0.3
#: Below this share more over-sampling would only delay the steps.
_MIN_SHARE = 0.25


@dataclass(slots=True, kw_only=True)
class SignalFilter:
    """Decides which judged groups a step may take, and counts.

    Attributes:
        is_on: whether groups without signal are dropped at all.
        most_dropped: of one step; beyond it they are taken, so that a step comes to an end where nothing has signal.
        share: measured share of groups with signal; 1 while nothing was measured.
    """

    is_on: bool
    most_dropped: int
    share: float = 1.0
    _judged: list[JudgedGroup] = field(default_factory=list[JudgedGroup])
    _num_dropped: int = 0
    _with_signal: int = 0

    def accepts(self, judged: JudgedGroup, has_signal: bool) -> bool:
        """Whether a step may take the group."""
        self._judged.append(judged)
        self._with_signal += has_signal
        if has_signal or not self.is_on or self._num_dropped >= self.most_dropped:
            return True
        self._num_dropped += 1
        return False

    def finish_step(self, trained: Sequence[JudgedGroup]) -> dict[str, float]:
        """``sampling/`` metrics of what was judged since the last call; starts anew.

        Args:
            trained: the groups that the step takes.
        """
        judged, dropped = self._judged or list(trained), self._num_dropped
        if self._judged:
            measured = self._with_signal / len(self._judged)
            self.share += _SMOOTHING * (max(measured, _MIN_SHARE) - self.share)
        self._judged, self._num_dropped, self._with_signal = [], 0, 0
        metrics = {"sampling/num_dropped": float(dropped), "sampling/signal_share": self.share}
        if not self.is_on:
            return metrics
        ours, theirs = _lengths(trained), _lengths(judged)
        metrics["sampling/length_bias"] = float(ours.mean() / max(theirs.mean(), 1e-9) - 1.0)
        shares, drawn = _shares(trained), _shares(judged)
        if len(drawn) > 1:
            metrics |= {f"sampling/{d}/share_bias": shares.get(d, 0.0) - share for d, share in drawn.items()}
        return metrics


class Retirement:
    """Tasks that the policy solves anyway.

    Args:
        pass_rate: from which on; None retires nothing.
        retired: from a checkpoint.
    """

    def __init__(self, pass_rate: float | None, retired: Iterable[str] = ()) -> None:
        self._pass_rate, self._retired = pass_rate, set(retired)

    def note(self, judged: JudgedGroup) -> None:
        """Retire the group's task if it passed often enough."""
        rate = None if self._pass_rate is None else pass_rate(judged)
        if rate is not None and self._pass_rate is not None and rate >= self._pass_rate:
            self._retired.add(judged.group.prompt.task.task_id)

    def __contains__(self, task_id: str) -> bool:
        return task_id in self._retired

    def __len__(self) -> int:
        return len(self._retired)

    def clear(self) -> None:
        """Take all tasks back."""
        self._retired.clear()

    def state(self) -> list[str]:
        """For a checkpoint."""
        return sorted(self._retired)


def pass_rate(judged: JudgedGroup) -> float | None:
    """Share of a group's completions that pass all tests, or, with terms that are 0 or 1, have all of them at 1.

    None where a verdict failed or where no term says such a thing: a graded reward has no pass.
    """
    passed: list[bool] = []
    for column in zip(*judged.verdicts.values(), strict=True):
        if any(verdict.outcome is Outcome.FAILED for verdict in column):
            return None
        tested = [v for v in column if v.details.get("tests_total")]
        if tested:
            passed.append(all(v.details["tests_passed"] == v.details["tests_total"] for v in tested))
            continue
        values = [v.value for v in column if v.outcome is Outcome.VALID]
        if not values or any(value not in (0.0, 1.0) for value in values):
            return None
        passed.append(all(values))
    return sum(passed) / len(passed) if passed else None


def _lengths(groups: Sequence[JudgedGroup]) -> np.ndarray:
    return np.asarray([len(c.token_ids) for g in groups for c in g.group.completions], dtype=np.float64)


def _shares(groups: Sequence[JudgedGroup]) -> dict[str, float]:
    counts = Counter(g.group.prompt.task.domain for g in groups)
    return {domain: number / counts.total() for domain, number in counts.items()}
