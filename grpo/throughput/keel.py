"""The first arm: Keel's own way from a prompt to a group."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

from grpo.collection.streaming import make_balance
from grpo.config import RunConfig
from grpo.errors import WorkerError
from grpo.fleet import Fleet
from grpo.records import Group
from grpo.throughput.workload import Request, Round, SampledGroup, groups_per_worker


class KeelArm:
    """Rollout workers in Ray, with the load balancing and the limit in flight that the streaming schedules have."""

    def __init__(self, config: RunConfig, device: str, log_dir: Path) -> None:
        self._config = config
        self._fleet = Fleet(config, device, log_dir)

    async def start(self, model_path: Path) -> None:
        """See `Arm.start`."""
        await self._fleet.launch_rollouts(model_path)

    async def run(self, requests: Sequence[Request], seeds: Sequence[int]) -> Round:
        """See `Arm.run`."""
        await self._fleet.reset_prefix_caches()
        await self._fleet.seed(seeds)
        balance = make_balance(self._config)
        slots = asyncio.Semaphore(groups_per_worker(self._config) * self._config.rollout.num_workers)

        async def follow(request: Request, worker: int) -> Group:
            try:
                group = await self._sample(worker, request)
                balance.done(request.prompt.uid, [len(c.token_ids) for c in group.completions])
                return group
            finally:
                slots.release()

        tasks: list[asyncio.Task[Group]] = []
        started = time.monotonic()
        try:
            for request in requests:
                await slots.acquire()
                worker = balance.assign(request.prompt.uid, len(request.prompt.token_ids))
                tasks.append(asyncio.create_task(follow(request, worker)))
            groups = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        ended = time.monotonic()
        return Round(started_s=started, ended_s=ended, groups=tuple(map(_measured, groups)))

    async def _sample(self, worker: int, request: Request) -> Group:
        limit = self._config.rollout.timeout_s
        try:
            group = await asyncio.wait_for(self._fleet.sample(worker, request.prompt, request.lengths), limit)
            assert group is not None, "nothing is aborted here"
            return group
        except TimeoutError:
            raise WorkerError(
                f"a group was not finished in rollout.timeout_s={limit:g} s. The engines' logs are in "
                f"{self._fleet.log_dir}. Raise it for very long completions."
            ) from None

    async def close(self) -> None:
        """See `Arm.close`."""
        await self._fleet.shutdown()


def _measured(group: Group) -> SampledGroup:
    return SampledGroup(
        uid=group.prompt.uid,
        worker=group.worker,
        num_prompt_tokens=len(group.prompt.token_ids) * len(group.completions),
        num_cached_tokens=group.num_cached_prompt_tokens,
        lengths=tuple(len(completion.token_ids) for completion in group.completions),
        timings=group.timings,
    )
