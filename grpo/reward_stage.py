"""All reward workers of a run: who judges which term, how long it may take, and what happens when it fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.actor import ActorProxy
from ray.exceptions import RayActorError, RayError

from grpo.config import RewardConfig
from grpo.errors import WorkerError
from grpo.records import Group, JudgedGroup
from rewards.base import Outcome, Verdict

_LOG = logging.getLogger(__name__)
#: What an asynchronous term gets beyond its time to say so itself, seconds.
_GRACE_S = 2.0
#: Times in a row that a term's worker may die under it before its verdicts are failed.
_MAX_DEATHS = 2

Worker = ActorProxy[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """Workers that compute the same terms.

    Attributes:
        name: of the pool; worker names and log files start with it.
        terms: terms each worker computes.
        num_workers, cpus, gpus: how many, and what each reserves.
    """

    name: str
    terms: tuple[str, ...]
    num_workers: int
    cpus: float
    gpus: float


def plan_pools(config: RewardConfig) -> list[PoolPlan]:
    """The shared pool, where any term needs it, and one for each term with workers of its own."""
    terms = {name: config.term(name) for name in config.term_weights.terms}
    shared = tuple(name for name, term in terms.items() if not term.num_workers)
    own = [
        PoolPlan(
            name=f"reward_{name}",
            terms=(name,),
            num_workers=term.num_workers,
            cpus=term.cpus_per_worker,
            gpus=term.gpus_per_worker,
        )
        for name, term in terms.items()
        if term.num_workers
    ]
    if not shared:
        return own
    plan = PoolPlan(name="reward", terms=shared, num_workers=config.num_workers, cpus=config.cpus_per_worker, gpus=0.0)
    return [plan, *own]


@dataclass(slots=True)
class _Pool:
    plan: PoolPlan
    spawn: Callable[[int], Worker]
    workers: list[Worker] = field(default_factory=list[Worker])
    replacing: list[asyncio.Lock] = field(default_factory=list[asyncio.Lock])


class RewardStage:
    """Judges groups on all pools. Neither a slow nor a broken term holds up another."""

    def __init__(self, config: RewardConfig, startup_timeout_s: float) -> None:
        self._config = config
        self._startup_timeout_s = startup_timeout_s
        self._weights = config.term_weights
        self._pools: dict[str, _Pool] = {}
        self._free: dict[str, asyncio.Queue[int]] = {}

    def add(self, plan: PoolPlan, spawn: Callable[[int], Worker]) -> list[Worker]:
        """Create a pool's workers.

        Args:
            spawn: makes the worker of an index, also in place of one that ended.
        """
        pool = _Pool(plan, spawn, [spawn(i) for i in range(plan.num_workers)])
        pool.replacing = [asyncio.Lock() for _ in pool.workers]
        for name in plan.terms:
            self._pools[name] = pool
            self._free[name] = asyncio.Queue()
            for _ in range(self._config.term(name).concurrency):
                for index in range(plan.num_workers):
                    self._free[name].put_nowait(index)
        return pool.workers

    @property
    def workers(self) -> list[Worker]:
        """All workers there are now."""
        pools = {id(pool): pool for pool in self._pools.values()}.values()
        return [worker for pool in pools for worker in pool.workers]

    def release(self) -> list[Worker]:
        """All workers, which are the caller's to end from now on."""
        workers, self._pools = self.workers, {}
        return workers

    async def judge(self, group: Group) -> JudgedGroup:
        """The group with the verdicts of every term of its domain's mixture, [G] each. Terms are judged at once."""
        names = list(self._weights.of(group.prompt.task.domain))
        columns = await asyncio.gather(*(self._judge(name, group) for name in names))
        return JudgedGroup(group=group, verdicts=dict(zip(names, columns, strict=True)))

    async def _judge(self, name: str, group: Group) -> tuple[Verdict, ...]:
        """One term; what failed is tried again, and what was valid the first time stays."""
        verdicts = await self._ask(name, group)
        retries = self._config.term(name).retries
        for _ in range(self._config.retries if retries is None else retries):
            if all(verdict.outcome is not Outcome.FAILED for verdict in verdicts):
                break
            # The whole group anew, since a term may compare its members.
            again = await self._ask(name, group)
            verdicts = tuple(
                new if old.outcome is Outcome.FAILED else old for old, new in zip(verdicts, again, strict=True)
            )
        return verdicts

    async def _ask(self, name: str, group: Group) -> tuple[Verdict, ...]:
        """One term, once. A worker that dies or is late is replaced; late is failed, dead is asked again."""
        pool = self._pools[name]
        limit = self._config.term(name).timeout_s or self._config.timeout_s
        for _ in range(_MAX_DEATHS):
            index = await self._free[name].get()  # waiting for it does not count as the term's time
            worker = pool.workers[index]
            try:
                return await asyncio.wait_for(worker.judge.remote(name, group, limit), limit + _GRACE_S)
            except TimeoutError:
                _LOG.warning(
                    "%s_%d is late with term %s after %g s; it is replaced", pool.plan.name, index, name, limit
                )
                await self._replace(pool, index, worker)
                return (Verdict.failed("timeout"),) * len(group.completions)
            except RayActorError as error:
                _LOG.warning("%s_%d died under term %s; it is replaced: %s", pool.plan.name, index, name, error)
                await self._replace(pool, index, worker)
            finally:
                self._free[name].put_nowait(index)
        return (Verdict.failed("worker_died"),) * len(group.completions)

    async def _replace(self, pool: _Pool, index: int, worker: Worker) -> None:
        """End a worker and put a new one in its place, unless another term did so already."""
        async with pool.replacing[index]:
            if pool.workers[index] is not worker:
                return
            kill([worker])
            pool.workers[index] = new = pool.spawn(index)
            try:
                await asyncio.wait_for(new.start.remote(), self._startup_timeout_s)
            except (TimeoutError, RayError) as error:
                raise WorkerError(f"{pool.plan.name}_{index} ended and could not be replaced: {error}") from error


def kill(workers: Iterable[Worker]) -> None:
    """End actors at once."""
    for worker in workers:
        ray.kill(worker)  # pyright: ignore[reportArgumentType] - a proxy is a handle, ray's stubs notwithstanding
