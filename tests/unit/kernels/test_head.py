"""The head with the loss inside: values and gradients against logits in float64, in chunks, in one pass and two."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from grpo.config import AlgorithmConfig, Importance, RatioLevel, Surrogate
from grpo.kernels import gemm
from grpo.kernels.head import HeadLoss, head_logprobs, head_loss
from grpo.kernels.objective import is_token_level
from tests import oracles
from tests.oracles import Case, make_case

INDEX = [0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 3]
L, H, V = len(INDEX), 3, 19
TEMPERATURE = 0.8
ONE_PASS = AlgorithmConfig(kl_coefficient=0.3, importance_cap=1.5)
ONE_PASS_ENTROPY = AlgorithmConfig(surrogate=Surrogate.cispo, entropy_coefficient=0.1)
TWO_PASSES = AlgorithmConfig(ratio_level=RatioLevel.sequence, kl_coefficient=0.3)
TWO_PASSES_ENTROPY = AlgorithmConfig(
    importance=Importance.sequence_mask, off_policy_threshold=0.2, entropy_coefficient=0.1
)
CONFIGS = {
    "one_pass": ONE_PASS,
    "one_pass_entropy": ONE_PASS_ENTROPY,
    "two_passes": TWO_PASSES,
    "two_passes_entropy": TWO_PASSES_ENTROPY,
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@dataclass(frozen=True, kw_only=True)
class Operands:
    hidden: Tensor
    weight: Tensor
    bias: Tensor | None
    targets: Tensor

    def parameters(self) -> list[Tensor]:
        return [t for t in (self.hidden, self.weight, self.bias) if t is not None]


def make_operands(
    length: int = L, *, bias: bool = False, dtype: torch.dtype = torch.float32, seed: int = 0
) -> Operands:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype).requires_grad_()

    return Operands(
        hidden=draw(length, H),
        weight=draw(V, H),
        bias=draw(V) if bias else None,
        targets=torch.randint(0, V, (length,), generator=generator),
    )


@dataclass(frozen=True, kw_only=True)
class Naive:
    """All logits at once, in float64, from the same operands; the loss from the oracle."""

    case: Case
    loss: float
    logprobs: Tensor
    entropy: Tensor
    gradients: list[Tensor]


def naive(operands: Operands, config: AlgorithmConfig, *, proximal: bool = True) -> Naive:
    moving = [p.detach().double().requires_grad_() for p in operands.parameters()]
    logits = moving[0] @ moving[1].T
    everything = ((logits if operands.bias is None else logits + moving[2]) / TEMPERATURE).log_softmax(-1)
    logprobs = everything.gather(1, operands.targets[:, None])[:, 0]
    entropy = -(everything.exp() * everything).sum(-1)
    case = make_case(logprobs.tolist(), entropy.tolist(), sequence_index=INDEX[: len(logprobs)], proximal=proximal)
    case = replace(case, logprobs=logprobs.tolist(), entropy=entropy.tolist())  # not rounded
    by_logprob = torch.tensor(oracles.gradient(case, config), dtype=torch.float64)
    by_entropy = -config.entropy_coefficient * torch.tensor(case.weights, dtype=torch.float64)
    ((by_logprob * logprobs).sum() + (by_entropy * entropy).sum()).backward()
    return Naive(
        case=case,
        loss=oracles.total_loss(case, config),
        logprobs=logprobs.detach(),
        entropy=entropy.detach(),
        gradients=[p.grad for p in moving if p.grad is not None],
    )


def run(operands: Operands, case: Case, config: AlgorithmConfig, chunk_tokens: int = 4) -> HeadLoss:
    return head_loss(
        operands.hidden,
        operands.weight,
        case.tokens(operands.targets),
        config,
        temperature=TEMPERATURE,
        chunk_tokens=chunk_tokens,
        bias=operands.bias,
    )


def assert_gradients(
    found: list[Tensor | None], expected: list[Tensor], rtol: float = 1e-4, atol: float = 1e-6
) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one is not None
        torch.testing.assert_close(one.double(), other, rtol=rtol, atol=atol)


def test_the_configs_are_what_they_are_called():
    assert [is_token_level(c) for c in CONFIGS.values()] == [True, True, False, False]


@pytest.mark.parametrize("proximal", [True, False], ids=["several_updates", "one_update"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("chunk_tokens", [1, 3, L - 1, L, L + 1, 1000])
@every_config
def test_equal_to_naive_in_float64(config, chunk_tokens, bias, proximal):
    operands = make_operands(bias=bias)
    expected = naive(operands, config, proximal=proximal)
    found = run(operands, expected.case, config, chunk_tokens)
    found.loss.backward()
    assert found.loss.item() == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(found.logprobs.double(), expected.logprobs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.entropy.double(), expected.entropy, rtol=1e-5, atol=1e-6)
    assert not found.logprobs.requires_grad and not found.entropy.requires_grad
    assert_gradients([p.grad for p in operands.parameters()], expected.gradients)


@pytest.mark.parametrize("chunk_tokens", [1, 3, L, 1000])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_logprobs_alone(chunk_tokens, bias):
    operands = make_operands(bias=bias)
    expected = naive(operands, ONE_PASS)
    logprobs, entropy = head_logprobs(
        operands.hidden,
        operands.weight,
        operands.targets,
        temperature=TEMPERATURE,
        chunk_tokens=chunk_tokens,
        bias=operands.bias,
    )
    torch.testing.assert_close(logprobs.double(), expected.logprobs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(entropy.double(), expected.entropy, rtol=1e-5, atol=1e-6)
    assert not logprobs.requires_grad and not entropy.requires_grad


@every_config
def test_without_gradient_the_loss_is_the_same(config):
    operands = make_operands(bias=True)
    expected = naive(operands, config)
    with torch.no_grad():
        found = run(operands, expected.case, config)
    assert found.loss.item() == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
    assert not any(t.requires_grad for t in found)


@pytest.mark.parametrize("length", [0, 1])
@pytest.mark.parametrize("chunk_tokens", [1, 5])
@every_config
def test_no_token_and_one(config, chunk_tokens, length):
    operands = make_operands(length, bias=True)
    expected = naive(operands, config)
    found = run(operands, expected.case, config, chunk_tokens)
    found.loss.backward()
    assert found.logprobs.shape == found.entropy.shape == (length,)
    assert found.loss.item() == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
    assert_gradients([p.grad for p in operands.parameters()], expected.gradients)
    if not length:
        assert operands.weight.grad is not None and (operands.weight.grad == 0).all()


@every_config
def test_tied_weights_get_both_gradients(config):
    """The embedding is the head: hidden states are made of the very tensor they are multiplied with."""
    operands = make_operands()
    ids = torch.tensor([i % V for i in range(7, 7 + L)])
    embedding = operands.weight.detach().clone().requires_grad_()
    expected = naive(replace(operands, hidden=embedding[ids] ** 2, weight=embedding), config)
    tied = replace(operands, hidden=embedding[ids] ** 2, weight=embedding)
    run(tied, expected.case, config).loss.backward()
    by_hidden, by_weight = expected.gradients
    through_hidden = torch.zeros(V, H, dtype=torch.float64)
    through_hidden.index_add_(0, ids, by_hidden * 2 * embedding.detach().double()[ids])
    assert_gradients([embedding.grad], [through_hidden + by_weight])


@pytest.mark.parametrize("frozen", ["hidden", "weight", "bias", "hidden weight", "weight bias", "hidden weight bias"])
@every_config
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(config, frozen):
    operands = make_operands(bias=True)
    expected = naive(operands, config)
    for name in frozen.split():
        getattr(operands, name).requires_grad_(False)
    found = run(operands, expected.case, config)
    assert found.loss.item() == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
    assert found.loss.requires_grad == (frozen != "hidden weight bias")
    if found.loss.requires_grad:
        found.loss.backward()
    for parameter, gradient in zip(operands.parameters(), expected.gradients, strict=True):
        if parameter.requires_grad:
            assert_gradients([parameter.grad], [gradient])
        else:
            assert parameter.grad is None


@every_config
def test_no_gradient_is_made_that_nobody_needs(config):
    operands = make_operands()
    case = naive(operands, config).case
    operands.weight.requires_grad_(False)
    with Shapes() as shapes:
        run(operands, case, config)
    assert (V, H) not in shapes.allocated
    operands.weight.requires_grad_()
    operands.hidden.requires_grad_(False)
    with Shapes() as shapes:
        run(operands, case, config)
    assert (V, H) in shapes.allocated and (L, H) not in shapes.allocated


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_config
def test_the_outer_gradient_multiplies(config, dtype):
    operands = make_operands(bias=True, dtype=dtype)
    expected = naive(operands, config)
    (-2.5 * run(operands, expected.case, config).loss).backward()
    accuracy = {torch.float32: 1e-4, torch.bfloat16: 2**-7}[dtype]
    assert_gradients(
        [p.grad for p in operands.parameters()],
        [-2.5 * g for g in expected.gradients],
        rtol=accuracy,
        atol=accuracy / 10,
    )


@every_config
def test_losses_of_two_heads_add_up(config):
    operands, other = make_operands(), make_operands(seed=1)
    other = replace(other, weight=operands.weight)
    first, second = naive(operands, config), naive(other, config)
    (run(operands, first.case, config).loss + run(other, second.case, config).loss).backward()
    assert_gradients([operands.hidden.grad, other.hidden.grad], [first.gradients[0], second.gradients[0]])
    assert_gradients([operands.weight.grad], [first.gradients[1] + second.gradients[1]])


def test_gradients_are_used_once():
    operands = make_operands()
    loss = run(operands, naive(operands, ONE_PASS).case, ONE_PASS).loss
    loss.backward(retain_graph=True)
    with pytest.raises(AssertionError, match="used once"):
        loss.backward()


def test_there_is_no_second_derivative():
    operands = make_operands()
    scale = torch.ones((), requires_grad=True)
    loss = scale * run(operands, naive(operands, ONE_PASS).case, ONE_PASS).loss
    (gradient,) = torch.autograd.grad(loss, operands.hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("converted", [8, 4096])
@every_config
def test_16_bit_operands_lose_nothing_but_their_own_rounding(config, converted, dtype, bias, monkeypatch):
    """Logits are float32 sums: logprobs are those of the rounded operands, to float32's accuracy."""
    monkeypatch.setattr(gemm, "_SLICE", converted)  # vocabulary entries made float32 at a time
    operands = make_operands(bias=bias, dtype=dtype)
    expected = naive(operands, config)  # of the operands as they are, rounded
    found = run(operands, expected.case, config)
    found.loss.backward()
    assert found.loss.dtype == found.logprobs.dtype == found.entropy.dtype == torch.float32
    torch.testing.assert_close(found.logprobs.double(), expected.logprobs, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.entropy.double(), expected.entropy, rtol=1e-5, atol=1e-6)
    assert found.loss.item() == pytest.approx(expected.loss, rel=1e-5, abs=1e-6)
    for parameter, gradient in zip(operands.parameters(), expected.gradients, strict=True):
        assert parameter.grad is not None and parameter.grad.dtype == dtype
        # Summed in float32 and rounded once.
        torch.testing.assert_close(parameter.grad.double(), gradient, rtol=torch.finfo(dtype).eps, atol=1e-5)


