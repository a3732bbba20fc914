"""What loading the control registers comes to, as far as paging is concerned."""

from __future__ import annotations

from dataclasses import replace

from harness.paging.address import Physical
from harness.paging.memory import Memory
from harness.paging.x86.access import Fault, Reason, Vector
from harness.paging.x86.cpu import Cpu, Cr3, Cr4, Mode, reserved_in_pdpte
from harness.paging.x86.formats import LEGACY_ADDRESS_BITS, PDPTE_BYTES, PDPTES, bits


def load(now: Cpu, then: Cpu, memory: Memory) -> Cpu | Fault:
    """The CPU after MOV CR3, or a MOV to CR0 or CR4 that changes how it pages (SDM 4.4.1 lists
    them), has taken it from one state to another: `then`, with the PDPTEs that PAE paging has
    read from memory; or the #GP(0) that leaves it as it was.

    Raises ValueError where there is no memory behind the PDPTEs.
    """
    if now.long and then.long and (now.cr4 ^ then.cr4) & Cr4.LA57:
        return _refused(Reason.LA57_CHANGED)
    if then.long and then.cr3 & reserved_in_cr3(then):
        return _refused(Reason.CR3_RESERVED)
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
    used |= 0 if cpu.mark is None else 1 << cpu.mark.bit
    used |= Cr3.KEEP_TLB if cpu.cr4 & Cr4.PCIDE else 0
    return bits(63, cpu.maxphyaddr) & ~used


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
