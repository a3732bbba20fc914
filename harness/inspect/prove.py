"""The tables of any program, put into a guest's memory where they are, and proved there.

Nothing is relocated: a table that cannot be where it is, since the machine needs the place itself
or has no memory there, is left out with all that lies below it, and that is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from harness.check.quirks import not_run_on
from harness.check.validate import DEADLINE, compare_space
from harness.inspect.check import Checked
from harness.inspect.expect import Expectations, Unmet, places, unmet
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.machine.engines import executor, reads_as_amd
from harness.machine.errors import Misuse
from harness.machine.guest import Guest
from harness.machine.machine import Engine, Processor, dotted
from harness.machine.ram import ARENA, RAM_UNIT
from harness.machine.registry import engine_named
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import End, Leaves
from harness.paging.memory import BufferMemory, Words
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer

MOST: Final = 1 << 24
"""Entries of a space, each counted at all its addresses, that are proved."""

_CR0: Final = Cr0.PE | Cr0.WP | Cr0.PG
_CR4: Final = Cr4.PSE | Cr4.PAE | Cr4.PGE | Cr4.LA57 | Cr4.SMEP | Cr4.SMAP | Cr4.PKE | Cr4.PKS
_EFER: Final = Efer.LME | Efer.LMA | Efer.NXE
"""The bits that the machine loads; what others there are say nothing about tables, but LAM."""

_FEATURES: Final = {
    Cr4.LA57: "la57",
    Cr4.SMEP: "smep",
    Cr4.SMAP: "smap",
    Cr4.PKE: "pku",
    Cr4.PKS: "pks",
}
"""What a processor must have for a bit of CR4."""


@dataclass(frozen=True)
class Proved:
    """What came of a proof.

    checked   the machine's answers
    meant     what was expected; None where nothing was
    unmet     what is not so
    mapped    whether the guest's memory holds a table that maps anything
    left_out  what the machine was not asked about, a sentence each
    """

    checked: Checked
    mapped: bool
    meant: Expectations | None
    unmet: tuple[Unmet, ...]
    left_out: tuple[str, ...]


def prove(
    snapshot: Snapshot,
    engine: str,
    program: str | None = None,
    meant: Expectations | None = None,
) -> Proved:
    """Proves a snapshot's tables in a new guest.

    Raises QuestionError for tables that no guest can have, Misuse for an engine whose processor
    lacks what they are made for, SpaceError where no hole is left for the stub, and MachineError
    for a guest that is lost.
    """
    cpu = snapshot.cpu
    if not cpu.long:
        raise QuestionError(
            f"these are tables of {cpu.format.name}: only those of 4 and of 5 levels are proved;"
            " fault, walk, dump and lint read all"
        )
    _check_root(snapshot)
    missed = () if meant is None else unmet(snapshot, meant)
    leaves = bulk.leaves(snapshot.memory, cpu.roots, limit=MOST)
    if not leaves.complete:
        raise QuestionError(
            f"the space has {leaves.total:,} entries, each counted at all its addresses: no more"
            f" than {MOST:,} are proved"
        )
    machine = engine_named(engine)
    model = _processor(machine, cpu)
    size = _ram_for(leaves, machine.largest_ram)
    with Guest(engine, ram_bytes=size, cpu=model, program=program, deadline=DEADLINE) as guest:
        own, notes = _own(cpu, guest)
        left_out = tuple(_place(snapshot, leaves, guest))
        asked = None if meant is None else places(own, meant)
        memory = BufferMemory(guest.ram.buffer)
        mapped = bool(bulk.leaves(memory, own.roots, limit=0).total)
        comparisons = compare_space(guest, memory, own, places=asked)
        who, version = executor(guest)
        told = replace(snapshot, notes=(*snapshot.notes, *notes))
        new = not_run_on(who, version, guest.version)
        checked = Checked(told, dotted(guest.version), engine, new, comparisons)
    return Proved(checked, mapped, meant, missed, left_out)


def _check_root(snapshot: Snapshot) -> None:
    """Raises QuestionError for a root table that is not in the source's memory, or where no guest
    can have it."""
    for root in snapshot.cpu.roots:
        at = root.table.address
        if snapshot.memory.load(at, root.table.format.entry_bytes) is None:
            raise QuestionError(
                f"the root table is at {at:#x}, where the source has no memory: CR3 is wrong, or a"
                " file lies elsewhere (--ram FILE@ADDRESS)"
            )
        if at in ARENA:
            raise QuestionError(
                f"the root table is at {at:#x}, and the machine needs all below {ARENA.stop:#x}"
                " itself: have the program put its tables higher. Those of a running QEMU are"
                " compared where they are by pagetable check --qmp SOCKET"
            )


def _processor(machine: Engine, cpu: Cpu) -> str | None:
    """The processor of the engine's that is most like the source's; None for its usual one."""
    width = Processor(maxphyaddr=cpu.maxphyaddr, la57=bool(cpu.cr4 & Cr4.LA57))
    asked = (replace(width, page1gb=cpu.page1gb, amd=cpu.amd), width)
    return next((found for one in asked if (found := machine.processor(one)) is not None), None)


def _ram_for(leaves: Leaves, most: int) -> int:
    """RAM for all tables and pages, as far as a guest can have it where they are."""
    ends = [leaves.tables.address, leaves.physical[leaves.end == End.LEAF]]
    there = np.concatenate(ends)
    there = there[there < np.uint64(most)]
    last = int(there.max(initial=ARENA.stop))
    return min(-(-(last + 1) // RAM_UNIT) * RAM_UNIT + RAM_UNIT, most)


def _own(cpu: Cpu, guest: Guest) -> tuple[Cpu, list[str]]:
    """The state that the guest takes in place of the snapshot's, and how its processor differs."""
    info = guest.info
    lacks = [name for bit, name in _FEATURES.items() if cpu.cr4 & bit and not info.has(name)]
    if cpu.nxe and not info.has("nx"):
        lacks.append("nx")
    if lacks:
        raise Misuse(
            f"{guest.engine.name} has a processor without {' and '.join(lacks).upper()}, with which"
            " these tables are read: choose another engine"
        )
    own = replace(
        cpu,
        cr0=cpu.cr0 & _CR0,
        cr3=cpu.base,
        cr4=cpu.cr4 & _CR4,
        efer=cpu.efer & _EFER,
        lam=False,
        c_bit=None,
        shared_bit=None,
        maxphyaddr=info.physical_bits,
        page1gb=info.has("gigabyte_pages"),
        amd=reads_as_amd(info),
    )
    notes = [
        f"The guest's processor has {what}, unlike that of the source: entries were compared as it"
        " reads them."
        for what, differs in (
            (f"MAXPHYADDR {own.maxphyaddr}", own.maxphyaddr != cpu.maxphyaddr),
            (f"{'' if own.page1gb else 'no '}1G pages", own.page1gb != cpu.page1gb),
            (f"{'AMD' if own.amd else 'Intel'}'s reading of entries", own.amd != cpu.amd),
        )
        if differs
    ]
    if cpu.lam:
        notes.append("Linear-address masking (LAM) is off in the guest.")
    if cpu.mark is not None:
        notes.append(
            f"Memory is not encrypted in the guest: bit {cpu.mark.bit} ({cpu.mark.name}) is clear"
            " in its entries and in CR3."
        )
    return own, notes


