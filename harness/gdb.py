"""Commands for gdb: `ptwalk ADDRESS` and `ptfault [ADDRESS]`, of the guest that is debugged.

Sourced by gdb, in whose Python nothing but the standard library is sure to be there: the entries
on the way of the address are read here, and the program `pagetable` says what they mean. So is the
frame of the last page fault, by the rules of `harness.inspect.x86.frame`. Options after the address
are the program's own. The target is QEMU's gdb stub, whose monitor reads physical memory.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import struct
import subprocess
from collections.abc import Iterator

import gdb  # type: ignore[import-untyped]

NAMES = ("PTE", "PDE", "PDPTE", "PML4E", "PML5E")
PRESENT, USER, LARGE = 1 << 0, 1 << 2, 1 << 7
PSE, PAE, LA57, LMA = 1 << 4, 1 << 5, 1 << 12, 1 << 10
FRAME = 0x000F_FFFF_FFFF_F000

ACCESS = {"--access", "--user", "--supervisor", "--implicit"}

LOOKED_AT = 4096
CODES, ABSENT_CODES, FETCH = 0x807F, 0x5E, 1 << 4
FLAGS_ONE, FLAGS_ZERO = 1 << 1, ~0x3F_FFFF | 1 << 3 | 1 << 5 | 1 << 15
INSTRUCTION_BYTES = 15


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


def memory(address: int, size: int) -> bytes:
    """What is at a virtual address, up to where nothing is mapped."""
    held = b""
    while size > 0:
        part = min(size, 0x1000 - (address & 0xFFF))
        try:
            held += gdb.selected_inferior().read_memory(address, part).tobytes()
        except gdb.MemoryError:
            break
        address, size = address + part, size - part
    return held


def last_fault(cr2: int, long: int) -> tuple[int, int, int] | None:
    """The frame of the page fault on the stack: where it is, its error code and its RIP."""
    count, width = (6, 8) if long else (4, 4)
    step = 16 if long else 4
    first = -(-register("$sp") // step) * step
    held = memory(first, LOOKED_AT)
    for place in range(0, len(held) - count * width + 1, step):
        words = struct.unpack_from(f"<{count}{'Q' if long else 'I'}", held, place)
        if is_frame(cr2, *words):
            return first + place, words[0], words[1]
    return None


def is_frame(cr2: int, code: int, rip: int, cs: int, flags: int, *rest: int) -> bool:
    """Whether these words are what a page fault pushes."""
    ring = cs & 3
    if code & ~(CODES if code & PRESENT else ABSENT_CODES):
        return False
    if cs >> 16 or not cs >> 2 or ring not in (0, 3) or (code & USER and ring != 3):
        return False
    if not flags & FLAGS_ONE or flags & FLAGS_ZERO:
        return False
    if rest and (rest[1] >> 16 or rest[1] & 3 != ring):
        return False
    if code & FETCH:
        return 0 <= cr2 - rip < INSTRUCTION_BYTES
    return rip == cr2 or bool(memory(rip, 1))


class Command(gdb.Command):  # type: ignore[misc]
    """A command of the program, asked about the guest that is debugged."""

    def __init__(self, name: str, command: str, usual: str | None, text: str) -> None:
        self.__doc__ = text
        self._command, self._usual = command, usual
        super().__init__(name, gdb.COMMAND_DATA)

    def invoke(self, argument: str, _: bool) -> None:
        """Prints what the program says."""
        own = shlex.split(argument)
        named = bool(own) and not own[0].startswith("-")
        given = own.pop(0) if named else self._usual
        if given is None:
            raise gdb.GdbError("name an ADDRESS: an expression without blanks, or one in quotes")
        address = register(f"(unsigned long)({given})")
        state = {name: register(f"${name}") for name in ("cr0", "cr3", "cr4", "efer")}
        way = " ".join(entries(address, state["cr3"], state["cr4"], state["efer"]))
        program = os.environ.get("PAGETABLE") or shutil.which("pagetable")
        if program is None:
            raise gdb.GdbError("there is no program pagetable: set PAGETABLE to where it is")
        options = [part for name, value in state.items() for part in (f"--{name}", f"{value:#x}")]
        if any(option.startswith("--code") for option in own):
            asked = ["--cr2", f"{address:#x}"]
        elif named or ACCESS.intersection(own):
            asked = [f"{address:#x}"]
        else:
            asked = self._seen(address, state["efer"] & LMA)
        command = [program, self._command, *asked, "--entries", way, *options, *own]
        done = subprocess.run(command, capture_output=True, text=True)
        print(done.stdout + done.stderr, end="")

    def _seen(self, cr2: int, long: int) -> list[str]:
        """The page fault of which CR2 is, as far as the stack tells."""
        frame = last_fault(cr2, long)
        if frame is None:
            print(
                f"CR2 {cr2:#x}, and no frame of a page fault on the stack: the error code is not"
                " known; --code names it, --access and --user the access\n"
            )
            return [f"{cr2:#x}"]
        place, code, rip = frame
        print(
            f"CR2 {cr2:#x}, and from the frame of a page fault on the stack, at {place:#x}, the"
            f" error code {code:#x} and RIP {rip:#x}\n"
        )
        return ["--code", f"{code:#x}", "--cr2", f"{cr2:#x}", "--rip", f"{rip:#x}"]


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
    "ptfault [ADDRESS] [OPTION ...]: why an access faults, as --access write --user; alone, the"
    " last page fault, by $cr2 and its frame on the stack.",
)
