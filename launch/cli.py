"""The `grpo` command."""

from __future__ import annotations

import sys

import grpo

USAGE = """\
usage: grpo COMMAND [arguments]

  train [experiment=NAME] [key=value ...] [-m]   train a policy with GRPO
        --help                                   list the presets and configuration groups
        --cfg job                                print the resolved configuration and stop
        -m key=a,b                               one run for each value
        --config-dir DIR                         presets of your own, laid out like conf/
  report RUN                                     write RUN/report.html again from the run's files
  bench rollout [key=value ...]                  measure how fast rollout workers sample, against bare vLLM
        --help                                   groups, rounds, lengths, and --json PATH
  doctor                                         look at this machine: packages, devices, space, sandbox
  reward_head fit|evaluate|gate                  fit a small reward to preference pairs; judge a reward model
        --help                                   what each takes

  --version   --help
"""


def main() -> None:
    """Entry point of the console script; exits with 2 for bad input, 1 for a failed run, 130 when interrupted."""
    try:
        _dispatch()
    except KeyboardInterrupt:  # before a run could take signals into its own hands
        print("Interrupted before anything was started.", file=sys.stderr)
        sys.exit(130)


def _dispatch() -> None:
    command, *arguments = sys.argv[1:] or ["--help"]
    if command in ("-h", "--help", "help"):
        print(USAGE, end="")
    elif command == "--version":
        print(f"keel {grpo.__version__}")
    elif command == "train":
        from launch.train import main as train

        train(arguments)
    elif command == "report":
        from launch.report import main as report

        report(arguments)
    elif command == "bench":
        from launch.bench import main as bench

        bench(arguments)
    elif command == "doctor":
        from launch.doctor import main as doctor

        doctor(arguments)
    elif command == "reward_head":
        from launch.reward_head import main as reward_head

        reward_head(arguments)
    else:
        print(f"grpo: no command {command!r}\n\n{USAGE}", end="", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
