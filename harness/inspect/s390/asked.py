"""What questions about tables ask of s390."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np

from harness.inspect import data
from harness.inspect.architecture import Architecture, ways
from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.s390 import asce, decode, linux, memory_type, mode
from harness.inspect.s390.processor import cpu_with
from harness.inspect.s390.remedy import remedies
from harness.inspect.snapshot import QuestionError
from harness.inspect.tour import lines
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Mask, Memory, WritableMemory
from harness.paging.s390 import access
from harness.paging.s390.access import Access, Kind, Reason, denied, is_low
from harness.paging.s390.bulk import ALLOWED, judge
from harness.paging.s390.cpu import Cpu
from harness.paging.table import Slot

if TYPE_CHECKING:
    from harness.check.layouts import Layout


def _check_address(_: Cpu, address: Virtual) -> None:
    if address >> 64:
        raise QuestionError(f"there is no address {address:#x} on s390: it has 64 bits")


def _canonical(cpu: Cpu, address: int) -> tuple[bool, str]:
    width = cpu.mode.address_bits
    if width == 64:
        return True, "every address is one of a region-first table's"
    if address >> width:
        return False, f"bits 63:{width} are not all 0, and a {cpu.mode.value} table serves no more"
    return True, f"bits 63:{width} are all 0"


_REASONS = {
    End.MALFORMED: Reason.RESERVED,
    End.ABSENT: Reason.NOT_PRESENT,
    End.UNBACKED: Reason.NO_MEMORY,
    End.OUTSIDE: Reason.OUTSIDE,
}


def _reason(cpu: Cpu, address: Virtual, end: End) -> Reason | None:
    if end is End.NO_ROOT:
        return Reason.ASCE_TYPE if address >> cpu.mode.address_bits else Reason.OUTSIDE
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
    found = data.likely(reading.raw, cpu.format.entry_bytes, "big")
    return () if found is None else (found,)


def _doubt(cpu: Cpu, memory: Memory) -> str | None:
    right = f"ASCE {cpu.asce:#x} belongs to this memory"
    (root,) = cpu.roots
    held = lines(memory, root.table, root.indices)
    if all(line.raw is None for line in held):
        return f"{right}, though there is no memory where the root's table would be"
    entries = [line.entry for line in held if line.entry is not None]
    if all(isinstance(entry, Absent | Malformed) for entry in entries):
        return f"{right}, though no entry of the root's table leads anywhere"
    return None


def _accesses(kind: str | None, user: bool | None, implicit: bool) -> list[Access]:
    """Of supervisor state unless it is said: translation does not ask for the state."""
    return [Access(*way) for way in ways("s390", Kind, kind, bool(user), implicit)]


def _build(
    layout: Layout, levels: int, memory: WritableMemory, registers: Mapping[str, int]
) -> Cpu:
    from harness.check.s390 import layouts
    from harness.machine.s390.processor import FACILITIES, MachineInfo

    info = MachineInfo(frozenset(FACILITIES.values()), 0)
    return cpu_with(layouts.build(layout, levels, info, memory), registers)


def _left_open(cpu: Cpu, given: Mapping[str, int]) -> Iterator[str]:
    if cpu.edat1:
        yield "the processor has the enhanced-DAT facilities, which QEMU's lacks"


def _denied(cpu: Cpu, access: Access, granted: int, address: Virtual | None) -> Reason | None:
    if address is not None and is_low(cpu, address, access.kind):
        return Reason.LOW_ADDRESS
    return denied(access.kind, cpu.format.rights_of(granted), cpu)


def _judged(cpu: Cpu, walks: Walks, access: Access) -> tuple[Mask, Mask, Bytes]:
    n = len(walks.address)
    kinds = np.full(n, access.kind, np.uint8)
    found = judge(cpu, walks, kinds, np.full(n, access.space, np.uint8))
    return found.code == ALLOWED, np.zeros(n, np.bool_), found.reason


_WITHHELD = {Reason.WRITE_DENIED: "write", Reason.EXECUTE_DENIED: "execute"}

_OF_ADDRESS = (Reason.ASCE_TYPE, Reason.LOW_ADDRESS)

ASKED = Architecture(
    name="s390",
    called="s390",
    manual="Principles of Operation",
    registers=frozenset(field.name for field in fields(Cpu)),
    targets=frozenset(("s390x",)),
    roots=("asce",),
    read_root=lambda cpu, _, raw: asce.read(cpu, raw),
    in_mode=mode.in_mode,
    told_mode=mode.told,
    assumed=mode.assumed,
    read=decode.read,
    check_address=_check_address,
    canonical=_canonical,
    reason=_reason,
    likely=_likely,
    allowed=access.Allowed,
    accesses=_accesses,
    outcome=access.outcome,
    pointer=lambda cpu, address: data.pointer(address, 64, 0, "big"),
    withheld=lambda _, fault: _WITHHELD.get(fault.reason),
    of_address=lambda fault: fault.reason in _OF_ADDRESS,
    remedies=remedies,
    linux=linux.read,
    doubt=_doubt,
    levels=frozenset((2, 3, 4, 5)),
    smallest_page=access.PAGE,
    denied=_denied,
    judged=_judged,
    bars={},
    marks=lambda _, __: 0,
    memory_types=memory_type,
    build=_build,
    left_open=_left_open,
    byte_order="big",
)
"""Processors with addresses of 64 bits, and the tables of one space."""
