"""What the probe compares, and what it says where engine and learner differ."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grpo.config import Dtype
from grpo.records import FloatArray
from grpo.sync.probe import first_different, largest_difference, mismatch, probe_batch, probe_tokens, tolerance


def floats(values: list[float]) -> FloatArray:
    return np.asarray(values, dtype=np.float32)


def test_the_largest_difference_and_what_is_not_a_number():
    assert largest_difference(floats([-1.0, -2.0]), floats([-1.5, -1.75])) == 0.5
    assert largest_difference(floats([-1.0, math.nan]), floats([-1.0, -2.0])) == math.inf
    assert largest_difference(floats([-math.inf]), floats([-math.inf])) == math.inf


def test_the_coarser_type_sets_the_tolerance():
    assert tolerance(Dtype.float32, Dtype.float32) == 1e-3
    assert tolerance(Dtype.float32, Dtype.bfloat16) == tolerance(Dtype.bfloat16, Dtype.float16) == 0.5


@pytest.mark.parametrize(
    ("encoded", "max_length", "expected"),
    [(range(100), 200, tuple(range(64))), (range(100), 11, tuple(range(10))), ([5], 200, (0, 1)), ([], 9, (0, 1))],
)
def test_the_probe_fits_the_engine_and_has_something_to_score(encoded, max_length, expected):
    assert probe_tokens(encoded, max_length) == expected


def test_all_tokens_but_the_first_are_scored():
    batch = probe_batch((7, 8, 9))
    assert batch.token_ids.tolist() == [7, 8, 9]
    assert batch.targets.tolist() == [8, 9]
    assert batch.loss_positions.tolist() == [0, 1]


def test_the_first_tensor_in_the_order_sent_is_named():
    sent = {"a": 1, "b": 2, "c": 3}
    assert first_different(sent, [{"a": 1, "c": 3}, {"b": 2}]) is None
    assert first_different(sent, [{"c": 4}, {"b": 9, "c": 3}]) == ("b", 1)
    assert "differs is b in its process 1" in str(mismatch(3, "rollout_0", 1.5, 0.5, ("b", 1)))
    assert "differ by 1.5 nats, and rounding explains 0.5. No tensor" in str(mismatch(3, "rollout_0", 1.5, 0.5, None))
