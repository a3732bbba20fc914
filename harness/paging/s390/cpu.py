"""The state of an s390 CPU that decides how it translates and what it allows.

Source: z/Architecture Principles of Operation, chapter 3, "Dynamic Address Translation", "Control
Registers", "Address-Space-Control Element" and "Low-Address Protection".  The manual itself was not
at hand: what is here rests on QEMU's translation, Linux' definitions, and what was executed.

Addresses have 64 bits, and the prefix is 0.  Not covered: 24- and 31-bit addressing, access-
register mode, key-controlled protection, and second stages (SIE).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from functools import cached_property
from typing import ClassVar

from harness.paging.address import Physical, Span
from harness.paging.format import Format, bits
from harness.paging.s390.formats import dat
from harness.paging.table import Root, Table


class Mode(Enum):
    """The tables at which a walk can begin (DT of the ASCE)."""

    SEGMENT = "segment"
    REGION_THIRD = "region-third"
    REGION_SECOND = "region-second"
    REGION_FIRST = "region-first"

    @property
    def dt(self) -> int:
        """The designation type of such tables."""
        return list(Mode).index(self)

    @property
    def level(self) -> int:
        """The level of such tables."""
        return self.dt + 1

    @property
    def address_bits(self) -> int:
        """How wide the addresses are that such a table serves."""
        here = dat().levels[self.level]
        return here.shift + here.index_bits


class Cr0(IntFlag):
    """Bits of control register 0 that matter to translation."""

    IEP = 1 << 20
    EDAT = 1 << 23
    LOW_ADDRESS_PROTECTION = 1 << 28


class AddressSpace(IntEnum):
    """The spaces of a CPU, each with its ASCE (CR 1, 7 and 13), as a TEID names them."""

    PRIMARY = 0
    SECONDARY = 2
    HOME = 3


ORIGIN = bits(63, 12)
PRIVATE = bits(8)
REAL_SPACE = bits(5)
_DT, _TL = bits(3, 2), bits(1, 0)
PARTS = 4
"""A table has so many parts, of which TL tells the last that is there."""


@dataclass(frozen=True)
class Asce:
    """An address-space-control element by its fields: the table at which walks begin, where it is,
    how many quarters of it are there (1 to 4), and whether the space is private.

    Raises ValueError for an origin that it cannot hold, and for another number of quarters.
    """

    mode: Mode
    origin: Physical
    quarters: int = PARTS
    private: bool = False

    def __post_init__(self) -> None:
        if self.origin & ~ORIGIN:
            raise ValueError(f"an ASCE cannot hold a table at {self.origin:#x}, inside a page")
        if not 1 <= self.quarters <= PARTS:
            raise ValueError(f"a table has 1 to {PARTS} quarters, not {self.quarters}")

    @classmethod
    def of(cls, raw: int) -> Asce:
        """The fields of a raw ASCE.  Raises ValueError where it designates real space."""
        if raw >> 64:
            raise ValueError(f"ASCE {raw:#x} is wider than 64 bits")
        if raw & REAL_SPACE:
            raise ValueError(f"ASCE {raw:#x} designates real space, which no table translates")
        mode = list(Mode)[(raw & _DT) >> 2]
        return cls(mode, Physical(raw & ORIGIN), (raw & _TL) + 1, bool(raw & PRIVATE))

    @property
    def raw(self) -> int:
        """The value of the element."""
        private = PRIVATE if self.private else 0
        return self.origin | private | self.mode.dt << 2 | self.quarters - 1


@dataclass(frozen=True)
class Cpu:
    """The state of a CPU, with translation on.

    asce          that of the space in which accesses are made
    cr0           control register 0
    edat1, edat2  the enhanced-DAT facilities that are there; CR0 turns both on
    iep           whether the instruction-execution-protection facility is there; CR0 turns it on

    Raises ValueError for a state that no CPU can be in.
    """

    architecture: ClassVar[str] = "s390"

    asce: int
    cr0: int = 0
    edat1: bool = False
    edat2: bool = False
    iep: bool = False

    def __post_init__(self) -> None:
        Asce.of(self.asce)
        if self.edat2 and not self.edat1:
            raise ValueError("enhanced-DAT facility 2 is not there without facility 1")

    @classmethod
    def in_mode(
        cls,
        mode: Mode,
        root: int,
        *,
        quarters: int = PARTS,
        private: bool = False,
        edat1: bool = False,
        edat2: bool = False,
        iep: bool = False,
        low_address_protection: bool = False,
    ) -> Cpu:
        """A CPU with walks that begin at a table of a mode at physical `root`; what is there of
        facilities is on."""
        cr0 = (Cr0.EDAT if edat1 else 0) | (Cr0.IEP if iep else 0)
        cr0 |= Cr0.LOW_ADDRESS_PROTECTION if low_address_protection else 0
        asce = Asce(mode, Physical(root), quarters, private)
        return cls(asce.raw, int(cr0), edat1, edat2, iep)

    @cached_property
    def designation(self) -> Asce:
        """The fields of the ASCE."""
        return Asce.of(self.asce)

    @property
    def mode(self) -> Mode:
        """The table at which walks begin."""
        return self.designation.mode

    @property
    def levels(self) -> int:
        """Levels of tables that a walk may use."""
        return self.mode.level + 1

    @property
    def low_address_protection(self) -> bool:
        """Whether the first 512 bytes of the first two pages cannot be stored into, by their
        addresses before translation; a private space has no such places."""
        return bool(self.cr0 & Cr0.LOW_ADDRESS_PROTECTION) and not self.designation.private

    @cached_property
    def format(self) -> Format:
        """The format that this CPU reads its tables in."""
        edat = bool(self.cr0 & Cr0.EDAT)
        iep = self.iep and bool(self.cr0 & Cr0.IEP)
        edat1, private = self.edat1 and edat, self.designation.private
        return dat(edat1, self.edat2 and edat, iep, private, self.levels)

    @property
    def base(self) -> Physical:
        """Where the ASCE leads: to the root's table."""
        return self.designation.origin

    @cached_property
    def roots(self) -> tuple[Root, ...]:
        """Where walks begin: one table, for the addresses of which it has the entries."""
        here = self.format.levels[self.mode.level]
        size = self.designation.quarters * here.size * here.entries // PARTS
        return (Root(Table(self.format, self.base, self.mode.level), Span.of(0, size)),)
