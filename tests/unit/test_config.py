"""Every invariant of the schema: refused with the key, the value and what to do instead."""

from __future__ import annotations

import math
import pickle
from dataclasses import fields, is_dataclass
from enum import StrEnum

import pytest

from grpo import config as schema
from grpo.config import (
    ASYNC,
    ONE_STEP_OFF,
    AdvantageKind,
    AlgorithmConfig,
    ClusterConfig,
    DataConfig,
    InFlight,
    KLPlacement,
    LearnerConfig,
    Mixture,
    ModelConfig,
    RewardConfig,
    RolloutConfig,
    RunConfig,
    ScheduleConfig,
    SyncBackend,
    SyncConfig,
)
from grpo.errors import ConfigError, KeelError

#: (class, its prefix, arguments, the key at fault)
REFUSED = [
    (ModelConfig, "model", {"max_length": 1}, "max_length"),
    (ModelConfig, "model", {"path": ""}, "path"),
    *((DataConfig, "data", {name: 0}, name) for name in ("limit", "max_level", "max_prompt_tokens")),
    (RewardConfig, "reward", {"weights": {}}, "weights"),
    (RewardConfig, "reward", {"num_workers": 0}, "num_workers"),
    (RewardConfig, "reward", {"retries": -1}, "retries"),
    (RewardConfig, "reward", {"max_failed_share": 1.5}, "max_failed_share"),
    (RewardConfig, "reward", {"cpus_per_worker": -0.5}, "cpus_per_worker"),
    (RewardConfig, "reward", {"timeout_s": 0.0}, "timeout_s"),
    (AlgorithmConfig, "algorithm", {"kl_coefficient": -0.1}, "kl_coefficient"),
    (AlgorithmConfig, "algorithm", {"clip_low": -0.1}, "clip_low"),
    (AlgorithmConfig, "algorithm", {"clip_low": 1.1}, "clip_low"),
    (AlgorithmConfig, "algorithm", {"clip_high": -0.1}, "clip_high"),
    (AlgorithmConfig, "algorithm", {"updates_per_step": 0}, "updates_per_step"),
    (AlgorithmConfig, "algorithm", {"advantage_eps": 0.0}, "advantage_eps"),
    (AlgorithmConfig, "algorithm", {"importance_cap": 0.0}, "importance_cap"),
    (AlgorithmConfig, "algorithm", {"overlong_share": -0.1}, "overlong_share"),
    (AlgorithmConfig, "algorithm", {"overlong_share": 1.1}, "overlong_share"),
    (AlgorithmConfig, "algorithm", {"overlong_penalty": -1.0}, "overlong_penalty"),
    (AlgorithmConfig, "algorithm", {"entropy_coefficient": -0.1}, "entropy_coefficient"),
    (AlgorithmConfig, "algorithm", {"off_policy_threshold": 0.0}, "off_policy_threshold"),
    (AlgorithmConfig, "algorithm", {"importance_floor": -0.1}, "importance_floor"),
    (AlgorithmConfig, "algorithm", {"importance_floor": 2.0}, "importance_floor"),
    (AlgorithmConfig, "algorithm", {"dual_clip": 1.0}, "dual_clip"),
    *(
        (RolloutConfig, "rollout", {name: 0}, name)
        for name in (
            "prompts_per_step",
            "num_workers",
            "tensor_parallel_size",
            "threads",
            "max_new_tokens",
            "max_num_seqs",
            "block_size",
            "kv_cache_gib",
            "timeout_s",
            "temperature",
            "top_p",
            "top_k",
            "gpu_memory_utilization",
        )
    ),
    (RolloutConfig, "rollout", {"cpus_per_worker": -1.0}, "cpus_per_worker"),
    (RolloutConfig, "rollout", {"group_size": 1}, "group_size"),
    (RolloutConfig, "rollout", {"top_p": 1.1}, "top_p"),
    (RolloutConfig, "rollout", {"top_k": -2}, "top_k"),
    (RolloutConfig, "rollout", {"gpu_memory_utilization": 1.1}, "gpu_memory_utilization"),
    *(
        (LearnerConfig, "learner", {name: 0}, name)
        for name in (
            "num_ranks",
            "threads",
            "micro_batch_tokens",
            "logits_chunk_tokens",
            "eps",
            "max_grad_norm",
            "timeout_s",
        )
    ),
    *((LearnerConfig, "learner", {name: -1}, name) for name in ("cpus_per_rank", "warmup_steps", "weight_decay", "lr")),
    *((LearnerConfig, "learner", {name: 1.5}, name) for name in ("min_lr_ratio", "beta1", "beta2")),
    *((LearnerConfig, "learner", {name: -0.5}, name) for name in ("min_lr_ratio", "beta1", "beta2")),
    *((LearnerConfig, "learner", {name: 1.0}, name) for name in ("beta1", "beta2")),  # AdamW refuses it
    (SyncConfig, "sync", {"bucket_mib": 0}, "bucket_mib"),
    (SyncConfig, "sync", {"timeout_s": 0}, "timeout_s"),
    (ScheduleConfig, "schedule", {"max_staleness": -1}, "max_staleness"),
    (ScheduleConfig, "schedule", {"max_staleness": 1}, "max_staleness"),  # of mode sync
    (ScheduleConfig, "schedule", {"max_staleness": 2, "mode": ONE_STEP_OFF}, "max_staleness"),
    (ScheduleConfig, "schedule", {"max_staleness": 0, "mode": ASYNC}, "max_staleness"),
    (ScheduleConfig, "schedule", {"max_groups_per_worker": 0}, "max_groups_per_worker"),
    (ScheduleConfig, "schedule", {"max_replacements": 0}, "max_replacements"),
    (ScheduleConfig, "schedule", {"over_sample": -0.1}, "over_sample"),
    (ScheduleConfig, "schedule", {"retire_pass_rate": 0.0}, "retire_pass_rate"),
    (SyncConfig, "sync", {"probe_every": -1}, "probe_every"),
    (SyncConfig, "sync", {"retries": -1}, "retries"),
    (SyncConfig, "sync", {"directory": "weights", "backend": SyncBackend.disk}, "directory"),
    (SyncConfig, "sync", {"directory": "/weights", "backend": SyncBackend.delta}, "directory"),
    (ClusterConfig, "cluster", {"num_cpus": 0}, "num_cpus"),
    (ClusterConfig, "cluster", {"num_gpus": -1}, "num_gpus"),
    (ClusterConfig, "cluster", {"object_store_mib": 79}, "object_store_mib"),
    (ClusterConfig, "cluster", {"startup_timeout_s": 0}, "startup_timeout_s"),
    *(
        (ClusterConfig, "cluster", {"address": "auto", name: 100}, name)
        for name in ("num_cpus", "num_gpus", "object_store_mib")
    ),
    (RunConfig, "", {"steps": 0}, "steps"),
    (RunConfig, "", {"keep_checkpoints": 0}, "keep_checkpoints"),
    (RunConfig, "", {"seed": -1}, "seed"),
    (RunConfig, "", {"checkpoint_every": -1}, "checkpoint_every"),
]


