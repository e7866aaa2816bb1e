"""The receiving side of a weight sync."""

from __future__ import annotations

import time
from collections.abc import Iterator

from torch import Tensor

from grpo.records import WeightUpdate
from grpo.sync.backend import Order, Receiver
from grpo.sync.checksum import checksum


class Subscriber:
    """Receives one update after another and takes a checksum of every tensor as it arrived."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._checksums: dict[str, int] = {}
        self._transfer_s = 0.0
        self._num_bytes = 0
        self._compared: list[tuple[int, int]] = []

    def receive(self, order: Order) -> Iterator[tuple[str, Tensor]]:
        """Yield name and tensor of one whole update, in the sender's order.

        Raises:
            SyncError: a bucket did not arrive in time.
        """
        self._checksums, self._compared = {}, []
        self._transfer_s, self._num_bytes = 0.0, 0
        arrivals = self._receiver.receive(order)
        while True:
            started = time.perf_counter()
            arrival = next(arrivals, None)
            if arrival is None:
                return
            self._checksums |= {name: checksum(tensor) for name, tensor in arrival.tensors}
            self._num_bytes += arrival.num_bytes
            if arrival.num_changed is not None:
                self._compared.append((arrival.num_changed, sum(t.numel() for _, t in arrival.tensors)))
            self._transfer_s += time.perf_counter() - started
            tensors = arrival.tensors
            del arrival  # or its buffer would still be held while the next but one is asked for
            while tensors:
                yield tensors.pop(0)

    def abandon(self) -> None:
        """Give up the update in hand, so that nobody waits for this receiver."""
        self._receiver.abandon()

    def account(self, order: Order, elapsed_s: float) -> WeightUpdate:
        """What came of the last update.

        Args:
            elapsed_s: of receiving and loading together.
        """
        changed, compared = (sum(column) for column in zip(*self._compared, strict=True)) if self._compared else (0, 0)
        return WeightUpdate(
            policy_version=order.policy_version,
            checksums=dict(self._checksums),
            transfer_s=self._transfer_s,
            load_s=elapsed_s - self._transfer_s,
            num_bytes=self._num_bytes,
            changed_share=changed / compared if compared else None,
        )
