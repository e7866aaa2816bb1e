"""The Ray actor around one vLLM engine."""

from __future__ import annotations

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from grpo.config import RunConfig, SyncBackend
from grpo.errors import WorkerError
from grpo.records import FloatArray, Group, Prompt, WeightManifest, WeightUpdate
from grpo.rollout.engine import Engine
from grpo.sync.backend import Order
from grpo.sync.channel import Endpoint
from grpo.worker_process import last_traceback, log_to_file, node_address


class RolloutWorker:
    """Samples groups and takes weights. Created by the controller."""

    def __init__(self, index: int, config: RunConfig, device: str, log_file: str) -> None:
        self._log_file = Path(log_file)
        log_to_file(self._log_file)
        self._index = index
        self._config = config
        self._device = device
        self._engine: Engine | None = None

    async def start(self, model_path: str) -> None:
        """Start the engine.

        Raises:
            WorkerError: vLLM did not come up; holds the traceback of the process that failed.
        """
        try:
            self._engine = Engine(self._config, Path(model_path), self._device, self._index)
        except Exception as error:  # noqa: BLE001 - whatever vLLM raises, its engine process knows more
            # vLLM's engine process writes its traceback to the log and reports only that it failed.
            await asyncio.sleep(0.5)
            own = "".join(traceback.format_exception(error))
            cause = last_traceback(self._log_file.read_text(errors="replace")) or own
            raise WorkerError(
                f"rollout worker {self._index}: the vLLM engine did not start ({type(error).__name__}: {error}).\n"
                f"{cause}\nWhole log: {self._log_file}"
            ) from None

    async def generate(self, prompts: list[Prompt], seed: int) -> AsyncIterator[Group]:
        """See `Engine.generate`."""
        async for group in self._required.generate(prompts, seed):
            yield group

    async def sample(self, prompt: Prompt, lengths: Sequence[int] | None = None) -> Group | None:
        """See `Engine.sample`."""
        return await self._required.sample(prompt, lengths)

    async def reset_prefix_cache(self) -> None:
        """See `Engine.reset_prefix_cache`."""
        await self._required.reset_prefix_cache()

    async def abort(self, uid: int) -> None:
        """See `Engine.abort`."""
        self._required.abort(uid)

    async def seed(self, seed: int) -> None:
        """See `Engine.seed`."""
        await self._required.seed(seed)

    async def join_sync(
        self, backend: SyncBackend, endpoint: Endpoint | None, directory: str, first_rank: int, manifest: WeightManifest
    ) -> None:
        """Make the engine's processes receivers; they take the ranks from `first_rank` on."""
        host = node_address(self._config)
        await self._required.join_sync(backend, endpoint, directory, first_rank, host, manifest)

    async def receive_weights(self, order: Order) -> list[WeightUpdate]:
        """See `Engine.receive_weights`."""
        return await self._required.receive_weights(order)

    async def accept_weights(self, order: Order) -> None:
        """See `Engine.accept_weights`."""
        await self._required.accept_weights(order)

    async def probe_tokens(self) -> tuple[int, ...]:
        """See `Engine.probe_tokens`."""
        return self._required.probe_tokens()

    async def score(self, token_ids: Sequence[int]) -> FloatArray:
        """See `Engine.score`."""
        return await self._required.score(token_ids)

    async def held_checksums(self) -> list[dict[str, int]]:
        """See `Engine.held_checksums`."""
        return await self._required.held_checksums()

    def process_id(self) -> int:
        """This actor's process id."""
        return os.getpid()

    async def shutdown(self) -> None:
        """End the engine's processes."""
        if self._engine is not None:
            self._engine.shutdown()

    @property
    def _required(self) -> Engine:
        if self._engine is None:
            raise RuntimeError("start() has not been called")
        return self._engine
