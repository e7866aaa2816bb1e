"""Engines, learner ranks, what passes between them, and the cluster they live in."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any

from grpo.config.checks import at_least, positive, within
from grpo.errors import ConfigError


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
        at_least("rollout", self, 1, "prompts_per_step", "num_workers", "tensor_parallel_size", "threads")
        at_least("rollout", self, 1, "max_new_tokens", "max_num_seqs", "block_size")
        at_least("rollout", self, 0, "cpus_per_worker")
        positive("rollout", self, "kv_cache_gib", "timeout_s", "temperature")
        within("rollout", self, 0.05, 1.0, "gpu_memory_utilization")
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
        at_least("learner", self, 1, "num_ranks", "threads", "micro_batch_tokens", "logits_chunk_tokens")
        at_least("learner", self, 0, "cpus_per_rank", "warmup_steps", "weight_decay", "lr")
        positive("learner", self, "eps", "max_grad_norm", "timeout_s")
        within("learner", self, 0, 1, "min_lr_ratio")
        for name in ("beta1", "beta2"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ConfigError(f"learner.{name}", value, "out of range", "Set it in [0, 1); 0.9 and 0.95 are usual.")


class SyncBackend(StrEnum):
    """How weights get from the learner to the engines."""

    auto = "auto"
    broadcast = "broadcast"
    disk = "disk"
    delta = "delta"


@dataclass(slots=True, kw_only=True)
class SyncConfig:
    """Weights from learner to engines."""

    backend: SyncBackend = SyncBackend.auto
    bucket_mib: int = 256
    directory: str | None = None  #: of backend disk, on a file system that all nodes share; null: the run directory
    probe_every: int = 10  #: updates; 0: never
    retries: int = 1  #: of a failed update, each over a new channel and whole
    timeout_s: float = 300.0  #: of each phase

    def __post_init__(self) -> None:
        at_least("sync", self, 1, "bucket_mib")
        at_least("sync", self, 0, "probe_every", "retries")
        positive("sync", self, "timeout_s")
        if self.directory is None:
            return
        if self.backend not in (SyncBackend.disk, SyncBackend.auto):
            raise ConfigError(
                "sync.directory",
                self.directory,
                f"sync.backend={self.backend.value} writes no files",
                "Drop it, or set sync.backend=disk.",
            )
        if not PurePosixPath(self.directory).is_absolute():
            raise ConfigError(
                "sync.directory",
                self.directory,
                "not an absolute path, and workers have working directories of their own",
                "Name the whole path.",
            )


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
        at_least("cluster", self, 1, "num_cpus")
        at_least("cluster", self, 0, "num_gpus")
        at_least("cluster", self, 80, "object_store_mib")
        positive("cluster", self, "startup_timeout_s")
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
