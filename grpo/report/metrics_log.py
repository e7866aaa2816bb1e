"""Metrics of every step: one JSON object a line, mirrored to TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from grpo.errors import DataError


class MetricsLog:
    """Appends the metrics of each step to `path` and to TensorBoard event files.

    Args:
        path: metrics.jsonl; lines already there (of a resumed run) are kept and appear in `history`.
        tensorboard_dir: where the event files go.

    Attributes:
        history: metrics of all steps so far, oldest first, those of a resumed run included.
    """

    def __init__(self, path: Path, tensorboard_dir: Path) -> None:
        # Imported late: torch takes seconds to load, and who only reads metrics needs none of it.
        from torch.utils.tensorboard.writer import SummaryWriter

        _drop_torn_tail(path)
        self.history: list[dict[str, float]] = read_metrics(path) if path.exists() else []
        self._file = path.open("a", encoding="utf-8")
        # After a resume TensorBoard must forget the points of the steps that are run again.
        purge = int(self.history[-1]["step"]) + 1 if self.history else 0
        self._tensorboard = SummaryWriter(str(tensorboard_dir), purge_step=purge)  # type: ignore[no-untyped-call]

    def append(self, step: int, policy_version: int, metrics: Mapping[str, float]) -> None:
        """Write one step and flush it. NaN and infinities become null in JSON and stay what they are in TensorBoard."""
        values = {name: float(value) for name, value in metrics.items()}
        row = {name: value if math.isfinite(value) else None for name, value in values.items()}
        line = json.dumps({"step": step, "policy_version": policy_version, **row}, allow_nan=False)
        self._file.write(line + "\n")
        self._file.flush()
        for name, value in values.items():
            self._tensorboard.add_scalar(name, value, step)  # pyright: ignore[reportUnknownMemberType]
        self._tensorboard.flush()
        self.history.append({"step": step, "policy_version": policy_version, **values})

    def close(self) -> None:
        """Close both files. May be called twice."""
        self._file.close()
        self._tensorboard.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Metrics of all steps in the file, oldest first; null reads as NaN. A torn last line is left out.

    Raises:
        DataError: a line before the last is not a JSON object with a step.
    """
    rows: list[dict[str, float]] = []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            row = cast("dict[str, Any]", json.loads(line))
            rows.append({"step": int(row["step"]), **{k: _number(v) for k, v in row.items() if k != "step"}})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            if number < len(lines):
                raise DataError(f"{path}:{number}: not a metrics line. Remove the line and try again.") from error
    return rows


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _drop_torn_tail(path: Path) -> None:
    """Cut a last line without its line end, or the next step would be glued to it."""
    if not path.exists():
        return
    written = path.read_bytes()
    whole = written.rfind(b"\n") + 1
    if whole < len(written):
        with path.open("r+b") as file:
            file.truncate(whole)
