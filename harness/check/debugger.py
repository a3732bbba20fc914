"""What the QEMU of a guest that it runs for others makes of the guest's tables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final, Protocol

import numpy as np

from harness.architectures import has, module_of
from harness.check.compare import EXAMPLES, Comparison, Disagreement
from harness.check.product import evenly
from harness.check.translations import SAMPLE
from harness.machine import monitor
from harness.machine.gdbstub import StubMonitor
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.bulk import End, Leaves
from harness.paging.entry import Absent, Leaf, Malformed
from harness.paging.memory import Mask, Memory, Words, distinct
from harness.paging.processor import Cpu, root_for
from harness.paging.walk import Walk, walk

Monitor = monitor.Monitor | StubMonitor


class Oracles(Protocol):
    """A module `foreign` of an architecture: what the QEMU of someone's own guest is asked."""

    def of_foreign(
        self,
        asked: Monitor,
        cpu: Any,
        memory: Memory,
        seen: Memory | None,
        thorough: bool,
    ) -> Iterator[Comparison]:
        """The answers of every oracle about the space of a processor that stands still.

        asked     the monitor
        memory    the guest's
        seen      the same through the monitor; None where `memory` is so as well
        thorough  whether all mappings are asked about, and not a sample
        """

    def new_versions(self, engine: str, version: tuple[int, ...]) -> tuple[str, ...]:
        """What answers in a version that was not yet run, a sentence each."""


def oracles_of(arch: str) -> Oracles | None:
    """Those of an architecture; None where there are none."""
    found: Any = module_of(arch, "check", "foreign") if has(arch, "check", "foreign") else None
    return found  # type: ignore[no-any-return]


MONITOR_MEMORY: Final = "walk of monitor memory"
"""The oracle that has read the tables in another way."""

MOST_ROWS: Final = 1 << 22
"""Mappings of a space that are listed: a space of shared tables can have any number."""


def compare_walkers(cpu: Cpu, memory: Memory, seen: Memory, only: int | None = None) -> Comparison:
    """All leaves as read from shared memory against those read through the monitor, and a sample of
    them against walks, one by one, of the entries as the monitor reads them.

    only  the one address that is asked about; None for all
    """
    comparison = Comparison(MONITOR_MEMORY)
    here, there = _rows(cpu, memory, only), _rows(cpu, seen, only)
    comparison.compared = here.total
    n = min(len(here.virtual), len(there.virtual))
    columns = ("virtual", "end", "level", "raw", "physical", "granted")
    wrong = np.zeros(n, np.bool_)
    for name in columns:
        wrong |= getattr(here, name)[:n] != getattr(there, name)[:n]
    report(
        comparison,
        wrong,
        lambda lane: (int(here.virtual[lane]), _row(here, lane), _row(there, lane)),
    )
    if here.total != there.total:
        text = "{} rows in all".format
        comparison.disagree(1, [_question(comparison, 0, text(here.total), text(there.total))])
    found = list(_one_by_one(cpu, seen, here, only))
    comparison.disagree(len(found), [_question(comparison, *one) for one in found[:EXAMPLES]])
    return comparison


def _rows(cpu: Cpu, memory: Memory, only: int | None) -> Leaves:
    """All that the space holds as read from `memory`, or what is asked."""
    rows = bulk.leaves(memory, cpu.roots)
    if only is not None:
        rows = rows.take(rows.virtual == np.uint64(only))
        rows = replace(rows, total=len(rows.virtual))
    return rows


def _one_by_one(
    cpu: Cpu, memory: Memory, rows: Leaves, only: int | None
) -> Iterator[tuple[int, str, str]]:
    """What walks find otherwise at rows: at their first and last address, and beside them, where a
    row that is missing would be."""
    size = np.array([level.size for level in cpu.format.levels], np.uint64)
    last = rows.virtual + (size[rows.level] - np.uint64(1))
    order = np.argsort(rows.virtual)
    first = rows.virtual[order]
    for lane in spread(rows, SAMPLE).tolist():
        start, end, row = int(rows.virtual[lane]), int(last[lane]), _row(rows, lane)
        inside = (start, end) if rows.end[lane] != End.UNBACKED else (start,)
        for address in inside:
            found = _walk(cpu, memory, address)
            if found is None or _walked(found, address - start) != _listed(rows, lane):
                yield address, row, "no root" if found is None else _step(found)
        for address in (start - 1, end + 1):
            found = _walk(cpu, memory, address) if only is None else None
            if found is None or found.unbacked or isinstance(found.steps[-1].entry, Absent):
                continue
            before = int(np.searchsorted(first, np.uint64(address), side="right")) - 1
            if rows.complete and (before < 0 or address > int(last[order[before]])):
                yield address, "no such row", _step(found)


