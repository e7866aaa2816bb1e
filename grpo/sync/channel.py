"""A process group of its own between learner rank 0 and every engine process."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from grpo.errors import SyncError

_POLL_S = 0.0005


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where the channel meets.

    Attributes:
        host, port: of the store that learner rank 0 serves.
        world_size: the sender and all receivers.
        timeout_s: of joining and of each transfer.
        generation: how many channels there were before: one that failed is never used again, the next one is new.
    """

    host: str
    port: int
    world_size: int
    timeout_s: float
    generation: int = 0


class Transfer:
    """One broadcast under way. It does not keep the channel open: tracebacks may hold it long after a failure."""

    def __init__(self, work: dist.Work) -> None:
        self.work: dist.Work | None = work

    def is_completed(self) -> bool:
        """Whether it is over, well or not."""
        return self.work is None or self.work.is_completed()

    def wait(self) -> None:
        """Block until it is over. Raises RuntimeError where it failed, timed out, or the channel was closed."""
        if self.work is None:
            raise RuntimeError("the channel is closed")
        self.work.wait()


def serve_store(host: str, timeout_s: float) -> dist.TCPStore:
    """Open the rendezvous store on a free port of `host` (the sender's side)."""
    return dist.TCPStore(host, 0, is_master=True, wait_for_workers=False, timeout=timedelta(seconds=timeout_s))


def read_phases(endpoint: Endpoint) -> dict[int, str]:
    """What each rank of the channel said last that it was doing; a rank that has said nothing is left out.

    Opens a connection of its own, so that it can be asked while the sender's thread waits in a transfer.
    """
    store = dist.TCPStore(endpoint.host, endpoint.port, is_master=False, timeout=timedelta(seconds=5))
    keys = {rank: _phase_key(endpoint.generation, rank) for rank in range(endpoint.world_size)}
    return {rank: store.get(key).decode() for rank, key in keys.items() if store.check([key])}


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
        self.phase = "joining"
        self._endpoint = endpoint
        self._transfers: set[Transfer] = set()
        timeout = timedelta(seconds=endpoint.timeout_s)
        try:
            self._store = store or dist.TCPStore(endpoint.host, endpoint.port, is_master=False, timeout=timeout)
            self.enter("joining the channel")
            prefixed = dist.PrefixStore(f"keel_sync_{endpoint.generation}", self._store)
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
        self.enter("idle")

    def enter(self, phase: str) -> None:
        """Say what this rank does from now on: for its own errors, and for whoever asks the store."""
        self.phase = phase
        with suppress(RuntimeError):  # a store that is gone shows itself in the transfer
            self._store.set(_phase_key(self._endpoint.generation, self.rank), phase)

    def broadcast(self, flat: Tensor) -> Transfer:
        """Start sending (rank 0) or receiving `flat`; wait on the result with `finish`."""
        options = dist.BroadcastOptions()
        options.rootRank = 0
        options.rootTensor = 0
        if self._group is None:
            raise SyncError(f"weight sync, rank {self.rank}: the channel is closed")
        try:
            transfer = Transfer(self._group.broadcast([flat], options))
        except RuntimeError as error:
            raise self._failed(error) from error
        self._transfers.add(transfer)
        return transfer

    def finish(self, transfer: Transfer) -> None:
        """Wait for one transfer.

        Raises:
            SyncError: it failed or timed out; names the rank and the phase given to `enter`.
        """
        try:
            if self.device.type == "cuda":
                self._await_card(transfer)
            transfer.wait()
        except RuntimeError as error:
            raise self._failed(error) from error
        self._transfers.discard(transfer)

    def close(self) -> None:
        """Leave, for good. Those who still wait for this rank then fail at once instead of at their time-out."""
        group, self._group = self._group, None
        if group is not None and self.device.type == "cuda":
            with suppress(RuntimeError):
                group.abort()
        # Gloo's connections close with the last reference to the group or to work of it; its abort() leaves them open.
        for transfer in self._transfers:
            transfer.work = None
        self._transfers.clear()

    def _await_card(self, transfer: Transfer) -> None:
        # NCCL's wait only orders streams. A host that then waits for the device would never come back from a dead peer.
        deadline = time.monotonic() + self._endpoint.timeout_s
        while not transfer.is_completed():
            if time.monotonic() > deadline:
                raise RuntimeError(f"not done after {self._endpoint.timeout_s:g} s")
            time.sleep(_POLL_S)

    def _failed(self, error: RuntimeError) -> SyncError:
        return SyncError(f"weight sync, rank {self.rank} of {self._endpoint.world_size}, {self.phase}: {error}")


def _phase_key(generation: int, rank: int) -> str:
    return f"keel_sync_{generation}/phase/{rank}"


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
