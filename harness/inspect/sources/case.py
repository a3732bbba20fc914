"""A saved case as a source: the space of its layout, or the one path of entries it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from harness.check import matrix_case, replay
from harness.check.layouts import parse
from harness.check.matrix_case import MatrixCase
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.layout import built
from harness.inspect.sources.registers import cpu_with
from harness.machine.ram import TABLE_ARENA
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory


def snapshot(path: Path, registers: Mapping[str, int]) -> Snapshot:
    """The tables that a case is about, and the state in which it was asked.

    Raises CaseError where the file holds none, and LayoutError where its layout cannot be built.
    """
    content = replay.content(path)
    if isinstance(content, dict) and content.get("case") == matrix_case.KIND:
        return _of_matrix(MatrixCase.read(content), registers)
    case = replay.load(path)
    layout = parse(case.text, f"{case.layout}.toml")
    found = built(layout, case.levels, f"case {case.title}", registers)
    return replace(found, cpu=replace(found.cpu, ac=case.ac))


def _of_matrix(case: MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The entries of a path, in memory that holds nothing else."""
    memory = BufferMemory(np.zeros(len(TABLE_ARENA), np.uint8), TABLE_ARENA.start)
    format = case.model.cpu(case.control).format
    for slot, word in zip(case.slots, case.words, strict=True):
        memory.store(Physical(slot), format.entry_bytes, word)
    root = case.slots[-1] & -format.table_bytes(case.model.levels - 1)
    cpu = replace(case.model.cpu(case.control, root), ac=case.ac)
    return Snapshot(
        f"case {case.title}",
        cpu_with(cpu, registers, memory),
        memory,
        None,
        ("the case holds the entries of one path; all else is taken to be not present",),
    )
