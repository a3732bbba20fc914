"""What program interruptions that were seen say, and whether tables give them.

What bits 56, 60 and 61 of a TEID say of a protection exception rests on Linux's KVM for its guests
(arch/s390/kvm/gaccess.c, trans_exc_ending) and on kvm-unit-tests (lib/s390x/fault.h).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.inspect.fault import Explanation, Reproduction, explain_all
from harness.inspect.number import read
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.supposed import depends
from harness.paging.address import Virtual
from harness.paging.s390.access import (
    FETCHES,
    LOW,
    MARKS,
    PAGE,
    STORES,
    TRANSLATION,
    Access,
    Code,
    Fault,
    Kind,
    Outcome,
    Reason,
    outcome,
)
from harness.paging.s390.cpu import AddressSpace, Cpu, Cr0

REPORTED: Final = ("teid",)
"""The options by which more is told of an interruption than its code and the address."""

_EVENTS: Final = 0x7F
"""Of a code as it is stored: without PER events (0x80), and the bits that other facilities set."""

_SPACE: Final = 3
_KEY, _LIST = 0x08, 0x0C
_MARKS: Final = 0x8C
"""Bits 56, 60 and 61 of the TEID of a protection exception, and what they are of what no table
gives: of key-controlled and access-list-controlled protection.  All three are 0 of key-controlled
and low-address protection without enhanced suppression on protection, facility 2."""

_CHANGED: Final = FETCHES | STORES
_WITHOUT_TEID: Final = (Code.ADDRESSING, Code.TRANSLATION_SPECIFICATION)


@dataclass(frozen=True)
class SeenFault:
    """A program interruption that was seen.

    code      which
    teid      its translation-exception identification; None where that was not given
    accesses  those that can end in it, made in supervisor state: in problem state they do, too
    """

    code: Code
    teid: int | None
    accesses: tuple[Access, ...]

    @property
    def stores_teid(self) -> bool:
        """Whether the interruption stores one; else what is there is of an earlier one."""
        return self.code not in _WITHOUT_TEID


def seen(text: str, teid: int | None = None) -> SeenFault:
    """The interruption whose code is written as `text`, in hexadecimal, as all print it.

    Raises QuestionError for one that no access ends in, and for a TEID that none has.
    """
    try:
        number = read("the interruption code", text, bare=16)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    if number >> 16 or (number & _EVENTS) not in set(Code):
        known = ", ".join(f"{one:#04x}" for one in Code)
        raise QuestionError(
            f"{number:#x} is no program interruption of an access: those are {known}"
        )
    code = Code(number & _EVENTS)
    kinds = [Kind.READ, Kind.WRITE, Kind.FETCH]
    space = AddressSpace.PRIMARY
    if code is Code.PROTECTION and (teid is None or not _is_of_keys(teid)):
        kinds = [Kind.WRITE, Kind.FETCH]
    if teid is not None and code not in _WITHOUT_TEID:
        kinds = [kind for kind in kinds if _could_be(kind, code, teid)]
        space = _space(teid)
    return SeenFault(code, teid, tuple(Access(kind, False, space) for kind in kinds))


def page_of(code: str, teid: int) -> int | None:
    """The address of the page that a TEID names; None of an interruption that stores none."""
    try:
        stored = seen(code).stores_teid
    except QuestionError:
        stored = True  # what else is wrong is said where the code is read
    return teid & -PAGE if stored else None


def _could_be(kind: Kind, code: Code, teid: int) -> bool:
    """Whether an access of a kind can give a TEID, by the bits that say what it was."""
    if teid & _CHANGED not in (0, STORES if kind is Kind.WRITE else FETCHES):
        return False
    if code is not Code.PROTECTION or _is_of_keys(teid):
        return True
    allowed = Kind.FETCH if teid & _MARKS == MARKS[Reason.EXECUTE_DENIED] else Kind.WRITE
    return teid & _MARKS in (*MARKS.values(), _LIST) and kind is allowed


def _is_of_keys(teid: int) -> bool:
    """Whether the TEID of a protection exception can be of key-controlled protection, which denies
    stores and fetches of any kind."""
    return teid & _MARKS in (0, _KEY)


def _space(teid: int) -> AddressSpace:
    if teid & _SPACE not in set(AddressSpace):
        raise QuestionError(
            f"TEID {teid:#x} is of a space that an access register chose, which is not known here"
        )
    return AddressSpace(teid & _SPACE)


def told(code: str, _: int | None, teid: int | None, __: Sequence[Access]) -> SeenFault:
    """What an interruption says by itself."""
    return seen(code, teid)


def reproduced(
    snapshot: Snapshot,
    code: str,
    address: Virtual,
    teid: int | None,
    linux: bool,
    named: Sequence[Access],
) -> tuple[Snapshot, SeenFault, Reproduction]:
    """The snapshot, what the interruption says, and whether the tables give it."""
    fault = seen(code, teid)
    if teid is not None and fault.code not in _WITHOUT_TEID and (address ^ teid) & -PAGE:
        raise QuestionError(
            f"TEID {teid:#x} is of the page at {teid & -PAGE:#x}, and not of {address:#x}"
        )
    return snapshot, fault, _compare(snapshot, fault, address, linux, named)


def _compare(
    snapshot: Snapshot,
    fault: SeenFault,
    address: Virtual,
    linux: bool,
    named: Sequence[Access],
) -> Reproduction:
    """Whether the tables as they are would give the interruption.

    named  the accesses that are thought to have ended in it: of those that cannot it is said what
           they come to
    """
    space = fault.accesses[0].space if fault.accesses else AddressSpace.PRIMARY
    named = [replace(one, space=space) for one in named]
    kinds = [one.kind for one in fault.accesses]
    meant = [one for one in named if one.kind in kinds]
    asked = meant or fault.accesses
    others = () if meant else explain_all(snapshot, address, named, linux)
    wrong = tuple(_is_another(one) for one in others)
    explained = explain_all(snapshot, address, asked, linux)
    giving = tuple(one for one in explained if _gives(one.outcome, fault) and not one.unknown)
    if giving:
        return Reproduction(giving, (), wrong)
    open_to = depends(snapshot, explained, lambda found: _gives(found, fault))
    reasons = () if open_to else _likely(snapshot, fault, address, explained)
    return Reproduction((), tuple(explained), (*wrong, *reasons), depends=open_to)


def _is_another(one: Explanation) -> str:
    """That an interruption that was seen is not of an access."""
    what = "is allowed"
    if isinstance(one.outcome, Fault):
        what = f"ends in code {one.outcome.code:#04x}"
    return f"a {one.access} {what} there, so that another access ended in this"


def _gives(answer: Outcome, fault: SeenFault) -> bool:
    if not isinstance(answer, Fault) or answer.code is not fault.code:
        return False
    if fault.teid is None or answer.teid is None:
        return True
    # Without the facility that says so, a TEID does not tell stores from fetches.
    known = ~0 if fault.teid & _CHANGED else ~_CHANGED
    told = -PAGE | _CHANGED | _SPACE
    if fault.code is Code.PROTECTION:
        told |= _MARKS
        if not fault.teid & _MARKS and answer.reason is Reason.LOW_ADDRESS:
            told &= ~_MARKS
    return not (answer.teid ^ fault.teid) & told & known


_SETTINGS: Final = (
    (Cr0.EDAT, "CR0.EDAT"),
    (Cr0.IEP, "CR0.IEP"),
    (Cr0.LOW_ADDRESS_PROTECTION, "CR0.low-address-protection"),
)
"""Bits on which it depends whether an access faults, which a processor may have changed since."""


def _otherwise(snapshot: Snapshot, fault: SeenFault, one: Explanation) -> Iterator[str]:
    """With which other bits of CR0 the processor would end in it."""
    cpu: Cpu = snapshot.cpu
    for bit, name in _SETTINGS:
        other = replace(cpu, cr0=cpu.cr0 ^ bit)
        if _gives(outcome(other, snapshot.memory, one.translation.asked, one.access), fault):
            is_set = bool(cpu.cr0 & bit)
            yield (
                f"a {one.access} gives it with {name}={int(not is_set)}, and here it is"
                f" {int(is_set)} (--cr0)"
            )


def _likely(
    snapshot: Snapshot, fault: SeenFault, address: Virtual, instead: Sequence[Explanation]
) -> Iterator[str]:
    """Why the tables do not give the interruption that was seen."""
    if not fault.accesses:
        yield (
            "no access has such a TEID: bits 52 and 53 (fetch, store) are not both 1, and of a"
            " protection exception must go with bits 56, 60 and 61"
        )
        return
    for one in instead:
        yield from _otherwise(snapshot, fault, one)
    mode = snapshot.cpu.mode
    above = fault.code in TRANSLATION[mode.level + 1 :]
    if fault.code is Code.ASCE_TYPE or above:
        yield (
            "another address space: no table below gives it, and here the ASCE is"
            f" {snapshot.cpu.asce:#x}, of a {mode.value} table, which serves addresses of"
            f" {mode.address_bits} bits"
        )
        return
    marks = 0 if fault.teid is None else fault.teid & _MARKS
    if fault.code is Code.PROTECTION and marks == MARKS[Reason.LOW_ADDRESS]:
        if not any(low.start <= address | PAGE - 1 and address & -PAGE < low.stop for low in LOW):
            yield "low-address protection is of the first two pages, and not of this one"
        return
    if fault.code is Code.PROTECTION and marks == _LIST:
        yield (
            "an access-list entry allowed no stores, which is not looked at here: no table gives"
            " bits 60 and 61 of the TEID"
        )
        return
    if fault.code is Code.PROTECTION and marks in (0, _KEY):
        yield (
            "a storage key forbade it: access key, fetch protection and the PSW's key are not"
            " looked at here"
        )
    elif fault.code is Code.ADDRESSING:
        yield "there is no memory at the frame, or at a table on the way"
    if any(not isinstance(one.outcome, Fault) for one in instead):
        yield "the processor still used what was there before: IPTE, IDTE or PTLB was missing"
    yield "the tables were changed since"
    yield f"another address space: here the ASCE is {snapshot.cpu.asce:#x}"
