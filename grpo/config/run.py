"""One training run: all groups together, and what must hold between them."""

from __future__ import annotations

from dataclasses import dataclass, field

from grpo.config.algorithm import AdvantageKind, AlgorithmConfig
from grpo.config.checks import at_least
from grpo.config.data import DataConfig
from grpo.config.model import ModelConfig
from grpo.config.reward import RewardConfig
from grpo.config.schedule import ScheduleConfig
from grpo.config.workers import ClusterConfig, LearnerConfig, RolloutConfig, SyncConfig
from grpo.errors import ConfigError


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
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)

    def __post_init__(self) -> None:
        at_least("", self, 1, "steps", "keep_checkpoints")
        at_least("", self, 0, "seed", "checkpoint_every")
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
        if self.algorithm.advantage is not AdvantageKind.max_rl:
            return
        terms = self.reward.term_weights
        for place, weights in {
            "weights": terms.default,
            **{f"mixtures.{d}": w for d, w in terms.by_domain.items()},
        }.items():
            for name, weight in weights.items():
                if weight < 0:
                    raise ConfigError(
                        f"reward.{place}.{name}",
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