@pytest.mark.parametrize(
    ("kind", "prefix", "arguments", "key"), REFUSED, ids=[f"{p}.{k}={a[k]}" for _, p, a, k in REFUSED]
)
def test_a_value_that_cannot_work_is_refused_by_name(kind, prefix, arguments, key):
    with pytest.raises(ConfigError) as caught:
        kind(**arguments)
    error = caught.value
    assert error.field == (f"{prefix}.{key}" if prefix else key)
    assert error.value == arguments[key]
    message = str(error)
    assert message.startswith(f"{error.field}={arguments[key]!r}: ")
    problem, remedy = message.split(": ", 1)[1].split(". ", 1)
    assert problem
    assert remedy.endswith(".")
    assert "\n" not in message


#: Values at the edge that must be let through.
ACCEPTED = [
    (AlgorithmConfig, {"clip_low": 0.0, "clip_high": 0.0, "kl_coefficient": 0.0}),
    (AlgorithmConfig, {"clip_low": 1.0, "dual_clip": 1.01, "importance_floor": 1.99, "off_policy_threshold": None}),
    (AlgorithmConfig, {"overlong_share": 1.0, "overlong_penalty": 0.0}),
    (AlgorithmConfig, {"mixture": Mixture.gdpo, "kl_in": KLPlacement.reward, "kl_coefficient": 0.1}),
    (AlgorithmConfig, {"advantage": AdvantageKind.max_rl, "overlong_share": 0.5, "overlong_penalty": 0.0}),
    (AlgorithmConfig, {"advantage": AdvantageKind.max_rl, "kl_coefficient": 0.1}),
    (AlgorithmConfig, {"advantage": AdvantageKind.max_rl, "kl_in": KLPlacement.reward}),
    (AlgorithmConfig, {"clip_high": 5.0}),
    (RolloutConfig, {"group_size": 2, "top_p": 0.01, "top_k": 1, "gpu_memory_utilization": 1.0}),
    (LearnerConfig, {"lr": 0.0, "beta1": 0.0, "beta2": 0.0, "min_lr_ratio": 1.0, "cpus_per_rank": 0}),
    (RewardConfig, {"cpus_per_worker": 0, "weights": {"unit_tests": -1.0}}),
    (ClusterConfig, {"address": "auto"}),
    (ClusterConfig, {"num_gpus": 0, "object_store_mib": 80}),
]


