"""The tables of any program, put into a guest's memory where they are, and proved there.

Nothing is relocated: what the machine needs for itself lies where no table is. A table for which a
guest has no memory is left out with all that lies below it, and that is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.check.compare import Answer, Disagreement, answer_of
from harness.check.x86.quirks import not_run_on
from harness.check.x86.validate import DEADLINE, compare_one, compare_space
from harness.check.x86.window import spans, with_pdptes
from harness.check.x86.witnesses import Host, of_absent
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.x86.check import Checked
from harness.inspect.x86.expect import Expectations, Unmet, places, unmet
from harness.inspect.x86.processor import refuse_foreign
from harness.machine.errors import MachineError, Misuse
from harness.machine.machine import Engine, Processor, dotted
from harness.machine.ram import ARENA, ARENA_UNIT, DEVICES, LARGEST_RAM
from harness.machine.stub import StubImage
from harness.machine.x86.engines import executor, reads_as_amd, why_long_mode_only
from harness.machine.x86.guest import Guest
from harness.machine.x86.registry import engine_named
from harness.machine.x86.stub import BUILD
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import End, Leaves
from harness.paging.memory import BufferMemory, Words
from harness.paging.space import SpaceError
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode
from harness.paging.x86.load import read_pdptes

MOST: Final = 1 << 24
"""Entries of a space, each counted at all its addresses, that are proved."""

_CR0: Final = Cr0.PE | Cr0.WP | Cr0.PG
_CR4: Final = Cr4.PSE | Cr4.PAE | Cr4.PGE | Cr4.LA57 | Cr4.SMEP | Cr4.SMAP | Cr4.PKE | Cr4.PKS
_EFER: Final = Efer.LME | Efer.LMA | Efer.NXE
"""The bits that the machine loads; the others say nothing about tables, but for LAM and LASS."""

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
    refuse_foreign(snapshot, "prove")
    missed = () if meant is None else unmet(snapshot, meant)
    with _built(snapshot, engine, program) as built:
        guest, memory, own = built.guest, built.memory, built.cpu
        asked = None if meant is None else places(own, meant)
        mapped = bool(bulk.leaves(memory, own.roots, limit=0).total)
        comparisons = compare_space(guest, memory, own, places=asked)
        who, version = executor(guest)
        told = replace(built.snapshot, notes=(*snapshot.notes, *built.notes))
        new = not_run_on(who, version, guest.version)
        checked = Checked(told, dotted(guest.version), engine, new, comparisons)
    return Proved(checked, mapped, meant, missed, built.left_out)


def ask_every(
    snapshot: Snapshot, found: Sequence[Disagreement], host: Host
) -> Iterator[tuple[int, Answer]]:
    """What each engine says of the questions of disagreements about a snapshot, with the number of
    each, as the answers come."""
    for name, here in host.present.items():
        said = 0
        try:
            with _built(snapshot, name, here.program) as built:
                for one in found:
                    yield said, _answered(name, here.called, built, one)
                    said += 1
        except (MachineError, Misuse, QuestionError, SpaceError) as error:
            for number in range(said, len(found)):
                yield number, Answer(name, here.called, None, str(error))
    yield from of_absent(host, len(found))


def _answered(name: str, who: str, built: _Built, found: Disagreement) -> Answer:
    question = found.oracle, found.address, found.access, found.ac
    try:
        comparison = compare_one(built.guest, built.memory, built.cpu, *question)
    except Misuse as error:
        return Answer(name, who, None, str(error))
    if not comparison.compared and not comparison.disagreed:
        reason = next(iter(comparison.not_comparable), "the tables have nothing there")
        return Answer(name, who, None, f"not comparable: {reason}")
    return answer_of(name, who, comparison)


@dataclass(frozen=True)
class _Built:
    """A snapshot's tables in a guest.

    snapshot  with the PDPTEs that MOV CR3 loads
    cpu       the state that the guest takes in place of the snapshot's
    notes     how its processor differs
    left_out  what could not be there, a sentence each
    """

    guest: Guest
    memory: BufferMemory
    snapshot: Snapshot
    cpu: Cpu
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@contextmanager
def _built(snapshot: Snapshot, engine: str, program: str | None) -> Iterator[_Built]:
    """The tables in a new guest; raises as `prove` does."""
    snapshot = _with_registers(snapshot)
    cpu = snapshot.cpu
    _check_root(snapshot)
    leaves = bulk.leaves(snapshot.memory, cpu.roots, limit=MOST)
    if not leaves.complete:
        raise QuestionError(
            f"the space has {leaves.total:,} entries, each counted at all its addresses: no more"
            f" than {MOST:,} are proved"
        )
    machine = engine_named(engine)
    model = _processor(machine, cpu)
    base, size = _room(cpu, leaves, min(machine.largest_ram, _largest_window(snapshot, leaves)))
    image = StubImage.load(BUILD).moved(base)
    with Guest(
        engine, ram_bytes=size, cpu=model, program=program, image=image, deadline=DEADLINE
    ) as guest:
        if not cpu.long and (why := why_long_mode_only(guest)) is not None:
            raise Misuse(f"these are tables of {cpu.format.name}. {why} Choose another engine")
        own, notes = _own(cpu, guest)
        left_out = tuple(_place(snapshot, leaves, guest))
        memory = BufferMemory(guest.ram.buffer)
        yield _Built(guest, memory, snapshot, _loaded(own, guest), tuple(notes), left_out)


def _check_root(snapshot: Snapshot) -> None:
    """Raises QuestionError for a root table that is not in the source's memory."""
    if not snapshot.cpu.roots:
        raise QuestionError(f"no PDPTE at {snapshot.cpu.base:#x} is present: nothing is mapped")
    for root in snapshot.cpu.roots:
        at = root.table.address
        if snapshot.memory.load(at, root.table.format.entry_bytes) is None:
            raise QuestionError(
                f"the root table is at {at:#x}, where the source has no memory: CR3 is wrong, or a"
                " file lies elsewhere (--ram FILE@ADDRESS)"
            )


