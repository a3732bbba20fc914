"""What an access comes to: CPU state, access and walk make an outcome.

The order of checks is the manual's: the canonical form, then presence and reserved bits
from the top down, and rights only after a complete, valid walk (SDM 4.6 and 4.7).
`x86.bulk` gives the same answers for many accesses at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Memory
from harness.paging.table import Slot
from harness.paging.walk import Walk, walk
from harness.paging.x86.cpu import Cpu, root_for


class Kind(IntEnum):
    """What an access does with memory."""

    READ = 0
    WRITE = 1
    FETCH = 2


@dataclass(frozen=True, slots=True)
class Access:
    """One access.  `implicit` is said of a supervisor's access to a system structure, such as
    a descriptor table, whatever the privilege level (SDM 4.6.1)."""

    kind: Kind
    user: bool
    implicit: bool = False

    def __post_init__(self) -> None:
        if self.implicit and (self.user or self.kind is Kind.FETCH):
            raise ValueError("an implicit access is a supervisor's, and to data")

    def __str__(self) -> str:
        how = "implicit " if self.implicit else ""
        return f"{how}{'user' if self.user else 'supervisor'} {self.kind.name.lower()}"


class Vector(IntEnum):
    """Exceptions that an access can raise (SDM 6.15)."""

    GP = 13
    PF = 14


class Error(IntFlag):
    """Bits of the error code of a page fault (SDM 4.7)."""

    P = 1 << 0
    W = 1 << 1
    U = 1 << 2
    RSVD = 1 << 3
    I = 1 << 4  # noqa: E741 - the manual's name


class Reason(Enum):
    """Why an access faults, with the section of SDM volume 3A that says so."""

    NOT_CANONICAL = "the address is not canonical (3.3.7.1)"
    NOT_PRESENT = "the entry is not present (4.7)"
    RESERVED = "the entry has reserved bits set (4.7)"
    USER_DENIED = "a user access to a supervisor page (4.6.1)"
    WRITE_DENIED = "a write to a read-only page (4.6.1)"
    EXECUTE_DENIED = "a fetch from an execute-disabled page (4.6.1)"
    SMEP = "a supervisor fetch from a user page with CR4.SMEP=1 (4.6.1)"
    SMAP = "a supervisor data access to a user page with CR4.SMAP=1 (4.6.1)"


@dataclass(frozen=True, slots=True)
class Allowed:
    """The access reaches `physical`; the machine sets A in `accessed` and D in `dirty`."""

    physical: Physical
    accessed: tuple[Slot, ...]
    dirty: Slot | None


@dataclass(frozen=True, slots=True)
class Fault:
    """The access raises an exception.

    `cr2` is None where the exception leaves CR2 alone; `level` is where the walk ended, None
    where there was none.
    """

    vector: Vector
    error: int
    cr2: Virtual | None
    level: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Unbacked:
    """The walk needs an entry from memory that is not there: the rules do not say what happens."""

    slot: Slot


Outcome = Allowed | Fault | Unbacked


def outcome(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> Outcome:
    """What the access to `address` comes to."""
    root = root_for(cpu, address)
    if root is None:
        return Fault(Vector.GP, 0, None, None, Reason.NOT_CANONICAL)
    return judge(cpu, walk(memory, root, address), access)


def judge(cpu: Cpu, walk: Walk, access: Access) -> Outcome:
    """What the access comes to, given the walk of its address."""
    if walk.unbacked is not None:
        return Unbacked(walk.unbacked)
    entry = walk.steps[-1].entry
    if isinstance(entry, Absent):
        return _page_fault(cpu, walk, access, 0, Reason.NOT_PRESENT)
    if isinstance(entry, Malformed):
        return _page_fault(cpu, walk, access, Error.P | Error.RSVD, Reason.RESERVED)
    reason = denied(cpu, access, walk.granted)
    if reason is not None:
        return _page_fault(cpu, walk, access, Error.P, reason)
    physical = walk.physical
    assert physical is not None
    used = tuple(step.slot for step in walk.steps)
    return Allowed(physical, used, used[-1] if access.kind is Kind.WRITE else None)


def denied(cpu: Cpu, access: Access, granted: int) -> Reason | None:
    """The first rule that denies the access to a page with the given rights (SDM 4.6.1)."""
    rights = cpu.format.rights
    user_page = granted & rights["user"]
    if access.user and not user_page:
        return Reason.USER_DENIED
    if access.kind is Kind.FETCH:
        if not access.user and user_page and cpu.smep:
            return Reason.SMEP
        return None if granted & rights["execute"] else Reason.EXECUTE_DENIED
    if not access.user and user_page and cpu.smap and (access.implicit or not cpu.ac):
        return Reason.SMAP
    if access.kind is Kind.WRITE and not granted & rights["write"] and (access.user or cpu.wp):
        return Reason.WRITE_DENIED
    return None


def _page_fault(cpu: Cpu, walk: Walk, access: Access, error: int, reason: Reason) -> Fault:
    """W, U and I describe the access, whatever failed (SDM 4.7)."""
    if access.kind is Kind.WRITE:
        error |= Error.W
    if access.user:
        error |= Error.U
    if access.kind is Kind.FETCH and (cpu.smep or cpu.nxe):
        error |= Error.I
    return Fault(Vector.PF, int(error), walk.address, walk.level, reason)
