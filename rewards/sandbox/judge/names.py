"""Which names of the tests mean the program, and which stay the judge's own."""

from __future__ import annotations

import ast
import builtins
import functools
import sys
from collections.abc import Iterable
from dataclasses import dataclass

_USUAL_SHORT_NAMES = {"np": "numpy"}
_BUILTINS = frozenset(dir(builtins))


@dataclass(frozen=True, slots=True)
class Names:
    """Names in a source: read, made there, and used as the module in ``module.attribute``."""

    read: frozenset[str]
    made: frozenset[str]
    bases: frozenset[str]


@functools.cache
def names_of(source: str) -> Names:
    """All names of `source`, in one walk: walking trees is most of what a judge of small tests does."""
    read: set[str] = set()
    made: set[str] = set()
    bases: set[str] = set()
    waiting: list[ast.AST] = [tree_of(source)]
    while waiting:
        node = waiting.pop()
        kind = type(node)
        if kind is ast.Name:
            (read if type(node.ctx) is ast.Load else made).add(node.id)  # type: ignore[attr-defined]
            continue
        if kind is ast.Constant:
            continue
        if kind is ast.Attribute and type(node.value) is ast.Name:  # type: ignore[attr-defined]
            bases.add(node.value.id)  # type: ignore[attr-defined]
        elif kind in (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef):
            made.add(node.name)  # type: ignore[attr-defined]
        elif kind is ast.arg:
            made.add(node.arg)  # type: ignore[attr-defined]
        elif kind is ast.alias:
            made.add((node.asname or node.name).partition(".")[0])  # type: ignore[attr-defined]
        waiting.extend(ast.iter_child_nodes(node))
    return Names(frozenset(read), frozenset(made), frozenset(bases))


@functools.cache
def tree_of(source: str) -> ast.Module:
    """The syntax tree, parsed once. Whoever changes it does so last. Raises SyntaxError."""
    return ast.parse(source)


def free_names(sources: Iterable[str]) -> set[str]:
    """Every name that is read in `sources`, and not made there. Raises SyntaxError."""
    found = [names_of(source) for source in sources]
    read, made = (set[str]().union(*group) for group in ([f.read for f in found], [f.made for f in found]))
    return read - made


def entry_names(entry_point: str | None) -> set[str]:
    """Names in the expression `entry_point`. Raises SyntaxError."""
    return free_names([entry_point]) if entry_point else set()


def module_names(sources: Iterable[str]) -> dict[str, str]:
    """Names that stand for modules of the library, used as ``name.attribute``, as {name: module}."""
    bases = set[str]().union(*(names_of(source).bases for source in sources))
    known = {name for name in bases if name in sys.stdlib_module_names or name in _USUAL_SHORT_NAMES or name == "numpy"}
    return {name: _USUAL_SHORT_NAMES.get(name, name) for name in sorted(known)}


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
    others = names - _BUILTINS
    return declared | others if declared or others else names
