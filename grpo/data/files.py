"""Rows out of local files, each with the place it came from, as file:line or file: row index.

A line that can't be read comes out as the `DataError` that says why, in the row's place: whoever counts malformed rows
decides whether the run goes on. A file that can't be read at all raises.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from grpo.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".parquet")
Located = tuple[str, object]
_SPLIT = re.compile(r"(train|validation|valid|val|dev|test)(?![a-z])")
_NO_DATA = {"dataset_info.json", "dataset_infos.json"}


def read_path(path: Path, split: str) -> Iterator[Located]:
    """Rows of a file, of a directory of files, or of a directory written by `datasets.save_to_disk`.

    Raises:
        DataError: unknown kind of file, no data in the directory, content that can't be taken apart into rows.
    """
    if is_saved_dataset(path):
        return _numbered(path, load_saved_dataset(path, split))
    return itertools.chain.from_iterable(_read_file(file) for file in data_files(path, split))


def is_saved_dataset(path: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote the directory."""
    return path.is_dir() and any((path / name).is_file() for name in ("state.json", "dataset_dict.json"))


def _read_file(path: Path) -> Iterator[Located]:
    check_file(path)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        return _read_jsonl(path)
    return _read_json(path) if path.suffix == ".json" else _read_parquet(path)


def check_file(path: Path) -> None:
    """Raise DataError for a file of an unknown kind, or without content."""
    if not path.name.endswith(SUFFIXES):
        raise DataError(f"{path}: unknown kind of file; data.path takes {', '.join(SUFFIXES)} or a directory")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")


def _read_jsonl(path: Path) -> Iterator[Located]:
    number = 0
    try:
        with path.open("rb") as raw:
            lines = cast("IO[bytes]", gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
            # Bytes, decoded line by line: a wrong byte is reported with its line.
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield f"{path}:{number}", parse_line(line)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path}: broken gzip data after line {number} ({error})") from error


def parse_line(line: bytes) -> object:
    """The row of a line of JSON, or the `DataError` that says why there is none."""
    try:
        return json.loads(line.rstrip().decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        return DataError(f"malformed JSON, {error.msg} at column {error.colno}")
    except UnicodeDecodeError as error:
        return DataError(f"not UTF-8 text ({error.reason} at byte {error.start} of the line)")
    except (ValueError, RecursionError) as error:
        return DataError(f"malformed JSON, {error}")


def _read_json(path: Path) -> Iterator[Located]:
    try:
        rows = json.loads(path.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = ". One object a line? Then name the file .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{error.lineno}: malformed JSON, {error.msg} at column {error.colno}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: malformed JSON, {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: expected one JSON array of objects, found {type(rows).__name__}")
    yield from _numbered(path, cast("list[object]", rows))


def _read_parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    import pyarrow.parquet

    index = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"{path}: row {index}", row
                    index += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({first_line(error)})") from error


def data_files(path: Path, split: str) -> list[Path]:
    """The file itself, or all data files below a directory by name; where names tell splits, only those of `split`.

    Raises:
        DataError: there are none.
    """
    if not path.is_dir():
        return [path]
    inside = (file.relative_to(path) for file in sorted(path.rglob("*")) if file.is_file())
    files = [f for f in inside if f.name.endswith(SUFFIXES) and f.name not in _NO_DATA and not str(f).startswith(".")]
    if not files:
        raise DataError(f"{path}: the directory holds no data ({', '.join(SUFFIXES)})")
    labels = {file: match[1] if (match := _SPLIT.match(file.name)) else None for file in files}
    available = sorted({label for label in labels.values() if label})
    if available and split not in available:
        raise DataError(f"{path}: no files of data.split={split!r}; there are {', '.join(available)}")
    return [path / file for file in files if not available or labels[file] == split]


def load_saved_dataset(path: Path, split: str) -> Dataset:
    """The memory-mapped dataset in a directory that `datasets.save_to_disk` wrote.

    Raises:
        DataError: it can't be read, or has no such split.
    """
    import datasets
    import pyarrow

    try:
        loaded = datasets.load_from_disk(str(path))
    except (OSError, ValueError, KeyError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable saved dataset ({first_line(error)})") from error
    if isinstance(loaded, datasets.DatasetDict):
        if split not in loaded:
            raise DataError(f"{path}: no data.split={split!r}; there are {', '.join(map(str, loaded))}")
        return loaded[split]
    return loaded


def _numbered(path: Path, rows: object) -> Iterator[Located]:
    for index, row in enumerate(cast("list[object]", rows)):
        yield f"{path}: row {index}", row


def first_line(error: BaseException) -> str:
    """What an error says, cut to one line."""
    return (str(error) or type(error).__name__).splitlines()[0]
