"""From verdicts to micro-batches: what is left out must not show in the gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grpo.config import AdvantageKind, Aggregation, AlgorithmConfig, KLEstimator
from grpo.loss import policy_loss
from grpo.records import FinishReason
from grpo.scoring import loss_token_counts, step_micro_batches, train_sequences
from tests.builders import make_completion, make_scored

NAN = math.nan
V = 8
MAX_NEW = 6


def test_advantages_are_those_of_the_group():
    scored = make_scored([1.0, 2.0, 6.0], config=AlgorithmConfig(advantage=AdvantageKind.group_mean))
    assert scored.rewards.tolist() == [1.0, 2.0, 6.0]
    assert scored.advantages.tolist() == [-2.0, -1.0, 3.0]
    with_std = make_scored([1.0, 2.0, 6.0], config=AlgorithmConfig(advantage_eps=1e-9))
    # squared deviations 4 + 1 + 9 = 14; 14 / 2 -> std 2.6457513
    assert with_std.advantages.tolist() == pytest.approx([-0.7559289, -0.3779645, 1.1338934], rel=1e-6)


def test_a_failed_verdict_gets_0_and_moves_nobody():
    scored = make_scored([1.0, NAN, 3.0], config=AlgorithmConfig(advantage=AdvantageKind.group_mean))
    assert scored.advantages.tolist() == [-1.0, 0.0, 1.0]
    assert math.isnan(scored.rewards[1])
    assert loss_token_counts([scored], mask_truncated=False) == [2, 0, 2]


def test_terms_are_mixed_with_their_raw_weights():
    scored = make_scored(
        [1.0, 0.0],
        weights={"unit_tests": 2.0, "kindness": 0.5, "logged": 0.0},
        others={"kindness": [1.0, None], "logged": [NAN, 5.0]},
        config=AlgorithmConfig(advantage=AdvantageKind.group_mean),
    )
    assert scored.rewards.tolist() == [2.5, 0.0]
    assert scored.advantages.tolist() == [1.25, -1.25]
    assert set(scored.verdicts) == {"unit_tests", "kindness", "logged"}


def test_sequences_join_prompt_and_completion_in_order():
    scored = [
        make_scored([0.0, 1.0], [make_completion([5, 6]), make_completion([7], logprobs=[-2.0])], uid=3, prompt=[1, 2]),
        make_scored([1.0, 0.0], [make_completion([4]), make_completion([3])], uid=9, prompt=[8]),
    ]
    sequences = train_sequences(scored)
    assert [s.token_ids.tolist() for s in sequences] == [[1, 2, 5, 6], [1, 2, 7], [8, 4], [8, 3]]
    assert [s.num_prompt_tokens for s in sequences] == [2, 2, 1, 1]
    assert [s.prompt_uid for s in sequences] == [3, 3, 9, 9]
    assert sequences[1].behavior_logprobs.tolist() == [-2.0]
    assert [s.advantage > 0 for s in sequences] == [False, True, True, False]


def test_truncated_completions_are_masked_only_when_asked():
    completions = [make_completion([3] * n, finish_reason=r) for n, r in zip((1, 2, 3), FinishReason, strict=True)]
    scored = make_scored([0.0, 1.0, 2.0], completions)
    assert list(FinishReason) == [FinishReason.STOP, FinishReason.LENGTH, FinishReason.ABORTED]
    assert loss_token_counts([scored], mask_truncated=False) == [1, 2, 3]
    assert loss_token_counts([scored], mask_truncated=True) == [1, 0, 0]


def test_a_masked_completion_still_counts_in_its_groups_mean():
    completions = [make_completion([3], finish_reason=r) for r in (FinishReason.STOP, FinishReason.LENGTH)]
    config = AlgorithmConfig(mask_truncated=True, advantage=AdvantageKind.group_mean)
    assert make_scored([1.0, 0.0], completions, config=config).advantages.tolist() == [0.5, -0.5]


# A policy small enough to differentiate by hand: the next token's logits depend on the last token alone.


def table(seed):
    return torch.randn(V, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def packed_gradient(groups, config, *, num_ranks, max_tokens):
    """Gradient of the summed loss over all ranks and micro-batches, and the sum of all loss weights."""
    logits = table(0).requires_grad_()
    reference = table(1).log_softmax(-1)
    ranks = step_micro_batches(groups, config, num_ranks=num_ranks, max_tokens=max_tokens, constant_length=MAX_NEW)
    assert len(ranks) == num_ranks
    assert len({len(batches) for batches in ranks}) == 1
    weight = 0.0
    for batch in (batch for batches in ranks for batch in batches):
        previous = batch.token_ids[batch.loss_positions]
        logprobs = logits.log_softmax(-1)[previous, batch.targets]
        reference_logprobs = reference[previous, batch.targets] if config.kl_coefficient else None
        output = policy_loss(logprobs, torch.zeros(len(logprobs)), batch, config, reference_logprobs=reference_logprobs)
        output.loss.backward()
        weight += batch.loss_weights.double().sum().item()
    return logits.grad, weight


def whole_gradient(groups, config):
    """The same from all completions, one by one, nothing left out: on-policy, so surrogate = -r A with r = 1."""
    logits = table(0).requires_grad_()
    all_logprobs, reference = logits.log_softmax(-1), table(1).log_softmax(-1)
    rows = []
    for scored in groups:
        prompt = scored.group.prompt
        for completion, reward, advantage in zip(
            scored.group.completions, scored.rewards, scored.advantages, strict=True
        ):
            cut = config.mask_truncated and completion.finish_reason is not FinishReason.STOP
            if cut or math.isnan(reward) or not len(completion.token_ids):
                continue
            losses = []
            previous = int(prompt.token_ids[-1])
            for token, behavior in zip(
                completion.token_ids.tolist(), completion.behavior_logprobs.tolist(), strict=True
            ):
                logprob = all_logprobs[previous, token]
                importance = min(math.exp(logprob.item() - behavior), config.importance_cap or math.inf)
                if config.importance_cap is None:
                    importance = 1.0
                loss = -torch.exp(logprob - logprob.detach()) * float(advantage) * importance
                if config.kl_coefficient:
                    d = reference[previous, token] - logprob
                    ratio = torch.exp(logprob - behavior) if config.kl_estimator is KLEstimator.weighted_k3 else 1.0
                    loss = loss + config.kl_coefficient * ratio * (torch.exp(d) - 1 - d)
                losses.append(loss)
                previous = token
            rows.append((prompt.uid, losses))
    if not rows:
        return torch.zeros(V, V, dtype=torch.float64)
    by_prompt = {}
    for uid, losses in rows:
        by_prompt.setdefault(uid, []).extend(losses)
    aggregate = {
        Aggregation.token_mean: lambda: sum(sum(x) for _, x in rows) / sum(len(x) for _, x in rows),
        Aggregation.sequence_mean: lambda: sum(sum(x) / len(x) for _, x in rows) / len(rows),
        Aggregation.prompt_mean: lambda: sum(sum(x) / len(x) for x in by_prompt.values()) / len(by_prompt),
        Aggregation.constant_length: lambda: sum(sum(x) for _, x in rows) / (len(rows) * MAX_NEW),
    }[config.aggregation]
    torch.as_tensor(aggregate()).backward()
    return logits.grad


completions = st.tuples(
    st.lists(st.integers(0, V - 1), min_size=0, max_size=MAX_NEW),
    st.sampled_from([0.0, 0.0, 0.5, 1.0, NAN]),
    st.sampled_from([FinishReason.STOP, FinishReason.STOP, FinishReason.LENGTH]),
)
steps = st.lists(
    st.tuples(st.lists(st.integers(0, V - 1), min_size=1, max_size=4), st.lists(completions, min_size=2, max_size=5)),
    min_size=1,
    max_size=4,
)


def make_step(rows, config):
    return [
        make_scored(
            [reward for _, reward, _ in members],
            [
                make_completion(ids, logprobs=[-0.3 * (i + 1) for i in range(len(ids))], finish_reason=reason)
                for ids, _, reason in members
            ],
            config=config,
            uid=uid,
            prompt=prompt,
        )
        for uid, (prompt, members) in enumerate(rows)
    ]


@pytest.mark.parametrize("aggregation", list(Aggregation))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"importance_cap": None, "advantage": AdvantageKind.group_mean, "mask_truncated": True},
        {"kl_coefficient": 0.2},
        {"kl_coefficient": 0.2, "kl_estimator": KLEstimator.k3, "mask_truncated": True},
    ],
    ids=["plain", "masked", "weighted_k3", "k3_masked"],
)
@given(rows=steps, num_ranks=st.integers(1, 3), slack=st.integers(0, 30))
def test_the_gradient_is_that_of_the_whole_step_however_it_is_cut(aggregation, options, rows, num_ranks, slack):
    config = AlgorithmConfig(aggregation=aggregation, **options)
    groups = make_step(rows, config)
    longest = max(len(prompt) + max(len(ids) for ids, _, _ in members) for prompt, members in rows)
    found, _ = packed_gradient(groups, config, num_ranks=num_ranks, max_tokens=longest + slack)
    torch.testing.assert_close(found, whole_gradient(groups, config), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("aggregation", list(Aggregation))
@given(rows=steps, cuts=st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30)), min_size=2, max_size=4))
def test_the_sum_of_all_weights_does_not_depend_on_the_cut(aggregation, rows, cuts):
    config = AlgorithmConfig(aggregation=aggregation, kl_coefficient=0.1)
    groups = make_step(rows, config)
    longest = max(len(prompt) + max(len(ids) for ids, _, _ in members) for prompt, members in rows)
    totals = [packed_gradient(groups, config, num_ranks=n, max_tokens=longest + slack)[1] for n, slack in cuts]
    assert totals == pytest.approx([totals[0]] * len(totals), rel=1e-5)
    if any(loss_token_counts(groups, mask_truncated=False)) and aggregation is not Aggregation.constant_length:
        assert totals[0] == pytest.approx(1.0, rel=1e-5)


def batches_of(groups, config, num_ranks=1):
    return step_micro_batches(groups, config, num_ranks=num_ranks, max_tokens=64, constant_length=MAX_NEW)


def test_sequences_that_cannot_move_the_weights_are_not_computed():
    groups = [make_scored([1.0, 1.0, 1.0], uid=0), make_scored([0.0, 1.0, NAN], uid=1)]
    [[batch]] = batches_of(groups, AlgorithmConfig())
    assert batch.bundles == ((2, (2, 2)),)
    # 3 + 2 sequences of 2 tokens stay in the denominator.
    assert batch.loss_weights.tolist() == pytest.approx([1 / 10] * 4)


def test_with_a_kl_term_sequences_without_advantage_are_computed_too():
    groups = [make_scored([1.0, 1.0, 1.0], uid=0), make_scored([0.0, 1.0, NAN], uid=1)]
    [[batch]] = batches_of(groups, AlgorithmConfig(kl_coefficient=0.1))
    assert sorted(len(completions) for _, completions in batch.bundles) == [2, 3]


@pytest.mark.parametrize("rewards", [[1.0, 1.0], [NAN, NAN], [0.0, NAN]])
@pytest.mark.parametrize("num_ranks", [1, 3])
def test_no_signal_at_all_still_gives_every_rank_a_pass_without_gradient(rewards, num_ranks):
    config = AlgorithmConfig()
    groups = [make_scored(rewards, uid=uid) for uid in range(2)]
    ranks = batches_of(groups, config, num_ranks)
    assert [len(batches) for batches in ranks] == [1] * num_ranks
    gradient, _ = packed_gradient(groups, config, num_ranks=num_ranks, max_tokens=64)
    assert (gradient == 0).all()
