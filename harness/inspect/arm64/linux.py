"""What Linux keeps in the bits of an entry that the machine ignores, bit by bit."""

from __future__ import annotations

from typing import Final

from harness.inspect.decode import LinuxReading, Reading
from harness.inspect.linux import Spelling, spelled
from harness.inspect.snapshot import QuestionError
from harness.paging.arm64.cpu import Cpu
from harness.paging.arm64.formats import VALID
from harness.paging.arm64.linux import (
    AWAY_UFFD_WP,
    DEVMAP,
    DIRTY,
    EXCLUSIVE,
    KEY,
    PRESENT_INVALID,
    SPECIAL,
    UFFD_WP,
    WRITE,
    Linux,
)
from harness.paging.format import bits

_SPELLING: Final = Spelling(
    valid=VALID,
    present=(
        (KEY, "pkey", "the protection key, by which POR_EL0 may withhold rights"),
        (UFFD_WP, "uffd-wp", "userfaultfd keeps writes away"),
        (DEVMAP, "devmap", "a page of a device's memory, mapped like a file"),
        (SPECIAL, "special", "neither counted nor held by Linux"),
        (DIRTY, "dirty", "written, as Linux knows"),
        (WRITE, "writable", "may be written; read-only while it is clean"),
    ),
    away=(
        (AWAY_UFFD_WP, "uffd-wp", "userfaultfd keeps writes away"),
        (EXCLUSIVE, "exclusive", "the page belongs to one process alone"),
    ),
    kept=PRESENT_INVALID,
    address=bits(47, 12),
    rights=frozenset(("AP[1]", "AP[2]", "PXN", "UXN")),
)


def read(cpu: Cpu, reading: Reading) -> LinuxReading:
    """What Linux reads into an entry of the 4K granule.

    Raises QuestionError for another granule.
    """
    try:
        linux = Linux(cpu.format)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    return spelled(_SPELLING, linux, reading)
