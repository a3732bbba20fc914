"""What x86's stub is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.machine.ram import STUB
from harness.machine.stub import Build, Relocations

BUILD: Final = Build(
    called="x86-64",
    path=Path(__file__).parents[1] / "stub.elf",
    machine=("EM_X86_64", 64),
    base=0,
    stub=STUB,
    text=(".note.pvh", ".text"),
    user=(".user",),
    data=(".data", ".bss"),
    # R_X86_64_64 and _32; _PC32 and _PLT32 (psABI for x86-64, 4.4.1).  There must be no
    # R_X86_64_32S: it is sign-extended, and so reaches no address between 2 and 4 GiB.
    moves=Relocations(absolute=((1, 8), (10, 4)), relative=(2, 4)),
)
