"""Rows of token ids in batches of similar length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
R = TypeVar("R")


def token_batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Indices of the rows of each batch; rows of similar length stand together, the longest first.

    A batch has at most `max_tokens` tokens, padding included, or is a single row.

    Args:
        lengths: tokens of each row.
        max_tokens: of one batch.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda row: (-lengths[row], row)):
        # The batch's first row is its longest.
        if batches and lengths[batches[-1][0]] * (len(batches[-1]) + 1) <= max_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


def run_in_batches(
    rows: Sequence[T], length: Callable[[T], int], max_tokens: int, forward: Callable[[list[T]], Sequence[R]]
) -> list[R]:
    """`forward` of all rows, batch by batch; results in the order of `rows`.

    A batch that does not fit into the GPU's memory is halved. A single row that does not raises torch's
    OutOfMemoryError.
    """
    import torch

    results: dict[int, R] = {}
    waiting = token_batches([length(row) for row in rows], max_tokens)
    while waiting:
        batch = waiting.pop()
        try:
            found = forward([rows[index] for index in batch])
        except torch.OutOfMemoryError:
            if len(batch) == 1:
                raise
            torch.cuda.empty_cache()
            waiting += [batch[: len(batch) // 2], batch[len(batch) // 2 :]]
            continue
        results.update(zip(batch, found, strict=True))
    return [results[index] for index in range(len(rows))]


def pad_right(rows: Sequence[Sequence[int]], pad_id: int, device: str) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, [B, T] each; a row's tokens come first."""
    return _pad(rows, pad_id, device, is_left=False)


def pad_left(rows: Sequence[Sequence[int]], pad_id: int, device: str) -> tuple[Tensor, Tensor]:
    """Ids and attention mask, [B, T] each; a row's tokens come last."""
    return _pad(rows, pad_id, device, is_left=True)


def unused_id(rows: Sequence[Sequence[int]], vocab_size: int) -> int | None:
    """The first id below `vocab_size` that no row contains; None if they contain all."""
    used = {token for row in rows for token in row}
    return next((token for token in range(vocab_size) if token not in used), None)


def as_floats(values: Tensor) -> list[float]:
    """The numbers of a vector."""
    return [float(value) for value in values.float().cpu().numpy()]


def _pad(rows: Sequence[Sequence[int]], pad_id: int, device: str, *, is_left: bool) -> tuple[Tensor, Tensor]:
    import torch

    width = max(len(row) for row in rows)
    ids, mask = torch.full((len(rows), width), pad_id), torch.zeros(len(rows), width, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(width - len(row), width) if is_left else slice(0, len(row))
        ids[number, place], mask[number, place] = torch.tensor(row), 1
    return ids.to(device), mask.to(device)
