"""What questions about tables ask of x86."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from harness.inspect.architecture import Architecture, signed
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.translation import Index
from harness.inspect.x86 import cr3, decode, memory_type, mode
from harness.inspect.x86.likely import likely
from harness.inspect.x86.linux import read as read_linux
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.memory import Memory, WritableMemory
from harness.paging.x86 import formats
from harness.paging.x86.access import Reason, never_withheld
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, Mode, linear

if TYPE_CHECKING:
    from harness.check.layouts import Layout
    from harness.inspect.sources.ram import Held

# What few questions need is imported where it is asked for.


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


def _reason(cpu: Cpu, end: End) -> Reason | None:
    match end:
        case End.NO_ROOT:
            return Reason.NOT_CANONICAL if cpu.long else Reason.NO_PDPTE
        case End.MALFORMED:
            return Reason.RESERVED
        case End.ABSENT:
            return Reason.NOT_PRESENT
    return None


def _in_tables(cpu: Cpu) -> Cpu:
    """PDPTEs read at every walk, as QEMU's TCG reads them."""
    if cpu.mode is not Mode.PAE or cpu.pdptes_checked is not None:
        return cpu
    return replace(cpu, pdptes_checked=cpu.pdpte.reserved_mask)


def _doubt(cpu: Cpu, memory: Memory) -> str | None:
    from harness.inspect.x86.doubt import doubt

    return doubt(cpu, memory)


def _of_memory(held: Held, registers: Mapping[str, int], doubts: Sequence[str]) -> Snapshot:
    from harness.inspect.x86 import files

    return files.snapshot(held, registers, doubts)


def _build(
    layout: Layout, levels: int, memory: WritableMemory, registers: Mapping[str, int]
) -> Cpu:
    from harness.check.x86 import layouts
    from harness.inspect.x86.processor import cpu_with

    width = layout.control.maxphyaddr or Cpu.maxphyaddr
    cpu = layouts.build(layout, levels, memory, width, page1gb=True).cpu
    return cpu_with(cpu, registers, memory)


ASKED = Architecture(
    called="x86",
    manual="SDM volume 3A",
    registers=frozenset(field.name for field in fields(Cpu)),
    of_memory=_of_memory,
    root="cr3",
    read_root=cr3.read_raw,
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
    linux=read_linux,
    doubt=_doubt,
    never_withheld=never_withheld,
    memory_types=memory_type,
    in_tables=_in_tables,
    build=_build,
)
"""Intel's and AMD's processors."""
