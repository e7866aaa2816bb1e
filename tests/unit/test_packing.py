"""Plans hold every sequence once and fit; the packed layout is checked token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.packing import MicroBatchPlan, pack, plan_micro_batches
from tests.builders import make_sequence

#: For each prompt its length and the lengths of its completions.
prompts = st.lists(
    st.tuples(st.integers(1, 6), st.lists(st.integers(1, 9), min_size=1, max_size=6)), min_size=1, max_size=6
)


def make_sequences(lengths):
    """Sequences whose tokens are all different, so that a misplaced one is seen."""
    sequences, counter = [], 0
    for uid, (prompt_length, completions) in enumerate(lengths):
        prompt = list(range(counter, counter + prompt_length))
        counter += prompt_length
        for length in completions:
            completion = list(range(counter, counter + length))
            counter += length
            sequences.append(make_sequence(prompt, completion, uid=uid, advantage=uid + 0.5, start=-counter / 100))
    return sequences


def packed_length(sequences, plan: MicroBatchPlan):
    return sum(
        sequences[bundle[0]].num_prompt_tokens + sum(sequences[i].num_loss_tokens for i in bundle)
        for bundle in plan.bundles
    )


@given(
    lengths=prompts, num_ranks=st.integers(1, 5), slack=st.integers(0, 40), shuffle=st.randoms(use_true_random=False)
)
def test_a_plan_is_complete_and_fits(lengths, num_ranks, slack, shuffle):
    sequences = make_sequences(lengths)
    shuffle.shuffle(sequences)
    max_tokens = max(len(s.token_ids) for s in sequences) + slack
    ranks = plan_micro_batches(sequences, num_ranks=num_ranks, max_tokens=max_tokens)
    assert len(ranks) == num_ranks
    assert len({len(plans) for plans in ranks}) == 1
    assert ranks[0]
    real = [i for plans in ranks for plan in plans if not plan.filler for bundle in plan.bundles for i in bundle]
    assert sorted(real) == list(range(len(sequences)))
    for plan in (plan for plans in ranks for plan in plans):
        assert plan.bundles
        assert all(plan.bundles)
        for bundle in plan.bundles:
            assert len({sequences[i].prompt_uid for i in bundle}) == 1
        assert plan.num_tokens == packed_length(sequences, plan)
        assert plan.num_tokens <= max_tokens


@given(lengths=prompts, num_ranks=st.integers(1, 5), slack=st.integers(0, 40))
def test_no_rank_makes_more_passes_than_three_times_what_a_perfect_packing_needs(lengths, num_ranks, slack):
    sequences = make_sequences(lengths)
    max_tokens = max(len(s.token_ids) for s in sequences) + slack
    ranks = plan_micro_batches(sequences, num_ranks=num_ranks, max_tokens=max_tokens)
    apart = sum(len(s.token_ids) for s in sequences)
    assert len(ranks[0]) <= 3 * -(-apart // (num_ranks * max_tokens))


def test_plans_do_not_depend_on_chance():
    sequences = make_sequences([(3, [4, 5, 2]), (2, [7]), (5, [1, 1, 1, 6])])
    first = plan_micro_batches(sequences, num_ranks=2, max_tokens=20)
    assert first == plan_micro_batches(sequences, num_ranks=2, max_tokens=20)


def test_completions_of_a_prompt_share_it():
    sequences = make_sequences([(10, [5, 5, 5, 5])])
    [[plan]] = plan_micro_batches(sequences, num_ranks=1, max_tokens=64)
    assert plan.bundles == ((0, 1, 2, 3),)
    assert plan.num_tokens == 30


def test_interleaved_prompts_are_still_bundled():
    a, b = make_sequences([(4, [2, 2]), (4, [3, 3])])[:2], make_sequences([(4, [2, 2]), (4, [3, 3])])[2:]
    [[plan]] = plan_micro_batches([a[0], b[0], a[1], b[1]], num_ranks=1, max_tokens=64)
    assert {frozenset(bundle) for bundle in plan.bundles} == {frozenset({0, 2}), frozenset({1, 3})}


def test_a_bundle_that_does_not_fit_is_cut():
    sequences = make_sequences([(4, [6, 6, 6])])
    [plans] = plan_micro_batches(sequences, num_ranks=1, max_tokens=16)
    assert sorted(plan.num_tokens for plan in plans) == [10, 16]


def test_more_ranks_than_sequences_give_fillers():
    sequences = make_sequences([(2, [3]), (2, [4])])
    ranks = plan_micro_batches(sequences, num_ranks=4, max_tokens=16)
    assert [len(plans) for plans in ranks] == [1, 1, 1, 1]
    assert sum(plans[0].filler for plans in ranks) == 2


def test_two_ranks_share_one_group():
    sequences = make_sequences([(4, [8] * 8)])
    ranks = plan_micro_batches(sequences, num_ranks=2, max_tokens=200)
    assert [len(plans) for plans in ranks] == [1, 1]
    assert not any(plan.filler for plans in ranks for plan in plans)


@pytest.mark.parametrize(("sequences", "named"), [([], "0 sequences"), (make_sequences([(4, [9])]), "13 tokens")])
def test_impossible_plans_are_refused(sequences, named):
    with pytest.raises(ValueError, match=named):
        plan_micro_batches(sequences, num_ranks=1, max_tokens=12)


def naive_layout(bundles):
    """Tokens, positions, and per loss token (predictor, target, behavior, advantage, weight, sequence), by append."""
    tokens, positions, loss = [], [], []
    sequence_number = 0
    for bundle, bundle_weights in bundles:
        prompt_at = len(tokens)
        prompt = bundle[0].token_ids[: bundle[0].num_prompt_tokens].tolist()
        for position, token in enumerate(prompt):
            tokens.append(token)
            positions.append(position)
        for sequence, weight in zip(bundle, bundle_weights, strict=True):
            previous = prompt_at + len(prompt) - 1
            for t, token in enumerate(sequence.token_ids[len(prompt) :].tolist()):
                loss.append(
                    (previous, token, sequence.behavior_logprobs[t], sequence.advantage, weight, sequence_number)
                )
                previous = len(tokens)
                tokens.append(token)
                positions.append(len(prompt) + t)
            sequence_number += 1
    return tokens, positions, loss


@given(lengths=prompts, empty=st.booleans())
def test_the_layout_token_by_token(lengths, empty):
    if empty:  # a completion may be empty
        lengths = [(lengths[0][0], [*lengths[0][1], 0]), *lengths[1:]]
    sequences = make_sequences(lengths)
    by_prompt = [[s for s in sequences if s.prompt_uid == uid] for uid in range(len(lengths))]
    weights = [[(1 + i + 10 * uid) / 128 for i in range(len(bundle))] for uid, bundle in enumerate(by_prompt)]
    batch = pack(by_prompt, weights)
    tokens, positions, loss = naive_layout(list(zip(by_prompt, weights, strict=True)))
    assert batch.token_ids.tolist() == tokens
    assert batch.position_ids.tolist() == positions
    assert batch.bundles == tuple((p, tuple(c)) for p, c in lengths)
    columns = [list(column) for column in zip(*loss, strict=True)] if loss else [[]] * 6
    assert batch.loss_positions.tolist() == columns[0]
    assert batch.targets.tolist() == columns[1]
    assert batch.behavior_logprobs.tolist() == columns[2]
    assert batch.advantages.tolist() == columns[3]
    assert batch.loss_weights.tolist() == columns[4]
    assert batch.sequence_index.tolist() == columns[5]
    for name in ("token_ids", "position_ids", "loss_positions", "targets", "sequence_index"):
        assert getattr(batch, name).dtype == torch.int64
    for name in ("behavior_logprobs", "advantages", "loss_weights"):
        assert getattr(batch, name).dtype == torch.float32


@given(lengths=prompts)
def test_every_loss_token_is_predicted_at_the_position_before_it(lengths):
    """The same statement in other words: it follows its predictor in its own sequence."""
    sequences = make_sequences(lengths)
    follows = {}
    for s in sequences:
        ids = s.token_ids.tolist()
        follows |= {b: a for a, b in zip(ids[s.num_prompt_tokens - 1 :], ids[s.num_prompt_tokens :], strict=False)}
    bundles = [[s for s in sequences if s.prompt_uid == uid] for uid in range(len(lengths))]
    batch = pack(bundles, [[1.0] * len(b) for b in bundles])
    for predictor, target in zip(batch.loss_positions.tolist(), batch.targets.tolist(), strict=True):
        assert batch.token_ids[predictor].item() == follows[target]
    assert sorted(batch.targets.tolist()) == sorted(follows)


def test_packing_copies_so_that_a_shared_buffer_can_be_reused():
    sequence = make_sequence([1, 2], [3, 4])
    batch = pack([[sequence]], [[1.0]])
    assert batch.to(torch.device("cpu")).bundles == ((2, (2,)),)
    sequence.token_ids[:] = 0
    np.copyto(sequence.behavior_logprobs, 9.0)
    assert batch.targets.tolist() == [3, 4]
    assert batch.behavior_logprobs.tolist() != [9.0, 9.0]
