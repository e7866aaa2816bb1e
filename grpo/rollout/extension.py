"""Methods added to vLLM's worker processes (``worker_extension_cls``); called through `collective_rpc`.

The engine's model is repacked after loading (fused projections, blocked layouts), so weights go in through vLLM's
layerwise reload, which undoes and redoes that. Plain ``load_weights`` fails on the CPU backend.

Those that can fail return a SyncError instead of raising it: vLLM would pass on its text alone. Everything crosses as
pickled bytes, since vLLM turns dataclasses into dictionaries on the way.
"""

from __future__ import annotations

import pickle
import time
import traceback
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from grpo.errors import SyncError
from grpo.rollout.weights import held_checksums, load_layerwise
from grpo.sync.backend import Order
from grpo.sync.channel import Channel
from grpo.sync.choice import make_receiver
from grpo.sync.subscriber import Subscriber


class WeightReceiver:
    """Mixed into vLLM's worker class; `self.model_runner`, `self.rank` and `self.device` are that worker's."""

    model_runner: Any
    rank: int
    device: torch.device
    keel_subscriber: Subscriber | None = None

    def keel_join_sync(self, packed: bytes, first_rank: int, local_host: str) -> bytes:
        """Become a receiver, over a channel as its rank ``first_rank + self.rank``; blocks until all have joined.

        Args:
            packed: pickled (SyncBackend, Endpoint or None, directory, WeightManifest).

        Returns:
            Pickled: None, or the SyncError.
        """
        backend, endpoint, directory, manifest = pickle.loads(packed)
        rank, device = first_rank + self.rank, torch.device(self.device)
        if self.keel_subscriber is not None:
            self.keel_subscriber.abandon()
        try:
            channel = endpoint and Channel(endpoint, rank, device, local_host=local_host)
        except SyncError as error:
            return pickle.dumps(error)
        receiver = make_receiver(backend, channel, manifest, directory=Path(directory), device=device, rank=rank)
        self.keel_subscriber = Subscriber(receiver)
        return pickle.dumps(None)

    def keel_receive(self, packed: bytes) -> bytes:
        """Receive one update and load it layer by layer.

        Args:
            packed: pickled Order.

        Returns:
            Pickled: the WeightUpdate, or the SyncError.
        """
        order: Order = pickle.loads(packed)
        subscriber = self.keel_subscriber
        assert subscriber is not None, "keel_join_sync comes first"
        started = time.perf_counter()
        stream = subscriber.receive(order)
        try:
            # Behind chain, or a loader's `yield from` would close the stream when it fails.
            load_layerwise(self.model_runner, chain(stream))
            for _ in stream:  # a loader that stops early has not seen them all
                pass
        except SyncError as error:
            subscriber.abandon()
            return pickle.dumps(error)
        except Exception as error:  # noqa: BLE001 - whatever a model's loader raises
            return pickle.dumps(self._keel_after_failed_load(stream, error))
        return pickle.dumps(subscriber.account(order, time.perf_counter() - started))

    def keel_held_checksums(self) -> bytes:
        """Pickled checksums by name of the tensors that can be read back from the model as they were sent."""
        return pickle.dumps(held_checksums(self.model_runner.model))

    def keel_output_lengths(self) -> dict[str, int]:
        """Tokens sampled so far, for every request this process decodes. Exact only while the engine is paused."""
        runner = self.model_runner
        requests = getattr(runner, "requests", None)
        if requests is not None:
            return {request_id: len(state.output_token_ids) for request_id, state in requests.items()}
        states = runner.req_states  # of vLLM's second model runner
        totals = states.total_len.gpu.tolist()
        return {i: totals[row] - int(states.prompt_len.np[row]) for i, row in states.req_id_to_index.items()}

    def keel_seed(self, seed: int) -> None:
        """Seed the sampler's global generator (per-request seeds crash vLLM 0.32 on CPU)."""
        torch.manual_seed(seed)

    def _keel_after_failed_load(self, stream: Any, error: Exception) -> SyncError:
        """Take the rest of the update all the same: the others get theirs, and the channel can be used again."""
        cause = "".join(traceback.format_exception(error))
        try:
            for _ in stream:
                pass
        except SyncError as later:
            cause += f"\nThen: {later}"
        return SyncError(f"weight sync, process {self.rank} of this engine, loading: {cause}")
