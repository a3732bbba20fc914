"""What page faults that were seen say, and whether tables give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from harness.inspect.decode import Bits
from harness.inspect.fault import Explanation, Reproduction, explain_all
from harness.inspect.number import read
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.supposed import CHANGED, depends, is_open
from harness.inspect.tour import lines as lines_of
from harness.inspect.translation import Translation
from harness.inspect.x86 import data
from harness.inspect.x86.frame import INSTRUCTION_BYTES
from harness.inspect.x86.likely import NARROWEST, highest_bit, narrower
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.entry import Leaf, Pointer
from harness.paging.x86.access import (
    Access,
    Allowed,
    Error,
    Fault,
    Kind,
    Outcome,
    Unbacked,
    Vector,
)
from harness.paging.x86.cpu import WIDTHS, Cpu, Cr4, Efer, Mode, canonical_halves

if TYPE_CHECKING:
    from harness.check.quirk import Quirk


_CODE: Final = (
    (Error.P, "an entry was not present", "the entry that denies it was present"),
    (Error.W, "a read or a fetch", "a write"),
    (Error.U, "by the supervisor", "by the user"),
    (Error.RSVD, "no reserved bit", "an entry has reserved bits set"),
    (Error.I, "not told to be a fetch", "a fetch"),
    (Error.PK, "no protection key", "the protection key denies it"),
    (Error.SS, "no shadow-stack access", "a shadow-stack access"),
)
"""What each bit of an error code says when clear and when set (SDM 4.7)."""

_HLAT, _SGX, _RMP = 1 << 7, 1 << 15, 1 << 31
_OTHERS: Final = (
    (_HLAT, "HLAT", "HLAT paging has no translation"),
    (_SGX, "SGX", "a violation of SGX's access control"),
    (_RMP, "RMP", "a violation of AMD's reverse map (APM volume 2, 15.36)"),
)
"""Bits that need features which the rules of this package do not have, when set."""

REPORTED: Final = ("cr2", "rip")
"""The options by which more is told of a fault than its code and the address."""

CODE_BITS: Final = 32
"""The width of an error code."""


@dataclass(frozen=True)
class SeenFault:
    """A page fault that was seen, in words.

    bits        of the error code, from the lowest up: those that every processor has, and others
                that are set
    accesses    which accesses raise it
    impossible  why no processor raises it, a sentence each
    quirk       the known departure of an engine that it is
    hints       what CR2 and RIP tell together, a sentence each
    """

    code: int
    bits: tuple[Bits, ...]
    accesses: tuple[Access, ...]
    impossible: tuple[str, ...]
    quirk: Quirk | None
    hints: tuple[str, ...]


def read_code(
    code: int, cpu: Cpu | None = None, cr2: int | None = None, rip: int | None = None
) -> SeenFault:
    """What the error code of a page fault says; with a CPU, what it can be there.

    Raises QuestionError for a code of more than 32 bits.
    """
    if not 0 <= code < 1 << CODE_BITS:
        raise QuestionError(f"{code:#x} is not an error code: those have {CODE_BITS} bits")
    bits = [
        Bits(int(flag), str(flag.name), int(bool(code & flag)), said[bool(code & flag)])
        for flag, *said in _CODE
    ]
    bits += [Bits(flag, name, 1, said) for flag, name, said in _OTHERS if code & flag]
    impossible = tuple(_impossible(code, cpu))
    hints = tuple(_hints(code, cpu, cr2, rip))
    seen = SeenFault(code, tuple(bits), tuple(_accesses(code, cpu)), impossible, None, hints)
    if not code & Error.RSVD or code & Error.P:
        return seen
    from harness.check.x86.quirks import RESERVED_WITHOUT_PRESENT  # rare, and long to import

    return replace(seen, quirk=RESERVED_WITHOUT_PRESENT)


def _accesses(code: int, cpu: Cpu | None) -> Iterator[Access]:
    """The accesses that the code describes; where it does not tell fetches, a read may be one, but
    not one that a key denies."""
    user = bool(code & Error.U)
    if code & Error.SS:
        kinds = [Kind.SHADOW_WRITE if code & Error.W else Kind.SHADOW_READ]
    elif code & Error.I:
        kinds = [Kind.FETCH]
    elif code & Error.W:
        kinds = [Kind.WRITE]
    else:
        told = code & Error.PK or (cpu is not None and cpu.reports_fetches)
        kinds = [Kind.READ] if told else [Kind.READ, Kind.FETCH]
    for kind in kinds:
        yield Access(kind, user)
    for kind in kinds:
        if not user and kind is not Kind.FETCH:
            yield Access(kind, user, implicit=True)


def _impossible(code: int, cpu: Cpu | None) -> Iterator[str]:
    """Why no processor raises the code, or this one does not (SDM 4.7)."""
    known = sum(int(flag) for flag, *_ in _CODE) | _HLAT | _SGX | _RMP
    if code & ~known:
        yield f"no processor sets {code & ~known:#x}: these bits are reserved"
    if code & Error.RSVD and not code & Error.P:
        yield "RSVD without P: reserved bits are looked at in entries that are present"
    if code & Error.PK and not code & Error.P:
        yield "PK without P: keys are looked at on pages that are present"
    if code & Error.PK and code & Error.RSVD:
        yield "PK with RSVD: keys are looked at after a walk that is valid"
    if code & Error.PK and code & Error.I:
        yield "PK with I: keys do not concern fetches (4.6.2)"
    if code & Error.W and code & Error.I:
        yield "W with I: a fetch writes nothing"
    if code & Error.SS and code & Error.I:
        yield "SS with I: a shadow-stack access is to data"
    if code & _SGX and (not code & Error.P or code & (Error.RSVD | Error.PK)):
        yield "SGX without P, or with RSVD or PK: SGX is asked after all else has passed"
    if code & _HLAT and code & Error.P and not code & Error.RSVD:
        yield "HLAT with P, without RSVD: where HLAT paging has a translation it is never set"
    if cpu is None:
        return
    if code & Error.I and not cpu.reports_fetches:
        yield "I: this CPU has CR4.SMEP=0 and not both CR4.PAE and EFER.NXE=1, so it never sets it"
    if code & Error.PK and not cpu.cr4 & (Cr4.PKE | Cr4.PKS):
        yield "PK: this CPU has CR4.PKE=0 and CR4.PKS=0"
    elif code & Error.PK and not cpu.long:
        yield "PK: this CPU is not in long mode"


_NEVER_IN_CR2: Final = (
    "CR2 never holds an address that is not canonical: such an access raises #GP or #SS"
)


def _hints(code: int, cpu: Cpu | None, cr2: int | None, rip: int | None) -> Iterator[str]:
    """What else the error code may come of, and what the place of the instruction tells."""
    if code & Error.RSVD and cpu is None:
        yield (
            "reserved are bits of the address beyond MAXPHYADDR, XD (bit 63) while EFER.NXE=0, and"
            " bits below the address of a large page"
        )
    if cpu is None and cr2 is not None:
        if not any(cr2 in half for half in canonical_halves(5)):
            yield _NEVER_IN_CR2
        if meant := data.pointer(cr2):
            yield f"CR2 is probably {meant}"
    if cr2 is None or rip is None:
        return
    within = 0 <= cr2 - rip < INSTRUCTION_BYTES
    if code & Error.I and not within:
        yield (
            f"a fetch faults within the {INSTRUCTION_BYTES} bytes from RIP, and CR2 is not there:"
            " one of the three belongs to another fault"
        )
    elif within and code & Error.W:
        yield "CR2 is where RIP is: the code writes to itself"
    elif within and not code & Error.I:
        yield "CR2 is where RIP is: a fetch that the error code does not tell, or a read of code"


def told(code: str, cr2: int | None, rip: int | None, _: Sequence[Access]) -> SeenFault:
    """What a page fault says by itself; `code` is the error code as people write it."""
    return read_code(_number(code), None, cr2, rip)


def _number(code: str) -> int:
    try:
        return read("the error code", code)
    except ValueError as error:
        raise QuestionError(str(error)) from None


def reproduced(
    snapshot: Snapshot,
    code: str,
    cr2: Virtual,
    rip: int | None,
    linux: bool,
    named: Sequence[Access],
) -> tuple[Snapshot, SeenFault, Reproduction]:
    """The snapshot as `fitting` has it, what the fault says, and whether the tables give it; `code`
    is the error code as people write it."""
    seen = read_code(_number(code), snapshot.cpu, cr2, rip)
    snapshot = fitting(snapshot, seen, cr2)
    return snapshot, seen, compare(snapshot, seen, cr2, linux, named)


_IMPLICIT: Final = (
    "only an implicit access, to a system structure, raises it with EFLAGS.AC=1; with AC=0 any does"
)


def compare(
    snapshot: Snapshot,
    seen: SeenFault,
    cr2: Virtual,
    linux: bool = False,
    named: Sequence[Access] = (),
) -> Reproduction:
    """Whether the tables as they are would give the fault; `linux` as in `explain`.

    named  the accesses that are thought to have raised it

    Raises QuestionError for an address that is wider than the CPU's mode has them.
    """
    explained = explain_all(snapshot, cr2, seen.accesses, linux)
    others = tuple(
        _is_another(one)
        for one in explain_all(snapshot, cr2, named, linux)
        if not _gives(one.outcome, seen)
        and not (one.access in seen.accesses and is_open(snapshot, one))
    )
    giving = _giving(explained, seen)
    if giving:
        explicit = tuple(one for one in giving if not one.access.implicit)
        where = tuple(dict.fromkeys(one for each in giving for one in _conditions(each, seen)))
        where = (*others, *where, *(() if explicit else (_IMPLICIT,)))
        return Reproduction(explicit or giving, (), where)
    instead = tuple(one for one in explained if not one.access.implicit)
    open_to = depends(snapshot, explained, lambda found: _gives(found, seen))
    reasons = () if open_to else _likely(snapshot, seen, cr2, instead)
    return Reproduction((), instead, (*others, *reasons), depends=open_to)


def _giving(explained: Sequence[Explanation], seen: SeenFault) -> tuple[Explanation, ...]:
    return tuple(
        one
        for one in explained
        if _gives(one.outcome, seen) or any(_gives(there.outcome, seen) for there in one.elsewhere)
    )


def _is_another(one: Explanation) -> str:
    """That a fault that was seen is not of an access."""
    what = "is allowed"
    if isinstance(one.outcome, Fault):
        what = f"raises #{one.outcome.vector.name} with error code {one.outcome.error:#x}"
    elif isinstance(one.outcome, Unbacked):
        what = "is unknown"
    return f"a {one.access} {what} there, so that another access raised this fault"


def _is_given(snapshot: Snapshot, seen: SeenFault, cr2: Virtual) -> bool:
    """Whether the tables as they are give the fault."""
    return bool(_giving(explain_all(snapshot, cr2, seen.accesses), seen))


WIDTHS_TRIED: Final = range(WIDTHS[-1], NARROWEST - 1, -1)
"""MAXPHYADDRs, the widest first."""


def fitting(snapshot: Snapshot, seen: SeenFault, cr2: Virtual) -> Snapshot:
    """The snapshot with the widest MAXPHYADDR, or else EFER.NXE, by which its entries give the
    fault, if that was assumed and they do not with what was; and a note of it."""
    cpu = snapshot.cpu
    if cpu.mode is Mode.BITS_32 or not snapshot.unsure or _is_given(snapshot, seen, cr2):
        return snapshot
    switched = replace(snapshot, cpu=replace(cpu, efer=cpu.efer ^ Efer.NXE))
    nxe = "efer" in snapshot.unsure and _is_given(switched, seen, cr2)
    for width in WIDTHS_TRIED if "maxphyaddr" in snapshot.unsure else ():
        other = replace(snapshot, cpu=replace(cpu, maxphyaddr=width))
        if other.cpu.base == cpu.base and _is_given(other, seen, cr2):
            too = f"; with EFER.NXE={int(not cpu.nxe)} they give it, too (--efer)" if nxe else ""
            note = (
                f"Assumed: MAXPHYADDR={width}, the widest with which these entries give the"
                f" fault; with {cpu.maxphyaddr} they do not (--maxphyaddr){too}."
            )
            kept = (one for one in snapshot.assumed if not one.startswith("MAXPHYADDR"))
            return replace(other, notes=(*snapshot.notes, note), assumed=tuple(kept))
    if not nxe:
        return snapshot
    note = (
        f"Assumed: EFER.NXE={int(not cpu.nxe)}, with which these entries give the fault; with"
        f" {int(cpu.nxe)} they do not (--efer)."
    )
    kept = (one for one in snapshot.assumed if not one.startswith("EFER"))
    return replace(switched, notes=(*snapshot.notes, note), assumed=tuple(kept))


def _conditions(one: Explanation, seen: SeenFault) -> Iterator[str]:
    """On which machines an access gives the fault, where the tables lead outside memory."""
    for there in one.elsewhere:
        if _gives(there.outcome, seen):
            yield f"{outside(one.translation)}, and reads as {there.read} there: {there.who}"


def outside(found: Translation) -> str:
    """Which table lies outside memory, or which slot of one, and what leads there."""
    slot = found.walk.unbacked if found.walk else None
    assert slot is not None
    where, which = f"{slot.table.address:#x}", ""
    if found.partly:
        where, which = f"{slot.address:#x}", f"slot {slot.index} of "
    *_, last = (None, *found.stages)
    if last is None:
        return f"{which}the root's table, to which CR3 leads, lies outside memory, at {where}"
    at = f" at {last.slot.address:#x}" if last.slot else ""
    return (
        f"{which}the level-{slot.level} table to which the {last.reading.name}{at} leads lies"
        f" outside memory, at {where}"
    )


def _gives(answer: Outcome, seen: SeenFault) -> bool:
    """Whether an outcome is the fault, as the rules or the quirk have it."""
    if not isinstance(answer, Fault) or answer.vector is not Vector.PF:
        return False
    return answer.error == (seen.code | Error.P if seen.quirk else seen.code)


def _unused(snapshot: Snapshot, found: Translation, writes: bool) -> Iterator[str]:
    """What A and D say of tables that are a machine's: A is set in every entry that an access went
    by, of which a root that is in use has one, and D in that of a page that was written to (SDM
    4.8)."""
    cpu = snapshot.cpu
    if found.root is None or not snapshot.registers:
        return
    lines = lines_of(snapshot.memory, found.root.table)
    raws = [one.raw for one in lines if one.raw and isinstance(one.entry, Leaf | Pointer)]
    if raws and not any(raw & cpu.format.accessed for raw in raws):
        yield (
            f"the processor uses another copy of these tables: A is clear in every entry of the"
            f" root's, at {found.root.table.address:#x}, so no access went by it, unless software"
            " cleared them"
        )
        return
    for stage in found.stages:
        flags = {"A": cpu.format.accessed}
        if writes and isinstance(stage.reading.entry, Leaf):
            flags["D"] = cpu.format.dirty
        used = stage.slot is not None and isinstance(stage.reading.entry, Leaf | Pointer)
        clear = [name for name, bit in flags.items() if used and not stage.reading.raw & bit]
        if clear and stage.slot:
            did = "access went" if "A" in clear else "write went"
            yield (
                f"no {did} by the {stage.reading.name} at {stage.slot.address:#x} so far, since"
                f" {' and '.join(clear)} {'are' if clear[1:] else 'is'} clear there, unless"
                " software cleared it"
            )
            return


def _likely(
    snapshot: Snapshot, seen: SeenFault, cr2: Virtual, instead: tuple[Explanation, ...]
) -> Iterator[str]:
    """Why the tables do not give the fault that was seen."""
    cpu, found = snapshot.cpu, instead[0].translation
    if not found.canonical:
        yield _NEVER_IN_CR2
        return
    if found.end is End.UNBACKED and snapshot.given is None:
        yield f"{outside(found)}: what the machine reads there decides"
    present = found.end in (End.LEAF, End.MALFORMED)
    allowed = any(isinstance(one.outcome, Allowed) for one in instead)
    if seen.code & Error.RSVD:
        width = narrower(highest_bit(*(stage.reading.entry for stage in found.stages)))
        yield (
            f"the processor has another MAXPHYADDR than {cpu.maxphyaddr} bits{width}; or another"
            f" EFER.NXE than {int(cpu.nxe)}: what is reserved depends on both"
        )
    elif not seen.code & Error.P and present:
        yield (
            "the entry was made present since; a TLB never holds one that is not (4.10.2.3), so no"
            " flush was missing"
        )
    elif allowed:
        yield (
            "rights were given since, or a TLB still had fewer: the fault drops those, and the"
            " access can be tried again (4.10.4.1, 4.10.4.3)"
        )
    elif seen.code & Error.P and found.end in (End.ABSENT, End.NO_ROOT):
        yield (
            "the page was unmapped since; or it was before, and a TLB that was not flushed still"
            " had it (4.10.4.2)"
        )
    if snapshot.given:
        yield CHANGED
        return
    yield "the tables were changed since"
    yield from _unused(snapshot, found, bool(seen.code & Error.W))
    yield f"another address space: here CR3 is {cpu.cr3:#x}; or another processor's registers"
