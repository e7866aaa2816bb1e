"""From verdicts to advantages to the sequences of a step. Computed once, before the learner sees anything."""

# torch leaves some of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from grpo.config import AdvantageKind, AlgorithmConfig
from grpo.kernels.advantages import group_advantages
from grpo.kernels.reduce import sequence_token_weights
from grpo.packing import MicroBatchPlan, pack, plan_micro_batches
from grpo.records import FinishReason, Group, MicroBatch, ScoredGroup, StepDenominator, TrainSequence
from rewards.base import Verdict
from rewards.mixture import weighted_sum


def score_group(
    group: Group, verdicts: Mapping[str, tuple[Verdict, ...]], weights: Mapping[str, float], config: AlgorithmConfig
) -> ScoredGroup:
    """Mix the terms' verdicts into rewards and make them relative to the group.

    Args:
        verdicts: [G] of each term.
        weights: raw weight of each term; 0 means logged but not trained.
    """
    rewards = np.asarray(weighted_sum(verdicts, weights), dtype=np.float32)
    as_tensor = torch.from_numpy(rewards)[None]
    advantages = group_advantages(
        as_tensor,
        torch.isfinite(as_tensor),
        divide_by_std=config.advantage is AdvantageKind.group_std,
        eps=config.advantage_eps,
    )
    return ScoredGroup(group=group, verdicts=dict(verdicts), rewards=rewards, advantages=advantages[0].numpy())


def train_sequences(groups: Sequence[ScoredGroup]) -> list[TrainSequence]:
    """Every completion of every group, joined to its prompt."""
    return [
        TrainSequence(
            token_ids=np.concatenate([scored.group.prompt.token_ids, completion.token_ids]),
            num_prompt_tokens=len(scored.group.prompt.token_ids),
            behavior_logprobs=completion.behavior_logprobs,
            advantage=float(advantage),
            prompt_uid=scored.group.prompt.uid,
        )
        for scored in groups
        for completion, advantage in zip(scored.group.completions, scored.advantages, strict=True)
    ]


def loss_token_counts(groups: Sequence[ScoredGroup], *, mask_truncated: bool) -> list[int]:
    """Loss tokens of every completion: 0 where its reward failed, or it was cut off and `mask_truncated` is set."""
    counts: list[int] = []
    for scored in groups:
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True):
            masked = mask_truncated and completion.finish_reason is not FinishReason.STOP
            counts.append(0 if masked or not np.isfinite(reward) else len(completion.token_ids))
    return counts


def step_micro_batches(
    groups: Sequence[ScoredGroup], config: AlgorithmConfig, *, num_ranks: int, max_tokens: int, constant_length: int
) -> list[list[MicroBatch]]:
    """The micro-batches of one optimiser update, for every rank.

    Sequences that can't move the weights (advantage 0 and no KL term) are left out of the passes but stay in the
    denominators, so the gradient is that of the whole batch. Masked ones are in neither.

    Args:
        num_ranks: learner ranks.
        max_tokens: packed tokens of one micro-batch.
        constant_length: divisor of the constant-length aggregation, tokens.
    """
    sequences = train_sequences(groups)
    counts = loss_token_counts(groups, mask_truncated=config.mask_truncated)
    denominator = StepDenominator(
        num_sequences=max(1, sum(1 for c in counts if c)),
        num_tokens=max(1, sum(counts)),
        num_prompts=max(1, len({s.prompt_uid for s, c in zip(sequences, counts, strict=True) if c})),
    )
    weights = sequence_token_weights(
        config.aggregation, counts, [s.prompt_uid for s in sequences], denominator, constant_length=constant_length
    )
    kept = [i for i, s in enumerate(sequences) if weights[i] and (s.advantage or config.kl_coefficient)]
    if not kept:  # no signal at all: one pass with gradient 0, so that the optimiser's state moves on as it should
        kept = [0]
    chosen = [sequences[i] for i in kept]
    plans = plan_micro_batches(chosen, num_ranks=num_ranks, max_tokens=max_tokens)

    def build(plan: MicroBatchPlan) -> MicroBatch:
        scale = 0.0 if plan.filler else 1.0
        return pack(
            [[chosen[i] for i in bundle] for bundle in plan.bundles],
            [[scale * weights[kept[i]] for i in bundle] for bundle in plan.bundles],
        )

    return [[build(plan) for plan in rank] for rank in plans]
