"""The mutations of a source file, and what stands in the file once one is made.

What is left alone, since no change there could be wrong: annotations, decorators, texts (strings,
f-strings, what an exception says), assertions, `strict=` of zip, and unions of types.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt},
    **{ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is},
    **{ast.In: ast.NotIn, ast.NotIn: ast.In},
}
COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    **{ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.BitXor: ast.BitOr},
    **{ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.Add: ast.Sub, ast.Sub: ast.Add},
    **{ast.Mult: ast.FloorDiv, ast.FloorDiv: ast.Mult, ast.Mod: ast.FloorDiv},
}
BITWISE = (ast.BitAnd, ast.BitOr, ast.BitXor, ast.LShift, ast.RShift)
EVEN = {"min", "max", "minimum", "maximum", "union1d", "array_equal"}
"""Functions, some of them numpy's, for which the order of their arguments says nothing."""
SIMPLE = (ast.AugAssign, ast.Raise, ast.Break, ast.Continue)
BUILTIN = {"bytes", "dict", "frozenset", "int", "list", "set", "str", "tuple"}
"""Types whose names begin with a small letter."""
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of a file.

    path      of the file
    function  qualified name of the outermost function that it is in; "" outside of functions
    first     line where that function begins, its decorators included
    lines     those of the statement that it is in, of a compound one those of its head
    begin     the bytes of the source from `begin` to `end` become `text`
    was, now  the lines that it changes, before and after, as one line
    file      what the file holds: it may be edited before the mutant is tried
    """

    path: str
    function: str
    first: int
    lines: range
    line: int
    begin: int
    end: int
    text: str
    was: str
    now: str
    file: bytes = field(repr=False)

    def source(self) -> bytes:
        """The whole file with the change made; every line keeps its number."""
        return self.file[: self.begin] + self.text.encode() + self.file[self.end :]

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}: {self.function or 'module'}"
        return f"{place}\n  - {self.was}\n  + {self.now}"


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a node is: names of the classes and functions around, and the statement."""

    names: tuple[str, ...] = ()
    function: str = ""
    first: int = 0
    lines: range = range(0)


def mutants(path: str) -> list[Mutant]:
    """Every mutation of a file, in order of its lines, none twice."""
    source = Path(path).read_bytes()
    starts = [0]
    for line in source.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    found: dict[tuple[str, str, int], Mutant] = {}
    for place, node, text in _changes(ast.parse(source), _Place()):
        assert node.end_lineno is not None and node.end_col_offset is not None
        begin = starts[node.lineno - 1] + node.col_offset
        end = starts[node.end_lineno - 1] + node.end_col_offset
        gone = "\n" * (node.end_lineno - node.lineno)
        text = f"({text}{gone})" if gone and isinstance(node, ast.expr) else text + gone
        head, tail = source[starts[node.lineno - 1] : begin], source[end : starts[node.end_lineno]]
        was = _line(head + source[begin:end] + tail)
        now = _line(head + text.encode() + tail)
        mutant = Mutant(
            *(path, place.function, place.first, place.lines, node.lineno),
            *(begin, end, text, was, now),
            source,
        )
        if was != now:
            found.setdefault((was, now, node.lineno), mutant)
    return sorted(found.values(), key=lambda one: (one.line, one.begin))


def _line(source: bytes) -> str:
    return " ".join(source.decode().split())


def _changes(node: ast.AST, place: _Place) -> Iterator[tuple[_Place, ast.expr | ast.stmt, str]]:
    """Places, nodes, and what could stand there instead."""
    if isinstance(node, ast.stmt):
        place = _inside(node, place)
    if _left_alone(node, place):
        return
    for changed, text in _of_node(node):
        yield place, changed, text
    if isinstance(node, ast.Raise):  # what it says is text
        return
    for name, value in ast.iter_fields(node):
        if name in {"annotation", "returns", "decorator_list"}:
            continue
        if name in {"args", "keywords", "bases"} and isinstance(node, (*FUNCTION, ast.ClassDef)):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _changes(child, place)


def _inside(node: ast.stmt, place: _Place) -> _Place:
    body: list[ast.stmt] = getattr(node, "body", [])
    if isinstance(node, (ast.Break, ast.Continue)):  # where no code is left of the jump itself
        return place
    last = (body[0].lineno - 1 if body else node.end_lineno) or node.lineno
    lines = range(node.lineno, max(last, node.lineno) + 1)
    if not isinstance(node, (*FUNCTION, ast.ClassDef)):
        return _Place(place.names, place.function, place.first, lines)
    names = (*place.names, node.name)
    if place.function or isinstance(node, ast.ClassDef):
        return _Place(names, place.function, place.first, lines)
    first = min([node.lineno, *(one.lineno for one in node.decorator_list)])
    return _Place(names, ".".join(names), first, lines)


