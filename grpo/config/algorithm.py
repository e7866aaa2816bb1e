"""The loss: what it is made of, and what goes together."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from grpo.config.checks import at_least, positive, within
from grpo.errors import ConfigError


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
        at_least("algorithm", self, 0, "kl_coefficient", "clip_low", "clip_high", "entropy_coefficient")
        at_least("algorithm", self, 0, "overlong_penalty", "importance_floor")
        at_least("algorithm", self, 1, "updates_per_step")
        positive("algorithm", self, "advantage_eps", "importance_cap", "off_policy_threshold")
        within("algorithm", self, 0, 1, "overlong_share")
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
