"""A saved case as a source: the space of its layout, or the one path of entries it carries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.architectures import has, module_of
from harness.check.replay import CaseError, arch_in, saved
from harness.inspect import architecture
from harness.inspect.snapshot import Snapshot


def snapshot(path: Path, registers: Mapping[str, int]) -> Snapshot:
    """The tables that a case is about, and the state in which it was asked: `snapshot` of the
    module `case` of its architecture.

    Raises CaseError where the file holds none whose tables can be looked at, SourceError for a
    register of another architecture, and LayoutError where the layout cannot be built.
    """
    arch = arch_in(path)
    if not has(arch, "inspect", "case"):
        raise CaseError(f"{path} is a case of {arch}: replay asks it, --case cannot show it")
    case = saved(path)
    architecture.refuse_others(architecture.named(arch), registers, f"case {case.title}")
    found: Snapshot = module_of(arch, "inspect", "case").snapshot(case, registers)
    return found
