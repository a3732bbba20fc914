"""What aborts that were seen say, and whether tables give them ("ESR_EL1, Exception Syndrome
Register (EL1)", "ISS encoding for an exception from a Data Abort")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from harness.inspect.fault import Explanation, Reproduction, explain_all
from harness.inspect.number import read
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.supposed import CHANGED, depends
from harness.paging.address import Virtual
from harness.paging.arm64.access import BELOW_0, Access, Fault, Kind, Outcome, Status, outcome
from harness.paging.arm64.cpu import Sctlr, Tcr

REPORTED: Final = ("esr",)
"""The options by which more is told of an abort than its code and FAR_EL1: the code as ESR_EL1."""

_FETCH, _DATA = (0x20, 0x21), (0x24, 0x25)
"""Exception classes of instruction aborts and of data aborts, from EL0 and from EL1."""

_OVERLAY, _DIRTY_STATE = 1 << 38, 1 << 37
"""Bits of ISS2, which tell of permission faults why."""

_WNR, _S1PTW, _CM, _EA, FNV = (1 << bit for bit in (6, 7, 8, 9, 10))
_STATUS: Final = 0x3F

_COMPARED: Final = 0x3F << 26 | _WNR | _STATUS
"""What of ESR_EL1 an access decides: EC, WnR and the fault status code."""

_CLASSES: Final = {
    0x00: "an exception of unknown reason",
    0x15: "SVC, a system call",
    0x22: "a PC that is not aligned",
    0x26: "an SP that is not aligned",
    0x2F: "an SError",
    0x3C: "BRK",
}
"""What other exception classes are, of those that are mistaken for aborts."""

_OTHERS: Final = {
    0b010000: "synchronous external abort",
    0b010001: "tag check fault",
    0b011000: "parity or ECC error",
    0b101000: "granule protection fault",
    0b110000: "TLB conflict abort",
    0b110001: "unsupported atomic hardware update of a descriptor",
    0b110100: "implementation defined fault (lockdown)",
    0b110101: "unsupported exclusive or atomic access",
}
"""Fault status codes that no walk gives."""

_CALLED: Final = {
    Status.ADDRESS_SIZE: "address size fault",
    Status.TRANSLATION: "translation fault",
    Status.ACCESS_FLAG: "access flag fault",
    Status.PERMISSION: "permission fault",
    Status.EXTERNAL_ON_WALK: "external abort on the walk",
}
"""Those that come with a level."""

_ECC_ON_WALK: Final = {0b011011: -1, **{0b011100 | level: level for level in range(4)}}


def _coded() -> dict[int, str]:
    """Fault status codes in words."""
    found = dict(_OTHERS)
    for status, called in _CALLED.items():
        levels = range(-1 if status in BELOW_0 else 0, 4)
        found |= {status.at(level): f"{called} at L{level}" for level in levels}
    found |= {
        code: f"parity or ECC error on the walk at L{level}" for code, level in _ECC_ON_WALK.items()
    }
    found[Status.ALIGNMENT.at(0)] = "alignment fault"
    return found


CODES: Final = _coded()
"""What fault status codes say, with the level as its entries are called."""


@dataclass(frozen=True)
class SeenFault:
    """An abort that was seen.

    syndrome  ESR_EL1
    accesses  which raise it, the usual first
    said      what else ESR_EL1 says, a phrase each
    """

    syndrome: int
    accesses: tuple[Access, ...]
    said: tuple[str, ...]

    @property
    def status(self) -> int:
        """The fault status code, IFSC or DFSC."""
        return self.syndrome & _STATUS

    @property
    def maintains(self) -> bool:
        """Whether an instruction that maintains caches or translates raised it, for which WnR says
        nothing."""
        return bool(self.syndrome & _CM)


def status_text(syndrome: int) -> str:
    """The exception that a value of ESR_EL1 is of."""
    exception = syndrome >> 26 & 0x3F
    kind = "instruction" if exception in _FETCH else "data"
    code = CODES.get(syndrome & _STATUS, f"reserved fault status code {syndrome & _STATUS:#b}")
    return f"{kind} abort, {code}"


def seen(text: str) -> SeenFault:
    """The abort of which ESR_EL1 is written as `text`.

    Raises QuestionError for an exception that is no abort.
    """
    try:
        code = read("ESR", text, bare=16)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    exception = code >> 26 & 0x3F
    if exception not in (*_FETCH, *_DATA):
        what = _CLASSES.get(exception, "another exception")
        raise QuestionError(
            f"ESR {code:#x} has EC {exception:#x}, {what}: aborts have 0x20 and 0x21 (instruction),"
            " 0x24 and 0x25 (data)"
        )
    return SeenFault(code, tuple(_accesses(code)), tuple(_said(code)))


def _accesses(code: int) -> Iterator[Access]:
    exception = code >> 26 & 0x3F
    el0, aligned = exception in (0x20, 0x24), code & _STATUS != Status.ALIGNMENT
    if exception in _FETCH:
        kinds = [Kind.FETCH]
    elif code & _CM:
        kinds = [Kind.READ, Kind.WRITE]
    elif code & _WNR:
        kinds = [Kind.WRITE, Kind.AMO, *([] if el0 else [Kind.STTR])]
    else:
        kinds = [Kind.READ, Kind.AMO, *([] if el0 else [Kind.LDTR])]
    yield from (Access(kind, el0, aligned) for kind in kinds)


def _said(code: int) -> Iterator[str]:
    """What ESR_EL1 says besides."""
    exception = code >> 26 & 0x3F
    yield f"EC {exception:#x}: taken from EL{0 if exception in (0x20, 0x24) else 1}"
    if exception in _DATA and code & _CM:
        yield "CM=1: an instruction that maintains caches, or AT; WnR says nothing of it"
    elif exception in _DATA:
        yield f"WnR={int(bool(code & _WNR))}: a {'write' if code & _WNR else 'read'}"
    if code & _S1PTW:
        yield "S1PTW=1: stage 2 faulted on a table of stage 1, under a hypervisor"
    if code & _OVERLAY and _is_denial(code):
        yield "Overlay=1: an overlay, POR_EL0 or POR_EL1, withheld the right (FEAT_S1POE)"
    if code & _DIRTY_STATE and _is_denial(code):
        yield "DirtyBit=1: a write to what is clean, with permission indirection (FEAT_S1PIE)"
    if code & FNV:
        yield "FnV=1: FAR_EL1 holds no address of it"
    if code & _EA and code & _STATUS in (0b010000, *range(0b010011, 0b011000)):
        yield "EA=1: an external abort of a kind that the implementation defines"


def _is_denial(code: int) -> bool:
    """Whether ESR_EL1 is of a permission fault."""
    return code & _STATUS in (Status.PERMISSION.at(level) for level in range(4))


def told(code: str, _: int | None, __: int | None, ___: Sequence[Access]) -> SeenFault:
    """What the abort says by itself."""
    return seen(code)


def reproduced(
    snapshot: Snapshot,
    code: str,
    far: Virtual,
    _: int | None,
    linux: bool,
    named: Sequence[Access],
) -> tuple[Snapshot, SeenFault, Reproduction]:
    """The snapshot, what the abort says, and whether the tables give it."""
    fault = seen(code)
    return snapshot, fault, compare(snapshot, fault, far, linux, named)


def compare(
    snapshot: Snapshot,
    fault: SeenFault,
    far: Virtual,
    linux: bool = False,
    named: Sequence[Access] = (),
) -> Reproduction:
    """Whether the tables as they are would give the abort; `linux` as in `explain`.

    named  the accesses that are thought to have raised it: of those that do not raise such a one it
           is said what they come to
    """
    first, *others = fault.accesses
    meant = [one for one in fault.accesses if one in named]
    elsewhere = () if meant else explain_all(snapshot, far, named, linux)
    wrong = tuple(_is_another(one) for one in elsewhere)
    explained = explain_all(snapshot, far, meant or [first], linux)
    giving = _giving(explained, fault, far)
    if not giving and not meant:  # others are asked only where the usual access would not do
        giving = _giving(explain_all(snapshot, far, others, linux), fault, far)
    if giving:
        return Reproduction(giving, (), wrong)
    by_tables = fault.status in CODES and fault.status not in _OTHERS
    unknown = by_tables and any(one.unrooted for one in explained)
    open_to = depends(snapshot, explained, lambda found: _gives(found, fault, far))
    reasons = () if unknown or open_to else _likely(snapshot, fault, far, explained)
    return Reproduction((), tuple(explained), (*wrong, *reasons), unknown, open_to)


def _giving(
    explained: Sequence[Explanation], fault: SeenFault, far: Virtual
) -> tuple[Explanation, ...]:
    return tuple(one for one in explained if _gives(one.outcome, fault, far) and not one.unknown)


def _is_another(one: Explanation) -> str:
    """That an abort that was seen is not of an access."""
    what = "is allowed"
    if isinstance(one.outcome, Fault):
        what = f"raises {status_text(one.outcome.syndrome)} (ESR {one.outcome.syndrome:#x})"
    return f"{one.access} {what} there, so that another access raised this abort"


def _gives(answer: Outcome, fault: SeenFault, far: Virtual) -> bool:
    compared = _COMPARED & ~(_WNR if fault.maintains else 0)
    return (
        isinstance(answer, Fault)
        and not (answer.syndrome ^ fault.syndrome) & compared
        and (answer.far == far or bool(fault.syndrome & FNV))
    )


def _otherwise(snapshot: Snapshot, fault: SeenFault, one: Explanation) -> Iterator[str]:
    """With which other bits of its registers the processor would raise the abort."""
    cpu, far = snapshot.cpu, one.translation.asked
    keeps, sets = cpu.keeps_dirty_state, cpu.sets_access_flag
    tried: list[tuple[str, str, bool, dict[str, int]]] = [
        ("SCTLR_EL1.WXN", "sctlr", cpu.wxn, {"sctlr": cpu.sctlr ^ Sctlr.WXN}),
        ("TCR_EL1.HA", "tcr", sets, {"tcr": cpu.tcr ^ Tcr.HA}),
        ("TCR_EL1.HD", "tcr", keeps, {"tcr": cpu.tcr ^ Tcr.HD}),
    ]
    if cpu.features.pan:
        tried.append(("PSTATE.PAN", "pstate", cpu.pan, {"pan": not cpu.pan}))
    for name, option, is_set, changed in tried:
        there = outcome(replace(cpu, **changed), snapshot.memory, far, one.access)
        if _gives(there, fault, far):
            yield (
                f"{one.access} gives it with {name}={int(not is_set)}, and here it is"
                f" {int(is_set)} (--{option})"
            )


_BY_MEMORY: Final = (0b010000, 0b010001, 0b011000, 0b101000, *_ECC_ON_WALK)
"""Fault status codes of what memory refuses, and not the tables."""


_TLB_CONFLICT: Final = 0b110000

_CONFLICTS: Final = (
    "the TLB held two translations of the address: a valid descriptor was replaced by another"
    " without break-before-make (write 0, DSB, TLBI, DSB, then the new one)",
    "descriptors of a contiguous group disagree, which lint finds (contiguous-apart)",
)
"""Why there is a TLB conflict abort ("TLB conflict aborts", "Using break-before-make when updating
translation table entries")."""

_UNALIGNED: Final = (
    "SCTLR_EL1.A was 1, and here it is 0 (--sctlr): with it, every access to data that is not"
    " aligned raises it",
    "it was an exclusive or an atomic, or a load-acquire or store-release, which must be aligned in"
    " any memory (with FEAT_LSE2, not cross 16 bytes)",
    "the memory was of a Device type then, which a changed descriptor or MAIR_EL1 (--mair) would"
    " have made it",
)
"""What raises an alignment fault where tables say Normal memory ("Alignment support",
AArch64.UnalignedAccessFaults)."""


def _is_data(fault: SeenFault) -> bool:
    return fault.syndrome >> 26 & 0x3F in _DATA


def _likely(
    snapshot: Snapshot, fault: SeenFault, far: Virtual, instead: Sequence[Explanation]
) -> Iterator[str]:
    """Why the tables do not give the abort that was seen."""
    outcomes = [one.outcome for one in instead]
    if fault.status == Status.ALIGNMENT and not fault.maintains and _is_data(fault):
        yield from _UNALIGNED
    if fault.syndrome & _S1PTW:
        yield "stage 2 denied the walk a table: the hypervisor's tables decide, not these"
    moved = {one.far for one in outcomes if isinstance(one, Fault)} - {far}
    if moved:
        yield f"a branch takes the tag from the address, so that FAR_EL1 would be {min(moved):#x}"
    for one in instead:
        yield from _otherwise(snapshot, fault, one)
    pages = [one for one in outcomes if not isinstance(one, Fault)]
    if fault.status in _BY_MEMORY:
        where = f"{pages[0].physical:#x}, or at " if pages else ""
        yield f"memory refused it, at {where}a table on the way, of which tables say nothing"
    elif fault.status == _TLB_CONFLICT:
        yield from _CONFLICTS
    elif fault.status not in CODES or fault.status in _OTHERS:
        yield "no tables give its fault status code"
    elif fault.syndrome & _OVERLAY and _is_denial(fault.syndrome):
        yield (
            "an overlay withheld the right, of which tables have only the number (POIndex, Linux's"
            " pkey): POR_EL0 and POR_EL1 are not applied here"
        )
    elif pages and fault.status != Status.ALIGNMENT:
        yield (
            "rights were given since, or the processor still used what was there before: it may"
            " keep a valid descriptor until TLBI"
        )
    if snapshot.given:
        yield CHANGED
        return
    yield "the tables were changed since"
    high = far >> 55 & 1
    root = snapshot.cpu.ttbr1 if high else snapshot.cpu.ttbr0
    yield (
        f"another address space: here TTBR{high}_EL1 is {root:#x}; or another processor's registers"
    )
