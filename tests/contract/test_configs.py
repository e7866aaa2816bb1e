"""Every shipped preset works, and every way to get an override wrong is answered with key, value and remedy."""

from __future__ import annotations

from dataclasses import MISSING, fields, is_dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml
from omegaconf import OmegaConf

from grpo.config import AlgorithmConfig, InFlight, RatioTo, RunConfig, SourceConfig
from grpo.errors import ConfigError
from launch.configuration import CONF_DIR, as_yaml, known_keys, load_config, sweep

FILES = sorted(CONF_DIR.rglob("*.yaml"))
EXPERIMENTS = sorted(p.stem for p in (CONF_DIR / "experiment").glob("*.yaml"))
RECIPES = sorted(p.stem for p in (CONF_DIR / "algorithm").glob("*.yaml"))
#: Free-form dictionaries of the schema.
OPEN = (
    *("reward.weights", "reward.mixtures", "reward.gates", "reward.terms", "rollout.engine_args"),
    *("data.fields", "data.filters", "data.sources"),
)


def leaves(node: Any = None, prefix: str = "") -> dict[str, Any]:
    """Dotted key -> default of everything that can be set."""
    found: dict[str, Any] = {}
    node = RunConfig() if node is None else node
    for field in fields(node):
        value = getattr(node, field.name)
        if is_dataclass(value):
            found |= leaves(value, f"{prefix}{field.name}.")
        else:
            found[prefix + field.name] = value
    return found


def enums(kind: type = RunConfig, prefix: str = "") -> list[tuple[str, StrEnum]]:
    """(dotted key, member) of every enum value of the schema."""
    found: list[tuple[str, StrEnum]] = []
    for name, hint in get_type_hints(kind).items():
        if is_dataclass(hint):
            found += enums(hint, f"{prefix}{name}.")  # pyright: ignore[reportArgumentType]
        elif isinstance(hint, type) and issubclass(hint, StrEnum):
            found += [(prefix + name, member) for member in hint]
    return found


def value_at(config: object, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
    return config


def refused(*overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(list(overrides))
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)
    return caught.value


def test_there_are_presets():
    assert {"tiny_cpu", "smollm2_code_cpu"} <= set(EXPERIMENTS)
    assert CONF_DIR.is_dir()


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_preset_is_valid_and_knows_its_name(experiment: str):
    assert load_config([f"experiment={experiment}"]).experiment == experiment


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if path.parent not in (CONF_DIR, CONF_DIR / "experiment")],
    ids=lambda path: f"{path.parent.name}={path.stem}",
)
def test_every_group_option_is_valid_by_itself(path: Path):
    section = type(getattr(RunConfig(), path.parent.name))
    merged = OmegaConf.merge(OmegaConf.structured(section), OmegaConf.load(path))
    assert isinstance(OmegaConf.to_object(merged), section)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_goes_with_every_experiment(recipe: str, experiment: str):
    """What the recipe sets, and the schema's default of all it does not."""
    written = yaml.safe_load((CONF_DIR / "algorithm" / f"{recipe}.yaml").read_text())
    found = leaves(load_config([f"experiment={experiment}", f"algorithm={recipe}"]).algorithm)
    assert found == leaves(AlgorithmConfig()) | written


def test_the_recipes_are_all_there():
    named = {"grpo", "dr_grpo", "dapo", "gspo", "cispo", "rloo", "scalerl", "gdpo"}
    assert set(RECIPES) == named
    assert len({str(leaves(load_config([f"algorithm={name}"]).algorithm)) for name in RECIPES}) == len(RECIPES)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(CONF_DIR)))
def test_every_key_of_every_file_exists(path: Path):
    content = yaml.safe_load(path.read_text()) or {}
    in_group = path.parent.name not in (CONF_DIR.name, "experiment")
    prefix = f"{path.parent.name}." if in_group else ""

    def keys(node: dict[str, Any], at: str) -> list[str]:
        return [
            key
            for name, value in node.items()
            for key in (
                keys(value, f"{at}{name}.") if isinstance(value, dict) and at + name not in OPEN else [at + name]
            )
        ]

    written = [k for k in keys(content, prefix) if k.split(".")[0] not in ("defaults", "hydra")]
    assert written or not in_group
    assert set(written) <= set(leaves()), path


