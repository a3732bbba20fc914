"""The rules of RISC-V paging, written a second time: from the privileged specification, over bytes
and numbers, with nothing of the library's, so that the library can be compared with them.

Each function is a section or a table of the manual, named in its docstring, and spells bits and
numbers out as the manual does, so that it can be checked with the manual beside it.  It is written
to be read, not to be fast or short.

Source: the privileged specification 1.13, chapters "Machine-Level ISA" and "Supervisor-Level ISA",
with Svnapot, Svpbmt, Svadu, Svrsw60t59b and "Pointer Masking Extensions".  Taken to be off: the
hypervisor extension and shadow stacks.
"""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("load", "store", "fetch", "AMO")
"""What an access is.  An LR is a load, an SC a store."""


@dataclass(frozen=True)
class Machine:
    """A hart and its memory, as the rules speak of them.

    xlen         the width of its registers, 32 or 64
    satp, mstatus, menvcfg, senvcfg  registers; on RV32 menvcfgh is the upper half of menvcfg
    svnapot, svrsw60t59b  extensions that are there; Svpbmt is where menvcfg.PBMTE says so
    svade        whether Svade or Svadu is there; else the hart always updates A and D
    ram          the physical address at which memory begins
    """

    xlen: int
    satp: int
    mstatus: int = 0
    menvcfg: int = 0
    senvcfg: int = 0
    svnapot: bool = False
    svrsw60t59b: bool = False
    svade: bool = True
    ram: int = 0

    def __str__(self) -> str:
        on = [name for name in ("svnapot", "svrsw60t59b", "svade") if getattr(self, name)]
        registers = (f"{name}={getattr(self, name):#x}" for name in REGISTERS)
        return " ".join([f"RV{self.xlen}", *registers, *on])


REGISTERS = ("satp", "mstatus", "menvcfg", "senvcfg")


@dataclass(frozen=True)
class Answer:
    """What an access comes to.

    cause     of the exception, None where the access is made
    tval      the address that the exception reports
    step      of "Virtual Address Translation Process" at which it was raised; 0 is before them all
    level     i of that process when it ended, None where it did not begin
    physical  what the address translates to
    updated   the address and the new value of the entry in which A or D is set, None where none is
    """

    cause: int | None
    tval: int = 0
    step: int = 10
    level: int | None = None
    physical: int = 0
    updated: tuple[int, int] | None = None


def bit(value: int, number: int) -> bool:
    """Whether a bit is set."""
    return bool(value >> number & 1)


def field(value: int, high: int, low: int) -> int:
    """Bits high:low of a value, as a number."""
    return value >> low & (1 << high - low + 1) - 1


# ---- registers ----


def levels(machine: Machine) -> int:
    """satp, table "Encoding of satp MODE field": Sv32 has 2, Sv39 3, Sv48 4, Sv57 5."""
    if machine.xlen == 32:
        return 2
    return {8: 3, 9: 4, 10: 5}[field(machine.satp, 63, 60)]


def root_ppn(machine: Machine) -> int:
    """satp: PPN is bits 21:0 with SXLEN=32, 43:0 with SXLEN=64."""
    return field(machine.satp, 21, 0) if machine.xlen == 32 else field(machine.satp, 43, 0)


def sum_is_set(machine: Machine) -> bool:
    """mstatus.SUM is bit 18."""
    return bit(machine.mstatus, 18)


def mxr_is_set(machine: Machine) -> bool:
    """mstatus.MXR is bit 19."""
    return bit(machine.mstatus, 19)


def has_svpbmt(machine: Machine) -> bool:
    """menvcfg.PBMTE, bit 62: with it 0, the hart behaves as though Svpbmt were not implemented."""
    return bit(machine.menvcfg, 62)


def updates_marks(machine: Machine) -> bool:
    """menvcfg.ADUE, bit 61: with it 0, the hart behaves as though Svade were implemented."""
    return bit(machine.menvcfg, 61) or not machine.svade


def pmlen(machine: Machine, user: bool) -> int:
    """PMM, bits 33:32 of senvcfg for U-mode and of menvcfg for S-mode: 0 is no masking, 2 is
    XLEN-57, 3 is XLEN-48.  Pointer masking is for RV64 alone."""
    pmm = field(machine.senvcfg if user else machine.menvcfg, 33, 32)
    return {0: 0, 2: 64 - 57, 3: 64 - 48}[pmm]


def effective_privilege(machine: Machine, privilege: str, kind: str) -> str:
    """Memory Privilege in mstatus Register: with MPRV, bit 17, loads and stores are made as
    though the mode were MPP, bits 12:11; fetches are not affected."""
    if kind == "fetch" or not bit(machine.mstatus, 17):
        return privilege
    return {0: "U", 1: "S", 3: "M"}[field(machine.mstatus, 12, 11)]


# ---- addresses ----


def without_tag(machine: Machine, pointer: int, kind: str, user: bool) -> int:
    """Pointer Masking Extensions: the upper PMLEN bits are replaced by the sign extension of the
    PMLEN+1st, in explicit accesses to data, unless MXR is in effect."""
    n = pmlen(machine, user)
    if n == 0 or kind == "fetch" or mxr_is_set(machine):
        return pointer
    if bit(pointer, 64 - n - 1):
        return field(pointer, 63 - n, 0) | (1 << 64) - (1 << 64 - n)
    return field(pointer, 63 - n, 0)


