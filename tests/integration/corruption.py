"""A worker extension that flips one bit of one bucket on arrival."""

from __future__ import annotations

import torch

from grpo.rollout.extension import WeightReceiver


class CorruptingReceiver(WeightReceiver):
    """Corrupts the second update it receives."""

    def keel_join_channel(self, packed: bytes, first_rank: int, local_host: str) -> None:
        """Join, and tamper with what arrives from the second update on."""
        super().keel_join_channel(packed, first_rank, local_host)
        channel = self.keel_subscriber._channel
        finish, broadcast = channel.finish, channel.broadcast
        arrived: list[torch.Tensor] = []

        def remember(flat: torch.Tensor):
            arrived.append(flat)
            return broadcast(flat)

        def tamper(work: object, phase: str) -> None:
            finish(work, phase)  # pyright: ignore[reportArgumentType]
            num_buckets = len(self.keel_subscriber._manifest.buckets)
            if len(arrived) > num_buckets and phase.startswith("receiving bucket 1 "):
                arrived[num_buckets + 1].view(torch.int32)[7] ^= 1 << 20

        channel.broadcast, channel.finish = remember, tamper
