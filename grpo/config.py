"""The configuration schema: every key, its default and the invariants between keys.

YAML under conf/ only selects and overrides. Plain dataclasses, not frozen: a frozen schema can't be overlaid.
Each `__post_init__` raises `ConfigError` naming the key, the value and the remedy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from grpo.errors import ConfigError


class DataSchema(StrEnum):
    """How a row of a data source is read; see docs/data.md."""

    keel = "keel"
    mbpp = "mbpp"
    acecode = "acecode"


class Prefill(StrEnum):
    """What the assistant's turn is started with."""

    none = "none"
    fence = "fence"  #: an opened Python code fence
    signature = "signature"  #: the fence and the function's signature


class TestScoring(StrEnum):
    """How passed unit tests become a reward."""

    fraction = "fraction"
    all = "all"


class AdvantageKind(StrEnum):
    """Baseline and scale of the group-relative advantage; formulae in grpo/kernels/advantages.py."""

    group_std = "group_std"  #: minus the group's mean, over the group's standard deviation (GRPO)
    group_mean = "group_mean"  #: minus the group's mean (Dr.GRPO)
    batch_std = "batch_std"  #: minus the group's mean, over the standard deviation of the whole batch (ScaleRL)
    leave_one_out = "leave_one_out"  #: minus the mean of the other members (RLOO)
    max_rl = "max_rl"  #: minus the group's mean, over the group's mean: for rewards that are a pass or not (MaxRL)


class Mixture(StrEnum):
    """How several reward terms become one advantage."""

    weighted_sum = "weighted_sum"  #: sum the weighted terms, then take the advantage of the sum
    gdpo = "gdpo"  #: standardise each term in its group, sum weighted, whiten over the batch (GDPO)
    mo_grpo = "mo_grpo"  #: standardise each term in its group, sum weighted (MO-GRPO)


class Surrogate(StrEnum):
    """What is differentiated: a clipped ratio, a clipped weight on the log-probability, or the bare log-probability."""

    clip = "clip"
    cispo = "cispo"
    reinforce = "reinforce"


class RatioLevel(StrEnum):
    """Whether each token has a ratio of its own, or its sequence's (GSPO)."""

    token = "token"
    sequence = "sequence"


class RatioTo(StrEnum):
    """The policy below the fraction line of the ratio."""

    proximal = "proximal"  #: the learner's at the start of the step; what the engine sampled with is corrected apart
    behavior = "behavior"  #: the engine's, so that the ratio itself is the correction


class Importance(StrEnum):
    """Correction for tokens sampled from the engine's probabilities and not from the proximal policy's."""

    none = "none"
    token_truncate = "token_truncate"
    token_mask = "token_mask"
    sequence_truncate = "sequence_truncate"
    sequence_mask = "sequence_mask"


class KLPlacement(StrEnum):
    """Where the KL penalty enters."""

    loss = "loss"
    reward = "reward"  #: subtracted from the reward before the advantage, always as k1


class KLEstimator(StrEnum):
    """Per-token estimator of the KL divergence to the reference, as it enters the loss."""

    k1 = "k1"
    k2 = "k2"
    k3 = "k3"
    weighted_k3 = "weighted_k3"


class Aggregation(StrEnum):
    """How token losses are averaged over a step."""

    token_mean = "token_mean"
    sequence_mean = "sequence_mean"
    prompt_mean = "prompt_mean"
    constant_length = "constant_length"


class LRSchedule(StrEnum):
    """Shape of the learning rate after warm-up."""

    constant = "constant"
    linear = "linear"
    cosine = "cosine"


class Device(StrEnum):
    """Where learners and engines compute."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class Dtype(StrEnum):
    """Floating point types, by torch's names."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


#: Reward terms that scoring adds by itself: what length costs, and what distance from the reference costs.
OVERLONG_TERM = "overlong"
KL_TERM = "kl"


