"""Hydra: from the command line to a checked `RunConfig`. Nothing else in Keel knows hydra or omegaconf."""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from grpo.config import RunConfig, SourceConfig
from grpo.errors import ConfigError

#: Beside the package in a checkout, inside it in a wheel.
CONF_DIR = next(
    (p for p in (Path(__file__).parent / "conf", Path(__file__).parent.parent / "conf") if p.is_dir()),
    Path(__file__).parent / "conf",
)

_OPEN_DICTIONARIES = (
    "reward.weights",
    "reward.mixtures",
    "reward.gates",
    "reward.terms",
    "rollout.engine_args",
    "data.sources",
    "data.filters",
    "data.fields",
)


def register_schema(overrides: Sequence[str] = ()) -> None:
    """Make `RunConfig` the schema that conf/config.yaml starts from.

    Args:
        overrides: sources that they name are added: omegaconf makes a typed entry of a dictionary from YAML, but not
            from the command line.
    """
    schema = OmegaConf.structured(RunConfig)
    for override in overrides:
        if named := re.match(r"data\.sources\.(\w+)\.", _split(override)[0]):
            schema.data.sources[named[1]] = SourceConfig
    ConfigStore.instance().store(name="run_schema", node=schema)


def load_config(overrides: list[str], user_dir: Path | None = None) -> RunConfig:
    """The configuration of one run.

    Args:
        overrides: ``key=value`` as on the command line.
        user_dir: a directory with presets of one's own, laid out like conf/ (``--config-dir``).

    Raises:
        ConfigError: unknown key or preset, wrong type, or a value that can't work.
    """
    register_schema(overrides)
    if user_dir is not None and not user_dir.is_dir():
        raise ConfigError("--config-dir", str(user_dir), "no such directory", "Name one laid out like conf/.")
    for override in overrides:
        _check_key(override, [CONF_DIR, *([user_dir] if user_dir else [])])
    search = [] if user_dir is None else [f"hydra.searchpath=['file://{user_dir.resolve()}']"]
    try:
        with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
            return to_run_config(compose("config", overrides=[*search, *with_open_dictionaries(overrides)]))
    except (HydraException, OmegaConfBaseException) as error:
        raise _explain(error, overrides) from None


def with_open_dictionaries(overrides: list[str]) -> list[str]:
    """Let ``reward.weights.NAME=1`` add a term: hydra takes a new entry of a dictionary only with ``++`` before it."""
    return [f"++{o}" if o.startswith(_OPEN_DICTIONARIES) else o for o in overrides]


def to_run_config(config: object) -> RunConfig:
    """Plain dataclasses out of hydra's configuration; their invariants are checked on the way."""
    made = OmegaConf.to_object(config)  # pyright: ignore[reportArgumentType]
    assert isinstance(made, RunConfig)
    return made


def as_yaml(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def sweep(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of each run of a sweep: all combinations of the values given."""
    parsed = OverridesParser.create().parse_overrides(overrides)
    choices = [
        [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
        if o.is_sweep_override()
        else [o.input_line or ""]
        for o in parsed
    ]
    yield from (list(combination) for combination in itertools.product(*choices))


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return re.sub(r"^(\+{1,2}|~)", "", key).split("@")[0], value


def _check_key(override: str, config_dirs: list[Path]) -> None:
    """Raise ConfigError for an override whose key or preset does not exist, before hydra words it its own way."""
    key, value = _split(override)
    if "=" not in override and not override.startswith("~"):
        raise ConfigError(override, "", "not of the form key=value", "Write e.g. steps=10, or see grpo train --help.")
    if key and (CONF_DIR / key).is_dir():
        options = sorted(p.stem for directory in config_dirs for p in (directory / key).glob("*.yaml"))
        if not re.search(r"[,(\[]", value) and value not in options:
            raise ConfigError(key, value, f"no such {key} preset", f"There are: {', '.join(options)}.")
        return
    if named := re.fullmatch(r"data\.sources\.\w+\.(\w+)(\..*)?", key):
        own = [entry.name for entry in fields(SourceConfig)]
        if named[1] not in own:
            raise ConfigError(key, value, "unknown key", f"A source has {', '.join(own)}.")
    if key in known_keys() or key.startswith((*_OPEN_DICTIONARIES, "hydra")):
        return
    raise _unknown_key(key, value)


def _unknown_key(key: str, value: object) -> ConfigError:
    near = difflib.get_close_matches(key, known_keys(), n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(near)}?" if near else "grpo train --cfg job prints all keys."
    return ConfigError(key, value, "unknown key", hint)


def _explain(error: Exception, overrides: list[str]) -> ConfigError:
    """One line that names key, value and remedy, from hydra's or omegaconf's chain of errors."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or current.__context__
    for link in chain:
        if isinstance(link, ConfigError):
            return link
    lines = [str(link).split("\n")[0].strip() for link in chain]
    telling = [x for x in lines if x and "$VALUE" not in x and not x.startswith(("Error merging override", "In '"))]
    field = next((str(k) for link in chain if (k := getattr(link, "full_key", None))), "")
    if not field:
        field = next((key for key, _ in map(_split, overrides) if key in " ".join(lines)), "configuration")
    value = next((v for k, v in map(_split, overrides) if k == field), None)
    if any(re.match(r"Key '.*' (is )?not in ", line) for line in lines):
        return _unknown_key(field, value)
    problem = (telling or lines or ["can't be read"])[0].rstrip(".")
    return ConfigError(field, value, problem, "grpo train --cfg job shows every key with a value of its type.")


def known_keys() -> list[str]:
    """Every dotted key of the schema, groups included."""
    return list(_keys(RunConfig(), ""))


def _keys(node: object, prefix: str) -> Iterator[str]:
    for entry in fields(node):  # pyright: ignore[reportArgumentType]
        yield prefix + entry.name
        value = getattr(node, entry.name)
        if is_dataclass(value):
            yield from _keys(value, f"{prefix}{entry.name}.")
