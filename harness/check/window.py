"""The window: where the stub runs under the tested tables.

All of RAM, mapped linearly into a hole of the space: any aligned hole, at the lowest level
that fits.  No address is taken from the layouts; the window's span is left out of every
comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby

import numpy as np

from harness.check.quirks import KEPT
from harness.machine.guest import State
from harness.machine.stub import StubImage
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.entry import Pointer
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, SpaceError, TableAllocator
from harness.paging.table import Root, Slot
from harness.paging.x86.cpu import Cpu


@dataclass(frozen=True)
class Window:
    """The window in a space, the state in which the guest runs there, and the slot it fills."""

    span: Span
    state: State
    hole: Slot

    def close(self, memory: BufferMemory) -> None:
        """Takes the window out of the space, which then maps what it did before."""
        memory.store(self.hole.address, self.hole.table.format.entry_bytes, 0)


def open_window(
    memory: BufferMemory,
    cpu: Cpu,
    image: StubImage,
    allocator: TableAllocator,
    hole: tuple[Virtual, Slot] | None = None,
) -> Window:
    """Maps the window into the space of `cpu`, and makes the tables by which it is entered.

    hole  an empty slot for it, and the first address that it spans; found unless given

    Raises SpaceError where the space has no hole for it.
    """
    ram, format = memory.span, cpu.format
    at, slot = hole or find_hole(memory, cpu.roots, ram.size)
    top = allocator.allocate(format, slot.level - 1)
    inside = Space(memory, (Root(top, Span.of(at, slot.size)),), allocator)
    _map_ram(inside, at, ram, image)
    way_in = format.pointer(top.address, slot.level, format.granting(*format.rights))
    memory.store(slot.address, format.entry_bytes, way_in)

    entry = replace(cpu, cr3=allocator.allocate(format, cpu.levels - 1).address)
    entry_space = Space(memory, entry.roots, allocator)
    entry_space.write(entry_space.slot(at, slot.level), way_in)
    if at != ram.first:
        _map_ram(entry_space, Virtual(ram.first), ram, image)
    state = State(
        cr0=cpu.cr0, cr3=cpu.cr3, cr4=cpu.cr4, efer=cpu.efer, window=at, entry_cr3=entry.cr3
    )
    return Window(Span.of(at, ram.size), state, slot)


def find_hole(memory: BufferMemory, roots: Iterable[Root], size: int) -> tuple[Virtual, Slot]:
    """An absent slot that spans `size` bytes, at the lowest level that can, and its first address.

    The tables above it grant every right and are reached in one way only, so that what is
    mapped there is not seen elsewhere.  It is the same on every engine: what one of them keeps
    for itself is left alone on all.  Raises SpaceError where there is none.
    """
    roots = tuple(roots)
    format = roots[0].table.format
    tables = bulk.leaves(memory, roots, limit=0).tables
    shared = set(
        zip(
            tables.address[tables.paths > 1].tolist(),
            tables.level[tables.paths > 1].tolist(),
            strict=True,
        )
    )
    for level in range(len(format.levels)):
        if format.levels[level].size >= size:
            for root in roots:
                hole = _hole(memory, root.slots(), level, size, shared)
                if hole is not None:
                    return hole
    raise SpaceError(f"the space has no hole of {size:#x} bytes for the window of the stub")


def _hole(
    memory: BufferMemory,
    slots: Iterable[tuple[Virtual, Slot]],
    level: int,
    size: int,
    shared: set[tuple[int, int]],
) -> tuple[Virtual, Slot] | None:
    for first, slot in slots:
        format = slot.table.format
        raw = memory.load(slot.address, format.entry_bytes)
        if slot.level == level:
            if raw == 0 and not any(kept.clip(Span.of(first, size)) for kept in KEPT):
                return first, slot
        elif raw and format.granted(raw) == format.rights_mask:
            entry = format.decode(raw, slot.level)
            if not isinstance(entry, Pointer):
                continue
            if (entry.table.address, entry.table.level) not in shared:
                below = ((Virtual(first + s.index * s.size), s) for s in entry.table.slots())
                hole = _hole(memory, below, level, size, shared)
                if hole is not None:
                    return hole
    return None


def _map_ram(space: Space, at: Virtual, ram: Span, image: StubImage) -> None:
    """Maps RAM at `at` for the supervisor: in large pages, but the stub's by what they hold.

    Nothing is execute-disabled, so that the window also works while that right cannot be
    taken away; all is accessed and dirty, so that running there writes no tables.
    """
    format = space.format
    small, large = format.page_levels()[:2]
    used = format.accessed | format.dirty
    data = format.granting("write", "execute") | used
    size = format.levels[large].size
    stub = range(image.text.start // size * size, -(-image.data.stop // size) * size)
    before, after = range(ram.first, stub.start, size), range(stub.stop, ram.last + 1, size)
    for part in (before, after):
        if part:
            space.map(Virtual(at + part.start), np.array(part, np.uint64), large, data)
    page = format.levels[small].size

    def bits(frame: int) -> int:
        if frame in image.user:
            return format.granting("user", "execute") | used
        return format.granting("execute") | used if frame in image.text else data

    for held, frames in groupby(range(stub.start, stub.stop, page), bits):
        chunk = list(frames)
        space.map(Virtual(at + chunk[0]), np.array(chunk, np.uint64), small, held)
