"""The guest's processor: what it is, and the state that a batch asks it to take.

Registers and fields are those of the Power ISA 3.0, Book III.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.machine.errors import Misuse

PAGE: Final = 4096


@dataclass(frozen=True)
class State:
    """What a batch runs under, as hypervisor.

    user    first doubleword of the process table entry of the process in PIDR; None for a process
            for which the table has none
    kernel  the same of process 0
    amr, iamr  the registers
    window  the effective address of a page that leads to the stub's `user` section, and that may be
            executed in problem state; None where no job accesses data in it
    """

    user: int | None
    kernel: int = 0
    amr: int = 0
    iamr: int = 0
    window: int | None = None

    @property
    def word_bytes(self) -> int:
        """The size of an entry."""
        return 8


@dataclass(frozen=True)
class MachineInfo:
    """The guest's processor, by its own registers.

    pvr        PVR
    amr, iamr  the bits of AMR and of IAMR that it keeps
    sets_marks whether it sets R and C itself; else what needs one set fails
    """

    pvr: int
    amr: int
    iamr: int
    sets_marks: bool


def check_state(state: State, info: MachineInfo) -> None:
    """Raise `Misuse` for a state that this processor cannot take."""
    for reason in _refusals(state, info):
        raise Misuse(f"{reason}: {state}")


def _refusals(state: State, info: MachineInfo) -> Iterator[str]:
    for name in ("user", "kernel", "amr", "iamr", "window"):
        value = getattr(state, name)
        if value is not None and not 0 <= value < 1 << 64:
            yield f"{name} has 64 bits"
    for name, kept in (("amr", info.amr), ("iamr", info.iamr)):
        if extra := getattr(state, name) & ~kept:
            yield f"{name.upper()} has bits that the processor does not keep, {extra:#x}"
    if state.window is not None and state.window % PAGE:
        yield f"the window is at {state.window:#x}, which is no page's address"
