"""The aggregations: each against a loop over tokens, and what their weights must sum to."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grpo.config import Aggregation
from grpo.kernels.reduce import sequence_token_weights
from grpo.records import StepDenominator

CONSTANT = 16

#: (prompt uid, loss tokens) of each sequence, with at least one loss token in the step.
steps = st.lists(st.tuples(st.integers(0, 3), st.integers(0, CONSTANT)), min_size=1, max_size=10).filter(
    lambda rows: any(tokens for _, tokens in rows)
)


def denominator(rows):
    return StepDenominator(
        num_sequences=sum(1 for _, tokens in rows if tokens),
        num_tokens=sum(tokens for _, tokens in rows),
        num_prompts=len({uid for uid, tokens in rows if tokens}),
    )


def weights_of(aggregation, rows):
    return sequence_token_weights(
        aggregation,
        [tokens for _, tokens in rows],
        [uid for uid, _ in rows],
        denominator(rows),
        constant_length=CONSTANT,
    )


def mean(values):
    return math.fsum(values) / len(values)


def looped(aggregation, rows, losses):
    """The aggregation by its definition, from the losses of single tokens; `losses[i]` are those of sequence i."""
    used = [(uid, row) for (uid, tokens), row in zip(rows, losses, strict=True) if tokens]
    if aggregation is Aggregation.token_mean:
        return mean([loss for _, row in used for loss in row])
    if aggregation is Aggregation.sequence_mean:
        return mean([mean(row) for _, row in used])
    if aggregation is Aggregation.prompt_mean:
        uids = sorted({uid for uid, _ in used})
        return mean([mean([loss for other, row in used if other == uid for loss in row]) for uid in uids])
    return mean([math.fsum(row) / CONSTANT for _, row in used])


def test_by_hand():
    rows = [(7, 2), (7, 6), (9, 4), (9, 0)]  # 3 sequences count, 12 tokens, 2 prompts
    assert weights_of(Aggregation.token_mean, rows) == pytest.approx([1 / 12, 1 / 12, 1 / 12, 0])
    assert weights_of(Aggregation.sequence_mean, rows) == pytest.approx([1 / 6, 1 / 18, 1 / 12, 0])
    assert weights_of(Aggregation.prompt_mean, rows) == pytest.approx([1 / 16, 1 / 16, 1 / 8, 0])
    assert weights_of(Aggregation.constant_length, rows) == pytest.approx([1 / 48, 1 / 48, 1 / 48, 0])


@pytest.mark.parametrize("aggregation", list(Aggregation))
@given(rows=steps, seed=st.integers(0, 1000))
def test_matches_its_definition(aggregation, rows, seed):
    losses = [[math.sin(seed + 13 * i + 7 * t) for t in range(tokens)] for i, (_, tokens) in enumerate(rows)]
    weights = weights_of(aggregation, rows)
    found = math.fsum(weight * loss for weight, row in zip(weights, losses, strict=True) for loss in row)
    assert found == pytest.approx(looped(aggregation, rows, losses), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("aggregation", list(Aggregation))
@given(rows=steps)
def test_weights_of_all_tokens_sum_to_1_or_to_the_share_of_the_constant_length(aggregation, rows):
    weights = weights_of(aggregation, rows)
    total = math.fsum(weight * tokens for weight, (_, tokens) in zip(weights, rows, strict=True))
    counts = denominator(rows)
    expected = counts.num_tokens / (counts.num_sequences * CONSTANT) if aggregation == "constant_length" else 1.0
    assert total == pytest.approx(expected)
    assert [weight > 0 for weight in weights] == [tokens > 0 for _, tokens in rows]


@pytest.mark.parametrize("aggregation", list(Aggregation))
def test_the_denominator_is_the_one_given(aggregation):
    """Weights of a part of a step, with the whole step's counts, are the whole step's weights."""
    rows = [(0, 3), (0, 5), (1, 2), (1, 8)]
    part = sequence_token_weights(aggregation, [3, 5], [0, 0], denominator(rows), constant_length=CONSTANT)
    assert part == weights_of(aggregation, rows)[:2]


def test_every_sequence_masked():
    nothing = StepDenominator(num_sequences=1, num_tokens=1, num_prompts=1)
    for aggregation in Aggregation:
        assert sequence_token_weights(aggregation, [0, 0], [0, 1], nothing, constant_length=8) == [0.0, 0.0]
