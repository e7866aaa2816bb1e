"""From verdicts to advantages to the sequences of a step. Computed once, before the learner sees anything."""

# torch leaves some of its signatures untyped.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from grpo.config import KL_TERM, OVERLONG_TERM, AdvantageKind, AlgorithmConfig, Mixture
from grpo.kernels.advantages import batch_std, group_mean, group_std, leave_one_out, max_rl
from grpo.kernels.mixtures import gdpo, mo_grpo
from grpo.kernels.objective import has_kl_loss, has_kl_reward
from grpo.kernels.overlong import soft_overlong_penalty
from grpo.kernels.reduce import sequence_token_weights
from grpo.packing import MicroBatchPlan, pack, plan_micro_batches
from grpo.records import FinishReason, JudgedGroup, MicroBatch, ScoredGroup, StepDenominator, TrainSequence
from rewards.base import Outcome, Verdict
from rewards.mixture import GATED, TermWeights, gated, has_signal, weighted_sum

#: Verdicts of every term, [G] each.
_Verdicts = Mapping[str, tuple[Verdict, ...]]


def score_groups(
    judged: Sequence[JudgedGroup],
    weights: TermWeights,
    config: AlgorithmConfig,
    *,
    max_new_tokens: int,
    kl_penalties: Sequence[Sequence[float]] | None = None,
) -> list[ScoredGroup]:
    """Rewards and advantages of a whole step, since some kinds compare over all of it.

    Length and the KL to the reference shape a reward and are none: they join as terms "overlong" and "kl", which are
    absent from a completion that no weighted reward term applies to. The rest of the mixture knows no difference, but
    that gdpo and mo_grpo leave the KL in nats (see `standardised_terms`).

    Args:
        judged: groups of one size G; the batch of the batch statistics.
        weights: raw weight of each reward term in each domain, 0 means logged but not trained; and the gates.
        max_new_tokens: longest completion, tokens.
        kl_penalties: with algorithm.kl_in=reward, for every group [G]: the sum over the completion's tokens of
            log pi_b - log pi_ref, nats. One that is not finite fails its completion.

    Returns:
        In the order of `judged`; verdicts as judged, before any gate, and those of the added terms.

    Raises:
        ConfigError: a negative reward with algorithm.advantage=max_rl.
        RewardError: a weighted term without verdicts.
    """
    assert judged and len({len(j.group.completions) for j in judged}) == 1, "groups of one step have one size"
    assert (kl_penalties is not None) == has_kl_reward(config), "algorithm.kl_in=reward goes with KL penalties"
    penalties = kl_penalties if kl_penalties is not None else [None] * len(judged)
    columns = [_columns(one, weights, config, max_new_tokens, own) for one, own in zip(judged, penalties, strict=True)]
    verdicts = [one[0] for one in columns]
    counted = [one[1] for one in columns]
    trained = [one[2] for one in columns]
    mixed = [weighted_sum(v, own) for v, own in zip(counted, trained, strict=True)]
    rewards = torch.tensor(mixed, dtype=torch.float32)
    advantages = _advantages(counted, rewards, trained, config)
    return [
        ScoredGroup(
            group=one.group,
            verdicts=verdicts[row],
            num_gated={name: sum(v.reason == GATED for v in counted[row].get(name, ())) for name in weights.gates},
            rewards=rewards[row].numpy(),
            advantages=advantages[row].numpy(),
            has_signal=has_signal(counted[row], trained[row]),
        )
        for row, one in enumerate(judged)
    ]


def group_has_signal(
    judged: JudgedGroup, weights: TermWeights, config: AlgorithmConfig, *, max_new_tokens: int
) -> bool:
    """Whether any weighted term tells a group's completions apart, as `score_groups` will say, but for the KL."""
    _, counted, trained = _columns(judged, weights, config, max_new_tokens, None)
    return has_signal(counted, trained)


def _columns(
    judged: JudgedGroup,
    weights: TermWeights,
    config: AlgorithmConfig,
    max_new_tokens: int,
    kl_penalties: Sequence[float] | None,
) -> tuple[_Verdicts, _Verdicts, Mapping[str, float]]:
    """(verdicts with those of the shaping terms, the same after the gates, what each of them weighs) of one group."""
    trained = dict(weights.of(judged.group.prompt.task.domain))
    shaping: dict[str, list[float]] = {}
    if config.overlong_share > 0:
        shaping[OVERLONG_TERM] = _overlong(judged, config.overlong_share, max_new_tokens)
    if kl_penalties is not None:
        shaping[KL_TERM] = list(kl_penalties)
    verdicts = _with_shaping(judged.verdicts, trained, shaping)
    shaping_weights = {OVERLONG_TERM: config.overlong_penalty, KL_TERM: -config.kl_coefficient}
    return verdicts, gated(verdicts, weights.gates), trained | {name: shaping_weights[name] for name in shaping}


def _overlong(judged: JudgedGroup, share: float, max_new_tokens: int) -> list[float]:
    lengths = torch.tensor([len(c.token_ids) for c in judged.group.completions])
    buffer = max(1, round(share * max_new_tokens))
    return soft_overlong_penalty(lengths, max_length=max_new_tokens, buffer=buffer).tolist()


