"""Commands for gdb: `ptwalk ADDRESS` and `ptfault [ADDRESS]`, of the guest that is debugged.

Sourced by gdb, in whose Python nothing but the standard library is sure to be there: the entries
on the way of the address are read here, and the program `pagetable` says what they mean. Options
after the address are the program's own. The target is QEMU's gdb stub, whose monitor reads physical
memory.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator

import gdb  # type: ignore[import-untyped]

NAMES = ("PTE", "PDE", "PDPTE", "PML4E", "PML5E")
PRESENT, LARGE = 1 << 0, 1 << 7
PSE, PAE, LA57, LMA = 1 << 4, 1 << 5, 1 << 12, 1 << 10
FRAME = 0x000F_FFFF_FFFF_F000


def register(name: str) -> int:
    """The value of a register, or of any expression, as gdb has it."""
    try:
        said = gdb.execute(f"output/x {name}", to_string=True)
    except gdb.error as error:
        raise gdb.GdbError(f"{name} has no value: {error}") from None
    match = re.search(r"0x([0-9a-fA-F]+)", said)
    if match is None:
        raise gdb.GdbError(f"{name} has no value: is a guest of QEMU's connected?")
    return int(match[1], 16)


def word(address: int, width: int) -> int:
    """A word of physical memory."""
    size = {4: "w", 8: "g"}[width]
    try:
        said = gdb.execute(f"monitor xp /1{size}x {address:#x}", to_string=True)
    except gdb.error as error:
        raise gdb.GdbError(f"physical memory is read by QEMU's monitor: {error}") from None
    match = re.search(r": 0x([0-9a-fA-F]+)", said)
    if match is None:
        raise gdb.GdbError(f"the monitor did not print what is at {address:#x}: {said.strip()}")
    return int(match[1], 16)


def entries(address: int, cr3: int, cr4: int, efer: int) -> Iterator[str]:
    """The entries on the way of an address, from the root down, each after its name."""
    long, pae = efer & LMA, cr4 & PAE
    levels = (5 if cr4 & LA57 else 4) if long else 3 if pae else 2
    width, bits = (8, 9) if pae or long else (4, 10)
    table = cr3 & (FRAME if long or not pae else 0xFFFF_FFE0)
    for level in reversed(range(levels)):
        index = address >> 12 + bits * level & (1 << bits) - 1
        raw = word(table + index * width, width)
        yield f"{NAMES[level]}={raw:#x}"
        large = (level == 1 and (pae or long or cr4 & PSE)) or (level == 2 and long)
        if not raw & PRESENT or (large and raw & LARGE):
            return
        table = raw & FRAME


class Command(gdb.Command):  # type: ignore[misc]
    """A command of the program, asked about the guest that is debugged."""

    def __init__(self, name: str, command: str, usual: str | None, text: str) -> None:
        self.__doc__ = text
        self._command, self._usual = command, usual
        super().__init__(name, gdb.COMMAND_DATA)

    def invoke(self, argument: str, _: bool) -> None:
        """Prints what the program says."""
        own = shlex.split(argument)
        given = own.pop(0) if own and not own[0].startswith("-") else self._usual
        if given is None:
            raise gdb.GdbError("name an ADDRESS: an expression without blanks, or one in quotes")
        address = register(f"(unsigned long)({given})")
        state = {name: register(f"${name}") for name in ("cr0", "cr3", "cr4", "efer")}
        way = " ".join(entries(address, state["cr3"], state["cr4"], state["efer"]))
        program = os.environ.get("PAGETABLE") or shutil.which("pagetable")
        if program is None:
            raise gdb.GdbError("there is no program pagetable: set PAGETABLE to where it is")
        options = [part for name, value in state.items() for part in (f"--{name}", f"{value:#x}")]
        command = [program, self._command, f"{address:#x}", "--entries", way, *options, *own]
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout + done.stderr, end="")


Command(
    "ptwalk",
    "walk",
    None,
    "ptwalk ADDRESS [OPTION ...]: where an address of the guest leads, entry by entry.",
)
Command(
    "ptfault",
    "fault",
    "$cr2",
    "ptfault [ADDRESS] [OPTION ...]: why an access faults, as --access write --user or --code 2;"
    " without an address at $cr2.",
)
