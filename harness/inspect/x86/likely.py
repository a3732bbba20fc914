"""What an entry that makes no sense probably is: guesses for people, and never more than that.

An entry that is malformed, or not present and nothing that its system writes, was mostly meant as
something: a number of 32 bits that was sign-extended, a virtual address, a good entry in which one
bit flipped, a page whose frame Linux had inverted.  Where the entry stands in a table, its
neighbours and the address that it serves are asked what speaks for the guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.check.keys import in_units
from harness.inspect import decode
from harness.inspect.data import filled
from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.held import UnreadError
from harness.inspect.tour import lines
from harness.inspect.x86 import data
from harness.paging.address import Physical, Span
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.linux.entries import Unknown
from harness.paging.memory import Memory
from harness.paging.table import Slot, Table
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from harness.paging.x86.formats import ADDRESS, PAGE_BITS, PS, RW, US, A, D, P, bits

_LOWER: Final = bits(31, 0)
"""What is left of a number of 32 bits that was sign-extended: above it, and in bit 31, are ones."""

_NO_POINTER: Final = 1 << 16
"""From the top of all addresses down: small negative numbers, which systems keep in entries."""

LARGEST_WIDTH: Final = 46
"""Where MAXPHYADDR is taken to be wider since nobody tells it, memory at the bits above it is
unlikely all the same: an address in which all of these are set is no memory."""

_STRAYS: Final = 2
"""As many bits at most are taken for strays in an entry that is else empty."""

_MARKED: Final = (1 << 47, 1 << 51)
"""Where guests have the bit that marks encrypted memory (SEV) or shared memory (TDX)."""

_DIRECT_MAP: Final = bits(29, PAGE_BITS)
"""Linux maps all memory in order, from a multiple of 1 GiB on: these bits of an address there are
those of the physical address."""


@dataclass(frozen=True)
class Guess:
    """What an entry probably is.

    said   as a phrase
    frame  where the page lies that was probably meant; None where the guess names none
    """

    said: str
    frame: Physical | None = None


def likely(
    cpu: Cpu,
    reading: Reading,
    linux: LinuxReading | None = None,
    slot: Slot | None = None,
    memory: Memory | None = None,
    address: int | None = None,
    backed: Sequence[Span] | None = None,
) -> tuple[str, ...]:
    """What an entry probably is, and what speaks for it, a phrase each; none where it makes sense.

    slot, memory, address  where it is, and an address that it serves, if that is known
    backed                 where there is memory, if that is known
    """
    # Of an entry alone nobody knows in which table it is: then that is no mistake of the table's.
    lower = None if slot is None else of_lower_table(cpu, reading)
    found = lower
    if slot is not None and memory is not None and backed is not None:
        found = found or _shifted_in_memory(cpu, reading, slot, memory, backed)
    found = found or _guess(cpu, reading, linux)
    if found is None and slot is not None and memory is not None:
        found = _unshifted(reading, slot, memory)
    if found is None:
        return ()
    said = [found.said]
    if found.frame is not None and slot is not None and memory is not None:
        said += _neighbours(cpu, slot, memory, found.frame)
    if found.frame is not None and slot is not None and address is not None:
        said += _direct_map(slot, address, found.frame)
    return tuple(said)


NARROWEST: Final = 36
"""Physical addresses are seldom narrower (bits)."""


def highest_bit(*entries: Entry) -> int:
    """The highest bit that is set in an address to which one of the entries leads."""
    places = [one.address for one in entries if isinstance(one, Leaf)]
    places += [one.table.address for one in entries if isinstance(one, Pointer)]
    return max(places, default=0).bit_length() - 1


def narrower(bit: int) -> str:
    """What becomes of an address with that bit on a processor with a smaller MAXPHYADDR; nothing
    where none is so small."""
    if bit < NARROWEST:
        return ""
    return f", and with {bit} or less bit {bit} of the address is reserved"


def _guess(cpu: Cpu, reading: Reading, linux: LinuxReading | None) -> Guess | None:
    raw, entry = reading.raw, reading.entry
    if as_filled := filled(raw, reading.entry_bytes):
        return Guess(as_filled)
    if _ignored_ps(cpu, reading):
        large = _entry(replace(cpu, cr4=cpu.cr4 | Cr4.PSE), reading.level, raw)
        return Guess(f"{destination(large)}: PS is set, and ignored, since CR4.PSE=0")
    unwritten = linux is not None and isinstance(linux.meaning, Unknown)
    if isinstance(entry, Absent) and linux is not None and not unwritten:
        return None
    if isinstance(entry, Leaf | Pointer) and cpu.maxphyaddr <= LARGEST_WIDTH:
        return None
    if isinstance(entry, Pointer) and not _pointer_like(cpu, reading):
        return None
    if _pointer_like(cpu, reading):
        return _of_pointer(cpu, reading)
    if isinstance(entry, Leaf):
        return _inverted(cpu, reading)
    as_data = _data(data.said(raw, reading.entry_bytes))
    if isinstance(entry, Malformed):
        return (
            _inverted(cpu, reading)
            or as_data
            or _shifted(cpu, reading)
            or _of_wider(cpu, reading, entry)
            or _one_bit(cpu, reading, entry)
            or _data(data.numbers(raw) or data.noise(raw, LARGEST_WIDTH))
        )
    return as_data or (_emptied(cpu, reading) if unwritten else None)


def _data(said: str | None) -> Guess | None:
    """What is no entry, if it is anything that is known."""
    return Guess(said) if said else None


def _ignored_ps(cpu: Cpu, reading: Reading) -> bool:
    """Whether an entry has PS set and leads to a table all the same (SDM 4.3)."""
    return cpu.ignores_ps and reading.level == 1 and bool(reading.raw & P and reading.raw & PS)


def _pointer_like(cpu: Cpu, reading: Reading) -> bool:
    """Whether an entry looks like an address of the upper half, or a negative number."""
    if cpu.mode is Mode.BITS_32:
        return False
    low = 56 if cpu.levels == 5 else 47
    return reading.raw >= (1 << 64) - (1 << low) and reading.raw < (1 << 64) - _NO_POINTER


def _of_pointer(cpu: Cpu, reading: Reading) -> Guess:
    raw = reading.raw
    extended = raw | _LOWER >> 1 == (1 << 64) - 1
    if not raw & P:
        more = ", or a number of 32 bits that was sign-extended" if extended else ""
        return Guess(f"a pointer to {raw:#x}{more}: this may be data and no table")
    if not extended:
        return Guess(f"a virtual address, {raw & -1 << PAGE_BITS:#x}, in place of a physical one")
    made = _entry(cpu, reading.level, raw & _LOWER)
    where = f": {destination(made)}" if isinstance(made, Leaf | Pointer) else ""
    frame = made.address if isinstance(made, Leaf) else None
    return Guess(f"the number {raw & _LOWER:#x} of 32 bits, sign-extended{where}", frame)


def _inverted(cpu: Cpu, reading: Reading) -> Guess | None:
    """An entry of a page whose address is inverted: the bits that no address has are all set."""
    if not cpu.long or reading.level > 1:
        return None
    beyond = bits(51, min(cpu.maxphyaddr, LARGEST_WIDTH))
    meant = reading.raw ^ bits(51, cpu.format.levels[reading.level].shift)
    made = _entry(cpu, reading.level, meant)
    if reading.raw & beyond != beyond or not isinstance(made, Leaf):
        return None
    return Guess(
        f"{destination(made)}, by the entry {meant:#018x}: Linux inverts the address of a page that"
        " nobody may access (against L1TF), and P was set in such an entry",
        made.address,
    )


def of_lower_table(cpu: Cpu, reading: Reading) -> Guess | None:
    """A large page's entry in a table one level too high: the bits that are reserved here are PS,
    or those of its address that a page of this size cannot have."""
    lower, entry = reading.level - 1, reading.entry
    if not isinstance(entry, Malformed) or not cpu.long or lower < 1 or not reading.raw & PS:
        return None
    made = _entry(cpu, lower, reading.raw)
    if not isinstance(made, Leaf):
        return None
    name = cpu.format.levels[lower].name
    return Guess(
        f"{destination(made)}, by a {name}: then this table is one of {name}s, and CR3, or the"
        " entry that leads to it, is off by a table"
    )


def _shifted(cpu: Cpu, reading: Reading) -> Guess | None:
    """An entry whose address was shifted as a frame number is, and was none: no address of fewer
    bits than twice those of an offset in a page is left in it.

    A page's address of a single bit is rather the page at 0, with that bit set.
    """
    address = reading.raw & ADDRESS
    if address % (1 << 2 * PAGE_BITS):
        return None
    meant = address >> PAGE_BITS
    made = _entry(cpu, reading.level, reading.raw & ~ADDRESS | meant)
    if isinstance(made, Leaf):
        if made.address != meant or meant.bit_count() == 1:
            return None
    elif not isinstance(made, Pointer):
        return None
    return Guess(_said_of_shift(made, PAGE_BITS), made.address if isinstance(made, Leaf) else None)


def unshifted(address: int, unit: int = 1 << PAGE_BITS) -> dict[int, Physical]:
    """The addresses of which one is what it is shifted left by 1 bit, 2 and so on, by these numbers
    of bits; each is a multiple of `unit`."""
    count = ((address & -address) // unit).bit_length()
    return {shift: Physical(address >> shift) for shift in range(1, count)}


def _shifted_in_memory(
    cpu: Cpu, reading: Reading, slot: Slot, memory: Memory, backed: Sequence[Span]
) -> Guess | None:
    """An entry that leads to no memory, and whose address was shifted left by some bits too many:
    where a pointer leads without that, there is a table in use; or the pages beside one are as many
    times too far away."""
    here = cpu.format.levels[reading.level]
    unit = 1 << PAGE_BITS if here.is_pointer(reading.raw) else here.size
    address = reading.raw & ADDRESS & -unit
    if isinstance(reading.entry, Absent) or _is_in(address, backed):
        return None
    found: list[tuple[int, Entry]] = []
    for shift, meant in unshifted(address, unit).items():
        made = _entry(cpu, reading.level, reading.raw & ~ADDRESS | meant)
        if isinstance(made, Pointer):
            meant_so = _is_used(memory, made.table, backed)
        else:
            meant_so = _beside_by(slot, memory, address, unit << shift)
        if meant_so:
            found.append((shift, made))
    if len(found) != 1:
        return None
    [(shift, made)] = found
    return Guess(_said_of_shift(made, shift), made.address if isinstance(made, Leaf) else None)


def _is_in(address: int, backed: Sequence[Span]) -> bool:
    return any(address in span for span in backed)


def _is_used(memory: Memory, table: Table, backed: Sequence[Span]) -> bool:
    """Whether there is a table in which something is present, nothing is malformed, and half of
    what is present or more leads to memory."""
    if not _is_in(table.address, backed):
        return False
    try:
        made = [line.entry for line in lines(memory, table)]
    except UnreadError:
        return False
    used = [one for one in made if isinstance(one, Leaf | Pointer)]
    targets = [one.address if isinstance(one, Leaf) else one.table.address for one in used]
    near = sum(_is_in(target, backed) for target in targets)
    wrong = any(one is None or isinstance(one, Malformed) for one in made)
    return bool(used) and 2 * near >= len(used) and not wrong


def _beside_by(slot: Slot, memory: Memory, address: int, step: int) -> bool:
    """Whether the entries beside one lead as far away as they are from it, in such steps."""
    table, alike = slot.table, 0
    for away in (-2, -1, 1, 2):
        index = slot.index + away
        if 0 <= index < table.format.levels[slot.level].entries:
            raw = memory.load(table.slot(index).address, table.format.entry_bytes)
            leads = raw is not None and raw & P and (raw & ADDRESS & -slot.size)
            alike += leads == address + away * step
    return alike >= _ALIKE


def _said_of_shift(made: Entry, shift: int) -> str:
    as_number = " as if it were the number of a frame" if shift == PAGE_BITS else ""
    return f"{destination(made)}, whose address was shifted left by {shift} bits{as_number}"


def _of_wider(cpu: Cpu, reading: Reading, entry: Malformed) -> Guess | None:
    """A page at the end of addresses that are wider than the processor's, where hypervisors and
    firmware put things: all bits from MAXPHYADDR to that width are set, and those below them."""
    width, below = entry.bits.bit_length(), cpu.maxphyaddr - _END_BITS
    if not cpu.long or entry.bits != bits(width - 1, cpu.maxphyaddr):
        return None
    made = _entry(replace(cpu, maxphyaddr=width), reading.level, reading.raw)
    if reading.raw & (end := bits(width - 1, below)) != end or not isinstance(made, Leaf):
        return None
    return Guess(
        f"{destination(made)}, at the end of addresses of {width} bits: whoever put it there takes"
        f" MAXPHYADDR to be {width}, and the processor has {cpu.maxphyaddr}",
        made.address,
    )


_END_BITS: Final = 8
"""Of the bits below MAXPHYADDR so many are set in an address at the end of those that are wider."""


def _unshifted(reading: Reading, slot: Slot, memory: Memory) -> Guess | None:
    """A page's entry that holds the number of a frame where its address belongs: those around it
    step by one frame, as in all maps, and that is one bit and not a page.

    It is looked at in steps that leave the lowest bits, in which rights were put, as they are.
    """
    if reading.level or not isinstance(reading.entry, Leaf) or not reading.raw >> PAGE_BITS:
        return None
    alike = 0
    for step in (-2, -1, 1, 2):
        index = slot.index + step * _RIGHTS_STEP
        if 0 <= index < slot.table.format.levels[slot.level].entries:
            place = slot.table.slot(index).address
            raw = memory.load(place, slot.table.format.entry_bytes)
            alike += raw == reading.raw + step * _RIGHTS_STEP
    if alike < _ALIKE:
        return None
    number = reading.raw & -_RIGHTS_STEP
    return Guess(
        f"the 4K page at {number << PAGE_BITS:#x}, or one of the {_RIGHTS_STEP - 1} behind it,"
        f" whose number {number:#x} was not shifted left by {PAGE_BITS} bits"
    )


_RIGHTS_STEP: Final = 8
"""Entries from one in which P, W and U are set over the lowest bits of a number to the next whose
bits are the same."""

_ALIKE: Final = 2
"""So many of those around an entry have to be as far from it as their numbers are."""


def _one_bit(cpu: Cpu, reading: Reading, entry: Malformed) -> Guess | None:
    """An entry that is good but for one bit of its address."""
    bit = entry.bits & ADDRESS
    if entry.bits != bit or bit.bit_count() != 1:
        return None
    made = _entry(cpu, reading.level, reading.raw & ~bit)
    place = bit.bit_length() - 1
    marks = ""
    if bit in _MARKED:
        marks = (
            f", or marked as encrypted (SME, SEV: --c-bit {place}) or shared (TDX: --shared-bit"
            f" {place})"
        )
    frame = made.address if isinstance(made, Leaf) else None
    return Guess(f"{destination(made)}, with bit {place} set by mistake{marks}", frame)


def _emptied(cpu: Cpu, reading: Reading) -> Guess | None:
    """An entry that is not present, and nothing that Linux writes."""
    raw = reading.raw
    strays = [str(bit) for bit in range(64) if raw >> bit & 1]
    if len(strays) <= _STRAYS:
        plural = "bits" if len(strays) > 1 else "bit"
        return Guess(f"an empty entry, with {plural} {' and '.join(strays)} set by mistake")
    made = _entry(cpu, reading.level, raw | P)
    if isinstance(made, Leaf | Pointer) and raw & ADDRESS and raw & (RW | US | A | D):
        return Guess(f"{destination(made)}, of which P was cleared")
    return None


def _neighbours(cpu: Cpu, slot: Slot, memory: Memory, frame: Physical) -> Iterator[str]:
    """The entries beside one, where their pages lie beside the frame that was meant, or would by
    the same guess."""
    format = slot.table.format
    for step in (-1, 1):
        index = slot.index + step
        if not 0 <= index < format.levels[slot.level].entries:
            continue
        beside = slot.table.slot(index)
        raw = memory.load(beside.address, format.entry_bytes)
        if raw is None:
            continue
        entry, lies = format.decode(raw, slot.level), frame + step * slot.size
        if isinstance(entry, Leaf) and entry.address == lies:
            yield f"the entry beside it, at {beside.address:#x}, leads to {lies:#x}"
        elif isinstance(entry, Malformed):
            guess = _guess(cpu, decode.read(cpu, raw, slot.level), None)
            if guess and guess.frame == lies:
                yield f"the entry beside it, at {beside.address:#x}, is wrong in the same way"


def _direct_map(slot: Slot, address: int, frame: Physical) -> Iterator[str]:
    """The address, where it is the one that Linux's map of all memory has for the frame."""
    if address >> 63 and not (address ^ frame) & _DIRECT_MAP & -slot.size:
        yield f"{frame:#x} is where {address & -slot.size:#x} leads in Linux's map of all memory"


def _entry(cpu: Cpu, level: int, raw: int) -> Entry:
    return decode.read(cpu, raw, level).entry


def destination(entry: Entry) -> str:
    """Where an entry leads, as a phrase."""
    match entry:
        case Leaf(address, size):
            return f"the {in_units(size)} page at {address:#x}"
        case Pointer(table):
            return f"the table at {table.address:#x}"
    return "an entry that is malformed"
