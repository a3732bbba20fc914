"""The rules of s390's dynamic address translation, written a second time: over bytes and numbers,
with nothing of the library's, so that the library can be compared with them.

Each function is a section or a figure of the Principles of Operation, named in its docstring.  Bits
are numbered as the manual does: bit 0 of 64 is the highest.  It is written to be read, not to be
fast or short.

Source: z/Architecture Principles of Operation, chapter 3, "Dynamic Address Translation" and
"Protection"; chapter 6, "Access Exceptions".  The addressing mode is that of 64 bits, the prefix is
0, and storage keys allow everything.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("fetch operand", "store operand", "fetch instruction")
"""What an access is; in the order of the library's kinds."""


@dataclass(frozen=True)
class Machine:
    """A CPU and its storage, as the rules speak of them.

    asce   the address-space-control element of the space
    space  its number in a TEID: 0 primary, 2 secondary, 3 home
    cr0    control register 0
    edat1, edat2, iep  facilities that are installed
    """

    asce: int
    space: int
    cr0: int
    edat1: bool
    edat2: bool
    iep: bool


@dataclass(frozen=True)
class Answer:
    """What an access comes to.

    code      of the program interruption, None where the access is made
    teid      the translation-exception identification, None where none is defined
    level     0 for page tables to 4 for region-first tables: where the translation ended
    absolute  what the address translates to
    lacking   whether a table has no such entry, by TL of the ASCE or TF and TL of an entry
    """

    code: int | None
    teid: int | None = None
    level: int | None = None
    absolute: int = 0
    lacking: bool = False


class Interruption(Exception):  # noqa: N818 - the manual's word
    """A program interruption, with the level at which it arose, and whether for a table that is
    too short."""

    def __init__(self, code: int, level: int, lacking: bool = False) -> None:
        super().__init__(hex(code))
        self.code, self.level, self.lacking = code, level, lacking


def bits(value: int, first: int, last: int) -> int:
    """Bits first-last of a doubleword, as a number."""
    return value >> 63 - last & (1 << last - first + 1) - 1


def bit(value: int, number: int) -> bool:
    """Whether a bit of a doubleword is one."""
    return bits(value, number, number) == 1


def doubleword(storage: bytes | bytearray, address: int) -> int | None:
    """Eight bytes of storage, the leftmost first; None where there is no storage."""
    part = storage[address : address + 8]
    return int.from_bytes(part, "big") if len(part) == 8 else None


# ---- control (chapter 3, "Translation Control") ----


def edat_applies(machine: Machine) -> bool:
    """CR 0, bit 40."""
    return machine.edat1 and bit(machine.cr0, 40)


def edat2_applies(machine: Machine) -> bool:
    """EDAT-2 applies where EDAT-1 does and it is installed."""
    return machine.edat2 and edat_applies(machine)


def iep_applies(machine: Machine) -> bool:
    """CR 0, bit 43."""
    return machine.iep and bit(machine.cr0, 43)


def private(machine: Machine) -> bool:
    """ASCE, bit 55."""
    return bit(machine.asce, 55)


# ---- virtual addresses ("Virtual-Address Format": RFX, RSX, RTX, SX, PX, BX) ----


def indexes(address: int) -> dict[int, int]:
    """RFX is bits 0-10, RSX 11-21, RTX 22-32, SX 33-43, PX 44-51; by level."""
    return {
        4: bits(address, 0, 10),
        3: bits(address, 11, 21),
        2: bits(address, 22, 32),
        1: bits(address, 33, 43),
        0: bits(address, 44, 51),
    }


TRANSLATION = {4: 0x39, 3: 0x3A, 2: 0x3B, 1: 0x10, 0: 0x11}
"""Region-first, -second and -third, segment, and page-translation exceptions."""


def first_level(machine: Machine, address: int) -> int:
    """In the table that the ASCE designates: DT is bits 60-61.  The bits of the address to the left
    of the index must be zeros (ASCE-type exception), and the first two bits of the index must not
    be beyond TL, bits 62-63."""
    level = {0b11: 4, 0b10: 3, 0b01: 2, 0b00: 1}[bits(machine.asce, 60, 61)]
    index = indexes(address)
    if any(index[higher] for higher in range(level + 1, 5)):
        raise Interruption(0x38, level)
    if index[level] >> 9 > bits(machine.asce, 62, 63):
        raise Interruption(TRANSLATION[level], level, lacking=True)
    return level


@dataclass
class Found:
    """What a translation has come to: the protection that it met, and the address."""

    protected: bool = False
    executable: bool = True
    absolute: int = 0


