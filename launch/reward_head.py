"""`grpo reward_head fit|evaluate|gate`: a linear reward fitted to preference pairs, judged, or a gate of prompts."""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

import grpo
from grpo.config import ModelConfig
from grpo.data.preferences import PreferencePair
from grpo.errors import KeelError
from grpo.models import resolve_model
from grpo.reward_heads.bag_of_words import bag_of_words_margins
from grpo.reward_heads.composition import compose
from grpo.reward_heads.evaluation import PairReport, score_pairs
from grpo.reward_heads.features import FeatureRun, read_features, read_prompt_states
from grpo.reward_heads.gate import GateReport, fit_gate, read_labelled, read_one_sided
from grpo.reward_heads.head import RewardHead
from grpo.reward_heads.pairs import read_pairs, split_by_prompt
from grpo.reward_heads.templates import ask_after
from grpo.reward_heads.training import fit_head
from rewards.base import RewardError
from rewards.head_facts import read_facts
from rewards.reward_models.loading import Dtype

_BACKBONE = "smollm2-135m-instruct"
_QUESTION = "Was that answer helpful? Answer yes or no."
_RIDGES = [0.1, 0.3, 1.0, 3.0]
_GATE_QUESTION = (
    "Could an answer to this affect how an animal, a person or another feeling being fares? Answer yes or no."
)
_GATE_RIDGES = [0.03, 0.1, 0.3, 1.0]


