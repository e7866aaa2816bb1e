"""The sending side of a weight sync."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from grpo.errors import SyncError
from grpo.records import TensorSpec, WeightManifest, WeightUpdate
from grpo.sync.channel import Channel
from grpo.sync.packing import checksum, empty_bucket, plan_buckets, views


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
        self._channel: Channel | None = None

    def attach(self, channel: Channel) -> None:
        """Give rank 0 its channel to the engines."""
        self._channel = channel

    def publish(self, policy_version: int) -> WeightUpdate:
        """Send all weights. Every learner rank calls it, since gathering a shard is a collective.

        A failed transfer does not stop the gathering: the other ranks would wait for ever in the next collective.

        Returns:
            Rank 0: checksum of every tensor as sent. Other ranks: no checksums.

        Raises:
            SyncError: a bucket could not be sent.
        """
        started = time.perf_counter()
        checksums: dict[str, int] = {}
        failure: SyncError | None = None
        in_flight = None
        for number, bucket in enumerate(self.manifest.buckets):
            flat = self._gather(bucket)
            if self._channel is None or failure is not None or flat is None:
                continue
            try:
                checksums |= {name: checksum(tensor) for name, tensor in views(flat, bucket)}
                if in_flight is not None:
                    self._channel.finish(in_flight[0], f"sending bucket {number - 1}")
                in_flight = (self._channel.broadcast(flat), flat)
            except SyncError as error:
                failure = error
        if failure is None and self._channel is not None and in_flight is not None:
            self._channel.finish(in_flight[0], f"sending bucket {len(self.manifest.buckets) - 1}")
        if failure is not None:
            raise failure
        elapsed = time.perf_counter() - started
        return WeightUpdate(policy_version=policy_version, checksums=checksums, transfer_s=elapsed, load_s=0.0)

    @torch.no_grad()
    def _gather(self, bucket: Sequence[TensorSpec]) -> Tensor | None:
        """The bucket's flat buffer on the sending rank; None elsewhere. A collective."""
        flat = None if self._channel is None else empty_bucket(bucket, self._channel.device)
        targets = dict(views(flat, bucket)) if flat is not None else {}
        for spec in bucket:
            parameter = self._parameters[spec.name]
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if flat is not None:
                targets[spec.name].copy_(whole)
        return flat


def verify(sent: WeightUpdate, received: WeightUpdate, receiver: str) -> None:
    """Compare both sides' checksums.

    Raises:
        SyncError: names the first tensor that differs or is missing, and the receiver.
    """
    for name, expected in sent.checksums.items():
        actual = received.checksums.get(name)
        if actual != expected:
            found = "nothing" if actual is None else f"{actual & (2**64 - 1):016x}"
            raise SyncError(
                f"policy version {sent.policy_version}: tensor {name} arrived corrupted in {receiver} "
                f"(checksum sent {expected & (2**64 - 1):016x}, received {found}). The engine's weights can't be "
                "trusted; resume from the last checkpoint."
            )
    if received.policy_version != sent.policy_version:
        raise SyncError(
            f"{receiver} loaded policy version {received.policy_version}, the learner sent {sent.policy_version}"
        )
