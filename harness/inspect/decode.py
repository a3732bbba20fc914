"""An entry, bit by bit: what each one is called, what it means here, and who says so.

A reading accounts for every bit exactly once.  What the bits are is taken from the format, so that
a reading cannot differ from what the walker does; the module `decode` of each architecture adds
words.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from itertools import groupby
from typing import TypeVar

from harness.inspect import architecture
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Entry
from harness.paging.processor import Cpu

_Label = TypeVar("_Label")


class Role(Enum):
    """What a part of an entry is for."""

    PRESENT = "present"
    KIND = "kind"
    ADDRESS = "address"
    RIGHT = "right"
    TYPE = "memory type"
    USE = "accessed and dirty"
    GLOBAL = "global"
    KEY = "protection key"
    MARK = "encrypted or shared"
    RESERVED = "reserved"
    UNCHECKED = "reserved and not checked"
    IGNORED = "ignored"


@dataclass(frozen=True)
class Bits:
    """Neighbouring bits of a word that are one thing.

    mask     which bits
    name     what they are called
    value    what they hold, as a number of their own; of an address, what they add to it
    meaning  what that says here, or why it says nothing
    """

    mask: int
    name: str
    value: int
    meaning: str

    @property
    def high(self) -> int:
        """The number of the highest bit."""
        return self.mask.bit_length() - 1

    @property
    def low(self) -> int:
        """The number of the lowest bit."""
        return (self.mask & -self.mask).bit_length() - 1


@dataclass(frozen=True)
class Part(Bits):
    """A part of an entry as the machine reads it.

    role     what it is for
    section  where the architecture's manual says so
    reason   why it is reserved, unchecked or ignored; empty where it is none of these
    must_be  what it must hold where it is reserved; None where nothing that it holds will do
    """

    role: Role
    section: str
    reason: str
    must_be: int | None = 0

    @property
    def wrong(self) -> bool:
        """Whether it is reserved, and holds what it must not."""
        return self.role is Role.RESERVED and self.value != self.must_be


@dataclass(frozen=True)
class MemoryType:
    """The memory type that an entry selects, and which of those to choose from.

    said  how it does so, for people
    """

    index: int
    name: str
    said: str


@dataclass(frozen=True)
class Reading:
    """A raw entry as the machine reads it at one level.

    level        as the format counts
    name         what an entry of the level is called
    table        the place in the architecture's manual that describes such an entry
    entry_bytes  its width
    entry        what it says
    parts        every bit once, from the highest down
    memory_type  of the page, or of the table it leads to; None where it leads nowhere, or says
                 nothing of that
    number       what the manual counts the level as, where that is another number
    """

    level: int
    name: str
    table: str
    entry_bytes: int
    raw: int
    entry: Entry
    parts: tuple[Part, ...]
    memory_type: MemoryType | None
    number: int | None = None

    @property
    def counted(self) -> int:
        """The level for people."""
        return self.level if self.number is None else self.number


@dataclass(frozen=True)
class LinuxReading:
    """An entry as Linux reads it.

    meaning      what it says to Linux, in the words of `harness.paging.linux`
    said         the same as a phrase
    memory_type  of a page, as Linux sets types up; None of all else
    parts        the bits that the machine ignores, each once, from the highest down
    """

    meaning: object
    said: str
    memory_type: str | None
    parts: tuple[Bits, ...]


@dataclass(frozen=True)
class Register:
    """A value of the register that leads to the root.

    name      what it is called
    what      what it leads to, with its verb
    leads_to  where that is; None of one that says how tables are, not where
    reserved  the bits that are set and for which loading it faults
    parts     every bit once, from the highest down
    assumed   what is assumed of it, a sentence; empty where nothing is
    """

    name: str
    raw: int
    what: str
    leads_to: int | None
    reserved: int
    parts: tuple[Part, ...]
    assumed: str = ""


def levels_of(cpu: Cpu) -> range:
    """The levels at which an entry can be read, from 0 up."""
    return architecture.of(cpu).levels_of(cpu)


def numbers_of(cpu: Cpu) -> str:
    """The same as the manual counts them: "0 to 3"."""
    numbers = sorted(map(cpu.format.number, levels_of(cpu)))
    return f"{numbers[0]} to {numbers[-1]}"


@lru_cache(maxsize=1 << 10)  # who explains accesses reads the same few entries for each of them
def read(cpu: Cpu, raw: int, level: int) -> Reading:
    """What the raw entry says at `level` to this CPU.

    Raises QuestionError for a level that the mode lacks, and an entry wider than its entries.
    """
    if level not in levels_of(cpu):
        format = cpu.format
        raise QuestionError(
            f"{format.name} has levels {numbers_of(cpu)}, not {format.number(level)}"
        )
    if not 0 <= raw < 1 << 8 * cpu.format.entry_bytes:
        raise QuestionError(
            f"{raw:#x} has more than the {8 * cpu.format.entry_bytes} bits of an entry"
        )
    return architecture.of(cpu).read(cpu, raw, level)


def runs(labels: Sequence[_Label]) -> Iterator[tuple[_Label, int]]:
    """The labels of bits, given from bit 0 up, from the highest down: neighbours with one label are
    one, which comes with the mask of its bits."""
    bits = reversed(range(len(labels)))
    for label, run in groupby(bits, key=labels.__getitem__):
        yield label, sum(1 << bit for bit in run)


def named(reading: Reading, role: Role) -> Iterator[Part]:
    """The parts of a reading that are of a role."""
    return (part for part in reading.parts if part.role is role)
