"""A process that holds nothing but vLLM's AsyncLLM: what Keel's rollout workers are measured against."""

from __future__ import annotations

import asyncio
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from grpo.config import RunConfig
from grpo.rollout.requests import engine_arguments, request_inputs, request_timing, sampling_params, tokens_containing
from grpo.throughput.workload import Request, SampledGroup, groups_per_worker
from grpo.worker_process import log_to_file


def serve(
    connection: Connection, taken: Any, config: RunConfig, device: str, model_path: Path, worker: int, log_file: Path
) -> None:
    """Answer on `connection` until None, or nothing more, comes: None when up and after a seed (the engine is then
    ready), (started, ended, groups) after requests; a traceback when something failed.

    Args:
        taken: shared number of requests that the engines have taken.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that measures says when it is over
    log_to_file(log_file)
    try:
        asyncio.run(_serve(connection, taken, config, device, model_path, worker))
    except EOFError:
        pass
    except Exception:  # noqa: BLE001 - handed to the process that measures
        connection.send(traceback.format_exc())


async def _serve(
    connection: Connection, taken: Any, config: RunConfig, device: str, model_path: Path, worker: int
) -> None:
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**engine_arguments(config, model_path, device)))
    try:
        stop_token_ids = tokens_containing(llm.get_tokenizer(), config.rollout.stop)
        connection.send(None)
        while (asked := await asyncio.to_thread(connection.recv)) is not None:
            if isinstance(asked, int):
                if not await llm.reset_prefix_cache():
                    raise RuntimeError("the prefix cache is in use by completions that are being decoded")
                await llm.collective_rpc("keel_seed", args=(asked,))
                connection.send(None)
            else:
                shares = _Shares(asked, taken, worker, config)
                connection.send(await _sample_all(llm, config, stop_token_ids, shares, worker))
    finally:
        llm.shutdown()


class _Shares:
    """Which requests this engine gets: at first every n-th, as many as it is given at a time, then the next one free.

    Each of its iterators is one place: it waits for a group before it takes another.
    """

    def __init__(self, requests: Sequence[Request], taken: Any, worker: int, config: RunConfig) -> None:
        self._requests, self._taken = requests, taken
        self.num_places = groups_per_worker(config)
        num_workers = config.rollout.num_workers
        self._first = list(range(worker, min(len(requests), self.num_places * num_workers), num_workers))

    def place(self) -> Iterator[Request]:
        while True:
            index = self._first.pop(0) if self._first else self._next()
            if index >= len(self._requests):
                return
            yield self._requests[index]

    def _next(self) -> int:
        with self._taken.get_lock():
            self._taken.value += 1
            return self._taken.value - 1


async def _sample_all(
    llm: Any, config: RunConfig, stop_token_ids: Sequence[int], shares: _Shares, worker: int
) -> tuple[float, float, list[SampledGroup]]:
    groups: list[SampledGroup] = []

    async def place() -> None:
        for request in shares.place():
            groups.append(await _group(llm, config, stop_token_ids, request, worker))

    started = time.monotonic()
    await asyncio.gather(*(place() for _ in range(shares.num_places)))
    return started, time.monotonic(), groups


async def _group(
    llm: Any, config: RunConfig, stop_token_ids: Sequence[int], request: Request, worker: int
) -> SampledGroup:
    prompt, size = request.prompt, config.rollout.group_size
    params = [
        sampling_params(config.rollout, config.model.max_length, prompt, stop_token_ids, length)
        for length in request.lengths or [None] * size
    ]
    inputs = request_inputs(prompt, 0)

    async def finished(member: int) -> tuple[Any, Any]:
        (output,) = [one async for one in llm.generate(inputs, params[member], f"{prompt.uid}-{member}")]
        return output, request_timing(output.metrics)

    outputs, timings = zip(*await asyncio.gather(*map(finished, range(size))), strict=True)
    return SampledGroup(
        uid=prompt.uid,
        worker=worker,
        num_prompt_tokens=size * len(prompt.token_ids),
        num_cached_tokens=sum(output.num_cached_tokens or 0 for output in outputs),
        lengths=tuple(len(output.outputs[0].token_ids) for output in outputs),
        timings=timings,
    )
