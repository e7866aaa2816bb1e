"""Batches under a budget of tokens."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rewards.reward_models.batching import pad_left, pad_right, run_in_batches, token_batches, unused_id

LENGTHS = st.lists(st.integers(1, 40), max_size=30)


@given(LENGTHS, st.integers(1, 100))
def test_every_row_is_in_one_batch_within_the_budget(lengths: list[int], max_tokens: int) -> None:
    batches = token_batches(lengths, max_tokens)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= max_tokens


def test_rows_of_similar_length_stand_together() -> None:
    assert token_batches([1, 9, 2, 8, 1], 18) == [[1, 3], [2, 0, 4]]


@given(LENGTHS, st.integers(1, 100))
def test_results_come_in_the_order_of_the_rows(lengths: list[int], max_tokens: int) -> None:
    assert run_in_batches(lengths, lambda n: n, max_tokens, lambda batch: [n * 2 for n in batch]) == [
        n * 2 for n in lengths
    ]


def test_a_batch_that_does_not_fit_is_halved() -> None:
    sizes: list[int] = []

    def forward(batch: list[int]) -> list[int]:
        sizes.append(len(batch))
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        return batch

    assert run_in_batches(list(range(7)), lambda _: 1, 100, forward) == list(range(7))
    assert sizes[0] == 7
    assert max(sizes[1:]) == 4

    def too_small(batch: list[int]) -> list[int]:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        run_in_batches([1, 2], lambda _: 1, 100, too_small)


def test_padding() -> None:
    ids, mask = pad_right([[5, 6, 7], [8]], 9, "cpu")
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = pad_left([[5, 6, 7], [8]], 9, "cpu")
    assert ids.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]


def test_unused_id() -> None:
    assert unused_id([[0, 1], [3, 1]], 4) == 2
    assert unused_id([[0, 1], [2, 1]], 3) is None
