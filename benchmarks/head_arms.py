"""The same loss of an output head by Keel and by its peers: sum over tokens of coefficient * logprob.

Each arm gets hidden states, weight, targets and one coefficient a token, and leaves the gradients of the first two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from head_problem import Loss, Problem, differentiate, largest_error
from torch import Tensor

from grpo.config import AlgorithmConfig, Importance, Surrogate
from grpo.kernels.head import head_loss


class AbsentError(Exception):
    """An arm that this machine, or this installation, doesn't have."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to compute it.

    Attributes:
        make: prepares the loss of a problem; raises `AbsentError` or ImportError where it can't be had.
        weighted: whether every token can have its own coefficient; without, all are -1.
        same_value: whether the loss itself is comparable too; a loss of ratios has the gradient only.
        needs_cuda: whether it is a kernel for GPUs alone.
        compiles: whether its first call at a shape compiles, which takes memory of its own.
    """

    make: Callable[[Problem], Loss]
    weighted: bool = True
    same_value: bool = True
    needs_cuda: bool = False
    compiles: bool = False


def naive_loss(hidden: Tensor, weight: Tensor, targets: Tensor, coefficients: Tensor) -> Tensor:
    """The formula as it is written, with all logits in float32."""
    logprobs = F.log_softmax(F.linear(hidden, weight).float(), -1).gather(1, targets[:, None])[:, 0]
    return (coefficients * logprobs).sum()


@torch.no_grad()
def naive_logprobs(p: Problem) -> Tensor:
    """[L] logprobs of the targets; none of Keel's own buffers are left warm."""
    found: list[Tensor] = []
    for hidden, targets in zip(p.hidden.split(p.chunk_tokens), p.targets.split(p.chunk_tokens), strict=True):
        found.append(-F.cross_entropy(F.linear(hidden, p.weight).float(), targets, reduction="none"))
    return torch.cat(found)


def _keel(config: AlgorithmConfig) -> Callable[[Problem], Loss]:
    def make(p: Problem) -> Loss:
        how: dict[str, Any] = {"temperature": 1.0, "chunk_tokens": p.chunk_tokens}
        behavior = torch.zeros_like(p.coefficients)
        if config.importance is not Importance.none:  # sampled from this very policy: every weight is 1
            behavior = naive_logprobs(p)
        tokens = p.tokens(behavior)
        return lambda: head_loss(p.hidden, p.weight, tokens, config, **how).loss

    return make


def _naive(p: Problem) -> Loss:
    return lambda: naive_loss(p.hidden, p.weight, p.targets, p.coefficients)


def _compiled(p: Problem) -> Loss:
    compiled = torch.compile(naive_loss, dynamic=False)
    return lambda: compiled(p.hidden, p.weight, p.targets, p.coefficients)


def _torch(*, chunked: bool, reduction: str = "none") -> Callable[[Problem], Loss]:
    def make(p: Problem) -> Loss:
        function: Any = getattr(F, "linear_cross_entropy", None)
        if function is None:
            raise AbsentError("this torch has no linear_cross_entropy")
        options = None
        if chunked:
            # Left to itself it takes a few rows at a time, five times slower on a CPU.
            options = torch.nn.LinearCrossEntropyOptions(
                batch_chunk_size=p.chunk_tokens, chunking_method=None, acc_policy="compact"
            )
        if reduction == "sum":
            return lambda: function(p.hidden, p.weight, p.targets, reduction="sum", options=options)
        return lambda: (
            -(p.coefficients * function(p.hidden, p.weight, p.targets, reduction="none", options=options)).sum()
        )

    return make


def _trl(p: Problem) -> Loss:
    from trl.kernels.chunked_logprob import ChunkedLogProbFunction
    from trl.trainer import utils

    # The vocabulary is what it cuts, at a width of its own; no outputs but the logprobs.
    vocabulary_chunk = utils._CHUNKED_LOGPROB_CHUNK_SIZE

    def loss() -> Tensor:
        arguments = (p.hidden, p.weight, None, p.targets, 1.0, vocabulary_chunk, None, 1.0, ())
        logprobs: Any = ChunkedLogProbFunction.apply(*arguments)
        return (p.coefficients * logprobs[0]).sum()

    return loss


def _liger(reduction: str) -> Callable[[Problem], Loss]:
    def make(p: Problem) -> Loss:
        from liger_kernel.transformers.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyLoss

        function = LigerFusedLinearCrossEntropyLoss(reduction=reduction)
        if reduction == "sum":
            return lambda: function(p.weight, p.hidden, p.targets)
        return lambda: -(p.coefficients * function(p.weight, p.hidden, p.targets)).sum()

    return make


def _liger_grpo(p: Problem) -> Loss:
    from liger_kernel.chunked_loss import LigerFusedLinearGRPOLoss

    count = len(p.targets)
    # Each token a sequence of its own: then each has its own advantage, and a chunk is counted in tokens.
    function = LigerFusedLinearGRPOLoss(
        beta=0.0, use_ref_model=False, chunk_size=p.chunk_tokens, loss_type="dr_grpo", max_completion_length=1
    )
    mask = torch.ones(count, 1, device=p.hidden.device)
    return lambda: function(p.hidden[:, None], p.weight, p.targets[:, None], mask, -p.coefficients * count)[0]


#: What is differentiated in `keel`; `keel default` is the loss of a run that sets nothing.
_PLAIN = AlgorithmConfig(surrogate=Surrogate.reinforce, importance=Importance.none)
ARMS: dict[str, Arm] = {
    "keel": Arm(make=_keel(_PLAIN)),
    "keel default": Arm(make=_keel(AlgorithmConfig()), same_value=False),
    "naive": Arm(make=_naive),
    "compile": Arm(make=_compiled, compiles=True),
    "torch": Arm(make=_torch(chunked=False)),
    "torch chunked": Arm(make=_torch(chunked=True)),
    "torch sum": Arm(make=_torch(chunked=True, reduction="sum"), weighted=False),
    "trl": Arm(make=_trl),
    "liger": Arm(make=_liger("none"), needs_cuda=True),
    "liger sum": Arm(make=_liger("sum"), weighted=False, needs_cuda=True),
    "liger grpo": Arm(make=_liger_grpo, same_value=False, compiles=True),
}
KEEL = ("keel", "keel default")


def prepared(name: str, p: Problem) -> tuple[Problem, Loss]:
    """One arm's problem and its loss.

    Raises:
        AbsentError: it can't be had here.
    """
    arm = ARMS[name]
    if arm.needs_cuda and not p.hidden.is_cuda:
        raise AbsentError("needs CUDA")
    p = p if arm.weighted else p.uniform()
    try:
        return p, arm.make(p)
    except ImportError as error:
        raise AbsentError(f"not installed: {error}") from error


def check(names: Sequence[str], p: Problem, tolerance: float) -> tuple[dict[str, float], dict[str, str]]:
    """(largest relative error of each arm on `p`, why the others can't take part)."""
    errors: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name in names:
        try:
            own, loss = prepared(name, p)
            value = differentiate(own, loss)
            errors[name] = largest_error(own, value if ARMS[name].same_value else None)
        except AbsentError as reason:
            absent[name] = str(reason)
        except Exception as error:
            if name in KEEL:
                raise
            absent[name] = f"failed: {type(error).__name__}: {error}".split("\n")[0][:200]
        if not errors.get(name, 0.0) <= tolerance:
            absent[name] = f"wrong by {errors[name]:.1e}"
    return errors, absent
