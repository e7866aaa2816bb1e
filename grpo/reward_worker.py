"""The Ray actor that computes reward terms, away from every process that holds a model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from grpo.records import Group
from grpo.worker_process import log_to_file
from rewards import registry
from rewards.base import Attempt, Verdict


class RewardWorker:
    """Judges groups with every configured term. Created by the controller."""

    def __init__(self, terms: list[str], settings: Mapping[str, object], log_file: str) -> None:
        log_to_file(Path(log_file))
        self._terms = {name: registry.build(name, settings) for name in terms}

    def judge(self, group: Group) -> dict[str, tuple[Verdict, ...]]:
        """Verdicts of each term, [G].

        A term that raises is our fault or its author's, never the completion's: its verdicts are failed, not 0.
        """
        attempts = [_attempt(group, index) for index in range(len(group.completions))]
        verdicts: dict[str, tuple[Verdict, ...]] = {}
        for name, reward in self._terms.items():
            try:
                judged = tuple(reward.judge(attempts))
            except Exception as error:  # noqa: BLE001 - a third party's reward may raise anything; the reason is kept and counted
                judged = (Verdict.failed(f"{type(error).__name__}: {error}"),) * len(attempts)
            assert len(judged) == len(attempts), f"reward {name} gave {len(judged)} verdicts for {len(attempts)}"
            verdicts[name] = judged
        return verdicts

    def shutdown(self) -> None:
        """End the sandbox's processes."""
        for reward in self._terms.values():
            reward.close()


def _attempt(group: Group, index: int) -> Attempt:
    task, completion = group.prompt.task, group.completions[index]
    return Attempt(
        prompt=task.messages,
        prefill=task.prefill,
        completion=completion.text,
        token_ids=tuple(completion.token_ids.tolist()),
        reference=task.reference,
        finish_reason=completion.finish_reason.value,
        domain=task.domain,
    )
