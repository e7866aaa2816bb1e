"""Reward kind `function`: a Python function of yours."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from numbers import Real
from typing import Any, cast

from rewards.base import Attempt, RewardError, Verdict

_LOG = logging.getLogger(__name__)


class Function:
    """Whatever the function at `path` says of an attempt.

    It is called as ``f(attempt, **arguments)`` for each `rewards.base.Attempt`, or with `batched` once as
    ``f(attempts, **arguments)`` for all completions of one prompt. It may be ``def`` or ``async def``. It returns, for
    each attempt, a number, None where it does not apply (absent), or a `Verdict`. What it raises, and NaN or infinity,
    becomes a failed verdict, never 0; the reason is the exception's type. A plain function is called for one attempt
    after the other, in a thread of its own; of an ``async def`` one, all calls for a prompt are under way at once.

    Raises:
        RewardError: nothing callable at `path`, or it does not take `arguments`.
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """What `reward.terms.<name>.settings` holds."""

        path: str = ""  #: ``package.module:function``, importable by the reward workers; must be set
        batched: bool = False  #: one call for all completions of a prompt
        arguments: dict[str, Any] = field(default_factory=dict[str, Any])  #: further keyword arguments

        def __post_init__(self) -> None:
            module, _, name = self.path.partition(":")
            if not all(part.isidentifier() for part in [*module.split("."), *name.split(".")]):
                raise RewardError(f"path={self.path!r}: set it in the form 'package.module:function'.")

    #: ``async def`` where the function is; else plain, so that a worker whose function hangs can be ended and replaced.
    judge: Callable[[Sequence[Attempt]], Sequence[Verdict] | Awaitable[Sequence[Verdict]]]

    def __init__(self, settings: Settings) -> None:
        self._function, self._batched = load(settings.path), settings.batched
        self._arguments = dict(settings.arguments)
        _check_arguments(settings.path, self._function, self._arguments)
        self.judge = self._judge_async if _is_async(self._function) else self._judge_plain

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError if the function can't be had, or does not take the arguments."""
        _check_arguments(settings.path, load(settings.path), settings.arguments)

    def close(self) -> None:
        """Nothing to release."""

    def _judge_plain(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if self._batched:
            return _spread(self._call(tuple(attempts)), len(attempts))
        return [_verdict(self._call(attempt)) for attempt in attempts]

    async def _judge_async(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        if self._batched:
            return _spread(await self._call_async(tuple(attempts)), len(attempts))
        return [_verdict(value) for value in await asyncio.gather(*(self._call_async(each) for each in attempts))]

    def _call(self, subject: Attempt | tuple[Attempt, ...]) -> object:
        """What the function returns, or a failed verdict for what it raises."""
        try:
            return self._function(subject, **self._arguments)
        except Exception as error:  # noqa: BLE001 - other people's code: any of it is a verdict
            return _broke(error)

    async def _call_async(self, subject: Attempt | tuple[Attempt, ...]) -> object:
        try:
            return await self._function(subject, **self._arguments)
        except Exception as error:  # noqa: BLE001 - likewise
            return _broke(error)


def load(path: str) -> Callable[..., Any]:
    """What stands at ``package.module:function``. Raises RewardError."""
    module, _, name = path.partition(":")
    try:
        found = reduce(getattr, name.split("."), cast("Any", importlib.import_module(module)))
    except Exception as error:
        raise RewardError(
            f"path={path!r}: can't be loaded ({type(error).__name__}: {error}); its package must be installed, or its "
            "folder be on PYTHONPATH, wherever a reward worker runs."
        ) from error
    if not callable(found):
        raise RewardError(f"path={path!r}: is a {type(found).__name__}; name a function.")
    return found


def _check_arguments(path: str, function: Callable[..., Any], arguments: dict[str, Any]) -> None:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return  # some built-in functions don't tell
    try:
        signature.bind(None, **arguments)
    except TypeError as error:
        raise RewardError(f"arguments={arguments!r}: {path} does not take them after the attempt ({error}).") from error


def _is_async(function: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def _spread(answer: object, count: int) -> list[Verdict]:
    """The verdicts out of what a batched function returned for `count` attempts."""
    if isinstance(answer, Verdict):  # it raised
        return [answer] * count
    try:
        values = list(cast("Sequence[object]", answer))
    except TypeError:
        values = []
    if len(values) != count:
        _LOG.warning("a batched reward function has to return one value for each of %d attempts", count)
        return [Verdict.failed("wrong_number_of_values")] * count
    return [_verdict(value) for value in values]


def _verdict(value: object) -> Verdict:
    if value is None:
        return Verdict.absent("not_applicable")
    if isinstance(value, Verdict):
        return value
    if isinstance(value, Real):
        return Verdict.valid(float(value))
    _LOG.warning("a reward function returned a %s: return a number, None or a Verdict", type(value).__name__)
    return Verdict.failed("not_a_number")


def _broke(error: Exception) -> Verdict:
    _LOG.warning("a reward function raised", exc_info=error)
    return Verdict.failed(type(error).__name__)
