"""What loading the control registers comes to, as far as paging is concerned."""

from __future__ import annotations

from dataclasses import replace

from harness.paging.address import Physical
from harness.paging.memory import Memory
from harness.paging.x86.access import Fault, Reason, Vector
from harness.paging.x86.cpu import Cpu, Cr0, Cr3, Cr4, Mode, reserved_in_pdpte
from harness.paging.x86.formats import LEGACY_ADDRESS_BITS, PDPTE_BYTES, PDPTES, bits

CD, NW = bits(30), bits(29)
RELOADING_CR0 = Cr0.PG | CD | NW
RELOADING_CR4 = Cr4.PAE | Cr4.PGE | Cr4.PSE | Cr4.SMEP
"""Bits of which a change loads the PDPTEs in PAE paging: PG, CD and NW; PAE, PGE, PSE and SMEP (SDM
4.4.1)."""

PCID = bits(11, 0)
"""Bits of CR3 that are one while CR4.PCIDE=1 (SDM 4.5.2)."""


def move(
    cpu: Cpu,
    memory: Memory,
    *,
    cr0: int | None = None,
    cr3: int | None = None,
    cr4: int | None = None,
) -> Cpu | Fault:
    """The CPU after one MOV to a control register by the supervisor, in long mode by 64-bit code;
    or the #GP(0) that leaves it as it was.

    CR4 is asked for what concerns paging alone: a bit of which the processor lacks the feature is
    refused as well, and the CPU knows of no features but `lam`.

    Raises ValueError where paging would be off, and where there is no memory behind PDPTEs.
    """
    new0, new4 = cpu.cr0 if cr0 is None else cr0, cpu.cr4 if cr4 is None else cr4
    reason = _invalid(cpu, new0, new4)
    if reason is not None:
        return _refused(reason)
    then = replace(cpu, cr0=new0, cr4=new4, cr3=cpu.cr3 if cr3 is None else cr3)
    loads = (cpu.cr0 ^ new0) & RELOADING_CR0 or (cpu.cr4 ^ new4) & RELOADING_CR4
    if cpu.mode is Mode.PAE and cr3 is None and not loads:
        return then
    return load(cpu, then, memory, writes_cr3=cr3 is not None)


def _invalid(now: Cpu, cr0: int, cr4: int) -> Reason | None:
    """Why CR0 and CR4 cannot have these values together, one of which is loaded (SDM 2.5)."""
    paging, protected = bool(cr0 & Cr0.PG), bool(cr0 & Cr0.PE)
    if cr0 >> 32 or (paging and not protected) or (now.long and not paging):
        return Reason.CR0_INVALID
    if cr0 & NW and not cr0 & CD:
        return Reason.CR0_INVALID
    if cr4 & reserved_in_cr4(now):
        return Reason.CR4_RESERVED
    if now.long and not cr4 & Cr4.PAE:
        return Reason.PAE_CLEARED
    if cr4 & ~now.cr4 & Cr4.PCIDE and (not now.long or now.cr3 & PCID):
        return Reason.PCIDE_SET
    if cr4 & Cr4.CET and not cr0 & Cr0.WP:
        return Reason.CET_WITHOUT_WP
    return None


def load(now: Cpu, then: Cpu, memory: Memory, *, writes_cr3: bool = True) -> Cpu | Fault:
    """The CPU after MOV CR3, or a MOV to CR0 or CR4 that changes how it pages (SDM 4.4.1 lists
    them), has taken it from one state to another: `then`, with the PDPTEs that PAE paging has
    read from memory; or the #GP(0) that leaves it as it was.

    writes_cr3  whether CR3 is loaded: then its reserved bits are checked, and bit 63 is not kept,
                which with CR4.PCIDE=1 only says that the TLB may keep what it has (4.10.4.1)

    Raises ValueError where there is no memory behind the PDPTEs.
    """
    if now.long and then.long and (now.cr4 ^ then.cr4) & Cr4.LA57:
        return _refused(Reason.LA57_CHANGED)
    if then.long and writes_cr3:
        if then.cr3 & reserved_in_cr3(then):
            return _refused(Reason.CR3_RESERVED)
        then = replace(then, cr3=then.cr3 & ~int(Cr3.KEEP_TLB))  # a number, no flags
    if then.mode is not Mode.PAE:
        return then
    pdptes = read_pdptes(memory, then.cr3)
    if any(reserved_in_pdpte(raw, then.maxphyaddr) for raw in pdptes):
        return _refused(Reason.PDPTE_RESERVED)
    return replace(then, pdptes=pdptes)


def reserved_in_cr3(cpu: Cpu) -> int:
    """The bits that must be zero when CR3 is loaded in long mode: 63:M, but for those that the
    CPU has a use for (SDM 4.5.2)."""
    used = (Cr3.LAM_U48 | Cr3.LAM_U57) if cpu.lam else 0
    used |= cpu.marked
    used |= Cr3.KEEP_TLB if cpu.cr4 & Cr4.PCIDE else 0
    return bits(63, cpu.maxphyaddr) & ~used


def reserved_in_cr4(cpu: Cpu) -> int:
    """The bits that must be zero when CR4 is loaded, whatever other features the CPU has: those of
    none (SDM 2.5), and that of LAM where it lacks that."""
    return bits(63, 33) | bits(31, 29) | 1 << 26 | 1 << 15 | (0 if cpu.lam else Cr4.LAM_SUP)


def read_pdptes(memory: Memory, cr3: int) -> tuple[int, ...]:
    """The PDPTEs in memory at bits 31:5 of CR3 (SDM 4.4.1, table 4-7).

    Raises ValueError where there is no memory.
    """
    size = PDPTES * PDPTE_BYTES
    table = cr3 & (1 << LEGACY_ADDRESS_BITS) - size
    found = []
    for address in range(table, table + size, PDPTE_BYTES):
        raw = memory.load(Physical(address), PDPTE_BYTES)
        if raw is None:
            raise ValueError(f"the PDPTEs at {table:#x} cannot be read: there is no memory")
        found.append(raw)
    return tuple(found)


def _refused(reason: Reason) -> Fault:
    return Fault(Vector.GP, 0, None, None, reason)
