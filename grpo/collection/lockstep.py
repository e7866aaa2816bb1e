"""One step's groups at a time, sampled with exactly the weights of the step before."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator

import numpy as np

from grpo.collection.protocol import Waits, nothing_finished
from grpo.config import RunConfig
from grpo.fleet import Fleet
from grpo.records import Group, JudgedGroup, Prompt
from grpo.report.display import Display
from grpo.schedule.balance import Balance
from grpo.schedule.intake import Intake


class LockstepCollector:
    """Samples when a step asks for groups; the same seed draws the same groups."""

    def __init__(self, config: RunConfig, fleet: Fleet, intake: Intake, display: Display) -> None:
        self._config, self._fleet, self._intake, self._display = config, fleet, intake, display
        self._num_aborted = 0

    async def start(self) -> None:
        """Nothing is sampled before it is asked for."""

    async def collect(self, step: int) -> tuple[list[JudgedGroup], Waits]:
        """Sample and judge a step's groups; in further rounds fresh ones in place of those without signal."""
        waits, accepted, rounds = Waits(), list[JudgedGroup](), 0
        while missing := self._config.rollout.prompts_per_step - len(accepted):
            num_drawn = math.ceil(missing * (1 + self._config.schedule.over_sample))
            prompts = [self._intake.draw() for _ in range(num_drawn)]
            judged = await self._round(prompts, missing, step, rounds, waits)
            accepted += [one for one in judged if self._intake.accepts(one)]
            rounds += 1
        return sorted(accepted, key=lambda one: one.group.prompt.uid), waits

    async def _round(
        self, prompts: list[Prompt], needed: int, step: int, number: int, waits: Waits
    ) -> list[JudgedGroup]:
        """The first `needed` groups to be sampled; they are judged while others still are being sampled."""
        started, seeds = time.perf_counter(), engine_seeds(self._config, step, number)
        judging: list[asyncio.Task[JudgedGroup]] = []
        # Who takes the first to finish can't have the same ones twice; all of them, in order, are reproducible.
        is_race = needed < len(prompts)
        groups = self._race(prompts, needed, seeds) if is_race else self._fleet.generate(prompts, seeds)
        try:
            self._display.phase("sampling", 0, needed)
            async for group in groups:
                judging.append(asyncio.create_task(self._fleet.rewards.judge(group)))
                self._display.phase("sampling", len(judging), needed)
            sampled = time.perf_counter()
            self._display.phase("reward", sum(t.done() for t in judging), needed)
            judged = await asyncio.gather(*judging)
        finally:
            for task in judging:
                task.cancel()
        waits.rollout_s += sampled - started
        waits.reward_s += time.perf_counter() - sampled
        return sorted(judged, key=lambda one: one.group.prompt.uid)

    async def _race(self, prompts: list[Prompt], needed: int, seeds: list[int]) -> AsyncIterator[Group]:
        """The first `needed` groups; the others are aborted and their prompts drawn again."""
        await self._fleet.seed(seeds)
        rollout = self._config.rollout
        balance = Balance(rollout.num_workers, rollout.group_size, float(rollout.max_new_tokens))
        places = {prompt.uid: balance.assign(prompt.uid, len(prompt.token_ids)) for prompt in prompts}
        running = {asyncio.create_task(self._fleet.sample(places[p.uid], p)): p for p in prompts}
        try:
            while needed:
                done, _ = await asyncio.wait(running, timeout=rollout.timeout_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    raise nothing_finished(self._config, self._fleet.log_dir)
                for task in list(done)[:needed]:
                    del running[task]
                    group = await task
                    assert group is not None, "nothing is aborted before the race is over"
                    needed -= 1
                    yield group
            self._num_aborted += len(running)
            for prompt in running.values():
                self._fleet.abort(places[prompt.uid], prompt.uid)
                self._intake.hand_back(prompt)
            # What is aborted must be gone before the same prompt is sampled again.
            await asyncio.gather(*running)
        finally:
            for task in running:
                task.cancel()

    async def quiesce(self) -> None:
        """Nothing is in flight between steps."""

    def advance(self, policy_version: int) -> None:
        """The engines say themselves what they sampled with."""

    def metrics(self) -> dict[str, float]:
        """What was aborted since the last call."""
        aborted, self._num_aborted = self._num_aborted, 0
        return {"schedule/num_aborted": float(aborted)}

    async def close(self) -> None:
        """Nothing is in flight between steps."""


def engine_seeds(config: RunConfig, step: int, number: int = 0) -> list[int]:
    """A seed for each engine, a function of run seed, step, round and engine alone: a resumed run draws the same."""
    rounds = [number] if number else []
    workers = range(config.rollout.num_workers)
    return [int(np.random.SeedSequence([config.seed, step, w, *rounds]).generate_state(1)[0]) for w in workers]
