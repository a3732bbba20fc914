"""The page fault that a processor raised last: CR2, RIP, and the frame that is on its stack.

A handler that has stopped, or a kernel that halts in it, has the error code and RIP of the fault
above its own stack pointer, and no register has them.  The frame (SDM volume 3A, 6.14.2 and figure
6-4) is recognised by all of its words: nothing else has a selector, flags and an instruction
that is mapped in these places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from harness.inspect.snapshot import QuestionError, Snapshot, SourceError
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

_RPL: Final = 3


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
    user = cs & _RPL == _RPL
    if not code & Error.P and code & ~_ABSENT:
        return False
    if code & ~_CODES or cs >> 16 or not cs >> 2 or cs & _RPL not in (0, _RPL):
        return False
    if not flags & _FLAGS_ONE or flags & _FLAGS_ZERO or (code & Error.U and not user):
        return False
    if rest and (rest[1] >> 16 or rest[1] & _RPL != cs & _RPL):
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


@dataclass(frozen=True)
class Raised:
    """The last page fault of a processor, as far as its registers and its stack tell.

    address   CR2, or RIP where that is what faulted first
    code      its error code; None where no frame has it
    accesses  those that may have raised it, where there is no error code
    said      from where all this is, a sentence
    """

    address: Virtual
    rip: int | None
    code: int | None
    accesses: tuple[Access, ...]
    said: str


def raised(snapshot: Snapshot, vcpu: int) -> Raised:
    """The page fault that processor number `vcpu` of a snapshot raised last.

    Raises QuestionError where the source has no CR2.
    """
    own = snapshot.registers
    if "cr2" not in own:
        raise QuestionError(
            f"no address is given, and {snapshot.title} does not record CR2: name the ADDRESS, or"
            " of a fault that was seen add --cr2"
        )
    cr2, rip = own["cr2"], own.get("rip")
    if frame := last_fault(snapshot):
        said = (
            f"From processor {vcpu}: CR2 {cr2:#x}, and from the frame of a page fault on its stack,"
            f" at {frame.place:#x}, the error code {frame.code:#x} and RIP {frame.rip:#x}."
        )
        return Raised(Virtual(cr2), frame.rip, frame.code, (), said)
    at = "" if rip is None else f" and RIP {rip:#x}"
    said = f"From processor {vcpu}: CR2 {cr2:#x}{at}."
    vector = _gate(snapshot, cr2)
    if vector is not None:
        return _undelivered(snapshot, vector, said)
    user = own.get("cpl") == _RPL
    fetch = rip is not None and 0 <= cr2 - rip < INSTRUCTION_BYTES
    kinds = [Kind.FETCH] if fetch else [Kind.READ, Kind.WRITE]
    said += (
        " No register holds an error code, and no frame of a page fault is on the stack: the"
        f" access is one of CPL {own.get('cpl', 0)} that fits RIP (--code names the error code)."
    )
    if not cr2:
        said = f"Perhaps no page fault was raised: CR2 is 0, as after a reset. {said}"
    return Raised(Virtual(cr2), rip, None, tuple(Access(kind, user) for kind in kinds), said)


def _gate(snapshot: Snapshot, cr2: int) -> int | None:
    """The vector whose gate in the IDT CR2 is, where that cannot be read; else None."""
    vector = vector_at(cr2, snapshot.registers.get("idt"), snapshot.cpu.long)
    if vector is None:
        return None
    answer = outcome(snapshot.cpu, snapshot.memory, Virtual(cr2), _GATE)
    return None if isinstance(answer, Allowed) else vector


def vector_at(address: int, idt: int | None, long: bool) -> int | None:
    """The vector whose gate is at an address, in an IDT that begins at `idt`; None where that is no
    gate's, or the IDT is not known."""
    size = 16 if long else 8
    if idt is None or not 0 <= address - idt < _VECTORS * size:
        return None
    return (address - idt) // size


def _undelivered(snapshot: Snapshot, vector: int, said: str) -> Raised:
    """A fault that came of the delivery of another: of that one RIP is left, and no CR2."""
    own = snapshot.registers
    rip, user = own.get("rip"), own.get("cpl") == _RPL
    said += (
        f" CR2 is where the gate of vector {vector} is, in the IDT at {own['idt']:#x}, which is not"
        " mapped: an exception could not be delivered, and the CR2 of a fault before it is lost."
    )
    if rip is not None:
        fetch = Access(Kind.FETCH, user)
        answer = outcome(snapshot.cpu, snapshot.memory, Virtual(rip), fetch)
        if not isinstance(answer, Allowed):
            return Raised(Virtual(rip), rip, None, (fetch,), f"{said} RIP cannot be fetched.")
    return Raised(Virtual(own["cr2"]), rip, None, (_GATE,), said)


_GATE: Final = Access(Kind.READ, False, implicit=True)
_VECTORS: Final = 256
