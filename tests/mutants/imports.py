"""Which files of the project a file imports, itself or through others, as its source says."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

BY_NAME = "importlib"
"""Who imports this may import by names that no source shows: all of the package, then."""

PACKAGE = Path("harness")


@cache
def imported(path: str) -> frozenset[str]:
    """All files that a file imports, itself among them.

    Of a package from which names are taken, what these names come from; of the packages around it,
    which are imported too, nothing.
    """
    found, todo = {path}, [path]
    while todo:
        for one in _directly(todo.pop()) - found:
            found.add(one)
            todo.append(one)
    return frozenset(found)


@cache
def _directly(path: str) -> frozenset[str]:
    tree = ast.parse(Path(path).read_bytes())
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found.update(file for name in names for file in _of_module(name))
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module]
            for alias in node.names:
                found.update(_of_name(node.module, alias.name))
        else:
            continue
        if any(name.partition(".")[0] == BY_NAME for name in names):
            found.update(map(str, PACKAGE.rglob("*.py")))
    return frozenset(found)


def _of_module(name: str) -> Iterator[str]:
    """The file of a module or package of the project."""
    path = Path(*name.split("."))
    for file in path.with_suffix(".py"), path / "__init__.py":
        if file.is_file():
            yield str(file)


def _of_name(module: str, name: str) -> Iterator[str]:
    """Where a name comes from that is imported from a module."""
    if submodule := list(_of_module(f"{module}.{name}")):
        yield from submodule
        return
    for file in _of_module(module):
        origin = _origins(file).get(name) if Path(file).name == "__init__.py" else None
        if origin and origin != module:
            yield from _of_name(origin, name)
        else:
            yield file


@cache
def _origins(file: str) -> dict[str, str]:
    """From which module a package has each name that it imports from one under the same name."""
    return {
        alias.name: node.module
        for node in ast.parse(Path(file).read_bytes()).body
        if isinstance(node, ast.ImportFrom) and node.module and not node.level
        for alias in node.names
        if alias.asname in (None, alias.name)
    }
