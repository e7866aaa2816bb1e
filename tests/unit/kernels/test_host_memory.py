"""Memory that tensors borrow: used again when they are gone, never while one of them is left."""

from __future__ import annotations

import gc

import pytest
import torch

from grpo.kernels.host_memory import HostMemory

#: A little over the smallest size that is kept, in float32 numbers.
LARGE = (4 << 20) + 3


def test_a_tensor_of_that_shape_and_type():
    tensor = HostMemory().empty(LARGE, 2)
    assert (tensor.shape, tensor.dtype, tensor.is_contiguous()) == ((LARGE, 2), torch.float32, True)
    assert tensor.fill_(3.0).sum().item() == 6.0 * LARGE


def test_memory_is_used_again_once_the_last_view_is_gone():
    memory = HostMemory()
    tensor = memory.empty(LARGE)
    address, view = tensor.data_ptr(), tensor[5:].view(2, -1)
    del tensor
    gc.collect()
    assert memory.empty(LARGE).data_ptr() != address  # the view still borrows it
    del view
    gc.collect()
    first, second = memory.empty(LARGE - 1), memory.empty(LARGE)
    assert address in (first.data_ptr(), second.data_ptr())
    assert first.data_ptr() != second.data_ptr()


def test_the_closest_size_is_chosen_and_nothing_far_too_large():
    memory = HostMemory()
    sizes = [3 * LARGE, LARGE, 2 * LARGE]
    tensors = [memory.empty(size) for size in sizes]
    addresses = dict(zip(sizes, (t.data_ptr() for t in tensors), strict=True))
    tensors.clear()
    gc.collect()
    taken = memory.empty(LARGE)
    assert taken.data_ptr() == addresses[LARGE]
    assert memory.empty(LARGE).data_ptr() == addresses[2 * LARGE]


def test_blocks_that_became_too_small_are_given_up():
    memory = HostMemory()
    small = memory.empty(LARGE)
    del small
    gc.collect()
    large = memory.empty(3 * LARGE)
    assert memory._free == []
    del large


def test_small_tensors_are_torchs_own():
    memory = HostMemory()
    tensor = memory.empty(2, 3)
    del tensor
    gc.collect()
    assert memory._free == []


@pytest.mark.parametrize("keep", [True, False])
def test_a_gradient_that_is_kept_is_not_overwritten(keep: bool):
    memory = HostMemory()
    parameter = torch.nn.Parameter(torch.zeros(LARGE))
    parameter.grad = memory.empty(LARGE).fill_(1.0)
    if not keep:
        parameter.grad = None
        gc.collect()
    other = memory.empty(LARGE).fill_(2.0)
    assert other.sum().item() == 2.0 * LARGE
    if keep:
        assert parameter.grad is not None and parameter.grad.sum().item() == LARGE
