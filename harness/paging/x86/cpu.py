"""The state of an x86 CPU that decides how it translates and what it allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum, IntFlag
from functools import cached_property
from typing import ClassVar

from harness.paging.address import Physical, Span, Virtual, signed_halves
from harness.paging.format import Format, Shape
from harness.paging.table import Root, Table
from harness.paging.x86 import formats


class Mode(Enum):
    """The paging modes (SDM 4.1.1)."""

    BITS_32 = "32"
    PAE = "pae"
    LEVEL_4 = "4"
    LEVEL_5 = "5"


class Cr0(IntFlag):
    """CR0 bits that matter to paging (SDM 2.5)."""

    PE = 1 << 0
    WP = 1 << 16
    PG = 1 << 31


class Cr3(IntFlag):
    """CR3 bits that are no part of an address (SDM 4.5.2)."""

    LAM_U57 = 1 << 61
    LAM_U48 = 1 << 62
    KEEP_TLB = 1 << 63


class Cr4(IntFlag):
    """CR4 bits that matter to paging (SDM 2.5)."""

    PSE = 1 << 4
    PAE = 1 << 5
    PGE = 1 << 7
    LA57 = 1 << 12
    PCIDE = 1 << 17
    SMEP = 1 << 20
    SMAP = 1 << 21
    PKE = 1 << 22
    CET = 1 << 23
    PKS = 1 << 24
    LASS = 1 << 27
    LAM_SUP = 1 << 28


class Efer(IntFlag):
    """IA32_EFER bits that matter to paging (SDM 2.2.1)."""

    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11


_MODE_BITS = {
    Mode.BITS_32: (0, 0),
    Mode.PAE: (Cr4.PAE, 0),
    Mode.LEVEL_4: (Cr4.PAE, Efer.LME | Efer.LMA),
    Mode.LEVEL_5: (Cr4.PAE | Cr4.LA57, Efer.LME | Efer.LMA),
}
"""The bits of CR4 and EFER that make each mode."""


WIDTHS = range(32, 53)
"""The widths that physical addresses can have (SDM volume 3A, 4.1.4)."""

MARKS = range(32, 52)
"""Bits of an entry that can mark encrypted or shared memory."""

LEGACY_SPAN = Span.of(0, 1 << formats.LEGACY_ADDRESS_BITS)
"""Every address outside long mode."""


@dataclass(frozen=True)
class Cpu:
    """CPU state, with paging on.

    cr0, cr3, cr4, efer  the registers as the machine holds them
    ac                   EFLAGS.AC
    maxphyaddr           width of physical addresses in bits (CPUID 80000008H:EAX[7:0])
    page1gb              1-GByte pages (CPUID 80000001H:EDX[26])
    pse36                4-MByte pages above 4 GiB (CPUID 01H:EDX[17])
    lam                  linear-address masking (CPUID (07H,1):EAX[26])
    amd                  AMD's reading where it differs from Intel's
    c_bit                the bit that marks encrypted memory: SME, SEV (CPUID 8000001FH:EBX[5:0])
    shared_bit           the bit that marks memory shared with the host: TDX
    pkru, pkrs           rights of protection keys on user and on supervisor pages
    pdptes               the PDPTE registers, in PAE paging; `load` reads them from memory
    pdptes_checked       where PDPTEs are no registers but read at every walk, as QEMU's TCG does,
                         and AMD's processors under nested paging (APM volume 2, 15.25.10): the
                         reserved bits that make an access through one fault.  None where they are
                         registers, which hold none that is malformed

    Raises ValueError for a state that no machine can be in.
    """

    architecture: ClassVar[str] = "x86"

    cr0: int
    cr3: int
    cr4: int
    efer: int
    ac: bool = False
    maxphyaddr: int = 40
    page1gb: bool = True
    pse36: bool = True
    lam: bool = False
    amd: bool = False
    pkru: int = 0
    pkrs: int = 0
    pdptes: tuple[int, ...] = (0,) * formats.PDPTES
    pdptes_checked: int | None = None
    c_bit: int | None = None
    shared_bit: int | None = None

    def __post_init__(self) -> None:
        if not self.cr0 & Cr0.PG:
            raise ValueError(f"paging is off: CR0 is {self.cr0:#x}")
        if self.efer & Efer.LMA and not self.cr4 & Cr4.PAE:
            raise ValueError(f"long mode without PAE: CR4 {self.cr4:#x}, EFER {self.efer:#x}")
        if self.c_bit is not None and self.shared_bit is not None:
            raise ValueError(
                "memory is marked by the C-bit (SEV) or by the shared bit (TDX), not both"
            )
        if self.mark is not None and not (self.long and self.mark.bit in MARKS):
            raise ValueError(
                f"the bit that marks memory is one of {MARKS[0]} to {MARKS[-1]} in long mode:"
                f" {self.mark.bit} is not"
            )
        if len(self.pdptes) != formats.PDPTES:
            raise ValueError(f"there are {formats.PDPTES} PDPTEs, not {len(self.pdptes)}")
        for number, raw in enumerate(self.pdptes if self.pdptes_checked is None else ()):
            wrong = reserved_in_pdpte(raw, self.maxphyaddr)
            if wrong:
                raise ValueError(
                    f"PDPTE {number} {raw:#x} cannot be loaded: {wrong:#x} is reserved"
                )

    @classmethod
    def in_mode(
        cls, mode: Mode, cr3: int, *, cr0: int = Cr0.WP, cr4: int = Cr4.PGE, efer: int = Efer.NXE
    ) -> Cpu:
        """A CPU in a paging mode, with the given bits set besides those that make the mode."""
        cr4_mode, efer_mode = _MODE_BITS[mode]
        return cls(cr0 | Cr0.PE | Cr0.PG, cr3, cr4 | cr4_mode, efer | efer_mode)

    @classmethod
    def long_mode(
        cls,
        levels: int,
        root: int,
        *,
        wp: bool = True,
        nxe: bool = True,
        smep: bool = False,
        smap: bool = False,
        lass: bool = False,
        ac: bool = False,
        maxphyaddr: int = 40,
        page1gb: bool = True,
    ) -> Cpu:
        """A CPU in long mode with 4 or 5 `levels` and its root table at physical `root`.

        Raises ValueError for another number of levels, and for a root that CR3 cannot hold; what
        CR3 has beside an address is for `in_mode`.
        """
        if levels not in (4, 5):
            raise ValueError(f"long mode has 4 or 5 levels, not {levels}")
        if root < 0 or root % (1 << formats.PAGE_BITS) or root.bit_length() > maxphyaddr:
            raise ValueError(
                f"CR3 cannot hold a root at {root:#x}: it must be at a multiple of 0x1000, of"
                f" {maxphyaddr} bits"
            )
        cpu = cls.in_mode(
            Mode.LEVEL_5 if levels == 5 else Mode.LEVEL_4,
            root,
            cr0=Cr0.WP if wp else 0,
            cr4=Cr4.PGE | Cr4.SMEP * smep | Cr4.SMAP * smap | Cr4.LASS * lass,
            efer=Efer.NXE if nxe else 0,
        )
        return replace(cpu, ac=ac, maxphyaddr=maxphyaddr, page1gb=page1gb)

    @cached_property
    def mode(self) -> Mode:
        """The paging mode (SDM 4.1.1)."""
        if not self.cr4 & Cr4.PAE:
            return Mode.BITS_32
        if not self.long:
            return Mode.PAE
        return Mode.LEVEL_5 if self.cr4 & Cr4.LA57 else Mode.LEVEL_4

    @cached_property
    def long(self) -> bool:
        """Whether it is in long mode, where addresses have 64 bits; elsewhere they have 32."""
        return bool(self.efer & Efer.LMA)

    @cached_property
    def levels(self) -> int:
        """Levels of tables that a walk may use."""
        return len(self.format.levels)

    @cached_property
    def wp(self) -> bool:
        return bool(self.cr0 & Cr0.WP)

    @cached_property
    def nxe(self) -> bool:
        return bool(self.efer & Efer.NXE)

    @cached_property
    def smep(self) -> bool:
        return bool(self.cr4 & Cr4.SMEP)

    @cached_property
    def smap(self) -> bool:
        return bool(self.cr4 & Cr4.SMAP)

    @cached_property
    def lass(self) -> bool:
        """Whether bit 63 of an address says whose it is (volume 3A, linear-address-space
        separation): in long mode alone."""
        return self.long and bool(self.cr4 & Cr4.LASS)

    @cached_property
    def user_keys(self) -> int:
        """The rights of keys on user pages: PKRU, or all of them where it plays no part."""
        return self.pkru if self.long and self.cr4 & Cr4.PKE else 0

    @cached_property
    def supervisor_keys(self) -> int:
        """The rights of keys on supervisor pages: PKRS, or all of them where it plays no part."""
        return self.pkrs if self.long and self.cr4 & Cr4.PKS else 0

    @cached_property
    def reports_fetches(self) -> bool:
        """Whether error codes tell a fetch: CR4.SMEP=1, or CR4.PAE=1 and EFER.NXE=1 (SDM 4.7)."""
        return self.smep or bool(self.cr4 & Cr4.PAE and self.nxe)

    @cached_property
    def format(self) -> Format:
        """The format that this CPU reads its tables in."""
        if self.mode is Mode.BITS_32:
            return formats.paging32(self.maxphyaddr, bool(self.cr4 & Cr4.PSE), self.pse36)
        if self.mode is Mode.PAE:
            walked = self.pdptes_checked is not None
            return formats.pae(self.maxphyaddr, self.nxe, self.pdpte if walked else None)
        levels = 5 if self.mode is Mode.LEVEL_5 else 4
        model = self.maxphyaddr, self.nxe, self.page1gb, self.amd
        return formats.long_mode(levels, *model, self.mark)

    @property
    def ignores_ps(self) -> bool:
        """Whether PS means nothing in a PDE: in 32-bit paging with CR4.PSE=0 alone (4.3)."""
        return self.mode is Mode.BITS_32 and not self.cr4 & Cr4.PSE

    @property
    def mark(self) -> formats.Mark | None:
        """The bit of entries and of CR3 that marks encrypted or shared memory; None without."""
        if self.c_bit is not None:
            return formats.Mark("C", self.c_bit)
        return None if self.shared_bit is None else formats.Mark("shared", self.shared_bit)

    @property
    def marked(self) -> int:
        """The mask of that bit; 0 without."""
        return 0 if self.mark is None else 1 << self.mark.bit

    @cached_property
    def pdpte(self) -> Shape:
        """How this CPU reads a present PDPTE of PAE paging."""
        if self.pdptes_checked is None:
            return formats.pdpte(self.maxphyaddr)
        return formats.pdpte(self.maxphyaddr, self.pdptes_checked)

    def malformed_pdpte(self, raw: int) -> int:
        """The bits by which this CPU takes a PDPTE for malformed."""
        return raw & self.pdpte.reserved_mask if raw & formats.P else 0

    @cached_property
    def base(self) -> Physical:
        """Where CR3 leads: to the root's table, or in PAE paging to the four PDPTEs.  Its other
        bits are no part of the address (SDM 4.3, 4.4.1, 4.5.2)."""
        width = self.maxphyaddr if self.long else formats.LEGACY_ADDRESS_BITS
        pdptes = formats.PDPTES * formats.PDPTE_BYTES
        table = pdptes if self.mode is Mode.PAE else self.format.table_bytes(self.levels - 1)
        return Physical(self.cr3 & (1 << width) - table & ~self.marked)

    @cached_property
    def roots(self) -> tuple[Root, ...]:
        """Where walks begin: one table in most modes, which serves both canonical halves in long
        mode; in PAE paging the table of each PDPTE that is present, if those are registers."""
        if self.mode is Mode.PAE and self.pdptes_checked is None:
            return tuple(self._pdpte_roots())
        table = Table(self.format, self.base, self.levels - 1)
        spans = canonical_halves(self.levels) if self.long else (LEGACY_SPAN,)
        return tuple(Root(table, span) for span in spans)

    def _pdpte_roots(self) -> Iterator[Root]:
        size = LEGACY_SPAN.size // formats.PDPTES
        for number, raw in enumerate(self.pdptes):
            if raw & formats.P:
                table = Table(self.format, self.pdpte.address_of(raw), self.levels - 1)
                yield Root(table, Span.of(number * size, size))


def reserved_in_pdpte(raw: int, maxphyaddr: int) -> int:
    """The bits that make loading a PDPTE fault (SDM 4.4.1)."""
    return raw & formats.pdpte(maxphyaddr).reserved_mask if raw & formats.P else 0


def canonical_halves(levels: int) -> tuple[Span, Span]:
    """The addresses whose upper bits all equal the highest translated one (SDM volume 1,
    3.3.7.1)."""
    return signed_halves(formats.address_bits(levels))


def linear(cpu: Cpu, pointer: Virtual) -> Virtual:
    """The address that a data access through `pointer` uses: LAM puts copies of the highest
    address bit in place of metadata, and leaves bit 63, which tells a user pointer from a
    supervisor's (SDM volume 3A, linear-address masking)."""
    width = lam_widths(cpu)[pointer >> 63]
    if width is None:
        return pointer
    metadata = formats.bits(62, width)
    sign = pointer >> width - 1 & 1
    return Virtual(pointer | metadata if sign else pointer & ~metadata)


def lam_widths(cpu: Cpu) -> tuple[int | None, int | None]:
    """How many address bits LAM leaves to user and to supervisor pointers; None where it is off.

    CR3.LAM_U57 wins over LAM_U48; supervisor pointers are as wide as the mode's addresses.
    """
    if not (cpu.lam and cpu.long):
        return None, None
    user = 57 if cpu.cr3 & Cr3.LAM_U57 else 48 if cpu.cr3 & Cr3.LAM_U48 else None
    return user, formats.address_bits(cpu.levels) if cpu.cr4 & Cr4.LAM_SUP else None
