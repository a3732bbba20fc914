"""What exceptions that were seen say, and whether tables give them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.inspect.fault import Explanation, Reproduction, explain_all
from harness.inspect.number import read
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.supposed import CHANGED, depends
from harness.paging.address import Virtual
from harness.paging.riscv.access import Access, Cause, Fault, Kind, Outcome, outcome
from harness.paging.riscv.cpu import Cpu, Envcfg, Mstatus

REPORTED: Final[tuple[str, ...]] = ()
"""The options by which more is told of an exception than its cause and stval: none."""

RAISING: Final = {
    Cause.FETCH_ACCESS: (Kind.FETCH,),
    Cause.LOAD_ACCESS: (Kind.READ,),
    Cause.STORE_ACCESS: (Kind.WRITE, Kind.AMO),
    Cause.FETCH_PAGE: (Kind.FETCH,),
    Cause.LOAD_PAGE: (Kind.READ,),
    Cause.STORE_PAGE: (Kind.WRITE, Kind.AMO),
}
"""Which accesses raise an exception ("Supervisor Cause (scause) Register")."""

_GUEST_PAGE: Final = (20, 21, 23)
"""The causes of faults in the second stage of translation, under a hypervisor."""

_ACCESS_FAULTS: Final = (Cause.FETCH_ACCESS, Cause.LOAD_ACCESS, Cause.STORE_ACCESS)


@dataclass(frozen=True)
class SeenFault:
    """An exception that was seen.

    accesses  which raise it, by U-mode and S-mode: the cause does not tell which of them
    """

    cause: Cause
    accesses: tuple[Access, ...]

    @property
    def by_memory(self) -> bool:
        """Whether memory refused the access, and not the entries (an access fault)."""
        return self.cause in _ACCESS_FAULTS


def seen(text: str, cpu: Cpu | None = None) -> SeenFault:
    """The exception whose cause is written as `text`: in decimal where it has one
    or two digits, since no other cause of translation is written like that. Without a hart it is
    one of 64 bits.

    Raises QuestionError for one that is none of translation.
    """
    try:
        code = read("the cause", text, bare=10 if len(text) < 3 and text.isdecimal() else 16)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    if code >> (64 if cpu is None else cpu.xlen) - 1:
        raise QuestionError(f"{code:#x} is the cause of an interrupt, not of a fault")
    if code in _GUEST_PAGE:
        raise QuestionError(
            f"cause {code} is a fault of the second stage, under a hypervisor, whose tables are not"
            " looked at here"
        )
    if code not in set(Cause):
        raise QuestionError(
            f"cause {code} is no fault of translation: those are 1, 5 and 7 (access faults), and"
            " 12, 13 and 15 (page faults)"
        )
    cause = Cause(code)
    users = (True, False)
    accesses = tuple(Access(kind, user) for kind in RAISING[cause] for user in users)
    return SeenFault(cause, accesses)


def told(code: str, _: int | None, __: int | None, named: Sequence[Access]) -> SeenFault:
    """What an exception says by itself."""
    return _by_whom(seen(code), named)


def _by_whom(fault: SeenFault, named: Sequence[Access]) -> SeenFault:
    """An exception of those alone by whom the accesses are that are thought to have raised it; of
    anyone's where there are none."""
    users = {one.user for one in named} or {True, False}
    return replace(fault, accesses=tuple(one for one in fault.accesses if one.user in users))


def reproduced(
    snapshot: Snapshot,
    code: str,
    stval: Virtual,
    _: int | None,
    linux: bool,
    named: Sequence[Access],
) -> tuple[Snapshot, SeenFault, Reproduction]:
    """The snapshot, what the exception says, and whether the tables give it."""
    fault = seen(code, snapshot.cpu)
    found = compare(snapshot, fault, stval, linux, named)
    return snapshot, _by_whom(fault, named), found


