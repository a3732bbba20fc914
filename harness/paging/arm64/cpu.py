"""The state of an arm64 processor that decides how EL1&0 translates, and what it allows.

Sources: Arm ARM, DDI 0487, the descriptions of TCR_EL1, TTBR0_EL1, TTBR1_EL1, SCTLR_EL1, MAIR_EL1
and the ID_AA64MMFRn_EL1, and the pseudocode that is named at each rule.

Not covered: a stage 2, secure and realm states, FEAT_S1PIE, FEAT_S1POE, FEAT_D128, FEAT_HAFT,
memory tagging, and NFDx (of SVE's non-faulting loads and of transactions).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import IntFlag
from functools import cached_property
from typing import ClassVar

from harness.paging.address import Physical, Span
from harness.paging.arm64.formats import GRANULES, LARGEST_OUTPUT, stage1
from harness.paging.format import Format, bits
from harness.paging.table import Root, Table


class Sctlr(IntFlag):
    """SCTLR_EL1 bits that matter to paging."""

    M = 1 << 0
    A = 1 << 1
    WXN = 1 << 19
    EE = 1 << 25
    EPAN = 1 << 57


class Tcr(IntFlag):
    """TCR_EL1 bits that matter to both halves; `Half` has those of one."""

    A1 = 1 << 22
    AS = 1 << 36
    HA = 1 << 39
    HD = 1 << 40
    DS = 1 << 59


OUTPUT_BITS = (32, 36, 40, 42, 44, 48, 52)
"""Widths of physical addresses by TCR_EL1.IPS, and by ID_AA64MMFR0_EL1.PARange."""

NORMAL = 0xFF
"""A byte of MAIR_EL1: Normal memory, write-back, with allocation."""


@dataclass(frozen=True)
class _Fields:
    """Where TCR_EL1 keeps what it says of one half: the lowest bit of each field, and the granules
    by the encoding of TGx."""

    name: str
    tsz: int
    epd: int
    tg: int
    granules: tuple[str | None, ...]
    tbi: int
    hpd: int
    tbid: int
    e0pd: int


_LOW = _Fields("0", 0, 7, 14, ("4K", "64K", "16K", None), 37, 41, 51, 55)
_HIGH = _Fields("1", 16, 23, 30, (None, "16K", "4K", "64K"), 38, 42, 52, 56)


@dataclass(frozen=True)
class Features:
    """What a processor has; TCR_EL1's bits for what it has not are ignored.

    output_bits  how wide physical addresses are at most (PARange): PAMax
    granules     those that stage 1 has
    lpa2         those of 4K and 16K that TCR_EL1.DS gives 52 bits (FEAT_LPA2)
    lva          whether the 64K granule translates 52 bits (FEAT_LVA)
    ttst         whether TxSZ may be beyond 39 (FEAT_TTST)
    hafdbs       FEAT_HAFDBS: 0 without, 1 sets the access flag, 2 keeps the dirty state as well
    hpds         FEAT_HPDS
    pan          FEAT_PAN: 0 without, 3 with EPAN
    uao          FEAT_UAO
    e0pd         FEAT_E0PD
    tbid         TCR_EL1.TBIDx (FEAT_PAuth)

    Raises ValueError for what no processor has.
    """

    output_bits: int = LARGEST_OUTPUT
    granules: frozenset[str] = frozenset(GRANULES)
    lpa2: frozenset[str] = frozenset({"4K", "16K"})
    lva: bool = True
    ttst: bool = True
    hafdbs: int = 2
    hpds: bool = True
    pan: int = 3
    uao: bool = True
    e0pd: bool = True
    tbid: bool = True

    def __post_init__(self) -> None:
        if self.output_bits not in OUTPUT_BITS:
            known = ", ".join(map(str, OUTPUT_BITS))
            raise ValueError(f"physical addresses have {known} bits, not {self.output_bits}")
        for name, given, possible in (
            ("granules", self.granules, frozenset(GRANULES)),
            ("lpa2", self.lpa2, frozenset({"4K", "16K"}) & self.granules),
        ):
            if odd := given - possible:
                raise ValueError(f"{name} cannot have {', '.join(sorted(odd))}")

    @classmethod
    def of(cls, mmfr0: int, mmfr1: int, mmfr2: int, tbid: bool = True) -> Features:
        """What the registers ID_AA64MMFR0_EL1, ID_AA64MMFR1_EL1 and ID_AA64MMFR2_EL1 say.

        tbid  whether there is FEAT_PAuth, which other registers tell

        Raises ValueError for a reserved PARange.
        """
        parange = _id_field(mmfr0, 0)
        if parange > len(OUTPUT_BITS):
            raise ValueError(f"ID_AA64MMFR0_EL1 {mmfr0:#x} has the reserved PARange {parange}")
        tgran4, tgran64, tgran16 = (_id_field(mmfr0, low) for low in (28, 24, 20))
        there = {"4K": tgran4 != 15, "16K": tgran16 > 0, "64K": tgran64 != 15}
        wide = {"4K": tgran4 == 1, "16K": tgran16 >= 2}
        return cls(
            # Descriptors of 64 bits hold 52 bits of an address even where PARange says 56.
            output_bits=(*OUTPUT_BITS, LARGEST_OUTPUT)[parange],
            granules=frozenset(name for name, has in there.items() if has),
            lpa2=frozenset(name for name, has in wide.items() if has),
            lva=bool(_id_field(mmfr2, 16)),
            ttst=bool(_id_field(mmfr2, 28)),
            hafdbs=min(_id_field(mmfr1, 0), 2),
            hpds=bool(_id_field(mmfr1, 12)),
            pan=min(_id_field(mmfr1, 20), 3),
            uao=bool(_id_field(mmfr2, 4)),
            e0pd=bool(_id_field(mmfr2, 60)),
            tbid=tbid,
        )


@dataclass(frozen=True)
class Half:
    """What the registers say of one half of the addresses.

    granule       "4K", "16K" or "64K" (TGx)
    address_bits  those that are translated: 64 - TxSZ
    root          the physical address of its root table
    hpd           whether tables withhold no rights (HPDx)
    tbi           whether the highest byte of a pointer is ignored (TBIx)
    tbid          whether it counts all the same in a fetch (TBIDx)
    e0pd          whether EL0 has no access to this half (E0PDx)
    """

    granule: str
    address_bits: int
    root: int
    hpd: bool = False
    tbi: bool = False
    tbid: bool = False
    e0pd: bool = False


@dataclass(frozen=True)
class Cpu:
    """The state of a processor, with stage 1 of EL1&0 on.

    ttbr0, ttbr1, tcr, mair, sctlr  the registers TTBR0_EL1 and so on
    pan, uao  PSTATE.PAN and PSTATE.UAO
    features  what the processor has

    Raises ValueError for a state in which a half translates nothing, or that is the machine's to
    read:

    TxSZ out of bounds  below the least, all of the half faults with FEAT_LVA; without, and above
                        the greatest, it faults or the bound is taken (AArch64.S1TxSZFaults,
                        AArch64.S1Translate).  QEMU faults
    TGx                 an encoding that is reserved, or a granule that the processor lacks, stands
                        for a granule of its choice (AArch64.S1DecodeTG0).  QEMU reads TG0=3 as 4K
    IPS=7               is reserved.  QEMU takes it for one of the larger widths
    a root              that is not aligned as it must be (AArch64.S1TTBaseAddress)

    IPS beyond what the processor has is no fault: the lesser counts (AArch64.PhysicalAddressSize).
    A half that EPDx turns off may hold anything.
    """

    architecture: ClassVar[str] = "arm64"

    ttbr0: int
    ttbr1: int
    tcr: int
    mair: int = NORMAL
    sctlr: int = Sctlr.M
    pan: bool = False
    uao: bool = False
    features: Features = field(default_factory=Features)

    def __post_init__(self) -> None:
        for name in ("ttbr0", "ttbr1", "tcr", "mair", "sctlr"):
            value = getattr(self, name)
            if not 0 <= value < 1 << 64:
                raise ValueError(f"{name.upper()}_EL1 {value:#x} has more than 64 bits")
        if not self.sctlr & Sctlr.M:
            raise ValueError(f"paging is off: SCTLR_EL1 is {self.sctlr:#x}, M=0")
        if self.pan and not self.features.pan:
            raise ValueError("PSTATE.PAN is set on a processor without FEAT_PAN")
        if self.uao and not self.features.uao:
            raise ValueError("PSTATE.UAO is set on a processor without FEAT_UAO")
        if self.tcr >> 32 & 7 >= len(OUTPUT_BITS):
            raise ValueError(f"TCR_EL1 {self.tcr:#x} has the reserved IPS 7")
        _ = self.low, self.high  # which raise for a half that is none, and are kept

    @classmethod
    def of(
        cls,
        low: Half | None,
        high: Half | None,
        *,
        output_bits: int = 48,
        ds: bool = False,
        ha: bool = False,
        hd: bool = False,
        wxn: bool = False,
        epan: bool = False,
        aligns: bool = False,
        big_endian: bool = False,
        mair: int = NORMAL,
        pan: bool = False,
        uao: bool = False,
        features: Features | None = None,
    ) -> Cpu:
        """The state with these halves; one that is None is turned off (EPDx).

        output_bits  the width of physical addresses, which IPS says
        ds           whether descriptors of 4K and 16K hold addresses of 52 bits

        Raises ValueError for what registers cannot hold, and as the state itself.
        """
        if output_bits not in OUTPUT_BITS:
            known = ", ".join(map(str, OUTPUT_BITS))
            raise ValueError(f"IPS says {known} bits, not {output_bits}")
        tcr = OUTPUT_BITS.index(output_bits) << 32
        for bit, given in ((Tcr.DS, ds), (Tcr.HA, ha), (Tcr.HD, hd)):
            tcr |= bit if given else 0
        tcr |= _encoded(_LOW, low) | _encoded(_HIGH, high)
        sctlr = int(Sctlr.M)
        for flag, given in (
            (Sctlr.A, aligns),
            (Sctlr.WXN, wxn),
            (Sctlr.EPAN, epan),
            (Sctlr.EE, big_endian),
        ):
            sctlr |= flag if given else 0
        ttbr0, ttbr1 = (0 if half is None else _base_encoded(half.root) for half in (low, high))
        cpu = cls(ttbr0, ttbr1, tcr, mair, sctlr, pan, uao, features or Features())
        for number, asked, half in ((0, low, cpu.low), (1, high, cpu.high)):
            if asked and half and asked.root != half.root:
                raise ValueError(f"TTBR{number}_EL1 cannot hold a root at {asked.root:#x} here")
        return cpu

    @cached_property
    def low(self) -> Half | None:
        """The half from address 0 up, whose root is in TTBR0_EL1; None where EPD0 turns it off."""
        return self._half(_LOW, self.ttbr0)

    @cached_property
    def high(self) -> Half | None:
        """The half up to the last address, whose root is in TTBR1_EL1; None where EPD1 turns it
        off."""
        return self._half(_HIGH, self.ttbr1)

    @cached_property
    def formats(self) -> tuple[Format, ...]:
        """The formats of the tables of the halves that are on, each once, that of the lower half
        first."""
        halves = (half for half in (self.low, self.high) if half is not None)
        return tuple(dict.fromkeys(self.format_of(half) for half in halves))

    @property
    def format(self) -> Format:
        """The format of all tables.  Raises ValueError where both halves are turned off, and where
        each has its own, which `root.table.format` knows."""
        if len(self.formats) != 1:
            raise ValueError(f"TCR_EL1 {self.tcr:#x} has {len(self.formats)} formats of tables")
        return self.formats[0]

    @property
    def levels(self) -> int:
        """Levels of tables that a walk may use."""
        return max(len(format.levels) for format in self.formats)

    @property
    def base(self) -> Physical:
        """Where the register of the first half that is on leads: to its root's table."""
        half = self.low or self.high
        return Physical(half.root if half else 0)

    @property
    def parts(self) -> tuple[Cpu, ...]:
        """States that together translate what this one does, each with tables of one format: this
        one, or where the halves have two formats, one for each half."""
        if len(self.formats) < 2:
            return (self,)
        return tuple(replace(self, tcr=self.tcr | 1 << off.epd) for off in (_HIGH, _LOW))

    @cached_property
    def asid(self) -> int:
        """The identifier of the address space, which A1 says is TTBR1_EL1's or TTBR0_EL1's; of 8
        bits unless AS says that it has 16."""
        asid = (self.ttbr1 if self.tcr & Tcr.A1 else self.ttbr0) >> 48
        return asid if self.tcr & Tcr.AS else asid & 0xFF

    @cached_property
    def roots(self) -> tuple[Root, ...]:
        """Where walks begin: the roots of the halves that are on and whose root's address is not
        beyond the output size."""
        halves = ((self.low, False), (self.high, True))
        return tuple(
            Root(self._table(half), span_of(half, high))
            for half, high in halves
            if half is not None and not half.root >> self.output_bits(half)
        )

    @property
    def big_endian(self) -> bool:
        """Whether descriptors have their highest byte first."""
        return bool(self.sctlr & Sctlr.EE)

    @property
    def aligns(self) -> bool:
        """Whether every access to data must be aligned, in any memory (SCTLR_EL1.A)."""
        return bool(self.sctlr & Sctlr.A)

    @property
    def wxn(self) -> bool:
        """Whether nothing can be executed that can be written."""
        return bool(self.sctlr & Sctlr.WXN)

    @property
    def epan(self) -> bool:
        """Whether PAN keeps EL1 from what EL0 can only execute as well (FEAT_PAN3)."""
        return bool(self.sctlr & Sctlr.EPAN) and self.features.pan >= 3

    @property
    def sets_access_flag(self) -> bool:
        """Whether the processor sets the access flag, where it would fault otherwise."""
        return bool(self.tcr & Tcr.HA) and self.features.hafdbs >= 1

    @property
    def keeps_dirty_state(self) -> bool:
        """Whether the processor makes pages with DBM writable when they are written."""
        return self.sets_access_flag and bool(self.tcr & Tcr.HD) and self.features.hafdbs >= 2

    def is_wide(self, granule: str) -> bool:
        """Whether descriptors hold addresses of 52 bits."""
        if granule == "64K":
            return self.features.output_bits >= LARGEST_OUTPUT
        return bool(self.tcr & Tcr.DS) and granule in self.features.lpa2

    def output_bits(self, half: Half) -> int:
        """How wide physical addresses are in a half (AArch64.PhysicalAddressSize)."""
        widest = LARGEST_OUTPUT if self.is_wide(half.granule) else 48
        return min(OUTPUT_BITS[self.tcr >> 32 & 7], self.features.output_bits, widest)

    def format_of(self, half: Half) -> Format:
        """The format of a half's tables."""
        return stage1(
            half.granule,
            half.address_bits,
            self.output_bits(half),
            self.is_wide(half.granule),
            not half.hpd,
            self.keeps_dirty_state,
            self.big_endian,
        )

    def memory_type(self, leaf: int) -> int:
        """The byte of MAIR_EL1 that AttrIndx of a leaf chooses."""
        return self.mair >> 8 * (leaf >> 2 & 7) & 0xFF

    def _table(self, half: Half) -> Table:
        format = self.format_of(half)
        return Table(format, Physical(half.root), len(format.levels) - 1)

    def _half(self, fields: _Fields, ttbr: int) -> Half | None:
        """A half by its registers, checked."""
        tcr, number = self.tcr, fields.name
        if tcr >> fields.epd & 1:
            return None
        off = f"; EPD{number}=1 turns that half off"
        granule = fields.granules[tcr >> fields.tg & 3]
        if granule is None:
            raise ValueError(
                f"TCR_EL1 {tcr:#x} has the reserved TG{number} {tcr >> fields.tg & 3}{off}"
            )
        if granule not in self.features.granules:
            raise ValueError(
                f"TCR_EL1 {tcr:#x} has a granule of {granule} in TG{number}, which the processor"
                f" lacks{off}"
            )
        tsz = tcr >> fields.tsz & 63
        least, most = self._bounds(granule)
        bound = min(max(tsz, least), most)
        if tsz != bound:
            if bound == least and self.features.lva:
                why = "by which every access to that half faults"
            else:
                why = f"which faults or is taken for {bound}"
            raise ValueError(
                f"TCR_EL1 {tcr:#x} has T{number}SZ {tsz}, {why}: a granule of {granule} takes"
                f" {least} to {most} here{off}"
            )
        features = self.features
        return Half(
            granule=granule,
            address_bits=64 - tsz,
            root=self._base(f"TTBR{number}_EL1", ttbr, granule, 64 - tsz),
            hpd=features.hpds and bool(tcr >> fields.hpd & 1),
            tbi=bool(tcr >> fields.tbi & 1),
            tbid=features.tbid and bool(tcr >> fields.tbid & 1),
            e0pd=features.e0pd and bool(tcr >> fields.e0pd & 1),
        )

    def _bounds(self, granule: str) -> tuple[int, int]:
        """The least and the greatest TxSZ (AArch64.S1MinTxSZ, AArch64.MaxTxSZ)."""
        large = self.features.lva if granule == "64K" else self.is_wide(granule)
        most = (47 if granule == "64K" else 48) if self.features.ttst else 39
        return 12 if large else 16, most

    def _base(self, name: str, ttbr: int, granule: str, address_bits: int) -> int:
        """The root's address (AArch64.S1TTBaseAddress): bits 47:1, and of addresses of 52 bits
        51:48 in 5:2.  That is so with DS=1, and with 64K where IPS says 52 bits.

        QEMU takes bits 5:2 for it only where IPS says 52 bits, with DS=1 too.
        """
        page, stride = GRANULES[granule].page, GRANULES[granule].stride
        levels = -(-(address_bits - page) // stride)
        size = 8 << address_bits - page - stride * (levels - 1)
        wide = self.is_wide(granule)
        if granule == "64K":
            wide = wide and self.tcr >> 32 & 7 == OUTPUT_BITS.index(LARGEST_OUTPUT)
        low = ttbr & (bits(47, 6) if wide else bits(47, 1))
        alignment = max(size, 64) if wide else size
        if low & alignment - 1 or (wide and ttbr & 2):
            raise ValueError(
                f"{name} {ttbr:#x} is not aligned: its root table must be at a multiple of"
                f" {alignment:#x}"
            )
        return low | (ttbr >> 2 & 15) << 48 if wide else low


def _id_field(register: int, low: int) -> int:
    """The field of an ID register that begins at bit `low`: each has four bits."""
    return register >> low & 15


def is_high(address: int) -> bool:
    """Whether an address or a pointer is the upper half's: bit 55 says so (AArch64.GetVARange)."""
    return bool(address >> 55 & 1)


def half_for(cpu: Cpu, address: int) -> Half | None:
    """The half of an address or a pointer; None where it is turned off."""
    return cpu.high if is_high(address) else cpu.low


def span_of(half: Half, high: bool) -> Span:
    """The addresses of a half, as they are without a tag."""
    size = 1 << half.address_bits
    return Span.of((1 << 64) - size, size) if high else Span.of(0, size)


def untagged(cpu: Cpu, pointer: int, fetch: bool) -> int:
    """The address that a pointer means: where its highest byte is ignored (TBIx, in fetches without
    TBIDx), bit 55 stands there (AddrTop; "Address tagging")."""
    fields = _HIGH if is_high(pointer) else _LOW  # also those of a half that is turned off
    counts = fetch and cpu.features.tbid and cpu.tcr >> fields.tbid & 1
    if counts or not cpu.tcr >> fields.tbi & 1:
        return pointer
    top = bits(63, 56)
    return pointer | top if is_high(pointer) else pointer & ~top


def is_device(memory_type: int) -> bool:
    """Whether a byte of MAIR_EL1 says Device memory."""
    return not memory_type & 0xF0


def _encoded(fields: _Fields, half: Half | None) -> int:
    """What TCR_EL1 says of a half."""
    if half is None:
        return 1 << fields.epd
    if half.granule not in fields.granules:
        raise ValueError(f"a granule is 4K, 16K or 64K, not {half.granule}")
    if not 0 < half.address_bits < 64:
        raise ValueError(f"T{fields.name}SZ cannot say {half.address_bits} bits of an address")
    tcr = 64 - half.address_bits << fields.tsz | fields.granules.index(half.granule) << fields.tg
    for bit, given in (
        (fields.hpd, half.hpd),
        (fields.tbi, half.tbi),
        (fields.tbid, half.tbid),
        (fields.e0pd, half.e0pd),
    ):
        tcr |= given << bit
    return tcr


def _base_encoded(root: int) -> int:
    """What TTBRn_EL1 says of a root's address, as far as it has room for it."""
    return root & bits(47, 1) | (root >> 48 & 15) << 2