def _at_least(prefix: str, config: object, minimum: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value >= minimum:  # so worded, NaN is refused too
            raise ConfigError(
                f"{prefix}.{name}" if prefix else name, value, "too small", f"Set it to {minimum} or more."
            )


def _positive(prefix: str, config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ConfigError(f"{prefix}.{name}", value, "must be greater than 0", "Set a positive number.")


def _within(prefix: str, config: object, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(f"{prefix}.{name}", value, "out of range", f"Set a value from {low} to {high}.")


@dataclass(slots=True, kw_only=True)
class ModelConfig:
    """The policy's weights, tokenizer and number format."""

    path: str = "smollm2-135m-instruct"  #: built-in name, directory, or Hugging Face id
    revision: str | None = None
    trust_remote_code: bool = False
    param_dtype: Dtype = Dtype.float32  #: of the learner's forward and backward; the optimiser always holds float32
    rollout_dtype: Dtype = Dtype.float32  #: of the engine and of the weights on the wire
    max_length: int = 2048  #: prompt and completion together, tokens

    def __post_init__(self) -> None:
        _at_least("model", self, 2, "max_length")
        if not self.path:
            raise ConfigError(
                "model.path", self.path, "empty", "Name a model directory, a Hugging Face id, or a built-in."
            )


@dataclass(slots=True, kw_only=True)
class DataConfig:
    """Where tasks come from and how a prompt is made of them."""

    path: str = "builtin:python_tasks"  #: builtin:NAME, a .jsonl/.json/.parquet file, a datasets directory, or a hub id
    schema: DataSchema = DataSchema.keel
    subset: str | None = None  #: Hugging Face configuration name
    split: str = "train"
    domain: str = "code"
    limit: int | None = None  #: keep the first so many tasks
    max_level: int | None = None  #: keep tasks up to this level (keel schema)
    shuffle: bool = True
    system_prompt: str | None = None  #: null keeps the chat template's own default
    prefill: Prefill = Prefill.none
    max_prompt_tokens: int = 512  #: longer prompts are dropped, counted and reported

    def __post_init__(self) -> None:
        _at_least("data", self, 1, "limit", "max_level", "max_prompt_tokens")


@dataclass(slots=True, kw_only=True)
class UnitTestsConfig:
    """Limits of one run of model-written code against its unit tests."""

    scoring: TestScoring = TestScoring.fraction
    cpu_time_s: float = 2.0
    wall_time_s: float = 10.0
    memory_mib: int = 256
    output_kib: int = 64

    def __post_init__(self) -> None:
        _positive("reward.unit_tests", self, "cpu_time_s", "wall_time_s", "memory_mib", "output_kib")
        if self.wall_time_s < self.cpu_time_s:
            raise ConfigError(
                "reward.unit_tests.wall_time_s", self.wall_time_s, f"below cpu_time_s={self.cpu_time_s}", "Raise it."
            )


@dataclass(slots=True, kw_only=True)
class PatternConfig:
    """The form that the term `pattern` rewards."""

    regex: str = ""


@dataclass(slots=True, kw_only=True)
class RewardConfig:
    """Reward terms, their raw weights (never renormalised), and the workers that compute them."""

    weights: dict[str, float] = field(default_factory=lambda: {"unit_tests": 1.0})
    num_workers: int = 1
    cpus_per_worker: float = 0.0  #: logical CPUs that Ray reserves; the sandbox's processes take what is idle
    slots_per_worker: int = 2  #: programs one worker runs at a time
    timeout_s: float = 120.0  #: of one group, all terms together
    unit_tests: UnitTestsConfig = field(default_factory=UnitTestsConfig)
    pattern: PatternConfig = field(default_factory=PatternConfig)

    def __post_init__(self) -> None:
        _at_least("reward", self, 1, "num_workers", "slots_per_worker")
        _at_least("reward", self, 0, "cpus_per_worker")
        _positive("reward", self, "timeout_s")
        if not self.weights:
            raise ConfigError(
                "reward.weights", self.weights, "no reward term", "Name one, e.g. reward.weights.unit_tests=1."
            )
        for name, key in {OVERLONG_TERM: "overlong_penalty", KL_TERM: "kl_coefficient"}.items():
            if name in self.weights:
                raise ConfigError(
                    f"reward.weights.{name}",
                    self.weights[name],
                    "the name is taken by a term that scoring adds",
                    f"Rename yours; the weight of that one is algorithm.{key}.",
                )
        for name, weight in self.weights.items():
            if not math.isfinite(weight):
                raise ConfigError(
                    f"reward.weights.{name}", weight, "not a finite number", "0 logs it without training."
                )


@dataclass(slots=True, kw_only=True)
class AlgorithmConfig:
    """The loss: advantage, ratio, KL and aggregation. Formulae in docs/algorithm.md."""

    advantage: AdvantageKind = AdvantageKind.group_std
    advantage_eps: float = 1e-4
    mixture: Mixture = Mixture.weighted_sum
    surrogate: Surrogate = Surrogate.clip
    ratio_level: RatioLevel = RatioLevel.token
    ratio_to: RatioTo = RatioTo.proximal
    clip_low: float = 0.2  #: the ratio is held above 1 less this; 1: no lower bound
    clip_high: float = 0.2
    dual_clip: float | None = None  #: with a negative advantage A the loss is at most -this * A; above 1
    importance: Importance = Importance.token_truncate
    importance_cap: float = 2.0  #: truncate: largest weight; mask: weights above it become 0
    importance_floor: float = 0.0  #: mask: weights below it become 0
    off_policy_threshold: float | None = None  #: nats a token: drop sequences with A < 0 that drifted further than this
    kl_coefficient: float = 0.0  #: 0 loads no reference model
    kl_estimator: KLEstimator = KLEstimator.weighted_k3  #: in the loss; in the reward it is always k1
    kl_in: KLPlacement = KLPlacement.loss
    entropy_coefficient: float = 0.0  #: of the entropy bonus
    aggregation: Aggregation = Aggregation.token_mean
    mask_truncated: bool = False  #: leave completions that were cut off out of the loss
    overlong_share: float = 0.0  #: the last share of rollout.max_new_tokens over which length is punished; 0: off
    overlong_penalty: float = 1.0  #: reward taken from a completion of full length
    drop_zero_variance: bool = False  #: groups without signal leave the denominators too
    updates_per_step: int = 1  #: optimiser updates made from one batch of rollouts

    def __post_init__(self) -> None:
        _at_least("algorithm", self, 0, "kl_coefficient", "clip_low", "clip_high", "entropy_coefficient")
        _at_least("algorithm", self, 0, "overlong_penalty", "importance_floor")
        _at_least("algorithm", self, 1, "updates_per_step")
        _positive("algorithm", self, "advantage_eps", "importance_cap", "off_policy_threshold")
        _within("algorithm", self, 0, 1, "overlong_share")
        if self.clip_low > 1:
            raise ConfigError("algorithm.clip_low", self.clip_low, "a ratio can't fall below 0", "1 is no lower bound.")
        self._check_ratio()
        self._check_importance()
        self._check_advantage()

    def _check_advantage(self) -> None:
        if self.mixture is not Mixture.weighted_sum and self.advantage is not AdvantageKind.group_std:
            raise ConfigError(
                "algorithm.advantage",
                self.advantage.value,
                f"algorithm.mixture={self.mixture.value} standardises every term in its group",
                "Set algorithm.advantage=group_std or algorithm.mixture=weighted_sum.",
            )
        if self.advantage is not AdvantageKind.max_rl:
            return
        # max_rl divides by a group's mean reward, so no reward may be negative.
        if self.overlong_share > 0 and self.overlong_penalty > 0:
            raise ConfigError(
                "algorithm.overlong_share",
                self.overlong_share,
                "algorithm.advantage=max_rl needs rewards of 0 or more, and this is a penalty",
                "Set it to 0, or another algorithm.advantage.",
            )
        if self.kl_in is KLPlacement.reward and self.kl_coefficient > 0:
            raise ConfigError(
                "algorithm.kl_in",
                self.kl_in.value,
                "algorithm.advantage=max_rl needs rewards of 0 or more, and this is a penalty",
                "Set algorithm.kl_in=loss, or another algorithm.advantage.",
            )

    def _check_ratio(self) -> None:
        if self.dual_clip is not None and not self.dual_clip > 1:
            raise ConfigError("algorithm.dual_clip", self.dual_clip, "must be greater than 1", "3 is usual; null: off.")
        if self.dual_clip is not None and self.surrogate is not Surrogate.clip:
            raise ConfigError(
                "algorithm.dual_clip",
                self.dual_clip,
                f"algorithm.surrogate={self.surrogate.value} has no pessimistic clip to bound",
                "Set it to null, or algorithm.surrogate=clip.",
            )
        if self.ratio_level is RatioLevel.sequence and self.surrogate is not Surrogate.clip:
            raise ConfigError(
                "algorithm.ratio_level",
                self.ratio_level.value,
                f"algorithm.surrogate={self.surrogate.value} is defined token by token",
                "Set algorithm.ratio_level=token, or algorithm.surrogate=clip.",
            )
        if self.ratio_to is RatioTo.behavior and self.surrogate is Surrogate.reinforce:
            raise ConfigError(
                "algorithm.ratio_to",
                self.ratio_to.value,
                "algorithm.surrogate=reinforce has no ratio",
                "Set algorithm.ratio_to=proximal.",
            )

    def _check_importance(self) -> None:
        if self.ratio_to is RatioTo.behavior and self.importance is not Importance.none:
            raise ConfigError(
                "algorithm.importance",
                self.importance.value,
                "with algorithm.ratio_to=behavior the ratio corrects for the engine already; it would count twice",
                "Set algorithm.importance=none.",
            )
        if self.importance_floor >= self.importance_cap:
            raise ConfigError(
                "algorithm.importance_floor",
                self.importance_floor,
                f"not below algorithm.importance_cap={self.importance_cap}",
                "0.5 with a cap of 5 is IcePop's choice.",
            )


@dataclass(slots=True, kw_only=True)
class RolloutConfig:
    """vLLM engines and how they sample."""

    prompts_per_step: int = 8
    group_size: int = 8
    num_workers: int = 1
    tensor_parallel_size: int = 1
    cpus_per_worker: float = 1.0  #: logical CPUs that Ray reserves for each worker
    threads: int | None = None  #: OpenMP threads of a CPU engine; null: the machine's cores over the workers
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1  #: -1: off
    max_new_tokens: int = 256
    stop: list[str] = field(default_factory=list[str])
    gpu_memory_utilization: float = 0.85
    kv_cache_gib: float = 1.0  #: of a CPU engine
    block_size: int | None = None  #: tokens per KV block; prefixes are shared in whole blocks; null: vLLM's choice
    max_num_seqs: int = 256
    enforce_eager: bool = False
    timeout_s: float = 1800.0  #: of one group
    engine_args: dict[str, Any] = field(default_factory=dict[str, Any])  #: passed to vLLM's AsyncEngineArgs as they are

    def __post_init__(self) -> None:
        _at_least("rollout", self, 1, "prompts_per_step", "num_workers", "tensor_parallel_size", "threads")
        _at_least("rollout", self, 1, "max_new_tokens", "max_num_seqs", "block_size")
        _at_least("rollout", self, 0, "cpus_per_worker")
        _positive("rollout", self, "kv_cache_gib", "timeout_s", "temperature")
        _within("rollout", self, 0.05, 1.0, "gpu_memory_utilization")
        if self.group_size < 2:
            raise ConfigError(
                "rollout.group_size",
                self.group_size,
                "an advantage relative to a group needs a group",
                "Set it to 2 or more (8 to 16 is usual).",
            )
        if not 0 < self.top_p <= 1:
            raise ConfigError("rollout.top_p", self.top_p, "out of range", "Set it in (0, 1]; 1 switches it off.")
        if self.top_k == 0 or self.top_k < -1:
            raise ConfigError("rollout.top_k", self.top_k, "out of range", "Set -1 (off) or a positive number.")


@dataclass(slots=True, kw_only=True)
class LearnerConfig:
    """FSDP2 ranks and the optimiser."""

    num_ranks: int = 1
    cpus_per_rank: float = 1.0  #: logical CPUs that Ray reserves for each rank
    threads: int | None = None  #: intra-op threads of a CPU rank; null: the machine's cores over the ranks
    lr: float = 1e-6
    lr_schedule: LRSchedule = LRSchedule.constant
    warmup_steps: int = 0  #: optimiser updates
    min_lr_ratio: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    max_grad_norm: float = 1.0
    micro_batch_tokens: int = 8192  #: packed tokens of one forward and backward
    logits_chunk_tokens: int = 4096  #: loss tokens whose logits exist at one time
    activation_checkpointing: bool = False
    timeout_s: float = 1800.0  #: of any collective among the ranks

    def __post_init__(self) -> None:
        _at_least("learner", self, 1, "num_ranks", "threads", "micro_batch_tokens", "logits_chunk_tokens")
        _at_least("learner", self, 0, "cpus_per_rank", "warmup_steps", "weight_decay", "lr")
        _positive("learner", self, "eps", "max_grad_norm", "timeout_s")
        _within("learner", self, 0, 1, "min_lr_ratio")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"learner.{name}", value, "out of range", "Set it in [0, 1); 0.9 and 0.95 are usual.")


@dataclass(slots=True, kw_only=True)
class SyncConfig:
    """Weights from learner to engines."""

    bucket_mib: int = 256
    timeout_s: float = 300.0  #: of each phase

    def __post_init__(self) -> None:
        _at_least("sync", self, 1, "bucket_mib")
        _positive("sync", self, "timeout_s")


@dataclass(slots=True, kw_only=True)
class ClusterConfig:
    """The Ray cluster."""

    address: str | None = None  #: null starts a local Ray; "auto" or HOST:PORT joins one
    device: Device = Device.auto
    num_cpus: int | None = None  #: of a local Ray; null: this machine's
    num_gpus: int | None = None
    object_store_mib: int | None = None
    startup_timeout_s: float = 600.0

    def __post_init__(self) -> None:
        _at_least("cluster", self, 1, "num_cpus")
        _at_least("cluster", self, 0, "num_gpus")
        _at_least("cluster", self, 80, "object_store_mib")
        _positive("cluster", self, "startup_timeout_s")
        if self.address and self.address.startswith("ray://"):
            raise ConfigError(
                "cluster.address",
                self.address,
                "Ray Client can't stream groups as they finish",
                "Run grpo train on a node of the cluster with cluster.address=auto.",
            )
        local_only = {"num_cpus": self.num_cpus, "num_gpus": self.num_gpus, "object_store_mib": self.object_store_mib}
        for name, value in local_only.items():
            if self.address and value is not None:
                raise ConfigError(
                    f"cluster.{name}",
                    value,
                    f"can't be set when joining {self.address}",
                    "Drop it or cluster.address.",
                )


@dataclass(slots=True, kw_only=True)
class RunConfig:
    """One training run."""

    steps: int = 20
    seed: int = 0
    output_dir: str | None = None  #: null: runs/<experiment>/<date>-<time>
    resume: str | None = None  #: a run directory or one checkpoint of it
    checkpoint_every: int = 10  #: steps; 0: only at the end and on interruption
    keep_checkpoints: int = 2
    export: bool = True  #: write the final policy as Hugging Face safetensors
    quiet: bool = False
    experiment: str = "custom"  #: name in titles and directories
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    sync: SyncConfig = field(default_factory=SyncConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        _at_least("", self, 1, "steps", "keep_checkpoints")
        _at_least("", self, 0, "seed", "checkpoint_every")
        self._check_batch()
        self._check_lengths()
        self._check_rewards()

    @property
    def num_sequences(self) -> int:
        """Completions in one step."""
        return self.rollout.prompts_per_step * self.rollout.group_size

    def _check_batch(self) -> None:
        updates, prompts = self.algorithm.updates_per_step, self.rollout.prompts_per_step
        if prompts % updates:
            raise ConfigError(
                "rollout.prompts_per_step",
                prompts,
                f"not divisible by algorithm.updates_per_step={updates}",
                f"Set a multiple of {updates}.",
            )
        per_update = prompts // updates * self.rollout.group_size
        if per_update % self.learner.num_ranks:
            raise ConfigError(
                "learner.num_ranks",
                self.learner.num_ranks,
                f"the {per_update} completions of an update (prompts x group_size / updates) don't divide by it",
                "Change rollout.prompts_per_step, rollout.group_size or learner.num_ranks.",
            )

    def _check_rewards(self) -> None:
        for name, weight in self.reward.weights.items():
            if self.algorithm.advantage is AdvantageKind.max_rl and weight < 0:
                raise ConfigError(
                    f"reward.weights.{name}",
                    weight,
                    "algorithm.advantage=max_rl needs rewards of 0 or more",
                    "Set a weight of 0 or more, or another algorithm.advantage.",
                )

    def _check_lengths(self) -> None:
        needed = self.data.max_prompt_tokens + self.rollout.max_new_tokens
        if needed > self.model.max_length:
            raise ConfigError(
                "model.max_length",
                self.model.max_length,
                f"below data.max_prompt_tokens + rollout.max_new_tokens = {needed}",
                f"Raise it to {needed} or lower one of the two.",
            )
        if self.model.max_length > self.learner.micro_batch_tokens:
            raise ConfigError(
                "learner.micro_batch_tokens",
                self.learner.micro_batch_tokens,
                f"can't hold one sequence of model.max_length={self.model.max_length}",
                f"Raise it to {self.model.max_length} or lower model.max_length.",
            )
