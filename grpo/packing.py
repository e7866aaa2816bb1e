"""From sequences to packed micro-batches: who computes what, in pieces that fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from grpo.records import MicroBatch, TrainSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchPlan:
    """Which sequences one micro-batch holds.

    Attributes:
        indices: into the step's list of sequences.
        filler: computed only because every rank must make the same number of passes; its loss weights are 0.
    """

    indices: tuple[int, ...]
    filler: bool = False


def plan_micro_batches(lengths: Sequence[int], *, num_ranks: int, max_tokens: int) -> list[list[MicroBatchPlan]]:
    """Spread sequences over ranks and micro-batches, the same number of micro-batches on each rank.

    Longest first into the bin with the least tokens (LPT), with as few bins as fit `max_tokens`.

    Args:
        lengths: tokens of each sequence; none above `max_tokens`.
        num_ranks: learner ranks.
        max_tokens: packed tokens of one micro-batch.

    Returns:
        For every rank its list of micro-batches. Every sequence is in exactly one that is not a filler.

    Raises:
        ValueError: there is no sequence, or one is longer than `max_tokens`.
    """
    if not lengths or max(lengths) > max_tokens:
        raise ValueError(f"{len(lengths)} sequences, longest {max(lengths, default=0)}, max_tokens={max_tokens}")
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    per_rank = max(1, -(-sum(lengths) // (num_ranks * max_tokens)))
    while True:
        bins = _fill_bins(order, lengths, num_ranks * per_rank, max_tokens)
        if bins is not None:
            break
        per_rank += 1
    filler = MicroBatchPlan(indices=(order[-1],), filler=True)
    plans = [MicroBatchPlan(indices=tuple(sorted(b))) if b else filler for b in bins]
    # Deal the bins by size in a snake, so that no rank gets all the large ones.
    plans.sort(key=lambda p: -sum(lengths[i] for i in p.indices) if not p.filler else 1)
    ranks: list[list[MicroBatchPlan]] = [[] for _ in range(num_ranks)]
    for turn in range(per_rank):
        row = plans[turn * num_ranks : (turn + 1) * num_ranks]
        for rank, plan in enumerate(row if turn % 2 == 0 else reversed(row)):
            ranks[rank].append(plan)
    return ranks


def _fill_bins(order: list[int], lengths: Sequence[int], num_bins: int, max_tokens: int) -> list[list[int]] | None:
    """Least-loaded-first filling, or None where a sequence no longer fits."""
    bins: list[list[int]] = [[] for _ in range(num_bins)]
    loads = [0] * num_bins
    for index in order:
        target = loads.index(min(loads))
        if loads[target] + lengths[index] > max_tokens:
            return None
        bins[target].append(index)
        loads[target] += lengths[index]
    return bins


def pack(sequences: Sequence[TrainSequence], token_weights: Sequence[float]) -> MicroBatch:
    """Concatenate sequences into one packed micro-batch, without padding.

    Args:
        sequences: S sequences.
        token_weights: loss weight of each sequence's completion tokens, [S].
    """
    assert len(sequences) == len(token_weights) > 0
    lengths = [len(s.token_ids) for s in sequences]
    starts = np.cumsum([0, *lengths])
    # The hidden state at position t predicts token t + 1: completion token j is predicted at P + j - 1.
    positions = [
        np.arange(start + s.num_prompt_tokens - 1, start + n - 1)
        for s, start, n in zip(sequences, starts, lengths, strict=False)
    ]
    counts = [s.num_loss_tokens for s in sequences]
    return MicroBatch(
        token_ids=_int64(np.concatenate([s.token_ids for s in sequences])),
        position_ids=_int64(np.concatenate([np.arange(n) for n in lengths])),
        cu_seqlens=torch.as_tensor(starts, dtype=torch.int32),
        loss_positions=_int64(np.concatenate(positions)),
        targets=_int64(np.concatenate([s.token_ids[s.num_prompt_tokens :] for s in sequences])),
        behavior_logprobs=_float32(np.concatenate([s.behavior_logprobs for s in sequences])),
        advantages=_float32(np.repeat([s.advantage for s in sequences], counts)),
        loss_weights=_float32(np.repeat(list(token_weights), counts)),
        sequence_index=_int64(np.repeat(np.arange(len(sequences)), counts)),
    )


def _int64(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def _float32(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
