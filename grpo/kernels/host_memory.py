"""Large host buffers out of memory that is kept from one use to the next.

glibc hands blocks above 32 MiB back to the kernel as soon as they are free, and gets them again page by page, zeroed.
For the logits of a chunk and the gradient of a head that costs a CPU step more than the softmax does. A GPU's
allocator keeps its memory by itself.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from math import prod

import numpy as np
import torch
from torch import Tensor

#: Below this size torch's own allocator finds memory that it has had before.
_SMALLEST_BYTES = 16 << 20


class HostMemory:
    """Blocks that tensors borrow: one comes back when the last tensor on it is gone."""

    def __init__(self) -> None:
        self._free: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def empty(self, *shape: int) -> Tensor:
        """An uninitialised float32 tensor on the host."""
        num_bytes = prod(shape) * torch.float32.itemsize
        if num_bytes < _SMALLEST_BYTES:
            return torch.empty(shape, dtype=torch.float32)
        block = self._take(num_bytes)
        array = np.frombuffer(block, dtype=np.float32, count=prod(shape))
        weakref.finalize(array, self._give_back, block).atexit = False
        return torch.from_numpy(array).view(shape)  # pyright: ignore[reportUnknownMemberType] - torch's stub is untyped

    def _take(self, num_bytes: int) -> mmap.mmap:
        with self._lock:
            fitting = [block for block in self._free if num_bytes <= len(block) <= 2 * num_bytes]
            if fitting:
                chosen = min(fitting, key=len)
                self._free.remove(chosen)
                return chosen
            # What is too small now was made for smaller batches; what is far too large would be wasted on this.
            self._free = [block for block in self._free if len(block) > num_bytes]
        return mmap.mmap(-1, num_bytes)

    def _give_back(self, block: mmap.mmap) -> None:
        with self._lock:
            self._free.append(block)


#: Of this process.
HOST_BUFFERS = HostMemory()
