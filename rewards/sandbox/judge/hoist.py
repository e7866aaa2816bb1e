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
    tree, hoist = tree_of(source), _Hoist(program_names)
    tree.body = hoist.statements(tree.body)
    if not hoist.num_changes:
        return compile(source, name, "exec", dont_inherit=True)  # from text: that is faster
    return compile(ast.fix_missing_locations(tree), name, "exec", dont_inherit=True)


def snapshot(value: Any) -> Any:
    """`value`, or a copy of it if it can be changed in place."""
    return copy.deepcopy(value) if type(value) in (list, dict, set, bytearray, tuple) else value


class _Hoist:
    """Rewrites statements, in place. Expressions can't hold any, so most of a tree is never looked at."""

    def __init__(self, program_names: Set[str]) -> None:
        self._names = program_names
        self.num_changes = 0

    def statements(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """`body` with expected values first."""
        found: list[ast.stmt] = []
        for node in body:
            if isinstance(node, ast.Assert):
                found += self._assert(node)
            else:
                if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                    self._call(node.value)
                for part in ("body", "orelse", "finalbody"):
                    if isinstance(getattr(node, part, None), list):
                        setattr(node, part, self.statements(getattr(node, part)))
                for part in (*getattr(node, "handlers", ()), *getattr(node, "cases", ())):
                    part.body = self.statements(part.body)
                found.append(node)
        return found

    def _assert(self, node: ast.Assert) -> list[ast.stmt]:
        test = node.test
        if not (isinstance(test, ast.Compare) and len(test.ops) == 1):
            return [node]
        right = test.comparators[0]
        if self._asks(test.left) and self._is_expected(right):
            self.num_changes += 1
            keep = ast.Assign(targets=[ast.Name(_EXPECTED, ast.Store())], value=_snapshot_of(right))
            test.comparators[0] = ast.Name(_EXPECTED, ast.Load())
            return [ast.copy_location(keep, node), node]
        if self._asks(right) and self._is_expected(test.left):
            self.num_changes += 1
            test.left = _snapshot_of(test.left)
        return [node]

    def _call(self, node: ast.Call) -> None:
        is_assertion = isinstance(node.func, ast.Attribute) and node.func.attr in _ASSERTIONS
        if not is_assertion or len(node.args) < 2 or any(isinstance(arg, ast.Starred) for arg in node.args):
            return
        left, right = node.args[:2]
        if self._asks(left) and self._is_expected(right):
            self.num_changes += 1
            pair = ast.Tuple([_snapshot_of(right), left], ast.Load())  # evaluated in this order, passed in the other
            reversed_pair = ast.Subscript(pair, ast.Slice(step=ast.Constant(-1)), ast.Load())
            node.args = [ast.Starred(reversed_pair, ast.Load()), *node.args[2:]]
        elif self._asks(right) and self._is_expected(left):
            self.num_changes += 1
            node.args[0] = _snapshot_of(left)

    def _asks(self, node: ast.AST) -> bool:
        """Whether the program may be called in `node`."""
        return any(isinstance(part, ast.Call) for part in ast.walk(node)) and self._mentions(node)

    def _is_expected(self, node: ast.AST) -> bool:
        return not _is_literal(node) and not self._mentions(node)

    def _mentions(self, node: ast.AST) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self._names for part in ast.walk(node))


def _snapshot_of(node: ast.expr) -> ast.expr:
    return ast.Call(ast.Name(SNAPSHOT, ast.Load()), [node], [])


def _is_literal(node: ast.AST) -> bool:
    """Made anew whenever it is evaluated, of nothing that the program could have got hold of."""
    if isinstance(node, ast.UnaryOp):
        return _is_literal(node.operand)
    if isinstance(node, ast.List | ast.Tuple | ast.Set):
        return all(_is_literal(item) for item in node.elts)
    if isinstance(node, ast.Dict):
        return all(key is not None and _is_literal(key) for key in node.keys) and all(map(_is_literal, node.values))
    return isinstance(node, ast.Constant)
