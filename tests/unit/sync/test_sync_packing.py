"""Buckets, views and checksums of a weight sync."""

from __future__ import annotations

import math
import struct
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.errors import SyncError
from grpo.records import TensorSpec, WeightUpdate
from grpo.sync.checksum import checksum, verify, weighted_sum
from grpo.sync.packing import empty_bucket, plan_buckets, views

CPU = torch.device("cpu")
ITEM_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int64": 8, "uint8": 1}
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.int64,
    torch.int32,
    torch.int8,
    torch.uint8,
    torch.bool,
]

shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
spec_lists = st.lists(st.tuples(shapes, st.sampled_from(sorted(ITEM_BYTES))), min_size=1, max_size=12).map(
    lambda rows: [TensorSpec(name=f"t{i}", shape=shape, dtype=dtype) for i, (shape, dtype) in enumerate(rows)]
)


def num_bytes(spec: TensorSpec) -> int:
    return math.prod(spec.shape) * ITEM_BYTES[spec.dtype]


@given(specs=spec_lists, bucket_bytes=st.integers(1, 400))
def test_buckets_hold_every_tensor_in_order_fit_and_have_one_dtype(specs, bucket_bytes):
    manifest = plan_buckets(specs, bucket_bytes)
    assert [spec for bucket in manifest.buckets for spec in bucket] == specs
    assert manifest.num_bytes == sum(map(num_bytes, specs))
    for bucket in manifest.buckets:
        assert bucket
        assert len({spec.dtype for spec in bucket}) == 1
        held = [spec for spec in bucket if num_bytes(spec)]
        assert sum(map(num_bytes, bucket)) <= bucket_bytes or len(held) == 1


@given(specs=spec_lists, bucket_bytes=st.integers(1, 400))
def test_a_bucket_ends_only_where_the_next_tensor_does_not_belong(specs, bucket_bytes):
    buckets = plan_buckets(specs, bucket_bytes).buckets
    for bucket, following in pairwise(buckets):
        full = sum(map(num_bytes, bucket)) + num_bytes(following[0]) > bucket_bytes
        assert full or bucket[0].dtype != following[0].dtype


def test_both_sides_plan_alike_from_a_generator_or_a_list():
    specs = [TensorSpec(name=f"t{i}", shape=(i,), dtype="float32") for i in range(1, 9)]
    assert plan_buckets(iter(specs), 40) == plan_buckets(specs, 40)


def test_by_hand():
    specs = [TensorSpec(name=n, shape=(k,), dtype="float32") for n, k in [("a", 2), ("b", 2), ("big", 9), ("c", 1)]]
    assert [[s.name for s in bucket] for bucket in plan_buckets(specs, 16).buckets] == [["a", "b"], ["big"], ["c"]]


@given(specs=spec_lists, bucket_bytes=st.integers(1, 400))
def test_views_give_back_what_was_put_in(specs, bucket_bytes):
    for bucket in plan_buckets(specs, bucket_bytes).buckets:
        flat = empty_bucket(bucket, CPU)
        assert flat.dtype == getattr(torch, bucket[0].dtype)
        assert flat.numel() == sum(spec.num_elements for spec in bucket)
        for number, (name, view) in enumerate(views(flat, bucket)):
            view.fill_(number + 1)
            assert name == bucket[number].name
        arrived = flat.clone()
        for number, (spec, (name, view)) in enumerate(zip(bucket, views(arrived, bucket), strict=True)):
            assert name == spec.name
            assert tuple(view.shape) == spec.shape
            assert (view == number + 1).all()


def looped_checksum(data: bytes) -> int:
    """sum of word_i (2 i + 1) over little-endian signed 32-bit words, zero padded, as a signed 64-bit number."""
    data += b"\0" * (-len(data) % 4)
    words = struct.unpack(f"<{len(data) // 4}i", data)
    total = sum(word * (2 * i + 1) for i, word in enumerate(words)) % 2**64
    return total - 2**64 if total >= 2**63 else total


