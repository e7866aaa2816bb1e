"""Reward kind `answer`: is the final answer the known one?"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction

from rewards.base import Attempt, RewardError, Verdict
from rewards.child import Child, ChildError
from rewards.final_answer import last_line, last_number, marked_answer, number, plain
from rewards.thought import after_thought

_LOG = logging.getLogger(__name__)
_TAIL = 20_000  # characters in which a final answer is looked for


class Mode(StrEnum):
    """When two answers are the same."""

    EXACT = "exact"  #: the same text, but for blanks, ``$``, ``\\text{}`` and a full stop
    NUMERIC = "numeric"  #: the same number, within the tolerance
    MATH = "math"  #: the same text, number, or mathematical expression


class Answer:
    r"""1 if the final answer is ``reference["answer"]``, else 0; absent where the task has none.

    The final answer is what follows the thought (``</think>``) and stands in the last ``\boxed{}``, else in
    ``<answer></answer>``, after ``####``, or after "answer is". Without any of these, and unless `marked_only`, it is
    the last number ("numeric"), the last line ("exact"), or the last expression that math-verify finds ("math"). Marks
    in the known answer are read likewise, so that a worked solution of GSM8K or MATH will do.

    An answer that can't be read is wrong; a known answer that can't is a failed verdict ("malformed_reference"), and so
    is a comparison that takes longer than `timeout_s` ("math_timeout").
    """

    @dataclass(slots=True, kw_only=True)
    class Settings:
        """What `reward.terms.<name>.settings` holds."""

        mode: Mode = Mode.NUMERIC  #: "exact", "numeric" or "math" (which needs the package math-verify)
        tolerance: float = (
            1e-6  #: "numeric": |given - known| <= tolerance x max(1, |known|); whole numbers must be equal
        )
        ignore_case: bool = False  #: "exact" and "math": of text that is no expression
        marked_only: bool = False  #: an answer that is not marked as final is wrong
        timeout_s: float = 5.0  #: of one comparison; "math"

        def __post_init__(self) -> None:
            if not 0 <= self.tolerance < 1:
                raise RewardError(f"tolerance={self.tolerance}: set 0, for exactly the same number, or more, below 1.")
            if not self.timeout_s > 0:
                raise RewardError(f"timeout_s={self.timeout_s}: set a positive number of seconds.")

    def __init__(self, settings: Settings) -> None:
        self.check(settings)
        self._settings = settings
        self._child = Child("rewards.math_equivalence:equivalent", timeout_s=settings.timeout_s)

    @staticmethod
    def check(settings: Settings) -> None:
        """Raise RewardError if mode is "math" and its package is not installed."""
        if settings.mode is Mode.MATH and importlib.util.find_spec("math_verify") is None:
            raise RewardError("mode='math': needs the package math-verify; pip install math-verify, or set 'numeric'.")

    def judge(self, attempts: Sequence[Attempt]) -> list[Verdict]:
        """One verdict for each attempt; the reason of a 0 is "wrong" or "no_answer"."""
        return [self._judge(attempt) for attempt in attempts]

    def close(self) -> None:
        """End the process that compares expressions."""
        self._child.close()

    def _judge(self, attempt: Attempt) -> Verdict:
        known = attempt.reference.get("answer")
        if known is None or known == "":
            return Verdict.absent("no_reference_answer")
        if isinstance(known, bool) or not isinstance(known, str | int | float):
            return Verdict.failed("malformed_reference")
        known = marked_answer(str(known)) or str(known)
        text = after_thought(attempt.answer)[-_TAIL:]
        marked = marked_answer(text)
        given = marked if marked is not None or self._settings.marked_only else self._unmarked(text)
        if given is None:
            return Verdict.valid(0.0, reason="no_answer")
        match self._settings.mode:
            case Mode.EXACT:
                return _right(self._same_text(known, given))
            case Mode.NUMERIC:
                return self._numeric(known, given)
            case Mode.MATH:
                return self._math(known, given, is_marked=marked is not None)

    def _unmarked(self, text: str) -> str | None:
        match self._settings.mode:
            case Mode.EXACT:
                return last_line(text)
            case Mode.NUMERIC:
                return last_number(text)
            case Mode.MATH:
                return text if text.strip() else None

    def _same_text(self, known: str, given: str) -> bool:
        one, other = plain(known), plain(given)
        return one.casefold() == other.casefold() if self._settings.ignore_case else one == other

    def _numeric(self, known: str, given: str) -> Verdict:
        wanted, found = number(known), number(given)
        if wanted is None:
            _LOG.warning("the known answer is no number: %.100r", known)
            return Verdict.failed("malformed_reference")
        if found is None:
            return Verdict.valid(0.0, reason="no_answer")
        if found.denominator == wanted.denominator == 1:
            return _right(found == wanted)  # 1,450,001 is not 1,450,000, whatever the tolerance
        return _right(abs(found - wanted) <= Fraction(self._settings.tolerance) * max(Fraction(1), abs(wanted)))

    def _math(self, known: str, given: str, is_marked: bool) -> Verdict:
        if is_marked and self._same_text(known, given):
            return _right(True)
        try:
            same = self._child.call(known, given, is_marked)
        except ChildError as error:
            _LOG.warning("no verdict on %.100r, which should be %.100r: %s", given, known, error)
            return Verdict.failed(f"math_{error.reason.split()[0]}")
        return Verdict.failed("malformed_reference") if same is None else _right(same)


def _right(is_right: bool) -> Verdict:
    return Verdict.valid(1.0) if is_right else Verdict.valid(0.0, reason="wrong")
