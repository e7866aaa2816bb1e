"""Files of an update: whole or not there, old ones removed, what is missing or torn named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from grpo.config import RunConfig, SyncBackend, SyncConfig
from grpo.errors import ConfigError, SyncError
from grpo.sync.disk import check_directory, remove_updates, sync_directory
from tests.unit.sync.ranks import Ends, make_ends, order


def ends_in(directory: Path) -> Ends:
    parameters = {"a": torch.arange(8.0), "b": torch.arange(20.0)}
    return make_ends(SyncBackend.disk, [None, None], parameters, directory, bucket_bytes=64)


def test_only_the_newest_update_stays(tmp_path: Path):
    ends = ends_in(tmp_path)
    for serial in (1, 2, 3):
        ends.update(order(serial))
        assert [path.name for path in tmp_path.iterdir()] == [f"update_{serial:06d}"]
    assert len(list((tmp_path / "update_000003").iterdir())) == 2
    (tmp_path / ".update_000004.incomplete").mkdir()
    remove_updates(tmp_path)
    assert not tmp_path.exists()


def test_what_is_written_is_read_only_when_it_is_whole(tmp_path: Path):
    ends = ends_in(tmp_path)
    sender = ends.publisher._sender
    assert sender is not None
    sender.begin(order(1))
    sender.send(0, torch.arange(8.0))
    with pytest.raises(SyncError, match=r"reading bucket 0 of 2 .*on a file system that learners and engines share"):
        next(ends.subscribers[0].receive(order(1)))
    sender.abandon()
    assert list(tmp_path.iterdir()) == []


def test_a_torn_file_is_named(tmp_path: Path):
    ends = ends_in(tmp_path)
    ends.update(order(1))
    file = tmp_path / "update_000001" / "bucket_00001.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    stream = ends.subscribers[0].receive(order(1))
    next(stream)
    with pytest.raises(SyncError, match=r"rank 1, reading bucket 1 of 2 \(from b\): .*bucket_00001.safetensors can't"):
        next(stream)


def test_a_full_disk_or_a_lost_directory_is_a_sync_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SyncError, match="learner rank 0, making the directory"):
        ends_in(tmp_path / "file").publisher.publish(order(1))


def test_two_runs_in_one_directory_keep_apart(tmp_path: Path):
    config = RunConfig(sync=SyncConfig(backend=SyncBackend.disk, directory=str(tmp_path)))
    first, second = (sync_directory(config, Path(f"/runs/{name}")) for name in "ab")
    assert first.parent == second.parent == tmp_path and first != second
    assert sync_directory(RunConfig(), tmp_path / "run") == tmp_path / "run" / ".sync"


def test_a_directory_that_cannot_be_written_is_refused_before_anything_starts(tmp_path: Path):
    (tmp_path / "file").write_text("")
    config = RunConfig(sync=SyncConfig(backend=SyncBackend.disk, directory=str(tmp_path / "file" / "below")))
    with pytest.raises(ConfigError, match=r"sync.directory='.*': can't be written \(.*\)\. Name a directory"):
        check_directory(config)
    config.sync.directory = str(tmp_path / "made")
    check_directory(config)
    assert list((tmp_path / "made").iterdir()) == []