def random_tensor(num_bytes: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    raw = np.random.default_rng(seed).integers(0, 2 if dtype == torch.bool else 256, num_bytes, dtype=np.uint8)
    return torch.tensor(raw.tolist(), dtype=torch.uint8).view(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@given(numel=st.integers(0, 33), seed=st.integers(0, 50))
def test_checksum_of_any_dtype_and_number_of_elements(dtype, numel, seed):
    tensor = random_tensor(numel * dtype.itemsize, dtype, seed)
    assert weighted_sum(tensor) == looped_checksum(bytes(tensor.view(torch.uint8).numpy()))


@pytest.mark.parametrize("numel", [(1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 * (1 << 16) + 7])
def test_checksum_over_several_chunks(numel):
    tensor = random_tensor(numel * 4, torch.float32)
    assert weighted_sum(tensor) == looped_checksum(tensor.numpy().tobytes())


both = pytest.mark.parametrize("checksum", [checksum, weighted_sum])


@both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("numel", [1, 2, 3, 5])
def test_every_flipped_bit_changes_the_checksum(dtype, numel, checksum):
    tensor = random_tensor(numel * dtype.itemsize, dtype)
    before = checksum(tensor)
    raw = tensor.view(torch.uint8)
    for position in range(raw.numel()):
        for bit in range(8):
            raw[position] ^= 1 << bit
            assert checksum(tensor) != before
            raw[position] ^= 1 << bit
    assert checksum(tensor) == before


@both
@given(position=st.integers(0, (1 << 17) + 9), bit=st.integers(0, 7))
def test_a_flipped_bit_far_out_changes_the_checksum(position, bit, checksum):
    tensor = random_tensor((1 << 17) + 10, torch.uint8)
    before = checksum(tensor)
    tensor[position] ^= 1 << bit
    assert checksum(tensor) != before


@both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@given(data=st.data())
def test_elements_that_changed_places_are_seen(dtype, data, checksum):
    count = data.draw(st.integers(2, 40))
    first, second = data.draw(st.lists(st.integers(0, count - 1), min_size=2, max_size=2, unique=True))
    tensor = torch.arange(1, count + 1).to(dtype)
    swapped = tensor.clone()
    swapped[first], swapped[second] = tensor[second], tensor[first]
    assert checksum(tensor) != checksum(swapped)


@both
def test_words_a_chunk_apart_that_changed_places_are_seen(checksum):
    tensor = torch.arange(1, (1 << 16) * 2 + 1, dtype=torch.int32)
    swapped = tensor.clone()
    swapped[5], swapped[(1 << 16) + 5] = tensor[(1 << 16) + 5], tensor[5]
    assert checksum(tensor) != checksum(swapped)


@both
def test_equal_content_equal_checksum_whatever_the_memory_layout(checksum):
    tensor = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    strided = tensor.t().contiguous().t()
    assert not strided.is_contiguous()
    assert checksum(strided) == checksum(tensor) == checksum(tensor.clone().requires_grad_())


def test_a_scalar_and_nothing():
    assert weighted_sum(torch.tensor(1.0)) == struct.unpack("<i", struct.pack("<f", 1.0))[0]
    assert weighted_sum(torch.zeros(0)) == 0
    # The reference values of XXH3_64bits with seed 0 for no bytes, https://github.com/Cyan4973/xxHash.
    assert checksum(torch.zeros(0)) == 0x2D06800538D394C2


@given(num_bytes=st.integers(0, 40), seed=st.integers(0, 50))
def test_a_checksum_is_a_signed_word_of_64_bits(num_bytes, seed):
    assert -(1 << 63) <= checksum(random_tensor(num_bytes, torch.uint8, seed)) < 1 << 63


@both
def test_negative_zero_is_not_zero_and_nan_equals_itself(checksum):
    assert checksum(torch.tensor([0.0])) != checksum(torch.tensor([-0.0]))
    assert checksum(torch.tensor([math.nan])) == checksum(torch.tensor([math.nan]))


@both
@pytest.mark.parametrize("dtype", ["bfloat16", "uint8"])
@given(sizes=st.lists(st.integers(0, 9), min_size=2, max_size=6))
def test_a_tensor_inside_a_bucket_has_the_checksum_of_its_copy(dtype, sizes, checksum):
    """Inside a bucket a tensor may start at any element: after an odd number of bfloat16, between two words."""
    bucket = [TensorSpec(name=f"t{i}", shape=(size,), dtype=dtype) for i, size in enumerate(sizes)]
    flat = empty_bucket(bucket, CPU).copy_(torch.arange(1, sum(sizes) + 1))
    for _, view in views(flat, bucket):
        assert checksum(view) == checksum(view.clone())


def update(version: int = 7, **checksums: int) -> WeightUpdate:
    return WeightUpdate(policy_version=version, checksums=checksums, transfer_s=0.0, load_s=0.0)


def test_equal_updates_pass():
    verify(update(a=1, b=-2), update(b=-2, a=1), "engine 0")


@pytest.mark.parametrize(
    ("received", "found"),
    [(update(a=1, b=5, c=9), "0000000000000005"), (update(a=1, c=3), "nothing"), (update(a=1, b=2, c=3), None)],
)
def test_verify_names_the_first_tensor_that_differs_and_the_receiver(received, found):
    if found is None:
        verify(update(a=1, b=2, c=3), received, "engine 1")
        return
    with pytest.raises(SyncError) as caught:
        verify(update(a=1, b=-2, c=3), received, "engine 1")
    message = str(caught.value)
    assert "tensor b arrived corrupted in engine 1" in message
    assert "policy version 7" in message
    assert f"sent fffffffffffffffe, received {found}" in message


def test_verify_refuses_another_version():
    with pytest.raises(SyncError, match="engine 2 loaded policy version 6, the learner sent 7"):
        verify(update(7, a=1), update(6, a=1), "engine 2")
