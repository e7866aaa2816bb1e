"""Expected values first: ``assert f(x) == sorted(x)`` evaluates `sorted(x)` before `f` can empty `x`.

In ``assert left == right`` (also ``!=``, ``is``, ``in``) and ``self.assertEqual(left, right)``, a side in which the
program is not called is evaluated first and copied, because the program gets to change what it is passed.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Set
from types import CodeType
from typing import Any

from rewards.sandbox.judge.names import tree_of

SNAPSHOT = "__keel_snapshot__"
_EXPECTED = "__keel_expected__"
_ASSERTIONS = {"assertEqual", "assertListEqual", "assertDictEqual", "assertSetEqual", "assertTupleEqual"}


def compile_tests(source: str, name: str, program_names: Set[str]) -> CodeType:
    """Compile tests, expected values first. Raises SyntaxError and ValueError as `compile` does.

    Args:
        program_names: names that mean the program, such as its entry point.
    """
    tree = _Hoist(program_names).visit(tree_of(source))
    return compile(ast.fix_missing_locations(tree), name, "exec", dont_inherit=True)


def snapshot(value: Any) -> Any:
    """`value`, or a copy of it if it can be changed in place."""
    return copy.deepcopy(value) if type(value) in (list, dict, set, bytearray, tuple) else value


class _Hoist(ast.NodeTransformer):
    def __init__(self, program_names: Set[str]) -> None:
        self._names = program_names

    def visit_Assert(self, node: ast.Assert) -> Any:
        self.generic_visit(node)
        test = node.test
        if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
            return node
        right = test.comparators[0]
        if self._asks(test.left) and self._is_expected(right):
            keep = ast.Assign(targets=[ast.Name(_EXPECTED, ast.Store())], value=_snapshot_of(right))
            test.comparators[0] = ast.Name(_EXPECTED, ast.Load())
            return [ast.copy_location(keep, node), node]
        if self._asks(right) and self._is_expected(test.left):
            test.left = _snapshot_of(test.left)
        return node

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        is_assertion = isinstance(node.func, ast.Attribute) and node.func.attr in _ASSERTIONS
        if not is_assertion or len(node.args) < 2 or any(isinstance(arg, ast.Starred) for arg in node.args):
            return node
        left, right = node.args[:2]
        if self._asks(left) and self._is_expected(right):
            # Keywords are evaluated in the order they are written in. The names differ between the assertions.
            pair = ast.Tuple([_snapshot_of(right), left], ast.Load())
            reversed_pair = ast.Subscript(pair, ast.Slice(step=ast.Constant(-1)), ast.Load())
            node.args = [ast.Starred(reversed_pair, ast.Load()), *node.args[2:]]
        elif self._asks(right) and self._is_expected(left):
            node.args[0] = _snapshot_of(left)
        return node

    def _asks(self, node: ast.AST) -> bool:
        """Whether the program may be called in `node`."""
        return any(isinstance(part, ast.Call) for part in ast.walk(node)) and self._mentions(node)

    def _is_expected(self, node: ast.AST) -> bool:
        return not isinstance(node, ast.Constant) and not self._mentions(node)

    def _mentions(self, node: ast.AST) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self._names for part in ast.walk(node))


def _snapshot_of(node: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(SNAPSHOT, ast.Load()), [node], [])
