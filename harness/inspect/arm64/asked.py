"""What questions about tables ask of arm64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.inspect import data
from harness.inspect.architecture import Architecture, ways
from harness.inspect.arm64 import decode, memory_type, mode, registers
from harness.inspect.arm64.processor import NAMES, cpu_with
from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.remedy import Remedy
from harness.inspect.snapshot import QuestionError
from harness.inspect.tour import nowhere
from harness.paging.address import Span, Virtual
from harness.paging.arm64 import access
from harness.paging.arm64.access import Access, Fault, Kind, Reason
from harness.paging.arm64.bulk import judge
from harness.paging.arm64.cpu import Cpu, half_for, is_high, span_of, untagged
from harness.paging.arm64.formats import AF, AP_EL0, AP_READ_ONLY, GRANULES, PXN, UXN, VALID
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.entry import Absent
from harness.paging.memory import Mask, Memory, WritableMemory
from harness.paging.table import Slot

if TYPE_CHECKING:
    from harness.check.layouts import Layout


def _check_address(_: Cpu, address: Virtual) -> None:
    if address >> 64:
        raise QuestionError(f"there is no address {address:#x} of 64 bits")


def _pointed(cpu: Cpu, address: Virtual) -> Virtual:
    return Virtual(untagged(cpu, address, fetch=False))


def _part(cpu: Cpu, address: int) -> Cpu:
    """The state whose tables translate an address, or would if it were not turned off."""
    high = is_high(address)
    return next((one for one in cpu.parts if (one.high if high else one.low)), cpu.parts[0])


def _canonical(cpu: Cpu, address: int) -> tuple[bool, str]:
    high = is_high(address)
    half = half_for(cpu, address)
    where = f"bit 55 is {int(high)}, the {'upper' if high else 'lower'} half"
    if half is None:
        return False, f"{where}, which EPD{int(high)}=1 turns off, or whose root is not given"
    width = half.address_bits
    odd = [bit for bit in range(63, width - 1, -1) if address >> bit & 1 != high]
    if odd:
        return False, f"{where}, of {width} bits, and bit {odd[0]} differs from it"
    return True, f"{where}, of {width} bits, and bits 63:{width} equal it"


_REASONS: Final = {
    End.MALFORMED: Reason.ADDRESS_SIZE,
    End.ABSENT: Reason.INVALID,
    End.UNBACKED: Reason.NO_MEMORY,
}


def _reason(cpu: Cpu, address: Virtual, end: End) -> Reason | None:
    if end is not End.NO_ROOT:
        return _REASONS.get(end)
    found = access.unwalked(cpu, address, as_el0=False)
    return found if isinstance(found, Reason) else None


def _likely(
    cpu: Cpu,
    reading: Reading,
    read: LinuxReading | None = None,
    slot: Slot | None = None,
    memory: Memory | None = None,
    address: int | None = None,
    backed: Sequence[Span] | None = None,
) -> tuple[str, ...]:
    if not isinstance(reading.entry, Absent) or not reading.raw & VALID:
        return ()
    return tuple(part.reason for part in cpu.format.malformed(reading.raw, reading.level))


def _doubt(cpu: Cpu, memory: Memory) -> str | None:
    """A doubt about the roots all of which lead nowhere: that of the lower half may be empty, as
    that of a thread of the kernel is."""
    found = nowhere(cpu, memory, "the roots' tables", "descriptor")
    return found and f"TTBR0_EL1 and TTBR1_EL1 belong to this memory, though {found}"


def _accesses(kind: str | None, user: bool | None, implicit: bool) -> list[Access]:
    return [Access(*way) for way in ways("arm64", Kind, kind, user, implicit)]


def _using(cpu: Cpu, asked: Access) -> Cpu:
    """Tags of pointers to code count where TBIDx says so, and those of pointers to data do not."""
    if asked.kind is not Kind.FETCH:
        return cpu
    tcr = cpu.tcr
    for high in (False, True):
        tagged = 0x55 << 56 | high << 55
        if untagged(cpu, tagged, fetch=True) == tagged:
            tcr &= ~_TBI[high]
    return replace(cpu, tcr=tcr)


_TBI: Final = {False: 1 << 37, True: 1 << 38}


def _withheld(asked: Access, fault: Fault) -> str | None:
    if fault.reason is Reason.EXECUTE_DENIED:
        return "user execute" if asked.el0 else "supervisor execute"
    return {Reason.READ_DENIED: "user", Reason.WRITE_DENIED: "write"}.get(fault.reason)


def _rootless(address: Virtual, reason: Any) -> str | None:
    return f"ttbr{int(is_high(address))}" if reason is Reason.HALF_OFF else None


_OF_ADDRESS: Final = (
    Reason.UNALIGNED,
    Reason.OUT_OF_RANGE,
    Reason.EL0_KEPT_OUT,
    Reason.HALF_OFF,
    Reason.ROOT_SIZE,
)


def _remedies(cpu: Cpu, memory: Memory, address: Virtual, asked: Access) -> Sequence[Remedy]:
    from harness.inspect.arm64.remedy import remedies

    return remedies(cpu, memory, address, asked)


def _linux(cpu: Cpu, reading: Reading) -> LinuxReading:
    from harness.inspect.arm64 import linux

    return linux.read(cpu, reading)


def _build(layout: Layout, levels: int, memory: WritableMemory, given: Mapping[str, int]) -> Cpu:
    from harness.check.arm64.layouts import built

    return cpu_with(built(layout, levels, memory), given)


def _addresses(cpu: Cpu) -> Sequence[Span]:
    halves = ((cpu.low, False), (cpu.high, True))
    return [span_of(half, high) for half, high in halves if half is not None]


def _judged(cpu: Cpu, walks: Walks, asked: Access) -> tuple[Mask, Mask, Bytes]:
    n = len(walks.address)
    kind, el0 = np.full(n, asked.kind, np.uint8), np.full(n, asked.el0)
    aligned = None if asked.aligned else np.zeros(n, np.bool_)
    found = judge(cpu, walks, kind, el0, aligned=aligned)
    return found.reason == 0, np.zeros(n, np.bool_), found.reason


def _ineffective_with(cpu: Cpu) -> Sequence[tuple[int, int, str]]:
    """EL1 executes nothing that EL0 may write, and with WXN=1 no one what he may write himself
    (AArch64.S1DirectBasePermissions, AArch64.S1ComputePermissions)."""
    el0 = AP_EL0 | AP_READ_ONLY
    always = ((el0, PXN, "EL1 executes nothing that EL0 may write"),)
    why = "with WXN=1 nothing is executed that may be written"
    return (*always, (AP_READ_ONLY, PXN, why), (el0, UXN, why)) if cpu.wxn else always


_KASAN = 0xDFFF_8000_0000_0000
"""Where the shadow of address 0 is (KASAN_SHADOW_OFFSET of addresses of 48 bits)."""

ASKED = Architecture(
    name="arm64",
    called="arm64",
    manual="Arm ARM",
    registers=frozenset(NAMES),
    targets=frozenset(("aarch64",)),
    roots=("ttbr0", "ttbr1", "tcr", "mair"),
    read_root=registers.read,
    parts=lambda cpu: cpu.parts,
    part=_part,
    in_mode=mode.in_mode,
    assumed=mode.assumed,
    read=decode.read,
    check_address=_check_address,
    pointed=_pointed,
    masking="TBI: the tag is ignored",
    canonical=_canonical,
    reason=_reason,
    likely=_likely,
    allowed=access.Allowed,
    accesses=_accesses,
    outcome=access.outcome,
    pointer=lambda _, address: data.pointer(address, 64, _KASAN),
    withheld=_withheld,
    rootless=_rootless,
    of_address=lambda fault: fault.reason in _OF_ADDRESS,
    using=_using,
    remedies=_remedies,
    linux=_linux,
    doubt=_doubt,
    levels=frozenset(range(1, 6)),
    smallest_page=1 << GRANULES["4K"].page,
    addresses=_addresses,
    denied=lambda cpu, asked, granted, _: access.denied(cpu, asked, granted, cpu.pan, cpu.uao),
    judged=_judged,
    bars={Reason.PAN: "PSTATE.PAN=1"},
    marks=lambda cpu, _: 0 if cpu.sets_access_flag else AF,
    ineffective_with=_ineffective_with,
    memory_types=memory_type,
    mode_options=frozenset(("mair", "tcr")),
    build=_build,
)
"""Processors with VMSAv8-64 at EL1&0, stage 1."""
