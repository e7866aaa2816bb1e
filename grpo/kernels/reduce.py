"""How token losses become one number: a weight for every loss token, made from global counts only.

loss = sum over all tokens of weight * token_loss. The weights are fixed before any forward pass, so the gradient
can't depend on how a step is cut into ranks, micro-batches or accumulation steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from grpo.config import Aggregation
from grpo.records import StepDenominator


def sequence_token_weights(
    aggregation: Aggregation,
    loss_tokens: Sequence[int],
    prompt_uids: Sequence[int],
    denominator: StepDenominator,
    *,
    constant_length: int,
) -> list[float]:
    """The weight of each loss token, one number a sequence.

    token_mean (DAPO): 1 / num_tokens. sequence_mean (GRPO): 1 / (num_sequences * T_i).
    prompt_mean (ScaleRL): 1 / (num_prompts * tokens of the prompt's group).
    constant_length (Dr.GRPO): 1 / (num_sequences * constant_length).

    Args:
        loss_tokens: T_i of every sequence of the step; 0 for one that is masked.
        prompt_uids: the prompt each sequence belongs to.
        denominator: global counts of the step.
        constant_length: tokens; the longest a completion may be.

    Returns:
        One weight a sequence; 0 where it has no loss tokens.

    Sources: https://arxiv.org/abs/2503.14476, https://arxiv.org/abs/2402.03300,
    https://arxiv.org/abs/2510.13786, https://arxiv.org/abs/2503.20783.
    """
    assert len(loss_tokens) == len(prompt_uids)
    group_tokens: dict[int, int] = {}
    for uid, count in zip(prompt_uids, loss_tokens, strict=True):
        group_tokens[uid] = group_tokens.get(uid, 0) + count
    weights: list[float] = []
    for uid, count in zip(prompt_uids, loss_tokens, strict=True):
        divisor = {
            Aggregation.token_mean: denominator.num_tokens,
            Aggregation.sequence_mean: denominator.num_sequences * count,
            Aggregation.prompt_mean: denominator.num_prompts * group_tokens[uid],
            Aggregation.constant_length: denominator.num_sequences * constant_length,
        }[aggregation]
        weights.append(1.0 / divisor if count else 0.0)
    return weights