def main(arguments: list[str]) -> None:
    """Entry point; exits with 2 for bad input."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    chosen = _parser().parse_args(arguments)
    try:
        chosen.run(chosen)
    except (KeelError, RewardError) as error:
        print(f"grpo reward_head: {error}", file=sys.stderr)
        sys.exit(2)


def fit(chosen: argparse.Namespace) -> None:
    """Read states, choose layer and ridge, fit, judge once on the held-out pairs, write the head."""
    files = read_pairs(chosen.pairs, per_file=chosen.per_file or ())
    train, held_out = _split(files, chosen.held_out_share)
    tested = {name: pairs for name, pairs in held_out.items() if name in (chosen.judge_on or files)}
    if unknown := sorted(set(chosen.judge_on or ()) - set(files)):
        raise KeelError(f"--judge-on {' '.join(unknown)}: no such file of pairs; there are {', '.join(files)}")
    run = _feature_run(chosen)
    pairs = [pair for name in files for pair in train[name]]
    states = read_features(run, pairs)
    weights, best, candidates = fit_head(states, pairs, run.layers, chosen.ridges, seed=chosen.seed)
    scores = states[:, :, run.layers.index(best.layer)] @ weights
    facts: dict[str, Any] = {
        **_origin(chosen, "fit"),
        "seed": chosen.seed,
        "held_out_share": chosen.held_out_share,
        "num_training_pairs": {name: len(train[name]) for name in files},
        "ridge": best.ridge,
        "cross_validation": {"log_loss": best.log_loss, "accuracy": best.accuracy, "candidates": len(candidates)},
        # Of all training answers, liked or not: what turns a score into a value from 0 to 1 (rewards/squash.py).
        "calibration": {"center": float(scores.mean()), "scale": float(scores.std())},
    }
    head = _head(chosen, run, weights, best.layer, facts)
    with tempfile.TemporaryDirectory() as folder:
        model = compose(run.backbone, head, Path(folder) / "model")
        facts["held_out"] = {
            name: {
                "head": _judge(model, test, name, max_length=chosen.max_length).as_dict(),
                "bag_of_words": PairReport.of(test, bag_of_words_margins(pairs, test, seed=chosen.seed)).as_dict(),
            }
            for name, test in tested.items()
        }
    head.save(chosen.output)
    print(chosen.output)


def gate(chosen: argparse.Namespace) -> None:
    """Read states of labelled prompts, choose layer and ridge, fit, judge once on the held-out ones, write the head."""
    share = chosen.held_out_share
    prompts = [
        *read_labelled(chosen.prompts),
        *read_one_sided(chosen.passing or (), passes=True, held_out_share=share),
        *read_one_sided(chosen.stopped or (), passes=False, held_out_share=share),
    ]
    run = _feature_run(chosen)
    states = read_prompt_states(run, [(("user", prompt.text),) for prompt in prompts])
    passes = np.array([prompt.passes for prompt in prompts])
    training = np.array([not prompt.held_out for prompt in prompts])
    texts = [prompt.text for prompt in prompts if not prompt.held_out]
    weights, threshold, layer, found = fit_gate(states[training], passes[training], texts, run.layers, chosen.ridges)
    let_through = states[:, run.layers.index(layer)] @ weights >= threshold
    reports: dict[str, Any] = {}
    for source in dict.fromkeys(prompt.source for prompt in prompts):
        chosen_ones = np.array([prompt.source == source for prompt in prompts]) & ~training
        report = GateReport.of(passes[chosen_ones], let_through[chosen_ones])
        print(f"{source}: {report}")
        reports[source] = report.as_dict()
    facts = {
        **_origin(chosen, "gate"),
        "num_training_prompts": int(training.sum()),
        "ridge": found.pop("ridge"),
        "cross_validation": found,
        "threshold": threshold,
        "held_out": reports,
    }
    _head(chosen, run, weights, layer, facts).save(chosen.output)
    print(chosen.output)


def evaluate(chosen: argparse.Namespace) -> None:
    """Print a reward model's agreement with pairs; of a head's own data only those it was not fitted to."""
    files = read_pairs(chosen.pairs, per_file=chosen.per_file or ())
    model = resolve_model(ModelConfig(path=chosen.model))
    facts = read_facts(model)
    share = facts.get("held_out_share", 1.0) if chosen.held_out_share is None else chosen.held_out_share
    settings: dict[str, Any] = {"form": chosen.form}
    if length := chosen.max_length or facts.get("max_length"):
        settings["max_length"] = length
    reports: dict[str, Any] = {}
    for name, pairs in _split(files, share)[1].items():
        reports[name] = _judge(model, pairs, name, **settings).as_dict()
        stated = facts.get("held_out", {}).get(name, {}).get("head", {}).get("accuracy")
        if stated and not chosen.per_file and share == facts["held_out_share"]:
            print(f"  stated with the head: {stated['share']:.1%} of {stated['count']}")
    if chosen.json is not None:
        chosen.json.write_text(json.dumps(reports, indent=2) + "\n", encoding="utf-8")


def _feature_run(chosen: argparse.Namespace) -> FeatureRun:
    backbone = resolve_model(ModelConfig(path=chosen.backbone))
    template = ask_after(backbone, chosen.question) if chosen.template is None else chosen.template.read_text("utf-8")
    return FeatureRun(
        backbone=backbone,
        chat_template=template,
        layers=tuple(sorted(chosen.layers)),
        max_length=chosen.max_length,
        dtype=Dtype(chosen.dtype),
        cache=chosen.cache or chosen.output.parent / "features",
    )


def _origin(chosen: argparse.Namespace, command: str) -> dict[str, Any]:
    return {
        "made_by": f"grpo reward_head {command}, keel {grpo.__version__}",
        "date": date.today().isoformat(),
        "source": chosen.source,
        "licence": chosen.licence,
        "max_length": chosen.max_length,
        "dtype": chosen.dtype,
    }


def _head(
    chosen: argparse.Namespace, run: FeatureRun, weights: np.ndarray, layer: int, facts: dict[str, Any]
) -> RewardHead:
    return RewardHead(
        score_weight=weights,
        norm_weight=np.ones_like(weights),
        backbone=chosen.backbone,
        layer=layer,
        chat_template=run.chat_template,
        facts=facts,
    )


def _split(
    files: dict[str, list[PreferencePair]], share: float
) -> tuple[dict[str, list[PreferencePair]], dict[str, list[PreferencePair]]]:
    both = {name: split_by_prompt(pairs, share) for name, pairs in files.items()}
    return {name: train for name, (train, _) in both.items()}, {name: test for name, (_, test) in both.items()}


def _judge(model: Path, pairs: Sequence[PreferencePair], name: str, **settings: Any) -> PairReport:
    report = PairReport.of(pairs, score_pairs(model, pairs, **settings))
    print(f"{name}: agrees with people on {report.accuracy}")
    print(f"  where they chose the longer answer {report.chosen_longer}, the shorter {report.chosen_shorter}")
    print(f"  always the longer answer: {report.longer_answer}", flush=True)
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="grpo reward_head", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="fit|evaluate|gate")
    new = commands.add_parser("fit", help="fit a head to preference pairs")
    new.set_defaults(run=fit)
    new.add_argument("--pairs", nargs="+", required=True, metavar="FILE", help="rows with chosen, rejected, prompt")
    new.add_argument("--judge-on", nargs="+", metavar="NAME", help="files (NAME of NAME.jsonl.gz) to judge on; all")
    new.add_argument("--seed", type=int, default=0, help="of the cross-validation's folds; %(default)s")
    new.add_argument(
        "--per-file", type=int, nargs="+", help="pairs of each file, from its start: one number or several"
    )
    _add_fitting(new, question=_QUESTION, ridges=_RIDGES)
    old = commands.add_parser("evaluate", help="see how often a reward model agrees with people")
    old.set_defaults(run=evaluate)
    old.add_argument("--model", required=True, help="built-in name, directory or Hugging Face id")
    old.add_argument("--pairs", nargs="+", required=True, metavar="FILE")
    old.add_argument("--form", default="sequence_classification", help="sequence_classification or armorm")
    old.add_argument("--held-out-share", type=float, help="of the prompts; a head's own, else all")
    old.add_argument("--max-length", type=int, help="tokens of a dialogue; a head's own, else 4096")
    old.add_argument(
        "--per-file", type=int, nargs="+", help="pairs of each file, from its start: one number or several"
    )
    old.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    door = commands.add_parser("gate", help="fit a yes or no to labelled prompts")
    door.set_defaults(run=gate)
    door.add_argument(
        "--prompts", nargs="+", type=Path, required=True, metavar="FILE", help="rows with prompt, relevant, split"
    )
    door.add_argument("--passing", nargs="+", type=Path, metavar="FILE", help="rows with prompt, all of them to pass")
    door.add_argument("--stopped", nargs="+", type=Path, metavar="FILE", help="rows with prompt, none of them to pass")
    _add_fitting(door, question=_GATE_QUESTION, ridges=_GATE_RIDGES)
    return parser


def _add_fitting(command: argparse.ArgumentParser, *, question: str, ridges: list[float]) -> None:
    command.add_argument("--output", type=Path, required=True, metavar="FILE", help="NAME.safetensors, and NAME.json")
    command.add_argument("--backbone", default=_BACKBONE, help="a Llama-like model; %(default)s")
    asked = command.add_mutually_exclusive_group()
    asked.add_argument("--question", default=question, help="asked after the conversation; %(default)r")
    asked.add_argument("--template", type=Path, metavar="FILE", help="chat template (Jinja) instead of a question")
    command.add_argument("--layers", nargs="+", type=int, default=[12, 15, 18], help="to choose from; %(default)s")
    command.add_argument("--ridges", nargs="+", type=float, default=ridges, help="to choose from; %(default)s")
    command.add_argument("--held-out-share", type=float, default=0.3, help="of the prompts; %(default)s")
    command.add_argument("--max-length", type=int, default=512, help="tokens of a dialogue; %(default)s")
    command.add_argument("--dtype", default="float32", choices=list(Dtype), help="of the backbone's pass; %(default)s")
    command.add_argument("--cache", type=Path, metavar="DIR", help="states read so far; `features` beside --output")
    command.add_argument("--source", default="", help="where the data come from, for the .json")
    command.add_argument("--licence", default="", help="of the data, for the .json")
