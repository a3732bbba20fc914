"""The rules of arm64's stage 1 of EL1&0, written a second time: from the Arm ARM's pseudocode, over
bytes and numbers, with nothing of the library's, so that the library can be compared with them.

Each function is one of the pseudocode's or a field of a register, named in its docstring, and
spells bits and numbers out as the manual does, so that it can be checked with the manual beside it.
It is written to be read, not to be fast or short.

Source: Arm ARM, DDI 0487, shared pseudocode, as published.  Taken to be off: stage 2, FEAT_S1PIE,
FEAT_S1POE, FEAT_D128, FEAT_HAFT, memory tagging; NFDx plays no part.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

KINDS = ("load", "store", "fetch", "atomic", "LDTR", "STTR")
"""What an access is."""


@dataclass(frozen=True)
class Machine:
    """A processor and its memory, as the rules speak of them.

    ttbr0, ttbr1, tcr, mair, sctlr  registers of EL1
    pan, uao  of PSTATE
    pamax     AArch64.PAMax()
    lpa2      whether FEAT_LPA2 is there
    lva, hafdbs, hpds, pan_level, e0pd, pauth  other features; hafdbs and pan_level as their fields
    ram       the physical address at which memory begins
    """

    ttbr0: int
    ttbr1: int
    tcr: int
    mair: int
    sctlr: int
    pan: bool = False
    uao: bool = False
    pamax: int = 52
    lpa2: bool = True
    lva: bool = True
    hafdbs: int = 2
    hpds: bool = True
    pan_level: int = 3
    e0pd: bool = True
    pauth: bool = True
    ram: int = 0

    def __str__(self) -> str:
        registers = (f"{name}={getattr(self, name):#x}" for name in REGISTERS)
        on = (f"{name}={getattr(self, name)}" for name in ("pan", "uao", "pamax", "lpa2", "hafdbs"))
        return " ".join((*registers, *on))


REGISTERS = ("ttbr0", "ttbr1", "tcr", "mair", "sctlr")


@dataclass(frozen=True)
class Answer:
    """What an access comes to.

    esr       ESR_EL1, None where the access is made
    far       FAR_EL1
    why       which check failed
    level     of the manual, at which the walk ended; None where it did not begin
    physical  what the address translates to
    updated   the address and the new value of the descriptor that is changed, None where none is
    may_set_af  whether it is left to the processor to set AF in spite of the fault
    """

    esr: int | None
    far: int = 0
    why: str = ""
    level: int | None = None
    physical: int = 0
    updated: tuple[int, int] | None = None
    may_set_af: bool = False


def bit(value: int, number: int) -> bool:
    """Whether a bit is set."""
    return bool(value >> number & 1)


def field(value: int, high: int, low: int) -> int:
    """Bits high:low of a value, as a number."""
    return value >> low & (1 << high - low + 1) - 1


# ---- S1TTWParamsEL10: what the registers say of the half that an address is in ----


@dataclass(frozen=True)
class Params:
    """S1TTWParams, as far as it matters."""

    ttbr: int
    granulebits: int
    txsz: int
    tbi: bool
    tbid: bool
    epd: bool
    e0pd: bool
    hpd: bool
    ps: int
    ds: bool
    ha: bool
    hd: bool
    wxn: bool
    epan: bool


def params(machine: Machine, va: int) -> Params:
    """AArch64.S1TTWParamsEL10, with AArch64.GetVARange: bit 55 chooses."""
    return _params_of(machine, bit(va, 55))


@lru_cache(maxsize=4)  # many addresses are asked about in a row, of one machine
def _params_of(machine: Machine, upper: bool) -> Params:
    tcr = machine.tcr
    if upper:
        ttbr, txsz = machine.ttbr1, field(tcr, 21, 16)
        # AArch64.S1DecodeTG1
        granulebits = {0b10: 12, 0b01: 14, 0b11: 16}.get(field(tcr, 31, 30), 0)
        epd, tbi, hpd, tbid, e0pd = (bit(tcr, number) for number in (23, 38, 42, 52, 56))
    else:
        ttbr, txsz = machine.ttbr0, field(tcr, 5, 0)
        # AArch64.S1DecodeTG0
        granulebits = {0b00: 12, 0b10: 14, 0b01: 16}.get(field(tcr, 15, 14), 0)
        epd, tbi, hpd, tbid, e0pd = (bit(tcr, number) for number in (7, 37, 41, 51, 55))
    return Params(
        ttbr=ttbr,
        granulebits=granulebits,
        txsz=txsz,
        tbi=tbi,
        tbid=tbid and machine.pauth,
        epd=epd,
        e0pd=e0pd and machine.e0pd,
        hpd=hpd and machine.hpds,
        ps=field(tcr, 34, 32),
        ds=bit(tcr, 59) and machine.lpa2 and granulebits in (12, 14),
        ha=bit(tcr, 39) and machine.hafdbs >= 1,
        hd=bit(tcr, 40) and machine.hafdbs >= 2,
        wxn=bit(machine.sctlr, 19),
        epan=bit(machine.sctlr, 57) and machine.pan_level == 3,
    )


def addr_top(p: Params, kind: str) -> int:
    """AArch64.AddrTop."""
    if p.tbid and kind == "fetch":
        return 63
    return 55 if p.tbi else 63


def branch_addr(machine: Machine, va: int) -> int:
    """AArch64.BranchAddr: what PC becomes."""
    msbit = addr_top(params(machine, va), "fetch")
    if msbit == 63:
        return va
    low = field(va, 55, 0)
    return low | 0xFF << 56 if bit(va, 55) else low


def va_is_out_of_range(p: Params, va: int, kind: str) -> bool:
    """AArch64.VAIsOutOfRange."""
    iasize, top = 64 - p.txsz, addr_top(p, kind)
    return field(va, top, iasize) != (field(~0, top, iasize) if bit(va, 55) else 0)


def oa_size(machine: Machine, p: Params) -> int:
    """AArch64.PhysicalAddressSize."""
    ps = {0: 32, 1: 36, 2: 40, 3: 42, 4: 44, 5: 48, 6: 52}[p.ps]
    has_lpa = machine.pamax >= 52
    if has_lpa and (p.granulebits == 16 or machine.lpa2):
        return min(ps, 52, machine.pamax)
    return min(ps, 48, machine.pamax)


def start_level(p: Params) -> int:
    """AArch64.S1StartLevel: FINAL_LEVEL - (iasize-1 - granulebits) DIV stride."""
    iasize, stride = 64 - p.txsz, p.granulebits - 3
    return 3 - (iasize - 1 - p.granulebits) // stride


def tt_base_address(machine: Machine, p: Params) -> int:
    """AArch64.S1TTBaseAddress, without what it aligns down: bits that must be 0."""
    if p.ds or (p.granulebits == 16 and p.ps == 0b110 and machine.pamax >= 52):
        return field(p.ttbr, 5, 2) << 48 | field(p.ttbr, 47, 6) << 6
    return field(p.ttbr, 47, 1) << 1


# ---- descriptors ----


def block_desc_supported(machine: Machine, p: Params, level: int) -> bool:
    """AArch64.BlockDescSupported."""
    if p.granulebits == 12:
        return level in (1, 2) or (level == 0 and p.ds)
    if p.granulebits == 14:
        return level == 2 or (level == 1 and p.ds)
    return level == 2 or (level == 1 and machine.pamax >= 52)


def descriptor_type(machine: Machine, p: Params, descriptor: int, level: int) -> str:
    """AArch64.DecodeDescriptorType."""
    if not bit(descriptor, 0):
        return "invalid"
    if bit(descriptor, 1):
        return "leaf" if level == 3 else "table"
    return "leaf" if block_desc_supported(machine, p, level) else "invalid"


def base(machine: Machine, p: Params, descriptor: int, lowest: int) -> int:
    """AArch64.LeafBase and AArch64.NextTableBase: the address from bit `lowest` up."""
    found = field(descriptor, 47, lowest) << lowest
    if p.granulebits == 16 and machine.pamax >= 52:
        found |= field(descriptor, 15, 12) << 48
    elif p.ds:
        found |= field(descriptor, 49, 48) << 48 | field(descriptor, 9, 8) << 50
    return found


def is_device(machine: Machine, descriptor: int) -> bool:
    """MAIR_EL1: Attr<n> is 0b0000dd.. for Device memory; AttrIndx is descriptor bits 4:2."""
    return field(machine.mair >> 8 * field(descriptor, 4, 2), 7, 4) == 0


# ---- rights ----


@dataclass(frozen=True)
class Permissions:
    """What AArch64.S1ApplyTablePerms and AArch64.S1ApplyOutputPerms gather."""

    ap_table: int = 0
    uxn_table: bool = False
    pxn_table: bool = False

    def below(self, p: Params, descriptor: int) -> Permissions:
        """AArch64.S1ApplyTablePerms, unless HPDx."""
        if p.hpd:
            return self
        return Permissions(
            self.ap_table | field(descriptor, 62, 61),
            self.uxn_table or bit(descriptor, 60),
            self.pxn_table or bit(descriptor, 59),
        )


def permission_fault(
    machine: Machine, p: Params, tables: Permissions, leaf: int, kind: str, as_el0: bool
) -> str | None:
    """AArch64.S1CheckPermissions with AArch64.S1ComputePermissions: None, or "read" or "write",
    which is what the fault is said to be of."""
    ap = field(leaf, 7, 6)
    if p.ha and p.hd and bit(leaf, 51):
        ap &= 0b01  # AArch64.S1ApplyOutputPerms: the effective value of AP[2] is cleared
    # AArch64.S1DirectBasePermissions
    pr, pw, ur, uw = {
        0b00: (True, True, False, False),
        0b01: (True, True, True, True),
        0b10: (True, False, False, False),
        0b11: (True, False, True, False),
    }[ap]
    if tables.ap_table & 0b01:
        ur, uw = False, False
    if tables.ap_table & 0b10:
        pw, uw = False, False
    px = not (bit(leaf, 53) or tables.pxn_table or uw)
    ux = not (bit(leaf, 54) or tables.uxn_table)
    if machine.pan and kind != "fetch" and (ur or uw or (p.epan and ux)):
        pr, pw = False, False
    r, w, x = (ur, uw, ux) if as_el0 else (pr, pw, px)
    if p.wxn and w and x:
        x = False
    if kind == "fetch":
        return None if x else "read"
    if kind in ("load", "LDTR", "atomic") and not r:
        return "read"
    if kind in ("store", "STTR", "atomic") and not w:
        return "write"
    return None


# ---- the process ----


def syndrome(kind: str, el0: bool, fsc: int, of_write: bool) -> int:
    """ESR_EL1: EC 0b100000 or 0b100001 for an instruction abort from below or from EL1, 0b100100 or
    0b100101 for a data abort; IL; WnR is bit 6; the fault status code is bits 5:0."""
    ec = (0b100000 if kind == "fetch" else 0b100100) | (0 if el0 else 1)
    return ec << 26 | 1 << 25 | of_write << 6 | fsc


def fault_status(why: str, level: int) -> int:
    """The codes of "ISS encoding for an exception from a Data Abort"."""
    if why == "alignment":
        return 0b100001
    if level == -1:
        return {"address size": 0b101001, "translation": 0b101011, "external": 0b010011}[why]
    group = {
        "address size": 0b0000,
        "translation": 0b0001,
        "access flag": 0b0010,
        "permission": 0b0011,
        "external": 0b0101,
    }[why]
    return group << 2 | level


def access(
    machine: Machine,
    memory: bytes | bytearray,
    pointer: int,
    kind: str,
    el0: bool,
    aligned: bool = True,
) -> Answer:
    """AArch64.S1Translate with AArch64.S1Walk, of an access at EL0 or at EL1."""
    va = branch_addr(machine, pointer) if kind == "fetch" else pointer
    writes = kind in ("store", "STTR", "atomic")
    # AArch64.IsUnprivAccessPriv
    as_el0 = el0 or (kind in ("LDTR", "STTR") and not machine.uao)
    p = params(machine, va)

    def fault(why: str, level: int, ended: int | None, of: str = "", may: bool = False) -> Answer:
        # An atomic's WnR is 0 where a read of the location would have had the fault.
        of_write = writes and (kind != "atomic" or of == "write")
        esr = syndrome(kind, el0, fault_status(why, level), of_write)
        return Answer(esr, va, why, ended, may_set_af=may)

    # Mem and MemAtomic, before AArch64.TranslateAddress
    if bit(machine.sctlr, 1) and not aligned and kind != "fetch":
        return fault("alignment", 0, None)
    if p.epd:  # AArch64.S1Walk; all of these are reported alike
        return fault("translation", 0, None)
    if va_is_out_of_range(p, va, kind):
        return fault("translation", 0, None)
    if as_el0 and p.e0pd:
        return fault("translation", 0, None)
    iasize, stride = 64 - p.txsz, p.granulebits - 3
    level, oasize = start_level(p), oa_size(machine, p)
    table, top = tt_base_address(machine, p), iasize - 1
    if table >> oasize:
        return fault("address size", 0, None)
    tables = Permissions()
    while True:
        lsb = (3 - level) * stride + p.granulebits
        at = table + field(va, top, lsb) * 8
        if not machine.ram <= at < machine.ram + len(memory):
            return fault("external", level, level)
        order = "big" if bit(machine.sctlr, 25) else "little"
        offset = at - machine.ram
        descriptor = int.from_bytes(memory[offset : offset + 8], order)  # type: ignore[arg-type]
        what = descriptor_type(machine, p, descriptor, level)
        if what == "invalid":
            return fault("translation", level, level)
        if what == "leaf":
            break
        table = base(machine, p, descriptor, p.granulebits)
        if table >> oasize:
            return fault("address size", level, level)
        tables = tables.below(p, descriptor)
        level, top = level + 1, lsb - 1
    oa = base(machine, p, descriptor, lsb)
    if oa >> oasize:
        return fault("address size", level, level)
    if not bit(descriptor, 10) and not p.ha:
        return fault("access flag", level, level)
    may = not bit(descriptor, 10)  # Unpredictable_AFUPDATE
    if kind != "fetch" and not aligned and is_device(machine, descriptor):
        return fault("alignment", level, level, may=may)
    denied = permission_fault(machine, p, tables, descriptor, kind, as_el0)
    if denied:
        return fault("permission", level, level, denied, may)
    new = descriptor
    if p.ha:
        new |= 1 << 10
    if p.ha and p.hd and bit(descriptor, 51) and writes:
        new &= ~(1 << 7)
    updated = (at, new) if new != descriptor else None
    return Answer(None, va, level=level, physical=oa | field(va, lsb - 1, 0), updated=updated)
