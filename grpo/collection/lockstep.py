"""One step's groups at a time, sampled with exactly the weights of the step before."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from grpo.collection.protocol import Waits
from grpo.config import RunConfig
from grpo.fleet import Fleet
from grpo.records import JudgedGroup, Prompt
from grpo.report.display import Display
from grpo.schedule.intake import Intake


class LockstepCollector:
    """Samples when a step asks for groups; the same seed draws the same groups."""

    def __init__(self, config: RunConfig, fleet: Fleet, intake: Intake, display: Display) -> None:
        self._config, self._fleet, self._intake, self._display = config, fleet, intake, display

    async def start(self) -> None:
        """Nothing is sampled before it is asked for."""

    async def collect(self, step: int) -> tuple[list[JudgedGroup], Waits]:
        """Sample and judge a step's groups; in further rounds fresh ones in place of those without signal."""
        waits, accepted, rounds = Waits(), list[JudgedGroup](), 0
        while missing := self._config.rollout.prompts_per_step - len(accepted):
            prompts = [self._intake.draw() for _ in range(missing)]
            judged = await self._round(prompts, step, rounds, waits)
            accepted += [one for one in judged if self._intake.accepts(one)]
            rounds += 1
        return sorted(accepted, key=lambda one: one.group.prompt.uid), waits

    async def _round(self, prompts: list[Prompt], step: int, number: int, waits: Waits) -> list[JudgedGroup]:
        """Groups are judged while others are still being sampled."""
        started, done = time.perf_counter(), 0
        judging: list[asyncio.Task[JudgedGroup]] = []
        try:
            self._display.phase("sampling", 0, len(prompts))
            async for group in self._fleet.generate(prompts, engine_seeds(self._config, step, number)):
                judging.append(asyncio.create_task(self._fleet.rewards.judge(group)))
                done += 1
                self._display.phase("sampling", done, len(prompts))
            sampled = time.perf_counter()
            self._display.phase("reward", sum(t.done() for t in judging), len(prompts))
            judged = await asyncio.gather(*judging)
        finally:
            for task in judging:
                task.cancel()
        waits.rollout_s += sampled - started
        waits.reward_s += time.perf_counter() - sampled
        return sorted(judged, key=lambda one: one.group.prompt.uid)

    async def quiesce(self) -> None:
        """Nothing is in flight between steps."""

    def advance(self, policy_version: int) -> None:
        """The engines say themselves what they sampled with."""

    def metrics(self) -> dict[str, float]:
        """Nothing waits between steps."""
        return {}

    async def close(self) -> None:
        """Nothing is in flight between steps."""


def engine_seeds(config: RunConfig, step: int, number: int = 0) -> list[int]:
    """A seed for each engine, a function of run seed, step, round and engine alone: a resumed run draws the same."""
    rounds = [number] if number else []
    workers = range(config.rollout.num_workers)
    return [int(np.random.SeedSequence([config.seed, step, w, *rounds]).generate_state(1)[0]) for w in workers]