def _with_registers(snapshot: Snapshot) -> Snapshot:
    """The snapshot with the PDPTEs of PAE paging in registers, as MOV CR3 loads them, where the
    source reads them at every walk.

    Raises QuestionError for those that cannot be loaded.
    """
    cpu = snapshot.cpu
    if cpu.mode is not Mode.PAE or cpu.pdptes_checked is None:
        return snapshot
    try:
        pdptes = read_pdptes(snapshot.memory, cpu.base)
        pdptes = tuple(raw & ~formats.A for raw in pdptes)  # TCG sets it, which is no one else's
        return replace(snapshot, cpu=replace(cpu, pdptes=pdptes, pdptes_checked=None))
    except ValueError as error:
        raise QuestionError(f"{error}: no guest can have these tables") from None


def _loaded(own: Cpu, guest: Guest) -> Cpu:
    """The state with the PDPTEs in the guest's memory, of those tables alone that are there."""
    if own.mode is not Mode.PAE:
        return own
    at = Span.of(own.base, formats.PDPTES * formats.PDPTE_BYTES)
    if (why := _why_not_there(guest, at)) is not None:
        raise QuestionError(f"the PDPTEs are at {own.base:#x}, {why}")
    return with_pdptes(BufferMemory(guest.ram.buffer), own, own.pdptes)


