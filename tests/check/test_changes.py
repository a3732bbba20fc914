"""The entries of the table of flushes, as each architecture's format has them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from harness.check import changes
from harness.check.arm64 import changes as arm64
from harness.check.changes import Change
from harness.check.power import changes as power
from harness.check.riscv import changes as riscv
from harness.check.s390 import changes as s390
from harness.check.x86 import changes as x86
from harness.paging.arm64.formats import stage1
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format
from harness.paging.power.formats import radix
from harness.paging.riscv.formats import sv
from harness.paging.s390.formats import dat
from harness.paging.x86.formats import long_mode

FORMATS: dict[str, tuple[Format, tuple[Change, ...], int]] = {
    "x86": (long_mode(5, 40, True, True), x86.CHANGES, 1 << 52),
    "riscv": (sv(48), riscv.CHANGES, 1 << 8),
    "arm64": (stage1("4K", 48, 48), arm64.CHANGES, 1 << 55),
    "s390": (dat(iep=True), s390.CHANGES, 1 << 0),
    "power": (radix(12), power.CHANGES, 1 << 9),
}
KINDS = {"absent": Absent, "page": Leaf, "table": Pointer}


@pytest.mark.parametrize("arch", FORMATS)
def test_an_entry_is_what_its_row_says(arch: str) -> None:
    """Malformed where a bit of it that must have a value has the other; else what it is called, and
    it leads to one of two places."""
    format, rows, software = FORMATS[arch]
    kinds = set[type]()
    for row in rows:
        for level in row.levels(format):
            size, table = format.levels[level].size, format.levels[level].pointer
            place: Any = SimpleNamespace(
                format=format,
                level=level,
                frames=[4 * size, 5 * size],
                tables=[format.pointer(at, level, 0) if table else 0 for at in (1 << 20, 2 << 20)],
                software=software,
            )
            for says in row.before, row.after:
                raw = changes._Place._raw(place, says)
                found = format.decode(raw, level)
                wrong = row.after if "made malformed" in row.name else None
                wrong = row.before if "malformed" in row.name and "mended" in row.name else wrong
                wanted = Malformed if says is wrong else KINDS[says.kind]
                assert type(found) is wanted, (row.name, level, hex(raw))
                if isinstance(found, Leaf):
                    assert found.address == place.frames[says.target]
                if isinstance(found, Pointer):
                    assert found.table.address == (1 << 20) * (says.target + 1)
                kinds.add(type(found))
    assert kinds >= {Leaf, Pointer}
