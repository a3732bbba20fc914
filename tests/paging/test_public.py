"""What the library has for other projects: its names, and what it costs them to import it."""

from __future__ import annotations

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

from tests.cli.commands import ROOT

PUBLIC = ["harness.paging", "harness.paging.x86"]

LOADED = """
import sys
before = set(sys.modules)
import {}
new = {{name.partition(".")[0] for name in set(sys.modules) - before}}
print(*sorted(new - set(sys.stdlib_module_names)))
"""


@pytest.mark.parametrize("name", PUBLIC)
def test_the_library_imports_numpy_and_nothing_else(name: str) -> None:
    command = [sys.executable, "-c", LOADED.format(name)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["harness", "numpy"]


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_there_and_says_what_it_is(name: str) -> None:
    package = importlib.import_module(name)
    assert package.__all__ == sorted(package.__all__, key=lambda one: (one.islower(), one))
    for one in package.__all__:
        found = getattr(package, one)
        home = found.__name__ if isinstance(found, ModuleType) else getattr(found, "__module__", "")
        assert home.startswith(("harness.paging", "types")), one


def test_a_name_that_is_a_module_s_too_is_the_function() -> None:
    """The module is reached by `from harness.paging.walk import ...`."""
    package = importlib.import_module("harness.paging")
    importlib.import_module("harness.paging.walk")
    assert package.walk is sys.modules["harness.paging.walk"].walk
