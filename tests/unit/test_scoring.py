"""From verdicts to micro-batches: what is left out must not show in the gradient."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grpo.config import AdvantageKind, Aggregation, AlgorithmConfig, KLPlacement, Mixture
from grpo.errors import ConfigError
from grpo.records import FinishReason
from grpo.scoring import group_has_signal, loss_token_counts, score_groups, step_micro_batches, train_sequences
from rewards.base import Outcome
from rewards.mixture import Gate, TermWeights
from tests.builders import make_completion, make_judged, make_scored

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


def completions_of(*lengths):
    return [make_completion([3] * length) for length in lengths]


def with_kl_in_reward(**options):
    return AlgorithmConfig(kl_in=KLPlacement.reward, kl_coefficient=0.5, **options)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (AdvantageKind.group_std, [-0.7071068, 0.7071068, -0.7071068, 0.7071068]),
        (AdvantageKind.group_mean, [-1.0, 1.0, -2.0, 2.0]),
        (AdvantageKind.batch_std, [-0.5477226, 0.5477226, -1.0954451, 1.0954451]),  # over sqrt(10 / 3)
        (AdvantageKind.leave_one_out, [-2.0, 2.0, -4.0, 4.0]),
        (AdvantageKind.max_rl, [-0.5, 0.5, -0.4, 0.4]),
    ],
)
def test_every_kind_over_the_whole_step(kind, expected):
    judged = [make_judged([1.0, 3.0], uid=4), make_judged([3.0, 7.0], uid=7)]
    config = AlgorithmConfig(advantage=kind, advantage_eps=1e-9)
    scored = score_groups(judged, TermWeights(default={"unit_tests": 1.0}), config, max_new_tokens=16)
    assert [s.group.prompt.uid for s in scored] == [4, 7]
    assert [s.rewards.tolist() for s in scored] == [[1.0, 3.0], [3.0, 7.0]]
    assert [a for s in scored for a in s.advantages.tolist()] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("mixture", [Mixture.gdpo, Mixture.mo_grpo])
def test_mixtures_take_the_terms_apart(mixture):
    # Standardised: a -1, 0, 1; b in 2 members -0.7071068, 0.7071068. Weighed 2 and 0.5; squares sum to 11.0784271.
    judged = [make_judged([1.0, 2.0, 3.0], others={"b": [None, 10.0, 30.0], "logged": [NAN, 1.0, 2.0]})]
    config = AlgorithmConfig(mixture=mixture, advantage_eps=1e-9)
    [scored] = score_groups(
        judged, TermWeights(default={"unit_tests": 2.0, "b": 0.5, "logged": 0.0}), config, max_new_tokens=16
    )
    summed = [-2.0, -0.3535534, 2.3535534]
    std = math.sqrt((4 + 0.125 + 5.5392136) / 2)
    assert scored.advantages.tolist() == pytest.approx(
        [a / std for a in summed] if mixture is Mixture.gdpo else summed, abs=1e-6
    )
    assert scored.rewards.tolist() == [2.0, 9.0, 21.0]  # the sum is reported all the same


@pytest.mark.parametrize("mixture", [Mixture.gdpo, Mixture.mo_grpo])
def test_a_completion_with_one_failed_term_leaves_the_other_terms_statistics(mixture):
    config = AlgorithmConfig(mixture=mixture)
    weights = {"unit_tests": 1.0, "b": 0.5}
    scored = make_scored([1.0, 50.0, 0.0], others={"b": [2.0, NAN, 4.0]}, weights=weights, config=config)
    without = make_scored([1.0, 0.0], others={"b": [2.0, 4.0]}, weights=weights, config=config)
    assert scored.advantages.tolist() == [without.advantages[0], 0.0, without.advantages[1]]
    assert loss_token_counts([scored], mask_truncated=False) == [2, 0, 2]


def test_terms_that_cancel_in_the_sum_do_not_in_a_mixture():
    def scored(weight, config):
        weights = {"unit_tests": 1.0, "b": weight}
        return make_scored([1.0, 0.0, 2.0], others={"b": [1.0, 2.0, 0.0]}, weights=weights, config=config)

    assert scored(1.0, AlgorithmConfig()).advantages.tolist() == [0.0, 0.0, 0.0]
    assert scored(1.0, AlgorithmConfig()).has_signal
    halved = scored(0.5, AlgorithmConfig(mixture=Mixture.mo_grpo, advantage_eps=1e-9))
    assert halved.advantages.tolist() == pytest.approx([0.0, -0.5, 0.5])


def test_length_joins_as_a_term():
    # The last 4 of 16 tokens: 12 costs nothing, 14 half, 16 all.
    config = AlgorithmConfig(advantage=AdvantageKind.group_mean, overlong_share=0.25, overlong_penalty=2.0)
    scored = make_scored([1.0, 1.0, 1.0], completions_of(12, 14, 16), config=config, max_new_tokens=16)
    assert [v.value for v in scored.verdicts["overlong"]] == [0.0, -0.5, -1.0]
    assert scored.rewards.tolist() == [1.0, 0.0, -1.0]
    assert scored.advantages.tolist() == [1.0, 0.0, -1.0]
    assert scored.has_signal


def test_the_buffer_is_whole_tokens_so_that_its_edge_is_exactly_0():
    # 0.07 * 100 is 7.000000000000001 in floating point.
    config = AlgorithmConfig(overlong_share=0.07)
    scored = make_scored([1.0, 1.0], completions_of(93, 5), config=config, max_new_tokens=100)
    assert [v.value for v in scored.verdicts["overlong"]] == [0.0, 0.0]
    assert not scored.has_signal
    config = AlgorithmConfig(overlong_share=0.001)  # less than a token: a full length still costs
    scored = make_scored([1.0, 1.0], completions_of(99, 100), config=config, max_new_tokens=100)
    assert [v.value for v in scored.verdicts["overlong"]] == [0.0, -1.0]


def test_without_a_weight_length_is_only_logged():
    config = AlgorithmConfig(overlong_share=0.5, overlong_penalty=0.0)
    scored = make_scored([1.0, 1.0], completions_of(3, 4), config=config, max_new_tokens=4)
    assert [v.value for v in scored.verdicts["overlong"]] == [-0.5, -1.0]
    assert scored.rewards.tolist() == [1.0, 1.0]
    assert not scored.has_signal
    assert "overlong" not in make_scored([1.0, 1.0]).verdicts


def test_length_is_standardised_like_any_term_of_a_mixture():
    config = AlgorithmConfig(mixture=Mixture.mo_grpo, advantage_eps=1e-9, overlong_share=0.25, overlong_penalty=0.5)
    scored = make_scored([1.0, 3.0, 2.0], completions_of(12, 14, 16), config=config, max_new_tokens=16)
    assert scored.advantages.tolist() == pytest.approx([-1 + 0.5, 1.0, 0 - 0.5], abs=1e-6)


def test_kl_is_taken_from_the_reward():
    config = with_kl_in_reward(advantage=AdvantageKind.group_mean)
    scored = make_scored([1.0, 0.0, 0.5], config=config, kl_penalties=[2.0, -1.0, 0.0])
    assert scored.rewards.tolist() == [0.0, 0.5, 0.5]
    assert scored.advantages.tolist() == pytest.approx([-1 / 3, 1 / 6, 1 / 6])
    assert [v.value for v in scored.verdicts["kl"]] == [2.0, -1.0, 0.0]


def test_in_a_mixture_kl_is_centred_but_keeps_its_nats():
    config = with_kl_in_reward(mixture=Mixture.mo_grpo, advantage_eps=1e-9)
    scored = make_scored([1.0, 3.0, 2.0], config=config, kl_penalties=[0.02, 0.0, 0.04])
    assert scored.advantages.tolist() == pytest.approx([-1.0, 1.0 + 0.01, 0.0 - 0.01], abs=1e-6)
    alone = make_scored([2.0, 2.0, 2.0], config=config, kl_penalties=[0.02, 0.0, 0.04])
    assert alone.advantages.tolist() == pytest.approx([0.0, 0.01, -0.01], abs=1e-6)


@pytest.mark.parametrize("broken", [NAN, math.inf, -math.inf])
@pytest.mark.parametrize("mixture", list(Mixture))
def test_a_kl_that_is_no_number_fails_its_completion_alone(mixture, broken):
    config = with_kl_in_reward(mixture=mixture)
    scored = make_scored([1.0, 0.0, 0.5], config=config, kl_penalties=[0.0, broken, 0.1])
    assert scored.verdicts["kl"][1].outcome is Outcome.FAILED
    assert math.isnan(scored.rewards[1])
    assert scored.advantages[1] == 0.0
    assert scored.advantages[0] > 0 > scored.advantages[2]
    assert loss_token_counts([scored], mask_truncated=False) == [2, 0, 2]


@pytest.mark.parametrize("mixture", list(Mixture))
def test_length_and_kl_shape_a_reward_and_are_none(mixture):
    """Where no weighted term applies they are absent too: such a completion is not trained on."""
    config = with_kl_in_reward(mixture=mixture, overlong_share=0.5)
    scored = make_scored(
        [None, None, None],
        completions_of(2, 3, 4),
        others={"logged": [0.0, 1.0, 2.0]},
        weights={"unit_tests": 1.0, "logged": 0.0},
        config=config,
        max_new_tokens=4,
        kl_penalties=[1.0, 2.0, 3.0],
    )
    for term in ("overlong", "kl"):
        assert {v.outcome for v in scored.verdicts[term]} == {Outcome.ABSENT}
    assert all(math.isnan(r) for r in scored.rewards)
    assert scored.advantages.tolist() == [0.0, 0.0, 0.0]
    assert not scored.has_signal
    assert loss_token_counts([scored], mask_truncated=False) == [0, 0, 0]


def test_a_negative_reward_ends_a_max_rl_run_with_its_key():
    with pytest.raises(ConfigError, match=r"algorithm\.advantage='max_rl'"):
        make_scored([1.0, -0.5], config=AlgorithmConfig(advantage=AdvantageKind.max_rl))


def test_what_belongs_together_comes_together():
    with pytest.raises(AssertionError, match="one size"):
        score_groups(
            [make_judged([0.0, 1.0]), make_judged([0.0, 1.0, 2.0])],
            TermWeights(default={"unit_tests": 1.0}),
            AlgorithmConfig(),
            max_new_tokens=16,
        )
    with pytest.raises(AssertionError, match="KL penalties"):
        make_scored([0.0, 1.0], config=with_kl_in_reward())
    with pytest.raises(AssertionError, match="KL penalties"):
        make_scored([0.0, 1.0], kl_penalties=[0.0, 0.0])


@pytest.mark.parametrize("mixture", list(Mixture))
@given(
    rows=st.lists(
        st.lists(st.tuples(*[st.sampled_from([0.0, 0.5, 1.0, None, NAN])] * 2), min_size=3, max_size=3),
        min_size=1,
        max_size=4,
    )
)
def test_no_signal_no_advantage(mixture, rows):
    judged = [make_judged([a for a, _ in row], others={"b": [b for _, b in row]}) for row in rows]
    weights = TermWeights(default={"unit_tests": 1.0, "b": -0.5})
    for scored in score_groups(judged, weights, AlgorithmConfig(mixture=mixture), max_new_tokens=16):
        valid = [not math.isnan(r) for r in scored.rewards]
        assert scored.has_signal or scored.advantages.tolist() == [0.0, 0.0, 0.0]
        assert sum(valid) > 1 or not scored.has_signal
        assert all(v or a == 0.0 for v, a in zip(valid, scored.advantages.tolist(), strict=True))


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


def test_groups_without_signal_are_dropped_only_when_asked():
    weights = {"unit_tests": 1.0, "b": 1.0}
    scored = [
        make_scored([1.0, 1.0], completions_of(1, 2), others={"b": [3.0, 3.0]}, weights=weights),
        make_scored([1.0, 0.0], completions_of(3, 4), others={"b": [0.0, 1.0]}, weights=weights),  # cancel
        make_scored([1.0, NAN], completions_of(5, 6), others={"b": [0.0, 1.0]}, weights=weights),
    ]
    assert loss_token_counts(scored, mask_truncated=False) == [1, 2, 3, 4, 5, 0]
    assert loss_token_counts(scored, mask_truncated=False, drop_zero_variance=True) == [0, 0, 3, 4, 0, 0]


def test_a_masked_completion_still_counts_in_its_groups_mean():
    completions = [make_completion([3], finish_reason=r) for r in (FinishReason.STOP, FinishReason.LENGTH)]
    config = AlgorithmConfig(mask_truncated=True, advantage=AdvantageKind.group_mean)
    assert make_scored([1.0, 0.0], completions, config=config).advantages.tolist() == [0.5, -0.5]


# A policy small enough to differentiate by hand: the next token's logits depend on the last token alone.


def table(seed):
    return torch.randn(V, V, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def token_losses(logits, previous, targets, behavior, advantages, config):
    """REINFORCE with truncated importance, k3 to another table, entropy bonus; float64, [L]."""
    logprobs, reference = logits.log_softmax(-1), table(1).log_softmax(-1)
    chosen = logprobs[previous, targets]
    importance = (chosen.detach() - behavior.double()).exp().clamp(max=config.importance_cap)
    loss = -importance * advantages.double() * chosen
    if config.kl_in is KLPlacement.loss and config.kl_coefficient:
        difference = reference[previous, targets] - chosen
        loss = loss + config.kl_coefficient * (difference.exp() - 1 - difference)
    entropy = -(logprobs.exp() * logprobs).sum(-1)[previous]
    return loss - config.entropy_coefficient * entropy


def packed_gradient(groups, config, *, num_ranks, max_tokens):
    """Gradient of the summed loss over all ranks and micro-batches, and the sum of all loss weights."""
    logits = table(0).requires_grad_()
    ranks = step_micro_batches(groups, config, num_ranks=num_ranks, max_tokens=max_tokens, constant_length=MAX_NEW)
    assert len(ranks) == num_ranks
    assert len({len(batches) for batches in ranks}) == 1
    weight = 0.0
    for batch in (batch for batches in ranks for batch in batches):
        previous = batch.token_ids[batch.loss_positions]
        losses = token_losses(logits, previous, batch.targets, batch.behavior_logprobs, batch.advantages, config)
        (batch.loss_weights.double() * losses).sum().backward()
        weight += batch.loss_weights.double().sum().item()
    return logits.grad, weight


def varies(scored):
    """Whether any term has two values among completions with a reward; every term of these tests has a weight."""
    kept = [not math.isnan(r) for r in scored.rewards]
    columns = scored.verdicts.values()
    return any(
        len({v.value for v, k in zip(c, kept, strict=True) if k and not math.isnan(v.value)}) > 1 for c in columns
    )


def whole_gradient(groups, config):
    """The same from all completions, one by one, nothing left out but what has no part in the loss."""
    logits = table(0).requires_grad_()
    rows = []
    for scored in groups:
        prompt = scored.group.prompt
        for completion, reward, advantage in zip(
            scored.group.completions, scored.rewards, scored.advantages, strict=True
        ):
            cut = config.mask_truncated and completion.finish_reason is not FinishReason.STOP
            dropped = config.drop_zero_variance and not varies(scored)
            if cut or dropped or math.isnan(reward) or not len(completion.token_ids):
                continue
            ids = torch.tensor([prompt.token_ids[-1], *completion.token_ids])
            behavior = torch.tensor(completion.behavior_logprobs)
            advantages = torch.full((len(ids) - 1,), float(advantage))
            rows.append((prompt.uid, token_losses(logits, ids[:-1], ids[1:], behavior, advantages, config)))
    if not rows:
        return torch.zeros(V, V, dtype=torch.float64)
    by_prompt = {}
    for uid, losses in rows:
        by_prompt.setdefault(uid, []).append(losses)
    aggregate = {
        Aggregation.token_mean: lambda: torch.cat([x for _, x in rows]).mean(),
        Aggregation.sequence_mean: lambda: sum(x.mean() for _, x in rows) / len(rows),
        Aggregation.prompt_mean: lambda: sum(torch.cat(x).mean() for x in by_prompt.values()) / len(by_prompt),
        Aggregation.constant_length: lambda: sum(x.sum() for _, x in rows) / (len(rows) * MAX_NEW),
    }[config.aggregation]
    torch.as_tensor(aggregate()).backward()
    return logits.grad


completions = st.tuples(
    st.lists(st.integers(0, V - 1), min_size=0, max_size=MAX_NEW),
    st.sampled_from([0.0, 0.0, 0.5, 1.0, NAN]),
    st.sampled_from([FinishReason.STOP, FinishReason.STOP, FinishReason.LENGTH]),
)
#: Prompts with their completions: (token ids, reward, finish reason), as many for each prompt.
steps = st.integers(2, 5).flatmap(
    lambda size: st.lists(
        st.tuples(
            st.lists(st.integers(0, V - 1), min_size=1, max_size=4),
            st.lists(completions, min_size=size, max_size=size),
        ),
        min_size=1,
        max_size=4,
    )
)


def make_step(rows, config):
    judged = [
        make_judged(
            [reward for _, reward, _ in members],
            [
                make_completion(ids, logprobs=[-0.3 * (i + 1) for i in range(len(ids))], finish_reason=reason)
                for ids, _, reason in members
            ],
            uid=uid,
            prompt=prompt,
        )
        for uid, (prompt, members) in enumerate(rows)
    ]
    penalties = None
    if config.kl_in is KLPlacement.reward and config.kl_coefficient:
        penalties = [[0.2 * len(ids) - 0.5 for ids, _, _ in members] for _, members in rows]
    return score_groups(
        judged, TermWeights(default={"unit_tests": 1.0}), config, max_new_tokens=MAX_NEW, kl_penalties=penalties
    )


@pytest.mark.parametrize("aggregation", list(Aggregation))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"advantage": AdvantageKind.group_mean, "mask_truncated": True},
        {"advantage": AdvantageKind.batch_std, "drop_zero_variance": True},
        {"kl_coefficient": 0.2},
        {"kl_coefficient": 0.2, "mask_truncated": True, "drop_zero_variance": True},
        {"kl_coefficient": 0.2, "kl_in": KLPlacement.reward, "advantage": AdvantageKind.leave_one_out},
        {"entropy_coefficient": 0.1},
        {"mixture": Mixture.gdpo, "overlong_share": 0.5, "drop_zero_variance": True},
    ],
    ids=["plain", "masked", "dropped", "kl", "kl_masked_dropped", "kl_in_reward", "entropy", "gdpo_overlong"],
)
@settings(max_examples=25)
@given(rows=steps, num_ranks=st.integers(1, 3), slack=st.integers(0, 30))
def test_the_gradient_is_that_of_the_whole_step_however_it_is_cut(aggregation, options, rows, num_ranks, slack):
    config = AlgorithmConfig(aggregation=aggregation, **options)
    groups = make_step(rows, config)
    longest = max(len(prompt) + max(len(ids) for ids, _, _ in members) for prompt, members in rows)
    found, _ = packed_gradient(groups, config, num_ranks=num_ranks, max_tokens=longest + slack)
    torch.testing.assert_close(found, whole_gradient(groups, config), rtol=1e-5, atol=1e-6)


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


def test_with_kl_or_entropy_in_the_loss_sequences_without_advantage_are_computed_too():
    groups = [make_scored([1.0, 1.0, 1.0], uid=0), make_scored([0.0, 1.0, NAN], uid=1)]
    for config in (AlgorithmConfig(kl_coefficient=0.1), AlgorithmConfig(entropy_coefficient=0.1)):
        [[batch]] = batches_of(groups, config)
        assert sorted(len(completions) for _, completions in batch.bundles) == [2, 3]


def test_a_kl_in_the_reward_is_all_in_the_advantage():
    """Nothing of it is left for the loss of a sequence with advantage 0."""
    config = with_kl_in_reward(advantage=AdvantageKind.group_mean)
    rewards, penalties = [[1.0, 1.0, 1.0], [0.0, 1.0, NAN]], [[0.5, 0.5, 0.5], [0.0, 1.0, 0.0]]
    groups = [
        make_scored(r, config=config, kl_penalties=k, uid=i)
        for i, (r, k) in enumerate(zip(rewards, penalties, strict=True))
    ]
    [[batch]] = batches_of(groups, config)
    assert batch.bundles == ((2, (2, 2)),)
    assert sorted(set(batch.advantages.tolist())) == [-0.25, 0.25]


@pytest.mark.parametrize("options", [{}, {"kl_coefficient": 0.1}, {"entropy_coefficient": 0.1}])
def test_groups_dropped_for_want_of_signal_are_in_no_denominator_and_no_pass(options):
    groups = [make_scored([1.0, 1.0, 1.0], uid=0), make_scored([0.0, 1.0, NAN], uid=1)]
    config = replace(AlgorithmConfig(drop_zero_variance=True), **options)
    [[batch]] = batches_of(groups, config)
    assert batch.bundles == ((2, (2, 2)),)
    assert batch.loss_weights.tolist() == pytest.approx([1 / 4] * 4)


def test_terms_that_cancel_are_a_signal_and_stay_in_the_denominator():
    weights = {"unit_tests": 1.0, "b": 1.0}
    groups = [
        make_scored([1.0, 0.0], others={"b": [0.0, 1.0]}, weights=weights, uid=0),
        make_scored([1.0, 0.0], others={"b": [0.0, 0.0]}, weights=weights, uid=1),
    ]
    [[batch]] = batches_of(groups, AlgorithmConfig(drop_zero_variance=True))
    assert batch.bundles == ((2, (2, 2)),)
    assert batch.loss_weights.tolist() == pytest.approx([1 / 8] * 4)


@pytest.mark.parametrize("rewards", [[1.0, 1.0], [NAN, NAN], [0.0, NAN]])
@pytest.mark.parametrize("num_ranks", [1, 3])
@pytest.mark.parametrize("drop", [False, True])
def test_no_signal_at_all_still_gives_every_rank_a_pass_without_gradient(rewards, num_ranks, drop):
    config = AlgorithmConfig(drop_zero_variance=drop)
    groups = [make_scored(rewards, uid=uid) for uid in range(2)]
    ranks = batches_of(groups, config, num_ranks)
    assert [len(batches) for batches in ranks] == [1] * num_ranks
    gradient, _ = packed_gradient(groups, config, num_ranks=num_ranks, max_tokens=64)
    assert (gradient == 0).all()


@given(
    rewards=st.lists(st.sampled_from([0.0, 1.0, NAN, None]), min_size=3, max_size=3),
    others=st.lists(st.sampled_from([0.0, 0.5, None]), min_size=3, max_size=3),
    lengths=st.lists(st.integers(1, MAX_NEW), min_size=3, max_size=3),
    weights=st.sampled_from([(1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]),
    is_gated=st.booleans(),
    overlong_share=st.sampled_from([0.0, 0.5]),
    has_kl=st.booleans(),
)
@settings(max_examples=200)
def test_whether_a_group_has_signal_is_what_scoring_says(
    rewards: list[float | None],
    others: list[float | None],
    lengths: list[int],
    weights: tuple[float, float],
    is_gated: bool,
    overlong_share: float,
    has_kl: bool,
) -> None:
    """But for the KL, which is not known yet: equal penalties stand for it."""
    judged = make_judged(rewards, [make_completion(range(n)) for n in lengths], others={"other": others})
    gates = {"unit_tests": Gate(term="other", at_least=0.25)} if is_gated else {}
    terms = TermWeights(default=dict(zip(("unit_tests", "other"), weights, strict=True)), gates=gates)
    kl = {"kl_in": KLPlacement.reward, "kl_coefficient": 0.1} if has_kl else {}
    config = AlgorithmConfig(overlong_share=overlong_share, **kl)
    [scored] = score_groups(
        [judged], terms, config, max_new_tokens=MAX_NEW, kl_penalties=[[0.0] * 3] if has_kl else None
    )
    assert group_has_signal(judged, terms, config, max_new_tokens=MAX_NEW) is scored.has_signal
