"""What questions about tables ask of x86."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.inspect.architecture import Architecture, signed
from harness.inspect.snapshot import QuestionError
from harness.inspect.translation import Index
from harness.inspect.x86 import cr3, data, decode, memory_type, mode, unsure
from harness.inspect.x86.likely import likely
from harness.inspect.x86.linux import read as read_linux
from harness.inspect.x86.remedy import remedies
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.memory import Mask, Memory, WritableMemory
from harness.paging.x86 import access, formats
from harness.paging.x86.access import Access, Kind, Reason, denied, never_withheld, separated
from harness.paging.x86.bulk import ALLOWED, judge
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, Mode, linear

if TYPE_CHECKING:
    from harness.check.layouts import Layout


def _check_address(cpu: Cpu, address: Virtual) -> None:
    if not cpu.long and address not in LEGACY_SPAN:
        raise QuestionError(
            f"outside long mode there is no address {address:#x}: it is {LEGACY_SPAN}"
        )


def _canonical(cpu: Cpu, address: int) -> tuple[bool, str]:
    """Whether an address is canonical, and why (SDM volume 1, 3.3.7.1)."""
    if not cpu.long:
        return True, "every address of 32 bits is translated"
    return signed(address, formats.address_bits(cpu.levels))


def _above(cpu: Cpu, address: int) -> tuple[Index, int] | None:
    """In PAE paging, the PDPTE of an address, where it is a register."""
    if cpu.mode is not Mode.PAE or cpu.levels != formats.PDPTE_LEVEL:
        return None
    low = (LEGACY_SPAN.size // formats.PDPTES).bit_length() - 1
    high = formats.LEGACY_ADDRESS_BITS - 1
    index = Index(cpu.levels, "PDPTE", high, low, address >> low)
    return index, cpu.pdptes[index.value]


def _reason(cpu: Cpu, _: Virtual, end: End) -> Reason | None:
    match end:
        case End.NO_ROOT:
            return Reason.NOT_CANONICAL if cpu.long else Reason.NO_PDPTE
        case End.MALFORMED:
            return Reason.RESERVED
        case End.ABSENT:
            return Reason.NOT_PRESENT
    return None


def _accesses(kind: str | None, user: bool | None, implicit: bool) -> list[Access]:
    if kind is not None and kind.upper() not in Kind.__members__:
        raise QuestionError(f"x86 has no access of the kind {kind}")
    usual = [Kind.READ, Kind.WRITE, *([] if implicit else [Kind.FETCH])]
    kinds = usual if kind is None else [Kind[kind.upper()]]
    users = [not implicit, False] if user is None else [user]
    try:
        return [Access(one, by, implicit) for one in kinds for by in dict.fromkeys(users)]
    except ValueError as error:
        raise QuestionError(str(error)) from None


def _pointer(cpu: Cpu, address: Virtual) -> str | None:
    return data.pointer(address, 64 if cpu.long else formats.LEGACY_ADDRESS_BITS)


def _using(cpu: Cpu, access: Access) -> Cpu:
    """LAM masks the addresses of accesses to data alone."""
    return replace(cpu, lam=cpu.lam and access.kind is not Kind.FETCH)


_ELSEWHERE: Final = (
    (0x00, "zeros", "QEMU, under TCG and under KVM"),
    (0xFF, "ones", "Bochs, and most hardware"),
)
"""What memory that is not there reads as, and where.  QEMU: TCG reads zeros (unassigned_mem_read in
system/memory.c), seen with 7.2.22; KVM takes such an entry for one that is not present
(walk_addr_generic in arch/x86/kvm/mmu/paging_tmpl.h).  Bochs reads ones (readPhysicalPage in
memory/memory.cc), as a bus does on which nobody answers."""


def _in_tables(cpu: Cpu) -> Cpu:
    """PDPTEs read at every walk, as QEMU's TCG reads them."""
    if cpu.mode is not Mode.PAE or cpu.pdptes_checked is not None:
        return cpu
    return replace(cpu, pdptes_checked=cpu.pdpte.reserved_mask)


def _doubt(cpu: Cpu, memory: Memory) -> str | None:
    from harness.inspect.x86.doubt import doubt

    return doubt(cpu, memory)


def _build(
    layout: Layout, levels: int, memory: WritableMemory, registers: Mapping[str, int]
) -> Cpu:
    from harness.check.x86 import layouts
    from harness.inspect.x86.processor import cpu_with

    width = layout.control.maxphyaddr or Cpu.maxphyaddr
    cpu = layouts.build(layout, levels, memory, width, page1gb=True).cpu
    return cpu_with(cpu, registers, memory)


def _addresses(cpu: Cpu) -> Sequence[Span]:
    return [root.span for root in cpu.roots] if cpu.long else [LEGACY_SPAN]


def _left_open(cpu: Cpu, given: Mapping[str, int]) -> Iterator[str]:
    from harness.inspect.x86.processor import unseen_rights

    yield from unseen_rights(cpu, given, "a layout")


def _denied(cpu: Cpu, access: Access, granted: int, address: Virtual | None) -> Reason | None:
    apart = None if address is None else separated(cpu, address >> 63, access)
    return apart or denied(cpu, access, granted)


def _judged(cpu: Cpu, walks: Walks, access: Access) -> tuple[Mask, Mask, Bytes]:
    n = len(walks.address)
    kind, ac = np.full(n, access.kind, np.uint8), np.full(n, cpu.ac)
    found = judge(cpu, walks, kind, np.full(n, access.user), ac)
    return found.vector == ALLOWED, found.unbacked, found.reason


_WITHHELD: Final = {
    Reason.USER_DENIED: "user",
    Reason.WRITE_DENIED: "write",
    Reason.EXECUTE_DENIED: "execute",
}

ASKED = Architecture(
    name="x86",
    called="x86",
    manual="SDM volume 3A",
    registers=frozenset(field.name for field in fields(Cpu)),
    targets=frozenset(("x86_64", "i386")),
    roots=("cr3",),
    read_root=lambda cpu, _, raw: cr3.read_raw(cpu, raw),
    in_mode=mode.in_mode,
    assumed=mode.assumed,
    levels_of=decode.levels_of,
    read=decode.read,
    check_address=_check_address,
    pointed=linear,
    masking="LAM",
    canonical=_canonical,
    above=_above,
    reason=_reason,
    likely=likely,
    allowed=access.Allowed,
    accesses=_accesses,
    outcome=access.outcome,
    unknown=lambda outcome: isinstance(outcome, access.Unbacked),
    elsewhere=_ELSEWHERE,
    others=unsure.others,
    alike=unsure.alike,
    pointer=_pointer,
    withheld=lambda _, fault: _WITHHELD.get(fault.reason),
    of_address=lambda fault: fault.vector is not access.Vector.PF,
    using=_using,
    remedies=remedies,
    linux=read_linux,
    doubt=_doubt,
    never_withheld=never_withheld,
    levels=frozenset((2, 3, 4, 5)),  # in PAE paging 3 where PDPTEs are walked too
    smallest_page=1 << formats.PAGE_BITS,
    addresses=_addresses,
    denied=_denied,
    judged=_judged,
    bars={Reason.SMAP: "CR4.SMAP", Reason.SMEP: "CR4.SMEP"},
    marks=lambda cpu, rights: 0,
    memory_types=memory_type,
    in_tables=_in_tables,
    mode_options=mode.OPTIONS,
    build=_build,
    left_open=_left_open,
)
"""Intel's and AMD's processors."""
