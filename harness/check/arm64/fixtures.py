"""What the pytest plugin asks of arm64: of pages of 4K, in the lower half."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.check.arm64 import validate
from harness.check.arm64.cases import Stated
from harness.check.arm64.live import Live, check_root
from harness.check.arm64.quirks import not_run_on
from harness.check.arm64.space import GuestSpace
from harness.check.arm64.window import entries, open_roots
from harness.check.compare import Comparison, Disagreement
from harness.check.validation import in_place
from harness.machine.arm64.engines import ENGINES
from harness.machine.arm64.guest import Guest
from harness.paging.arm64.cpu import Cpu, is_high
from harness.paging.memory import BufferMemory, Words
from harness.paging.table import Root

__all__ = ["DEFAULT", "LEVELS", "check_root"]

GRANULE: Final = "4K"
LEVELS: Final[Mapping[int, str]] = {3: "3-level", 4: "4-level"}
DEFAULT: Final = tuple(ENGINES)


def new_guest(engine: str, ram_bytes: int, program: str | None) -> Guest:
    del engine  # there is but one
    return Guest(ram_bytes=ram_bytes, program=program)


def executor(guest: Guest) -> tuple[str, tuple[int, ...]]:
    return guest.engine.name, guest.version


def new_versions(guest: Guest) -> tuple[str, ...]:
    return not_run_on(guest.version)


def lacking(guest: Guest, levels: int) -> str | None:
    del levels  # both are of every processor that has the granule
    return None if GRANULE in guest.info.granules else f"{guest.engine.name} has no {GRANULE}"


def new_space(guest: Guest, levels: int) -> GuestSpace:
    return GuestSpace(guest, GRANULE, levels)


def new_live(guest: Guest, space: GuestSpace) -> Live:
    return Live(guest, space.memory, space.cpu)


def compared(
    guest: Guest, memory: BufferMemory, cpu: Cpu, asked: Words | None
) -> tuple[Comparison, ...]:
    check_root(guest, cpu)
    with in_place(guest, memory, cpu, entries, open_roots(cpu)) as built:
        return validate.compare_space(guest, built, asked)


def compare_one(guest: Guest, memory: BufferMemory, cpu: Cpu, found: Disagreement) -> Comparison:
    assert found.access is None or isinstance(found.access, Stated)
    with in_place(guest, memory, cpu, entries, open_roots(cpu)) as built:
        return validate.compare_one(guest, built, found.oracle, found.address, found.access)


def root(cpu: Cpu, root: Root) -> str:
    high = is_high(root.span.first)
    return f"TTBR{int(high)}_EL1 {cpu.ttbr1 if high else cpu.ttbr0:#x}"
