"""What the training loop asks of a collector."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from grpo.config import RunConfig
from grpo.errors import WorkerError
from grpo.records import JudgedGroup


@dataclass(slots=True, kw_only=True)
class Waits:
    """Seconds that the training loop had to wait for a step's groups.

    Attributes:
        rollout_s: while something was still being sampled.
        reward_s: while only verdicts were missing.
    """

    rollout_s: float = 0.0
    reward_s: float = 0.0


def nothing_finished(config: RunConfig, log_dir: Path) -> WorkerError:
    """What to say after `rollout.timeout_s` without a sign of life."""
    return WorkerError(
        f"nothing was sampled or judged for rollout.timeout_s={config.rollout.timeout_s:g} s. The workers' logs are in "
        f"{log_dir}. Raise it for very long completions."
    )


class Collector(Protocol):
    """Samples and judges; hands over one step's groups at a time."""

    async def start(self) -> None:
        """Begin; all workers are up."""
        ...

    async def collect(self, step: int) -> tuple[list[JudgedGroup], Waits]:
        """The groups that `step` trains on, in the order of their prompts.

        Raises:
            WorkerError: an engine or a reward worker died, or nothing was finished for `rollout.timeout_s`.
        """
        ...

    async def quiesce(self) -> None:
        """Get ready for new weights: nothing goes on that must not meet them."""
        ...

    def advance(self, policy_version: int) -> None:
        """All engines hold `policy_version`."""
        ...

    def metrics(self) -> dict[str, float]:
        """``schedule/`` quantities now."""
        ...

    async def close(self) -> None:
        """Give up whatever is being sampled or judged."""
        ...
