"""The other arm: vLLM in processes of its own, without Ray and without anything of Keel around it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import psutil

from grpo.config import RunConfig
from grpo.errors import WorkerError
from grpo.fleet import engine_threads
from grpo.rollout.engine import engine_environment
from grpo.throughput.bare_engine import serve
from grpo.throughput.workload import Request, Round, groups_per_worker
from grpo.worker_process import last_traceback

_END_S = 10.0


class BareArm:
    """As many bare engines as there are rollout workers, with the same arguments, threads and requests in flight."""

    def __init__(self, config: RunConfig, device: str, log_dir: Path) -> None:
        self._config, self._device, self._log_dir = config, device, log_dir
        context = multiprocessing.get_context("spawn")
        self._context = context
        self._taken = context.Value("q", 0)
        self._engines: list[tuple[BaseProcess, Connection]] = []

    async def start(self, model_path: Path) -> None:
        """See `Arm.start`."""
        for worker in range(self._config.rollout.num_workers):
            ours, theirs = self._context.Pipe()
            arguments = (theirs, self._taken, self._config, self._device, model_path, worker, self._log(worker))
            process = self._context.Process(target=serve, args=arguments, name=f"bare_{worker}")
            with _environment(self._variables(worker)):
                process.start()
            theirs.close()
            self._engines.append((process, ours))
        await self._replies(self._config.cluster.startup_timeout_s)

    async def run(self, requests: Sequence[Request], seeds: Sequence[int]) -> Round:
        """See `Arm.run`."""
        limit = self._config.rollout.timeout_s
        for (_, connection), seed in zip(self._engines, seeds, strict=True):
            connection.send(seed)
        await self._replies(limit)
        self._taken.value = min(len(requests), groups_per_worker(self._config) * len(self._engines))
        for _, connection in self._engines:
            connection.send(list(requests))
        # The limit is one group's; how many follow one another on a place depends on their lengths.
        started, ended, groups = zip(*await self._replies(limit * len(requests)), strict=True)
        return Round(started_s=min(started), ended_s=max(ended), groups=tuple(g for share in groups for g in share))

    async def close(self) -> None:
        """See `Arm.close`."""
        engines, self._engines = self._engines, []
        for _, connection in engines:
            connection.close()
        for process, _ in engines:
            # One that is in the middle of a round does not see that nobody listens.
            left = _with_children(process)
            await asyncio.to_thread(process.join, _END_S)
            for one in left if process.is_alive() else []:
                with suppress(psutil.NoSuchProcess):
                    one.kill()

    async def _replies(self, limit_s: float) -> list[Any]:
        return await asyncio.gather(*(self._reply(worker, limit_s) for worker in range(len(self._engines))))

    async def _reply(self, worker: int, limit_s: float) -> Any:
        connection = self._engines[worker][1]
        readable, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(connection.fileno(), readable.set)
        try:
            await asyncio.wait_for(readable.wait(), limit_s)
            reply = connection.recv()
        except TimeoutError:
            raise WorkerError(
                f"bare vLLM, engine {worker}, has not answered for {limit_s:g} s. See {self._log(worker)}."
            ) from None
        except EOFError:
            reply = "Its process died."
        finally:
            loop.remove_reader(connection.fileno())
        if isinstance(reply, str):
            log = self._log(worker)
            cause = last_traceback(log.read_text(errors="replace")) if log.exists() else ""
            raise WorkerError(f"bare vLLM, engine {worker}, failed:\n{cause or reply}\nWhole log: {log}")
        return reply

    def _log(self, worker: int) -> Path:
        return self._log_dir / f"bare_{worker}.log"

    def _variables(self, worker: int) -> dict[str, str]:
        variables = engine_environment(self._device, engine_threads(self._config))
        if self._device != "cuda":
            return variables
        size = self._config.rollout.tensor_parallel_size
        first = worker * size
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        devices = visible.split(",") if visible else [str(index) for index in range(first + size)]
        return variables | {"CUDA_VISIBLE_DEVICES": ",".join(devices[first : first + size])}


def _with_children(process: BaseProcess) -> list[psutil.Process]:
    try:
        itself = psutil.Process(process.pid)
        return [itself, *itself.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Variables for the processes started meanwhile."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
