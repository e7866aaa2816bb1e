"""The formulas of the loss once more, for the kernels to be compared with: loops over Python floats, no tensors.

What carries no gradient (sg[...], a proximal policy that is the current one) is read from a second copy of the
logprobs that stays where it is while the first is moved, so that a difference quotient is the gradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from grpo.config import AlgorithmConfig, Importance, KLEstimator, RatioLevel, RatioTo, Surrogate
from grpo.errors import ConfigError
from grpo.records import LossTokens

#: Nats; a log-ratio is held within this of 0.
BOUND = 20.0
#: Largest float32.
LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True, kw_only=True)
class Case:
    """Loss tokens, [L] each, in sequences whose tokens need not lie side by side."""

    logprobs: list[float]
    entropy: list[float]
    proximal: list[float] | None
    behavior: list[float]
    reference: list[float]
    advantages: list[float]
    weights: list[float]
    sequence_index: list[int]

    def __len__(self) -> int:
        return len(self.logprobs)

    def members(self, t: int) -> list[int]:
        """Tokens of the sequence that token `t` belongs to."""
        return [s for s in range(len(self)) if self.sequence_index[s] == self.sequence_index[t]]

    def sequences(self, start: int, stop: int) -> Case:
        """Sequences `start` to `stop`, numbered from 0."""
        kept = [t for t in range(len(self)) if start <= self.sequence_index[t] < stop]
        return Case(
            logprobs=[self.logprobs[t] for t in kept],
            entropy=[self.entropy[t] for t in kept],
            proximal=None if self.proximal is None else [self.proximal[t] for t in kept],
            behavior=[self.behavior[t] for t in kept],
            reference=[self.reference[t] for t in kept],
            advantages=[self.advantages[t] for t in kept],
            weights=[self.weights[t] for t in kept],
            sequence_index=[self.sequence_index[t] - start for t in kept],
        )

    def tokens(self, targets: torch.Tensor | None = None, dtype: torch.dtype = torch.float32) -> LossTokens:
        """The record; all targets are 0 unless given."""

        def tensor(values: Sequence[float]) -> torch.Tensor:
            return torch.tensor(values, dtype=dtype)

        return LossTokens(
            targets=torch.zeros(len(self), dtype=torch.int64) if targets is None else targets,
            advantages=tensor(self.advantages),
            weights=tensor(self.weights),
            behavior=tensor(self.behavior),
            proximal=None if self.proximal is None else tensor(self.proximal),
            reference=tensor(self.reference),
            sequence_index=torch.tensor(self.sequence_index, dtype=torch.int64),
            num_sequences=max(self.sequence_index, default=-1) + 1,
        )


def make_case(
    logprobs: Sequence[float] | None = None,
    entropy: Sequence[float] | None = None,
    *,
    sequence_index: Sequence[int] = (0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 3, 4, 4),
    proximal: bool = True,
    seed: int = 0,
) -> Case:
    """Random tokens that lie on either side of every bound, and on no bound; rounded to float32.

    Sequences have one advantage for all their tokens, some positive and some negative, and drift of their own.
    """
    rng = np.random.default_rng(seed)
    size = len(sequence_index)
    index = np.asarray(sequence_index, dtype=np.int64)

    def float32(values: np.typing.ArrayLike) -> np.ndarray:
        return np.asarray(values, dtype=np.float32).astype(np.float64)

    current = float32(-rng.uniform(0.3, 4.0, size) if logprobs is None else logprobs)
    num_sequences = max(sequence_index, default=-1) + 1
    drift = rng.uniform(-0.5, 0.5, num_sequences)[index]
    gap = rng.uniform(-0.3, 0.9, num_sequences)[index]
    signs = np.where(rng.permutation(num_sequences) % 2, 1.0, -1.0)[index]
    old = float32(current - drift - rng.uniform(-0.6, 0.6, size))
    return Case(
        logprobs=current.tolist(),
        entropy=float32(rng.uniform(0, 2, size) if entropy is None else entropy).tolist(),
        proximal=old.tolist() if proximal else None,
        behavior=float32((old if proximal else current) - gap - rng.uniform(-0.8, 0.8, size)).tolist(),
        reference=float32(current + rng.uniform(-0.8, 0.8, size)).tolist(),
        advantages=float32(signs * rng.uniform(0.2, 2.0, num_sequences)[index]).tolist(),
        weights=float32(rng.uniform(0.02, 0.2, size)).tolist(),
        sequence_index=index.tolist(),
    )


def bounded_exp(log_ratio: float) -> float:
    return math.exp(min(max(log_ratio, -BOUND), BOUND))


def ratio(case: Case, t: int, config: AlgorithmConfig, logprobs: Sequence[float]) -> float:
    """p / p_anchor of token `t`, or of its sequence (GSPO): the geometric mean of those of its tokens."""
    proximal = case.logprobs if case.proximal is None else case.proximal
    anchor = proximal if config.ratio_to is RatioTo.proximal else case.behavior
    if config.ratio_level is RatioLevel.token:
        return bounded_exp(logprobs[t] - anchor[t])
    own = case.members(t)
    return bounded_exp(math.fsum(logprobs[s] - anchor[s] for s in own) / len(own))


def surrogate(advantage: float, logprob: float, r: float, frozen_r: float, config: AlgorithmConfig) -> float:
    low, high = 1 - config.clip_low, 1 + config.clip_high
    if config.surrogate is Surrogate.reinforce:
        return -advantage * logprob
    if config.surrogate is Surrogate.cispo:
        return -min(max(frozen_r, low), high) * advantage * logprob
    loss = -min(r * advantage, min(max(r, low), high) * advantage)
    if config.dual_clip is not None and advantage < 0:
        loss = min(loss, -config.dual_clip * advantage)
    return loss


def importance(case: Case, t: int, config: AlgorithmConfig) -> float:
    """The weight on the surrogate, masks included."""
    proximal = case.logprobs if case.proximal is None else case.proximal
    own = case.members(t)
    weight = 1.0
    if config.importance in (Importance.token_truncate, Importance.token_mask):
        weight = bounded_exp(proximal[t] - case.behavior[t])
    elif config.importance is not Importance.none:
        weight = bounded_exp(math.fsum(proximal[s] - case.behavior[s] for s in own))
    if config.importance in (Importance.token_truncate, Importance.sequence_truncate):
        weight = min(weight, config.importance_cap)
    elif config.importance is not Importance.none:
        weight = weight if config.importance_floor <= weight <= config.importance_cap else 0.0
    if config.off_policy_threshold is not None and case.advantages[t] < 0:
        drift = math.fsum(case.behavior[s] - case.logprobs[s] for s in own) / len(own)
        weight = 0.0 if drift > config.off_policy_threshold else weight
    return weight


def kl(estimator: KLEstimator, logprob: float, reference: float, behavior: float) -> float:
    d = reference - logprob
    if estimator is KLEstimator.k1:
        return -d
    if estimator is KLEstimator.k2:
        return d * d / 2
    k3 = math.exp(d) - 1 - d
    return k3 if estimator is KLEstimator.k3 else bounded_exp(logprob - behavior) * k3


def token_losses(
    case: Case, config: AlgorithmConfig, logprobs: Sequence[float] | None = None, entropy: Sequence[float] | None = None
) -> list[float]:
    """Unweighted loss of each token; `logprobs` and `entropy` are the moving copies."""
    moving = case.logprobs if logprobs is None else logprobs
    spread = case.entropy if entropy is None else entropy
    losses: list[float] = []
    for t in range(len(case)):
        r, frozen_r = ratio(case, t, config, moving), ratio(case, t, config, case.logprobs)
        loss = importance(case, t, config) * surrogate(case.advantages[t], moving[t], r, frozen_r, config)
        if config.kl_coefficient and config.kl_in == "loss":
            penalty = kl(config.kl_estimator, moving[t], case.reference[t], case.behavior[t])
            loss += config.kl_coefficient * penalty
        losses.append(loss - config.entropy_coefficient * spread[t])
    return losses


def total_loss(case: Case, config: AlgorithmConfig, logprobs: Sequence[float] | None = None) -> float:
    """sum_t weights_t * loss_t."""
    return math.fsum(w * x for w, x in zip(case.weights, token_losses(case, config, logprobs), strict=True))


def gradient(case: Case, config: AlgorithmConfig, step: float = 1e-6) -> list[float]:
    """d total_loss / d logprob of each token, by central differences."""
    found: list[float] = []
    for t in range(len(case)):
        up, down = list(case.logprobs), list(case.logprobs)
        up[t] += step
        down[t] -= step
        found.append((total_loss(case, config, up) - total_loss(case, config, down)) / (2 * step))
    return found


def distribution(logits: Sequence[float], temperature: float) -> tuple[list[float], list[float], float]:
    """(probabilities, logprobs, entropy) of softmax(logits / temperature), infinite logits read as `LARGEST`."""
    held = [x if math.isnan(x) else min(max(x, -LARGEST), LARGEST) for x in logits]
    top = max(held)
    shifted = [(x - top) / temperature for x in held]
    log_sum = math.log(math.fsum(math.exp(x) for x in shifted))
    logprobs = [x - log_sum for x in shifted]
    probabilities = [math.exp(x) for x in logprobs]
    return probabilities, logprobs, -math.fsum(p * lp for p, lp in zip(probabilities, logprobs, strict=True) if p)


def row_gradient(
    logits: Sequence[float], target: int, by_logprob: float, by_entropy: float, temperature: float
) -> list[float]:
    """(1 / T) [g (1[j = y] - p_j) - g_H p_j (log p_j + H)]."""
    probabilities, logprobs, entropy = distribution(logits, temperature)
    return [
        (by_logprob * ((j == target) - p) - (by_entropy * p * (lp + entropy) if p else 0.0)) / temperature
        for j, (p, lp) in enumerate(zip(probabilities, logprobs, strict=True))
    ]


def losses_that_admit(base: AlgorithmConfig) -> list[AlgorithmConfig]:
    """`base` with every combination of surrogate, ratio and importance that the schema admits."""
    found: list[AlgorithmConfig] = []
    for kind, level, to, weight, bound in product(Surrogate, RatioLevel, RatioTo, Importance, (None, 1.5)):
        try:
            found.append(
                replace(base, surrogate=kind, ratio_level=level, ratio_to=to, importance=weight, dual_clip=bound)
            )
        except ConfigError:
            continue
    return found


def label(config: AlgorithmConfig) -> str:
    """Name of a parametrised test."""
    parts = [config.surrogate, config.ratio_level, config.ratio_to, config.importance]
    return "-".join([*(str(p) for p in parts), *(["dual"] if config.dual_clip else [])])
