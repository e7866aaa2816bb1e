"""Several ranks of a weight channel inside one process, each a thread with a process group of its own: real gloo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from grpo.config import SyncBackend
from grpo.records import WeightManifest, WeightUpdate
from grpo.sync.backend import Order
from grpo.sync.channel import Channel, Endpoint, serve_store
from grpo.sync.choice import make_receiver, make_sender
from grpo.sync.publisher import Publisher
from grpo.sync.subscriber import Subscriber

HOST, CPU = "127.0.0.1", torch.device("cpu")


@contextmanager
def open_channels(num_receivers: int, *, timeout_s: float = 20.0, generation: int = 0) -> Iterator[list[Channel]]:
    """Channels of all ranks, the sender's first."""
    store = serve_store(HOST, timeout_s)
    endpoint = Endpoint(
        host=HOST, port=store.port, world_size=1 + num_receivers, timeout_s=timeout_s, generation=generation
    )

    def join(rank: int) -> Channel:
        return Channel(endpoint, rank, CPU, local_host=HOST, store=None if rank else store)

    channels = together([lambda rank=rank: join(rank) for rank in range(1 + num_receivers)])
    try:
        yield channels
    finally:
        for channel in channels:
            channel.close()


def together(calls: Sequence[Callable[[], object]]) -> list:
    """Results, or exceptions, of calls that run at the same time."""
    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(call) for call in calls]
        return [future.exception() or future.result() for future in futures]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """A publisher and its subscribers over one backend."""

    publisher: Publisher
    subscribers: list[Subscriber]

    def update(self, order: Order) -> tuple[WeightUpdate, list[tuple[dict[str, torch.Tensor], WeightUpdate]]]:
        """(the sender's account, for each receiver what it got and its account)."""

        def receive(subscriber: Subscriber):
            tensors = {name: tensor.clone() for name, tensor in subscriber.receive(order)}
            return tensors, subscriber.account(order, 0.0)

        calls = [lambda: self.publisher.publish(order), *(lambda s=s: receive(s) for s in self.subscribers)]
        # Files have to be there before they are read; over a channel all run together.
        on_disk = self.subscribers[0]._receiver.__class__.__name__ == "DiskReceiver"
        results = [together([call])[0] for call in calls] if on_disk else together(calls)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return results[0], results[1:]


def make_ends(
    backend: SyncBackend,
    channels: Sequence[Channel | None],
    parameters: dict[str, torch.Tensor],
    directory: Path,
    *,
    wire_dtype: torch.dtype = torch.float32,
    bucket_bytes: int = 64,
) -> Ends:
    """Both ends; `channels` holds None for each rank with backend disk."""
    publisher = Publisher(parameters.items(), wire_dtype=wire_dtype, bucket_bytes=bucket_bytes)
    manifest: WeightManifest = publisher.manifest
    publisher.attach(make_sender(backend, channels[0], manifest, directory=directory), CPU)
    receivers = [
        make_receiver(backend, channel, manifest, directory=directory, device=CPU, rank=rank)
        for rank, channel in enumerate(channels)
        if rank
    ]
    return Ends(publisher=publisher, subscribers=[Subscriber(receiver) for receiver in receivers])


def order(serial: int, *, full: bool = False) -> Order:
    """An order whose policy version is told from its serial."""
    return Order(policy_version=100 + serial, serial=serial, full=full)
