"""The frame of the page fault that a processor raised last, which is on its stack.

A handler that has stopped, or a kernel that halts in it, has the error code and RIP of the fault
above its own stack pointer, and no register has them.  The frame (SDM volume 3A, 6.14.2 and figure
6-4) is recognised by all of its words: nothing else has a selector, flags and an instruction
that is mapped in these places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.inspect.snapshot import Snapshot, SourceError
from harness.paging.address import Physical, Virtual
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.paging.x86.access import Access, Allowed, Error, Kind, outcome

LOOKED_AT: Final = 4096
"""Bytes from the stack pointer up in which the frame is looked for."""

INSTRUCTION_BYTES: Final = 15
"""The longest instruction (SDM volume 2A, 2.3.11)."""

_CODES: Final = 0x807F
"""The bits that the error code of a page fault may have."""

_ABSENT: Final = int(Error.W | Error.U | Error.I | Error.RSVD | Error.SS)
"""Those of a code with P=0; RSVD is TCG's."""

_FLAGS_ONE: Final = 1 << 1
_FLAGS_ZERO: Final = ~0x3F_FFFF | 1 << 3 | 1 << 5 | 1 << 15
"""Bits of RFLAGS that are always set, and always clear (SDM volume 1, 3.4.3)."""

RPL: Final = 3


@dataclass(frozen=True)
class Frame:
    """What is on the stack: where it begins, and what it holds."""

    place: int
    code: int
    rip: int


def last_fault(snapshot: Snapshot) -> Frame | None:
    """The frame of the page fault that was raised last, as far as it can be found."""
    sp, long = snapshot.registers.get("rsp"), snapshot.cpu.long
    if sp is None:
        return None
    width = 8 if long else 4
    sp &= -width
    words: list[int] = []
    try:
        for place in range(sp, sp + LOOKED_AT, width):
            word = _word(snapshot, place, width)
            if word is None:
                break
            words.append(word)
    except SourceError:  # the rest of the stack was not read
        pass
    count = 6 if long else 4
    aligned = 2 if long else 1  # RSP is, to 16 bytes, before 6 words are pushed (SDM 6.14.2)
    first = -sp // width % aligned
    for number in range(first, len(words) - count + 1, aligned):
        frame = words[number : number + count]
        if _is_frame(snapshot, frame):
            return Frame(sp + number * width, frame[0], frame[1])
    return None


def _is_frame(snapshot: Snapshot, frame: list[int]) -> bool:
    """Whether these words are what a page fault pushes."""
    code, rip, cs, flags, *rest = frame
    user = cs & RPL == RPL
    if not code & Error.P and code & ~_ABSENT:
        return False
    if code & ~_CODES or cs >> 16 or not cs >> 2 or cs & RPL not in (0, RPL):
        return False
    if not flags & _FLAGS_ONE or flags & _FLAGS_ZERO or (code & Error.U and not user):
        return False
    if rest and (rest[1] >> 16 or rest[1] & RPL != cs & RPL):
        return False
    cr2 = snapshot.registers.get("cr2")
    if code & Error.I:  # what is fetched is not mapped, or not executable
        return cr2 is not None and 0 <= cr2 - rip < INSTRUCTION_BYTES
    answer = outcome(snapshot.cpu, snapshot.memory, Virtual(rip), Access(Kind.FETCH, user))
    return isinstance(answer, Allowed) or cr2 == rip


def _word(snapshot: Snapshot, place: int, width: int) -> int | None:
    """The word at a virtual address; None where none is mapped."""
    cpu, address = snapshot.cpu, Virtual(place)
    root = root_for(cpu, address)
    physical = walk(snapshot.memory, root, address).physical if root else None
    return None if physical is None else snapshot.memory.load(Physical(physical), width)