def test_the_schema_stays_small():
    assert len(leaves()) <= 140


def test_known_keys_are_all_leaves_and_their_groups():
    assert set(leaves()) <= set(known_keys())
    assert {"model", "reward"} <= set(known_keys())


@pytest.mark.parametrize("key", [k for k in leaves() if k not in (*OPEN, "experiment")])
def test_every_key_can_be_given_its_own_default(key: str):
    """So it is reachable from the command line, and its default survives the way through YAML."""
    default = leaves()[key]
    text = OmegaConf.to_yaml({"x": default}).removeprefix("x: ").strip() if not isinstance(default, list) else "[]"
    # Room, whatever the shipped default run sets, since the schema's defaults are larger.
    room = ["cluster.object_store_mib=null", "model.max_length=2048", "learner.micro_batch_tokens=8192"]
    assert value_at(load_config([*room, f"{key}={text}"]), key) == default


#: What some values are refused without.
COMPANIONS: dict[StrEnum, list[str]] = {
    RatioTo.behavior: ["algorithm.importance=none"],
    InFlight.recompute: ["schedule.mode=async"],
}


@pytest.mark.parametrize(("key", "member"), enums(), ids=lambda value: str(value))
def test_every_enum_value_can_be_given_as_yaml_has_it(key: str, member: StrEnum):
    found = value_at(load_config([f"{key}={member.value}", *COMPANIONS.get(member, [])]), key)
    assert found is member


def test_all_types_are_plain():
    config = load_config(["rollout.stop=[a,b]", "rollout.engine_args.foo=3", "reward.weights.tone=0.5"])
    assert type(config) is RunConfig
    assert type(config.rollout.stop) is list
    assert type(config.rollout.engine_args) is dict
    assert config.rollout.engine_args == {"foo": 3}
    assert config.reward.weights == {"unit_tests": 1.0, "tone": 0.5}
    assert replace(config) == config


def test_a_resolved_configuration_can_be_read_back(tmp_path: Path):
    config = load_config(["experiment=tiny_cpu", "reward.weights.tone=0.0", "data.system_prompt='hi, {there}'"])
    file = tmp_path / "config.yaml"
    file.write_text(as_yaml(config))
    again = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(file)))
    assert again == config


def test_sources_from_the_command_line_and_over_a_preset():
    made = load_config(["data.sources.a.path=x.jsonl", "data.sources.a.weight=2", "data.sources.b.path=y"]).data
    assert made.sources == {"a": SourceConfig(path="x.jsonl", weight=2.0), "b": SourceConfig(path="y")}
    mixed = load_config(["data=two_domains", "data.sources.helpful.weight=0.5", "data.filters.lang=[python]"]).data
    assert [source.weight for source in mixed.sources.values()] == [2.0, 0.5]
    assert mixed.filters == {"lang": ["python"]}
    assert list(load_config(["data.sources.b.path=y", "data.sources.a.path=x"]).data.sources) == ["a", "b"]
    error = refused("data.sources.a.wieght=2")
    assert error.field == "data.sources.a.wieght"
    assert "A source has path, weight, schema" in str(error)
    assert refused("data.sources.a.weight=2").field == "data.sources.a.path"


def test_an_ablation_is_one_line():
    runs = list(sweep(["experiment=tiny_cpu", "reward.weights.compassion=0.0,0.1,0.3"]))
    weights = [load_config(run).reward.weights for run in runs]
    assert [w["compassion"] for w in weights] == [0.0, 0.1, 0.3]
    assert all(w["unit_tests"] == 1.0 for w in weights)


def test_a_sweep_is_a_product_and_keeps_what_is_no_sweep():
    runs = list(sweep(["seed=range(0,2)", "learner.lr=1e-5,1e-6", "data.system_prompt='a, b'", "rollout.stop=[x,y]"]))
    configs = [load_config(run) for run in runs]
    assert [(c.seed, c.learner.lr) for c in configs] == [(0, 1e-5), (0, 1e-6), (1, 1e-5), (1, 1e-6)]
    assert all(c.data.system_prompt == "a, b" and c.rollout.stop == ["x", "y"] for c in configs)


