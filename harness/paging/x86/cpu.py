"""The state of an x86 CPU that decides how it translates and what it allows."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag
from functools import cached_property

from harness.paging.address import Physical, Span, Virtual
from harness.paging.format import Format
from harness.paging.table import Root, Table
from harness.paging.x86 import formats


class Cr0(IntFlag):
    """CR0 bits that matter to paging (SDM 2.5)."""

    PE = 1 << 0
    WP = 1 << 16
    PG = 1 << 31


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
    PKS = 1 << 24


class Efer(IntFlag):
    """IA32_EFER bits that matter to paging (SDM 2.2.1)."""

    LME = 1 << 8
    LMA = 1 << 10
    NXE = 1 << 11


@dataclass(frozen=True)
class Cpu:
    """CPU state, in long mode.

    cr0, cr3, cr4, efer  the registers as the machine holds them
    ac                   EFLAGS.AC
    maxphyaddr           width of physical addresses in bits (CPUID 80000008H:EAX[7:0])
    page1gb              1-GByte pages (CPUID 80000001H:EDX[26])
    """

    cr0: int
    cr3: int
    cr4: int
    efer: int
    ac: bool = False
    maxphyaddr: int = 40
    page1gb: bool = True

    def __post_init__(self) -> None:
        if not (self.cr0 & Cr0.PG and self.cr4 & Cr4.PAE and self.efer & Efer.LMA):
            raise ValueError(
                f"not in long mode: CR0 {self.cr0:#x}, CR4 {self.cr4:#x}, EFER {self.efer:#x}"
            )

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
        ac: bool = False,
        maxphyaddr: int = 40,
        page1gb: bool = True,
    ) -> Cpu:
        """A CPU in long mode with 4 or 5 `levels` and its root table at physical `root`."""
        if levels not in (4, 5):
            raise ValueError(f"long mode has 4 or 5 levels, not {levels}")
        return cls(
            cr0=Cr0.PE | Cr0.PG | (Cr0.WP if wp else 0),
            cr3=root,
            cr4=Cr4.PAE
            | Cr4.PGE
            | (Cr4.LA57 if levels == 5 else 0)
            | (Cr4.SMEP if smep else 0)
            | (Cr4.SMAP if smap else 0),
            efer=Efer.LME | Efer.LMA | (Efer.NXE if nxe else 0),
            ac=ac,
            maxphyaddr=maxphyaddr,
            page1gb=page1gb,
        )

    @cached_property
    def levels(self) -> int:
        """Levels of tables that a walk may use."""
        return 5 if self.cr4 & Cr4.LA57 else 4

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
    def format(self) -> Format:
        """The format that this CPU reads its tables in."""
        return formats.long_mode(self.levels, self.maxphyaddr, self.nxe, self.page1gb)

    @cached_property
    def roots(self) -> tuple[Root, ...]:
        """Where walks begin: one table, which serves the two canonical halves."""
        table = Table(self.format, Physical(self.cr3 & self._cr3_address), self.levels - 1)
        return tuple(Root(table, half) for half in canonical_halves(self.levels))

    @property
    def _cr3_address(self) -> int:
        """The bits of CR3 that locate the root table: M-1:12 (SDM 4.5.2)."""
        return (1 << self.maxphyaddr) - self.format.table_bytes(self.levels - 1)


def canonical_halves(levels: int) -> tuple[Span, Span]:
    """The addresses whose upper bits all equal the highest translated one (SDM 3.3.7.1)."""
    bits = formats.address_bits(levels)
    top = 1 << 64
    half = 1 << bits - 1
    return Span(0, half - 1), Span(top - half, top - 1)


def root_for(cpu: Cpu, address: Virtual) -> Root | None:
    """Where the walk of an address begins; None for an address that is not canonical."""
    for root in cpu.roots:
        if address in root.span:
            return root
    return None
