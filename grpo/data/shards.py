"""One file of a large source, entered at the start of any block of rows."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from grpo.data.files import Located, first_line, parse_line
from grpo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


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
