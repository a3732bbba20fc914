"""A saved case of arm64 as a source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from harness.check.arm64.cases import Stated
from harness.check.arm64.matrix.setting import Setting
from harness.check.arm64.replay import MatrixCase
from harness.check.layouts import parse
from harness.check.replay import LayoutCase
from harness.inspect.arm64.processor import EPD, PSTATE_PAN, PSTATE_UAO, cpu_with
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources.entries import GivenMemory, placed
from harness.inspect.sources.layout import built
from harness.paging.address import Virtual
from harness.paging.arm64.cpu import Features, untagged
from harness.paging.processor import root_for
from harness.paging.table import Table

WORD = 8

_ROOM = 1 << 17
"""More than any table has, so that a root there is aligned, whatever its size."""


def snapshot(case: LayoutCase | MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The tables that a case is about, and the state in which it was asked.

    Raises LayoutError where the layout cannot be built.
    """
    if isinstance(case, MatrixCase):
        return _of_matrix(case, registers)
    layout = parse(case.text, f"{case.layout}.toml")
    access: Stated | None = case.access
    if access is not None:
        registers = {"pstate": _pstate(access.pan, access.uao), **registers}
    return built(layout, case.levels, f"case {case.title}", registers)


def _pstate(pan: bool, uao: bool) -> int:
    return PSTATE_PAN * pan | PSTATE_UAO * uao


def _of_matrix(case: MatrixCase, registers: Mapping[str, int]) -> Snapshot:
    """The descriptors of a path, in tables that hold nothing else; where the root's is, no case
    says, and no access depends on it."""
    setting, control = Setting(case.mode, case.bits, Features()), case.control
    usual = setting.cpu(control, 0, 0)
    # The half beside has the window of the guest that was asked, of which a case says nothing.
    usual = replace(usual, tcr=usual.tcr | EPD["ttbr0" if control.high else "ttbr1"])
    format = setting.format(control, usual)
    pointers = (level.pointer for level in format.levels)
    held = {
        pointer.address_of(raw)
        for pointer, raw in zip(pointers, case.words, strict=True)
        if pointer is not None
    }
    place = next(at for at in range(_ROOM, len(held) * _ROOM + 2 * _ROOM, _ROOM) if at not in held)
    root = place | (1 << control.beyond if control.beyond else 0)
    there = setting.cpu(control, place, 0)
    own = {"ttbr1": there.ttbr1} if control.high else {"ttbr0": there.ttbr0}
    cpu = cpu_with(usual, {**own, "pstate": _pstate(case.pan, case.uao), **registers})
    used = Virtual(untagged(cpu, case.address, case.access == "fetch"))
    found = root_for(cpu, used)
    words, _ = placed(
        found.table if found else None, dict(enumerate(case.words)), used, 0, iter(())
    )
    return Snapshot(
        f"case {case.title}",
        cpu,
        GivenMemory({**_zeros(found.table if found else None, words), **words}),
        None,
        (
            "nothing is present besides the path whose descriptors the case holds",
            "nothing is known of the other half",
            f"the root's table is at {root:#x}, which the case does not say",
        ),
    )


def _zeros(root: Table | None, words: Mapping[int, int]) -> dict[int, int]:
    """Zeros throughout the tables in which words are."""
    if root is None:
        return {}
    size = root.format.table_bytes(0)
    starts = {root.address: root.size, **{at & -size: size for at in words}}
    starts.pop(root.address & -size, None)
    starts[root.address] = root.size
    return {start + at: 0 for start, length in starts.items() for at in range(0, length, WORD)}
