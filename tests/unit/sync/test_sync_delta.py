"""Finding, packing and applying changes; when they pay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.sync.delta import apply_changes, changed_positions, largest_density, pack_changes

FLOATS = [torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn]


def test_by_hand():
    old = torch.tensor([0.0, 1.0, float("nan"), 3.0, -0.0])
    new = torch.tensor([0.0, 1.5, float("nan"), 3.0, 0.0])
    assert changed_positions(old, new).tolist() == [1, 4]  # a NaN is the same as before, a sign is not
    packed = pack_changes(new, torch.tensor([1, 4]))
    assert packed.tolist() == [1, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0xC0, 0x3F, 0, 0, 0, 0]  # 1.5 is 0x3FC00000


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@given(count=st.integers(0, 60), data=st.data())
def test_changes_make_the_old_one_the_new_one(dtype, count, data):
    raw = st.lists(st.integers(0, 255), min_size=count * dtype.itemsize, max_size=count * dtype.itemsize)
    old = torch.tensor(data.draw(raw), dtype=torch.uint8).view(dtype)
    new = old.clone()
    for position in data.draw(st.lists(st.integers(0, max(0, new.nbytes - 1)), max_size=8)) if count else []:
        new.view(torch.uint8)[position] ^= 0x41
    positions = changed_positions(old, new)
    differs = (old.view(torch.uint8) != new.view(torch.uint8)).view(count, dtype.itemsize).any(1)
    assert positions.tolist() == [i for i in range(count) if differs[i]]
    packed = pack_changes(new, positions)
    assert packed.nbytes == len(positions) * (4 + dtype.itemsize)
    apply_changes(old, packed)
    assert torch.equal(old.view(torch.uint8), new.view(torch.uint8))


def test_a_delta_of_the_largest_density_is_half_of_the_bytes():
    assert largest_density(torch.bfloat16) == pytest.approx(1 / 6)
    assert largest_density(torch.float32) == pytest.approx(1 / 4)
    for dtype in FLOATS:
        assert largest_density(dtype) * (4 + dtype.itemsize) == pytest.approx(dtype.itemsize / 2)


def test_most_of_a_small_step_is_lost_in_bfloat16():
    """What the backend lives on: a step of 1e-6 moves a weight of 0.02 by a hundredth of bfloat16's spacing there."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(200_000, generator=generator) * 0.02
    moved = weights + 1e-6 * torch.randn(200_000, generator=generator).sign()
    share = len(changed_positions(weights.bfloat16(), moved.bfloat16())) / len(weights)
    assert 0 < share < largest_density(torch.bfloat16)
