"""A saved case of RISC-V as a source."""

from __future__ import annotations

from collections.abc import Mapping

from harness.check.layouts import parse
from harness.check.replay import LayoutCase
from harness.check.riscv.matrix.hart import Hart
from harness.check.riscv.replay import MatrixCase
from harness.inspect.riscv.entries import tables_beside
from harness.inspect.riscv.processor import cpu_with
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.entries import GivenMemory, placed
from harness.inspect.sources.layout import built
from harness.paging.address import Virtual
from harness.paging.riscv.cpu import Mode, Mstatus, transformed
from harness.paging.riscv.formats import PAGE_BITS
from harness.paging.table import Table


def snapshot(case: LayoutCase | MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The tables that a case is about, and the state in which it was asked.

    Raises LayoutError where the layout cannot be built.
    """
    if isinstance(case, MatrixCase):
        return _of_matrix(case, registers)
    layout = parse(case.text, f"{case.layout}.toml")
    if case.access is not None:
        registers = {"mstatus": _mstatus(case.access.sum, case.access.mxr), **registers}
    return built(layout, case.levels, f"case {case.title}", registers)


def _mstatus(sum: bool, mxr: bool) -> int:
    return (Mstatus.SUM if sum else 0) | (Mstatus.MXR if mxr else 0)


def _of_matrix(case: MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The entries of a path, in tables that hold nothing else; where the root's is, no case says,
    and no access depends on it."""
    wide = Mode(case.mode).xlen == 64
    usual = Hart(case.mode, case.processor, svnapot=wide).cpu(case.control, 0)
    levels = range(len(case.words))
    # Of the table that lies where no memory is, and of those below it, nothing is read.
    given = {n: case.words[n] for n in levels if case.missing not in levels or n > case.missing}
    root = Table(usual.format, next(tables_beside(usual, case.words)), levels[-1])
    data = case.access != "fetch"
    used = transformed(usual, case.address, case.user) if data else case.address
    words, _ = placed(root, given, Virtual(used), 0, iter(()))
    size = usual.format.entry_bytes
    tables = {slot & -usual.format.table_bytes(0) for slot in words}
    zeros: dict[int, int] = {
        table + at: 0 for table in tables for at in range(0, usual.format.table_bytes(0), size)
    }
    own = {"satp": usual.satp | root.address >> PAGE_BITS, "mstatus": _mstatus(case.sum, case.mxr)}
    cpu = cpu_with(usual, {**own, **registers})
    return Snapshot(
        f"case {case.title}",
        cpu,
        GivenMemory({**zeros, **words}),
        None,
        (
            "nothing is present besides the path whose entries the case holds",
            f"the root's table is at {root.address:#x}, which the case does not say",
            f"{'the hart has Svnapot, and ' if wide else ''}A and D fault where ADUE=0",
        ),
    )
