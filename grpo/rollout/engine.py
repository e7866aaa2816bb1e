"""vLLM's AsyncLLM behind the few calls that Keel needs; with requests.py the only one that knows vLLM's interface."""

from __future__ import annotations

import asyncio
import os
import pickle
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from grpo.config import InFlight, RunConfig, SyncBackend
from grpo.errors import SyncError, WorkerError
from grpo.records import Completion, FloatArray, Group, Prompt, RequestTiming, WeightManifest, WeightUpdate
from grpo.rollout.capabilities import require_capabilities
from grpo.rollout.requests import (
    completion,
    engine_arguments,
    leave_out_token_texts,
    request_inputs,
    request_timing,
    sampling_params,
    tokens_containing,
)
from grpo.sync.backend import Order
from grpo.sync.channel import Endpoint
from grpo.sync.probe import PROBE_TEXT, probe_tokens

T = TypeVar("T")
_DRAIN_S = 0.01


def engine_environment(device: str, threads: int) -> dict[str, str]:
    """Environment variables that vLLM reads at import; to be set before the worker process starts."""
    common = {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "WARNING"),
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    }
    if device != "cpu":
        return common
    return common | {
        # Engines and learners share the cores by turns: pinned threads would fight over the same one.
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(threads),
        # Loading passes through many threads' heaps, each of which would keep its largest size.
        "MALLOC_ARENA_MAX": "1",
    }


