"""What interrupts that were seen say, and whether tables give them ("Interrupt Definitions").

An interrupt is told by its vector, or better by the register that says why: DSISR of a data storage
interrupt, SRR1 of an instruction storage interrupt.  What bits of both are called rests on Linux
(arch/powerpc/include/asm/reg.h) beside what `paging.power.access` names.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.inspect.fault import Explanation, Reproduction, explain_all
from harness.inspect.number import read
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.supposed import depends
from harness.paging.address import Virtual
from harness.paging.power.access import Access, Fault, Interrupt, Kind, Outcome, Status, outcome

REPORTED: Final = ("dsisr", "srr1")
"""The options by which more is told of an interrupt than its vector and address."""

_BY_REGISTER: Final = {
    "dsisr": Interrupt.DATA_STORAGE,
    "srr1": Interrupt.INSTRUCTION_STORAGE,
}

_DATA: Final = (Kind.READ, Kind.WRITE)

RAISING: Final = {
    Interrupt.DATA_STORAGE: _DATA,
    Interrupt.DATA_SEGMENT: _DATA,
    Interrupt.INSTRUCTION_STORAGE: (Kind.FETCH,),
    Interrupt.INSTRUCTION_SEGMENT: (Kind.FETCH,),
}
"""Which accesses raise an interrupt."""

_HYPERVISOR: Final = (0xE00, 0xE20)
"""The vectors of hypervisor data and instruction storage interrupts, of the second stage."""

_CAUSES: Final[Mapping[int, str]] = {
    Status.NO_TRANSLATION: "no translation: no process, or an entry with V=0",
    Status.UNSUPPORTED: "a tree or a table that is not supported",
    Status.NOT_RECORDED: "R or C is clear, and the processor does not set it",
}
"""What bits of both registers say, by their masks."""

_SECOND_STAGE: Final = {
    0x0002_0000: "the process table, or a table on the way, was not reached in the second stage",
}
_CLASS_KEY: Final = {0x0020_0000: "a virtual page class key, of hashed page tables"}

_OTHERS: Final[Mapping[str, Mapping[int, str]]] = {
    "dsisr": {
        int(Status.NO_EXECUTE): "what SRR1 says of a fetch that is denied (--srr1)",
        0x2000_0000: "the storage attributes of process and partition conflict",
        0x0400_0000: "an instruction that this kind of storage does not take",
        0x0040_0000: "a data watchpoint (DAWR)",
        **_CLASS_KEY,
        **_SECOND_STAGE,
    },
    "srr1": {**_CLASS_KEY, **_SECOND_STAGE},
}
"""The same of what no tree of one stage gives, by the register."""

_OF: Final[Mapping[str, Mapping[int, str]]] = {
    "dsisr": {
        **_CAUSES,
        Status.PROTECTION: "the page, or key 0 of AMR, does not let the access through",
        **_OTHERS["dsisr"],
    },
    "srr1": {
        **_CAUSES,
        Status.NO_EXECUTE: (
            "no fetch from this page: EAA3=0, EAA0=1 in problem state, guarded storage, or key 0"
            " of IAMR"
        ),
        Status.PROTECTION: "another rule of the page, or key 0 of IAMR, forbids the fetch",
        **_OTHERS["srr1"],
    },
}
"""What the bits of a register say that tell why an access failed."""

_LEAST: Final = min(_OF["dsisr"])
"""The lowest cause in DSISR."""

_IN_SRR1: Final = 0x783F_0000
"""What of SRR1 says why a fetch failed: bits 33 to 36 and 42 to 47 by the manual's numbers; the
others are those of the MSR."""

_PROBLEM: Final = 1 << 14
"""MSR.PR, bit 49 by the manual's numbers."""


