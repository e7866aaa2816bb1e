"""The documentation names every key, with its default, and every metric, and points at nothing that is not there."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import get_type_hints

import pytest
import torch
import yaml

from grpo.config import AlgorithmConfig, RunConfig
from grpo.kernels.head import HeadLoss
from grpo.learner.totals import StepTotals
from grpo.loss import loss_output, loss_tokens
from grpo.packing import pack
from grpo.report.series import TIME_PARTS
from launch.configuration import CONF_DIR, known_keys
from tests.builders import make_sequence
from tests.conftest import ROOT

DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
METRIC_SOURCES = ["grpo/step_metrics.py", "grpo/learner/learner.py", "grpo/controller.py"]
_METRIC = re.compile(r"(reward|domain|advantage|rollout|learner|sync|time)(/[\w<>]+)+")
_FENCE = re.compile(r"^ *(```+|~~~+).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_SOURCE_PATH = re.compile(r"`((?:grpo|rewards|launch|conf)/[\w./*-]*)`")
_METRIC_ROW = re.compile(r"^\| `([\w/<>]+)` \|", re.MULTILINE)
_KEY_ROW = re.compile(r"^\| `([\w.]+)` \| `(.*?)` \|", re.MULTILINE)
_GROUP_ROW = re.compile(r"^\| `(\w+)=` \| (.+?) \|$", re.MULTILINE)
_NAME_ROW = re.compile(r"^\| `(\w+)`[^|]* \|", re.MULTILINE)


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def prose(document: Path) -> str:
    """Text without fenced blocks."""
    return _FENCE.sub("", document.read_text(encoding="utf-8"))


def page(name: str) -> str:
    """The whole of docs/NAME.md."""
    return (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")


def defaults() -> dict[str, object]:
    """Every leaf of the schema with its default."""
    groups = {key.rpartition(".")[0] for key in known_keys()}
    found: dict[str, object] = {}
    for key in set(known_keys()) - groups:
        value: object = RunConfig()
        for part in key.split("."):
            value = getattr(value, part)
        found[key] = value
    return found


def shown(value: object) -> str:
    """A default as docs/config.md writes it."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {entry}" for key, entry in value.items()) + "}"
    if isinstance(value, StrEnum):
        return value.value
    plain = {None: "null", True: "true", False: "false", "": "''"}
    return plain[value] if value is None or isinstance(value, bool) or value == "" else str(value)


