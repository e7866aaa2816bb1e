"""The receiving side of a weight sync."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor

from grpo.records import WeightManifest
from grpo.sync.channel import Channel
from grpo.sync.packing import checksum, empty_bucket, views


class Subscriber:
    """Receives the buckets of one update after another and checks off every tensor."""

    def __init__(self, channel: Channel, manifest: WeightManifest) -> None:
        self._channel = channel
        self._manifest = manifest
        self.checksums: dict[str, int] = {}
        self.transfer_s = 0.0

    def receive(self) -> Iterator[tuple[str, Tensor]]:
        """Yield name and tensor of one whole update, in the sender's order.

        The next bucket is already on its way while one is being used. Buffers are never used again: an engine may
        keep references until a layer is complete.

        Raises:
            SyncError: a bucket did not arrive in time.
        """
        self.checksums = {}
        self.transfer_s = 0.0
        buckets = self._manifest.buckets
        pending = self._request(0)
        for number, bucket in enumerate(buckets):
            started = time.perf_counter()
            flat, work = pending
            self._channel.finish(work, f"receiving bucket {number} of {len(buckets)}")
            if number + 1 < len(buckets):
                pending = self._request(number + 1)
            tensors = views(flat, bucket)
            self.checksums |= {name: checksum(tensor) for name, tensor in tensors}
            self.transfer_s += time.perf_counter() - started
            yield from tensors

    def _request(self, number: int):
        flat = empty_bucket(self._manifest.buckets[number], self._channel.device)
        return flat, self._channel.broadcast(flat)
