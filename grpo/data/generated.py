"""Tasks that the package Reasoning Gym generates: about a hundred kinds, each with its own scorer."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from grpo.config import DataConfig
from grpo.data.files import Located
from grpo.data.schedule import apportion
from grpo.errors import DataError

if TYPE_CHECKING:
    from types import ModuleType

GENERATED = "reasoning_gym:"
_PATH = re.compile(r"(?P<names>[\w:.+]+?)(?:/size-(?P<size>\d+))?(?:/seed-(?P<seed>\d+))?")
_NAME = re.compile(r"(?P<name>\w+)(?::(?P<weight>\d+(?:\.\d+)?))?")
_DEFAULT_SIZE = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratedSet:
    """What a path asks for, e.g. ``reasoning_gym:leg_counting:2+chain_sum/size-500/seed-3``.

    Attributes:
        weights: weight of each kind by its name.
        size: tasks of all kinds together.
    """

    weights: dict[str, Fraction]
    size: int
    seed: int


def generate_rows(config: DataConfig) -> Iterator[Located]:
    """Entries of every kind, the kinds spread evenly over the order, each with its `dataset` and an `id`.

    Raises:
        DataError: the path is malformed, the package is not installed, or it has no such kind.
    """
    wanted = _parse(config.path)
    gym = _package()
    _check_names(wanted, gym)
    order = apportion(list(wanted.weights.values()), wanted.size)
    names = list(wanted.weights)
    sizes = {name: order.count(index) for index, name in enumerate(names)}
    # A kind of which the size leaves no task is not made: the package refuses a size of 0.
    kinds = {n: gym.create_dataset(n, size=size, seed=wanted.seed) for n, size in sizes.items() if size}
    position = dict.fromkeys(names, 0)
    for index in order:
        name = names[index]
        entry, number = kinds[name][position[name]], position[name]
        position[name] += 1
        row = {**entry, "dataset": name, "id": f"{name}-{wanted.seed}-{number}"}
        yield f"{GENERATED}{name}: row {number}", row


def _parse(path: str) -> GeneratedSet:
    match = _PATH.fullmatch(path.removeprefix(GENERATED))
    names = [_NAME.fullmatch(part) for part in match["names"].split("+")] if match else [None]
    if match is None or not all(names):
        raise DataError(f"data.path={path!r}: expected {GENERATED}NAME[:WEIGHT][+NAME[:WEIGHT]...][/size-N][/seed-N]")
    weights: dict[str, Fraction] = {}
    for name in names:
        assert name is not None
        if name["name"] in weights or Fraction(name["weight"] or 1) == 0:
            raise DataError(f"data.path={path!r}: name {name['name']!r} once, with a weight above 0")
        weights[name["name"]] = Fraction(name["weight"] or 1)
    size = int(match["size"] or _DEFAULT_SIZE)
    if size == 0:
        raise DataError(f"data.path={path!r}: a size of 0; set it to 1 or more")
    return GeneratedSet(weights=weights, size=size, seed=int(match["seed"] or 0))


def _package() -> ModuleType:
    try:
        import reasoning_gym  # pyright: ignore[reportMissingImports] - optional
    except ImportError as error:
        raise DataError(
            f"data.schema=reasoning_gym: the package that makes these tasks can't be imported ({error}). "
            "Install it: pip install reasoning-gym"
        ) from error
    return reasoning_gym


def _check_names(wanted: GeneratedSet, gym: ModuleType) -> None:
    from reasoning_gym.factory import DATASETS  # pyright: ignore[reportMissingImports]

    for name in wanted.weights:
        if name not in DATASETS:
            near = difflib.get_close_matches(name, DATASETS, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(sorted(DATASETS)[:5])}, ..."
            raise DataError(f"data.path: reasoning-gym {gym.__version__} makes no {name!r}; {hint}")
