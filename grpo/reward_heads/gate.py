"""A gate: a linear yes or no on a prompt, from prompts labelled by hand.

A prompt is let through where score >= threshold; score is that of a `RewardHead` read after the prompt alone.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from grpo.errors import DataError
from grpo.reward_heads.bradley_terry import cross_validated, fit_bradley_terry, log_loss
from grpo.reward_heads.evaluation import Share
from grpo.reward_heads.pairs import text_folds, text_place

_LOG = logging.getLogger(__name__)
_NUM_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledPrompt:
    """A prompt and whether it is to pass.

    Attributes:
        source: name of the file it is from.
        held_out: not to be fitted to.
    """

    text: str
    passes: bool
    source: str
    held_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """How a gate does on labelled prompts; a share without trials is NaN.

    Attributes:
        precision: of those let through, the ones that were to pass.
        recall: of those that were to pass, the ones let through.
        specificity: of those that were not to pass, the ones kept out.
    """

    precision: Share
    recall: Share
    specificity: Share

    @classmethod
    def of(cls, passes: np.ndarray, let_through: np.ndarray) -> GateReport:
        """From labels and decisions, bool, [N]."""
        return cls(
            precision=Share.of(np.where(passes[let_through], 1.0, -1.0)),
            recall=Share.of(np.where(let_through[passes], 1.0, -1.0)),
            specificity=Share.of(np.where(let_through[~passes], -1.0, 1.0)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON; only what there were trials for."""
        return {name: share for name, share in asdict(self).items() if share["count"]}

    def __str__(self) -> str:
        shares = {"precision": self.precision, "recall": self.recall, "specificity": self.specificity}
        return ", ".join(f"{name} {share}" for name, share in shares.items() if share.count)


def read_labelled(files: Sequence[Path]) -> list[LabelledPrompt]:
    """Rows with `prompt`, `relevant` and `split`, of which "heldout" is held out. Raises DataError."""
    return [
        LabelledPrompt(text=row["prompt"], passes=row["relevant"], source=file.stem, held_out=row["split"] == "heldout")
        for file in files
        for row in _rows(file, ("prompt", "relevant", "split"))
    ]


def read_one_sided(files: Sequence[Path], *, passes: bool, held_out_share: float) -> list[LabelledPrompt]:
    """Rows of which only `prompt` is read; all have the same label, a share is held out by their text."""
    return [
        LabelledPrompt(
            text=row["prompt"],
            passes=passes,
            source=file.stem,
            held_out=text_place(row["prompt"]) < held_out_share,
        )
        for file in files
        for row in _rows(file, ("prompt",))
    ]


def fit_gate(
    states: np.ndarray, passes: np.ndarray, texts: Sequence[str], layers: Sequence[int], ridges: Sequence[float]
) -> tuple[np.ndarray, float, int, dict[str, float]]:
    """Weights and threshold at the best layer and ridge, by cross-validation.

    The threshold is the score of the midpoint between the two classes' mean states; about that point the fit is the
    logistic regression of `fit_bradley_terry`, so neither class counts more for being larger.

    Args:
        states: [N, layers, H].
        passes: bool, [N].
        texts: the prompts, [N]; folds depend on them.
        layers: in the states' order.
        ridges: strengths to try.

    Returns:
        w [H], the threshold, the layer, and what was chosen with its cross-validated figures.
    """
    folds = text_folds(texts, _NUM_FOLDS, seed=0)
    signs = np.where(passes, 1.0, -1.0)[:, None]
    middle = (states[passes].mean(0) + states[~passes].mean(0)) / 2
    tried: list[tuple[float, float, int, float]] = []
    for (place, layer), ridge in product(enumerate(layers), ridges):
        margins = cross_validated(signs * (states[:, place] - middle[place]), folds, ridge)
        tried.append((log_loss(margins), float((margins > 0).mean()), place, ridge))
        _LOG.info("layer %d, ridge %g: log loss %.4f, accuracy %.3f", layer, ridge, *tried[-1][:2])
    loss, accuracy, place, ridge = min(tried)
    weights = fit_bradley_terry(signs * (states[:, place] - middle[place]), ridge).astype(np.float32)
    facts = {"log_loss": loss, "accuracy": accuracy, "candidates": float(len(tried)), "ridge": ridge}
    return weights, float(middle[place] @ weights), layers[place], facts


def _rows(file: Path, fields: Sequence[str]) -> list[dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: can't be read as JSON lines ({error})") from error
    for number, row in enumerate(rows, start=1):
        if missing := [name for name in fields if name not in row]:
            raise DataError(f"{file}:{number}: a row without {', '.join(missing)}")
    return rows
