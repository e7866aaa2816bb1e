"""Reward kind `function`: a Python function of yours."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    becomes a failed verdict, never 0; the reason is the exception's type. A plain function runs in a thread of its own,
    one call at a time; of an ``async def`` one, all calls are under way at once.

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

    def __init__(self, settings: Settings) -> None:
        self._function, self._batched = load(settings.path), settings.batched
        self._arguments = dict(settings.arguments)
        _check_arguments(settings.path, self._function, self._arguments)
        self._thread = ThreadPoolExecutor(1, "reward-function")

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError if the function can't be had, or does not take the arguments."""
        _check_arguments(settings.path, load(settings.path), settings.arguments)

    async def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict for each attempt, in order."""
        if not self._batched:
            return list(await asyncio.gather(*(self._judge_one(attempt) for attempt in attempts)))
        answer = await self._call(tuple(attempts))
        try:
            values = [answer] * len(attempts) if isinstance(answer, Verdict) else list(cast("Sequence[object]", answer))
        except TypeError:
            values = []
        if len(values) != len(attempts):
            _LOG.warning("a batched reward function has to return one value for each of %d attempts", len(attempts))
            return [Verdict.failed("wrong_number_of_values")] * len(attempts)
        return [_verdict(value) for value in values]

    def close(self) -> None:
        """Wait for a call under way."""
        self._thread.shutdown(cancel_futures=True)

    async def _judge_one(self, attempt: Attempt) -> Verdict:
        return _verdict(await self._call(attempt))

    async def _call(self, subject: Attempt | tuple[Attempt, ...]) -> object:
        """What the function returns, or a failed verdict for what it raises."""
        try:
            if inspect.iscoroutinefunction(self._function):
                return await self._function(subject, **self._arguments)
            value = await asyncio.get_running_loop().run_in_executor(self._thread, self._call_plain, subject)
            return await cast("Awaitable[object]", value) if inspect.isawaitable(value) else value
        except Exception as error:  # noqa: BLE001 - other people's code: any of it is a verdict
            return _broke(error)

    def _call_plain(self, subject: Attempt | tuple[Attempt, ...]) -> object:
        try:
            return self._function(subject, **self._arguments)
        except Exception as error:  # noqa: BLE001 - here, since a future can't carry StopIteration
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
