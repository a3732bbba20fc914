"""What an access comes to: the state of a hart, access and walk make an outcome.

The order of checks is that of "Virtual Address Translation Process" (privileged specification
1.13), whose steps are cited.  `riscv.bulk` gives the same answers for many accesses at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Final

from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Memory
from harness.paging.processor import root_for
from harness.paging.riscv.cpu import Cpu, Privilege, effective, transformed
from harness.paging.riscv.formats import A, D, R, U, W, X
from harness.paging.table import Slot
from harness.paging.walk import Walk, walk


class Kind(IntEnum):
    """What an access does with memory.

    READ   a load, and LR
    WRITE  a store, SC, and cache-block zero
    AMO    all else of the atomic instructions: judged and reported as a write, and never as a read
           ("Addressing and Memory Protection" of Sv32)

    Not covered: cache-block management, allowed where a load or a store is, whose faults are those
    of stores (Zicbom).
    """

    READ = 0
    WRITE = 1
    FETCH = 2
    AMO = 3

    @property
    def writes(self) -> bool:
        return self in (Kind.WRITE, Kind.AMO)


@dataclass(frozen=True, slots=True)
class Access:
    """One access, made as U-mode or else as S-mode."""

    kind: Kind
    user: bool

    def __str__(self) -> str:
        kind = "AMO" if self.kind is Kind.AMO else self.kind.name.lower()
        return f"{'user' if self.user else 'supervisor'} {kind}"


def access_from(cpu: Cpu, privilege: Privilege, kind: Kind) -> Access | None:
    """The access of a hart that runs at `privilege`; None where it is not translated, as those of
    M-mode are unless mstatus.MPRV makes them another's."""
    made = effective(cpu, privilege, kind is Kind.FETCH)
    return None if made is Privilege.M else Access(kind, made is Privilege.U)


class Cause(IntEnum):
    """Exceptions that an access can raise ("Supervisor Cause (scause) Register")."""

    FETCH_ACCESS = 1
    LOAD_ACCESS = 5
    STORE_ACCESS = 7
    FETCH_PAGE = 12
    LOAD_PAGE = 13
    STORE_PAGE = 15

    @property
    def called(self) -> str:
        """What the specification calls it."""
        access, _, fault = self.name.partition("_")
        return f"{_RAISING[access]} {fault.lower()} fault"


_RAISING: Final = {"FETCH": "instruction", "LOAD": "load", "STORE": "store/AMO"}


class Reason(Enum):
    """Why something faults, with the section or the step of "Virtual Address Translation Process"
    that says so."""

    NOT_CANONICAL = "the upper bits of the address differ (Sv39, Sv48, Sv57: Addressing)"
    NO_MEMORY = "no memory is where the entry would be (step 2)"
    NOT_PRESENT = "the entry has V=0 (step 3)"
    RESERVED = (
        "the entry holds what is reserved, points from level 0, or is a misaligned superpage"
        " (steps 3 to 5)"
    )
    USER_DENIED = "an access of U-mode to a page with U=0 (step 6)"
    SUM = "a data access of S-mode to a page with U=1, with SUM=0 (step 6)"
    SUPERVISOR_FETCH = "a fetch of S-mode from a page with U=1 (step 6)"
    READ_DENIED = "a read from a page with R=0, and with X=0 or MXR=0 (step 8)"
    WRITE_DENIED = "a write to a page with W=0 (step 8)"
    EXECUTE_DENIED = "a fetch from a page with X=0 (step 8)"
    NOT_ACCESSED = "the page has A=0, which the hart does not set (Svade; step 9)"
    NOT_DIRTY = "a write to a page with D=0, which the hart does not set (Svade; step 9)"


@dataclass(frozen=True, slots=True)
class Allowed:
    """The access reaches `physical`; the hart sets A in `accessed` and D in `dirty`, which name the
    leaf where it does so and nothing where it leaves them to the software (Svade).

    Whether there is memory at `physical`, or a device, or nothing, is no matter of translation.
    """

    physical: Physical
    accessed: tuple[Slot, ...]
    dirty: Slot | None


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception is raised.

    tval    the address after pointer masking.  Where it is not canonical, a hart may report another
            such address ("Supervisor Trap Value (stval) Register")
    level   where the walk ended, None where there was none
    """

    cause: Cause
    tval: Virtual
    level: int | None
    reason: Reason


Outcome = Allowed | Fault


def outcome(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> Outcome:
    """What the access through the pointer `address` comes to.

    Raises ValueError for an address that is wider than the hart's registers.
    """
    if address >> cpu.xlen:
        raise ValueError(f"there is no address {address:#x} on a hart of {cpu.xlen} bits")
    if access.kind is not Kind.FETCH:
        address = Virtual(transformed(cpu, address, access.user))
    root = root_for(cpu, address)
    if root is None:
        return Fault(page_fault(access.kind), address, None, Reason.NOT_CANONICAL)
    return judge(cpu, walk(memory, root, address), access)


def judge(cpu: Cpu, walk: Walk, access: Access) -> Outcome:
    """What the access comes to, given the walk of its address."""
    if walk.unbacked is not None:
        return Fault(access_fault(access.kind), walk.address, walk.level, Reason.NO_MEMORY)
    slot, raw, entry = walk.steps[-1]
    if isinstance(entry, Absent):
        fault: Reason | None = Reason.NOT_PRESENT
    elif isinstance(entry, Malformed):
        fault = Reason.RESERVED
    else:
        fault = denied(access, raw, cpu.sum, cpu.mxr) or unmarked(access, raw, cpu.sets_marks)
    if fault is not None:
        return Fault(page_fault(access.kind), walk.address, walk.level, fault)
    physical = walk.physical
    assert physical is not None
    if not cpu.sets_marks:
        return Allowed(physical, (), None)
    return Allowed(physical, (slot,), slot if access.kind.writes else None)


def denied(access: Access, leaf: int, sum: bool, mxr: bool) -> Reason | None:
    """The first rule that denies the access to the page of a well-formed leaf (steps 6 and 8), with
    SUM and MXR as they are when it is made."""
    user_page = leaf & U
    if access.user and not user_page:
        return Reason.USER_DENIED
    if access.kind is Kind.FETCH:
        if user_page and not access.user:
            return Reason.SUPERVISOR_FETCH
        return None if leaf & X else Reason.EXECUTE_DENIED
    if user_page and not access.user and not sum:
        return Reason.SUM
    if access.kind.writes:
        return None if leaf & W else Reason.WRITE_DENIED
    return None if leaf & (R | X if mxr else R) else Reason.READ_DENIED


def unmarked(access: Access, leaf: int, sets_marks: bool) -> Reason | None:
    """The rule by which A or D of a leaf, being clear, makes an access fault that is allowed
    otherwise (step 9), unless the hart sets them."""
    if sets_marks:
        return None
    if not leaf & A:
        return Reason.NOT_ACCESSED
    return Reason.NOT_DIRTY if access.kind.writes and not leaf & D else None


def page_fault(kind: Kind) -> Cause:
    """The page fault of the kind of access."""
    if kind is Kind.FETCH:
        return Cause.FETCH_PAGE
    return Cause.STORE_PAGE if kind.writes else Cause.LOAD_PAGE


def access_fault(kind: Kind) -> Cause:
    """The access fault of the kind of access."""
    if kind is Kind.FETCH:
        return Cause.FETCH_ACCESS
    return Cause.STORE_ACCESS if kind.writes else Cause.LOAD_ACCESS
