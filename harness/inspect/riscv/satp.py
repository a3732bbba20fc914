"""satp, bit by bit ("Supervisor Address Translation and Protection (satp) Register")."""

from __future__ import annotations

from harness.inspect.decode import Part, Register, Role
from harness.inspect.snapshot import QuestionError
from harness.paging.riscv.cpu import Cpu, Satp

SECTION = "satp register"


def read(cpu: Cpu, raw: int) -> Register:
    """What a value of satp says on a hart whose registers are as wide as this one's.

    Raises QuestionError for one that is wider, and one by which nothing is translated.
    """
    try:
        satp = Satp.of(raw, cpu.xlen)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    ppn, asid = (22, 9) if cpu.xlen == 32 else (44, 16)
    base, mode = satp.ppn << 12, satp.mode.value.capitalize()

    def part(high: int, low: int, name: str, role: Role, meaning: str) -> Part:
        mask = (1 << high + 1) - (1 << low)
        return Part(mask, name, (raw & mask) >> low, meaning, role, SECTION, "")

    parts = (
        part(cpu.xlen - 1, ppn + asid, "MODE", Role.KIND, mode),
        part(ppn + asid - 1, ppn, "ASID", Role.KEY, f"address space {satp.asid:#x} of the TLB"),
        part(ppn - 1, 0, "PPN", Role.ADDRESS, f"the root table is at {base:#x}"),
    )
    return Register("satp", raw, "the root table is", base, 0, parts)
