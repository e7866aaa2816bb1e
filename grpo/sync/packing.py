"""Buckets and checksums: what both ends of a weight sync must agree on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from grpo.records import TensorSpec, WeightManifest

_CHUNK_WORDS = 1 << 16


def plan_buckets(specs: Iterable[TensorSpec], bucket_bytes: int) -> WeightManifest:
    """Cut tensors, in order, into buckets of at most `bucket_bytes` and one dtype; a larger tensor gets its own."""
    buckets: list[list[TensorSpec]] = []
    size = 0
    for spec in specs:
        num_bytes = spec.num_elements * getattr(torch, spec.dtype).itemsize
        if not buckets or size + num_bytes > bucket_bytes or buckets[-1][0].dtype != spec.dtype:
            buckets.append([])
            size = 0
        buckets[-1].append(spec)
        size += num_bytes
    return WeightManifest(buckets=tuple(tuple(bucket) for bucket in buckets))


def empty_bucket(bucket: Sequence[TensorSpec], device: torch.device) -> Tensor:
    """A flat buffer for one bucket."""
    return torch.empty(sum(s.num_elements for s in bucket), dtype=getattr(torch, bucket[0].dtype), device=device)


def views(flat: Tensor, bucket: Sequence[TensorSpec]) -> list[tuple[str, Tensor]]:
    """Name and shaped view of each tensor inside a bucket's flat buffer."""
    parts = flat.split([s.num_elements for s in bucket])
    return [(spec.name, part.view(spec.shape)) for spec, part in zip(bucket, parts, strict=True)]


def checksum(tensor: Tensor) -> int:
    """A 64-bit sum of the tensor's 32-bit words, each times an odd number that grows with its position.

    Any change of a single word changes it for certain, since the difference times an odd number is not 0 modulo
    2^64; unlike a plain sum it also sees words that changed places. Computed on the tensor's own device.

    Args:
        tensor: any shape and dtype.

    Returns:
        Signed 64-bit integer.
    """
    raw = tensor.detach().contiguous().view(-1).view(torch.uint8)
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
