"""A saved case of s390 as a source."""

from __future__ import annotations

from collections.abc import Mapping

from harness.check.layouts import parse
from harness.check.replay import LayoutCase
from harness.check.s390.replay import MatrixCase
from harness.inspect.s390.processor import cpu_with
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.entries import GivenMemory, placed
from harness.inspect.sources.layout import built
from harness.machine.s390.processor import FACILITIES, MachineInfo
from harness.paging.address import Physical, Virtual
from harness.paging.table import Table


def snapshot(case: LayoutCase | MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The tables that a case is about, and the state in which it was asked.

    Raises LayoutError where the layout cannot be built.
    """
    if isinstance(case, MatrixCase):
        return _of_matrix(case, registers)
    layout = parse(case.text, f"{case.layout}.toml")
    return built(layout, case.levels, f"case {case.title}", registers)


def _of_matrix(case: MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The entries of a path, in tables of which nothing else is known; where the root's is, no case
    says, and no access depends on it."""
    # The guests of cases have IEP alone of the facilities that decide how entries are read.
    info = MachineInfo(frozenset((FACILITIES["iep"],)), 0)
    usual, levels = case.control.cpu(case.mode, 0, info), range(len(case.words))
    size = max(usual.format.table_bytes(level) for level in levels)
    used = {word & -size for word in case.words}
    base = next(one for one in range(size, size * (len(levels) + 2), size) if one not in used)
    cpu = case.control.cpu(case.mode, base, info)
    root = Table(cpu.format, Physical(base), levels[-1])
    words, _ = placed(root, dict(enumerate(case.words)), Virtual(case.address), 0, iter(()))
    return Snapshot(
        f"case {case.title}",
        cpu_with(cpu, registers),
        GivenMemory(words),
        None,
        (
            "nothing is there besides the path whose entries the case holds",
            f"the root's table is at {base:#x}, which the case does not say",
        ),
    )
