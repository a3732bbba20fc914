"""What program interruptions that were seen say, and whether tables give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.inspect.fault import Explanation, Reproduction, explain_all
from harness.inspect.number import read
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual
from harness.paging.s390.access import (
    FETCHES,
    MARKS,
    PAGE,
    STORES,
    Access,
    Code,
    Fault,
    Kind,
    Outcome,
    outcome,
)
from harness.paging.s390.cpu import AddressSpace, Cpu, Cr0

REPORTED: Final = ("teid",)
"""The options by which more is told of an interruption than its code and the address."""

_EVENTS: Final = 0x7F
"""Of a code as it is stored: without PER events (0x80), and the bits that other facilities set."""

_SPACE: Final = 3
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
    if code is Code.PROTECTION:
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
    executes = teid & 0x84 == 0x84
    return code is not Code.PROTECTION or executes == (kind is Kind.FETCH)


def _space(teid: int) -> AddressSpace:
    if teid & _SPACE not in set(AddressSpace):
        raise QuestionError(
            f"TEID {teid:#x} is of a space that an access register chose, which is not known here"
        )
    return AddressSpace(teid & _SPACE)


def told(code: str, _: int | None, teid: int | None) -> SeenFault:
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
    reasons = (*wrong, *_likely(snapshot, fault, address, explained))
    return Reproduction((), tuple(explained), reasons)


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
        told |= max(MARKS.values())
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
    for one in instead:
        yield from _otherwise(snapshot, fault, one)
    if fault.code is Code.PROTECTION:
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
