"""The final answer in a solution: what is boxed, marked or stands last."""

from __future__ import annotations

import re
from fractions import Fraction

_BOXED = re.compile(r"\\(?:boxed|fbox)\s*\{")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.IGNORECASE | re.DOTALL)
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_SAYS = re.compile(r"\banswer(?:\s+is|\s*:|\s*=)\s*:?[ \t*]*(\S[^\n]*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!](?:\s|$)|\s*\*\*")
_NUMBER = re.compile(
    r"(?<![\w.])(?:[-+−]\s?)?\$?(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)"
    r"(?:[eE][-+]?\d+)?(?:\s?/\s?\d+)?(?!\.?\d)"
)
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*([-+]?\d+)\s*\}\s*\{\s*(\d+)\s*\}|\\[dt]?frac\s*(\d)\s*(\d)")
_MAX_DIGITS = 400


def marked_answer(text: str) -> str | None:
    r"""The last ``\boxed{...}``, else ``<answer>...</answer>``, else ``#### ...``, else "(the) answer is ..."; or None.

    Of the last form, a sentence's end is left out. Braces in a box may nest; a box that is never closed is none.
    """
    boxes = [text[match.end() :] for match in _BOXED.finditer(text)]
    for inside in reversed(boxes):
        content = _balanced(inside)
        if content is not None and content.strip():
            return content.strip()
    for pattern in (_TAGGED, _HASHES, _SAYS):
        found = pattern.findall(text)
        if found and found[-1].strip():
            return _SENTENCE_END.split(found[-1])[0].strip() if pattern is _SAYS else found[-1].strip()
    return None


def last_number(text: str) -> str | None:
    """The last number, as it is written but for LaTeX, or None."""
    numbers = _numbers(text)
    return numbers[-1] if numbers else None


def last_line(text: str) -> str | None:
    """The last line that is not blank, or None."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else None


def plain(text: str) -> str:
    r"""`text` without what only dresses it: superfluous blanks, ``$``, ``\text{}``, ``**``, a full stop at the end."""
    text = re.sub(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[,;! ]|\\(?:left|right)(?![a-zA-Z])|\*\*", "", text)
    text = " ".join(text.replace("\\(", "").replace("\\)", "").split()).strip("$ ")
    return text[:-1].strip("$ ") if text.endswith(".") else text


def number(text: str) -> Fraction | None:
    r"""The one number that `text` states, exactly, or None where it states none or several.

    ``1,234.5``, ``-3``, ``1e-3``, ``3/4``, ``\frac{3}{4}`` and ``$5`` are numbers; ``5%`` is 5; words around are fine.
    """
    found = _numbers(plain(text))
    return _exactly(found[0]) if len(found) == 1 else None


def _numbers(text: str) -> list[str]:
    text = text.replace("\\$", "$").replace("{,}", ",")
    text = _FRACTION.sub(lambda match: f" {match[1] or match[3]}/{match[2] or match[4]} ", text)
    return [match.group().strip() for match in _NUMBER.finditer(text)]


def _exactly(written: str) -> Fraction | None:
    written = written.replace("−", "-").replace("$", "").replace(",", "").replace(" ", "")
    exponent = re.search(r"[eE]([-+]?\d+)", written)
    if len(written) > _MAX_DIGITS or (exponent and abs(int(exponent[1])) > _MAX_DIGITS):
        return None
    try:
        if "/" in written:
            upper, _, lower = written.partition("/")
            return Fraction(upper) / Fraction(lower)
        return Fraction(written)
    except (ValueError, ZeroDivisionError):
        return None


def _balanced(text: str) -> str | None:
    depth = 1
    for index, sign in enumerate(text):
        depth += (sign == "{") - (sign == "}")
        if depth == 0:
            return text[:index]
    return None
