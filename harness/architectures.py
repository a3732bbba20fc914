"""The architectures: the one place that lists them.

An architecture is a folder of the same name in each layer: `harness.check.riscv` is RISC-V's in
`harness.check`.  Generic code imports none of them, and asks here for the module of the same
name in the folder of the architecture that it was told: it is imported then, so that nobody waits
for the architectures of others.  What such a module has to hold is said where it is asked for.

Another architecture is its folders, and its name in NAMES.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Final

NAMES: Final = ("x86", "riscv", "arm64", "s390", "power")

USUAL: Final = NAMES[0]
"""The one that is meant where none is named."""


def module_of(arch: str, layer: str, name: str) -> ModuleType:
    """A module of an architecture's in a layer: `harness.LAYER.ARCH.NAME`."""
    return import_module(f"harness.{layer}.{arch}.{name}")


def has(arch: str, layer: str, name: str) -> bool:
    """Whether there is such a module: an architecture may not yet be in every layer."""
    try:
        return find_spec(f"harness.{layer}.{arch}.{name}") is not None
    except ModuleNotFoundError:  # not even its folder
        return False
