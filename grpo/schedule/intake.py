"""The two ends of sampling: which prompt is next, and whether a step may take what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from grpo.config import RunConfig
from grpo.data.prompts import Prompts
from grpo.errors import CheckpointError
from grpo.records import JudgedGroup, Prompt
from grpo.schedule.ledger import Ledger
from grpo.schedule.resampling import Retirement, SignalFilter
from grpo.scoring import group_has_signal
from rewards.base import Outcome


class Intake:
    """Prompts of one run, from the draw to the step that trained on them.

    What is drawn stays open in the ledger until `commit`, so that a step given up leaves no trace.
    """

    def __init__(self, config: RunConfig, prompts: Prompts) -> None:
        schedule, per_step = config.schedule, config.rollout.prompts_per_step
        self._config = config
        self._prompts = prompts
        self._ledger = Ledger(prompts)
        self._filter = SignalFilter(
            is_on=schedule.replace_without_signal, most_dropped=int(schedule.max_replacements * per_step)
        )
        self._retirement = Retirement(schedule.retire_pass_rate)
        self._unused: list[JudgedGroup] = []  # without signal
        self._skipped: list[int] = []  # of retired tasks

    @property
    def signal_share(self) -> float:
        """Share of groups that a step may take, as measured; 1 where it takes all."""
        return self._filter.share if self._filter.is_on else 1.0

    def draw(self) -> Prompt:
        """The next prompt whose task is not retired. If all are, all come back."""
        began = self._prompts.epoch
        while True:
            prompt = self._ledger.draw()
            if prompt.task.task_id not in self._retirement:
                return prompt
            self._skipped.append(prompt.uid)
            if self._prompts.epoch > began + 1:
                self._retirement.clear()

    def accepts(self, judged: JudgedGroup) -> bool:
        """Whether a step may take the group; what it may not is closed with the next step."""
        config = self._config
        has_signal = group_has_signal(
            judged, config.reward.term_weights, config.algorithm, max_new_tokens=config.rollout.max_new_tokens
        )
        # What failed may have had signal. A reward that is broken must stop the run, not be sampled around.
        failed = any(v.outcome is Outcome.FAILED for column in judged.verdicts.values() for v in column)
        accepted = self._filter.accepts(judged, has_signal or failed)
        if not accepted:
            self._unused.append(judged)
        return accepted

    def hand_back(self, prompt: Prompt) -> None:
        """Nobody will train on what was sampled of it; it is drawn again."""
        self._ledger.hand_back(prompt)

    def commit(self, trained: Sequence[JudgedGroup]) -> dict[str, float]:
        """A step has trained on these groups. Returns ``sampling/`` metrics."""
        for judged in (*trained, *self._unused):
            self._retirement.note(judged)
        uids = [judged.group.prompt.uid for judged in (*trained, *self._unused)]
        self._ledger.close([*uids, *self._skipped])
        self._unused, self._skipped = [], []
        metrics = self._filter.finish_step(trained)
        if self._config.schedule.retire_pass_rate is not None:
            metrics["sampling/num_retired"] = float(len(self._retirement))
        return metrics

    def state(self) -> dict[str, Any]:
        """As of the last commit, ready for JSON."""
        return {**self._ledger.state(), "retired": self._retirement.state(), "signal_share": self._filter.share}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a state that `state` returned. Raises CheckpointError."""
        self._ledger.restore(state)
        retired, share = state.get("retired"), state.get("signal_share")
        if not isinstance(retired, list) or not isinstance(share, float | int):
            raise CheckpointError(f"the checkpoint's prompt ledger is malformed: {str(state)[:200]}")
        retired_ids: list[object] = retired  # pyright: ignore[reportUnknownVariableType]
        self._retirement = Retirement(self._config.schedule.retire_pass_rate, map(str, retired_ids))
        self._filter.share = float(share)
