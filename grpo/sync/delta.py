"""Only what changed: positions and new values of elements, over the channel.

After a step with a small learning rate most bfloat16 weights round to what they were. Both ends keep the last update
on the host, in the type on the wire: the sender to see what changed, every receiver to have the rest. That is one copy
of the model at learner rank 0 and one in each engine process.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from grpo.errors import SyncError
from grpo.records import WeightManifest
from grpo.sync.backend import Arrival, Order
from grpo.sync.channel import Channel, Transfer
from grpo.sync.packing import empty_flat, num_elements, place, views

_POSITION_BYTES = torch.int32.itemsize
_HEADER_WORDS = 4
_FULL, _CHANGES = 0, 1
#: A delta has to save half of the bytes: finding, packing and writing back the changes costs both ends about as much
#: memory traffic as the other half would have.
_LARGEST_SHARE_OF_BYTES = 0.5
#: One of so many updates is whole, whatever changed: it costs a twentieth of what whole updates would, and nothing that
#: went wrong unseen lasts for longer.
FULL_EVERY = 20
_WORDS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def largest_density(dtype: torch.dtype) -> float:
    """The share of changed elements up to which a delta pays: 1/6 for 16-bit types, 1/4 for float32."""
    return _LARGEST_SHARE_OF_BYTES * dtype.itemsize / (_POSITION_BYTES + dtype.itemsize)


def changed_positions(old: Tensor, new: Tensor) -> Tensor:
    """Where two flat tensors differ in any bit, [n] int64, ascending. Equal NaNs are equal, 0.0 and -0.0 are not."""
    word = _WORDS[new.dtype.itemsize]
    return (old.view(word) != new.view(word)).nonzero().view(-1)


def pack_changes(new: Tensor, positions: Tensor) -> Tensor:
    """Positions and new values in one buffer of bytes: [n] int32, then [n] of the tensor's dtype.

    Args:
        new: flat, at most 2^31 - 1 elements.
        positions: [n], those that changed.
    """
    values = new.view(_WORDS[new.dtype.itemsize])[positions]
    packed = empty_flat(len(positions) * (_POSITION_BYTES + new.dtype.itemsize), torch.uint8, new.device)
    split = len(positions) * _POSITION_BYTES
    packed[:split].view(torch.int32).copy_(positions)
    packed[split:].copy_(values.view(torch.uint8))
    return packed


def apply_changes(held: Tensor, packed: Tensor) -> None:
    """Write what `pack_changes` packed into a flat tensor, in place."""
    split = len(packed) // (_POSITION_BYTES + held.dtype.itemsize) * _POSITION_BYTES
    word = _WORDS[held.dtype.itemsize]  # not every floating point type can be indexed
    positions, values = packed[:split].view(torch.int32).long(), packed[split:].view(word)
    held.view(word).index_copy_(0, positions.to(held.device), values.to(held.device))


class DeltaSender:
    """Sends of each bucket the changes where they are few, else the whole bucket."""

    def __init__(self, channel: Channel, manifest: WeightManifest, *, full_every: int = FULL_EVERY) -> None:
        """Send nothing yet.

        Args:
            full_every: one of so many updates is whole.
        """
        self._channel = channel
        self._manifest = manifest
        self._full_every = full_every
        self._last: list[Tensor | None] = [None] * len(manifest.buckets)
        self._base = -1  #: serial of the update that the receivers hold; -1: nobody knows
        self._since_full = 0
        self._in_flight: tuple[Transfer, Tensor] | None = None

    def begin(self, order: Order) -> None:
        """See `Sender`."""
        self._in_flight = None
        self._full = order.full or self._base < 0 or self._since_full + 1 >= self._full_every
        self._order, self._held, self._base = order, self._base, -1

    def send(self, number: int, flat: Tensor) -> None:
        """See `Sender`."""
        payload, kind, num_changed = self._payload(number, flat)
        self._finish()
        self._channel.enter(f"sending {place(self._manifest, number)}")
        header = [self._order.serial, self._held, kind, num_changed]
        self._channel.finish(self._channel.broadcast(torch.tensor(header, device=self._channel.device)))
        if len(payload):
            self._in_flight = self._channel.broadcast(payload), payload
        self._remember(number, flat)

    def end(self) -> None:
        """See `Sender`."""
        self._finish()
        self._channel.enter("idle")
        self._base = self._order.serial
        self._since_full = 0 if self._full else self._since_full + 1

    def abandon(self) -> None:
        """See `Sender`."""
        self._in_flight = None
        self._channel.close()

    def _payload(self, number: int, flat: Tensor) -> tuple[Tensor, int, int]:
        last = self._last[number]
        if self._full or last is None:
            return flat, _FULL, -1
        positions = changed_positions(last.to(flat.device), flat)
        if len(positions) > largest_density(flat.dtype) * len(flat) or len(flat) > torch.iinfo(torch.int32).max:
            return flat, _FULL, len(positions)
        return pack_changes(flat, positions), _CHANGES, len(positions)

    def _remember(self, number: int, flat: Tensor) -> None:
        last = self._last[number]
        if last is None:
            last = self._last[number] = torch.empty_like(flat, device="cpu")
        last.copy_(flat)

    def _finish(self) -> None:
        if self._in_flight is not None:
            self._channel.finish(self._in_flight[0])
            self._in_flight = None


class DeltaReceiver:
    """Keeps the last update and writes changes into it."""

    def __init__(self, channel: Channel, manifest: WeightManifest) -> None:
        self._channel = channel
        self._manifest = manifest
        self._held: list[Tensor | None] = [None] * len(manifest.buckets)
        self._base = -1

    def receive(self, order: Order) -> Iterator[Arrival]:
        """See `Receiver`."""
        base, self._base = self._base, -1
        for number, bucket in enumerate(self._manifest.buckets):
            self._channel.enter(f"receiving {place(self._manifest, number)}")
            kind, num_changed = self._header(order, base)
            dtype = getattr(torch, bucket[0].dtype)
            if kind == _FULL:
                payload = whole = self._payload(num_elements(bucket), dtype)
                self._held[number] = whole.cpu()  # on a CPU engine the buffer that arrived itself, no copy
            else:
                payload = self._payload(num_changed * (_POSITION_BYTES + dtype.itemsize), torch.uint8)
                held = self._held[number]
                assert held is not None, "the sender sends changes only of what this receiver holds"
                apply_changes(held, payload)
                whole = held.to(self._channel.device)
            yield Arrival(
                tensors=views(whole, bucket),
                num_bytes=payload.nbytes,
                num_changed=None if num_changed < 0 else num_changed,
            )
        self._channel.enter("idle")
        self._base = order.serial

    def abandon(self) -> None:
        """See `Receiver`."""
        self._channel.close()

    def _header(self, order: Order, base: int) -> tuple[int, int]:
        header = torch.empty(_HEADER_WORDS, dtype=torch.int64, device=self._channel.device)
        self._channel.finish(self._channel.broadcast(header))
        serial, sender_base, kind, num_changed = (int(word) for word in header.tolist())
        if serial != order.serial or (kind == _CHANGES and sender_base != base):
            raise SyncError(
                f"weight sync, rank {self._channel.rank}, {self._channel.phase}: attempt {serial} over {sender_base} "
                f"was sent, attempt {order.serial} was asked for, and {base} is held here"
            )
        return kind, num_changed

    def _payload(self, count: int, dtype: torch.dtype) -> Tensor:
        payload = empty_flat(count, dtype, self._channel.device)
        if count:
            self._channel.finish(self._channel.broadcast(payload))
        return payload