def test_a_sweep_over_presets():
    runs = list(sweep(["experiment=tiny_cpu,smollm2_code_cpu"]))
    assert [load_config(run).experiment for run in runs] == ["tiny_cpu", "smollm2_code_cpu"]


def test_no_sweep_is_one_run():
    assert list(sweep(["steps=3"])) == [["steps=3"]]
    assert list(sweep([])) == [[]]


@pytest.mark.parametrize("plus", ["", "+", "++"])
@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("rollout.group_sise", "rollout.group_size"),
        ("learner.learning_rate", None),
        ("step", "steps"),
        ("rollouts.group_size", "rollout.group_size"),
        ("modle", "model"),
    ],
)
def test_an_unknown_key(key: str, meant: str | None, plus: str):
    error = refused(f"{plus}{key}=4")
    assert error.field == key
    assert "unknown key" in str(error)
    if meant:
        assert f"Did you mean {meant}" in str(error)


@pytest.mark.parametrize(
    ("override", "problem"),
    [
        ("rollout.group_size=four", "Integer"),
        ("steps=1.5", "Integer"),
        ("learner.lr=fast", "Float"),
        ("export=maybe", "bool"),
        ("rollout.stop=x", "list"),
        ("steps=null", "not Optional"),
        ("reward.weights.tone=much", "Float"),
        ("data.prefill=bogus", "[none, fence, signature]"),
        ("algorithm.aggregation=mean", "token_mean"),
    ],
)
def test_a_wrong_type_is_named(override: str, problem: str):
    error = refused(override)
    key, value = override.split("=")
    assert error.field == key
    assert error.value == value
    assert problem in str(error)


@pytest.mark.parametrize(
    ("override", "field", "telling"),
    [
        ("steps=-1", "steps", "Set it to 1 or more"),
        ("learner.lr=-1e-5", "learner.lr", "Set it to 0 or more"),
        ("learner.lr=nan", "learner.lr", "Set it to 0 or more"),
        ("rollout.group_size=1", "rollout.group_size", "needs a group"),
        ("rollout.group_size=-8", "rollout.group_size", "needs a group"),
        ("rollout.temperature=0", "rollout.temperature", "greater than 0"),
        ("learner.num_ranks=7919", "learner.num_ranks", "of an update"),
        ("algorithm.updates_per_step=7919", "rollout.prompts_per_step", "multiple of 7919"),
        ("model.max_length=2", "model.max_length", "max_prompt_tokens"),
        ("~reward.weights.unit_tests", "reward.weights", "no reward term"),
        ("cluster.object_store_mib=100 cluster.address=auto", "cluster.object_store_mib", "joining auto"),
    ],
)
def test_a_value_that_cannot_work(override: str, field: str, telling: str):
    error = refused(*override.split())
    assert error.field == field
    assert telling in str(error)


@pytest.mark.parametrize("group", ["model", "data", "rollout", "learner", "experiment", "algorithm"])
@pytest.mark.parametrize("plus", ["", "+"])
def test_an_unknown_preset_lists_those_there_are(group: str, plus: str):
    error = refused(f"{plus}{group}=nope")
    assert (error.field, error.value) == (group, "nope")
    for option in (CONF_DIR / group).glob("*.yaml"):
        assert option.stem in str(error)


@pytest.mark.parametrize("override", ["steps", "--steps", "steps:3"])
def test_no_equals_sign(override: str):
    assert "key=value" in str(refused(override))


def test_a_later_override_wins_and_yaml_never_beats_the_command_line():
    assert load_config(["steps=5", "experiment=tiny_cpu", "steps=7"]).steps == 7
    assert load_config(["rollout.group_size=2", "experiment=tiny_cpu"]).rollout.group_size == 2


def test_defaults_live_in_the_schema_alone():
    """No field of a section lacks a default: YAML must not be needed to build one."""
    for kind in {type(value_at(RunConfig(), key.rpartition(".")[0] or "model")) for key in leaves()}:
        for field in fields(kind):
            assert field.default is not MISSING or field.default_factory is not MISSING, (kind, field.name)
