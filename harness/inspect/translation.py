"""The translation of an address, with all that each step adds: how the address splits, what every
entry says, which rights are left, and why it ends where it does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from harness.inspect import decode
from harness.inspect.decode import MemoryType, Reading
from harness.inspect.snapshot import Given, QuestionError, Snapshot
from harness.inspect.x86.likely import likely
from harness.inspect.x86.linux import LinuxReading
from harness.inspect.x86.linux import read as read_linux
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bulk import End
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.processor import root_for
from harness.paging.table import Root, Slot
from harness.paging.walk import Walk, walk
from harness.paging.x86 import formats
from harness.paging.x86.access import Reason
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, Mode, linear


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

    slot     where it is; None of a PDPTE, which is a register
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
    address    the one that is translated: without metadata, where LAM masks it in data accesses
    canonical  whether the machine translates it at all
    why        of being canonical or not: the bits that decide
    indices    how the address splits, from the root down; the offset is last, and is the one in the
               smallest page where there is no page
    root       where the walk begins; None where there is nowhere to begin
    walk       None where there is no root
    stages     every entry on the way
    end        how it ended
    reason     the rule by which any access faults here, None where that depends on the access or on
               memory that is not there
    backed     whether there is memory behind the page; None where there is no page, or the source
               does not tell
    given, rom, partial  as of the snapshot
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
    reason: Reason | None
    backed: bool | None
    given: Given | None = None
    rom: tuple[Span, ...] = ()
    partial: bool = False

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


def translate(snapshot: Snapshot, address: Virtual, linux: bool = False) -> Translation:
    """How the snapshot's machine translates an address.

    linux  tell what Linux keeps in each entry too

    Raises QuestionError for an address that is wider than the CPU's mode has them, and where
    `linux` is wanted of a mode in which Linux's use of entries is not known.
    """
    cpu = snapshot.cpu
    if not cpu.long and address not in LEGACY_SPAN:
        raise QuestionError(
            f"outside long mode there is no address {address:#x}: it is {LEGACY_SPAN}"
        )
    inner = linear(cpu, address)
    root = root_for(cpu, inner)
    found = walk(snapshot.memory, root, inner) if root else None
    stages = tuple(_stages(snapshot, inner, found, linux))
    end, reason = _ending(cpu, found)
    backed = is_backed(snapshot, found.physical if found else None)
    canonical, why = _canonical(cpu, inner)
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
        reason=reason,
        backed=backed,
        given=snapshot.given,
        rom=snapshot.rom,
        partial=snapshot.partial,
    )


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
    parts = []
    if cpu.mode is Mode.PAE and cpu.levels == formats.PDPTE_LEVEL:
        low = (LEGACY_SPAN.size // formats.PDPTES).bit_length() - 1
        high = formats.LEGACY_ADDRESS_BITS - 1
        parts.append(Index(cpu.levels, "PDPTE", high, low, address >> low))
    for level in reversed(range(page, cpu.levels)):
        here = cpu.format.levels[level]
        high = here.shift + here.index_bits - 1
        parts.append(Index(level, here.name, high, here.shift, here.index(address)))
    size = cpu.format.levels[page].size
    parts.append(Index(None, "offset", size.bit_length() - 2, 0, address & size - 1))
    return tuple(parts)


def _stages(snapshot: Snapshot, address: int, found: Walk | None, linux: bool) -> Iterator[Stage]:
    cpu, format, given = snapshot.cpu, snapshot.cpu.format, snapshot.given
    granted = format.rights_mask
    registers = cpu.mode is Mode.PAE and cpu.levels == formats.PDPTE_LEVEL
    if registers and (given is None or formats.PDPTE_LEVEL in given.levels):
        raw = cpu.pdptes[split(cpu, address)[0].value]
        register = decode.read(cpu, raw, formats.PDPTE_LEVEL)
        yield Stage(None, register, None, granted, 0, likely(cpu, register))
    for slot, raw, entry in found.steps if found else ():
        if given and slot.level not in given.levels:
            continue
        left = granted if isinstance(entry, Absent) else granted & format.granted(raw, slot.level)
        reading = decode.read(cpu, raw, slot.level)
        kept = read_linux(cpu, reading) if linux else None
        guesses = likely(cpu, reading, kept, slot, snapshot.memory, address, snapshot.backed)
        placed = given is None or slot.table.address not in given.unplaced
        yield Stage(slot, reading, kept, left, granted & ~left, guesses, placed)
        granted = left


def _ending(cpu: Cpu, found: Walk | None) -> tuple[End, Reason | None]:
    if found is None:
        return End.NO_ROOT, Reason.NOT_CANONICAL if cpu.long else Reason.NO_PDPTE
    if found.unbacked:
        return End.UNBACKED, None
    match found.steps[-1].entry:
        case Leaf():
            return End.LEAF, None
        case Malformed():
            return End.MALFORMED, Reason.RESERVED
        case Absent() | Pointer():
            return End.ABSENT, Reason.NOT_PRESENT


def _canonical(cpu: Cpu, address: int) -> tuple[bool, str]:
    """Whether an address is canonical, and why (SDM volume 1, 3.3.7.1)."""
    if not cpu.long:
        return True, "every address of 32 bits is translated"
    top = formats.address_bits(cpu.levels) - 1
    upper = address >> top
    ones = (1 << 64 - top) - 1
    where = f"bits 63:{top}"
    if upper in (0, ones):
        return True, f"{where} are all {int(bool(upper))}"
    clear = next(bit for bit in reversed(range(top, 64)) if not address >> bit & 1)
    set_ = next(bit for bit in reversed(range(top, 64)) if address >> bit & 1)
    return False, f"{where} are not all the same: bit {clear} is 0, bit {set_} is 1"