class Engine:
    """One engine. Create it inside a running event loop."""

    def __init__(self, config: RunConfig, model_path: Path, device: str, worker: int) -> None:
        """Load the model and start vLLM's processes; blocks for seconds to minutes.

        Raises:
            WorkerError: the installed vLLM lacks something that Keel uses.
            RuntimeError: vLLM's own, when its engine process fails to start.
        """
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        self._config = config.rollout
        self._max_length = config.model.max_length
        self._recomputes = config.schedule.in_flight is InFlight.recompute
        self._worker = worker
        self._requests = 0
        self.policy_version = 0
        #: Of each request that is decoding: (policy version, tokens it had when that arrived), oldest first.
        self._versions: dict[str, list[tuple[int, int]]] = {}
        self._sampling: dict[int, asyncio.Task[Group]] = {}  # by the prompt's uid
        self._unsettled: str | None = None  #: why nothing may be sampled
        self._settled = asyncio.Event()  #: no update is under way
        self._settled.set()
        self._longest_sync_s = 2 * config.sync.timeout_s * (1 + config.sync.retries)
        arguments = engine_arguments(config, model_path, device)
        require_capabilities(arguments)
        self._llm = AsyncLLM.from_engine_args(AsyncEngineArgs(**arguments))
        self._stop_token_ids = tokens_containing(self._llm.get_tokenizer(), self._config.stop)

    async def generate(self, prompts: Sequence[Prompt], seed: int) -> AsyncIterator[Group]:
        """Sample a group for each prompt; yields each as soon as its last completion is done.

        All requests enter the scheduler, in order, while it is paused, and the sampler is seeded, so that the same
        prompts, weights and seed give the same groups. The members of a group find their prompt in the prefix cache.
        """
        self.require_settled()
        await self._alive(self._llm.pause_generation(mode="keep", clear_cache=False))
        await self.seed(seed)
        requests = [(prompt, await self._add_group(prompt)) for prompt in prompts]
        tasks = [asyncio.create_task(self._group(prompt, members)) for prompt, members in requests]
        await self._alive(self._llm.resume_generation())
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            # Reached early when the caller gives up: the engine must not go on with what nobody waits for.
            for task in tasks:
                task.cancel()

    async def seed(self, seed: int) -> None:
        """Seed the sampler."""
        await self._alive(self._llm.collective_rpc("keel_seed", args=(seed,)))

    async def sample(self, prompt: Prompt, lengths: Sequence[int] | None = None) -> Group | None:
        """Sample one group among whatever else is being decoded; new weights may arrive meanwhile. None: aborted.

        Args:
            lengths: tokens of each completion, [G], for measurements: no end is heeded. None: they end by themselves.
        """
        work = asyncio.create_task(self._sample(prompt, lengths))
        self._sampling[prompt.uid] = work
        try:
            await asyncio.wait({work})
            return None if work.cancelled() else work.result()
        finally:
            work.cancel()
            del self._sampling[prompt.uid]

    async def _sample(self, prompt: Prompt, lengths: Sequence[int] | None) -> Group:
        await self.until_settled()
        return await self._group(prompt, await self._add_group(prompt, lengths))

    def abort(self, uid: int) -> None:
        """Give up the group of prompt `uid`, if it is not done."""
        if uid in self._sampling:
            self._sampling[uid].cancel()

    async def reset_prefix_cache(self) -> None:
        """Forget all prefixes. Nothing may be in flight."""
        if not await self._alive(self._llm.reset_prefix_cache()):
            raise RuntimeError("the prefix cache is in use by completions that are being decoded")

    async def _add_group(self, prompt: Prompt, lengths: Sequence[int] | None = None) -> list[Any]:
        return [await self._add(prompt, length) for length in lengths or [None] * self._config.group_size]

    async def _add(self, prompt: Prompt, length: int | None) -> Any:
        """Put one request into the scheduler; returns where its output will appear."""
        self._requests += 1
        params = sampling_params(self._config, self._max_length, prompt, self._stop_token_ids, length)
        version = self.policy_version
        inputs = request_inputs(prompt, version)
        member = await self._alive(self._llm.add_request(f"{prompt.uid}-{self._requests}", inputs, params))
        self._versions[member.request_id] = [(version, 0)]
        if self.policy_version != version:  # weights arrived on the way: the engine was paused, nothing was sampled
            self._versions[member.request_id].append((self.policy_version, 0))
        leave_out_token_texts(self._llm.output_processor.request_states.get(member.request_id))
        return member

    async def _group(self, prompt: Prompt, members: Sequence[Any]) -> Group:
        started = time.perf_counter()
        completions: list[Completion] = []
        timings: list[RequestTiming] = []
        cached, ids = 0, [member.request_id for member in members]
        try:
            for member in members:
                output = await self._alive(member.get())
                cached += output.num_cached_tokens or 0
                completions.append(completion(output.outputs[0], self._versions[member.request_id]))
                if output.metrics is not None:
                    timings.append(request_timing(output.metrics))
        finally:
            if len(completions) < len(members):  # nobody waits for the rest
                await self._llm.abort(ids[len(completions) :], internal=True)
            for request_id in ids:
                self._versions.pop(request_id, None)
        return Group(
            prompt=prompt,
            completions=tuple(completions),
            worker=self._worker,
            latency_s=time.perf_counter() - started,
            num_cached_prompt_tokens=cached,
            timings=tuple(timings),
        )

    async def join_sync(
        self,
        backend: SyncBackend,
        endpoint: Endpoint | None,
        directory: str,
        first_rank: int,
        local_host: str,
        manifest: WeightManifest,
    ) -> None:
        """Make all of the engine's processes receivers; see `WeightReceiver.keel_join_sync`.

        Raises:
            SyncError: they could not join the channel.
        """
        packed = pickle.dumps((backend, endpoint, directory, manifest))
        await self._on_processes("keel_join_sync", packed, first_rank, local_host)

    async def receive_weights(self, order: Order) -> list[WeightUpdate]:
        """Take one update in all of the engine's processes, in the middle of whatever is being decoded.

        The engine stays paused until `accept_weights`.

        Raises:
            SyncError: a process did not get or could not load it. The engine refuses to sample until one is accepted.
        """
        self._unsettled = f"policy version {order.policy_version} (attempt {order.serial}) has not arrived whole"
        self._settled.clear()
        await self._alive(self._llm.pause_generation(mode="keep", clear_cache=False))
        return await self._on_processes("keel_receive", pickle.dumps(order))

    async def accept_weights(self, order: Order) -> None:
        """Go on with the update received: its checksums are those of what was sent.

        Prefixes of old weights are forgotten. Unfinished completions go on from the tokens they have; their keys and
        values stay, or are computed anew under the new weights (`schedule.in_flight`).
        """
        lengths = await self._lengths() if self._versions else {}
        await self._alive(self._llm.reset_prefix_cache(reset_running_requests=self._recomputes))
        self.policy_version = order.policy_version
        for request_id in lengths.keys() & self._versions.keys():  # some may have been aborted meanwhile
            self._versions[request_id].append((order.policy_version, lengths[request_id]))
        await self._alive(self._llm.resume_generation())
        self._unsettled = None
        self._settled.set()

    def require_settled(self) -> None:
        """Nothing may be sampled with weights of which nobody knows what they are.

        Raises:
            SyncError: no update has been accepted since the last one began.
        """
        if self._unsettled is not None:
            raise SyncError(f"rollout worker {self._worker} refuses to sample: {self._unsettled}")

    async def until_settled(self) -> None:
        """Wait for the update in hand, if there is one, over all its attempts; then as `require_settled`."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._settled.wait(), self._longest_sync_s)
        self.require_settled()

    def probe_tokens(self) -> tuple[int, ...]:
        """Token ids of the probe, [T]."""
        return probe_tokens(self._llm.get_tokenizer().encode(PROBE_TEXT), self._max_length)

    async def score(self, token_ids: Sequence[int]) -> FloatArray:
        """Logprobs of all tokens of a prompt but the first, [T - 1], at temperature 1.

        vLLM gives a prompt's logprobs before any sampling processor, whatever `logprobs_mode` says, and computes the
        whole prompt anew for them, whatever the prefix cache holds.

        Args:
            token_ids: [T].
        """
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self.require_settled()
        self._requests += 1
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, output_kind=RequestOutputKind.FINAL_ONLY)
        prompt: Any = {"prompt_token_ids": list(token_ids)}
        member = await self._alive(self._llm.add_request(f"probe-{self._requests}", prompt, params))
        output: Any = await self._alive(member.get())
        scored = output.prompt_logprobs
        pairs = zip(scored[1:], token_ids[1:], strict=True)
        return np.asarray([entry[token].logprob for entry, token in pairs], dtype=np.float32)

    async def held_checksums(self) -> list[dict[str, int]]:
        """Of what each of the engine's processes holds as it was sent; see `grpo.rollout.weights.held_checksums`."""
        return await self._on_processes("keel_held_checksums")

    async def _on_processes(self, method: str, *arguments: object) -> list[Any]:
        """Results of one of Keel's methods in each of the engine's processes; a SyncError among them is raised.

        Raises:
            WorkerError: a process did not come back from it; most likely it died.
        """
        try:
            packed = await self._alive(self._llm.collective_rpc(method, args=arguments))
        except WorkerError:
            raise
        except Exception as error:  # vLLM raises no narrower type
            raise WorkerError(
                f"rollout worker {self._worker}: a process of its vLLM engine died or failed in {method}: {error}"
            ) from error
        results = [pickle.loads(result) for result in packed]
        if errors := [result for result in results if isinstance(result, SyncError)]:
            raise SyncError(f"rollout worker {self._worker}: {errors[0]}")
        return results

    async def _lengths(self) -> dict[str, int]:
        """Tokens of every unfinished completion, by request. The engine is paused."""
        # What was decoded last is on its way through this process.
        while not self._llm.engine_core.outputs_queue.empty():
            await asyncio.sleep(_DRAIN_S)
        await asyncio.sleep(_DRAIN_S)
        found: dict[str, int] = (await self._alive(self._llm.collective_rpc("keel_output_lengths")))[0]
        unfinished = self._llm.output_processor.request_states.keys() & self._versions.keys()
        return {request_id: found.get(request_id, 0) for request_id in unfinished}

    async def _alive(self, work: Awaitable[T]) -> T:
        """The result of `work`.

        Raises:
            WorkerError: the engine's process is dead; some of vLLM's own calls would wait for it for ever.
        """
        task = asyncio.ensure_future(work)
        while not task.done() and not self._llm.errored:
            await asyncio.wait({task}, timeout=1.0)
        if self._llm.errored:
            task.cancel()
            raise WorkerError(f"rollout worker {self._worker}: the process of its vLLM engine died")
        return task.result()

    def shutdown(self) -> None:
        """End vLLM's processes."""
        with suppress(ProcessLookupError):
            self._llm.shutdown()
