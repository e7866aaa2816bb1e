"""The same loss tokens in the two layouts: one row of all tokens (Keel), and [B, T] with padding (TRL, verl)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from grpo.config import Aggregation, AlgorithmConfig
from grpo.kernels.objective import objective
from grpo.kernels.reduce import sequence_token_weights
from grpo.records import StepDenominator
from tests.oracles import Case, make_case

#: Loss tokens of each sequence; the longest a completion could have been.
LENGTHS, CONSTANT_LENGTH = (3, 1, 4, 3, 2), 6


def random_case(seed: int = 0, lengths: Sequence[int] = LENGTHS, *, proximal: bool = True) -> Case:
    """Tokens in sequences of these lengths, one after another, on either side of every bound."""
    index = [s for s, length in enumerate(lengths) for _ in range(length)]
    return make_case(sequence_index=index, proximal=proximal, seed=seed)


@dataclass(frozen=True)
class Padded:
    """[B, T] tensors of a case in float64; what stands in the padding must not matter."""

    case: Case
    lengths: tuple[int, ...] = LENGTHS

    @property
    def mask(self) -> Tensor:
        """[B, T] int64."""
        return (torch.arange(max(self.lengths)) < torch.tensor(self.lengths)[:, None]).long()

    def spread(self, values: Sequence[float], fill: float = -0.7) -> Tensor:
        """[L] -> [B, T]."""
        matrix = torch.full(self.mask.shape, fill, dtype=torch.float64)
        matrix[self.mask.bool()] = torch.tensor(values, dtype=torch.float64)
        return matrix

    def gathered(self, matrix: Tensor) -> list[float]:
        """[B, T] -> [L]."""
        return matrix[self.mask.bool()].tolist()

    @property
    def advantages(self) -> Tensor:
        """[B]; a sequence without tokens has 0."""
        found = torch.zeros(len(self.lengths), dtype=torch.float64)
        found[torch.tensor(self.case.sequence_index)] = torch.tensor(self.case.advantages, dtype=torch.float64)
        return found


def weighted(case: Case, aggregation: Aggregation, lengths: Sequence[int] = LENGTHS) -> Case:
    """The case with the weights that an aggregation gives it as a whole step; every sequence is its own prompt."""
    denominator = StepDenominator(
        num_sequences=sum(length > 0 for length in lengths), num_tokens=sum(lengths), num_prompts=len(lengths)
    )
    weights = sequence_token_weights(
        aggregation, lengths, range(len(lengths)), denominator, constant_length=CONSTANT_LENGTH
    )
    return replace(case, weights=[weights[s] for s in case.sequence_index])


def keel(
    case: Case, config: AlgorithmConfig, aggregation: Aggregation, lengths: Sequence[int] = LENGTHS
) -> tuple[float, list[float]]:
    """(loss, d loss / d logprobs [L]) of a whole step, in float64 as far as the kernels keep it."""
    tokens = weighted(case, aggregation, lengths).tokens(dtype=torch.float64)
    logprobs = torch.tensor(case.logprobs, dtype=torch.float64, requires_grad=True)
    entropy = torch.tensor(case.entropy, dtype=torch.float64)
    loss = (objective(logprobs, entropy, tokens, config).loss * tokens.weights).sum()
    (gradient,) = torch.autograd.grad(loss, logprobs)
    return loss.item(), gradient.tolist()
