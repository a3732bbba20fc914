"""The window: where the stub runs under the tested tables.

All of RAM, mapped linearly into a hole of the space: any aligned hole, at the lowest level
that fits, or several side by side where no level does.  No address is taken from the layouts;
the window's span is left out of every comparison.

With LASS the stub's code for the user cannot run beside that for the supervisor: the window is
then in the upper half of the addresses, and the stub is in a hole of the lower one as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Final

import numpy as np

from harness.check.hole import Hole, find_hole
from harness.check.x86.quirks import KEPT
from harness.machine.errors import Misuse
from harness.machine.ram import spans
from harness.machine.stub import StubImage
from harness.machine.x86.guest import State
from harness.paging.address import Physical, Span, Virtual
from harness.paging.format import Format
from harness.paging.memory import BufferMemory, Mask, Words, within
from harness.paging.space import Space, TableAllocator
from harness.paging.table import Root, Slot, Table
from harness.paging.x86.cpu import Cpu, Mode
from harness.paging.x86.formats import PDPTE_BYTES, P
from harness.paging.x86.load import reserved_in_cr3


@dataclass(frozen=True)
class Window:
    """The window in a space: the spans of addresses that it takes, that of all RAM first; the state
    in which the guest runs there, the slots it fills, and the physical addresses of the machine's
    own memory."""

    spans: tuple[Span, ...]
    state: State
    hole: tuple[Slot, ...]
    arena: range

    @property
    def span(self) -> Span:
        """The addresses of all RAM."""
        return self.spans[0]

    def holds(self, addresses: Words) -> Mask:
        """Which addresses are the window's."""
        return within(addresses, *self.spans)

    def close(self, memory: BufferMemory) -> None:
        """Takes the window out of the space, which then maps what it did before."""
        for slot in self.hole:
            memory.store(slot.address, slot.table.format.entry_bytes, 0)


def check_root(free: tuple[range, ...], cpu: Cpu) -> None:
    """Raises Misuse where MOV CR3 refuses the CPU's CR3, or walks do not begin in a table of the
    guest's memory that is the caller's.

    free  that memory
    """
    wrong = cpu.cr3 & reserved_in_cr3(cpu) if cpu.long else 0
    if wrong or not 0 <= cpu.cr3 < 1 << 64:
        why = f"{wrong:#x} in it is reserved" if cpu.cr3 >= 0 and wrong else "CR3 has 64 bits"
        raise Misuse(f"CR3 cannot be loaded with {cpu.cr3:#x}: {why}")
    for root in cpu.roots:
        at = root.table.address
        if not any(part.start <= at < part.stop for part in free):
            raise Misuse(
                f"CR3 {cpu.cr3:#x} has the root table at {at:#x}, where there is no memory for"
                f" tables: it is {spans(free)}"
            )


def open_window(
    memory: BufferMemory,
    cpu: Cpu,
    image: StubImage,
    allocator: TableAllocator,
    hole: Hole | None = None,
    *,
    in_small_pages: bool = False,
) -> Window:
    """Maps the window into the space of `cpu`, and makes the tables by which it is entered.

    hole            where to put RAM; found unless given
    in_small_pages  which takes more tables, but as long as the TLB of Bochs holds a large page,
                    every INVLPG looks through all of it

    Raises SpaceError where the space has no hole for it.
    """
    ram, format = memory.span, cpu.format
    stub = _pages(image, format.levels[0].size)
    lower, upper = (cpu.roots[:1], cpu.roots[1:]) if cpu.lass else ((), cpu.roots)
    at, slots = hole or find_hole(memory, upper, ram.size, KEPT if cpu.long else (*KEPT, stub))
    user_at, user_slots = find_hole(memory, lower, stub.last + 1, KEPT) if lower else (at, ())
    entry = new_root(memory, cpu, allocator)
    entry_space = Space(memory, entry.roots, allocator)
    below = _tables_below(memory, at, slots, allocator)
    _map_ram(Space(memory, below, allocator), at, ram, image, 1 if in_small_pages else 2)
    for slot, root in zip(slots, below, strict=True):
        there = entry_space.slot(Virtual(root.span.first), slot.level)
        entry_space.write(there, _way_in(root.table))
    if at != ram.first:  # the stub enters at the addresses that it is linked at
        _map_ram(entry_space, Virtual(stub.first), stub, image)
    spans: tuple[Span, ...] = (Span.of(at, ram.size),)
    if user_slots:
        below = _tables_below(memory, user_at, user_slots, allocator)
        _map_ram(Space(memory, below, allocator), Virtual(user_at + stub.first), stub, image)
        spans += (Span.of(user_at, stub.last + 1),)
    control = {name: getattr(cpu, name) for name in ("cr0", "cr4", "efer", "pkru", "pkrs")}
    state = State(cr3=cpu.cr3, window=at, user_window=user_at, entry_cr3=entry.cr3, **control)
    return Window(spans, state, (*slots, *user_slots), image.arena)


