"""What became of the rows of a source: kept, left out, malformed; and when there are too many of the last."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from grpo.config import DataConfig
from grpo.data.fields import LeftOut, Row, is_content_id
from grpo.errors import DataError

#: Rows over which the share of malformed ones is judged while there may be more to come.
PATIENCE = 1000
_NUM_EXAMPLES = 3
REPEATED = "the same row twice"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """What became of the rows of one source.

    Attributes:
        source: `data.path`.
        num_rows: rows read; with data.limit, those up to the last one kept.
        num_kept: tasks or pairs made of them.
        left_out: number of sound rows that were left out, by reason.
        num_malformed: rows that could not be read, ids that were taken already included.
        examples: the first few of them, each with its place.
        is_whole: the source was read to its end, or as far as data.limit goes; False for a stream on its way.
    """

    source: str
    num_rows: int
    num_kept: int
    left_out: Mapping[str, int]
    num_malformed: int
    examples: tuple[str, ...]
    is_whole: bool

    def lines(self) -> list[str]:
        """What a user should be told, one line each; nothing where every row became a task."""
        if self.num_kept == self.num_rows:
            return []
        said = [f"{count} left out ({reason})" for reason, count in self.left_out.items()]
        said += [f"{self.num_malformed} malformed"] if self.num_malformed else []
        so_far = "" if self.is_whole else " so far"
        head = f"{self.source}: {self.num_kept} tasks of {self.num_rows} rows{so_far}"
        more = self.num_malformed - len(self.examples)
        return [": ".join([head, ", ".join(said)]), *self.examples, *([f"... and {more} more"] if more > 0 else [])]


class Tally:
    """Counts rows as they are read. Only `row` is entered for each; what is raised inside decides what it counts as."""

    def __init__(self, config: DataConfig) -> None:
        self._path, self._max_share = config.path, config.max_malformed_share
        self._seen: dict[str, str] = {}
        self._num_rows = self._num_kept = self._num_malformed = 0
        self._left_out: Counter[str] = Counter()
        self._examples: list[str] = []
        self._is_whole = False

    @contextmanager
    def row(self, where: str) -> Iterator[None]:
        """One row: a `DataError` inside makes it malformed, `LeftOut` leaves it out, and neither leaves this block.

        Raises:
            DataError: too many are malformed, over at least `PATIENCE` rows.
        """
        self._num_rows += 1
        try:
            yield
        except LeftOut as reason:
            self._left_out[str(reason)] += 1
        except DataError as error:
            self._num_malformed += 1
            if len(self._examples) < _NUM_EXAMPLES:
                self._examples.append(f"{where}: {error}")
            if self._num_malformed > self._max_share * max(PATIENCE, self._num_rows):
                raise self._too_many() from error.__cause__
        else:
            self._num_kept += 1

    def claim(self, task_id: str, where: str) -> None:
        """Note an id.

        Raises:
            DataError: it is taken.
            LeftOut: it is taken, by a row that says the same.
        """
        taken = self._seen.setdefault(task_id, where)
        if taken is not where:
            raise (
                LeftOut(REPEATED)
                if is_content_id(task_id)
                else DataError(f"id {task_id!r} is taken already, at {taken}")
            )

    def forget(self) -> None:
        """Drop the ids noted: those of a stream would fill the memory."""
        self._seen.clear()

    def finish(self) -> None:
        """The source is at its end.

        Raises:
            DataError: it holds no rows, too many malformed ones, or no task.
        """
        self._is_whole = True
        if not self._num_rows:
            raise DataError(f"data.path={self._path!r}: it holds no rows")
        if self._num_malformed > self._max_share * self._num_rows:
            raise self._too_many()
        if not self._num_kept:
            reasons = [f"{count} of {self._num_rows} rows ({reason})" for reason, count in self._left_out.items()]
            reasons += [f"{self._num_malformed} malformed, {self._examples[0]}"] if self._num_malformed else []
            raise DataError(f"data.path={self._path!r}: no task is left. Left out: {', '.join(reasons)}")

    def report(self) -> LoadReport:
        """The counts so far."""
        return LoadReport(
            source=self._path,
            num_rows=self._num_rows,
            num_kept=self._num_kept,
            left_out=dict(self._left_out),
            num_malformed=self._num_malformed,
            examples=tuple(self._examples),
            is_whole=self._is_whole,
        )

    def _too_many(self) -> DataError:
        first, *others = self._examples
        also = f"; also {'; '.join(others)}" if others else ""
        count = f"{self._num_malformed} of {self._num_rows} rows{'' if self._is_whole else ' read so far'}"
        return DataError(f"{first}{also} ({count} malformed; data.max_malformed_share={self._max_share})")


def require_row(row: object) -> Row:
    """The row as fields.

    Raises:
        DataError: it is none, or its line could not be read.
    """
    if isinstance(row, DataError):
        raise row
    if not isinstance(row, Mapping):
        raise DataError(f"expected an object with fields, found {type(row).__name__}")
    return cast(Row, row)
