"""What a weight sync computes on a CUDA device, and both backends of the channel over NCCL where there are two."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from grpo.config import SyncBackend
from grpo.sync.backend import Order
from grpo.sync.channel import Channel, Endpoint, serve_store
from grpo.sync.checksum import checksum, verify, weighted_sum
from grpo.sync.choice import make_receiver, make_sender
from grpo.sync.delta import apply_changes, changed_positions, pack_changes
from grpo.sync.publisher import Publisher
from grpo.sync.subscriber import Subscriber

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("numel", [0, 1, 3, (1 << 16) + 7])
def test_the_checksum_on_the_card_is_the_weighted_sum_of_the_same_bytes(numel: int) -> None:
    tensor = torch.randn(numel, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert checksum(tensor.cuda()) == weighted_sum(tensor)


def test_changes_found_on_the_card_are_those_found_on_the_host() -> None:
    old = torch.randn(10_000, generator=torch.Generator().manual_seed(0)).bfloat16()
    new = old.clone()
    new[::97] += 1
    positions = changed_positions(old.cuda(), new.cuda())
    assert positions.cpu().tolist() == changed_positions(old, new).tolist()
    apply_changes(old, pack_changes(new.cuda(), positions))  # the receiver's copy is on the host
    assert torch.equal(old, new)


def _rank(rank: int, endpoint: Endpoint, backend: SyncBackend, directory: str) -> None:
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    channel = Channel(endpoint, rank, device, local_host="127.0.0.1")
    parameters = {f"p{i}": torch.full((1000 + i,), float(i), device=device) for i in range(5)}
    publisher = Publisher(parameters.items(), wire_dtype=torch.bfloat16, bucket_bytes=4096)
    manifest, path = publisher.manifest, Path(directory)
    publisher.attach(make_sender(backend, channel, manifest, directory=path), device)
    receiver = make_receiver(backend, channel, manifest, directory=path, device=device, rank=rank)
    subscriber = Subscriber(receiver)
    for serial in (1, 2, 3):
        order = Order(policy_version=serial, serial=serial, full=False)
        parameters["p3"][serial] = -1.0
        if rank == 0:
            torch.save(publisher.publish(order), path / f"sent_{serial}")
        else:
            arrived = {name: tensor.clone() for name, tensor in subscriber.receive(order)}
            for name, tensor in arrived.items():
                assert torch.equal(tensor, parameters[name].bfloat16())
            torch.save(subscriber.account(order, 0.0), path / f"received_{serial}")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="NCCL wants a GPU for each rank")
@pytest.mark.parametrize("backend", [SyncBackend.broadcast, SyncBackend.delta])
def test_all_arrives_over_nccl(backend: SyncBackend, tmp_path: Path) -> None:
    store = serve_store("127.0.0.1", 60.0)
    endpoint = Endpoint(host="127.0.0.1", port=store.port, world_size=2, timeout_s=60.0)
    mp.spawn(_rank, (endpoint, backend, str(tmp_path)), nprocs=2)
    for serial in (1, 2, 3):
        sent, received = (
            torch.load(tmp_path / f"{side}_{serial}", weights_only=False) for side in ("sent", "received")
        )
        verify(sent, received, "the other card")
