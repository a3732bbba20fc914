"""The page fault that a processor raised last: CR2 and RIP, and what is on its stack."""

from __future__ import annotations

from typing import Final

from harness.inspect.last import Raised
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.x86.frame import INSTRUCTION_BYTES, RPL, last_fault
from harness.paging.address import Virtual
from harness.paging.x86.access import Access, Allowed, Kind, outcome


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
    user = own.get("cpl") == RPL
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
    rip, user = own.get("rip"), own.get("cpl") == RPL
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
