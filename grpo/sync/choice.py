"""Both ends of each backend."""

from __future__ import annotations

from pathlib import Path

import torch

from grpo.config import SyncBackend
from grpo.records import WeightManifest
from grpo.sync.backend import BroadcastReceiver, BroadcastSender, Receiver, Sender
from grpo.sync.channel import Channel
from grpo.sync.delta import DeltaReceiver, DeltaSender
from grpo.sync.disk import DiskReceiver, DiskSender


def make_sender(backend: SyncBackend, channel: Channel | None, manifest: WeightManifest, *, directory: Path) -> Sender:
    """The end at learner rank 0.

    Args:
        backend: not auto.
        channel: None for backend disk.
        directory: of backend disk.
    """
    if channel is None:
        return DiskSender(directory, manifest)
    if backend is SyncBackend.delta:
        return DeltaSender(channel, manifest)
    return BroadcastSender(channel, manifest)


def make_receiver(
    backend: SyncBackend,
    channel: Channel | None,
    manifest: WeightManifest,
    *,
    directory: Path,
    device: torch.device,
    rank: int,
) -> Receiver:
    """The end in the engine process that is `rank` of all; see `make_sender`."""
    if channel is None:
        return DiskReceiver(directory, manifest, device, rank)
    if backend is SyncBackend.delta:
        return DeltaReceiver(channel, manifest)
    return BroadcastReceiver(channel, manifest)
