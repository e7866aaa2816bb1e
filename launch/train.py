"""`grpo train`: check everything that can be checked, then start the run."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
import sys
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.hydra_config import HydraConfig

from grpo.config import RunConfig
from launch.configuration import (
    CONF_DIR,
    load_config,
    register_schema,
    sweep,
    to_run_config,
    with_open_dictionaries,
)
from launch.screen import one_screen_errors

if TYPE_CHECKING:
    from launch.preparation import Prepared

_SHOWS_ONLY = {"--help", "-h", "--cfg", "-c", "--info", "-i", "--hydra-help", "--version", "--shell-completion", "-sc"}


def main(arguments: list[str]) -> None:
    """Run one training, or with ``-m`` one for each combination of values."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config-dir", "-cd", type=Path)
    parser.add_argument("--multirun", "-m", action="store_true")
    known, rest = parser.parse_known_args(arguments)
    shows_only = any(argument.split("=")[0] in _SHOWS_ONLY for argument in rest)
    if not shows_only:
        with one_screen_errors():
            # Every run of a sweep is checked before the first one starts.
            for one in sweep(rest) if known.multirun else [rest]:
                load_config(one, known.config_dir)
    register_schema()
    flags = ["-m"] * known.multirun + (["--config-dir", str(known.config_dir)] if known.config_dir else [])
    sys.argv = ["grpo train", *flags, *with_open_dictionaries(rest)]
    started = datetime.now().strftime("%Y%m%d-%H%M%S")
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(
        lambda config: _job(config, started)
    )()


def _job(hydra_config: Any, started: str) -> float | None:
    with one_screen_errors():
        config = to_run_config(hydra_config)
        config = replace(config, output_dir=_output_dir(config, started))
        return train(config)


def _output_dir(config: RunConfig, started: str) -> str:
    """Where the run goes: as configured, else that of the run resumed, else by experiment and time."""
    from grpo.run_state import find_checkpoint

    directory = config.output_dir
    if directory is None and config.resume is not None:
        checkpoint = find_checkpoint(config.resume)
        run = checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else checkpoint.parent
        return str(run.resolve())
    directory = directory or f"runs/{config.experiment}/{started}"
    job = HydraConfig.get()
    if job.mode is not None and job.mode.name == "MULTIRUN":
        label = re.sub(r"[^\w.=,+-]+", "_", job.job.override_dirname)[:100]
        directory = f"{directory}/{job.job.num:03d}_{label}"
    # Workers on other nodes have another working directory.
    return str(Path(directory).expanduser().resolve())


def train(config: RunConfig) -> float:
    """One training run, from checks to the last line printed.

    Returns:
        Mean reward of the last quarter of the steps, for sweepers that optimise.

    Raises:
        KeelError: bad input (before Ray starts), or a failed run.
    """
    from launch.preparation import prepare

    with closing(prepare(config)) as prepared:
        finished = asyncio.run(_run(config, prepared))
        prepared.display.close()
        return _conclude(config, prepared, finished)


async def _run(config: RunConfig, prepared: Prepared) -> bool:
    from grpo.cluster import ray_session
    from grpo.controller import Controller
    from grpo.fleet import Fleet

    display, directory = prepared.display, prepared.directory
    display.start(prepared.plan)
    with ray_session(config, prepared.device):
        fleet = Fleet(config, prepared.device, directory.path.resolve() / "logs")
        try:
            controller = Controller(
                config,
                fleet,
                prepared.prompts,
                prepared.intake,
                directory,
                display,
                prepared.terms,
                first_step=prepared.first_step,
            )
            for number in (signal.SIGINT, signal.SIGTERM):
                asyncio.get_running_loop().add_signal_handler(number, controller.request_stop)
            finished = await controller.run(prepared.model_path, prepared.checkpoint)
            if finished and config.export:
                await controller.export(directory.policy)
            return finished
        finally:
            await fleet.shutdown()


def _conclude(config: RunConfig, prepared: Prepared, finished: bool) -> float:
    from grpo.report.curve import write_reward_curve
    from grpo.report.html import write_report
    from grpo.report.metrics_log import read_metrics
    from launch.closing import closing_lines, quarter_means

    directory = prepared.directory
    metrics = read_metrics(directory.metrics) if directory.metrics.exists() else []
    if not metrics:
        print("\nStopped before the first step was done; nothing was trained.")
        sys.exit(130)
    write_reward_curve(directory.reward_curve, metrics, title=f"{config.experiment}, {config.model.path}")
    write_report(directory.path)
    for line in closing_lines(config, directory, metrics, finished):
        print(line)
    if not finished:
        sys.exit(130)
    return quarter_means(metrics)[1]
