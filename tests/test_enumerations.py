"""No two names of an enumeration mean the same, by which they would merge without a word."""

import pkgutil
from enum import Enum
from importlib import import_module

import pytest

import harness

NO_MODULES = ("harness.__main__", "harness.gdb")
"""What cannot be imported: a program, and what gdb runs."""


def enumerations() -> list[type[Enum]]:
    found = []
    for module in pkgutil.walk_packages(harness.__path__, "harness."):
        spec = module.module_finder.find_spec(module.name, None)
        assert spec is not None and spec.origin is not None
        if module.name in NO_MODULES or spec.origin.endswith(".so"):  # what emulators load
            continue
        for value in vars(import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Enum) and value not in found:
                found.append(value)
    return [one for one in found if one.__module__.startswith("harness.")]


@pytest.mark.parametrize("enumeration", enumerations(), ids=lambda one: one.__qualname__)
def test_every_name_has_a_value_of_its_own(enumeration: type[Enum]) -> None:
    values = [member.value for member in enumeration.__members__.values()]
    assert len(set(values)) == len(values)
