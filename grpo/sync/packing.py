"""Buckets: what both ends of a weight sync must agree on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from grpo.kernels.host_memory import HOST_BUFFERS
from grpo.records import TensorSpec, WeightManifest

_BLOCK_BYTES = 16 << 20


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


def num_elements(bucket: Sequence[TensorSpec]) -> int:
    """Elements of one bucket."""
    return sum(spec.num_elements for spec in bucket)


def empty_flat(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """An uninitialised flat buffer, [count]; on the host out of memory that comes back when nobody uses it any more.

    Fresh memory of this size would be zeroed by the kernel page by page, every time, at half the cost of a transfer.
    """
    if device.type != "cpu":
        return torch.empty(count, dtype=dtype, device=device)
    num_bytes = count * dtype.itemsize
    # Buckets differ by a little, and only blocks of one size can stand in for each other. Untouched pages cost nothing.
    taken = -(-num_bytes // _BLOCK_BYTES) * _BLOCK_BYTES if num_bytes > _BLOCK_BYTES else num_bytes
    return HOST_BUFFERS.empty(-(-taken // 4)).view(torch.uint8)[:num_bytes].view(dtype)


def empty_bucket(bucket: Sequence[TensorSpec], device: torch.device) -> Tensor:
    """A flat buffer for one bucket."""
    return empty_flat(num_elements(bucket), getattr(torch, bucket[0].dtype), device)


def views(flat: Tensor, bucket: Sequence[TensorSpec]) -> list[tuple[str, Tensor]]:
    """Name and shaped view of each tensor inside a bucket's flat buffer."""
    parts = flat.split([s.num_elements for s in bucket])
    return [(spec.name, part.view(spec.shape)) for spec, part in zip(bucket, parts, strict=True)]


def place(manifest: WeightManifest, number: int) -> str:
    """A bucket in words, for errors and states: which one of how many, and its first tensor."""
    return f"bucket {number} of {len(manifest.buckets)} (from {manifest.buckets[number][0].name})"