@pytest.mark.parametrize(("kind", "arguments"), ACCEPTED, ids=[f"{k.__name__}-{a}" for k, a in ACCEPTED])
def test_edges_are_accepted(kind, arguments):
    kind(**arguments)


def sections():
    """(class, prefix) of every part of the schema."""
    return [(RunConfig, ""), *((type(getattr(RunConfig(), f.name)), f.name) for f in fields(RunConfig))]


def numbers():
    """(class, dotted key, name) of every float of the schema."""
    found = []
    for kind, prefix in sections():
        if is_dataclass(kind):
            found += [
                (kind, f"{prefix}.{f.name}", f.name) for f in fields(kind) if "float" in str(f.type).split("[")[0]
            ]
    return found


@pytest.mark.parametrize(("kind", "key", "name"), numbers(), ids=[key for _, key, _ in numbers()])
def test_nan_is_no_number(kind, key, name):
    with pytest.raises(ConfigError) as caught:
        kind(**{name: math.nan})
    assert caught.value.field == key


@pytest.mark.parametrize("weight", [math.nan, math.inf])
def test_a_weight_that_is_no_number_is_refused(weight):
    with pytest.raises(ConfigError) as caught:
        RewardConfig(weights={"unit_tests": 1.0, "tone": weight})
    assert caught.value.field == "reward.weights.tone"


def rejected(kind: type = RunConfig, **arguments) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        kind(**arguments)
    return caught.value


@pytest.mark.parametrize(("name", "key"), [("overlong", "overlong_penalty"), ("kl", "kl_coefficient")])
def test_names_of_terms_that_scoring_adds_are_taken(name, key):
    error = rejected(RewardConfig, weights={"unit_tests": 1.0, name: 0.5})
    assert (error.field, error.value) == (f"reward.weights.{name}", 0.5)
    assert f"algorithm.{key}" in str(error)


@pytest.mark.parametrize("mixture", [Mixture.gdpo, Mixture.mo_grpo])
def test_a_mixture_that_standardises_takes_no_other_advantage(mixture):
    for advantage in AdvantageKind:
        if advantage is AdvantageKind.group_std:
            AlgorithmConfig(advantage=advantage, mixture=mixture)
            continue
        error = rejected(AlgorithmConfig, advantage=advantage, mixture=mixture)
        assert (error.field, error.value) == ("algorithm.advantage", advantage.value)
        assert f"algorithm.mixture={mixture.value}" in str(error)


