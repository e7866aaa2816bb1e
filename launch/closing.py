"""What a finished run says last: what it reached, where it is, how to use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from grpo.config import RunConfig
from grpo.report.run_directory import RunDirectory


def quarter_means(metrics: Sequence[Mapping[str, float]]) -> tuple[float, float]:
    """Mean reward of the first and of the last quarter of the steps."""
    rewards = [m["reward/mean"] for m in metrics]
    size = max(1, len(rewards) // 4)
    return fmean(rewards[:size]), fmean(rewards[-size:])


def closing_lines(
    config: RunConfig, directory: RunDirectory, metrics: Sequence[Mapping[str, float]], finished: bool
) -> list[str]:
    """The last lines of a run's output."""
    first, last = quarter_means(metrics)
    done = int(metrics[-1]["step"])
    lines = [
        "",
        f"{'Finished' if finished else 'Stopped'} after {done} of {config.steps} steps: "
        f"mean reward {first:.3f} (first quarter) -> {last:.3f} (last quarter)",
        f"  Report      {directory.report}",
        f"  Curve       {directory.reward_curve}",
        f"  Metrics     {directory.metrics}    TensorBoard: tensorboard --logdir {directory.tensorboard}",
        f"  Rollouts    {directory.rollouts}/",
    ]
    if finished and config.export:
        lines += [
            f"  Policy      {directory.policy}",
            f'  Use it      transformers: AutoModelForCausalLM.from_pretrained("{directory.policy}")',
            f"              vLLM:         vllm serve {directory.policy}",
        ]
    lines.append(f"  Go on       grpo train experiment={config.experiment} resume={directory.path} steps=N")
    return lines