def region_table_entry(machine: Machine, entry: int, level: int, address: int) -> None:
    """Region-Table Entries: I is bit 58, TT 60-61; TF 56-57 and TL 62-63 are about the table
    that it leads to."""
    if bit(entry, 58):
        raise Interruption(TRANSLATION[level], level)
    if bits(entry, 60, 61) != level - 1:
        raise Interruption(0x12, level)
    if level == 2 and edat2_applies(machine) and bit(entry, 59) and private(machine):
        raise Interruption(0x12, level)


def table_length(entry: int, level: int, address: int) -> None:
    """The next index must not be before TF or beyond TL: the exception is the next table's."""
    part = indexes(address)[level - 1] >> 9
    if part < bits(entry, 56, 57) or part > bits(entry, 62, 63):
        raise Interruption(TRANSLATION[level - 1], level - 1, lacking=True)


def segment_table_entry(machine: Machine, entry: int) -> None:
    """Segment-Table Entries: I is bit 58, CS 59, TT 60-61."""
    if bit(entry, 58):
        raise Interruption(0x10, 1)
    if bits(entry, 60, 61) != 0 or (bit(entry, 59) and private(machine)):
        raise Interruption(0x12, 1)


def frame(machine: Machine, entry: int, address: int, width: int, found: Found) -> None:
    """An entry with a frame address: IEP is bit 55, P 54."""
    found.protected |= bit(entry, 54)
    found.executable = not (iep_applies(machine) and bit(entry, 55))
    offset = (1 << width) - 1
    found.absolute = entry & ~offset | address & offset


def translate(machine: Machine, storage: bytes | bytearray, address: int) -> tuple[Found, int]:
    """Translation Process: what the address translates to, and the level of the last entry."""
    level, found = first_level(machine, address), Found()
    origin = machine.asce & ~0xFFF
    while level >= 2:
        entry = doubleword(storage, origin + 8 * indexes(address)[level])
        if entry is None:
            raise Interruption(0x05, level)
        region_table_entry(machine, entry, level, address)
        if level == 2 and edat2_applies(machine) and bit(entry, 53):
            frame(machine, entry, address, 31, found)
            return found, 2
        if edat_applies(machine):
            found.protected |= bit(entry, 54)
        table_length(entry, level, address)
        origin, level = entry & ~0xFFF, level - 1
    entry = doubleword(storage, origin + 8 * indexes(address)[1])
    if entry is None:
        raise Interruption(0x05, 1)
    segment_table_entry(machine, entry)
    if edat_applies(machine) and bit(entry, 53):
        frame(machine, entry, address, 20, found)
        return found, 1
    found.protected |= bit(entry, 54)
    entry = doubleword(storage, (entry & ~0x7FF) + 8 * indexes(address)[0])
    if entry is None:
        raise Interruption(0x05, 0)
    if bit(entry, 53):
        raise Interruption(0x11, 0)
    if bit(entry, 52):
        raise Interruption(0x12, 0)
    frame(machine, entry, address, 12, found)
    return found, 0


# ---- protection ----


def low_address_protected(machine: Machine, address: int) -> bool:
    """Low-Address Protection: CR 0, bit 35; effective addresses 0-511 and 4096-4607, not in a
    private space."""
    low = 0 <= address <= 511 or 4096 <= address <= 4607
    return low and bit(machine.cr0, 35) and not private(machine)


def identification(machine: Machine, address: int, kind: str, marks: int) -> int:
    """The TEID: bits 0-51 are the page, 52 fetch, 53 store, 56 and 61 by what protected, 62-63 the
    space."""
    accessed = 1 << 63 - 53 if kind == "store operand" else 1 << 63 - 52
    return address >> 12 << 12 | accessed | marks | machine.space


def access(machine: Machine, storage: bytes | bytearray, address: int, kind: str) -> Answer:
    """What the access comes to ("Access Exceptions", by their priority)."""
    if kind == "store operand" and low_address_protected(machine, address):
        return Answer(0x04, identification(machine, address, kind, 1 << 63 - 56))
    level: int | None
    try:
        found, level = translate(machine, storage, address)
    except Interruption as raised:
        told = raised.code not in (0x05, 0x12)
        teid = identification(machine, address, kind, 0) if told else None
        level = None if raised.code == 0x38 else raised.level
        return Answer(raised.code, teid, level, lacking=raised.lacking)
    if kind == "store operand" and found.protected:
        return Answer(0x04, identification(machine, address, kind, 1 << 63 - 61), level)
    if kind == "fetch instruction" and not found.executable:
        marks = 1 << 63 - 56 | 1 << 63 - 61
        return Answer(0x04, identification(machine, address, kind, marks), level)
    return Answer(None, None, level, found.absolute)