def _place(snapshot: Snapshot, leaves: Leaves, guest: Guest) -> Iterator[str]:
    """Puts the tables into the guest's RAM, and takes out what leads to those that cannot be there;
    which these are, a sentence each."""
    cpu, tables = snapshot.cpu, leaves.tables
    format, memory = cpu.format, BufferMemory(guest.ram.buffer)
    ours = Span(ARENA.stop, guest.ram.size - 1)
    kept = ~np.uint64(0 if cpu.mark is None else 1 << cpu.mark.bit)
    placed: dict[int, list[int]] = {level: [] for level in range(cpu.levels)}
    for address, level in zip(tables.address.tolist(), tables.level.tolist(), strict=True):
        table = Span.of(address, format.table_bytes(level))
        if not ours.covers(table):
            where = (
                "which the machine needs itself" if address < ours.first else "where it has none"
            )
            if level == cpu.levels - 1:
                raise QuestionError(
                    f"the root table is at {address:#x}, {where}: tables can be proved in {ours}"
                )
            yield (
                f"the level-{level} table at {address:#x}, {where} (tables can be in {ours}), and"
                " all below it"
            )
            continue
        slots = _slots(address, table.size, format.entry_bytes)
        words, backed = snapshot.memory.gather(slots, format.entry_bytes)
        if backed is not None and not backed.all():
            yield f"the level-{level} table at {address:#x}, which is not in memory, and all below"
            continue
        memory.scatter(slots, format.entry_bytes, words & kept)
        placed[level].append(address)
    for level in range(1, cpu.levels):
        _unlink(cpu, memory, placed[level], level, np.array(placed[level - 1], np.uint64))


def _unlink(cpu: Cpu, memory: BufferMemory, tables: list[int], level: int, placed: Words) -> None:
    """Clears the entries of tables that lead to others than those placed."""
    format = cpu.format
    shape = format.levels[level].pointer
    assert shape is not None
    for table in tables:
        slots = _slots(table, format.table_bytes(level), format.entry_bytes)
        words, _ = memory.gather(slots, format.entry_bytes)
        leads = bulk.kinds(format, level, words) == bulk.POINTER
        lost = leads & ~np.isin(bulk.address_of(shape, words), placed)
        memory.scatter(slots[lost], format.entry_bytes, np.zeros(int(lost.sum()), np.uint64))


def _slots(table: int, size: int, width: int) -> Words:
    return np.uint64(table) + np.arange(0, size, width, dtype=np.uint64)
