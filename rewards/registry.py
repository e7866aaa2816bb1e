"""Reward kinds by name: the built-in ones, and those of other packages (entry point group `keel.rewards`)."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from rewards.base import Reward, RewardError
from rewards.settings import read_settings

ENTRY_POINT_GROUP = "keel.rewards"

#: Where each kind is; imported only when a run asks for it.
BUILT_IN: Mapping[str, str] = {
    "answer": "rewards.answer:Answer",
    "compassion": "rewards.compassion:Compassion",
    "function": "rewards.function:Function",
    "helpfulness": "rewards.helpfulness:Helpfulness",
    "judge": "rewards.judge:Judge",
    "length": "rewards.length:Length",
    "parses": "rewards.parses:Parses",
    "pattern": "rewards.pattern:Pattern",
    "reasoning_gym": "rewards.reasoning_gym:ReasoningGym",
    "repetition": "rewards.repetition:Repetition",
    "unit_tests": "rewards.code:UnitTests",
}


@dataclass(slots=True, kw_only=True)
class _NoSettings:
    """Of a kind that has nothing to set."""


def known() -> list[str]:
    """Names of all reward kinds, sorted. Raises RewardError if two packages claim one name."""
    return sorted(_points())


def check(kind: str, key: str) -> None:
    """Raise RewardError, with what is known, if there is no reward `kind`. Imports nothing of it.

    Args:
        key: dotted key that asks for it, for messages.
    """
    names = known()
    if kind not in names:
        close = difflib.get_close_matches(kind, names, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise RewardError(f"{key}: no reward of kind {kind!r}. {hint}Known: {', '.join(names)}.")


def settings_of(kind: str, values: Mapping[str, Any], key: str) -> Any:
    """The checked `Settings` of a reward kind.

    Args:
        values: plain values by field; what is not given keeps its default.
        key: dotted key that they stand under, for messages.

    Raises:
        RewardError: an unknown kind, a package that can't be imported, or a value that can't work.
    """
    return read_settings(getattr(_load(kind, key), "Settings", _NoSettings), values, key)


def preflight(kind: str, settings: Any, key: str) -> None:
    """Let a kind find out cheaply, before anything starts, whether it can work here. Raises RewardError."""
    own_check = getattr(_load(kind, key), "check", None)
    if own_check is not None:
        try:
            own_check(settings)
        except RewardError as error:
            raise _under(key, error) from error


def build(kind: str, settings: Any, key: str) -> Reward:
    """Build a reward from what `settings_of` returned.

    Raises:
        RewardError: it can't be built here, or what was built is no reward.
    """
    loaded = _load(kind, key)
    try:
        reward = loaded(settings) if hasattr(loaded, "Settings") else loaded()
    except RewardError as error:
        raise _under(key, error) from error
    if not isinstance(reward, Reward):
        raise RewardError(f"{key}: kind {kind!r} built a {type(reward).__name__}, which has no judge and close.")
    return reward


def model_fields(settings: Any) -> list[str]:
    """Names of the fields of a `Settings` that name a model."""
    return [entry.name for entry in fields(settings) if entry.metadata.get("model")]


def _under(key: str, error: RewardError) -> RewardError:
    """The same with its key in front: of the field it names, or of the whole."""
    return RewardError(f"{key}.{error}" if re.match(r"\w+=", str(error)) else f"{key}: {error}")


def _load(kind: str, key: str) -> Any:
    check(kind, key)
    point = _points()[kind]
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise RewardError(f"{key}: kind {kind!r} ({point.value}) can't be loaded: {error}") from error


def _points() -> dict[str, EntryPoint]:
    found = {name: EntryPoint(name, value, ENTRY_POINT_GROUP) for name, value in BUILT_IN.items()}
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise RewardError(f"reward {point.name!r} is defined twice; the second time by {point.value}. Rename one.")
        found[point.name] = point
    return found