def literals(tree: ast.AST) -> Iterator[str]:
    """String literals; a formatted one with its fields in angle brackets: `reward/<term>/mean`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(
                f"<{ast.unparse(part.value)}>" if isinstance(part, ast.FormattedValue) else ast.literal_eval(part)
                for part in node.values
            )


def metric_names() -> set[str]:
    """Names in the sources that write metrics, and those that the loss hands to the learner to be named."""
    written = {text for source in METRIC_SOURCES for text in literals(ast.parse((ROOT / source).read_text()))}
    return {name for name in written if _METRIC.fullmatch(name)} | loss_metrics() | {"epoch", "step", "policy_version"}


def loss_metrics() -> set[str]:
    """Names that the learner gives to what the loss reports, with every option that adds one."""
    batch = pack([[make_sequence([1], [2, 3])]], [[0.5]])
    logprobs = batch.behavior_logprobs
    tokens = loss_tokens(batch, reference=logprobs)
    config = AlgorithmConfig(dual_clip=3.0, kl_coefficient=0.1)
    totals = StepTotals()
    totals.add(loss_output(HeadLoss(torch.zeros(()), logprobs, logprobs), tokens, config))
    with pytest.MonkeyPatch.context() as patch:  # one rank needs no process group
        patch.setattr("grpo.learner.totals._all_reduce", lambda values, _: {n: v.item() for n, v in values.items()})
        return set(totals.metrics())


def test_every_key_is_documented_with_its_default():
    documented = dict(_KEY_ROW.findall(page("config")))
    assert documented == {key: shown(value) for key, value in defaults().items()}


def test_every_option_of_every_group_is_documented():
    presets, _, _ = page("config").partition("\n## All keys")
    documented = {group: set(re.findall(r"`(\w+)`", options)) for group, options in _GROUP_ROW.findall(presets)}
    documented["experiment"] = set(_NAME_ROW.findall(presets))
    groups = [path for path in CONF_DIR.iterdir() if path.is_dir()]
    assert documented == {group.name: {path.stem for path in group.glob("*.yaml")} for group in groups}


def test_every_recipe_is_documented_with_the_keys_it_sets():
    section = page("algorithm").partition("\n## Recipes\n")[2].partition("\n## ")[0]
    table, departures = section.split("\n| recipe |")
    rows = {
        name: {key: yaml.safe_load(value) for key, value in re.findall(r"`(\w+)=(\S+?)`", sets)}
        for name, sets in re.findall(r"^\| `(\w+)` \| (.+?) \|", table, re.MULTILINE)
    }
    assert rows == {path.stem: yaml.safe_load(path.read_text()) for path in (CONF_DIR / "algorithm").glob("*.yaml")}
    assert set(_NAME_ROW.findall(departures)) == set(rows)


def algorithm_choices() -> list[tuple[str, str]]:
    """(key, value) of all that the algorithm lets one choose by name."""
    kinds = {key: kind for key, kind in get_type_hints(AlgorithmConfig).items() if isinstance(kind, type)}
    return [(key, str(value)) for key, kind in kinds.items() if issubclass(kind, StrEnum) for value in kind]


@pytest.mark.parametrize(("key", "value"), algorithm_choices())
def test_every_choice_of_the_algorithm_is_explained(key: str, value: str):
    meanings = dict(re.findall(r"^\| `algorithm\.(\w+)` \| `.*?` \| (.+) \|$", page("config"), re.MULTILINE))
    assert f"`{value}`" in meanings[key]
    assert re.search(rf"`((algorithm\.)?{key}=)?{value}`", page("algorithm"))


def test_the_layers_are_those_that_are_checked():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    checked = next(contract["layers"] for contract in contracts if contract.get("containers") == ["grpo"])
    block = re.search(r"```\n +(controller\b.+?)\n +```", page("architecture"), re.DOTALL)
    assert block
    written = [re.split(" {3,}", line.strip())[0] for line in block[1].splitlines()]
    assert [re.findall(r"\w+|[:|]", line) for line in written] == [re.findall(r"\w+|[:|]", line) for line in checked]


@pytest.mark.parametrize("name", sorted(metric_names()))
def test_every_metric_is_documented(name: str):
    assert f"`{name}`" in page("metrics")


def test_no_documented_metric_is_gone():
    documented = _METRIC_ROW.findall(page("metrics"))
    assert len(documented) == len(set(documented))
    assert set(documented) <= metric_names() | {f"time/{part}_s" for part in TIME_PARTS}


def test_metrics_were_found_in_every_source():
    found = metric_names()
    assert {"reward/<term>/mean", "rollout/num_tokens", "learner/loss", "sync/load_s", "time/<stage>_s"} <= found


@pytest.mark.parametrize("document", DOCS, ids=name_of)
def test_relative_links_lead_somewhere(document: Path):
    links = [link for link in _LINK.findall(prose(document)) if not re.match(r"[a-z]+:", link)]
    missing = [link for link in links if not (document.parent / link.partition("#")[0]).exists()]
    assert not missing


def headings(document: Path) -> set[str]:
    """Anchors of a document's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCS, ids=name_of)
def test_anchors_exist(document: Path):
    for link in _LINK.findall(prose(document)):
        path, _, anchor = link.partition("#")
        if anchor and not re.match(r"[a-z]+:", link):
            assert anchor in headings(document.parent / path if path else document), link


@pytest.mark.parametrize("document", DOCS, ids=name_of)
def test_paths_of_the_source_exist(document: Path):
    paths = _SOURCE_PATH.findall(prose(document))
    assert not [path for path in paths if not any(ROOT.glob(path.rstrip("/")))]
