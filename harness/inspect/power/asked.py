"""What questions about tables ask of POWER."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from harness.inspect import data
from harness.inspect.architecture import Architecture, Mixed, ways
from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.power import decode, memory_type, mode, paths, registers
from harness.inspect.power.processor import NAMES, QUADRANTS, cpu_with, left_open
from harness.inspect.remedy import Remedy
from harness.inspect.snapshot import QuestionError
from harness.inspect.tour import nowhere
from harness.paging.address import Span, Virtual
from harness.paging.bulk import Bytes, End, Walks
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Mask, Memory, Words, WritableMemory
from harness.paging.power import access
from harness.paging.power.access import GUARDED, Access, Fault, Kind, Reason, Unbacked
from harness.paging.power.bulk import judge
from harness.paging.power.cpu import PAGE_BITS, QUADRANT, UNTRANSLATED, Cpu
from harness.paging.power.formats import ATT, CHANGE, EXECUTE, PRIVILEGED, REFERENCE
from harness.paging.table import Slot

if TYPE_CHECKING:
    from harness.check.layouts import Layout


def _check_address(cpu: Cpu, address: Virtual) -> None:
    if address >> 64:
        raise QuestionError(f"there is no address {address:#x} of 64 bits")
    try:
        access.unwalked(cpu, address)
    except ValueError as error:
        raise QuestionError(str(error)) from None


def _canonical(cpu: Cpu, address: int) -> tuple[bool, str]:
    quadrant = (address & QUADRANT) >> 62
    where = f"bits 63:62 are {quadrant}, quadrant {quadrant}"
    if address & UNTRANSLATED:
        return False, f"{where}, and bits 61:52 are not 0"
    found = access.unwalked(cpu, address)
    if isinstance(found, Reason):
        return False, f"{where}, and {found.value}"
    return True, f"{where}, and bits 61:52 are 0"


_REASONS: Final = {End.MALFORMED: Reason.UNSUPPORTED, End.ABSENT: Reason.NOT_PRESENT}


def _reason(cpu: Cpu, address: Virtual, end: End) -> Reason | None:
    if end is not End.NO_ROOT:
        return _REASONS.get(end)
    found = access.unwalked(cpu, address)
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
    if not reading.raw or not isinstance(reading.entry, Absent | Malformed):
        return ()
    size, found = reading.entry_bytes, None
    if isinstance(reading.entry, Malformed):
        found = data.likely(reading.raw, size, "big")
    swapped = int.from_bytes(reading.raw.to_bytes(size, "big"), "little")
    other = cpu.format.decode(swapped, reading.level)
    if found is None and not isinstance(other, Absent | Malformed):
        found = f"its bytes in the other order, {swapped:#x}: entries have the highest byte first"
    return () if found is None else (found,)


def _doubt(cpu: Cpu, memory: Memory) -> str | None:
    found = nowhere(cpu, memory, "the roots' tables")
    return found and f"the process table entries belong to this memory, though {found}"


def _accesses(kind: str | None, user: bool | None, implicit: bool) -> list[Access]:
    return [Access(*way) for way in ways("POWER", Kind, kind, user, implicit)]


def _remedies(cpu: Cpu, memory: Memory, address: Virtual, asked: Access) -> Sequence[Remedy]:
    from harness.inspect.power.remedy import remedies

    return remedies(cpu, memory, address, asked)


def _linux(cpu: Cpu, reading: Reading) -> LinuxReading:
    from harness.inspect.power import linux

    return linux.read(cpu, reading)


_WITHHELD: Final = {
    Reason.PRIVILEGED: "user",
    Reason.READ_DENIED: "read",
    Reason.WRITE_DENIED: "write",
    Reason.EXECUTE_DENIED: "execute",
}

_OF_ADDRESS: Final = (Reason.SEGMENT, Reason.NO_PROCESS, Reason.BAD_TREE)
"""The rules by which no entry is read."""


def _withheld(_: Access, fault: Fault) -> str | None:
    return _WITHHELD.get(fault.reason)


def _rootless(address: Virtual, reason: Any) -> str | None:
    treeless = reason in (Reason.NO_PROCESS, Reason.BAD_TREE)
    return QUADRANTS[(address & QUADRANT) >> 62] if treeless else None


def _of_address(fault: Fault) -> bool:
    return fault.reason in _OF_ADDRESS


def _denied(cpu: Cpu, asked: Access, granted: int, _: Virtual | None) -> Reason | None:
    """In the rights of the format, the bits are where leaves have them, but that of the user is set
    where theirs is clear."""
    return access.denied(asked, granted ^ PRIVILEGED, cpu.amr, cpu.iamr)


def _judged(cpu: Cpu, walks: Walks, asked: Access) -> tuple[Mask, Mask, Bytes]:
    n = len(walks.address)
    found = judge(cpu, walks, np.full(n, asked.kind, np.uint8), np.full(n, asked.user))
    passes: Mask = (found.reason == 0) & (walks.end == End.LEAF)
    unknown: Mask = walks.end == End.UNBACKED
    return passes, unknown, found.reason


def _marks(cpu: Cpu, rights: Collection[str]) -> int:
    """R and C, of a processor that does not set them."""
    return 0 if cpu.sets_marks else REFERENCE | (CHANGE if "write" in rights else 0)


def _build(layout: Layout, levels: int, memory: WritableMemory, given: Mapping[str, int]) -> Cpu:
    from harness.check.power.layouts import built

    return cpu_with(built(layout, levels, memory, sets_marks=False), memory, given)


def _ineffective_in(raw: Words) -> Words:
    """Nothing is fetched from guarded storage."""
    return np.where(raw & np.uint64(ATT) == np.uint64(GUARDED), np.uint64(EXECUTE), np.uint64(0))


def _left_open(_: Cpu, given: Mapping[str, int]) -> Iterable[str]:
    return left_open(given)


_KASAN: Final = 0xA80E_0000_0000_0000
"""Where the shadow of address 0 is (KASAN_SHADOW_OFFSET of book3s64)."""

ASKED = Architecture(
    name="power",
    called="POWER",
    manual="Power ISA, Book III",
    registers=frozenset(NAMES),
    targets=frozenset(("ppc64",)),
    roots=("ptcr", "quadrant0", "quadrant3"),
    read_root=registers.read,
    in_mode=mode.in_mode,
    assumed=mode.assumed,
    read=decode.read,
    check_address=_check_address,
    canonical=_canonical,
    reason=_reason,
    likely=_likely,
    allowed=access.Allowed,
    accesses=_accesses,
    outcome=access.outcome,
    unknown=lambda outcome: isinstance(outcome, Unbacked),
    pointer=lambda _, address: data.pointer(address, 64, _KASAN),
    withheld=_withheld,
    rootless=_rootless,
    of_address=_of_address,
    remedies=_remedies,
    linux=_linux,
    doubt=_doubt,
    levels=frozenset((4,)),
    smallest_page=1 << min(PAGE_BITS),
    denied=_denied,
    judged=_judged,
    bars={Reason.KEY: "key 0 of AMR or IAMR"},
    marks=_marks,
    memory_types=memory_type,
    build=_build,
    left_open=_left_open,
    ineffective_in=(_ineffective_in, "nothing is fetched from guarded storage (ATT=2)"),
    byte_order="big",
    mixed=Mixed(paths.part, paths.parts, paths.split),
)
"""Processors with radix trees, in one stage."""