@dataclass(frozen=True)
class SeenFault:
    """An interrupt that was seen.

    status    DSISR, or what SRR1 says of the fetch; None where only the vector is known
    accesses  which raise it
    said      what the register says, a phrase each
    held      the register as it was given: SRR1 with the MSR in it
    """

    interrupt: Interrupt
    status: int | None
    accesses: tuple[Access, ...]
    said: tuple[str, ...] = ()
    held: int | None = None

    @property
    def register(self) -> str:
        """Where the status was."""
        return "SRR1" if Kind.FETCH in RAISING[self.interrupt] else "DSISR"

    @property
    def address(self) -> str:
        """Where the address was."""
        return "SRR0" if Kind.FETCH in RAISING[self.interrupt] else "DAR"


def code_of(register: str, value: str) -> str:
    """A status as `seen` reads it: of dsisr or srr1."""
    return f"{register} {value}"


_STATUS: Final = re.compile(r"(dsisr|srr1)\s+(.*)", re.IGNORECASE | re.DOTALL)


def seen(text: str) -> SeenFault:
    """The interrupt that is written as its vector or DSISR, none of whose causes is as small, or as
    `code_of` has it.

    Raises QuestionError for one that is none of translation.
    """
    match = _STATUS.fullmatch(text)
    name, digits = (match[1].lower(), match[2]) if match else ("the vector or DSISR", text)
    try:
        code = read(name if match is None else name.upper(), digits, bare=16)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    if match is None and code < _LEAST:
        return _by_vector(code)
    if match is None:
        name = "dsisr"
    return _by_status(name, code)


def _by_vector(code: int) -> SeenFault:
    if code in _HYPERVISOR:
        raise QuestionError(
            f"vector {code:#x} is of the second stage, under a hypervisor, whose tables are not"
            " looked at here"
        )
    if code not in set(Interrupt):
        raise QuestionError(
            f"vector {code:#x} is no fault of translation: those are 0x300 and 0x400 (data and"
            " instruction storage interrupt), and 0x380 and 0x480 (segment interrupts)"
        )
    interrupt = Interrupt(code)
    return SeenFault(interrupt, None, _accesses(RAISING[interrupt]))


def _by_status(name: str, code: int) -> SeenFault:
    interrupt = _BY_REGISTER[name]
    status = code & _IN_SRR1 if name == "srr1" else code
    known = sum(_OF[name]) | (int(Status.STORE) if name == "dsisr" else 0)
    if not status & known:
        raise QuestionError(
            f"{name.upper()} {code:#x} says nothing of a failed access: of a segment interrupt,"
            " which leaves it as it was, name the vector, --code 0x380 or 0x480"
        )
    kinds: Sequence[Kind] = RAISING[interrupt]
    said = [f"{bit:#010x}: {words}" for bit, words in _OF[name].items() if status & bit]
    users: Sequence[bool] = (True, False)
    if name == "dsisr":
        stores = bool(status & Status.STORE)
        kinds = (Kind.WRITE if stores else Kind.READ,)
        said.append(f"{int(Status.STORE):#010x}: a store" if stores else "not a store")
    if unknown := status & ~known:
        said.append(f"{unknown:#010x}: not known here")
    if msr := code & ~status:
        users = (bool(msr & _PROBLEM),)
        said.append(f"MSR.PR={int(users[0])}: {'problem' if users[0] else 'privileged'} state")
    return SeenFault(interrupt, status, _accesses(kinds, users), tuple(said), code)


def _accesses(kinds: Sequence[Kind], users: Sequence[bool] = (True, False)) -> tuple[Access, ...]:
    return tuple(Access(kind, user) for kind in kinds for user in users)


def told(code: str, _: int | None, __: int | None, ___: Sequence[Access]) -> SeenFault:
    """What an interrupt says by itself."""
    return seen(code)


def reproduced(
    snapshot: Snapshot,
    code: str,
    address: Virtual,
    _: int | None,
    linux: bool,
    named: Sequence[Access],
) -> tuple[Snapshot, SeenFault, Reproduction]:
    """The snapshot, what the interrupt says, and whether the tables give it."""
    fault = seen(code)
    return snapshot, fault, compare(snapshot, fault, address, linux, named)


