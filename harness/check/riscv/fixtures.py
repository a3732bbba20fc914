"""What the pytest plugin asks of RISC-V: of the processor of 64 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.check.compare import Comparison, Disagreement
from harness.check.riscv import validate
from harness.check.riscv.cases import Stated
from harness.check.riscv.layouts import DESCRIBED
from harness.check.riscv.live import Live, check_root
from harness.check.riscv.quirks import not_run_on
from harness.check.riscv.space import GuestSpace
from harness.check.riscv.validate import compare_space
from harness.check.riscv.window import entries
from harness.check.validation import in_place
from harness.machine.riscv.engines import ENGINES
from harness.machine.riscv.guest import Guest
from harness.paging.memory import BufferMemory, Words
from harness.paging.riscv.cpu import Cpu
from harness.paging.table import Root

__all__ = ["DEFAULT", "LEVELS", "check_root"]

LEVELS: Final[Mapping[int, str]] = {n: mode for n, mode in DESCRIBED.modes.items() if n > 2}
DEFAULT: Final = tuple(ENGINES)


def new_guest(engine: str, ram_bytes: int, program: str | None) -> Guest:
    del engine  # there is but one
    return Guest(64, ram_bytes=ram_bytes, program=program)


def executor(guest: Guest) -> tuple[str, tuple[int, ...]]:
    return guest.engine.name, guest.version


def new_versions(guest: Guest) -> tuple[str, ...]:
    return not_run_on(guest.version)


def lacking(guest: Guest, levels: int) -> str | None:
    mode = LEVELS[levels]
    return None if mode in guest.info.modes else f"{guest.engine.name} has no {mode}"


def new_space(guest: Guest, levels: int) -> GuestSpace:
    return GuestSpace(guest, LEVELS[levels])


def new_live(guest: Guest, space: GuestSpace) -> Live:
    return Live(guest, space.memory, space.cpu)


def compared(
    guest: Guest, memory: BufferMemory, cpu: Cpu, asked: Words | None
) -> tuple[Comparison, ...]:
    check_root(guest, cpu)
    with in_place(guest, memory, cpu, entries) as built:
        return compare_space(guest, built, asked)


def compare_one(guest: Guest, memory: BufferMemory, cpu: Cpu, found: Disagreement) -> Comparison:
    assert found.access is None or isinstance(found.access, Stated)
    with in_place(guest, memory, cpu, entries) as built:
        return validate.compare_one(guest, built, found.address, found.access)


def root(cpu: Cpu, root: Root) -> str:
    del root  # there is but one register
    return f"satp {cpu.satp:#x}"