def compare(
    snapshot: Snapshot,
    fault: SeenFault,
    stval: Virtual,
    linux: bool = False,
    named: Sequence[Access] = (),
) -> Reproduction:
    """Whether the tables as they are would give the fault; `linux` as in `explain`.

    named  the accesses that are thought to have raised it: of those that do not raise such a one
           it is said what they come to

    Raises QuestionError for an address that is wider than the hart's registers.
    """
    # An AMO is judged as a write is, and need not be told besides.
    meant = [one for one in fault.accesses if one in named]
    asked = meant or [one for one in fault.accesses if one.kind is not Kind.AMO]
    others = () if meant else explain_all(snapshot, stval, named, linux)
    wrong = tuple(_is_another(one) for one in others)
    explained = explain_all(snapshot, stval, asked, linux)
    giving = tuple(
        one for one in explained if _gives(one.outcome, fault, stval) and not one.unknown
    )
    if giving:
        return Reproduction(giving, (), wrong)
    open_to = depends(snapshot, explained, lambda found: _gives(found, fault, stval))
    reasons = () if open_to else _likely(snapshot, fault, stval, explained)
    return Reproduction((), tuple(explained), (*wrong, *reasons), depends=open_to)


def _is_another(one: Explanation) -> str:
    """That a fault that was seen is not of an access."""
    what = "is allowed"
    if isinstance(one.outcome, Fault):
        what = f"raises cause {one.outcome.cause.value}"
    return f"a {one.access} {what} there, so that another access raised this fault"


def _gives(answer: Outcome, fault: SeenFault, stval: Virtual) -> bool:
    return isinstance(answer, Fault) and (answer.cause, answer.tval) == (fault.cause, stval)


_SETTINGS: Final = (
    ("mstatus", int(Mstatus.SUM), "mstatus.SUM"),
    ("mstatus", int(Mstatus.MXR), "mstatus.MXR"),
    ("menvcfg", int(Envcfg.ADUE), "menvcfg.ADUE"),
    ("menvcfg", int(Envcfg.PBMTE), "menvcfg.PBMTE"),
)
"""Bits on which it depends whether an access faults, which a hart may have changed since."""


def _otherwise(snapshot: Snapshot, fault: SeenFault, one: Explanation) -> Iterator[str]:
    """With which other bits of its registers the hart would raise the fault."""
    cpu = snapshot.cpu
    stval = one.translation.asked
    for register, bit, name in _SETTINGS:
        old = getattr(cpu, register)
        changed: dict[str, int] = {register: old ^ bit}
        there = outcome(replace(cpu, **changed), snapshot.memory, stval, one.access)
        if _gives(there, fault, stval):
            is_set = bool(old & bit)
            yield (
                f"a {one.access} gives it with {name}={int(not is_set)}, and here it is"
                f" {int(is_set)} (--{register})"
            )


def _likely(
    snapshot: Snapshot, fault: SeenFault, stval: Virtual, instead: Sequence[Explanation]
) -> Iterator[str]:
    """Why the tables do not give the fault that was seen."""
    outcomes = [one.outcome for one in instead]
    moved = {one.tval for one in outcomes if isinstance(one, Fault)} - {stval}
    if moved:
        yield f"pointer masking makes stval another address: {min(moved):#x}"
    for one in instead:
        yield from _otherwise(snapshot, fault, one)
    pages = [one for one in outcomes if not isinstance(one, Fault)]
    if fault.by_memory:
        where = f"{pages[0].physical:#x}, or at " if pages else ""
        yield (
            f"memory refused it, at {where}a table on the way: nothing is there, or its attributes"
            " (PMA) or PMP forbid the access, of which tables say nothing"
        )
    elif pages:
        yield (
            "rights were given since, or the hart still used what was there before: it may keep"
            " entries, and even absent ones, until SFENCE.VMA"
        )
    elif not snapshot.given and any(
        isinstance(one, Fault) and one.cause in _ACCESS_FAULTS for one in outcomes
    ):
        yield "a table on the way lies outside this memory: what is there decides"
    if snapshot.given:
        yield CHANGED
        return
    yield "the tables were changed since"
    satp = f"{snapshot.cpu.satp:#x}"
    yield f"another address space: here satp is {satp}; or another hart's registers"
