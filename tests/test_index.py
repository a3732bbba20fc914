"""The docstring of a package is an index: it names every module, and none that is not there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "harness"


PACKAGES = sorted(
    ".".join(path.parent.relative_to(PACKAGE).parts) for path in PACKAGE.glob("*/**/__init__.py")
)


@pytest.mark.parametrize("name", PACKAGES)
def test_the_index_of_a_package_names_its_modules(name: str) -> None:
    documented = importlib.import_module(f"harness.{name}").__doc__ or ""
    package = PACKAGE.joinpath(*name.split("."))
    there = {path.stem for path in package.glob("*.py")} - {"__init__"}
    folders = {path.parent.name for path in package.glob("*/__init__.py")}
    named = set(re.findall(r"`(\w+)`", documented))
    assert there | folders <= named
    begun = {one for line in documented.splitlines() for one in re.findall(r"^`(\w+)`", line)}
    assert begun <= there | folders
