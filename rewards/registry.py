"""Reward terms by name: the built-in ones, and those of other packages (entry point group `keel.rewards`)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint, entry_points

from rewards.base import Reward, RewardError
from rewards.code import UnitTests
from rewards.parses import Parses
from rewards.pattern import Pattern

ENTRY_POINT_GROUP = "keel.rewards"

Builder = Callable[[Mapping[str, object]], Reward]

BUILT_IN: Mapping[str, Builder] = {
    "unit_tests": UnitTests.from_settings,
    "parses": Parses.from_settings,
    "pattern": Pattern.from_settings,
}


def known() -> list[str]:
    """Names of all reward terms, sorted. Raises RewardError if two packages claim one name."""
    return sorted({*BUILT_IN, *_installed()})


def check(name: str) -> None:
    """Raise RewardError, with what is known, if there is no reward term `name`. Loads nothing."""
    names = known()
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise RewardError(f"reward.weights.{name}: no such reward term. {hint}Known: {', '.join(names)}.")


def build(name: str, settings: Mapping[str, object]) -> Reward:
    """Build the reward term `name`.

    Args:
        settings: plain values: the config's `reward` group, so far ``{"unit_tests": {...}, "slots": n}``. Each
            builder takes what is its own.

    Raises:
        RewardError: unknown name, a package that can't be imported, or settings that can't work.
    """
    check(name)
    installed = _installed()
    if name in BUILT_IN:
        return BUILT_IN[name](settings)
    try:
        builder: Builder = installed[name].load()
    except (ImportError, AttributeError) as error:
        raise RewardError(f"reward.weights.{name}: {installed[name].value} can't be loaded: {error}") from error
    reward = builder(settings)
    if not isinstance(reward, Reward):  # pyright: ignore[reportUnnecessaryIsInstance] - other people's code
        raise RewardError(f"reward.weights.{name}: {installed[name].value} built a {type(reward).__name__}, no Reward.")
    return reward


def _installed() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in BUILT_IN or (point.name in found and found[point.name].value != point.value):
            raise RewardError(f"reward {point.name!r} is defined twice; the second time by {point.value}. Rename one.")
        found[point.name] = point
    return found
