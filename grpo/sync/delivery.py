"""The controller's side of a weight sync: both ends called, watched, compared, asked again, probed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray.actor import ActorProxy

from grpo.config import RunConfig, SyncBackend
from grpo.errors import KeelError, SyncError, WorkerError
from grpo.records import WeightManifest, WeightUpdate
from grpo.sync.backend import Order
from grpo.sync.channel import Endpoint
from grpo.sync.checksum import verify
from grpo.sync.disk import remove_updates, sync_directory
from grpo.sync.probe import first_different, largest_difference, mismatch, tolerance

#: How long the others may still take when one end has failed: what they wait for will not come.
_GRACE_S = 15.0
_LOG = logging.getLogger(__name__)

Call = Callable[[str, Awaitable[Any]], Awaitable[Any]]


class _Stuck(SyncError):
    """Somebody does not answer: asking again would only queue behind that."""


class Delivery:
    """Brings policy versions from the learner ranks to the engines."""

    def __init__(
        self,
        config: RunConfig,
        *,
        learners: Mapping[str, ActorProxy[Any]],
        rollouts: Mapping[str, ActorProxy[Any]],
        call: Call,
        run_directory: Path,
    ) -> None:
        """Connect nothing yet.

        Args:
            learners, rollouts: the workers by name, rank by rank.
            call: awaits one remote call of the worker of that name and explains its failure.
        """
        self._config = config
        self._learners = learners
        self._rollouts = rollouts
        self._call = call
        self._directory = sync_directory(config, run_directory)
        self.backend = config.sync.backend
        self._manifest: WeightManifest | None = None
        self._endpoint: Endpoint | None = None
        self._serial = 0
        self._updates = 0
        self._whole_next = True
        self._probe: tuple[int, ...] | None = None

    async def connect(self, manifest: WeightManifest) -> None:
        """Join both ends. With backend auto: by broadcast, or by disk where no channel can be joined.

        Raises:
            SyncError: the ends can't reach each other within `sync.timeout_s`.
        """
        self._manifest = manifest
        try:
            await self._join(SyncBackend.broadcast if self.backend is SyncBackend.auto else self.backend)
        except SyncError as error:
            if self.backend is not SyncBackend.auto:
                raise
            _LOG.warning("weights travel by files in %s, since no channel could be joined: %s", self._directory, error)
            await self._join(SyncBackend.disk)

    async def deliver(self, policy_version: int) -> list[WeightUpdate]:
        """One verified update in every engine process; a failed attempt is followed by a whole one over a new channel.

        Returns:
            The account of every engine process; all checksums are those of what the learner sent.

        Raises:
            SyncError: something arrived late, not at all or different, `sync.retries` times again too; or an engine
                computes something else than the learner. Engines without a whole update refuse to sample.
            WorkerError: a worker died.
        """
        attempts = 1 + self._config.sync.retries
        for attempt in range(1, attempts + 1):
            try:
                if attempt > 1 and self.backend is not SyncBackend.disk:
                    await self._join(self.backend)
                updates = await self._attempt(policy_version)
                break
            except SyncError as error:
                self._whole_next = True
                if attempt == attempts or isinstance(error, _Stuck):
                    raise SyncError(f"{error} (attempt {attempt} of {attempts})") from error
                _LOG.warning("policy version %d is sent again: %s", policy_version, error)
        every = self._config.sync.probe_every
        if every and self._updates % every == 0:
            difference = await self.probe(policy_version, updates)
            updates = [replace(update, probe_max_abs_difference=difference) for update in updates]
        self._updates += 1
        return updates

    async def probe(self, policy_version: int, updates: Sequence[WeightUpdate]) -> float:
        """Logprobs of the probe in every engine against the learner's.

        Args:
            updates: of the version in question.

        Returns:
            The largest difference in nats.

        Raises:
            SyncError: it is above the tolerance of the types involved.
        """
        first = next(iter(self._rollouts))
        if self._probe is None:
            (self._probe,) = await self._settle("probing", {first: self._rollouts[first].probe_tokens.remote()})
        calls = {name: worker.probe.remote(self._probe) for name, worker in self._learners.items()}
        calls |= {name: worker.score.remote(self._probe) for name, worker in self._rollouts.items()}
        results = await self._settle("probing", calls)
        learner, engines = results[0], results[len(self._learners) :]
        limit = tolerance(self._config.model.rollout_dtype, self._config.model.param_dtype)
        differences = [largest_difference(engine, learner) for engine in engines]
        for (name, worker), difference in zip(self._rollouts.items(), differences, strict=True):
            if difference > limit:
                (held,) = await self._settle("reading back", {name: worker.held_checksums.remote()})
                found = first_different(updates[0].checksums, held)
                raise mismatch(policy_version, name, difference, limit, found)
        return max(differences)

    def close(self) -> None:
        """Remove what lies on disk."""
        if self.backend in (SyncBackend.disk, SyncBackend.auto):
            remove_updates(self._directory)

    async def _join(self, backend: SyncBackend) -> None:
        assert self._manifest is not None
        sender, size = next(iter(self._learners)), self._config.rollout.tensor_parallel_size
        worker = self._learners[sender]
        directory = str(self._directory)
        if backend is not SyncBackend.disk:
            host, port = await self._call(sender, worker.serve_channel.remote())
            self._endpoint = Endpoint(
                host=host,
                port=port,
                world_size=1 + size * len(self._rollouts),
                timeout_s=self._config.sync.timeout_s,
                generation=self._endpoint.generation + 1 if self._endpoint else 0,
            )
        endpoint = None if backend is SyncBackend.disk else self._endpoint
        calls = {sender: worker.join_sync.remote(backend, endpoint, directory)}
        for index, (name, rollout) in enumerate(self._rollouts.items()):
            calls[name] = rollout.join_sync.remote(backend, endpoint, directory, 1 + size * index, self._manifest)
        await self._settle("joining", calls)
        self.backend = backend

    async def _attempt(self, policy_version: int) -> list[WeightUpdate]:
        self._serial += 1
        order = Order(policy_version=policy_version, serial=self._serial, full=self._whole_next)
        sends = {name: worker.publish.remote(order) for name, worker in self._learners.items()}
        if self.backend is SyncBackend.disk:  # what is read has to be there
            sent = (await self._settle("writing", sends))[0]
            received = await self._settle("reading", self._receive(order))
        else:
            results = await self._settle("sending and receiving", sends | self._receive(order))
            sent, received = results[0], results[len(self._learners) :]
        for name, updates in zip(self._rollouts, received, strict=True):
            for process, update in enumerate(updates):
                verify(sent, update, f"{name}, process {process}")
        await self._settle("accepting", {n: w.accept_weights.remote(order) for n, w in self._rollouts.items()})
        self._whole_next = False
        return [update for updates in received for update in updates]

    def _receive(self, order: Order) -> dict[str, Awaitable[Any]]:
        return {name: worker.receive_weights.remote(order) for name, worker in self._rollouts.items()}

    async def _settle(self, phase: str, calls: Mapping[str, Awaitable[Any]]) -> list[Any]:
        """Results of calls that belong together, in order.

        When one has failed the others are given a few seconds; of several failures a worker's death comes first, as
        the others follow from it.
        """
        tasks = {name: asyncio.ensure_future(self._call(name, call)) for name, call in calls.items()}
        # Each side gives up by itself; twice the limit of a transfer covers both phases of the slower side.
        limit = 2 * self._config.sync.timeout_s
        try:
            await asyncio.wait(tasks.values(), timeout=limit, return_when=asyncio.FIRST_EXCEPTION)
            if any(task.done() and task.exception() for task in tasks.values()):
                await asyncio.wait(tasks.values(), timeout=min(_GRACE_S, limit))
            pending = ", ".join(name for name, task in tasks.items() if not task.done())
            errors = [error for task in tasks.values() if task.done() and (error := task.exception()) is not None]
            if deaths := [error for error in errors if isinstance(error, WorkerError)]:
                raise deaths[0]
            if errors and not (pending and isinstance(errors[0], SyncError)):
                raise errors[0]
            if pending:
                late = errors[0] if errors else f"no answer within {limit:g} s (2 x sync.timeout_s)"
                raise _Stuck(f"weight sync, {phase}: {late}. Still busy: {pending}. {await self._phases()}")
            return [task.result() for task in tasks.values()]
        finally:
            for task in tasks.values():
                task.cancel()

    async def _phases(self) -> str:
        """What every process of the channel said last, for an error."""
        if self._endpoint is None or self.backend is SyncBackend.disk:
            return "See the workers' logs."
        phases: dict[int, str] = {}
        with suppress(KeelError, TimeoutError):
            sender = next(iter(self._learners))
            question = self._call(sender, self._learners[sender].sync_phases.remote(self._endpoint))
            phases = await asyncio.wait_for(question, 10.0)
        said = ", ".join(f"rank {rank}: {phase}" for rank, phase in phases.items())
        return f"Last heard of: {said}." if said else "See the workers' logs."
