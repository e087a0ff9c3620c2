"""Small wrong changes to a source file, by the syntax tree."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

Change = tuple[str, Callable[[ast.AST], ast.AST | None]]

_COMPARE: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_BINARY: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
}
_CALLS = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong version of a file.

    Attributes:
        path: of the file, from the repository's root.
        line: where it is wrong.
        what: what was changed, in words.
        before: the line as it is.
        source: the whole wrong file.
    """

    path: str
    line: int
    what: str
    before: str
    source: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Stays the same when lines above move."""
        return self.path, self.before, self.what


def mutants(path: str, source: str) -> Iterator[Mutant]:
    """Every wrong version of this file, in the order of its lines."""
    tree = ast.parse(source)
    lines = source.splitlines()
    skipped = _without_behaviour(tree)
    for number, node in enumerate(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for what, change in _changes(node):
            wrong = copy.deepcopy(tree)
            found = next(n for i, n in enumerate(ast.walk(wrong)) if i == number)
            replacement = change(found)
            if replacement is not None:
                _replace(wrong, found, replacement)
            line = getattr(node, "lineno", 0)
            ast.fix_missing_locations(wrong)
            yield Mutant(path, line, what, lines[line - 1].strip(), ast.unparse(wrong))


def _without_behaviour(tree: ast.AST) -> set[int]:
    """Decorators (``slots=True``) and annotations."""
    found: set[int] = set()
    for node in ast.walk(tree):
        for decorator in getattr(node, "decorator_list", ()):
            found |= {id(inner) for inner in ast.walk(decorator)}
        annotation = getattr(node, "annotation", None) or getattr(node, "returns", None)
        if annotation is not None:
            found |= {id(inner) for inner in ast.walk(annotation)}
    return found


def _replace(tree: ast.AST, old: ast.AST, new: ast.AST) -> None:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
            elif isinstance(value, list) and any(item is old for item in value):
                value[[item is old for item in value].index(True)] = new


def _changes(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARE:
        other = _COMPARE[type(node.ops[0])]
        yield f"{type(node.ops[0]).__name__} -> {other.__name__}", _set_op(other)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _BINARY:
        binary = _BINARY[type(node.op)]
        yield f"{type(node.op).__name__} -> {binary.__name__}", _set_binary(binary)
    elif isinstance(node, ast.BoolOp):
        boolean = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {boolean.__name__}", _set_binary(boolean)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not x -> x", lambda n: n.operand  # type: ignore[attr-defined]
    elif isinstance(node, ast.Constant):
        yield from _constants(node)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CALLS:
        name = _CALLS[node.func.id]
        yield f"{node.func.id} -> {name}", _call(name)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "call left out", lambda _: ast.Pass()
    elif isinstance(node, ast.If):
        yield "if -> if not", _negated


def _constants(node: ast.Constant) -> Iterator[Change]:
    value = node.value
    if isinstance(value, bool):
        yield f"{value} -> {not value}", lambda _: ast.Constant(not value)
    elif isinstance(value, int | float):
        yield f"{value} -> {value + 1}", lambda _: ast.Constant(value + 1)


def _set_op(other: type[ast.cmpop]) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        node.ops[0] = other()  # type: ignore[attr-defined]

    return change


def _set_binary(other: type[ast.operator] | type[ast.boolop]) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        node.op = other()  # type: ignore[attr-defined]

    return change


def _call(name: str) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        node.func = ast.Name(name, ast.Load())  # type: ignore[attr-defined]

    return change


def _negated(node: ast.AST) -> None:
    node.test = ast.UnaryOp(ast.Not(), node.test)  # type: ignore[attr-defined]
