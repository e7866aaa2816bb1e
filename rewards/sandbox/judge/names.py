"""Which names of the tests mean the program, and which stay the judge's own."""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections.abc import Iterable

_USUAL_SHORT_NAMES = {"np": "numpy"}


@functools.cache
def tree_of(source: str) -> ast.Module:
    """The syntax tree, parsed once. Whoever changes it does so last. Raises SyntaxError."""
    return ast.parse(source)


def free_names(sources: Iterable[str]) -> set[str]:
    """Every name that is read in `sources`, and not made there. Raises SyntaxError."""
    read: set[str] = set()
    made: set[str] = set()
    for node in (node for source in sources for node in ast.walk(tree_of(source))):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.arg):
            made.add(node.arg)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).partition(".")[0])
    return read - made


def entry_names(entry_point: str | None) -> set[str]:
    """Names in the expression `entry_point`. Raises SyntaxError."""
    return free_names([entry_point]) if entry_point else set()


def module_names(sources: Iterable[str]) -> dict[str, str]:
    """Names that stand for modules of the library, used as ``name.attribute``, as {name: module}."""
    found: dict[str, str] = {}
    for source in sources:
        for node in ast.walk(tree_of(source)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                name = node.value.id
                if name in sys.stdlib_module_names or name in _USUAL_SHORT_NAMES or name == "numpy":
                    found[name] = _USUAL_SHORT_NAMES.get(name, name)
    return found


def program_names(sources: Iterable[str], entry_point: str | None, own: Iterable[str]) -> set[str]:
    """Names to look for in the program.

    Builtins are the judge's, so that a program can't redefine `abs` for the tests. Only where nothing else is left
    that could be the program's (the task *is* to write a `sum`), or the task says so, it may.

    Args:
        own: names that the judge's side defines. The entry point's come from the program even so.
    """
    sources = list(sources)
    declared = entry_names(entry_point)
    names = free_names(sources) - set(own) - set(module_names(sources))
    others = names - set(dir(builtins))
    return declared | others if declared or others else names