def test_max_rl_takes_nothing_that_is_negative_for_certain():
    error = rejected(AlgorithmConfig, advantage=AdvantageKind.max_rl, overlong_share=0.25)
    assert (error.field, error.value) == ("algorithm.overlong_share", 0.25)
    error = rejected(AlgorithmConfig, advantage=AdvantageKind.max_rl, kl_in=KLPlacement.reward, kl_coefficient=0.1)
    assert (error.field, error.value) == ("algorithm.kl_in", "reward")
    weights = RewardConfig(weights={"unit_tests": 1.0, "tone": -0.5})
    error = rejected(reward=weights, algorithm=AlgorithmConfig(advantage=AdvantageKind.max_rl))
    assert (error.field, error.value) == ("reward.weights.tone", -0.5)
    assert "algorithm.advantage=max_rl" in str(error)
    RunConfig(reward=weights)


def test_prompts_divide_by_updates():
    error = rejected(
        algorithm=AlgorithmConfig(updates_per_step=3), rollout=RolloutConfig(prompts_per_step=8, group_size=8)
    )
    assert (error.field, error.value) == ("rollout.prompts_per_step", 8)
    assert "algorithm.updates_per_step=3" in str(error)
    assert "multiple of 3" in str(error)


def test_completions_of_an_update_divide_by_ranks():
    arguments = {
        "rollout": RolloutConfig(prompts_per_step=4, group_size=3),
        "algorithm": AlgorithmConfig(updates_per_step=2),
    }
    assert RunConfig(**arguments, learner=LearnerConfig(num_ranks=3)).num_sequences == 12
    error = rejected(**arguments, learner=LearnerConfig(num_ranks=4))  # 12 divide by 4, the 6 of an update do not
    assert (error.field, error.value) == ("learner.num_ranks", 4)
    assert "6 completions" in str(error)


def test_prompt_and_completion_fit_the_model_exactly():
    arguments = {"data": DataConfig(max_prompt_tokens=100), "rollout": RolloutConfig(max_new_tokens=50)}
    RunConfig(**arguments, model=ModelConfig(max_length=150))
    error = rejected(**arguments, model=ModelConfig(max_length=149))
    assert (error.field, error.value) == ("model.max_length", 149)
    assert "150" in str(error)


def test_one_sequence_fits_a_micro_batch():
    RunConfig(learner=LearnerConfig(micro_batch_tokens=2048))
    error = rejected(learner=LearnerConfig(micro_batch_tokens=2047))
    assert (error.field, error.value) == ("learner.micro_batch_tokens", 2047)
    assert "2048" in str(error)


def test_defaults_are_valid_and_not_shared():
    first, second = RunConfig(), RunConfig()
    assert first == second
    first.reward.weights["tone"] = 1.0
    first.rollout.stop.append("x")
    assert second == RunConfig()


def test_config_error_survives_pickling():
    error = ConfigError("rollout.group_size", 1, "too small", "Set it to 2.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is ConfigError
    assert isinstance(copy, ValueError)
    assert isinstance(copy, KeelError)
    assert (copy.field, copy.value, str(copy)) == ("rollout.group_size", 1, str(error))
    assert str(pickle.loads(pickle.dumps(copy))) == str(error)


def test_the_configuration_survives_pickling():
    config = RunConfig(seed=7, rollout=RolloutConfig(stop=["x"], engine_args={"a": 1}))
    assert pickle.loads(pickle.dumps(config)) == config


def test_enums_are_spelled_as_they_are_named():
    """YAML gives an enum by its name, the code compares its value: they must be the same."""
    enums = [e for e in vars(schema).values() if isinstance(e, type) and issubclass(e, StrEnum)]
    assert len(enums) >= 9
    for member in (m for e in enums for m in e):
        assert member.name == member.value


def test_unfinished_completions_are_a_matter_of_async():
    with pytest.raises(ConfigError, match=r"^schedule.in_flight='recompute': .* schedule.mode=sync. Drop it"):
        ScheduleConfig(in_flight=InFlight.recompute)
    assert ScheduleConfig(mode=ASYNC, in_flight=InFlight.recompute).staleness == 2
    assert ScheduleConfig(mode=ONE_STEP_OFF).staleness == 1
