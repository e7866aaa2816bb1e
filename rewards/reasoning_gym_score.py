"""Scores of reasoning-gym's own verifiers. Meant to run in a `rewards.child.Child`.

Some of them evaluate the answer as an expression, so that it can loop for ever or eat all memory.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any, cast

_FACTORY = cast("Any", importlib.import_module("reasoning_gym.factory"))


def score(dataset: str, entry: dict[str, Any], answer: str) -> float | None:
    """What the data set `dataset` says of `answer` to its `entry`, or None if there is no such data set."""
    if dataset not in _FACTORY.DATASETS:
        return None
    return float(_verifier(dataset)(answer=answer, entry=entry))


@functools.cache
def _verifier(dataset: str) -> Callable[..., float]:
    return _FACTORY.get_score_answer_fn(dataset)
