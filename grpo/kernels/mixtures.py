"""Several reward terms, one advantage: each term made comparable in its group before they are summed.

Terms are [K, P, G] with a mask `present` of the same shape: the term is there and its completion counts. A completion
on which one term failed is present in none. A completion where a term is absent gets nothing from it and is in none of
its statistics. Statistics are in float64, the advantages float32; standard deviations are Bessel's: over n - 1.

Identities:
    an advantage sums to 0 over a group
    mo_grpo of one term with weight 1 is group_std of it
    gdpo of one term is the whitened group_std of it, up to eps whatever its positive weight
    a constant added to a term, or up to eps a positive factor on it, changes nothing where the term is standardised
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grpo.kernels.advantages import group_statistics


def standardised_terms(terms: Tensor, present: Tensor, standardise: Sequence[bool], *, eps: float) -> Tensor:
    """z_ik = (r_ik - mean_k) / (std_k + eps), statistics of term k over the group's present members; std is Bessel's.

    Args:
        terms: [K, P, G].
        present: [K, P, G] bool.
        standardise: [K]; where False the term is centred only, so that its size stays: a KL in nats, say, of which
            there may be next to nothing, and dividing by its own std would make that as large as any reward.
        eps: in units of each term.

    Returns:
        [K, P, G] float64. Exactly 0 where a term is not present, or has fewer than 2 present or no two different
        values in the group.
    """
    assert terms.ndim == 3 and len(standardise) == len(terms)
    group = group_statistics(terms, present)
    scaled = torch.tensor(standardise, dtype=torch.bool, device=terms.device)[:, None, None]
    return group.centred / torch.where(scaled, group.std + eps, 1.0)


def mo_grpo(terms: Tensor, present: Tensor, weights: Tensor, standardise: Sequence[bool], *, eps: float) -> Tensor:
    """A_i = sum_k w_k z_ik, with raw weights.

    Args:
        terms, present, standardise, eps: as in `standardised_terms`.
        weights: w_k, [K], or [K, P] where groups are mixed differently; never renormalised.

    Returns:
        [P, G] float32.

    Source: MO-GRPO, https://arxiv.org/abs/2509.22047, where all weights are 1.
    """
    return _sum(terms, present, weights, standardise, eps).to(torch.float32)


def gdpo(terms: Tensor, present: Tensor, weights: Tensor, standardise: Sequence[bool], *, eps: float) -> Tensor:
    """A_i = (a_i - mean) / (std + eps) with a_i = sum_k w_k z_ik, mean and std over the batch.

    The batch is the completions with a term present, in groups where a term with a weight has two different values.
    All others are exactly 0 and enter neither statistic, as in `batch_std`. So the weights set the terms' proportions
    and not the advantage's size.

    Args and result as in `mo_grpo`. Source: GDPO, https://arxiv.org/abs/2601.05242.
    """
    informative = group_statistics(terms, present).informative & (_by_group(weights) != 0)
    members = present.any(dim=0) & informative.any(dim=0)
    return whitened(_sum(terms, present, weights, standardise, eps), members, eps=eps)


def whitened(advantages: Tensor, members: Tensor, *, eps: float) -> Tensor:
    """(a_i - mean) / (std + eps) over all members of the batch together; exactly 0 for who is none. Std is Bessel's.

    Args:
        advantages: [P, G].
        members: [P, G] bool.

    Returns:
        [P, G] float32.
    """
    assert members.shape == advantages.shape
    count = members.sum()
    clean = torch.where(members, advantages.to(torch.float64), 0.0)
    centred = torch.where(members, clean - clean.sum() / count.clamp(min=1), 0.0)
    std = (centred.square().sum() / (count - 1).clamp(min=1)).sqrt()
    return (centred / torch.where(count > 1, std + eps, 1.0)).to(torch.float32)


def _sum(terms: Tensor, present: Tensor, weights: Tensor, standardise: Sequence[bool], eps: float) -> Tensor:
    assert weights.shape in (terms.shape[:1], terms.shape[:2])
    z = standardised_terms(terms, present, standardise, eps=eps)
    return (_by_group(weights.to(torch.float64)) * z).sum(0)


def _by_group(weights: Tensor) -> Tensor:
    """[K] or [K, P] as what [K, P, G] is multiplied with."""
    return weights[:, None, None] if weights.ndim == 1 else weights[:, :, None]
