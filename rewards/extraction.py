"""Code out of an answer in Markdown, finished or not."""

from __future__ import annotations

import ast
import re

from rewards.fences import PYTHON_TAGS, Block, before_first, blocks_in
from rewards.syntax import bound_names, broken_line, missing_names, parse
from rewards.thought import after_thought

_READS_STDIN = re.compile(r"\binput\s*\(|\bstdin\b|\bopen\s*\(\s*0\s*[,)]")
_FUTURE = re.compile(r"^from __future__ import .*\n", re.MULTILINE)
_FIRST_NAME = re.compile(r"\s*([A-Za-z_]\w*)")
_CODE_LINE = re.compile(r"(?:async\s+)?def\s|class\s|import\s|from\s+\S+\s+import\s|@\w|[A-Za-z_]\w*\s*=[^=]")
_MAX_CUTS = 20
_DEFINES_IT = 0


def extract_code(answer: str, entry_point: str | None, *, reads_stdin: bool = False) -> str:
    """The program in `answer`. Never raises.

    What stands before the end of a thought (``</think>``) is no answer. Of several blocks it is the last one that

    0. defines `entry_point`, or of an expression such as ``Solution().f`` the name it starts with;
    1. defines it as a method;
    2. reads standard input, if `reads_stdin`;
    3. is marked as Python;
    4. is not marked, and does more than an example's output;
    5. is not marked;
    6. is there at all.

    Earlier blocks that bind names which it reads and does not bind itself, imports too, are put in front of it, and so
    are those that these need. A session (``>>> f(1)``) becomes the statements in it. Without any block, and where only
    the text before the first one defines `entry_point` (a prefilled signature without a fence), it is that text from
    its first line of code up to where it stops being Python.
    """
    text = after_thought(answer.replace("\r\n", "\n"))
    blocks = [Block(tag=block.tag, code=_without_prompts(block.code)) for block in blocks_in(text)]
    if not blocks:
        return _without_prose(text)
    name = first_name(entry_point) if entry_point else None
    ranks = [_rank(block, name, reads_stdin) for block in blocks]
    opening = before_first(text)
    if name and min(ranks) > _DEFINES_IT and _mentions(opening, name):
        return _without_prose(opening)
    best = max(index for index, rank in enumerate(ranks) if rank == min(ranks))
    return _with_what_it_needs(blocks, best)


def first_name(expression: str) -> str:
    """The name that an expression such as ``Solution().f`` starts with; all of it if it starts with none."""
    match = _FIRST_NAME.match(expression)
    return match[1] if match else expression


def _rank(block: Block, name: str | None, reads_stdin: bool) -> int:
    if name and _mentions(block.code, name):
        return _DEFINES_IT
    if name and _mentions(block.code, name, indent=r"[ \t]+"):
        return 1
    if reads_stdin and _READS_STDIN.search(block.code):
        return 2
    if block.tag in PYTHON_TAGS:
        return 3
    if block.tag:
        return 6
    return 4 if _does_something(block.code) else 5


def _mentions(code: str, name: str, indent: str = "") -> bool:
    """Like `syntax.defines`, but also of code that does not parse, such as a truncated block."""
    escaped = re.escape(name)
    pattern = rf"^{indent}(?:(?:async\s+)?def|class)\s+{escaped}\b"
    if not indent:
        pattern += rf"|^{escaped}\s*(?::[^=\n]+)?=(?!=)"
    return re.search(pattern, code, re.MULTILINE) is not None


def _does_something(code: str) -> bool:
    """Whether it has a statement, or a call: `[1, 2]` and `True` are what a program prints, not programs."""
    tree = parse(code)
    return tree is not None and any(
        not isinstance(statement, ast.Expr) or any(isinstance(node, ast.Call) for node in ast.walk(statement))
        for statement in tree.body
    )


def _with_what_it_needs(blocks: list[Block], chosen: int) -> str:
    needed, missing, grows = {chosen}, missing_names(blocks[chosen].code), True
    bound = [_bound(block) for block in blocks[:chosen]]
    while grows:
        found = {index for index, names in enumerate(bound) if names & missing} - needed
        needed, grows = needed | found, bool(found)
        missing |= {name for index in found for name in missing_names(blocks[index].code)}
    parts = [blocks[index].code for index in sorted(needed)]
    if len(parts) == 1:
        return parts[0]
    code = "\n".join(parts)
    return "".join(_FUTURE.findall(code)) + _FUTURE.sub("", code)  # these have to come first


def _bound(block: Block) -> set[str]:
    tree = parse(block.code) if block.tag in PYTHON_TAGS or not block.tag else None
    return bound_names(tree) if tree is not None else set()


def _without_prompts(code: str) -> str:
    """The statements of an interpreter session, without what it printed; other code as it is."""
    lines = code.split("\n")
    if not any(line.startswith(">>>") for line in lines) or parse(code) is not None:
        return code
    typed = [line[4:] for line in lines if line[:4].rstrip() in (">>>", "...")]
    return "\n".join(typed) + "\n"


def _without_prose(text: str) -> str:
    """The part of unfenced text that is Python, from its first line of code on; all of it if there is none."""
    lines = text.split("\n")
    start = next((index for index, line in enumerate(lines) if _CODE_LINE.match(line)), None)
    if start is None or parse(text) is not None:
        return text
    code = "\n".join(lines[start:])
    # Cutting behind the line where it breaks mends nothing.
    end = start + (broken_line(code) or len(lines) - start)
    cuts = [index for index in range(start + 1, end) if lines[index].strip() and not lines[index][0].isspace()]
    for cut in reversed(cuts[-_MAX_CUTS:]):
        if _CODE_LINE.match(lines[cut]):
            break  # what does not parse is code as well: broken or truncated
        part = "\n".join(lines[start:cut]).rstrip() + "\n"
        if parse(part) is not None:
            return part
    return code if parse(code) is not None else text
