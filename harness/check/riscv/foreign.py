"""What the QEMU of someone's own guest says of the tables of a hart, beside the reference.

QEMU is asked for nothing that has it translate an address: 7.2 sets A in the guest's own tables by
that (`gva2gpa`).  `info mem` reads tables as they are, and is no access.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.compare import Comparison
from harness.check.debugger import MOST_ROWS, Monitor, compare_walkers, report
from harness.check.quirk import expected_of
from harness.check.riscv.quirks import INFO_MEM_HIGH_BITS, INFO_MEM_RESERVED, not_run_on
from harness.machine.riscv.mappings import mappings_in
from harness.paging import bulk
from harness.paging.bulk import End, Leaves
from harness.paging.memory import Memory, Words
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import A, D, G, R, U, W, X, sv
from harness.paging.table import Root, Table

INFO_MEM: Final = "info mem"
"""The oracle."""

FLAGS: Final = R | W | X | U | G | A | D
"""The bits of entries that it prints."""


def of_foreign(
    monitor: Monitor, cpu: Cpu, memory: Memory, seen: Memory | None, thorough: bool
) -> Iterator[Comparison]:
    """The answers of every oracle about a hart of a guest that stands still; as `debugger.Oracles`
    has it, and all mappings in any case."""
    del thorough
    if seen is not None:
        yield compare_walkers(cpu, memory, seen)
    yield compare_mappings(monitor, cpu, memory)


def new_versions(engine: str, version: tuple[int, ...]) -> tuple[str, ...]:
    """What answers in a version that was not yet run, a sentence each."""
    del engine
    return not_run_on(version)


def compare_mappings(monitor: Monitor, cpu: Cpu, memory: Memory) -> Comparison:
    """Every row of `info mem` against every page of the space, in both directions."""
    comparison = Comparison(INFO_MEM)
    pages = bulk.leaves(memory, _lenient(cpu), limit=MOST_ROWS)
    if not pages.complete:
        reason = f"not asked: info mem would print more than {MOST_ROWS:,} pages"
        comparison.not_comparable[reason] = pages.total
        return comparison
    pages = pages.take(pages.end == End.LEAF)
    pages = pages.take(np.argsort(pages.virtual, kind="stable"))
    size = np.array([level.size for level in cpu.format.levels], np.uint64)[pages.level]
    leads = _printed(comparison, monitor, cpu, memory, pages)
    rows = mappings_in(monitor.human("info mem", long=True))
    rows = rows[np.argsort(rows["virtual"], kind="stable")]
    comparison.compared = len(size)
    of = _holding(rows, pages.virtual)
    own = rows[of.clip(min=0)]
    into = pages.virtual - own["virtual"]
    right = (of >= 0) & (into < own["size"]) & (size <= own["size"] - into)
    right &= (own["physical"] + into == leads) & (own["flags"] == pages.raw & np.uint64(FLAGS))
    report(
        comparison,
        ~right,
        lambda lane: (
            int(pages.virtual[lane]),
            _text(int(size[lane]), int(leads[lane]), int(pages.raw[lane])),
            "no such row" if of[lane] < 0 else _row(own[lane]),
        ),
    )
    filled = np.zeros(len(rows), np.uint64)
    np.add.at(filled, of[right], size[right])
    report(
        comparison,
        filled != rows["size"],
        lambda lane: (int(rows["virtual"][lane]), "no such pages", _row(rows[lane])),
    )
    return comparison


def _lenient(cpu: Cpu) -> tuple[Root, ...]:
    """The roots as `info mem` reads them: no bit is reserved, and none has another meaning than in
    the oldest hart."""
    format = sv(cpu.mode.address_bits).without_reserved()
    table = Table(format, cpu.base, cpu.levels - 1)
    return tuple(replace(root, table=table) for root in cpu.roots)


def _printed(
    comparison: Comparison, monitor: Monitor, cpu: Cpu, memory: Memory, pages: Leaves
) -> Words:
    """Where `info mem` says that pages lead, of which the rules say otherwise counted."""
    leads = pages.raw >> np.uint64(10) << np.uint64(12)
    walks = bulk.walk(memory, cpu.roots, pages.virtual)
    leaf = walks.end == End.LEAF
    departs = {INFO_MEM_RESERVED: ~leaf, INFO_MEM_HIGH_BITS: leaf & (leads != walks.physical)}
    for quirk, lanes in departs.items():
        if not lanes.any():
            continue
        if expected_of(quirk, "monitor", monitor.version):
            comparison.quirks[quirk.name] += int(lanes.sum())
        else:
            leads = np.where(lanes, walks.physical, leads)
    return leads


def _holding(rows: npt.NDArray[np.void], addresses: Words) -> npt.NDArray[np.int64]:
    """The number of the row that an address can be in; -1 for none."""
    return np.searchsorted(rows["virtual"], addresses, side="right") - 1


def _row(row: np.void) -> str:
    return _text(int(row["size"]), int(row["physical"]), int(row["flags"]))


def _text(size: int, physical: int, raw: int) -> str:
    names = (("r", R), ("w", W), ("x", X), ("u", U), ("g", G), ("a", A), ("d", D))
    letters = "".join(letter if raw & bit else "-" for letter, bit in names)
    return f"{size:#x} bytes at {physical:#x} {letters}"
