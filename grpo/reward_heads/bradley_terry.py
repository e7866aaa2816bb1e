"""The Bradley-Terry model of preferences, linear in features.

P(a beats b) = sigmoid(w . x_a - w . x_b); Bradley & Terry 1952, https://doi.org/10.1093/biomet/39.3-4.324.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

_MAX_ITERATIONS = 200


def fit_bradley_terry(differences: np.ndarray, ridge: float) -> np.ndarray:
    """w that minimises mean_n log(1 + exp(-d_n . w)) + ridge/2 |w * s|^2, with s_h the RMS of d over the pairs.

    The penalty is on standardised features, so it does not depend on a feature's unit. There is no intercept: a pair
    has no first and second.

    Args:
        differences: d = x_chosen - x_rejected, [N, H].
        ridge: strength of the penalty, above 0.

    Returns:
        w, float64, [H].
    """
    import torch

    rms = np.sqrt((differences.astype(np.float64) ** 2).mean(0))
    scale = torch.from_numpy(np.where(rms > 0, rms, 1.0))
    x = torch.from_numpy(differences.astype(np.float64)) / scale
    w = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    solver = torch.optim.LBFGS([w], max_iter=_MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def objective() -> Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.softplus(-x @ w).mean() + ridge / 2 * w.square().sum()
        loss.backward()
        return loss

    solver.step(objective)
    return (w.detach() / scale).numpy()


def log_loss(margins: np.ndarray) -> float:
    """Mean of log(1 + exp(-margin)) in nats; ln 2 for a guess."""
    return float(np.logaddexp(0.0, -margins).mean())


def cross_validated(differences: np.ndarray, folds: np.ndarray, ridge: float) -> np.ndarray:
    """d_n . w of every pair, with the w fitted to the other folds, [N].

    Args:
        differences: [N, H].
        folds: the fold of each pair, [N]; pairs of one prompt belong in one fold.
        ridge: as in `fit_bradley_terry`.
    """
    margins = np.zeros(len(differences))
    for fold in np.unique(folds):
        inside = folds == fold
        margins[inside] = differences[inside] @ fit_bradley_terry(differences[~inside], ridge)
    return margins
