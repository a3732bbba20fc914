"""The translation of an address, with all that each step adds: how the address splits, what every
entry says, which rights are left, and why it ends where it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from harness.inspect import architecture, decode
from harness.inspect.decode import LinuxReading, MemoryType, Reading
from harness.inspect.snapshot import Given, Snapshot
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bulk import End
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.memory import Memory
from harness.paging.processor import Cpu, root_for
from harness.paging.table import Root, Slot
from harness.paging.walk import Walk, walk


@dataclass(frozen=True)
class Index:
    """The bits high:low of an address, and what they choose.

    level  of the table that they choose an entry of; None of the offset in the page
    name   what such an entry is called; "offset"
    """

    level: int | None
    name: str
    high: int
    low: int
    value: int


@dataclass(frozen=True)
class Stage:
    """One entry on the way.

    slot     where it is; None of a register
    reading  what it says
    linux    what Linux keeps in it; None where that is not wanted, or of a register
    granted  the rights, as bits of the format, that all entries so far give together
    taken    those that it takes and the entries above it gave
    likely   what it probably is, and what speaks for that; empty where it makes sense
    placed   whether it is known where its table is
    """

    slot: Slot | None
    reading: Reading
    linux: LinuxReading | None
    granted: int
    taken: int
    likely: tuple[str, ...] = ()
    placed: bool = True


@dataclass(frozen=True)
class Translation:
    """What becomes of an address.

    asked      the address as it was given
    address    the one that is translated: without metadata, where that is masked in data accesses
    canonical  whether the machine translates it at all
    why        of being canonical or not: the bits that decide
    indices    how the address splits, from the root down; the offset is last, and is the one in the
               smallest page where there is no page
    root       where the walk begins; None where there is nowhere to begin
    walk       None where there is no root
    stages     every entry on the way
    end        how it ended
    reason     the rule by which any access faults here, None where that depends on the access or on
               memory that is not there, or on a root that is not given
    backed     whether there is memory behind the page; None where there is no page, or the source
               does not tell
    cpu        the state by which it is translated: one whose tables have one format
    unrooted   the register that would lead to the root, where it is not given
    given, rom, partial  as of the snapshot
    partly     whether the walk needs a slot without memory of a table of which a part has some
    """

    asked: Virtual
    address: Virtual
    canonical: bool
    why: str
    indices: tuple[Index, ...]
    root: Root | None
    walk: Walk | None
    stages: tuple[Stage, ...]
    end: End
    reason: Enum | None
    backed: bool | None
    cpu: Any
    unrooted: str | None
    given: Given | None
    rom: tuple[Span, ...]
    partial: bool
    partly: bool

    @property
    def unknown(self) -> bool:
        """Whether it ends at an entry that is not given, or that the file lacks which has a part of
        its table."""
        return self.end is End.UNBACKED and (self.given is not None or self.is_cut)

    @property
    def is_cut(self) -> bool:
        """Whether it needs a slot of a table of which a file has another part alone: the machine
        has it."""
        return self.partly and self.partial

    @property
    def physical(self) -> Physical | None:
        """The physical address, if there is a page."""
        return self.walk.physical if self.walk else None

    @property
    def leaf(self) -> Leaf | None:
        """The page, if there is one."""
        return self.walk.leaf if self.walk else None

    @property
    def memory_type(self) -> MemoryType | None:
        """The memory type of the page, if there is one."""
        return self.stages[-1].reading.memory_type if self.leaf else None

    @property
    def granted(self) -> int:
        """The rights that all entries give together."""
        return self.stages[-1].granted if self.stages else 0

    @property
    def effective(self) -> int:
        """Those of them that have an effect (`architecture.effective`)."""
        return architecture.effective_of(self.cpu, self.granted, self._page)

    @property
    def why_ineffective(self) -> str:
        """Why the others have none; empty where there are none."""
        return architecture.why_ineffective(self.cpu, self.granted, self._page)

    @property
    def _page(self) -> int:
        """The raw entry of the page; 0 where there is none."""
        return self.stages[-1].reading.raw if self.leaf else 0


def translate(snapshot: Snapshot, address: Virtual, linux: bool = False) -> Translation:
    """How the snapshot's machine translates an address.

    linux  tell what Linux keeps in each entry too

    Raises QuestionError for an address that is wider than the CPU's mode has them, and where
    `linux` is wanted of a mode in which Linux's use of entries is not known.
    """
    asked = architecture.of(snapshot.cpu)
    asked.check_address(snapshot.cpu, address)
    inner = asked.pointed(snapshot.cpu, address)
    cpu = asked.part(snapshot.cpu, inner)
    if asked.mixed is not None:
        cpu = asked.mixed.part(cpu, snapshot.memory, inner)
    snapshot = replace(snapshot, cpu=cpu)
    root = root_for(cpu, inner)
    found = walk(snapshot.memory, root, inner) if root else None
    stages = tuple(_stages(snapshot, inner, found, linux))
    end = _end(found)
    backed = is_backed(snapshot, found.physical if found else None)
    canonical, why = asked.canonical(cpu, inner)
    reason = asked.reason(cpu, inner, end)
    lost = unrooted(snapshot, inner, reason)
    indices = split(cpu, inner, found.level if found and found.leaf else 0)
    return Translation(
        asked=address,
        address=inner,
        canonical=canonical,
        why=why,
        indices=indices,
        root=root,
        walk=found,
        stages=stages,
        end=end,
        reason=None if lost else reason,
        backed=backed,
        cpu=cpu,
        unrooted=lost,
        given=snapshot.given,
        rom=snapshot.rom,
        partial=snapshot.partial,
        partly=found is not None and _is_partly_there(snapshot.memory, found.unbacked),
    )


def _is_partly_there(memory: Memory, slot: Slot | None) -> bool:
    """Whether there is memory at the first or the last slot of the table of one that has none."""
    if slot is None:
        return False
    table = slot.table
    ends = (table.slot(0), table.slot(table.format.levels[table.level].entries - 1))
    return any(memory.load(one.address, table.format.entry_bytes) is not None for one in ends)


def unrooted(snapshot: Snapshot, address: Virtual, reason: Any) -> str | None:
    """The register that would lead to the root of an address, where the rule by which it faults is
    that there is none, and only since that was not given."""
    name = architecture.of(snapshot.cpu).rootless(address, reason)
    return name if name in snapshot.unsure else None


class Differing(NamedTuple):
    """An entry of one walk, and what another walk of the address has at its level.

    other  None where that walk ends above
    bits   those that differ
    """

    reading: Reading
    other: int | None
    bits: int


def agreement(found: Translation, other: Translation) -> tuple[Differing, ...]:
    """Every entry of a walk beside that of another, from the root down."""
    raws = {stage.reading.level: stage.reading.raw for stage in other.stages}
    return tuple(
        Differing(one.reading, raw, 0 if raw is None else raw ^ one.reading.raw)
        for one in found.stages
        for raw in [raws.get(one.reading.level)]
    )


def is_backed(snapshot: Snapshot, physical: Physical | None) -> bool | None:
    """Whether there is memory at an address; None where there is no address, or the source does not
    tell."""
    if physical is None or snapshot.backed is None:
        return None
    return any(physical in span for span in snapshot.backed)


def split(cpu: Cpu, address: int, page: int = 0) -> tuple[Index, ...]:
    """The parts of an address, from the root down, of which a page at level `page` is the last."""
    above = architecture.of(cpu).above(cpu, address)
    parts = [] if above is None else [above[0]]
    for level in reversed(range(page, cpu.levels)):
        here = cpu.format.levels[level]
        high = here.shift + here.index_bits - 1
        parts.append(Index(level, here.name, high, here.shift, here.index(address)))
    size = cpu.format.levels[page].size
    parts.append(Index(None, "offset", size.bit_length() - 2, 0, address & size - 1))
    return tuple(parts)


def _stages(snapshot: Snapshot, address: int, found: Walk | None, linux: bool) -> Iterator[Stage]:
    cpu, format, given = snapshot.cpu, snapshot.cpu.format, snapshot.given
    asked, granted = architecture.of(cpu), format.rights_mask
    if above := asked.above(cpu, address):
        index, raw = above
        assert index.level is not None
        if given is None or index.level in given.levels:
            register = decode.read(cpu, raw, index.level)
            guesses = asked.likely(cpu, register)
            yield Stage(None, register, None, granted, 0, guesses)
    for slot, raw, entry in found.steps if found else ():
        if given and slot.level not in given.levels:
            continue
        left = granted if isinstance(entry, Absent) else granted & format.granted(raw, slot.level)
        reading = decode.read(cpu, raw, slot.level)
        kept = asked.linux(cpu, reading) if linux else None
        guesses = asked.likely(cpu, reading, kept, slot, snapshot.memory, address, snapshot.backed)
        placed = given is None or slot.table.address not in given.unplaced
        yield Stage(slot, reading, kept, left, granted & ~left, guesses, placed)
        granted = left


def _end(found: Walk | None) -> End:
    if found is None:
        return End.NO_ROOT
    if found.unbacked:
        return End.UNBACKED
    if found.outside:
        return End.OUTSIDE
    match found.steps[-1].entry:
        case Leaf():
            return End.LEAF
        case Malformed():
            return End.MALFORMED
        case Absent() | Pointer():
            return End.ABSENT
