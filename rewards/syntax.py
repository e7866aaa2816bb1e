"""What Python source defines and needs, without running it. Nothing here raises, whatever the text."""

from __future__ import annotations

import ast
import builtins
import symtable
import warnings

_HOPELESS = (SyntaxError, ValueError, RecursionError, MemoryError)
_ALWAYS_THERE = frozenset(dir(builtins)) | {"__name__", "__file__", "__doc__"}


def parse(code: str) -> ast.Module | None:
    """The syntax tree, or None if `code` is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an invalid escape in model-written code is no concern of ours
            return ast.parse(code)
    except _HOPELESS:
        return None


def broken_line(code: str) -> int | None:
    """The line, counted from 1, at which `code` stops being Python; None if it is Python, or that can't be told."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ast.parse(code)
    except SyntaxError as error:
        return error.lineno
    except _HOPELESS:
        return None
    return None


def defines(tree: ast.Module, name: str) -> bool:
    """Whether a top-level statement of `tree` binds `name` by def, class, import or assignment."""
    return name in bound_names(tree)


def bound_names(tree: ast.Module) -> set[str]:
    """Names that top-level statements bind, those in the bodies of other statements left out."""
    bound = set[str]()
    for statement in tree.body:
        match statement:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Assign(targets=targets):
                bound |= {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
                bound.add(name)
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                bound |= {alias.asname or alias.name.partition(".")[0] for alias in aliases}
            case _:
                pass
    return bound


def missing_names(code: str) -> set[str]:
    """Global names that `code` reads and nowhere binds, built-in ones left out; empty if it is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            top = symtable.symtable(code, "<answer>", "exec")
    except _HOPELESS:
        return set()
    read, bound = set[str](), set[str]()
    scopes = [top]
    while scopes:
        scope = scopes.pop()
        scopes += scope.get_children()
        for symbol in scope.get_symbols():
            if scope is top or symbol.is_global():
                if symbol.is_assigned() or symbol.is_imported() or symbol.is_namespace():
                    bound.add(symbol.get_name())
                if symbol.is_referenced():
                    read.add(symbol.get_name())
    return read - bound - _ALWAYS_THERE


def has_method(tree: ast.Module, owner: str, method: str) -> bool:
    """Whether the top-level class `owner` has a method of this name."""
    members = [
        part for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner for part in node.body
    ]
    return any(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and part.name == method for part in members)
