"""Packed attention against dense attention in float64 with an explicit table of who sees whom."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import AttentionInterface

from grpo.learner.attention import NAME, packed_attention, register

D = 8

LAYOUTS = [
    ((1, (1,)),),
    ((4, ()),),
    ((3, (5,)),),
    ((3, (2, 4, 1)),),
    ((3, (2, 4, 1)), (1, (6,)), (5, (1, 1))),
    ((2, (0, 3)), (4, (0,))),
]


def sees(bundles):
    """[N, N] bool, entry by entry: the query's own prompt, and its own completion, both up to itself."""
    owner = []  # of every token: (bundle, completion or None for the prompt)
    for number, (prompt, completions) in enumerate(bundles):
        owner += [(number, None)] * prompt
        for which, length in enumerate(completions):
            owner += [(number, which)] * length
    table = torch.zeros(len(owner), len(owner), dtype=torch.bool)
    for query, (bundle, piece) in enumerate(owner):
        for key, (other_bundle, other_piece) in enumerate(owner):
            same = other_bundle == bundle and other_piece in (None, piece)
            table[query, key] = same and key <= query
    return table


def dense(query, key, value, bundles, scaling):
    """softmax(q k^T scaling) v with the table above; every query head written out."""
    heads, repeats = query.shape[1], query.shape[1] // key.shape[1]
    visible = sees(bundles)
    outputs = []
    for head in range(heads):
        scores = query[0, head] @ key[0, head // repeats].T * scaling
        outputs.append(scores.masked_fill(~visible, -torch.inf).softmax(-1) @ value[0, head // repeats])
    return torch.stack(outputs, dim=1)[None]


def inputs(bundles, heads, kv_heads, seed=0):
    total = sum(prompt + sum(completions) for prompt, completions in bundles)
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(1, count, total, D, generator=generator, requires_grad=True)
        for count in (heads, kv_heads, kv_heads)
    ]


def compare(bundles, heads, kv_heads, scaling):
    query, key, value = inputs(bundles, heads, kv_heads)
    doubles = [t.detach().double().requires_grad_() for t in (query, key, value)]
    found, weights = packed_attention(nn.Identity(), query, key, value, None, scaling=scaling, bundles=bundles)
    assert weights is None
    expected = dense(doubles[0], doubles[1], doubles[2], bundles, scaling or 1 / math.sqrt(D))
    assert found.shape == expected.shape
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    (found * upstream).sum().backward()
    (expected * upstream).sum().backward()
    for single, double in zip((query, key, value), doubles, strict=True):
        assert single.grad is not None
        assert double.grad is not None
        torch.testing.assert_close(single.grad.double(), double.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("heads", "kv_heads"), [(2, 2), (6, 2), (3, 1)])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("bundles", LAYOUTS, ids=str)
def test_matches_dense_attention_and_its_gradients(bundles, heads, kv_heads, scaling):
    compare(bundles, heads, kv_heads, scaling)


@settings(max_examples=25)
@given(
    bundles=st.lists(
        st.tuples(st.integers(1, 5), st.lists(st.integers(0, 5), max_size=3).map(tuple)), min_size=1, max_size=3
    ).map(tuple)
)
def test_matches_dense_attention_on_any_layout(bundles):
    compare(bundles, 4, 2, None)


def test_a_bundle_is_as_if_each_completion_stood_alone_behind_its_prompt():
    prompt, lengths = 3, (2, 4)
    query, key, value = (t.detach() for t in inputs(((prompt, lengths),), 2, 2))
    packed, _ = packed_attention(nn.Identity(), query, key, value, None, bundles=((prompt, lengths),))
    start = prompt
    for length in lengths:
        index = [*range(prompt), *range(start, start + length)]
        alone, _ = packed_attention(
            nn.Identity(),
            query[:, :, index],
            key[:, :, index],
            value[:, :, index],
            None,
            bundles=((prompt, (length,)),),
        )
        torch.testing.assert_close(packed[:, start : start + length], alone[:, prompt:])
        start += length


def test_what_a_token_must_not_see_may_be_nan():
    bundles = ((2, (2, 2)), (1, (1,)))
    query, key, value = (t.detach() for t in inputs(bundles, 2, 2))
    clean, _ = packed_attention(nn.Identity(), query, key, value, None, bundles=bundles)
    key[:, :, 4:] = torch.nan  # the second completion and the second bundle
    value[:, :, 4:] = torch.nan
    poisoned, _ = packed_attention(nn.Identity(), query, key, value, None, bundles=bundles)
    torch.testing.assert_close(poisoned[:, :4], clean[:, :4])


def test_lengths_must_fill_the_batch():
    query, key, value = inputs(((3, (2,)),), 2, 2)
    with pytest.raises(AssertionError):
        packed_attention(nn.Identity(), query, key, value, None, bundles=((3, (1,)),))


def test_registering_twice_is_once():
    register()
    register()
    assert AttentionInterface()[NAME] is packed_attention
