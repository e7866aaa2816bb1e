"""The sending side of a weight sync."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from grpo.errors import SyncError
from grpo.records import TensorSpec, WeightManifest, WeightUpdate
from grpo.sync.backend import Order, Sender
from grpo.sync.checksum import checksum
from grpo.sync.packing import empty_bucket, place, plan_buckets, views


class Publisher:
    """Gathers sharded parameters and sends them in packed buckets. One on every learner rank; rank 0 sends."""

    def __init__(self, parameters: Iterable[tuple[str, Tensor]], *, wire_dtype: torch.dtype, bucket_bytes: int) -> None:
        """Plan the packing once, so that every update travels alike.

        Args:
            parameters: checkpoint name and (possibly sharded) parameter, in the order they travel. A tied tensor is
                listed once.
            wire_dtype: floating point type the engine holds.
            bucket_bytes: size of a bucket; two of them are held at a time.
        """
        self._parameters = dict(parameters)
        self._wire_dtype = wire_dtype
        dtype = str(wire_dtype).removeprefix("torch.")
        specs = [TensorSpec(name=n, shape=tuple(p.shape), dtype=dtype) for n, p in self._parameters.items()]
        self.manifest: WeightManifest = plan_buckets(specs, bucket_bytes)
        self._sender: Sender | None = None
        self._device = torch.device("cpu")

    def attach(self, sender: Sender, device: torch.device) -> None:
        """Give rank 0 its way to the engines.

        Args:
            device: where buckets are packed.
        """
        self._sender, self._device = sender, device

    def publish(self, order: Order) -> WeightUpdate:
        """Send all weights. Every learner rank calls it, since gathering a shard is a collective.

        A failed transfer does not stop the gathering: the other ranks would wait for ever in the next collective.

        Returns:
            Rank 0: checksum of every tensor as sent. Other ranks: no checksums.

        Raises:
            SyncError: a bucket could not be sent; no receiver waits for it any more.
        """
        started = time.perf_counter()
        checksums: dict[str, int] = {}
        failure: SyncError | None = None
        try:
            self._begin(order)
        except SyncError as error:
            failure = error
        for number, bucket in enumerate(self.manifest.buckets):
            gathered = None  # whoever sends the last one in the background holds it
            gathered = self._gather(bucket)
            if self._sender is None or failure is not None or gathered is None:
                continue
            checksums |= gathered[1]
            try:
                self._sender.send(number, gathered[0])
            except SyncError as error:
                failure = error
            except RuntimeError as error:  # out of memory, for one
                failure = SyncError(f"weight sync, learner rank 0, sending {place(self.manifest, number)}: {error}")
        self._end(failure)
        elapsed = time.perf_counter() - started
        return WeightUpdate(policy_version=order.policy_version, checksums=checksums, transfer_s=elapsed, load_s=0.0)

    def _begin(self, order: Order) -> None:
        if self._sender is not None:
            self._sender.begin(order)

    def _end(self, failure: SyncError | None) -> None:
        if self._sender is None:
            return
        try:
            if failure is not None:
                raise failure
            self._sender.end()
        except SyncError:
            self._sender.abandon()
            raise

    @torch.no_grad()
    def _gather(self, bucket: Sequence[TensorSpec]) -> tuple[Tensor, dict[str, int]] | None:
        """The bucket's flat buffer and the checksums of its tensors on the sending rank; None elsewhere. A collective.

        Shards are rounded to the type on the wire before they are gathered: half the bytes, and the same values.
        """
        flat = None if self._sender is None else empty_bucket(bucket, self._device)
        targets = dict(views(flat, bucket)) if flat is not None else {}
        checksums: dict[str, int] = {}
        for spec in bucket:
            parameter = self._parameters[spec.name]
            if isinstance(parameter, DTensor):
                rounded: Any = parameter.to(self._wire_dtype)
                parameter = rounded.full_tensor()
            if flat is not None:
                target = targets[spec.name].copy_(parameter)
                checksums[spec.name] = checksum(target)  # now, while the processor's cache still holds it
        return None if flat is None else (flat, checksums)
