"""Changes one operator or constant of a program at a time, and runs programs in the plain way, to compare with."""

from __future__ import annotations

import ast
import copy
import random
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator

_SWAPS: dict[type, type] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.And: ast.Or,
    ast.Or: ast.And,
}


def _changes(tree: ast.AST) -> Iterator[Callable[[], None]]:
    """Every single change that can be made to `tree`, in place."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp | ast.BoolOp | ast.AugAssign) and type(node.op) in _SWAPS:
            yield lambda node=node: setattr(node, "op", _SWAPS[type(node.op)]())
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in _SWAPS:
            yield lambda node=node: node.ops.__setitem__(0, _SWAPS[type(node.ops[0])]())
        elif isinstance(node, ast.Constant) and type(node.value) is bool:
            yield lambda node=node: setattr(node, "value", not node.value)
        elif isinstance(node, ast.Constant) and type(node.value) is int:
            yield lambda node=node: setattr(node, "value", 1 + node.value)  # type: ignore[operator]


def mutant(source: str, seed: int) -> str | None:
    """`source` with one change, drawn with `seed`; None if there is nothing to change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "\\w" in the task's own text
        tree = ast.parse(source)
    count = sum(1 for _ in _changes(tree))
    if not count:
        return None
    changed = copy.deepcopy(tree)
    list(_changes(changed))[random.Random(seed).randrange(count)]()
    return ast.unparse(changed)


def passes_plainly(source: str, tests: list[str], setup: str, timeout_s: float) -> bool:
    """Whether program and tests run through in one interpreter, without any isolation."""
    text = "\n".join((setup, source, *tests))
    try:
        done = subprocess.run([sys.executable, "-"], input=text.encode(), capture_output=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0
