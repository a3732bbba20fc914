"""The state of a RISC-V hart that decides how it translates and what it allows.

Source: the privileged specification 1.13.  Not covered: translation in two stages (the hypervisor
extension), shadow stacks (menvcfg.SSE and senvcfg.SSE are taken to be 0), and M-mode's own pointer
masking, since M-mode does not translate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from functools import cached_property
from typing import ClassVar

from harness.paging.address import Physical, Span, signed_halves
from harness.paging.format import Format, bits
from harness.paging.riscv.formats import PAGE_BITS, sv
from harness.paging.table import Root, Table


class Mode(Enum):
    """The schemes of translation ("Supervisor Address Translation and Protection (satp)
    Register")."""

    SV32 = "sv32"
    SV39 = "sv39"
    SV48 = "sv48"
    SV57 = "sv57"

    @property
    def address_bits(self) -> int:
        """How wide its virtual addresses are."""
        return int(self.value[2:])

    @property
    def xlen(self) -> int:
        """The width of the hart's registers."""
        return 32 if self is Mode.SV32 else 64


class Privilege(IntEnum):
    """The privilege modes, as MPP encodes them ("Privilege Levels")."""

    U = 0
    S = 1
    M = 3


class Mstatus(IntFlag):
    """mstatus bits that matter to paging ("Machine Status (mstatus and mstatush) Registers")."""

    MPP = 3 << 11
    MPRV = 1 << 17
    SUM = 1 << 18
    MXR = 1 << 19


class Envcfg(IntFlag):
    """menvcfg and senvcfg bits that matter to paging ("Machine Environment Configuration (menvcfg)
    Register" and senvcfg's, which has PMM alone of these); on RV32, menvcfgh holds the upper
    half."""

    PMM = 3 << 32
    ADUE = 1 << 61
    PBMTE = 1 << 62


PMLEN = {0: 0, 2: 7, 3: 16}
"""How many bits of a pointer are masked, by PMM; 1 is reserved ("Pointer Masking Extensions")."""

_MODES = {(64, 8): Mode.SV39, (64, 9): Mode.SV48, (64, 10): Mode.SV57, (32, 1): Mode.SV32}
"""The modes by the width of registers and satp.MODE."""


@dataclass(frozen=True)
class Satp:
    """satp by its fields: the mode, the physical page number of the root's table, and the ASID.

    Raises ValueError for a field that is too wide for the mode.
    """

    mode: Mode
    ppn: int
    asid: int = 0

    def __post_init__(self) -> None:
        ppn, asid, _ = _fields(self.mode.xlen)
        for name, value, width in (("PPN", self.ppn, ppn), ("ASID", self.asid, asid)):
            if not 0 <= value < 1 << width:
                raise ValueError(f"satp.{name} of {self.mode.value} has {width} bits: {value:#x}")

    @classmethod
    def of(cls, raw: int, xlen: int = 64) -> Satp:
        """The fields of a raw satp.  Raises ValueError where translation is off (Bare), and for a
        MODE that is reserved."""
        ppn, asid, mode = _fields(xlen)
        if raw >> ppn + asid + mode:
            raise ValueError(f"satp {raw:#x} is wider than the {xlen} bits of the hart's registers")
        number = raw >> ppn + asid
        if not number:
            raise ValueError(f"paging is off: satp is {raw:#x}, MODE Bare")
        if (xlen, number) not in _MODES:
            raise ValueError(f"satp {raw:#x} has the reserved MODE {number}")
        return cls(_MODES[xlen, number], raw & (1 << ppn) - 1, raw >> ppn & (1 << asid) - 1)

    @property
    def raw(self) -> int:
        """The value of the register."""
        ppn, asid, _ = _fields(self.mode.xlen)
        [number] = (number for (_, number), mode in _MODES.items() if mode is self.mode)
        return number << ppn + asid | self.asid << ppn | self.ppn


def _fields(xlen: int) -> tuple[int, int, int]:
    """How wide PPN, ASID and MODE of satp are, from bit 0 up."""
    return (22, 9, 1) if xlen == 32 else (44, 16, 4)


@dataclass(frozen=True)
class Cpu:
    """The state of a hart, with paging on.

    satp, mstatus, menvcfg, senvcfg  the registers as the hart holds them, menvcfg with menvcfgh
    xlen         the width of its registers, 32 or 64
    svnapot      64K pages of 16 entries alike; Svpbmt, Svadu, Smnpm and Ssnpm have bits of menvcfg
                 and senvcfg that turn them on
    svrsw60t59b  bits 60:59 of entries are the software's
    svade        A=0, or D=0 in a write, faults where menvcfg.ADUE=0 (Svade, or Svadu turned off);
                 False for harts with neither, which always set A and D themselves

    Raises ValueError for a state that no hart can be in.
    """

    architecture: ClassVar[str] = "riscv"

    satp: int
    mstatus: int = 0
    menvcfg: int = 0
    senvcfg: int = 0
    xlen: int = 64
    svnapot: bool = False
    svrsw60t59b: bool = False
    svade: bool = True

    def __post_init__(self) -> None:
        if self.xlen not in (32, 64):
            raise ValueError(f"registers have 32 or 64 bits, not {self.xlen}")
        fields = Satp.of(self.satp, self.xlen)
        for name, value in (("menvcfg", self.menvcfg), ("senvcfg", self.senvcfg)):
            number = (value & Envcfg.PMM) >> 32
            if number not in PMLEN or (number and self.xlen == 32):
                raise ValueError(f"{name} {value:#x} has the reserved PMM {number}")
        if self.mstatus & Mstatus.MPP == 2 << 11:
            raise ValueError(f"mstatus {self.mstatus:#x} has the reserved MPP 2")
        if fields.mode is Mode.SV32 and (self.svnapot or self.svrsw60t59b):
            raise ValueError("entries of Sv32 have no bits for Svnapot or Svrsw60t59b")

    @classmethod
    def in_mode(
        cls,
        mode: Mode,
        root: int,
        *,
        asid: int = 0,
        sum: bool = False,
        mxr: bool = False,
        adue: bool = False,
        pbmte: bool = False,
        svnapot: bool = False,
    ) -> Cpu:
        """A hart in a mode, its root table at physical `root`, with the given bits set besides.

        Raises ValueError for a root that satp cannot hold.
        """
        if root & (1 << PAGE_BITS) - 1:
            raise ValueError(f"satp cannot hold a root at {root:#x}, which is inside a page")
        return cls(
            satp=Satp(mode, root >> PAGE_BITS, asid).raw,
            mstatus=(Mstatus.SUM if sum else 0) | (Mstatus.MXR if mxr else 0),
            menvcfg=(Envcfg.ADUE if adue else 0) | (Envcfg.PBMTE if pbmte else 0),
            xlen=mode.xlen,
            svnapot=svnapot,
        )

    @cached_property
    def mode(self) -> Mode:
        """The scheme of translation."""
        return Satp.of(self.satp, self.xlen).mode

    @cached_property
    def levels(self) -> int:
        """Levels of tables that a walk may use."""
        return len(self.format.levels)

    @cached_property
    def asid(self) -> int:
        """The address space's identifier."""
        return Satp.of(self.satp, self.xlen).asid

    @cached_property
    def sum(self) -> bool:
        """Whether S-mode may use data on pages of U-mode."""
        return bool(self.mstatus & Mstatus.SUM)

    @cached_property
    def mxr(self) -> bool:
        """Whether what can be executed can be read."""
        return bool(self.mstatus & Mstatus.MXR)

    @cached_property
    def pbmte(self) -> bool:
        """Whether entries hold memory types (Svpbmt).  Those of Sv32 have no bits for them."""
        return self.mode is not Mode.SV32 and bool(self.menvcfg & Envcfg.PBMTE)

    @cached_property
    def sets_marks(self) -> bool:
        """Whether the hart sets A and D itself; else it faults where they are clear (Svade)."""
        return not self.svade or bool(self.menvcfg & Envcfg.ADUE)

    def pmlen(self, user: bool) -> int:
        """How many upper bits of pointers to data are masked in U-mode or S-mode (Ssnpm, Smnpm)."""
        return PMLEN[((self.senvcfg if user else self.menvcfg) & Envcfg.PMM) >> 32]

    @cached_property
    def format(self) -> Format:
        """The format that this hart reads its tables in."""
        return sv(self.mode.address_bits, self.svnapot, self.pbmte, self.svrsw60t59b)

    @cached_property
    def base(self) -> Physical:
        """Where satp leads: to the root's table."""
        return Physical(Satp.of(self.satp, self.xlen).ppn << PAGE_BITS)

    @cached_property
    def roots(self) -> tuple[Root, ...]:
        """Where walks begin: one table, which on RV64 serves the addresses whose upper bits all
        equal the highest translated one."""
        table = Table(self.format, self.base, self.levels - 1)
        width = self.mode.address_bits
        spans = (Span.of(0, 1 << width),) if width == self.xlen else signed_halves(width)
        return tuple(Root(table, span) for span in spans)


def transformed(cpu: Cpu, pointer: int, user: bool) -> int:
    """The address that a load, a store or an AMO through `pointer` uses, in U-mode or in S-mode:
    pointer masking replaces its upper bits by copies of the highest one below them ("Pointer
    Masking Extensions", The "Ignore" Transformation).  With MXR in effect it masks nothing, and
    fetches are not masked."""
    masked = 0 if cpu.mxr else cpu.pmlen(user)
    if not masked:
        return pointer
    sign = pointer >> cpu.xlen - masked - 1 & 1
    upper = bits(cpu.xlen - 1, cpu.xlen - masked)
    return pointer | upper if sign else pointer & ~upper


def effective(cpu: Cpu, privilege: Privilege, fetch: bool) -> Privilege:
    """The privilege as which an access is made: a fetch, as the mode in which the hart runs; data,
    with mstatus.MPRV=1, as MPP ("Memory Privilege in mstatus Register").  As M it is not
    translated."""
    if fetch or not cpu.mstatus & Mstatus.MPRV:
        return privilege
    return Privilege((cpu.mstatus & Mstatus.MPP) >> 11)
