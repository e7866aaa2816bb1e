"""A large source in blocks of rows, one in memory at a time.

Files of JSON lines, Parquet files and saved datasets can be entered anywhere: their blocks may be read
in any order. Compressed files and hub datasets can only be read on from where one stands.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from grpo.config import DataConfig
from grpo.data.files import Located, check_file, data_files, is_saved_dataset, load_saved_dataset, read_path
from grpo.data.generated import GENERATED
from grpo.data.hub import stream_hub
from grpo.data.rows import local_path
from grpo.data.shards import ArrowShard, Shard, open_shard
from grpo.errors import DataError


class Blocks(Protocol):
    """Rows of a source, a block at a time.

    Attributes:
        num_blocks: None where only a whole pass could tell; then blocks are best asked for in order.
        fingerprint: changes with what the source holds, as far as that can be told without reading it all.
    """

    num_blocks: int | None
    fingerprint: str

    def block(self, index: int) -> list[Located]:
        """Rows of one block; empty behind the last."""
        ...


def open_blocks(config: DataConfig) -> Blocks:
    """Blocks of `data.shuffle_buffer` rows. No block reaches over the end of a file.

    Raises:
        DataError: the source is missing, unreadable or of a kind that can't be streamed.
    """
    size = config.shuffle_buffer
    if config.path.startswith(GENERATED):
        raise DataError(f"data.path={config.path!r}: generated tasks can't be streamed. Set data.streaming=false")
    path = local_path(config)
    if path is None:
        return OrderedBlocks(lambda start: stream_hub(config, start), size, [config.path, config.subset, config.split])
    if is_saved_dataset(path):
        return IndexedBlocks([ArrowShard(path, load_saved_dataset(path, config.split))], size)
    files = data_files(path, config.split)
    for file in files:
        check_file(file)
        if file.suffix == ".json":
            raise DataError(f"{file}: an array can't be streamed. Write one object a line, or set data.streaming=false")
    if any(file.suffix == ".gz" for file in files):
        named = [f"{file.name}:{file.stat().st_size}" for file in files]
        return OrderedBlocks(lambda start: itertools.islice(read_path(path, config.split), start, None), size, named)
    return IndexedBlocks([open_shard(file, size) for file in files], size)


class IndexedBlocks:
    """Blocks of files that can be entered anywhere."""

    def __init__(self, shards: Sequence[Shard], size: int) -> None:
        self._blocks = [(shard, start) for shard in shards for start in range(0, shard.num_rows, size)]
        self._size = size
        self.num_blocks: int | None = len(self._blocks)
        self.fingerprint = _digest([size, *(f"{shard.path.name}:{shard.num_rows}" for shard in shards)])

    def block(self, index: int) -> list[Located]:
        """As `Blocks`."""
        if index >= len(self._blocks):
            return []
        shard, start = self._blocks[index]
        return list(shard.rows(start, min(start + self._size, shard.num_rows)))


class OrderedBlocks:
    """Blocks of a source that can only be read on. A block other than the next one costs a pass up to it."""

    def __init__(self, open_at: Callable[[int], Iterator[Located]], size: int, identity: Sequence[object]) -> None:
        """`open_at` gives the rows from a row number on."""
        self._open_at, self._size = open_at, size
        self._rows: Iterator[Located] = iter(())
        self._next = -1
        self.num_blocks: int | None = None
        self.fingerprint = _digest([size, *identity])

    def block(self, index: int) -> list[Located]:
        """As `Blocks`."""
        if index != self._next:
            self._rows = self._open_at(index * self._size)
        self._next = index + 1
        return list(itertools.islice(self._rows, self._size))


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(repr([str(part) for part in parts]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
