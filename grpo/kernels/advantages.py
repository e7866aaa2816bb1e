"""Group-relative advantages: how much better a completion is than its siblings."""

from __future__ import annotations

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, valid: Tensor, *, divide_by_std: bool, eps: float) -> Tensor:
    """A_i = (r_i - mean(r)) / (std(r) + eps), statistics over the valid members of each group.

    Std is Bessel-corrected (divides by n - 1). Without `divide_by_std`: A_i = r_i - mean(r) (Dr.GRPO).
    Identities: the valid advantages of a group sum to 0; adding a constant to a group changes nothing.

    Args:
        rewards: [P, G]; entries that are not valid may be NaN.
        valid: [P, G] bool. Invalid members enter no statistic and get advantage 0.
        divide_by_std: scale by the group's standard deviation.
        eps: added to the std, in units of the reward.

    Returns:
        [P, G] float32. A group with fewer than 2 valid members, or whose valid rewards are all equal,
        is exactly 0.

    Source: Shao et al. 2024, https://arxiv.org/abs/2402.03300, section 4.1.2; without std: Liu et al. 2025,
    https://arxiv.org/abs/2503.20783.
    """
    assert rewards.ndim == 2 and valid.shape == rewards.shape
    count = valid.sum(dim=1, keepdim=True)
    clean = torch.where(valid, rewards.to(torch.float64), 0.0)
    mean = clean.sum(dim=1, keepdim=True) / count.clamp(min=1)
    centred = torch.where(valid, clean - mean, 0.0)
    # Equality is tested on the rewards themselves: rounding of the mean must not turn "all equal" into noise.
    highest = torch.where(valid, clean, -torch.inf).amax(dim=1, keepdim=True)
    lowest = torch.where(valid, clean, torch.inf).amin(dim=1, keepdim=True)
    informative = (count >= 2) & (highest > lowest)
    if divide_by_std:
        variance = centred.square().sum(dim=1, keepdim=True) / (count - 1).clamp(min=1)
        centred = centred / (variance.sqrt() + eps)
    return torch.where(informative & valid, centred, 0.0).to(torch.float32)
