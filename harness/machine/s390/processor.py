"""The guest's processor: what it is, and the state that a batch asks it to take.

Control registers and facilities are those of the z/Architecture Principles of Operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from harness.machine.errors import Misuse

RAM_BASE: Final = 0

CR0: Final = {"IEP": 1 << 20, "EDAT": 1 << 23, "LOW_ADDRESS_PROTECTION": 1 << 28}
"""The bits of control register 0 that a state may set."""

FACILITIES: Final = {"edat1": 8, "edat2": 78, "iep": 130}
"""Their bits in what STFLE stores ("Facility Indications")."""

REAL_SPACE: Final = 1 << 5
ORIGIN: Final = ~0xFFF
QUARTER: Final = 4096
"""Bytes of a quarter of the table that an ASCE designates, of which TL + 1 are there."""


@dataclass(frozen=True)
class State:
    """What a batch runs under.

    asce  of the secondary space, whose data is accessed, and of the home space, whose code is
          fetched
    cr0   bits of `CR0`
    """

    asce: int
    cr0: int = 0

    @property
    def word_bytes(self) -> int:
        """The size of an entry."""
        return 8

    @property
    def root(self) -> int:
        """The absolute address of the table that the ASCE designates."""
        return self.asce & ORIGIN


@dataclass(frozen=True)
class MachineInfo:
    """The guest's processor.

    facilities  those that it says it has, by their bits
    cpu         what STIDP stores
    """

    facilities: frozenset[int]
    cpu: int

    def has(self, name: str) -> bool:
        """Whether it has one of `FACILITIES`."""
        return FACILITIES[name] in self.facilities


def check_state(state: State, ram: range) -> None:
    """Raise `Misuse` for a state that no processor with this RAM can take."""
    for reason in _refusals(state, ram):
        raise Misuse(f"{reason}: {state}")


def _refusals(state: State, ram: range) -> Iterator[str]:
    if not 0 <= state.asce < 1 << 64:
        yield "the ASCE is wider than 64 bits"
    elif state.asce & REAL_SPACE:
        yield "the ASCE designates real space, in which a store may change the stub"
    elif not ram.start <= state.root <= ram.stop - QUARTER * ((state.asce & 3) + 1):
        yield f"the root is at {state.root:#x}, outside RAM"
    known = 0
    for bit in CR0.values():
        known |= bit
    if state.cr0 & ~known:
        yield f"cr0 has bits that are the stub's, {state.cr0 & ~known:#x}"
