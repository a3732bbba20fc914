"""What questions about tables ask of RISC-V."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.inspect import data
from harness.inspect.architecture import Architecture, signed, ways
from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.riscv import decode, linux, memory_type, mode, satp
from harness.inspect.riscv.processor import cpu_with
from harness.inspect.riscv.remedy import remedies
from harness.inspect.snapshot import QuestionError
from harness.inspect.tour import nowhere
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.entry import Malformed
from harness.paging.memory import Mask, Memory, WritableMemory
from harness.paging.riscv import access
from harness.paging.riscv.access import Access, Kind, Reason, denied
from harness.paging.riscv.bulk import ALLOWED, judge
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, transformed
from harness.paging.riscv.formats import PAGE_BITS, A, D
from harness.paging.table import Slot

if TYPE_CHECKING:
    from harness.check.layouts import Layout

PHYSICAL_BITS = {32: 34, 64: 56}
"""The width of physical addresses, by that of registers."""


def _check_address(cpu: Cpu, address: Virtual) -> None:
    if address >> cpu.xlen:
        raise QuestionError(f"there is no address {address:#x} on a hart of {cpu.xlen} bits")


def _pointed(cpu: Cpu, address: Virtual) -> Virtual:
    """The address that data accesses of S-mode use."""
    return Virtual(transformed(cpu, address, user=False))


def _canonical(cpu: Cpu, address: int) -> tuple[bool, str]:
    if cpu.mode is Mode.SV32:
        return True, "every address of 32 bits is translated"
    return signed(address, cpu.mode.address_bits)


_REASONS = {
    End.NO_ROOT: Reason.NOT_CANONICAL,
    End.MALFORMED: Reason.RESERVED,
    End.ABSENT: Reason.NOT_PRESENT,
    End.UNBACKED: Reason.NO_MEMORY,
}


def _reason(_: Cpu, __: Virtual, end: End) -> Reason | None:
    return _REASONS.get(end)


def _likely(
    cpu: Cpu,
    reading: Reading,
    read: LinuxReading | None = None,
    slot: Slot | None = None,
    memory: Memory | None = None,
    address: int | None = None,
    backed: Sequence[Span] | None = None,
) -> tuple[str, ...]:
    if not isinstance(reading.entry, Malformed):
        return ()
    found = data.likely(reading.raw, cpu.format.entry_bytes, "little")
    return () if found is None else (found,)


_KASAN = {64: 0xDFFF_FFFF_0000_0000, 32: 0}
"""Where the shadow of address 0 is (KASAN_SHADOW_OFFSET, which RV32 has nowhere fixed), by the
width of registers."""


def _pointer(cpu: Cpu, address: Virtual) -> str | None:
    return data.pointer(address, cpu.xlen, _KASAN[cpu.xlen])


def _doubt(cpu: Cpu, memory: Memory) -> str | None:
    found = nowhere(cpu, memory, "the root's table")
    return found and f"satp {cpu.satp:#x} belongs to this memory, though {found}"


def _accesses(kind: str | None, user: bool | None, implicit: bool) -> list[Access]:
    return [Access(*way) for way in ways("RISC-V", Kind, kind, user, implicit)]


def _using(cpu: Cpu, access: Access) -> Cpu:
    """Pointers to data are masked by the mode that uses them, and those to code are not."""
    pmm = cpu.senvcfg & Envcfg.PMM if access.user else cpu.menvcfg & Envcfg.PMM
    masked = 0 if access.kind is Kind.FETCH else int(pmm)
    return replace(cpu, menvcfg=cpu.menvcfg & ~Envcfg.PMM | masked)


def _build(
    layout: Layout, levels: int, memory: WritableMemory, registers: Mapping[str, int]
) -> Cpu:
    from harness.check import layouts

    layouts.check_levels(layout, "riscv", levels)
    tables, _ = layouts.divided(layout)
    named = Mode(layout.mode(levels))
    wide = named is not Mode.SV32
    cpu = Cpu.in_mode(named, tables.first, pbmte=wide, svnapot=wide, adue=True)
    layouts.construct(layout, cpu.roots, PHYSICAL_BITS[cpu.xlen], memory)
    return cpu_with(cpu, registers)


def _left_open(cpu: Cpu, given: Mapping[str, int]) -> Iterator[str]:
    if "mstatus" not in given:
        yield "mstatus.SUM=0 and MXR=0 (--mstatus)"
    if "menvcfg" not in given:
        sets = "the hart sets A and D" if cpu.sets_marks else "the hart sets neither A nor D"
        yield f"menvcfg={cpu.menvcfg:#x}, by which {sets} (--menvcfg)"


def _denied(cpu: Cpu, access: Access, granted: int, _: Virtual | None) -> Reason | None:
    """In the rights of the format, the bits are where leaves have them."""
    return denied(access, granted, cpu.sum, cpu.mxr)


def _judged(cpu: Cpu, walks: Walks, access: Access) -> tuple[Mask, Mask, Bytes]:
    n = len(walks.address)
    found = judge(cpu, walks, np.full(n, access.kind, np.uint8), np.full(n, access.user))
    return found.cause == ALLOWED, np.zeros(n, np.bool_), found.reason


def _marks(cpu: Cpu, rights: Collection[str]) -> int:
    """A and D, of a hart that does not set them (Svade)."""
    return 0 if cpu.sets_marks else A | (D if "write" in rights else 0)


_WITHHELD = {
    Reason.USER_DENIED: "user",
    Reason.READ_DENIED: "read",
    Reason.WRITE_DENIED: "write",
    Reason.EXECUTE_DENIED: "execute",
}

ASKED = Architecture(
    name="riscv",
    called="RISC-V",
    manual="privileged spec",
    registers=frozenset(field.name for field in fields(Cpu)),
    targets=frozenset(("riscv64", "riscv32")),
    roots=("satp",),
    read_root=lambda cpu, _, raw: satp.read(cpu, raw),
    in_mode=mode.in_mode,
    told_mode=mode.told,
    assumed=mode.assumed,
    read=decode.read,
    check_address=_check_address,
    pointed=_pointed,
    masking="pointer masking, in S-mode",
    canonical=_canonical,
    reason=_reason,
    likely=_likely,
    allowed=access.Allowed,
    accesses=_accesses,
    outcome=access.outcome,
    pointer=_pointer,
    withheld=lambda _, fault: _WITHHELD.get(fault.reason),
    of_address=lambda fault: fault.reason is Reason.NOT_CANONICAL,
    using=_using,
    remedies=remedies,
    linux=linux.read,
    doubt=_doubt,
    levels=frozenset((2, 3, 4, 5)),
    smallest_page=1 << PAGE_BITS,
    denied=_denied,
    judged=_judged,
    bars={Reason.SUM: "mstatus.SUM=0"},
    marks=_marks,
    memory_types=memory_type,
    build=_build,
    left_open=_left_open,
)
"""Harts with Sv32, Sv39, Sv48 and Sv57."""