def _walk(cpu: Cpu, memory: Memory, address: int) -> Walk | None:
    """The walk of an address; None where it has no root."""
    root = root_for(cpu, Virtual(address))
    return None if root is None else walk(memory, root, Virtual(address))


def spread(leaves: Leaves, sample: int | None) -> np.ndarray:
    """`sample` rows or a few more, as many of every kind (level and rights along the walk) as
    there are, and the rest from all."""
    n = len(leaves.virtual)
    if sample is None or n <= sample:
        return np.arange(n)
    kinds, kind = np.unique(
        np.stack([leaves.level.astype(np.uint64), leaves.granted]), axis=1, return_inverse=True
    )
    each = -(-sample // kinds.shape[1])
    chosen = np.zeros(n, np.bool_)
    for number in range(kinds.shape[1]):
        rows = np.flatnonzero(kind.ravel() == number)
        chosen[rows[evenly(len(rows), each)]] = True
    rest = np.flatnonzero(~chosen)
    chosen[rest[evenly(len(rest), sample - int(chosen.sum()))]] = True
    return np.flatnonzero(chosen)


def edges(cpu: Cpu, leaves: Leaves, sample: int | None) -> Words:
    """First and last byte of pages, the bytes beside them, and the edges of the roots; of a sample
    of the pages unless all are wanted."""
    chosen = spread(leaves, sample)
    sizes = np.array([level.size for level in cpu.format.levels], np.uint64)
    first, past = leaves.virtual[chosen], leaves.virtual[chosen] + sizes[leaves.level[chosen]]
    one = np.uint64(1)
    roots = [
        edge % (1 << 64)
        for root in cpu.roots
        for edge in (root.span.first - 1, root.span.first, root.span.last, root.span.last + 1)
    ]
    return distinct(
        np.concatenate([first, past - one, first - one, past, np.array(roots, np.uint64)])
    )


def report(
    comparison: Comparison, wrong: Mask, describe: Callable[[int], tuple[int, str, str]]
) -> None:
    """Counts lanes as disagreements; `describe` gives the address of one, what was expected, and
    what was observed."""
    lanes = np.flatnonzero(wrong)
    if len(lanes):
        comparison.disagree(
            len(lanes), [_question(comparison, *describe(int(lane))) for lane in lanes[:EXAMPLES]]
        )


def _question(comparison: Comparison, address: int, expected: str, observed: str) -> Disagreement:
    return Disagreement(comparison.oracle, address, None, expected, observed)


def _listed(leaves: Leaves, lane: int) -> tuple[int, ...]:
    """A row, as `_walked` has it."""
    row = (leaves.end, leaves.level, leaves.raw, leaves.physical, leaves.granted)
    return tuple(int(column[lane]) for column in row)


def _walked(found: Walk, offset: int) -> tuple[int, ...]:
    """What a walk comes to, `offset` bytes from the start of what it finds: how it ends, the level,
    the entry, the address of the page, and the rights."""
    if found.unbacked is not None:
        return End.UNBACKED, found.level, 0, 0, found.granted
    kinds = {Leaf: End.LEAF, Malformed: End.MALFORMED}
    end = kinds.get(type(found.steps[-1].entry), End.ABSENT)
    page = 0 if found.physical is None else found.physical - offset
    return end, found.level, found.steps[-1].raw, page, found.granted


def _step(found: Walk) -> str:
    """Where a walk ends, as `_row` has it."""
    end, level, raw, *_ = _walked(found, 0)
    return f"{End(end).name.lower()} {raw:#x} at level {level}"


def _row(leaves: Leaves, lane: int) -> str:
    return (
        f"{End(int(leaves.end[lane])).name.lower()} {int(leaves.raw[lane]):#x}"
        f" at level {int(leaves.level[lane])}"
    )
