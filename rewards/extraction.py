"""Code out of an answer in Markdown, finished or not."""

from __future__ import annotations

import ast
import re
import textwrap
import warnings

_OPENER = re.compile(r"^\s*```+\s*(?P<tag>[\w+#.-]*)[^`]*$")
_CLOSER = re.compile(r"^(?P<before>[^`]*)```+\s*$")
_PYTHON_TAGS = frozenset({"", "py", "python", "python3", "py3"})


def extract_code(answer: str, entry_point: str | None) -> str:
    """The program in `answer`.

    Of several Python blocks: the last one that defines `entry_point`, else the last one. A block that is never closed
    runs to the end; a tagged fence inside an open block starts a new one (a model that repeats the prefilled fence).
    Blocks tagged with another language count only if there are no others. Without any fence: the whole text.
    """
    blocks = _blocks(answer)
    if not blocks:
        return answer
    candidates = [code for tag, code in blocks if tag in _PYTHON_TAGS] or [code for _, code in blocks]
    if entry_point:
        return next((code for code in reversed(candidates) if _mentions(code, entry_point)), candidates[-1])
    return candidates[-1]


def parse(code: str) -> ast.Module | None:
    """The syntax tree, or None if `code` is not Python. Never raises, whatever the text."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in model-written code is no concern of ours
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def defines(tree: ast.Module, name: str) -> bool:
    """Whether a top-level statement of `tree` binds `name` by def, class or assignment."""
    for statement in tree.body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                bound = {statement.name}
            case ast.Assign(targets=targets):
                bound = {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=target), value=ast.expr()):
                bound = {target}
            case _:
                bound = set[str]()
        if name in bound:
            return True
    return False


def _mentions(code: str, name: str) -> bool:
    """Like `defines`, but also of code that does not parse, such as a truncated block."""
    escaped = re.escape(name)
    pattern = rf"^(?:(?:async\s+)?def|class)\s+{escaped}\b|^{escaped}\s*(?::[^=\n]+)?="
    return re.search(pattern, code, re.MULTILINE) is not None


def _blocks(answer: str) -> list[tuple[str, str]]:
    """(lower-case tag, code) of every fenced block that is not blank."""
    blocks: list[tuple[str, str]] = []
    tag, lines = "", None

    def finish() -> None:
        if lines and "".join(lines).strip():
            blocks.append((tag, textwrap.dedent("\n".join(lines)).rstrip() + "\n"))

    for line in answer.split("\n"):
        opener = _OPENER.match(line)
        if lines is None:
            if opener:
                tag, lines = opener["tag"].lower(), list[str]()
        elif opener and opener["tag"]:
            finish()
            tag, lines = opener["tag"].lower(), []
        elif closer := _CLOSER.match(line):
            lines.append(closer["before"])
            finish()
            lines = None
        else:
            lines.append(line)
    finish()
    return blocks
