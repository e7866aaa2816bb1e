"""The Ray actor around one learner rank."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import ray
import torch
import torch.distributed as dist

from grpo.config import RunConfig, SyncBackend
from grpo.learner.learner import Learner
from grpo.records import FloatArray, MicroBatch, StepReport, WeightManifest, WeightUpdate
from grpo.sync.backend import Order
from grpo.sync.channel import Channel, Endpoint, read_phases, serve_store
from grpo.sync.choice import make_sender
from grpo.worker_process import free_port, log_to_file, node_address


class LearnerWorker:
    """Rank `rank` of the learner. Created by the controller; all methods but `interrupt` run one at a time."""

    def __init__(self, rank: int, config: RunConfig, device: str, log_file: str) -> None:
        log_to_file(Path(log_file))
        self._rank = rank
        self._config = config
        self._device = torch.device(device, 0) if device == "cuda" else torch.device(device)
        self._host = node_address(config)
        self._learner: Learner | None = None
        self._store: dist.TCPStore | None = None
        self._channel: Channel | None = None

    def address(self) -> tuple[str, int]:
        """Host and a free port for the learners' rendezvous; asked of rank 0."""
        return self._host, free_port(self._host)

    def start(self, host: str, port: int, model_path: str) -> WeightManifest:
        """Join the process group and load the model. A collective.

        Returns:
            The packing of every weight sync to come.
        """
        if self._device.type == "cuda":
            torch.cuda.set_device(self._device)
        os.environ.setdefault("GLOO_SOCKET_IFNAME", _interface_of(self._host))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if self._device.type == "cuda" else "gloo",
            init_method=f"tcp://{host}:{port}",
            rank=self._rank,
            world_size=self._config.learner.num_ranks,
            timeout=timedelta(seconds=self._config.learner.timeout_s),
        )
        self._learner = Learner(self._config, Path(model_path), self._device)
        return self._learner.publisher.manifest

    def serve_channel(self) -> tuple[str, int]:
        """Open the rendezvous of the weight channel, once; asked of rank 0."""
        if self._store is None:
            self._store = serve_store(self._host, self._config.sync.timeout_s)
        return self._host, self._store.port

    def join_sync(self, backend: SyncBackend, endpoint: Endpoint | None, directory: str) -> None:
        """Become the sender; blocks until all engines have joined.

        Args:
            endpoint: where the channel meets; None for backend disk.
            directory: for backend disk.

        Raises:
            SyncError: the engines did not join in time.
        """
        learner = self._required
        if self._channel is not None:  # one that failed, or it would not be replaced
            self._channel.close()
        self._channel = endpoint and Channel(endpoint, 0, self._device, local_host=self._host, store=self._store)
        manifest = learner.publisher.manifest
        learner.attach(make_sender(backend, self._channel, manifest, directory=Path(directory)))

    @ray.method(concurrency_group="control")
    def sync_phases(self, endpoint: Endpoint) -> dict[int, str]:
        """What each rank of the weight channel does, as far as it has said so; asked of rank 0."""
        return read_phases(endpoint)

    def train_step(self, updates: Sequence[Sequence[MicroBatch]]) -> StepReport | None:
        """See `Learner.train_step`."""
        return self._required.train_step(updates)

    def logprobs(self, batch: MicroBatch) -> torch.Tensor:
        """See `Learner.logprobs`."""
        return self._required.logprobs(batch)

    def reference_logprobs(self, batches: Sequence[MicroBatch]) -> list[FloatArray]:
        """See `Learner.reference_logprobs`."""
        return self._required.reference_logprobs(batches)

    def publish(self, order: Order) -> WeightUpdate:
        """See `Learner.publish`."""
        return self._required.publish(order)

    def probe(self, token_ids: Sequence[int]) -> FloatArray:
        """See `Learner.probe`."""
        return self._required.probe(token_ids)

    def save(self, directory: str) -> None:
        """See `Learner.save`."""
        self._required.save(Path(directory))

    def load(self, directory: str) -> None:
        """See `Learner.load`."""
        self._required.load(Path(directory))

    def export(self, directory: str) -> None:
        """See `Learner.export`."""
        self._required.export(Path(directory))

    @ray.method(concurrency_group="control")
    def interrupt(self) -> None:
        """End the step in progress early; returns at once."""
        if self._learner is not None:
            self._learner.interrupt()

    @property
    def _required(self) -> Learner:
        if self._learner is None:
            raise RuntimeError("start() has not been called")
        return self._learner


def _interface_of(host: str) -> str:
    """Name of the network interface that holds address `host`; gloo binds to names, not addresses."""
    import psutil

    for name, addresses in psutil.net_if_addrs().items():
        if any(address.address == host for address in addresses):
            return name
    raise RuntimeError(f"no network interface holds {host}, the address Ray gave this node")
