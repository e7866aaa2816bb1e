"""The workers of a run as three groups of Ray actors with one method a stage."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorProxy
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from grpo.cluster import num_cores, reserve
from grpo.config import RunConfig
from grpo.errors import KeelError, WorkerError
from grpo.learner.worker import LearnerWorker
from grpo.records import FloatArray, Group, MicroBatch, Prompt, StepReport, WeightManifest, WeightUpdate
from grpo.reward_stage import RewardStage, kill, plan_pools
from grpo.reward_worker import RewardWorker, TermSpec
from grpo.rollout.engine import engine_environment
from grpo.rollout.worker import RolloutWorker
from grpo.sync.delivery import Delivery
from grpo.worker_process import last_traceback
from rewards.base import RewardError

#: glibc gives large blocks back to the kernel and has them zeroed again in every pass, a third of a CPU step; kept in
#: one heap they are used again.
HOST_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": str(2 << 30),
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
}
_NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}


class Fleet:
    """All workers of one run. Start it with `launch`, end it with `shutdown`.

    Attributes:
        log_dir: where each worker writes its log.
    """

    def __init__(self, config: RunConfig, device: str, log_dir: Path) -> None:
        self._config = config
        self._device = device
        self.log_dir = log_dir
        self._names: dict[ActorProxy[Any], str] = {}
        self.learners: list[ActorProxy[Any]] = []
        self.rollouts: list[ActorProxy[Any]] = []
        self.rewards = RewardStage(config.reward, config.cluster.startup_timeout_s)
        self._delivery: Delivery | None = None

    async def launch(self, model_path: Path, terms: Mapping[str, TermSpec]) -> None:
        """Create all workers, load the model everywhere and connect the weight channel.

        Args:
            terms: how each reward term is built.

        Raises:
            ConfigError: the cluster has no room.
            RewardError: a reward term can't work where its worker is.
            WorkerError: a worker did not come up; holds its own traceback.
        """
        self._create_learners()
        self._create_rollouts()
        self._create_judges(terms)
        judges = self.rewards.workers
        builds = [w.start.remote() for w in judges]
        starts = [w.start.remote(str(model_path)) for w in self.rollouts]
        host, port = await self._call("learner_0", self.learners[0].address.remote())
        loads = [w.start.remote(host, port, str(model_path)) for w in self.learners]
        workers = [*self.learners, *self.rollouts, *judges]
        manifests = await self._started(workers, [*loads, *starts, *builds])
        await self._connect(manifests[0])

    async def launch_rollouts(self, model_path: Path) -> None:
        """Create the rollout workers alone and load the model in them: they sample, but nobody sends them weights.

        Raises:
            ConfigError, WorkerError: as `launch`.
        """
        self._create_rollouts()
        await self._started(self.rollouts, [w.start.remote(str(model_path)) for w in self.rollouts])

    async def _started(self, workers: Sequence[ActorProxy[Any]], calls: Sequence[Awaitable[Any]]) -> list[Any]:
        limit = self._config.cluster.startup_timeout_s
        try:
            return await asyncio.wait_for(self._all(workers, calls), limit)
        except TimeoutError:
            raise WorkerError(
                f"the workers were not up after cluster.startup_timeout_s={limit:g} s. What they were doing is in "
                f"{self.log_dir}. Raise it for a large model on a slow disk."
            ) from None

    async def _connect(self, manifest: WeightManifest) -> None:
        self._delivery = Delivery(
            self._config,
            learners={self._names[worker]: worker for worker in self.learners},
            rollouts={self._names[worker]: worker for worker in self.rollouts},
            call=self._call,
            run_directory=self.log_dir.parent,
        )
        await self._delivery.connect(manifest)

    @property
    def sync_backend(self) -> str:
        """How weights travel, once the workers are up."""
        return self._delivery.backend.value if self._delivery else self._config.sync.backend.value

    async def generate(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> AsyncIterator[Group]:
        """Sample a group for every prompt, spread over the rollout workers; groups come as they finish.

        Args:
            prompts: at least one.
            seeds: one for each worker.
        """
        queue: asyncio.Queue[Group | tuple[str, RayError] | None] = asyncio.Queue()

        async def drain(worker: ActorProxy[Any], share: list[Prompt], seed: int) -> None:
            try:
                stream: Any = worker.generate.options(num_returns="streaming").remote(share, seed)
                async for reference in stream:
                    queue.put_nowait(await reference)
                queue.put_nowait(None)
            except RayError as error:
                queue.put_nowait((self._names[worker], error))

        shares = _spread(prompts, len(self.rollouts))
        tasks = [
            asyncio.create_task(drain(worker, share, seed))
            for worker, share, seed in zip(self.rollouts, shares, seeds, strict=True)
            if share
        ]
        try:
            running = len(tasks)
            while running:
                item = await asyncio.wait_for(queue.get(), self._config.rollout.timeout_s)
                if isinstance(item, tuple):
                    raise self._explain(*item)
                running -= item is None
                if item is not None:
                    yield item
        except TimeoutError:
            raise WorkerError(
                f"no group was finished for rollout.timeout_s={self._config.rollout.timeout_s:g} s. The engines' logs "
                f"are in {self.log_dir}. Raise it for very long completions."
            ) from None
        finally:
            for task in tasks:
                task.cancel()

    async def sample(self, worker: int, prompt: Prompt, lengths: Sequence[int] | None = None) -> Group | None:
        """Sample one group on the rollout worker of an index, among whatever else it decodes. None: aborted.

        Args:
            lengths: see `Engine.sample`.
        """
        actor = self.rollouts[worker]
        return await self._call(self._names[actor], actor.sample.remote(prompt, lengths))

    async def reset_prefix_caches(self) -> None:
        """Make every engine forget the prefixes it has seen. Nothing may be in flight."""
        await self._all(self.rollouts, [w.reset_prefix_cache.remote() for w in self.rollouts])

    def abort(self, worker: int, uid: int) -> None:
        """Have a rollout worker give up the group of a prompt; its `sample` then returns None."""
        self.rollouts[worker].abort.remote(uid)

    async def seed(self, seeds: Sequence[int]) -> None:
        """Seed every rollout worker's sampler."""
        await self._all(self.rollouts, [w.seed.remote(s) for w, s in zip(self.rollouts, seeds, strict=True)])

    async def reference_logprobs(self, batches: Sequence[Sequence[MicroBatch]]) -> list[list[FloatArray]]:
        """Logprobs of the loss tokens under the reference, [rank][micro-batch] -> [L] each."""
        calls = [w.reference_logprobs.remote(share) for w, share in zip(self.learners, batches, strict=True)]
        return await self._all(self.learners, calls)

    async def train_step(self, updates: Sequence[Sequence[Sequence[MicroBatch]]]) -> list[StepReport] | None:
        """One step on every learner rank; None where it was interrupted.

        Args:
            updates: [update][rank][micro-batch].
        """
        by_rank = [[ranks[rank] for ranks in updates] for rank in range(len(self.learners))]
        reports = await self._all(
            self.learners, [w.train_step.remote(share) for w, share in zip(self.learners, by_rank, strict=True)]
        )
        return None if any(report is None for report in reports) else reports

    def interrupt_step(self) -> None:
        """Ask the learners to leave the step in progress."""
        for worker in self.learners:
            worker.interrupt.remote()

    async def sync_weights(self, policy_version: int) -> list[WeightUpdate]:
        """Learner to engines: send, load, compare checksums of every tensor in every engine process; see `Delivery`.

        Returns:
            The account of every engine process; all checksums are those of what the learner sent.

        Raises:
            SyncError: something arrived late, not at all or different; names worker, phase or tensor.
            WorkerError: a worker died.
        """
        assert self._delivery is not None, "launch() connects"
        return await self._delivery.deliver(policy_version)

    async def on_learners(self, method: str, *arguments: object) -> list[Any]:
        """Call a collective method on every learner rank."""
        return await self._all(self.learners, [getattr(w, method).remote(*arguments) for w in self.learners])

    async def end_sampling(self, timeout_s: float = 5.0) -> None:
        """End rollout and reward workers, politely for `timeout_s` seconds, then at once."""
        workers, self.rollouts = [*self.rollouts, *self.rewards.release()], []
        endings = [asyncio.wrap_future(worker.shutdown.remote().future()) for worker in workers]
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*endings, return_exceptions=True), timeout_s)
        kill(workers)

    async def shutdown(self) -> None:
        """End every worker. May be called twice."""
        await self.end_sampling()
        learners, self.learners = self.learners, []
        kill(learners)
        if self._delivery is not None:
            self._delivery.close()

    def _create_learners(self) -> None:
        config, on_gpu, learner = self._config, self._device == "cuda", self._config.learner
        learner_threads = learner.threads or max(1, num_cores() // learner.num_ranks)
        self.learners = self._actors(
            "learner",
            LearnerWorker,
            learner.num_ranks,
            cpus=learner.cpus_per_rank,
            gpus=int(on_gpu),
            environment={} if on_gpu else {"OMP_NUM_THREADS": str(learner_threads), **HOST_MEMORY},
            arguments=lambda i, log: (i, config, self._device, log),
            remedy="Lower learner.num_ranks or learner.cpus_per_rank, or add nodes.",
            extra={"concurrency_groups": {"control": 1}},
        )

    def _create_rollouts(self) -> None:
        config, on_gpu, rollout = self._config, self._device == "cuda", self._config.rollout
        self.rollouts = self._actors(
            "rollout",
            RolloutWorker,
            rollout.num_workers,
            cpus=rollout.cpus_per_worker,
            gpus=rollout.tensor_parallel_size if on_gpu else 0,
            environment=engine_environment(self._device, engine_threads(config)),
            arguments=lambda i, log: (i, config, self._device, log),
            remedy="Lower rollout.num_workers, rollout.tensor_parallel_size or rollout.cpus_per_worker, or add nodes.",
        )

    def _create_judges(self, terms: Mapping[str, TermSpec]) -> None:
        for plan in plan_pools(self._config.reward):
            gpus = plan.gpus if self._device == "cuda" else 0
            spawn = self._spawner(
                plan.name,
                RewardWorker,
                plan.num_workers,
                cpus=plan.cpus,
                gpus=gpus,
                # Without GPUs of its own it must not find those of the engines.
                environment={"OMP_NUM_THREADS": str(max(1, round(plan.cpus))), **({} if gpus else _NO_GPU)},
                arguments=lambda i, log, plan=plan: ({name: terms[name] for name in plan.terms}, log),
                remedy="Lower num_workers, cpus_per_worker or gpus_per_worker under reward, or add nodes.",
            )
            self.rewards.add(plan, spawn)

    def _actors(self, kind: str, worker_class: type, count: int, **options: Any) -> list[ActorProxy[Any]]:
        spawn = self._spawner(kind, worker_class, count, **options)
        return [spawn(index) for index in range(count)]

    def _spawner(
        self,
        kind: str,
        worker_class: type,
        count: int,
        *,
        cpus: float,
        gpus: float,
        environment: dict[str, str],
        arguments: Any,
        remedy: str,
        extra: dict[str, Any] | None = None,
    ) -> Callable[[int], ActorProxy[Any]]:
        """Reserve `count` places; makes the worker of an index when called."""
        group = reserve(f"{kind} workers", count, cpus=cpus, gpus=gpus, config=self._config, remedy=remedy)
        remote = ray.remote(**extra)(worker_class) if extra else ray.remote(worker_class)

        def spawn(index: int) -> ActorProxy[Any]:
            options = remote.options(
                num_cpus=cpus,
                num_gpus=gpus,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
                if group is not None
                else "DEFAULT",
                runtime_env={"env_vars": environment} if environment else None,
            )
            actor = options.remote(*arguments(index, str(self.log_dir / f"{kind}_{index}.log")))
            self._names[actor] = f"{kind}_{index}"
            return actor

        return spawn

    async def _all(self, workers: Iterable[ActorProxy[Any]], references: Iterable[Awaitable[Any]]) -> list[Any]:
        """Results of one call on each worker; the first failure is explained and raised."""
        names = [self._names.get(worker, "worker") for worker in workers]
        calls = [self._call(name, reference) for name, reference in zip(names, references, strict=True)]
        return await asyncio.gather(*calls)

    async def _call(self, name: str, reference: Awaitable[Any]) -> Any:
        try:
            return await reference
        except (RayTaskError, RayActorError) as error:
            raise self._explain(name, error) from None

    def _explain(self, name: str, error: BaseException) -> BaseException:
        """The cause itself where it is one of Keel's own; else the worker's traceback in a WorkerError."""
        if isinstance(error, RayTaskError):
            if isinstance(error.cause, KeelError | RewardError):
                return error.cause
            return WorkerError(f"{name} failed:\n{error}")
        if isinstance(error, RayActorError):
            time.sleep(0.2)  # let the dying process finish its log
            log = self.log_dir / f"{name}.log"
            cause = last_traceback(log.read_text(errors="replace")) if log.exists() else ""
            return WorkerError(f"{name} died: {error}\n{cause}\nWhole log: {log}")
        return error


def engine_threads(config: RunConfig) -> int:
    """OpenMP threads of each engine on a CPU."""
    return config.rollout.threads or max(1, num_cores() // config.rollout.num_workers)


def _spread(prompts: Sequence[Prompt], num_workers: int) -> list[list[Prompt]]:
    """Each prompt to the worker with the least outstanding work, counted in prompt tokens and prompts."""
    shares: list[list[Prompt]] = [[] for _ in range(num_workers)]
    loads = [(0, 0)] * num_workers
    for prompt in prompts:
        target = loads.index(min(loads))
        shares[target].append(prompt)
        count, tokens = loads[target]
        loads[target] = (count + 1, tokens + len(prompt.token_ids))
    return shares
