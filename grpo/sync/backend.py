"""What every way of bringing weights to the engines has in common, and the one that broadcasts whole buckets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from grpo.records import WeightManifest
from grpo.sync.channel import Channel, Transfer
from grpo.sync.packing import empty_bucket, place, views


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What the controller asks of both ends.

    Attributes:
        policy_version: the version that is to arrive.
        serial: counts attempts over the whole run; never the same twice.
        full: every element has to travel, whatever the receivers are thought to hold.
    """

    policy_version: int
    serial: int
    full: bool


@dataclass(slots=True, kw_only=True)
class Arrival:
    """One bucket as it arrived.

    Attributes:
        tensors: name and tensor, in the sender's order; they stay as they are until the next update.
        num_bytes: that travelled for it.
        num_changed: elements that the sender found changed; None where it did not look.
    """

    tensors: list[tuple[str, Tensor]]
    num_bytes: int
    num_changed: int | None = None


class Sender(Protocol):
    """The end at learner rank 0. One update is `begin`, `send` for each bucket in order, `end`."""

    def begin(self, order: Order) -> None:
        """Start an update. Raises SyncError."""
        ...

    def send(self, number: int, flat: Tensor) -> None:
        """Send a bucket, perhaps in the background; `flat` is the sender's until the next call. Raises SyncError."""
        ...

    def end(self) -> None:
        """Return when all is sent. Raises SyncError."""
        ...

    def abandon(self) -> None:
        """Give up the update in hand, so that no receiver waits for the rest of it."""
        ...


class Receiver(Protocol):
    """The end in an engine process."""

    def receive(self, order: Order) -> Iterator[Arrival]:
        """The buckets of one update, in order. Raises SyncError."""
        ...

    def abandon(self) -> None:
        """Give up the update in hand, so that nobody waits for this receiver."""
        ...


class BroadcastSender:
    """Whole buckets over the channel; one travels while the next is made."""

    def __init__(self, channel: Channel, manifest: WeightManifest) -> None:
        self._channel = channel
        self._manifest = manifest
        self._in_flight: tuple[Transfer, Tensor] | None = None

    def begin(self, order: Order) -> None:
        """See `Sender`."""
        self._in_flight = None

    def send(self, number: int, flat: Tensor) -> None:
        """See `Sender`."""
        self._finish()
        self._channel.enter(f"sending {place(self._manifest, number)}")
        self._in_flight = self._channel.broadcast(flat), flat

    def end(self) -> None:
        """See `Sender`."""
        self._finish()
        self._channel.enter("idle")

    def abandon(self) -> None:
        """See `Sender`."""
        self._in_flight = None
        self._channel.close()

    def _finish(self) -> None:
        if self._in_flight is not None:
            self._channel.finish(self._in_flight[0])
            self._in_flight = None


class BroadcastReceiver:
    """Whole buckets over the channel; the next one is on its way while one is being used."""

    def __init__(self, channel: Channel, manifest: WeightManifest) -> None:
        self._channel = channel
        self._manifest = manifest

    def receive(self, order: Order) -> Iterator[Arrival]:
        """See `Receiver`. A buffer is used again only when the engine holds no reference to it any more."""
        buckets = self._manifest.buckets
        pending = self._request(0)
        for number, bucket in enumerate(buckets):
            flat, transfer = pending
            self._channel.enter(f"receiving {place(self._manifest, number)}")
            self._channel.finish(transfer)
            if number + 1 < len(buckets):
                pending = self._request(number + 1)
            yield Arrival(tensors=views(flat, bucket), num_bytes=flat.nbytes)
        self._channel.enter("idle")

    def abandon(self) -> None:
        """See `Receiver`."""
        self._channel.close()

    def _request(self, number: int) -> tuple[Tensor, Transfer]:
        flat = empty_bucket(self._manifest.buckets[number], self._channel.device)
        return flat, self._channel.broadcast(flat)
