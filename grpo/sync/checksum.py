"""Checksums that both ends of a weight sync take of every tensor, and their comparison."""

from __future__ import annotations

from typing import Any

import torch
import xxhash
from torch import Tensor

from grpo.errors import SyncError
from grpo.records import WeightUpdate

_CHUNK_WORDS = 1 << 16


def checksum(tensor: Tensor) -> int:
    """A 64-bit checksum of the tensor's bytes, computed where the tensor is. Both ends must be on the same device type.

    On the host XXH3, which is as fast as memory is read and misses any given change with a probability of 2^-64
    (https://xxhash.com); elsewhere `weighted_sum`.

    Args:
        tensor: any shape and dtype.

    Returns:
        Signed 64-bit integer.
    """
    if tensor.device.type != "cpu":
        return weighted_sum(tensor)
    content: Any = _bytes_of(tensor).numpy()  # a buffer, which numpy's stub does not say before Python 3.12
    unsigned = xxhash.xxh3_64_intdigest(content)
    return unsigned - (1 << 64) if unsigned >= 1 << 63 else unsigned


def weighted_sum(tensor: Tensor) -> int:
    """A 64-bit sum of the tensor's 32-bit words, each times an odd number that grows with its position.

    Any change of a single word changes it for certain, since the difference times an odd number is not 0 modulo
    2^64; unlike a plain sum it also sees words that changed places. Computed on the tensor's own device.

    Args:
        tensor: any shape and dtype.

    Returns:
        Signed 64-bit integer.
    """
    raw = _bytes_of(tensor)
    if remainder := raw.numel() % 4:
        raw = torch.cat([raw, raw.new_zeros(4 - remainder)])
    elif raw.storage_offset() % 4:  # in a bucket, behind an odd number of 16-bit elements
        raw = raw.clone()
    words = raw.view(torch.int32)
    odd = torch.arange(_CHUNK_WORDS, device=words.device) * 2 + 1
    total = torch.zeros((), dtype=torch.int64, device=words.device)
    for number, chunk in enumerate(words.split(_CHUNK_WORDS)):
        wide = chunk.long()
        total += (wide * odd[: len(wide)]).sum() + wide.sum() * (2 * number * _CHUNK_WORDS)
    return int(total.item())


def _bytes_of(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


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
