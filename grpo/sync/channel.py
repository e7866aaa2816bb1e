"""A process group of its own between learner rank 0 and every engine process."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from grpo.errors import SyncError


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the channel meets.

    Attributes:
        host, port: of the store that learner rank 0 serves.
        world_size: the sender and all receivers.
        timeout_s: of joining and of each transfer.
    """

    host: str
    port: int
    world_size: int
    timeout_s: float


def serve_store(host: str, timeout_s: float) -> dist.TCPStore:
    """Open the rendezvous store on a free port of `host` (the sender's side)."""
    return dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout_s))


class Channel:
    """Broadcasts from rank 0 to all others, outside torch's default process group.

    Kept apart from the learner's group, because a rank waiting here must never be awaited there.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        rank: int,
        device: torch.device,
        *,
        local_host: str,
        store: dist.TCPStore | None = None,
    ) -> None:
        """Join the channel; blocks until all members have.

        Args:
            rank: 0 for the sender.
            device: of the tensors that will travel; decides between gloo and NCCL.
            local_host: this process's own address, to bind gloo to.
            store: the store itself, on rank 0.

        Raises:
            SyncError: the others did not join in time.
        """
        self.device = device
        self.rank = rank
        timeout = timedelta(seconds=endpoint.timeout_s)
        try:
            self._store = store or dist.TCPStore(endpoint.host, endpoint.port, is_master=False, timeout=timeout)
            prefixed = dist.PrefixStore("keel_sync", self._store)
            self._group: Any = (
                _nccl_group(prefixed, rank, endpoint.world_size, timeout)
                if device.type == "cuda"
                else _gloo_group(prefixed, rank, endpoint.world_size, timeout, local_host)
            )
        except (RuntimeError, dist.DistStoreError) as error:
            raise SyncError(
                f"rank {rank} of the weight channel could not join {endpoint.host}:{endpoint.port} within "
                f"{endpoint.timeout_s:.0f} s: {error}"
            ) from error

    def broadcast(self, flat: Tensor) -> dist.Work:
        """Start sending (rank 0) or receiving `flat`; wait on the result with `finish`."""
        options = dist.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        try:
            return self._group.broadcast([flat], options)
        except RuntimeError as error:
            raise SyncError(f"weight sync, starting a transfer: {error}") from error

    def finish(self, work: dist.Work, phase: str) -> None:
        """Wait for one transfer.

        Raises:
            SyncError: it failed or timed out; names the phase.
        """
        try:
            work.wait()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
        except RuntimeError as error:
            raise SyncError(f"weight sync, {phase}: {error}") from error


def _gloo_group(store: dist.Store, rank: int, world_size: int, timeout: timedelta, local_host: str) -> Any:
    # torch declares neither the options nor the transfers of these two classes.
    gloo: Any = dist.ProcessGroupGloo
    options = gloo._Options()
    options._devices = [gloo.create_device(hostname=local_host)]
    options._timeout = timeout
    return gloo(store, rank, world_size, options)


def _nccl_group(store: dist.Store, rank: int, world_size: int, timeout: timedelta) -> Any:
    nccl: Any = dist.ProcessGroupNCCL
    options = nccl.Options()
    options._timeout = timeout
    return nccl(store, rank, world_size, options)
