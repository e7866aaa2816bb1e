"""Which function a task is about, read from its tests and its reference code."""

from __future__ import annotations

import ast
import builtins
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence

_BUILTINS = frozenset(dir(builtins))


def called_function(tests: Sequence[str], code: str | None = None) -> str | None:
    """Name of the function under test, or None where the tests call none.

    With reference code: of the functions it defines at top level, the one which most tests call (the last defined of
    equals, since helper functions come first). Without: the outermost call in the first test that is no Python builtin.
    """
    if code is None:
        return next((name for name in _called_names(tests[0]) if name not in _BUILTINS), None) if tests else None
    defined = [node.name for node in _functions(code)]
    counts = Counter(name for test in tests for name in set(_called_names(test)).intersection(defined))
    return max(counts, key=lambda name: (counts[name], defined.index(name)), default=None)


def signature_of(code: str, name: str) -> str | None:
    """The ``def`` line of a top-level function of `code`, up to and including the colon; None if there is none."""
    nodes = [node for node in _functions(code) if node.name == name]
    if not nodes:
        return None
    node = nodes[-1]  # a redefinition replaces what came before
    keyword = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    return f"{keyword} {name}({ast.unparse(node.args)}){returns}:"


def before_function(code: str, name: str) -> str:
    """What comes before the last definition of a top-level function; all of `code` where there is none."""
    nodes = [node for node in _functions(code) if node.name == name]
    if not nodes:
        return code
    first = min(node.lineno for node in [nodes[-1], *nodes[-1].decorator_list])
    return "".join(code.splitlines(keepends=True)[: first - 1])


def is_python(text: str) -> bool:
    """Whether a text is a program; one of words alone, such as `None`, is taken for prose."""
    tree = _parse(text)
    return tree is not None and any(not isinstance(node, ast.Expr) for node in tree.body)


def _functions(code: str) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = _parse(code)
    return [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)] if tree else []


def _called_names(test: str) -> Iterator[str]:
    """Names called in a test, outermost first; methods are left out."""
    tree = _parse(test)
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


def _parse(code: str) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in other people's code is not ours to report
            return ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # null bytes, nesting without end
        return None
