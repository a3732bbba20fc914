"""What the pytest plugin asks of RISC-V: of the processor of 64 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from harness.check.compare import Comparison
from harness.check.riscv.layouts import DESCRIBED
from harness.check.riscv.live import Live, check_root
from harness.check.riscv.quirks import not_run_on
from harness.check.riscv.space import GuestSpace
from harness.check.riscv.validate import compare_space
from harness.check.riscv.window import entries
from harness.check.validation import Built
from harness.check.window import window_in
from harness.machine.riscv.engines import ENGINES
from harness.machine.riscv.guest import Guest
from harness.paging.address import Span
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu

__all__ = ["DEFAULT", "EXPECTS", "LEVELS", "check_root"]

LEVELS: Final[Mapping[int, str]] = {n: mode for n, mode in DESCRIBED.modes.items() if n > 2}
EXPECTS: Final = False
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
    guest: Guest, memory: BufferMemory, cpu: Cpu, frames: Span, asked: Any
) -> tuple[Comparison, ...]:
    del asked
    check_root(guest, cpu)
    with window_in(guest, memory, cpu.roots, entries) as window:
        return compare_space(guest, Built(memory, cpu, frames, window))


def root(cpu: Cpu) -> str:
    return f"satp {cpu.satp:#x}"
