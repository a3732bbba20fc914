"""Entries by which no access passes: as lines of text."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from harness.inspect import architecture
from harness.inspect.ranges import dump
from harness.inspect.select import condition
from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import translate
from harness.paging.address import Virtual
from harness.paging.memory import Memory
from harness.paging.processor import Cpu
from harness.report.ranges import cells
from harness.report.text import aligned, counted
from harness.report.translation import translation_lines

IMPASSABLE: Final = {
    "malformed": "with reserved bits set: any access there faults, on this machine too",
    "unbacked": "in tables outside memory: what they say is up to the machine",
}
"""What no access can pass, by the names of `pagetable dump --where kind=...`."""

SHOWN: Final = 8
"""Ranges of such entries that are shown."""


def impassable_lines(
    cpu: Cpu, memory: Memory, allow: Collection[str], allowing: str
) -> Iterator[str]:
    """What of a space no access can pass, in lines; none where there is nothing, or it is allowed.

    allowing  how that is written, with a place for its name
    """
    for part in architecture.of(cpu).parts(cpu):
        yield from _in_part(part, memory, allow, allowing)


def _in_part(cpu: Cpu, memory: Memory, allow: Collection[str], allowing: str) -> Iterator[str]:
    """The same of a state whose tables have one format."""
    types = architecture.of(cpu).memory_types.AT_RESET
    for kind, what in IMPASSABLE.items():
        if kind in allow:
            continue
        chosen = condition(cpu, types, f"kind={kind}")
        found = dump(memory, cpu.format, cpu.roots, chosen=chosen).ranges
        if not len(found):
            continue
        count = int((found.pages.astype("u8") * found.paths).sum())
        yield f"{counted(count, 'entry')} {what}; if that is meant: {allowing.format(kind)}"
        shown = [[*cells(cpu, types, one)[:3], cells(cpu, types, one)[-1]] for one in found]
        yield from aligned(shown[:SHOWN])
        if len(found) > SHOWN:
            yield f"and {counted(len(found) - SHOWN, 'range')} more"
        first = Virtual(int(found.first[0]))
        yield from translation_lines(cpu, translate(Snapshot("", cpu, memory, None), first))