def _largest_window(snapshot: Snapshot, leaves: Leaves) -> int:
    """The most RAM of a guest that shows all of it to the stub in a hole of these tables.

    Outside long mode the longest run of empty slots of a root, and half of it where the tables do
    not need more: it may be divided by the addresses at which the stub is entered.
    """
    cpu: Cpu = snapshot.cpu
    if cpu.long:
        return LARGEST_RAM
    longest = 0
    for root in cpu.roots:
        words, _ = snapshot.memory.gather(
            np.array([slot.address for _, slot in root.slots()], np.uint64), cpu.format.entry_bytes
        )
        taken = np.flatnonzero(np.concatenate([[1], words, [1]]))
        longest = max(longest, int(np.diff(taken).max()) - 1)
    hole = longest * cpu.format.levels[-1].size
    last = int(max(leaves.tables.address.max(initial=0), cpu.base))
    needed = (last // ARENA_UNIT + 1) * ARENA_UNIT + len(ARENA)
    return max(hole // 2 // ARENA_UNIT * ARENA_UNIT, needed)


def _processor(machine: Engine, cpu: Cpu) -> str | None:
    """The processor of the engine's that is most like the source's; None for its usual one."""
    width = Processor(maxphyaddr=cpu.maxphyaddr, la57=bool(cpu.cr4 & Cr4.LA57))
    asked = (replace(width, page1gb=cpu.page1gb, pse36=cpu.pse36, amd=cpu.amd), width)
    return next((found for one in asked if (found := machine.processor(one)) is not None), None)


def _room(cpu: Cpu, leaves: Leaves, most: int) -> tuple[int, int]:
    """Where the machine's own memory begins, and how large RAM is: all tables and pages have it
    where they are, as far as there is any.

    The machine's own is where no table is; if there is a choice, where the fewest pages are, where
    RAM is smallest, and lowest.
    """
    count, own = most // ARENA_UNIT, len(ARENA) // ARENA_UNIT
    addresses = np.append(leaves.tables.address, np.uint64(cpu.base))
    tables = _in_units(addresses, np.uint64(1), count)
    roots = np.array([cpu.base, *(root.table.address for root in cpu.roots)], np.uint64)
    mapped = leaves.end == End.LEAF
    sizes = np.array([level.size for level in cpu.format.levels], np.uint64)
    pages = _in_units(leaves.physical[mapped], sizes[leaves.level[mapped]], count)
    used = np.flatnonzero(tables + pages)
    last = int(used[-1]) if len(used) else 0
    bases = np.arange(count - own + 1)
    ends = np.maximum(np.maximum(bases + own, last + 1), own + 1)

    def covered(those: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.convolve(those, np.ones(own, np.int64), "valid")

    lost = covered(_in_units(roots, np.uint64(1), count)), covered(tables), covered(pages)
    best = np.lexsort((bases, ends, *reversed(lost)))[0]
    return int(bases[best]) * ARENA_UNIT, int(ends[best]) * ARENA_UNIT


def _in_units(first: Words, size: Words | np.uint64, count: int) -> npt.NDArray[np.int64]:
    """How many of the pieces of memory lie in each of `count` units, in a part at least."""
    unit = np.uint64(ARENA_UNIT)
    begin, past = first // unit, (first + size - np.uint64(1)) // unit + np.uint64(1)
    edges = np.zeros(count + 1, np.int64)
    for edge, step in ((begin, 1), (past, -1)):
        np.add.at(edges, np.minimum(edge, np.uint64(count)).astype(np.int64), step)
    return edges.cumsum()[:count]


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
        pse36=info.has("pse36"),
        amd=reads_as_amd(info),
    )
    notes = [
        f"The guest's processor has {what}, unlike that of the source: entries were compared as it"
        " reads them."
        for what, differs in (
            (f"MAXPHYADDR {own.maxphyaddr}", own.maxphyaddr != cpu.maxphyaddr),
            (
                f"{'' if own.page1gb else 'no '}1G pages",
                cpu.long and own.page1gb != cpu.page1gb,
            ),
            (
                f"{'' if own.pse36 else 'no '}4M pages above 4 GiB (PSE-36)",
                cpu.mode is Mode.BITS_32 and own.pse36 != cpu.pse36,
            ),
            (f"{'AMD' if own.amd else 'Intel'}'s reading of entries", own.amd != cpu.amd),
        )
        if differs
    ]
    for what, on in (("masking (LAM)", cpu.lam), ("space separation (LASS)", cpu.lass)):
        if on:
            notes.append(f"Linear-address {what} is off in the guest.")
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
    kept = ~np.uint64(cpu.marked)
    where = spans((range(DEVICES.start), range(DEVICES.stop, guest.engine.largest_ram)))
    placed: dict[int, list[int]] = {level: [] for level in range(cpu.levels)}
    for address, level in zip(tables.address.tolist(), tables.level.tolist(), strict=True):
        table = Span.of(address, format.table_bytes(level))
        if (why := _why_not_there(guest, table)) is not None:
            if level == cpu.levels - 1:
                raise QuestionError(
                    f"the root table is at {address:#x}, {why}: tables can be proved in {where}"
                )
            yield (
                f"the level-{level} table at {address:#x}, {why} (tables can be in {where}), and"
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


def _why_not_there(guest: Guest, table: Span) -> str | None:
    """Why a guest cannot have a table at its place, as the end of a sentence; None if it can."""
    if any(Span.of(part.start, len(part)).covers(table) for part in guest.free):
        return None
    if table.first in guest.image.arena:
        return "which the machine needs itself"
    return "where a PC has no RAM" if table.first in DEVICES else "where the guest has no memory"


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
