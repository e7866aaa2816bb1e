"""The gradient of a step does not depend on how it is cut: ranks, micro-batches, order, shared prompts, head chunks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grpo.config import Aggregation, AlgorithmConfig, Importance, RatioLevel
from grpo.kernels.head import HeadLoss, head_logprobs, head_loss
from grpo.kernels.objective import is_token_level
from grpo.kernels.reduce import sequence_token_weights
from grpo.loss import loss_output, loss_tokens
from grpo.packing import pack, plan_micro_batches
from grpo.records import MicroBatch, StepDenominator, TrainSequence

V, H = 13, 4
TOKEN_LEVEL = AlgorithmConfig(kl_coefficient=0.2, entropy_coefficient=0.05, importance_cap=1.2)
SEQUENCE_LEVEL = AlgorithmConfig(
    ratio_level=RatioLevel.sequence,
    importance=Importance.sequence_mask,
    importance_floor=0.2,
    off_policy_threshold=0.4,
    kl_coefficient=0.2,
)
#: Prompt and completion length of each sequence; the last is masked: in the step, but with no loss token.
SHAPES = [(0, 3), (0, 1), (0, 5), (1, 4), (1, 2), (2, 1), (2, 3), (2, 2)]
PROMPTS = [[1, 2, 3], [4], [5, 6]]


@dataclass(frozen=True)
class Step:
    """Sequences of a step and, for each, its proximal and reference logprobs [T]."""

    sequences: list[TrainSequence]
    proximal: list[Tensor]
    reference: list[Tensor]


@dataclass(frozen=True)
class Model:
    """A bigram model: hidden states are looked up by token and stretched with its position; the head is its own."""

    embedding: Tensor
    head: Tensor

    def hidden(self, batch: MicroBatch) -> Tensor:
        stretched = self.embedding[batch.token_ids] * (1 + 0.1 * batch.position_ids[:, None])
        return stretched[batch.loss_positions]


def make_model(seed: int = 0) -> Model:
    generator = torch.Generator().manual_seed(seed)
    embedding, head = (torch.randn(V, H, generator=generator).requires_grad_() for _ in range(2))
    return Model(embedding, head)


def make_step() -> Step:
    rng = np.random.default_rng(5)
    model = make_model()
    step = Step([], [], [])
    for number, (prompt, length) in enumerate(SHAPES):
        completion = rng.integers(0, V, length)
        sequence = TrainSequence(
            token_ids=np.asarray([*PROMPTS[prompt], *completion], dtype=np.int64),
            num_prompt_tokens=len(PROMPTS[prompt]),
            behavior_logprobs=np.zeros(length, dtype=np.float32),
            advantage=(-1.0) ** number * (0.5 + 0.25 * number),
            prompt_uid=prompt,
        )
        batch = pack([[sequence]], [[1.0]])
        current, _ = head_logprobs(model.hidden(batch), model.head, batch.targets, temperature=0.9, chunk_tokens=99)
        noise = [torch.from_numpy(rng.uniform(-0.4, 0.4, length) + rng.uniform(-0.3, 0.3)).float() for _ in range(3)]
        sequence.behavior_logprobs[:] = (current + noise[0]).numpy()
        step.sequences.append(sequence)
        step.proximal.append(current + noise[1])
        step.reference.append(current + noise[2])
    return step


STEP = make_step()
COUNTS = [*(length for _, length in SHAPES[:-1]), 0]


def weights_of(aggregation: Aggregation) -> list[float]:
    denominator = StepDenominator(num_sequences=len(SHAPES) - 1, num_tokens=sum(COUNTS), num_prompts=len(PROMPTS))
    uids = [s.prompt_uid for s in STEP.sequences]
    return sequence_token_weights(aggregation, COUNTS, uids, denominator, constant_length=8)


def passes(
    batches: Sequence[Sequence[Sequence[int]]],
    config: AlgorithmConfig,
    weights: Sequence[float],
    chunk_tokens: int,
    fillers: frozenset[int] = frozenset(),
):
    """(loss, gradients, combined metrics) of micro-batches, each a list of bundles of sequence numbers."""
    model = make_model()
    loss, metrics = 0.0, {}
    for number, bundles in enumerate(batches):
        scale = 0.0 if number in fillers else 1.0
        batch = pack(
            [[STEP.sequences[i] for i in bundle] for bundle in bundles],
            [[scale * weights[i] for i in bundle] for bundle in bundles],
        )
        kept = [i for bundle in bundles for i in bundle if scale * weights[i]]
        known = {
            name: torch.cat([torch.zeros(0), *(getattr(STEP, name)[i] for i in kept)])
            for name in ("proximal", "reference")
        }
        tokens = loss_tokens(batch, **known)
        head: HeadLoss = head_loss(
            model.hidden(batch), model.head, tokens, config, temperature=0.9, chunk_tokens=chunk_tokens
        )
        head.loss.backward()
        output = loss_output(head, tokens, config)
        loss += head.loss.item()
        for combine, found in ((sum, output.sums), (max, output.maxima), (min, output.minima)):
            for name, value in found.items():
                metrics[name] = combine([metrics[name], value.item()]) if name in metrics else value.item()
    return loss, (model.embedding.grad, model.head.grad), metrics


def assert_same(found, expected) -> None:
    assert found[0] == pytest.approx(expected[0], rel=1e-5, abs=1e-6)
    for one, other in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert found[2] == pytest.approx(expected[2], rel=1e-4, abs=1e-5)


@st.composite
def layouts(draw: st.DrawFn) -> list[list[list[int]]]:
    """Every sequence in one of several micro-batches, in any order; neighbours of one prompt may share it."""
    batches: list[list[list[int]]] = [[] for _ in range(draw(st.integers(1, 4)))]
    for number in draw(st.permutations(range(len(SHAPES)))):
        batch = draw(st.sampled_from(batches))
        if batch and SHAPES[batch[-1][0]][0] == SHAPES[number][0] and draw(st.booleans()):
            batch[-1].append(number)
        else:
            batch.append([number])
    return [batch for batch in batches if batch]


every_aggregation = pytest.mark.parametrize("aggregation", Aggregation)
both_levels = pytest.mark.parametrize("config", [TOKEN_LEVEL, SEQUENCE_LEVEL], ids=["token_level", "sequence_level"])


@every_aggregation
@both_levels
@given(layout=layouts(), chunk_tokens=st.integers(1, 9))
def test_any_partition_gives_the_same_loss_gradient_and_metrics(config, aggregation, layout, chunk_tokens):
    weights = weights_of(aggregation)
    whole = passes([[[i] for i in range(len(SHAPES))]], config, weights, 1000)
    assert_same(passes(layout, config, weights, chunk_tokens), whole)


@every_aggregation
@both_levels
@pytest.mark.parametrize("max_tokens", [8, 13, 100])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_the_planned_partitions_do(config, aggregation, num_ranks, max_tokens):
    """With the fillers that make all ranks pass the same number of times: their weight is 0."""
    weights = weights_of(aggregation)
    whole = passes([[[i] for i in range(len(SHAPES))]], config, weights, 1000)
    planned = plan_micro_batches(STEP.sequences, num_ranks=num_ranks, max_tokens=max_tokens)
    plans = [plan for rank in planned for plan in rank]
    fillers = frozenset(number for number, plan in enumerate(plans) if plan.filler)
    assert_same(passes([plan.bundles for plan in plans], config, weights, 4, fillers), whole)


def test_the_step_is_one_that_could_tell():
    """Two levels, losses of both signs, tokens masked and not; and a wrong weight shows."""
    assert is_token_level(TOKEN_LEVEL) and not is_token_level(SEQUENCE_LEVEL)
    weights = weights_of(Aggregation.sequence_mean)
    layout = [[[i] for i in range(len(SHAPES))]]
    whole = passes(layout, SEQUENCE_LEVEL, weights, 1000)
    assert 0 < whole[2]["importance_masked"] < whole[2]["tokens"] == sum(COUNTS)
    with pytest.raises(AssertionError):
        assert_same(passes(layout, SEQUENCE_LEVEL, [w * 1.01 for w in weights], 1000), whole)
