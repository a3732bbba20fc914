"""What the pytest plugin asks of x86."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.check.compare import Comparison, Disagreement
from harness.check.x86 import validate, window
from harness.check.x86.cases import AC
from harness.check.x86.live import Live
from harness.check.x86.quirks import not_run_on
from harness.check.x86.space import GuestSpace
from harness.check.x86.validate import compare_space
from harness.machine.x86.engines import executor
from harness.machine.x86.guest import Guest
from harness.machine.x86.registry import DEFAULT
from harness.paging.memory import BufferMemory, Words
from harness.paging.table import Root
from harness.paging.x86.cpu import Cpu

__all__ = ["DEFAULT", "LEVELS", "executor"]

LEVELS: Final[Mapping[int, str]] = {4: "4-level", 5: "5-level"}


def new_guest(engine: str, ram_bytes: int, program: str | None) -> Guest:
    return Guest(engine, ram_bytes=ram_bytes, program=program)


def new_versions(guest: Guest) -> tuple[str, ...]:
    return not_run_on(*executor(guest), guest.version)


def lacking(guest: Guest, levels: int) -> str | None:
    if levels == max(LEVELS) and not guest.info.has("la57"):
        return f"{guest.engine.name} has a processor without LA57, so no five levels"
    return None


def new_space(guest: Guest, levels: int) -> GuestSpace:
    return GuestSpace(guest, levels)


def new_live(guest: Guest, space: GuestSpace) -> Live:
    return Live(guest, space.memory, space.cpu)


def check_root(guest: Guest, cpu: Cpu) -> None:
    window.check_root(guest.free, cpu)


def compared(
    guest: Guest, memory: BufferMemory, cpu: Cpu, asked: Words | None
) -> tuple[Comparison, ...]:
    return compare_space(guest, memory, cpu, places=asked)


def compare_one(guest: Guest, memory: BufferMemory, cpu: Cpu, found: Disagreement) -> Comparison:
    question = found.oracle, found.address, found.access, found.flags == AC
    return validate.compare_one(guest, memory, cpu, *question)


def root(cpu: Cpu, root: Root) -> str:
    del root  # there is but one register
    return f"CR3 {cpu.cr3:#x}"
