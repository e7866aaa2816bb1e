"""Every record crosses process boundaries: it pickles, can't be changed, and is built by name."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, fields, is_dataclass

import numpy as np
import pytest
import torch

from grpo import records
from grpo.loss import loss_tokens
from grpo.packing import pack
from grpo.records import (
    FinishReason,
    LossOutput,
    RequestTiming,
    StepDenominator,
    StepReport,
    TensorSpec,
    WeightManifest,
    WeightUpdate,
)
from rewards.base import Attempt, Verdict
from tests.builders import make_completion, make_judged, make_scored, make_sequence

SCORED = make_scored([0.0, 1.0], [make_completion([3]), make_completion([4, 5], finish_reason=FinishReason.LENGTH)])
SPEC = TensorSpec(name="w", shape=(2, 3), dtype="bfloat16")
EXAMPLES = [
    SCORED.group.prompt.task,
    SCORED.group.prompt,
    SCORED.group.completions[0],
    RequestTiming(admitted_s=1.0, scheduled_s=1.5, first_token_s=2.0, finished_s=3.0),
    SCORED.group,
    make_judged([0.5, float("nan")]),
    SCORED,
    make_sequence([1], [2, 3]),
    StepDenominator(num_sequences=1, num_tokens=2, num_prompts=3),
    pack([[make_sequence([1], [2, 3])]], [[0.5]]),
    loss_tokens(pack([[make_sequence([1], [2, 3])]], [[0.5]])),
    LossOutput(loss=torch.tensor(1.0), sums={"tokens": torch.tensor(2.0)}, maxima={}, minima={}),
    StepReport(metrics={"learner/loss": 0.5}, num_tokens=3, compute_s=0.1),
    SPEC,
    WeightManifest(buckets=((SPEC,),)),
    WeightUpdate(policy_version=1, checksums={"w": -5}, transfer_s=0.1, load_s=0.2),
    Verdict.valid(1.0, {"tests_total": 2}),
    Verdict.failed("broke"),
    Attempt(
        prompt=(("user", "x"),),
        prefill="",
        completion="y",
        token_ids=(1,),
        reference={},
        finish_reason="stop",
        domain="code",
    ),
]
each = pytest.mark.parametrize("record", EXAMPLES, ids=lambda record: type(record).__name__)


def assert_same(first: object, second: object) -> None:
    """Equal in type and content, through records, mappings, sequences, arrays and tensors."""
    assert type(first) is type(second)
    if is_dataclass(first):
        for field in fields(first):
            assert_same(getattr(first, field.name), getattr(second, field.name))
    elif isinstance(first, Mapping) and isinstance(second, Mapping):
        assert_same(list(first), list(second))
        assert_same(list(first.values()), list(second.values()))
    elif isinstance(first, list | tuple) and isinstance(second, list | tuple):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same(one, other)
    elif isinstance(first, np.ndarray | torch.Tensor):
        assert first.dtype == second.dtype  # pyright: ignore[reportAttributeAccessIssue]
        np.testing.assert_array_equal(np.asarray(first), np.asarray(second))
    else:
        assert first == second or first != first  # NaN


def test_every_record_has_an_example():
    declared = {kind for _, kind in inspect.getmembers(records, inspect.isclass) if is_dataclass(kind)}
    assert declared <= {type(example) for example in EXAMPLES}


@each
@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_pickles(record: object, protocol: int):
    assert_same(pickle.loads(pickle.dumps(record, protocol)), record)


@each
def test_is_frozen_and_slotted(record: object):
    name = fields(record)[0].name  # pyright: ignore[reportArgumentType]
    with pytest.raises(FrozenInstanceError):
        setattr(record, name, None)
    assert not hasattr(record, "__dict__")
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        record.typing_error = 1  # pyright: ignore[reportAttributeAccessIssue]


@each
def test_is_built_by_name_only(record: object):
    assert all(field.kw_only for field in fields(record))  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError):
        type(record)(*(getattr(record, field.name) for field in fields(record)))  # pyright: ignore[reportArgumentType]


@each
def test_has_a_docstring_of_its_own(record: object):
    assert type(record).__doc__
    assert not (type(record).__doc__ or "").startswith(type(record).__name__ + "(")


def test_counting():
    assert TensorSpec(name="scalar", shape=(), dtype="float32").num_elements == 1
    assert TensorSpec(name="none", shape=(3, 0), dtype="float32").num_elements == 0
    assert TensorSpec(name="large", shape=(1 << 20, 1 << 20), dtype="float32").num_elements == 1 << 40
    assert WeightManifest(buckets=((SPEC, SPEC), (TensorSpec(name="f", shape=(5,), dtype="float32"),))).num_bytes == 44
    assert make_sequence([1, 2], [3, 4, 5]).num_loss_tokens == 3
