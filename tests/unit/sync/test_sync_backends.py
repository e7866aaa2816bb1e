"""Every backend brings every element to every receiver, by real process groups and real files."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
import torch

from grpo.config import SyncBackend
from grpo.errors import SyncError
from grpo.sync.channel import read_phases
from grpo.sync.checksum import verify
from grpo.sync.delta import DeltaSender
from tests.unit.sync.ranks import Ends, make_ends, open_channels, order, together

OVER_CHANNEL = [SyncBackend.broadcast, SyncBackend.delta]


def some_parameters() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = {"embedding": (7, 5), "norm": (5,), "scalar": (), "bias": (3,), "large": (11, 13), "nothing": (0, 4)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def assert_arrived(ends: Ends, parameters: dict[str, torch.Tensor], serial: int, dtype: torch.dtype, **options):
    sent, received = ends.update(order(serial, **options))
    for tensors, update in received:
        assert list(tensors) == list(parameters)
        for name, tensor in tensors.items():
            assert tensor.dtype == dtype
            torch.testing.assert_close(tensor, parameters[name].to(dtype), rtol=0, atol=0, equal_nan=True)
        verify(sent, update, "a receiver")
        assert update.policy_version == 100 + serial
        assert set(update.checksums) == set(parameters)
    return [update for _, update in received]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("num_receivers", [1, 3])
@pytest.mark.parametrize("backend", [b for b in SyncBackend if b is not SyncBackend.auto])
def test_all_arrives_again_and_again(backend, num_receivers, dtype, tmp_path: Path):
    parameters = some_parameters()

    def scenario(channels):
        ends = make_ends(backend, channels, parameters, tmp_path, wire_dtype=dtype)
        for serial in range(1, 5):
            updates = assert_arrived(ends, parameters, serial, dtype)
            assert all(update.num_bytes > 0 for update in updates) or backend is SyncBackend.delta
            parameters["large"][serial, 2] += 1.0
            parameters["norm"][0] = torch.nan if serial == 2 else -0.0

    if backend is SyncBackend.disk:
        scenario([None] * (1 + num_receivers))
    else:
        with open_channels(num_receivers) as channels:
            scenario(channels)


def test_a_delta_sends_what_changed_and_reports_its_share(tmp_path: Path):
    parameters = {"a": torch.arange(100.0), "b": torch.arange(60.0)}
    with open_channels(2) as channels:
        ends = make_ends(SyncBackend.delta, channels, parameters, tmp_path, bucket_bytes=400)
        first = assert_arrived(ends, parameters, 1, torch.float32)
        assert [(u.num_bytes, u.changed_share) for u in first] == [(640, None)] * 2
        parameters["a"][[3, 50, 99]] += 1
        few = assert_arrived(ends, parameters, 2, torch.float32)
        assert [(u.num_bytes, u.changed_share) for u in few] == [(3 * 8, 3 / 160)] * 2
        parameters["a"] += 1  # the whole of one bucket, and one element of the other
        parameters["b"][0] = -7
        many = assert_arrived(ends, parameters, 3, torch.float32)
        assert [(u.num_bytes, u.changed_share) for u in many] == [(400 + 8, 101 / 160)] * 2
        same = assert_arrived(ends, parameters, 4, torch.float32)
        assert [(u.num_bytes, u.changed_share) for u in same] == [(0, 0.0)] * 2
        whole = assert_arrived(ends, parameters, 5, torch.float32, full=True)
        assert [u.num_bytes for u in whole] == [640] * 2


def test_a_delta_is_whole_every_so_often(tmp_path: Path):
    parameters = {"a": torch.arange(100.0)}
    with open_channels(1) as channels:
        ends = make_ends(SyncBackend.delta, channels, parameters, tmp_path)
        ends.publisher.attach(DeltaSender(channels[0], ends.publisher.manifest, full_every=3), torch.device("cpu"))
        sizes = [assert_arrived(ends, parameters, serial, torch.float32)[0].num_bytes for serial in range(1, 8)]
        assert sizes == [400, 0, 0, 400, 0, 0, 400]


def test_a_receiver_that_missed_an_update_refuses_changes_over_it(tmp_path: Path):
    parameters = {"a": torch.arange(100.0)}
    with open_channels(2) as channels:
        ends = make_ends(SyncBackend.delta, channels, parameters, tmp_path)
        assert_arrived(ends, parameters, 1, torch.float32)
        ends.subscribers[1]._receiver._base = 0  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(SyncError, match="attempt 2 over 1 was sent, attempt 2 was asked for, and 0 is held here"):
            ends.update(order(2))


@pytest.mark.parametrize("backend", OVER_CHANNEL)
def test_a_receiver_that_leaves_fails_the_others_at_once_and_a_new_channel_works(backend, tmp_path: Path):
    parameters = {f"p{i}": torch.full((1 << 18,), float(i)) for i in range(8)}
    with open_channels(2, timeout_s=30) as channels:
        ends = make_ends(backend, channels, parameters, tmp_path, bucket_bytes=1 << 20)

        def leave():
            stream = ends.subscribers[1].receive(order(1))
            next(stream)
            ends.subscribers[1].abandon()

        def stay():
            return dict(ends.subscribers[0].receive(order(1)))

        started = time.monotonic()
        sent, received, left = together([lambda: ends.publisher.publish(order(1)), stay, leave])
        assert time.monotonic() - started < 15, "somebody waited for the time-out of 30 s"
        assert left is None
        assert isinstance(sent, SyncError) or isinstance(received, SyncError)
        for error in (sent, received):
            if isinstance(error, SyncError):
                assert "weight sync, rank" in str(error) and "ing bucket" in str(error)
    with open_channels(2, generation=1) as channels:
        again = make_ends(backend, channels, parameters, tmp_path, bucket_bytes=1 << 20)
        assert_arrived(again, parameters, 2, torch.float32, full=True)


@pytest.mark.parametrize("backend", OVER_CHANNEL)
def test_a_sender_that_never_sends_is_told_by_phase_and_rank(backend, tmp_path: Path):
    parameters = some_parameters()
    with open_channels(1, timeout_s=0.5) as channels:
        ends = make_ends(backend, channels, parameters, tmp_path)
        with pytest.raises(SyncError, match=r"rank 1 of 2, receiving bucket 0 of \d+ \(from embedding\)"):
            next(ends.subscribers[0].receive(order(1)))


def test_what_each_rank_does_can_be_asked_meanwhile(tmp_path: Path):
    parameters = some_parameters()
    with open_channels(1) as channels:
        ends = make_ends(SyncBackend.broadcast, channels, parameters, tmp_path)
        assert read_phases(channels[0]._endpoint) == {0: "idle", 1: "idle"}
        stream, asked = ends.subscribers[0].receive(order(1)), threading.Event()

        def receive():
            next(stream)
            asked.wait(10)
            return dict(stream)

        def ask():
            while "bucket 0" not in (phases := read_phases(channels[0]._endpoint))[1]:
                pass
            asked.set()
            return phases

        _, received, phases = together([lambda: ends.publisher.publish(order(1)), receive, ask])
        assert phases[1].startswith("receiving bucket 0 of ") and len(received) > 1
        assert read_phases(channels[0]._endpoint) == {0: "idle", 1: "idle"}


def test_those_who_do_not_come_are_not_waited_for():
    from grpo.sync.channel import Channel, Endpoint, serve_store

    store = serve_store("127.0.0.1", 0.5)
    endpoint = Endpoint(host="127.0.0.1", port=store.port, world_size=2, timeout_s=0.5)
    with pytest.raises(SyncError, match=r"rank 0 of the weight channel could not join 127.0.0.1:\d+ within"):
        Channel(endpoint, 0, torch.device("cpu"), local_host="127.0.0.1", store=store)
