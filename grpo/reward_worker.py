"""The Ray actor that computes reward terms, away from every process that holds a policy."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from grpo.records import Group
from grpo.worker_process import log_to_file
from rewards import registry
from rewards.base import Attempt, Reward, Verdict

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class TermSpec:
    """What a worker needs to build one term.

    Attributes:
        kind: reward kind.
        settings: the kind's checked `Settings`; models in it are local directories.
    """

    kind: str
    settings: Any


class RewardWorker:
    """Judges groups, one term at a time, several terms at once. Created by the fleet."""

    def __init__(self, terms: Mapping[str, TermSpec], log_file: str) -> None:
        log_to_file(Path(log_file))
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
        self._specs = terms
        # A thread for each term: it is judged where it was built, one group after the other. (Sandbox processes end
        # with the thread that started them.)
        self._threads = {name: ThreadPoolExecutor(1, thread_name_prefix=name) for name in terms}
        self._rewards: dict[str, Reward] = {}

    async def start(self) -> None:
        """Build all terms. Raises RewardError for one that can't work here."""
        loop = asyncio.get_running_loop()
        for name, spec in self._specs.items():
            key = f"reward.terms.{name}.settings"
            build = registry.build, spec.kind, spec.settings, key
            self._rewards[name] = await loop.run_in_executor(self._threads[name], *build)

    async def judge(self, term: str, group: Group, timeout_s: float) -> tuple[Verdict, ...]:
        """Verdicts of one term, [G].

        A term that raises is our fault or its author's, never the completion's: its verdicts are failed, not 0. So are
        those of an asynchronous term that is late. A plain one can't be stopped here: the caller ends this process.
        """
        attempts = [_attempt(group, index) for index in range(len(group.completions))]
        try:
            verdicts = await self._ask(term, attempts, timeout_s)
        except TimeoutError:
            _LOG.warning("term %s: late on prompt %d", term, group.prompt.uid)
            return (Verdict.failed("timeout"),) * len(attempts)
        except Exception as error:  # noqa: BLE001 - a third party's reward may raise anything; the log has all of it
            _LOG.exception("term %s failed on prompt %d", term, group.prompt.uid)
            return (Verdict.failed(type(error).__name__),) * len(attempts)
        if len(verdicts) != len(attempts) or not all(isinstance(one, Verdict) for one in verdicts):
            _LOG.error(
                "term %s gave %d answers for %d attempts, or others than verdicts", term, len(verdicts), len(attempts)
            )
            return (Verdict.failed("malformed_verdicts"),) * len(attempts)
        return tuple(verdicts)

    async def _ask(self, term: str, attempts: Sequence[Attempt], timeout_s: float) -> Sequence[Verdict]:
        reward = self._rewards[term]
        if not inspect.iscoroutinefunction(reward.judge):
            loop = asyncio.get_running_loop()
            judged = await loop.run_in_executor(self._threads[term], reward.judge, attempts)
            return await judged if inspect.isawaitable(judged) else judged
        return await asyncio.wait_for(cast("Awaitable[Sequence[Verdict]]", reward.judge(attempts)), timeout_s)

    async def shutdown(self) -> None:
        """End the sandbox's processes and whatever else the terms hold."""
        for name, reward in self._rewards.items():
            await asyncio.get_running_loop().run_in_executor(self._threads[name], reward.close)


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