def _tables_below(
    memory: BufferMemory, at: Virtual, slots: tuple[Slot, ...], allocator: TableAllocator
) -> tuple[Root, ...]:
    """Empty tables to which the slots of a hole lead, with every right."""
    format, size = slots[0].table.format, slots[0].size
    roots = []
    for number, slot in enumerate(slots):
        table = allocator.allocate(format, slot.level - 1)
        memory.store(slot.address, format.entry_bytes, _way_in(table))
        roots.append(Root(table, Span.of(at + number * size, size)))
    return tuple(roots)


def _way_in(table: Table) -> int:
    """The entry that leads to a table, with every right and accessed: the guest runs there."""
    format = table.format
    return format.pointer(table.address, table.level + 1, _used(format))


def _used(format: Format) -> int:
    """What a pointer on the way of the guest's own accesses holds."""
    return format.granting(*format.rights) | format.accessed


def new_root(memory: BufferMemory, cpu: Cpu, allocator: TableAllocator) -> Cpu:
    """The CPU with an empty table to begin its walks in; in PAE paging with one for each PDPTE.

    Raises SpaceError where there is no room.
    """
    format, top = cpu.format, cpu.levels - 1
    root = allocator.allocate(format, top).address
    if cpu.mode is not Mode.PAE:
        return replace(cpu, cr3=root)
    tables = [allocator.allocate(format, top).address for _ in cpu.pdptes]
    # Not at the start of a page: bits 11:5 of CR3 are a part of the address (SDM 4.4.1).
    return with_pdptes(memory, replace(cpu, cr3=root + PDPTES_AT), [t | P for t in tables])


def with_pdptes(memory: BufferMemory, cpu: Cpu, pdptes: Iterable[int]) -> Cpu:
    """The CPU after PDPTEs were written to where its CR3 has them, and loaded."""
    pdptes = tuple(pdptes)
    for number, raw in enumerate(pdptes):
        memory.store(Physical(cpu.cr3 + number * PDPTE_BYTES), PDPTE_BYTES, raw)
    return replace(cpu, pdptes=pdptes)


PDPTES_AT: Final = 0x7E0
"""Where in a page PDPTEs are."""


def _pages(image: StubImage, size: int) -> Span:
    """The whole pages of a size in which the stub lies."""
    first = image.text.start // size * size
    return Span.of(first, -(-image.data.stop // size) * size - first)


def _map_ram(space: Space, at: Virtual, ram: Span, image: StubImage, sizes: int = 1) -> None:
    """Maps RAM, or a part of it, at `at` for the supervisor: in pages of the largest of so many
    sizes, if there are as many below the roots, but the stub's in small ones by what they hold.

    Nothing is execute-disabled, so that the window also works while that right cannot be
    taken away; all is accessed and dirty, so that running there writes no tables.
    """
    format = space.format

    def granting(*names: str) -> int:
        there = (name for name in names if name in format.rights)
        return format.granting(*there) | format.accessed | format.dirty

    levels = [level for level in format.page_levels() if level <= space.roots[0].table.level]
    small, large = levels[0], levels[:sizes][-1]
    size = format.levels[large].size
    own = _pages(image, size)
    stub = range(max(own.first, ram.first), min(own.last, ram.last) + 1)
    before, after = range(ram.first, stub.start, size), range(stub.stop, ram.last, size)
    data, offset = granting("write", "execute"), at - ram.first
    for part in (before, after):
        if part:
            frames = np.array(part, np.uint64)
            space.map(Virtual(offset + part.start), frames, large, data, _used(format))
    page = format.levels[small].size

    def bits(frame: int) -> int:
        if frame in image.user:
            return granting("user", "execute")
        return granting("execute") if frame in image.text else data

    for held, pages in groupby(range(stub.start, stub.stop, page), bits):
        frames = np.fromiter(pages, np.uint64)
        space.map(Virtual(offset + int(frames[0])), frames, small, held, _used(format))