def compare(
    snapshot: Snapshot,
    fault: SeenFault,
    address: Virtual,
    linux: bool = False,
    named: Sequence[Access] = (),
) -> Reproduction:
    """Whether the tables as they are would give the interrupt; `linux` as in `explain`.

    named  the accesses that are thought to have raised it: of those that do not raise such a one
           it is said what they come to
    """
    meant = [one for one in fault.accesses if one in named]
    others = () if meant else explain_all(snapshot, address, named, linux)
    wrong = tuple(_is_another(one) for one in others)
    explained = explain_all(snapshot, address, meant or fault.accesses, linux)
    giving = tuple(one for one in explained if _gives(one.outcome, fault) and not one.unknown)
    if giving:
        return Reproduction(giving, (), wrong)
    unknown = _is_of_tables(fault) and any(one.unrooted for one in explained)
    open_to = depends(snapshot, explained, lambda found: _gives(found, fault))
    reasons = () if unknown or open_to else _likely(snapshot, fault, explained)
    return Reproduction((), tuple(explained), (*wrong, *reasons), unknown, open_to)


_BY_ADDRESS: Final = (Interrupt.DATA_SEGMENT, Interrupt.INSTRUCTION_SEGMENT)
"""The interrupts that an address has by itself."""


def _is_of_tables(fault: SeenFault) -> bool:
    """Whether tables of one stage can give the interrupt."""
    others = sum(_OTHERS[fault.register.lower()])
    return fault.interrupt not in _BY_ADDRESS and not (fault.status or 0) & others


def _is_another(one: Explanation) -> str:
    """That an interrupt that was seen is not of an access."""
    what = "is allowed"
    if isinstance(one.outcome, Fault):
        what = f"raises a {one.outcome.interrupt.called}"
    return f"a {one.access} {what} there, so that another access raised this interrupt"


def _gives(answer: Outcome, fault: SeenFault) -> bool:
    return (
        isinstance(answer, Fault)
        and answer.interrupt is fault.interrupt
        and fault.status in (None, answer.status)
    )


def _otherwise(snapshot: Snapshot, fault: SeenFault, one: Explanation) -> Iterator[str]:
    """In which other state the processor would raise the interrupt."""
    cpu, where = snapshot.cpu, one.translation.asked
    denied = {"amr": 3 << 62, "iamr": 1 << 62}
    tried = [
        (name, f"{name.upper()} that denies under key 0 (--{name})", {name: cpu_value | bits})
        for name, bits in denied.items()
        if (cpu_value := getattr(cpu, name)) | bits != cpu_value
    ]
    tried += [
        (name, f"{name.upper()}=0, and here it is {value:#x} (--{name})", {name: 0})
        for name in denied
        if (value := getattr(cpu, name))
    ]
    sets = cpu.sets_marks
    who = f"a processor that {'leaves R and C to software' if sets else 'sets R and C itself'}"
    tried.append(("marks", who, {"sets_marks": not sets}))
    for _, what, changed in tried:
        there = outcome(replace(cpu, **changed), snapshot.memory, where, one.access)
        if _gives(there, fault):
            yield f"a {one.access} gives it with {what}"


def _likely(snapshot: Snapshot, fault: SeenFault, instead: Sequence[Explanation]) -> Iterator[str]:
    """Why the tables do not give the interrupt that was seen."""
    if fault.interrupt not in _BY_ADDRESS and not _is_of_tables(fault):
        yield "the tables of one stage give no such cause"
    if fault.interrupt in _BY_ADDRESS:
        yield (
            "it was of another address: quadrant and bits 61:52 of the address alone give a segment"
            " interrupt, and not the tables"
        )
        return
    for one in instead:
        yield from _otherwise(snapshot, fault, one)
    if any(one.translation.leaf for one in instead):
        yield (
            "rights were given since, or the processor still used what was there before: it may"
            " keep a translation until tlbie"
        )
    yield "the tables were changed since"
    yield "another process, or the tables of another processor (--pid, --quadrant0)"
