"""A large source in blocks of rows, one in memory at a time.

Files of JSON lines, Parquet files and saved datasets can be entered anywhere: their blocks may be read
in any order. Compressed files and hub datasets can only be read on from where one stands.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from grpo.config import DataConfig
from grpo.data.files import (
    Located,
    check_file,
    data_files,
    first_line,
    is_saved_dataset,
    load_saved_dataset,
    parse_line,
    read_path,
)
from grpo.data.generated import GENERATED
from grpo.data.hub import stream_hub
from grpo.data.rows import local_path
from grpo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


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


class Shard(Protocol):
    """One file that can be entered at the start of any block."""

    path: Path

    @property
    def num_rows(self) -> int:
        """Rows of it."""
        ...

    def rows(self, start: int, stop: int) -> Iterator[Located]:
        """Rows `start` up to, not including, `stop`; `start` is a multiple of the block size."""
        ...


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


def open_shard(file: Path, block_size: int) -> Shard:
    """A file of JSON lines or a Parquet file. Reads the first one once, to learn where its blocks begin."""
    return ParquetShard(file) if file.suffix == ".parquet" else JsonLinesShard(file, block_size)


class JsonLinesShard:
    """A file of JSON lines; rows are lines, blank ones too, which come to nothing."""

    def __init__(self, path: Path, block_size: int) -> None:
        self.path, self.num_rows = path, 0
        self._block_size = block_size
        self._offsets: list[int] = []
        position = 0
        with path.open("rb") as lines:
            for line in lines:
                if self.num_rows % block_size == 0:
                    self._offsets.append(position)
                position += len(line)
                self.num_rows += 1

    def rows(self, start: int, stop: int) -> Iterator[Located]:
        """As `Shard`."""
        with self.path.open("rb") as lines:
            lines.seek(self._offsets[start // self._block_size])
            for number, line in enumerate(itertools.islice(lines, stop - start), start=start + 1):
                if line.strip():
                    yield f"{self.path}:{number}", parse_line(line)


class ParquetShard:
    """A Parquet file; its row groups are entered by the counts in its footer."""

    def __init__(self, path: Path) -> None:
        import pyarrow
        import pyarrow.parquet

        self.path = path
        try:
            metadata = pyarrow.parquet.read_metadata(path)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({first_line(error)})") from error
        self.num_rows: int = metadata.num_rows
        self._groups = [metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)]

    def rows(self, start: int, stop: int) -> Iterator[Located]:
        """As `Shard`. Decodes from the beginning of the row group, keeps what is asked for."""
        import pyarrow
        import pyarrow.parquet

        starts = [0, *itertools.accumulate(self._groups)]
        wanted = [g for g, count in enumerate(self._groups) if starts[g] < stop and starts[g] + count > start]
        position = starts[wanted[0]] if wanted else 0
        try:
            with pyarrow.parquet.ParquetFile(self.path) as file:
                for batch in file.iter_batches(batch_size=1024, row_groups=wanted):
                    first, last = max(start - position, 0), min(stop - position, len(batch))
                    if first < last:
                        for index, row in enumerate(batch.slice(first, last - first).to_pylist(), start=first):
                            yield f"{self.path}: row {position + index}", row
                    position += len(batch)
                    if position >= stop:
                        return
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{self.path}: not a readable Parquet file ({first_line(error)})") from error


@dataclass(slots=True)
class ArrowShard:
    """A dataset in the library's own format, mapped into memory."""

    path: Path
    dataset: Dataset

    @property
    def num_rows(self) -> int:
        """Rows of it."""
        return len(self.dataset)

    def rows(self, start: int, stop: int) -> Iterator[Located]:
        """As `Shard`."""
        for index, row in enumerate(self.dataset.select(range(start, stop)), start=start):
            yield f"{self.path}: row {index}", row


def _digest(parts: Sequence[object]) -> str:
    return hashlib.sha256(repr([str(part) for part in parts]).encode("utf-8", "surrogatepass")).hexdigest()[:16]
