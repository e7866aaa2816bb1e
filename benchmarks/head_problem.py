"""One output head to differentiate, the formula it is held to, and the matrix products it can't do without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from grpo.records import LossTokens

Loss = Callable[[], Tensor]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One head to differentiate.

    Attributes:
        hidden: [L, H], a leaf with gradient.
        weight: [V, H] of the same type, a leaf with gradient.
        targets: [L] int64.
        coefficients: [L] float32.
        chunk_tokens: tokens that an arm which works in chunks takes at a time.
    """

    hidden: Tensor
    weight: Tensor
    targets: Tensor
    coefficients: Tensor
    chunk_tokens: int

    @classmethod
    def random(
        cls,
        num_tokens: int,
        width: int,
        vocabulary: int,
        *,
        dtype: torch.dtype,
        device: torch.device,
        chunk_tokens: int,
    ) -> Problem:
        """Logits of standard deviation 2, targets anywhere, coefficients of both signs."""
        generator = torch.Generator(device).manual_seed(0)
        how: dict[str, Any] = {"generator": generator, "device": device}
        hidden = torch.randn(num_tokens, width, dtype=dtype, **how)
        weight = torch.randn(vocabulary, width, dtype=dtype, **how).mul_(2.0 / width**0.5)
        return cls(
            hidden=hidden.requires_grad_(),
            weight=weight.requires_grad_(),
            targets=torch.randint(vocabulary, (num_tokens,), **how),
            coefficients=torch.randn(num_tokens, **how) / num_tokens,
            chunk_tokens=chunk_tokens,
        )

    def uniform(self) -> Problem:
        """The same with every coefficient -1: all that a summed cross-entropy can express."""
        return replace(self, coefficients=torch.full_like(self.coefficients, -1.0))

    def tokens(self, behavior: Tensor) -> LossTokens:
        """As Keel's loss takes them, so that d loss / d logprob is the coefficient."""
        count = len(self.targets)
        return LossTokens(
            targets=self.targets,
            advantages=-self.coefficients * count,
            weights=torch.full_like(self.coefficients, 1.0 / count),
            behavior=behavior,
            proximal=None,
            reference=None,
            sequence_index=torch.zeros_like(self.targets),
            num_sequences=1,
        )


def yardstick(p: Problem) -> Callable[[], None]:
    """The three products as one step."""
    hidden, weight = p.hidden.detach(), p.weight.detach()
    logits = hidden.new_empty(len(hidden), len(weight))
    by_hidden, by_weight = torch.empty_like(hidden), torch.empty_like(weight)

    def step() -> None:
        torch.mm(hidden, weight.T, out=logits)
        torch.mm(logits, weight, out=by_hidden)
        torch.mm(logits.T, hidden, out=by_weight)

    return step


def differentiate(p: Problem, loss: Loss) -> Tensor:
    """One step: the loss, its gradients left in the problem."""
    p.hidden.grad = p.weight.grad = None
    value = loss()
    value.backward()
    return value.detach()


def largest_error(p: Problem, value: Tensor | None) -> float:
    """Of the gradients left in `p`, and of the loss if given, against the formula in float64: relative, in 2-norms."""
    hidden, weight = (t.detach().double().requires_grad_() for t in (p.hidden, p.weight))
    logits = hidden @ weight.T
    logprobs = logits[torch.arange(len(logits)), p.targets] - logits.logsumexp(-1)
    expected = (p.coefficients.double() * logprobs).sum()
    expected.backward()
    pairs = [(p.hidden.grad, hidden.grad), (p.weight.grad, weight.grad)]
    if value is not None:
        pairs.append((value, expected.detach()))
    return max(float((a.double() - b).norm() / b.norm()) for a, b in pairs if a is not None and b is not None)