@every_config
def test_operands_need_not_be_contiguous(config):
    operands = make_operands()
    expected = naive(operands, config)
    wide = torch.zeros(L, 2 * H)
    wide[:, ::2] = operands.hidden.detach()
    strided = replace(
        operands,
        hidden=wide[:, ::2].detach().requires_grad_(),
        weight=operands.weight.detach().T.contiguous().T.requires_grad_(),
    )
    assert not strided.hidden.is_contiguous() and not strided.weight.is_contiguous()
    run(strided, expected.case, config).loss.backward()
    assert_gradients([p.grad for p in strided.parameters()], expected.gradients)


class Shapes(TorchDispatchMode):
    """Shapes of the tensors that operations return, `made` of all, `allocated` of those with memory of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.made: set[tuple[int, ...]] = set()
        self.allocated: set[tuple[int, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # pyright: ignore[reportIncompatibleMethodOverride]
        result = func(*args, **(kwargs or {}))
        given = {t.untyped_storage().data_ptr() for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.made.add(tuple(tensor.shape))
                if tensor.untyped_storage().data_ptr() not in given:
                    self.allocated.add(tuple(tensor.shape))
        return result


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_config
def test_no_more_logits_than_a_chunk_exist(config, dtype, grad):
    operands = make_operands(bias=True, dtype=dtype)
    case = naive(operands, config).case
    chunk = 4
    with Shapes() as shapes, torch.set_grad_enabled(grad):
        loss = run(operands, case, config, chunk).loss
        if grad:
            loss.backward()
    over_vocabulary = [shape for shape in shapes.made if V in shape and len(shape) > 1]
    assert (chunk, V) in over_vocabulary  # the recorder sees inside
    others = {shape[0] if shape[1] == V else shape[1] for shape in over_vocabulary}
    assert max(others - {H}) <= chunk
    assert all(len(shape) < 3 for shape in shapes.made)


@every_config
def test_chunks_are_of_one_size(config):
    """11 tokens in chunks of at most 5 are 4 + 4 + 3, not 5 + 5 + 1: a small product costs nearly what a large does."""
    operands = make_operands()
    case = naive(operands, config).case
    with Shapes() as shapes:
        run(operands, case, config, 5)
    assert {shape[0] for shape in shapes.made if len(shape) == 2 and shape[1] == V} == {4, 3}
