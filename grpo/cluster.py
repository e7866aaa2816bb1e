"""Ray: starting or joining it, and asking it for places to put workers."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
import ray
import torch
from ray.exceptions import GetTimeoutError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from grpo.config import Device, RunConfig
from grpo.errors import ConfigError

#: How long a placement may take before it is reported as impossible, seconds.
PLACEMENT_TIMEOUT_S = 60.0
#: Of a completion on its way to the learner: id (8), logprob (4), text (about 4), and the same again in a Ray message.
BYTES_PER_TOKEN = 32


def resolve_device(config: RunConfig) -> str:
    """ "cuda" or "cpu", by the configuration and what this machine has.

    Raises:
        ConfigError: CUDA is asked for where torch sees none.
    """
    available = torch.cuda.is_available()
    if config.cluster.device is Device.cuda and not available and config.cluster.address is None:
        raise ConfigError(
            "cluster.device",
            "cuda",
            "torch sees no CUDA GPU on this machine",
            "Set cluster.device=cpu, or check nvidia-smi.",
        )
    if config.cluster.device is Device.auto:
        return "cuda" if available else "cpu"
    return config.cluster.device.value


def check_resources(config: RunConfig, device: str, *, only_rollout: bool = False) -> None:
    """Compare what the workers reserve with what a local Ray would have. Nothing is started.

    Args:
        only_rollout: no other workers will be started.

    Raises:
        ConfigError: more CPUs or GPUs are asked for than there are; lists who asks for what.
    """
    if config.cluster.address is not None:
        return
    parts = {
        "rollout.num_workers x cpus_per_worker": config.rollout.num_workers * config.rollout.cpus_per_worker,
        "learner.num_ranks x cpus_per_rank": config.learner.num_ranks * config.learner.cpus_per_rank,
        "reward.num_workers x cpus_per_worker": config.reward.num_workers * config.reward.cpus_per_worker,
    }
    terms = {f"reward.terms.{name}": config.reward.term(name) for name in config.reward.terms}
    own = {name: term for name, term in terms.items() if term.num_workers}
    parts |= {f"{name}.num_workers x cpus_per_worker": t.num_workers * t.cpus_per_worker for name, t in own.items()}
    if only_rollout:
        parts = {name: value for name, value in parts.items() if name.startswith("rollout.")}
    _compare("cluster.num_cpus", parts, config.cluster.num_cpus or num_cores(), "logical CPUs")
    if device == "cuda":
        gpus: dict[str, float] = {
            "rollout.num_workers x tensor_parallel_size": config.rollout.num_workers
            * config.rollout.tensor_parallel_size,
            "learner.num_ranks": config.learner.num_ranks,
        }
        gpus |= {f"{name}.num_workers x gpus_per_worker": t.num_workers * t.gpus_per_worker for name, t in own.items()}
        if only_rollout:
            gpus = {name: value for name, value in gpus.items() if name.startswith("rollout.")}
        there = torch.cuda.device_count() if config.cluster.num_gpus is None else config.cluster.num_gpus
        _compare("cluster.num_gpus", gpus, there, "GPUs")


def check_buffer(config: RunConfig) -> None:
    """Compare what may wait between engines and learner with the memory of this machine, where it waits.

    Raises:
        ConfigError: it would not fit.
    """
    groups = (config.schedule.staleness + 1) * config.rollout.prompts_per_step
    completions = groups * config.rollout.group_size
    needed = completions * config.model.max_length * BYTES_PER_TOKEN
    there = psutil.virtual_memory().available
    if needed > there:
        raise ConfigError(
            "schedule.max_staleness",
            config.schedule.staleness,
            f"{completions:,} completions of up to model.max_length={config.model.max_length:,} tokens may wait at a "
            f"time, {needed / 2**30:.1f} GiB; this machine has {there / 2**30:.1f} GiB free",
            "Lower it, rollout.prompts_per_step, rollout.group_size or model.max_length.",
        )


def _compare(field: str, parts: dict[str, float], available: float, what: str) -> None:
    asked = sum(parts.values())
    if asked > available:
        listing = ", ".join(f"{name} = {value:g}" for name, value in parts.items())
        raise ConfigError(
            field, available, f"{asked:g} {what} are asked for ({listing})", f"Lower one of these, or raise {field}."
        )


def num_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def ray_session(config: RunConfig, device: str) -> Iterator[None]:
    """A local Ray, or a connection to `cluster.address`; left behind clean."""
    if config.cluster.address is not None:
        ray.init(address=config.cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    else:
        _start_local(config, device)
    try:
        yield
    finally:
        started = psutil.Process().children(recursive=True) if config.cluster.address is None else []
        ray.shutdown()
        _end(started)


def _start_local(config: RunConfig, device: str) -> None:
    # Said for every actor without a GPU otherwise; Keel sets the visible devices itself.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray gives its workers the lowest priority; here they are the work itself.
    os.environ.setdefault("RAY_worker_niceness", "0")
    memory = config.cluster.object_store_mib
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(
            num_cpus=config.cluster.num_cpus or num_cores(),
            num_gpus=config.cluster.num_gpus if device == "cuda" else 0,
            object_store_memory=None if memory is None else memory << 20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            # A single machine needs no open ports.
            _node_ip_address="127.0.0.1",
        )


def _end(processes: Sequence[psutil.Process]) -> None:
    """End what is left of our own processes: first politely, then not."""
    _, alive = psutil.wait_procs(processes, timeout=3)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive, timeout=3)


def reserve(
    name: str, count: int, *, cpus: float, gpus: float, config: RunConfig, remedy: str
) -> PlacementGroup | None:
    """A placement group of `count` equal bundles, each on one node; None where nothing is asked for.

    Raises:
        ConfigError: the cluster can't provide it in `PLACEMENT_TIMEOUT_S`; says what is asked and what is free.
    """
    bundle = {name: float(value) for name, value in (("CPU", cpus), ("GPU", gpus)) if value}
    if not bundle:
        return None
    group = placement_group([dict(bundle) for _ in range(count)], strategy="PACK")
    try:
        ray.get(group.ready(), timeout=PLACEMENT_TIMEOUT_S)
    except GetTimeoutError:
        remove_placement_group(group)
        free = {name: ray.available_resources().get(name, 0.0) for name in bundle}
        raise ConfigError(
            name, count, f"the cluster can't place {count} x {bundle}; free now: {free}", remedy
        ) from None
    return group
