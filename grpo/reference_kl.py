"""The KL penalty that goes into the reward: how far each completion is from the reference, before any advantage.

log pi_b - log pi_ref of the sampled tokens, summed over a completion, is the k1 estimator of its KL; see
grpo/kernels/kl.py for why it belongs into the reward and not into the loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from grpo.packing import MicroBatchPlan, pack, plan_micro_batches
from grpo.records import FloatArray, Group, MicroBatch, TrainSequence


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferencePass:
    """What the reference is asked for.

    Attributes:
        batches: for every rank its micro-batches; all completions' tokens are loss tokens, a filler has none.
        plans: which completions they hold, in the order of all groups' completions.
        sequences: those completions.
    """

    batches: list[list[MicroBatch]]
    plans: list[list[MicroBatchPlan]]
    sequences: list[TrainSequence]


def plan_reference_pass(groups: Sequence[Group], *, num_ranks: int, max_tokens: int) -> ReferencePass:
    """Micro-batches of all completions, for every rank as many.

    Args:
        num_ranks: learner ranks.
        max_tokens: packed tokens of one micro-batch.
    """
    sequences = [TrainSequence.of(group.prompt, c, advantage=0.0) for group in groups for c in group.completions]
    plans = plan_micro_batches(sequences, num_ranks=num_ranks, max_tokens=max_tokens)

    def build(plan: MicroBatchPlan) -> MicroBatch:
        weight = 0.0 if plan.filler else 1.0
        bundles = [[sequences[i] for i in bundle] for bundle in plan.bundles]
        return pack(bundles, [[weight] * len(bundle) for bundle in bundles])

    batches = [[build(plan) for plan in rank] for rank in plans]
    return ReferencePass(batches=batches, plans=plans, sequences=sequences)


def kl_penalties(
    asked: ReferencePass, logprobs: Sequence[Sequence[FloatArray]], *, group_size: int
) -> list[list[float]]:
    """Sum over each completion's tokens of log pi_b - log pi_ref, nats, [P][G].

    Args:
        logprobs: reference logprobs, [L] for every micro-batch of every rank.
        group_size: G.
    """
    found = [0.0] * len(asked.sequences)
    for plan, batch in zip(chain(*asked.plans), chain(*logprobs), strict=True):
        if plan.filler:
            continue
        indices = [i for bundle in plan.bundles for i in bundle]
        ends = np.cumsum([asked.sequences[i].num_loss_tokens for i in indices])
        for index, reference in zip(indices, np.split(batch, ends[:-1]), strict=True):
            difference = asked.sequences[index].behavior_logprobs.astype(np.float64) - reference
            found[index] = float(difference.sum())
    return [found[start : start + group_size] for start in range(0, len(found), group_size)]