def is_canonical(machine: Machine, va: int) -> bool:
    """Sv39: bits 63-39 all equal to bit 38; Sv48: 63-48 to 47; Sv57: 63-57 to 56.  Addresses of
    Sv32 have 32 bits."""
    if machine.xlen == 32:
        return True
    highest = 12 + 9 * levels(machine) - 1
    return len({bit(va, number) for number in range(highest, 64)}) == 1


# ---- entries ----


def is_reserved(machine: Machine, pte: int, i: int) -> bool:
    """Step 3: whether any bits or encodings that are reserved are set in a valid entry.

    "Encoding of PTE R/W/X fields": W without R.  "For non-leaf PTEs, the D, A, and U bits are
    reserved".  Of RV64 alone: bit 63 without Svnapot, 62-61 without Svpbmt, 60-54 always, but 60-59
    not with Svrsw60t59b; PBMT in a pointer, and 3 in a leaf; N in a pointer ("Page table entry
    encodings when pte.N=1": all of i >= 1 is reserved, and of i = 0 all but ppn[0] = x xxxx 1000).
    """
    r, w, x = bit(pte, 1), bit(pte, 2), bit(pte, 3)
    leaf = r or x
    if w and not r:
        return True
    if not leaf and (bit(pte, 4) or bit(pte, 6) or bit(pte, 7)):
        return True
    if machine.xlen == 32:
        return False
    n, pbmt = bit(pte, 63), field(pte, 62, 61)
    if field(pte, 58, 54) != 0:
        return True
    if field(pte, 60, 59) != 0 and not machine.svrsw60t59b:
        return True
    if pbmt != 0 and not (has_svpbmt(machine) and leaf):
        return True
    if pbmt == 3:
        return True
    if n and not (machine.svnapot and leaf and i == 0):
        return True
    return n and field(pte, 13, 10) != 0b1000


def page_number(machine: Machine, pte: int, va: int) -> int:
    """Of a leaf: PPN.  Svnapot: with N, implicit reads return a copy of the entry in which
    ppn[0][3:0] is replaced by vpn[0][3:0]."""
    if machine.xlen == 32:
        return field(pte, 31, 10)
    if bit(pte, 63):
        return field(pte, 53, 14) * 16 + field(va, 15, 12)
    return field(pte, 53, 10)


def page_fault(kind: str) -> int:
    """Exception codes: instruction page fault 12, load 13, store/AMO 15."""
    return {"fetch": 12, "load": 13, "store": 15, "AMO": 15}[kind]


def access_fault(kind: str) -> int:
    """Exception codes: instruction access fault 1, load 5, store/AMO 7."""
    return {"fetch": 1, "load": 5, "store": 7, "AMO": 7}[kind]


def u_bit_allows(machine: Machine, pte: int, kind: str, user: bool) -> bool:
    """Step 6: "U-mode software may only access the page when U=1"; S-mode may with SUM, but never
    execute there."""
    if user:
        return bit(pte, 4)
    if bit(pte, 4):
        return sum_is_set(machine) and kind != "fetch"
    return True


def rwx_bits_allow(machine: Machine, pte: int, kind: str) -> bool:
    """Step 8: a load needs R=1, or with MXR X=1; a store or an AMO W=1; a fetch X=1."""
    if kind == "fetch":
        return bit(pte, 3)
    if kind == "load":
        return bit(pte, 1) or (mxr_is_set(machine) and bit(pte, 3))
    return bit(pte, 2)


# ---- the process ----


def access(
    machine: Machine, memory: bytes | bytearray, pointer: int, kind: str, user: bool
) -> Answer:
    """Virtual Address Translation Process, step by step, of an access of U-mode or of S-mode."""
    pagesize, ptesize = 4096, 4 if machine.xlen == 32 else 8
    vpn_bits = 10 if machine.xlen == 32 else 9
    va = without_tag(machine, pointer, kind, user)
    stopped = page_fault(kind)
    if not is_canonical(machine, va):
        return Answer(stopped, va, 0)
    # 1.
    a, i = root_ppn(machine) * pagesize, levels(machine) - 1
    while True:
        # 2.
        vpn = field(va, 12 + vpn_bits * (i + 1) - 1, 12 + vpn_bits * i)
        at = a + vpn * ptesize
        if not machine.ram <= at < machine.ram + len(memory):
            return Answer(access_fault(kind), va, 2, i)
        offset = at - machine.ram
        pte = int.from_bytes(memory[offset : offset + ptesize], "little")
        # 3.
        if not bit(pte, 0) or is_reserved(machine, pte, i):
            return Answer(stopped, va, 3, i)
        # 4.
        if bit(pte, 1) or bit(pte, 3):
            break
        if i == 0:
            return Answer(stopped, va, 4, i)
        a, i = field(pte, 31 if machine.xlen == 32 else 53, 10) * pagesize, i - 1
    ppn = page_number(machine, pte, va)
    # 5.
    if ppn % 2 ** (vpn_bits * i) != 0:
        return Answer(stopped, va, 5, i)
    # 6.
    if not u_bit_allows(machine, pte, kind, user):
        return Answer(stopped, va, 6, i)
    # 7. is about shadow stacks.
    # 8.
    if not rwx_bits_allow(machine, pte, kind):
        return Answer(stopped, va, 8, i)
    # 9.
    stores = kind in ("store", "AMO")
    updated = None
    if not bit(pte, 6) or (stores and not bit(pte, 7)):
        if not updates_marks(machine):
            return Answer(stopped, va, 9, i)
        updated = (at, pte | 1 << 6 | stores << 7)
    # 10.
    pa = ppn * pagesize + va % (pagesize * 2 ** (vpn_bits * i))
    return Answer(None, level=i, physical=pa, updated=updated)
