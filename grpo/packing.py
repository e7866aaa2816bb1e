"""From sequences to packed micro-batches: who computes what, in pieces that fit.

Completions of one prompt travel together as a bundle, so that the prompt's tokens are computed once:
G * (P + T) tokens become P + G * T.
"""

# torch leaves some of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from grpo.records import MicroBatch, TrainSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class MicroBatchPlan:
    """Which sequences one micro-batch holds.

    Attributes:
        bundles: indices into the step's list of sequences; those of one bundle share their prompt.
        num_tokens: packed tokens.
        filler: computed only because every rank must make the same number of passes; its loss weights are 0.
    """

    bundles: tuple[tuple[int, ...], ...]
    num_tokens: int
    filler: bool = False


@dataclass(frozen=True, slots=True)
class _Bundle:
    indices: tuple[int, ...]
    num_tokens: int


def plan_micro_batches(
    sequences: Sequence[TrainSequence], *, num_ranks: int, max_tokens: int
) -> list[list[MicroBatchPlan]]:
    """Spread sequences over ranks and micro-batches, the same number of micro-batches on each rank.

    Largest bundle first into the bin with the fewest tokens (LPT), with as few bins as fit `max_tokens`.

    Args:
        sequences: none longer than `max_tokens`.
        num_ranks: learner ranks.
        max_tokens: packed tokens of one micro-batch.

    Returns:
        For every rank its list of micro-batches. Every sequence is in exactly one that is not a filler.

    Raises:
        ValueError: there is no sequence, or one is longer than `max_tokens`.
    """
    longest = max((len(s.token_ids) for s in sequences), default=0)
    if not 0 < longest <= max_tokens:
        raise ValueError(f"{len(sequences)} sequences, the longest of {longest} tokens, max_tokens={max_tokens}")
    # No bundle is larger than one rank's share, or the ranks could not be balanced.
    total = sum(b.num_tokens for b in _bundles(sequences, max_tokens))
    bundles = sorted(_bundles(sequences, min(max_tokens, -(-total // num_ranks))), key=lambda b: -b.num_tokens)
    per_rank = max(1, -(-total // (num_ranks * max_tokens)))
    while (bins := _fill_bins(bundles, num_ranks * per_rank, max_tokens)) is None:
        per_rank += 1
    plans = [
        MicroBatchPlan(bundles=tuple(b.indices for b in content), num_tokens=sum(b.num_tokens for b in content))
        for content in bins
        if content
    ]
    plans.sort(key=lambda plan: -plan.num_tokens)
    shortest = min(range(len(sequences)), key=lambda index: len(sequences[index].token_ids))
    filler = MicroBatchPlan(bundles=((shortest,),), num_tokens=len(sequences[shortest].token_ids), filler=True)
    plans += [filler] * (num_ranks * per_rank - len(plans))
    return _deal(plans, num_ranks)


def _deal(plans: list[MicroBatchPlan], num_ranks: int) -> list[list[MicroBatchPlan]]:
    """Deal plans, largest first, in a snake, so that no rank gets all the large ones."""
    ranks: list[list[MicroBatchPlan]] = [[] for _ in range(num_ranks)]
    for turn, start in enumerate(range(0, len(plans), num_ranks)):
        row = plans[start : start + num_ranks]
        for rank, plan in enumerate(row if turn % 2 == 0 else reversed(row)):
            ranks[rank].append(plan)
    return ranks


def _bundles(sequences: Sequence[TrainSequence], max_tokens: int) -> list[_Bundle]:
    """Sequences by prompt, cut where a bundle would exceed `max_tokens` (a single sequence may)."""
    by_prompt: dict[int, list[int]] = {}
    for index, sequence in enumerate(sequences):
        by_prompt.setdefault(sequence.prompt_uid, []).append(index)
    bundles: list[_Bundle] = []
    for indices in by_prompt.values():
        prompt = sequences[indices[0]].num_prompt_tokens
        members: list[int] = []
        size = prompt
        for index in indices:
            added = sequences[index].num_loss_tokens
            if members and size + added > max_tokens:
                bundles.append(_Bundle(tuple(members), size))
                members, size = [], prompt
            members.append(index)
            size += added
        bundles.append(_Bundle(tuple(members), size))
    return bundles


def _fill_bins(bundles: list[_Bundle], num_bins: int, max_tokens: int) -> list[list[_Bundle]] | None:
    """Least-loaded-first filling, or None where a bundle no longer fits."""
    bins: list[list[_Bundle]] = [[] for _ in range(num_bins)]
    loads = [0] * num_bins
    for bundle in bundles:
        target = loads.index(min(loads))
        if loads[target] + bundle.num_tokens > max_tokens:
            return None
        bins[target].append(bundle)
        loads[target] += bundle.num_tokens
    return bins


def pack(bundles: Sequence[Sequence[TrainSequence]], token_weights: Sequence[Sequence[float]]) -> MicroBatch:
    """Lay bundles out one after another: a shared prompt, then its completions, without padding.

    Args:
        bundles: sequences with the same prompt tokens, for each bundle.
        token_weights: loss weight of each sequence's completion tokens, in the same nesting.
    """
    tokens: list[npt.NDArray[np.int64]] = []
    positions: list[npt.NDArray[np.int64]] = []
    predictors: list[npt.NDArray[np.int64]] = []
    start = 0
    for bundle in bundles:
        prompt_length = bundle[0].num_prompt_tokens
        tokens.append(bundle[0].token_ids[:prompt_length])
        positions.append(np.arange(prompt_length))
        last_of_prompt = start + prompt_length - 1
        start += prompt_length
        for sequence in bundle:
            assert sequence.num_prompt_tokens == prompt_length
            length = sequence.num_loss_tokens
            tokens.append(_completion(sequence))
            positions.append(np.arange(prompt_length, prompt_length + length))
            predictors.append(np.concatenate([[last_of_prompt], np.arange(start, start + length - 1)])[:length])
            start += length
    flat = [s for bundle in bundles for s in bundle]
    weights = [w for bundle in token_weights for w in bundle]
    # What has no weight never reaches the output head: neither its cost nor its NaN.
    counts = [s.num_loss_tokens if w else 0 for s, w in zip(flat, weights, strict=True)]
    predictors = [p[:n] for p, n in zip(predictors, counts, strict=True)]
    return MicroBatch(
        token_ids=_int64(np.concatenate(tokens)),
        position_ids=_int64(np.concatenate(positions)),
        bundles=tuple((b[0].num_prompt_tokens, tuple(s.num_loss_tokens for s in b)) for b in bundles),
        loss_positions=_int64(np.concatenate(predictors)),
        targets=_int64(np.concatenate([_completion(s)[:n] for s, n in zip(flat, counts, strict=True)])),
        behavior_logprobs=_float32(
            np.concatenate([s.behavior_logprobs[:n] for s, n in zip(flat, counts, strict=True)])
        ),
        advantages=_float32(np.repeat([s.advantage for s in flat], counts)),
        loss_weights=_float32(np.repeat(weights, counts)),
        sequence_index=_int64(np.repeat(np.arange(len(flat)), counts)),
    )


def _completion(sequence: TrainSequence) -> npt.NDArray[np.int64]:
    return sequence.token_ids[sequence.num_prompt_tokens :]


def _int64(array: npt.NDArray[np.int64]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64))


def _float32(array: npt.NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
