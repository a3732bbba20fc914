"""What Linux keeps in the bits of an entry that the machine ignores, bit by bit."""

from __future__ import annotations

from typing import Final

from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.linux import Spelling, spelled
from harness.inspect.snapshot import QuestionError
from harness.paging.format import bits
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import V
from harness.paging.riscv.linux import DEVMAP, EXCLUSIVE, PROT_NONE, SPECIAL, Linux

_SPELLING: Final = Spelling(
    valid=V,
    present=(
        (SPECIAL, "special", "neither counted nor held by Linux"),
        (DEVMAP, "devmap", "a page of a device's memory, mapped like a file"),
    ),
    away=((EXCLUSIVE, "exclusive", "the page belongs to one process alone"),),
    kept=PROT_NONE,
    address=bits(53, 10),
    rights=frozenset(("R", "W", "X", "U")),
)


def read(cpu: Cpu, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry of Sv39, Sv48 or Sv57.

    Raises QuestionError for another mode.
    """
    try:
        linux = Linux(cpu.format)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    return spelled(_SPELLING, linux, reading)
