"""Fenced code blocks of Markdown as models write it: often unclosed, indented, repeated or nested."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from rewards.syntax import parse

PYTHON_TAGS = frozenset({"py", "python", "python3", "py3"})
_MARKDOWN_TAGS = frozenset({"markdown", "md"})
_OPENER = re.compile(r"^(?P<indent>\s*)(?P<fence>`{3,}|~{3,})\s*(?P<tag>[\w+#.-]*)[^`]*$")
_LATE_OPENER = re.compile(r"^[^`]*\s(?P<fence>`{3,})\s*(?P<tag>py|python|python3)\s*$", re.IGNORECASE)
_CLOSER = re.compile(r"^(?P<before>[^`]*(?=`)|\s*)(?P<fence>`{3,}|~{3,})\s*$")
_ONE_LINE = re.compile(r"```(?:python3?|py)?[ \t]+(?P<code>[^`\n]+)```")
_MAX_CLOSERS = 4
_MAX_DEPTH = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block.

    Attributes:
        tag: the language it is marked with, in lower case; may be empty.
        code: what stands in it, without the fence's own indentation.
    """

    tag: str
    code: str


def blocks_in(text: str, depth: int = 0) -> list[Block]:
    """The blocks that are not blank, in order; those of a block marked as Markdown instead of it.

    A block that is never closed runs to the end. Within an open block, a fence with a tag that could close it starts a
    new one (a model that repeats the fence it was prefilled with). Where the first fence that closes a block leaves
    broken Python and a later one does not, the later one counts: fences may stand in a docstring.
    """
    lines = text.split("\n")
    blocks: list[Block] = []
    index = 0
    while index < len(lines):
        opener = _OPENER.match(lines[index]) or _LATE_OPENER.match(lines[index])
        index += 1
        if opener is None:
            continue
        body, index = _body(lines, index, opener["fence"])
        code = _unindent(body, len(opener.groupdict().get("indent") or ""))
        tag = opener["tag"].lower()
        if tag in _MARKDOWN_TAGS and depth < _MAX_DEPTH:
            blocks += blocks_in(code, depth + 1)
        elif code.strip():
            blocks.append(Block(tag=tag, code=code))
    return blocks or [Block(tag="python", code=match["code"].strip() + "\n") for match in _ONE_LINE.finditer(text)]


def before_first(text: str) -> str:
    """What stands before the first line that opens or closes a block; all of it if there is none."""
    kept: list[str] = []
    for line in text.split("\n"):
        if _OPENER.match(line):
            break
        if closer := _CLOSER.match(line):
            kept.append(closer["before"])
            break
        kept.append(line)
    return "\n".join(kept) + "\n"


def _body(lines: list[str], start: int, fence: str) -> tuple[list[str], int]:
    """The lines of the block that starts at `start`, and where to read on."""
    ends: list[tuple[list[str], int]] = []
    for index in range(start, len(lines)):
        opener, closer = _OPENER.match(lines[index]), _CLOSER.match(lines[index])
        if opener and opener["tag"] and _answers(opener["fence"], fence):
            ends = ends or [(lines[start:index], index)]
            break
        if closer and _answers(closer["fence"], fence):
            ends.append(([*lines[start:index], closer["before"]], index + 1))
            if len(ends) == _MAX_CLOSERS:
                break
    if len(ends) < 2:
        return ends[0] if ends else (lines[start:], len(lines))
    return next((end for end in ends if parse(_unindent(end[0], 0)) is not None), ends[0])


def _answers(fence: str, opened_with: str) -> bool:
    return fence[0] == opened_with[0] and len(fence) >= len(opened_with)


def _unindent(lines: list[str], indent: int) -> str:
    """Without the indentation that the fence had, and without what all lines share if it is not Python otherwise."""
    stripped = [line[min(indent, len(line) - len(line.lstrip())) :] for line in lines]
    code = "\n".join(stripped).rstrip() + "\n"
    return code if parse(code) is not None else textwrap.dedent(code)
