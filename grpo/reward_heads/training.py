"""From features of preference pairs to a head: layer and ridge by cross-validation, then one fit to all pairs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from grpo.data.preferences import PreferencePair
from grpo.reward_heads.bradley_terry import cross_validated, fit_bradley_terry, log_loss
from grpo.reward_heads.pairs import prompt_folds

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One choice of layer and ridge, and how it does on pairs that it was not fitted to.

    Attributes:
        layer: number of blocks.
        ridge: of `fit_bradley_terry`.
        log_loss: cross-validated, nats; the choice goes by it, since it is less noisy than the accuracy.
        accuracy: cross-validated.
    """

    layer: int
    ridge: float
    log_loss: float
    accuracy: float


def fit_head(
    features: np.ndarray,
    pairs: Sequence[PreferencePair],
    layers: Sequence[int],
    ridges: Sequence[float],
    *,
    num_folds: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, Candidate, list[Candidate]]:
    """The head's weights at the best layer and ridge.

    Args:
        features: states of the chosen and of the rejected answer, [N, 2, layers, H].
        pairs: what they are states of, [N].
        layers: in the features' order.
        ridges: strengths to try.
        num_folds: of the cross-validation; all pairs with one first question are in one fold.
        seed: of the folds.

    Returns:
        w [H], the choice, and all candidates.
    """
    folds = prompt_folds(pairs, num_folds, seed)
    candidates: list[Candidate] = []
    for (place, layer), ridge in product(enumerate(layers), ridges):
        differences = features[:, 0, place] - features[:, 1, place]
        margins = cross_validated(differences, folds, ridge)
        accuracy = float((margins > 0).mean())
        candidates.append(Candidate(layer=layer, ridge=ridge, log_loss=log_loss(margins), accuracy=accuracy))
        _LOG.info("layer %d, ridge %g: log loss %.4f, accuracy %.3f", layer, ridge, log_loss(margins), accuracy)
    best = min(candidates, key=lambda candidate: candidate.log_loss)
    place = list(layers).index(best.layer)
    weights = fit_bradley_terry(features[:, 0, place] - features[:, 1, place], best.ridge)
    return weights.astype(np.float32), best, candidates
