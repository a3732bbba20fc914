"""A saved case of x86 as a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.check.layouts import parse
from harness.check.x86.matrix import case as matrix_case
from harness.check.x86.matrix.case import MatrixCase
from harness.check.x86.replay import Case
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.layout import built
from harness.inspect.x86 import engine
from harness.inspect.x86.processor import cpu_with


def snapshot(case: Case | MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The tables that a case is about, and the state in which it was asked.

    Raises LayoutError where the layout cannot be built.
    """
    if isinstance(case, MatrixCase):
        return _of_matrix(case, registers)
    layout = parse(case.text, f"{case.layout}.toml")
    found = built(layout, case.levels, f"case {case.title}", registers)
    return replace(found, cpu=replace(found.cpu, ac=bool(registers.get("ac", case.ac))))


def _of_matrix(case: MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The entries of a path, in memory that holds nothing else."""
    memory, cpu = matrix_case.tables(case)
    cpu, notes = engine.as_marked(cpu_with(cpu, registers, memory))
    return Snapshot(
        f"case {case.title}",
        cpu,
        memory,
        None,
        ("nothing is present besides the path whose entries the case holds",),
        notes,
    )
