"""Group-relative advantages: how much better a completion is than its siblings.

Each function takes rewards [P, G] and a mask `valid` [P, G] of those that count; the others may be NaN. Statistics are
in float64, results float32. An invalid member enters no statistic and gets exactly 0. So does every member of a group
that is not informative: fewer than 2 valid members, or all valid rewards equal. Such a group enters no statistic of the
batch either. Standard deviations are Bessel's: over n - 1.

Identities, n valid members in an informative group:
    each kind sums to 0 over a group
    leave_one_out = n / (n - 1) * group_mean
    group_std = group_mean / (std of the group + eps)
    batch_std = group_mean / (std of the batch + eps); equals group_std where the batch is one group
    max_rl = group_mean / mean of the group
    a constant added to a group's rewards changes none but max_rl; a positive factor on all rewards changes neither
    max_rl nor, up to eps, group_std and batch_std
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from grpo.config import AdvantageKind
from grpo.errors import ConfigError


class GroupStatistics(NamedTuple):
    """Of rewards [..., G], in float64.

    Attributes:
        mean: [..., 1], over the valid members; 0 without any.
        std: [..., 1], Bessel's; 1 where the group is not informative.
        centred: [..., G], reward minus mean; exactly 0 where invalid or the group is not informative.
        informative: [..., 1] bool, two valid members differ.
    """

    mean: Tensor
    std: Tensor
    centred: Tensor
    informative: Tensor


def group_statistics(rewards: Tensor, valid: Tensor) -> GroupStatistics:
    """Statistics over the last axis of rewards [..., G], of the members that are valid [..., G] bool."""
    assert valid.shape == rewards.shape and valid.dtype == torch.bool
    count = valid.sum(dim=-1, keepdim=True)
    clean = torch.where(valid, rewards.to(torch.float64), 0.0)
    mean = clean.sum(dim=-1, keepdim=True) / count.clamp(min=1)
    # Equality is tested on the rewards themselves: rounding of the mean must not turn "all equal" into noise.
    highest = torch.where(valid, clean, -torch.inf).amax(dim=-1, keepdim=True)
    lowest = torch.where(valid, clean, torch.inf).amin(dim=-1, keepdim=True)
    informative = highest > lowest
    centred = torch.where(valid & informative, clean - mean, 0.0)
    variance = centred.square().sum(dim=-1, keepdim=True) / (count - 1).clamp(min=1)
    return GroupStatistics(mean, torch.where(informative, variance.sqrt(), 1.0), centred, informative)


def group_std(rewards: Tensor, valid: Tensor, *, eps: float) -> Tensor:
    """A_i = (r_i - mean) / (std + eps), both over the group; std is Bessel's.

    Args:
        rewards: [P, G].
        valid: [P, G] bool.
        eps: in units of the reward.

    Returns:
        [P, G] float32.

    Source: GRPO, Shao et al. 2024, https://arxiv.org/abs/2402.03300, section 4.1.2.
    """
    assert rewards.ndim == 2
    group = group_statistics(rewards, valid)
    return (group.centred / (group.std + eps)).to(torch.float32)


def group_mean(rewards: Tensor, valid: Tensor) -> Tensor:
    """A_i = r_i - mean over the group.

    Its policy gradient is (n - 1) / n of the exact one in expectation, for r_i is part of its own baseline.

    Source: Dr.GRPO, Liu et al. 2025, https://arxiv.org/abs/2503.20783. Shapes as in `group_std`.
    """
    assert rewards.ndim == 2
    return group_statistics(rewards, valid).centred.to(torch.float32)


def batch_std(rewards: Tensor, valid: Tensor, *, eps: float) -> Tensor:
    """A_i = (r_i - mean over the group) / (s + eps), s the standard deviation of the whole batch.

    s^2 = sum (r_i - mean over the group)^2 / (N - 1) over the N valid members of all informative groups; their mean
    is 0, so nothing more is subtracted. Groups that are not informative are left out of s: with their zeros in it, the
    step size of all others would grow with the share of prompts that are too easy or too hard.

    Source: ScaleRL, Khatri et al. 2025, https://arxiv.org/abs/2510.13786. Shapes as in `group_std`.
    """
    assert rewards.ndim == 2
    group = group_statistics(rewards, valid)
    count = (valid & group.informative).sum()
    std = (group.centred.square().sum() / (count - 1).clamp(min=1)).sqrt()
    return (group.centred / torch.where(count > 0, std + eps, 1.0)).to(torch.float32)


def leave_one_out(rewards: Tensor, valid: Tensor) -> Tensor:
    """A_i = r_i - mean of the other valid members = n / (n - 1) * (r_i - mean over the group).

    The policy gradient is unbiased: the baseline does not depend on completion i.

    Source: RLOO, Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740. Shapes as in `group_std`.
    """
    assert rewards.ndim == 2
    count = valid.sum(dim=1, keepdim=True)
    centred = group_statistics(rewards, valid).centred
    return (centred * count / (count - 1).clamp(min=1)).to(torch.float32)


def max_rl(rewards: Tensor, valid: Tensor) -> Tensor:
    """A_i = (r_i - mean) / mean over the group, for rewards >= 0, meant for pass (1) or not (0).

    With pass or not and n members, 1/n sum A_i grad log pi(o_i) is in expectation
    sum_{k=1..n-1} (1/k) grad pass@k: with more members it goes from the gradient of the pass rate (n = 2) to that of
    its logarithm. A group where nobody passes has no variance and so no advantage; that costs the term k = n, which
    the estimator without a baseline, r_i / mean, still has.

    Raises:
        ConfigError: a valid reward is negative.

    Source: MaxRL, Tajwar et al. 2026, https://arxiv.org/abs/2602.02710. Shapes as in `group_std`.
    """
    assert rewards.ndim == 2
    group = group_statistics(rewards, valid)
    lowest = torch.where(valid, rewards.to(torch.float64), 0.0).amin()
    if lowest < 0:
        raise ConfigError(
            "algorithm.advantage",
            AdvantageKind.max_rl.value,
            f"it divides by a group's mean reward, and a reward of {lowest.item():g} is negative",
            "Let every reward term be 0 or more, or set algorithm.advantage=group_mean.",
        )
    return (group.centred / torch.where(group.informative, group.mean, 1.0)).to(torch.float32)
