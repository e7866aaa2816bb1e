"""`grpo bench rollout`: how fast do rollout workers sample, against bare vLLM given the same requests?"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grpo.config import RunConfig
from grpo.errors import ConfigError
from launch.configuration import load_config
from launch.screen import one_screen_errors

if TYPE_CHECKING:
    from grpo.throughput.measure import Measurement
    from grpo.throughput.workload import Options

#: Tokens/s of bare vLLM that spread wider over the rounds than this measure the machine's other work.
_MAX_SPREAD = 0.1


def main(arguments: list[str]) -> None:
    """Dispatch to the benchmark named; exits with 2 for bad input."""
    benchmark, *rest = arguments or ["--help"]
    if benchmark == "rollout":
        rollout(rest, prog="grpo bench rollout", description=__doc__ or "")
    if benchmark not in ("-h", "--help"):
        print(f"grpo bench: no benchmark {benchmark!r}; there is: rollout", file=sys.stderr)
        sys.exit(2)
    print("usage: grpo bench rollout [key=value ...] [--json PATH]   (--help lists all options)")


def rollout(arguments: list[str], *, prog: str | None, description: str) -> None:
    """Measure, print, write; always exits: 0, 1 where Keel is below the bar or a run failed, 2 for bad input."""
    given = _parser(prog, description).parse_args(arguments)
    with one_screen_errors("The measurement failed"):
        from grpo.throughput.workload import Lengths, Options

        options = Options(groups=given.groups, rounds=given.rounds, lengths=Lengths(given.lengths))
        config = load_config(given.overrides, given.config_dir)
        _check(config)
        picture = _picture(given.json)
        asked = _asked(config, given)
        try:
            found, measured = _measured(config, options)
        except KeyboardInterrupt:
            print("\nInterrupted; nothing was written.", file=sys.stderr)
            sys.exit(130)
        if picture is not None:
            given.json.write_text(json.dumps({**asked, **found}, indent=1) + "\n")
            _draw(picture, config, found, measured)
        _print(config, found)
    for reason in found["missed"]:
        print(f"missed: {reason}")
    sys.exit(1 if found["missed"] else 0)


def _parser(prog: str | None, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="keys and presets as for grpo train")
    parser.add_argument("--config-dir", type=Path, metavar="DIR", help="presets of your own, laid out like conf/")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write all figures there, and a picture beside it")
    parser.add_argument("--groups", type=int, help="of a round and arm (default: twice what engines hold at a time)")
    parser.add_argument("--rounds", type=int, default=5, help="each runs both arms (default: 5)")
    parser.add_argument(
        "--lengths",
        choices=["replay", "natural"],
        default="replay",
        help="replay: completions end where they did in a pass before the first round, in both arms alike, so that the "
        "ratio says nothing but how fast (default); natural: they end by themselves, and arms differ by chance too",
    )
    return parser


def _check(config: RunConfig) -> None:
    if config.cluster.address is not None:
        raise ConfigError(
            "cluster.address",
            config.cluster.address,
            "bare vLLM is measured in processes of this machine, on the same cores as the workers",
            "Drop it, and measure one node's share of the workers.",
        )


def _picture(json_path: Path | None) -> Path | None:
    """Where the picture goes; found out before minutes of measuring."""
    if json_path is None:
        return None
    if json_path.suffix == ".png":
        raise ConfigError("--json", str(json_path), "this is where the picture goes", "Name the figures .json.")
    if not json_path.parent.is_dir():
        raise ConfigError("--json", str(json_path), "no such directory", f"Make {json_path.parent} first.")
    return json_path.with_suffix(".png")


def _asked(config: RunConfig, given: argparse.Namespace) -> dict[str, Any]:
    """What was asked for and what it is measured on, before anything is started."""
    from grpo.report.environment import describe_environment

    return {
        "environment": describe_environment(),
        "load": os.getloadavg(),
        "benchmark": "rollout",
        "overrides": given.overrides,
        "model": config.model.path,
        "lengths": given.lengths,
        "num_workers": config.rollout.num_workers,
        "group_size": config.rollout.group_size,
    }


def _measured(config: RunConfig, options: Options) -> tuple[dict[str, Any], Measurement]:
    from grpo.cluster import check_resources, ray_session, resolve_device
    from grpo.throughput.figures import figures
    from grpo.throughput.measure import measure
    from launch.preparation import prepare_prompts

    device = resolve_device(config)
    check_resources(config, device, only_rollout=True)
    model_path, prompts = prepare_prompts(config)
    logs = Path(tempfile.mkdtemp(prefix="keel-bench-"))
    # Engines are ended, whoever asks for it.
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    with ray_session(config, device):
        measured = asyncio.run(measure(config, device, model_path, prompts, options, logs, _note))
    shutil.rmtree(logs)  # after a failure they stay: the message names them
    return figures(measured), measured


def _note(line: str) -> None:
    print(line, flush=True)


def _draw(path: Path, config: RunConfig, found: dict[str, Any], measured: Measurement) -> None:
    from grpo.report.throughput_plot import write_throughput_plot
    from grpo.throughput.figures import latencies

    arms = found["arms"].items()
    over_time = {name: [one["tokens_per_s_over_time"] for one in arm["rounds"]] for name, arm in arms}
    heading = f"Rollout, {config.model.path}: {found['paired_ratio']:.3f} of bare vLLM"
    write_throughput_plot(path, latencies(measured), over_time, heading=heading)


def _print(config: RunConfig, found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    arms = found["arms"]
    table = Table(title=f"{config.model.path}: {found['paired_ratio']:.3f} of bare vLLM's tokens/s (paired rounds)")
    for number, column in enumerate(("", *arms)):
        table.add_column(column, justify="left" if number == 0 else "right")
    rows = {
        "tokens/s": lambda arm: f"{arm['tokens_per_s']:.1f}",
        "of each engine": lambda arm: ", ".join(f"{rate:.1f}" for rate in arm["tokens_per_s_by_worker"].values()),
        "spread over rounds": lambda arm: f"{arm['spread']:.0%}",
        "prefix-cache hits": lambda arm: f"{arm['prefix_cache_hit_rate']:.0%}",
        "s to a batch, p50 / p95": lambda arm: _seconds(arm["queue_s"], "p50", "p95"),
        "s to the first token, p50 / p95": lambda arm: _seconds(arm["first_token_s"], "p50", "p95"),
        "s of a completion, p50 / p95 / p99": lambda arm: _seconds(arm["latency_s"], "p50", "p95", "p99"),
        "time in the tail": lambda arm: f"{arm['tail_time_share']:.0%}",
        "tokens in long completions": lambda arm: f"{arm['tail_token_share']:.0%}",
        "tokens of a completion, p50 / max": lambda arm: " / ".join(f"{arm['length'][k]:.0f}" for k in ("p50", "max")),
    }
    for name, shown in rows.items():
        table.add_row(name, *map(shown, arms.values()))
    Console(width=110).print(table)
    if (widest := arms["bare vllm"]["spread"]) > _MAX_SPREAD:
        print(f"bare vLLM's own rounds spread by {widest:.0%}: was the machine busy? The ratio alone is worth reading.")


def _seconds(values: dict[str, float], *names: str) -> str:
    return " / ".join(f"{values[name]:.3f}" for name in names)