def _left_alone(node: ast.AST, place: _Place) -> bool:
    if isinstance(node, (ast.JoinedStr, ast.Assert, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(node, ast.keyword):
        return node.arg == "strict"
    if isinstance(node, ast.If):
        return isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    if isinstance(node, ast.BinOp) and not place.function:
        return isinstance(node.op, ast.BitOr) and all(map(_is_type, (node.left, node.right)))
    return isinstance(node, ast.Subscript) and _is_type(node.value)


def _is_type(node: ast.expr) -> bool:
    """Whether an expression names a type, or several: `Absent | Pointer`, `Counter[int]`."""
    if isinstance(node, ast.BinOp):
        return _is_type(node.left) and _is_type(node.right)
    if isinstance(node, ast.Subscript):
        return _is_type(node.value)
    if isinstance(node, ast.Constant):
        return node.value is None
    name = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return bool(name.strip("_")[:1].isupper() and not name.isupper()) or name in BUILTIN


def _of_node(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """The node to be replaced, this one or a child, and the new text."""
    match node:
        case ast.Compare():
            for n, op in enumerate(node.ops):
                ops = [*node.ops[:n], COMPARED[type(op)](), *node.ops[n + 1 :]]
                yield node, _text(ast.Compare(node.left, ops, node.comparators))
        case ast.BinOp() if type(node.op) in COMPUTED:
            yield node, _text(ast.BinOp(node.left, COMPUTED[type(node.op)](), node.right))
            if isinstance(node.op, BITWISE):
                yield node, _text(node.left)
                yield node, _text(node.right)
        case ast.BoolOp():
            other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, _text(ast.BoolOp(other, node.values))
            for n in range(len(node.values)):
                rest = [*node.values[:n], *node.values[n + 1 :]]
                yield node, _text(rest[0] if len(rest) == 1 else ast.BoolOp(node.op, rest))
        case ast.UnaryOp() if not isinstance(node.operand, ast.Constant):
            yield node, _text(node.operand)
        case ast.Constant(value=bool() as value):
            yield node, str(not value)
        case ast.Constant(value=int() as value):
            for near in {value + 1, abs(value - 1)}:
                yield node, str(near)
        case ast.Call(ast.Name(id=name) | ast.Attribute(ast.Name(id="np"), name)) if name in EVEN:
            pass
        case ast.Call(args=[first, second, *rest]) if not _starred(first, second):
            if ast.dump(first) != ast.dump(second):
                yield node, _text(ast.Call(node.func, [second, first, *rest], node.keywords))
        case ast.AugAssign() if type(node.op) in COMPUTED:
            other_op = COMPUTED[type(node.op)]()
            yield node, ast.unparse(ast.AugAssign(node.target, other_op, node.value))
        case ast.Return(value=ast.expr() as value) if ast.unparse(value) not in {"None", "False"}:
            yield node, "return None"
    yield from _forced(node)
    dropped = isinstance(node, ast.Expr) and not isinstance(node.value, ast.Constant)
    if isinstance(node, ast.Delete):  # of a name, it says that an argument is not used
        dropped = not all(isinstance(target, ast.Name) for target in node.targets)
    if isinstance(node, ast.Assign):
        dropped = isinstance(node.targets[0], (ast.Attribute, ast.Subscript))
    if isinstance(node, SIMPLE) or dropped:
        assert isinstance(node, ast.stmt)
        yield node, "pass"


def _forced(node: ast.AST) -> Iterator[tuple[ast.expr, str]]:
    """Conditions that hold always or never; none of a loop that would not end."""
    match node:
        case ast.If(test=test) | ast.IfExp(test=test):
            conditions = [(test, "True"), (test, "False")]
        case ast.While(test=test) if not isinstance(test, ast.Constant):
            conditions = [(test, "False")]
        case ast.comprehension(ifs=ifs):
            conditions = [(one, forced) for one in ifs for forced in ("True", "False")]
        case _:
            return
    yield from conditions


def _starred(*nodes: ast.expr) -> bool:
    return any(isinstance(node, ast.Starred) for node in nodes)


def _text(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"