def _with_shaping(verdicts: _Verdicts, weights: Mapping[str, float], shaping: Mapping[str, list[float]]) -> _Verdicts:
    """`verdicts` and those of the shaping terms, which are absent where no weighted term applies."""
    columns = [verdicts[name] for name, weight in weights.items() if weight and name in verdicts]
    added: dict[str, tuple[Verdict, ...]] = {}
    for name, values in shaping.items():
        applies = [any(column[i].outcome is not Outcome.ABSENT for column in columns) for i in range(len(values))]
        added[name] = tuple(
            Verdict.valid(value) if shaped else Verdict.absent("no weighted reward term applies")
            for value, shaped in zip(values, applies, strict=True)
        )
    return {**verdicts, **added}


def _advantages(
    verdicts: Sequence[_Verdicts], rewards: Tensor, trained: Sequence[Mapping[str, float]], config: AlgorithmConfig
) -> Tensor:
    """[P, G] float32 from mixed rewards [P, G], or from the terms they are mixed of."""
    valid, eps = torch.isfinite(rewards), config.advantage_eps
    if config.mixture is not Mixture.weighted_sum:
        names = list(dict.fromkeys(name for own in trained for name, weight in own.items() if weight))
        weights = torch.tensor([[own.get(name, 0.0) for own in trained] for name in names], dtype=torch.float64)
        terms = torch.tensor([[_values(v, name) for v in verdicts] for name in names], dtype=torch.float64)
        terms, weights = terms.reshape(len(names), *rewards.shape), weights.reshape(len(names), len(rewards))
        mixture = gdpo if config.mixture is Mixture.gdpo else mo_grpo
        return mixture(
            terms,
            # A verdict's value is finite just where it is valid. A term that a domain only logs takes no part in it.
            torch.isfinite(terms) & valid & (weights != 0)[:, :, None],
            weights,
            [name != KL_TERM for name in names],
            eps=eps,
        )
    match config.advantage:
        case AdvantageKind.group_std:
            return group_std(rewards, valid, eps=eps)
        case AdvantageKind.group_mean:
            return group_mean(rewards, valid)
        case AdvantageKind.batch_std:
            return batch_std(rewards, valid, eps=eps)
        case AdvantageKind.leave_one_out:
            return leave_one_out(rewards, valid)
        case AdvantageKind.max_rl:
            return max_rl(rewards, valid)


def _values(verdicts: _Verdicts, name: str) -> list[float]:
    """Of one term, [G]; NaN where it is not valid or not computed in this domain."""
    size = len(next(iter(verdicts.values())))
    return [one.value for one in verdicts[name]] if name in verdicts else [math.nan] * size


def train_sequences(groups: Sequence[ScoredGroup]) -> list[TrainSequence]:
    """Every completion of every group, joined to its prompt."""
    return [
        TrainSequence.of(scored.group.prompt, completion, advantage=float(advantage))
        for scored in groups
        for completion, advantage in zip(scored.group.completions, scored.advantages, strict=True)
    ]


def loss_token_counts(
    groups: Sequence[ScoredGroup], *, mask_truncated: bool, drop_zero_variance: bool = False
) -> list[int]:
    """Loss tokens of every completion.

    0 where its reward failed or no term applied; where it was cut off and `mask_truncated` is set; and in a group
    without signal where `drop_zero_variance` is set.
    """
    counts: list[int] = []
    for scored in groups:
        dropped = drop_zero_variance and not scored.has_signal
        for completion, reward in zip(scored.group.completions, scored.rewards, strict=True):
            masked = mask_truncated and completion.finish_reason is not FinishReason.STOP
            counts.append(0 if dropped or masked or not np.isfinite(reward) else len(completion.token_ids))
    return counts


def step_micro_batches(
    groups: Sequence[ScoredGroup], config: AlgorithmConfig, *, num_ranks: int, max_tokens: int, constant_length: int
) -> list[list[MicroBatch]]:
    """The micro-batches of one optimiser update, for every rank.

    Sequences that can't move the weights (advantage 0, and no KL or entropy in the loss) are left out of the passes but
    stay in the denominators, so the gradient is that of the whole batch. Those without loss tokens are in neither.

    Args:
        num_ranks: learner ranks.
        max_tokens: packed tokens of one micro-batch.
        constant_length: divisor of the constant-length aggregation, tokens.
    """
    sequences = train_sequences(groups)
    counts = loss_token_counts(
        groups, mask_truncated=config.mask_truncated, drop_zero_variance=config.drop_zero_variance
    )
    denominator = StepDenominator(
        num_sequences=max(1, sum(1 for c in counts if c)),
        num_tokens=max(1, sum(counts)),
        num_prompts=max(1, len({s.prompt_uid for s, c in zip(sequences, counts, strict=True) if c})),
    )
    weights = sequence_token_weights(
        config.aggregation, counts, [s.prompt_uid for s in sequences], denominator, constant_length=constant_length
    )
    all_move = has_kl_loss(config) or config.entropy_coefficient > 0
    kept = [i for i, s in enumerate(sequences) if weights[i] and (s.advantage or all_move)]
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
