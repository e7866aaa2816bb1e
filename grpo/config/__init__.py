"""The configuration schema: every key, its default and the invariants between keys.

YAML under conf/ only selects and overrides. Plain dataclasses, not frozen: a frozen schema can't be overlaid.
Each `__post_init__` raises `ConfigError` naming the key, the value and the remedy.
"""

from __future__ import annotations

from grpo.config.algorithm import (
    AdvantageKind,
    Aggregation,
    AlgorithmConfig,
    Importance,
    KLEstimator,
    KLPlacement,
    Mixture,
    RatioLevel,
    RatioTo,
    Surrogate,
)
from grpo.config.data import DataConfig, DataSchema, Prefill, SourceConfig
from grpo.config.model import Dtype, ModelConfig
from grpo.config.reward import KL_TERM, OVERLONG_TERM, RewardConfig, TermConfig
from grpo.config.run import RunConfig
from grpo.config.schedule import ASYNC, ONE_STEP_OFF, SYNC, InFlight, ScheduleConfig, ScheduleMode
from grpo.config.workers import (
    ClusterConfig,
    Device,
    LearnerConfig,
    LRSchedule,
    RolloutConfig,
    SyncBackend,
    SyncConfig,
)

__all__ = [
    "ASYNC",
    "KL_TERM",
    "ONE_STEP_OFF",
    "OVERLONG_TERM",
    "SYNC",
    "AdvantageKind",
    "Aggregation",
    "AlgorithmConfig",
    "ClusterConfig",
    "DataConfig",
    "DataSchema",
    "Device",
    "Dtype",
    "Importance",
    "InFlight",
    "KLEstimator",
    "KLPlacement",
    "LRSchedule",
    "LearnerConfig",
    "Mixture",
    "ModelConfig",
    "Prefill",
    "RatioLevel",
    "RatioTo",
    "RewardConfig",
    "RolloutConfig",
    "RunConfig",
    "ScheduleConfig",
    "ScheduleMode",
    "SourceConfig",
    "Surrogate",
    "SyncBackend",
    "SyncConfig",
    "TermConfig",
]
