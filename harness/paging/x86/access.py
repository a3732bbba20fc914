"""What an access comes to: CPU state, access and walk make an outcome.

The order of checks is the manual's: the address by itself, then presence and reserved bits
from the top down, and rights only after a complete, valid walk (SDM 4.6 and 4.7).
`x86.bulk` gives the same answers for many accesses at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Memory
from harness.paging.processor import root_for
from harness.paging.table import Slot
from harness.paging.walk import Walk, walk
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, linear
from harness.paging.x86.formats import key_of


class Kind(IntEnum):
    """What an access does with memory, and by which way it comes.

    PUSH and POP stand for every write and read that refers to the stack segment; SHADOW_READ
    and SHADOW_WRITE are those that only shadow-stack operations make.
    """

    READ = 0
    WRITE = 1
    FETCH = 2
    PUSH = 3
    POP = 4
    SHADOW_READ = 5
    SHADOW_WRITE = 6

    @property
    def writes(self) -> bool:
        return self in (Kind.WRITE, Kind.PUSH, Kind.SHADOW_WRITE)

    @property
    def stack(self) -> bool:
        return self in (Kind.PUSH, Kind.POP)

    @property
    def shadow(self) -> bool:
        return self in (Kind.SHADOW_READ, Kind.SHADOW_WRITE)


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
        kind = self.kind.name.lower().replace("_", " stack ")
        return f"{how}{'user' if self.user else 'supervisor'} {kind}"


class Vector(IntEnum):
    """Exceptions that an access can raise (SDM 6.15)."""

    SS = 12
    GP = 13
    PF = 14


class Error(IntFlag):
    """Bits of the error code of a page fault (SDM 4.7)."""

    P = 1 << 0
    W = 1 << 1
    U = 1 << 2
    RSVD = 1 << 3
    I = 1 << 4  # noqa: E741 - the manual's name
    PK = 1 << 5
    SS = 1 << 6


class Reason(Enum):
    """Why something faults, with the section of the SDM that says so, of volume 3A by default; LASS
    is the one on linear-address-space separation."""

    NOT_CANONICAL = "the address is not canonical (volume 1, 3.3.7.1)"
    LASS_USER = "a user access to an address with bit 63 set, with CR4.LASS=1 (LASS)"
    LASS_FETCH = "a supervisor fetch from an address with bit 63 clear, with CR4.LASS=1 (LASS)"
    LASS_DATA = (
        "a supervisor data access to an address with bit 63 clear, with CR4.LASS=1 and CR4.SMAP=1"
        " (LASS)"
    )
    NO_PDPTE = "the PDPTE of the address is not present (4.4.2)"
    NOT_PRESENT = "the entry is not present (4.7)"
    RESERVED = "the entry has reserved bits set (4.7)"
    USER_DENIED = "a user access to a supervisor page (4.6.1)"
    WRITE_DENIED = "a write to a read-only page (4.6.1)"
    EXECUTE_DENIED = "a fetch from an execute-disabled page (4.6.1)"
    SMEP = "a supervisor fetch from a user page with CR4.SMEP=1 (4.6.1)"
    SMAP = "a supervisor data access to a user page with CR4.SMAP=1 (4.6.1)"
    SHADOW_STACK = "a shadow-stack access to a page that is no shadow stack of its mode (4.6.1)"
    PKU = "data on a user page whose key PKRU denies (4.6.2)"
    PKS = "data on a supervisor page whose key IA32_PKRS denies (4.6.2)"
    CR3_RESERVED = "a CR3 with reserved bits set is loaded (4.5.2)"
    PDPTE_RESERVED = "a PDPTE with reserved bits set is loaded (4.4.1)"
    LA57_CHANGED = "CR4.LA57 is changed in long mode (4.1.2)"
    PAE_CLEARED = "CR4.PAE is cleared in long mode (4.1.2)"
    CR4_RESERVED = "a CR4 with reserved bits set is loaded (2.5)"
    PCIDE_SET = "CR4.PCIDE is set outside long mode, or while CR3 has a PCID (4.10.1)"
    CET_WITHOUT_WP = "CR4.CET=1 with CR0.WP=0 is loaded (2.5)"
    CR0_INVALID = (
        "a CR0 with PG=1 and PE=0, NW=1 and CD=0, PG=0 in 64-bit mode, or bits 63:32 is loaded"
        " (2.5)"
    )


@dataclass(frozen=True, slots=True)
class Allowed:
    """The access reaches `physical`; the machine sets A in `accessed` and D in `dirty`."""

    physical: Physical
    accessed: tuple[Slot, ...]
    dirty: Slot | None


@dataclass(frozen=True, slots=True)
class Fault:
    """An exception is raised.

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
    """What the access to `address` comes to.

    In data accesses metadata in the address is masked first, where LAM is on.
    Raises ValueError for an address that is wider than the CPU's mode has them.
    """
    if not cpu.long and address not in LEGACY_SPAN:
        raise ValueError(f"outside long mode there is no address {address:#x}: it is {LEGACY_SPAN}")
    if access.kind is not Kind.FETCH:
        address = linear(cpu, address)
    root = root_for(cpu, address)
    if root is not None:
        return judge(cpu, walk(memory, root, address), access)
    if cpu.long:
        return _without_walk(access, Reason.NOT_CANONICAL)
    return Fault(Vector.PF, described(cpu, access), address, None, Reason.NO_PDPTE)


def _without_walk(access: Access, reason: Reason) -> Fault:
    """The exception for an address that is wrong whatever the tables say: #SS(0) for what refers to
    the stack segment, else #GP(0)."""
    vector = Vector.SS if access.kind.stack else Vector.GP
    return Fault(vector, 0, None, None, reason)


def judge(cpu: Cpu, walk: Walk, access: Access) -> Outcome:
    """What the access comes to, given the walk of its address."""
    apart = separated(cpu, walk.address >> 63, access)
    if apart is not None:
        return _without_walk(access, apart)
    if walk.unbacked is not None:
        return Unbacked(walk.unbacked)
    entry = walk.steps[-1].entry
    error, fault = described(cpu, access), None
    if isinstance(entry, Absent):
        fault = Reason.NOT_PRESENT
    elif isinstance(entry, Malformed):
        error, fault = error | Error.P | Error.RSVD, Reason.RESERVED
    else:
        granted, key = walk.granted, key_of(walk.steps[-1].raw)
        locked = key_denies(cpu, access, granted, key)
        error |= Error.P | (Error.PK if locked else 0)
        special = access.kind.shadow and shadow_stack(walk)
        fault = denied(cpu, access, granted, special) or locked
    if fault is not None:
        return Fault(Vector.PF, int(error), walk.address, walk.level, fault)
    physical = walk.physical
    assert physical is not None
    used = tuple(step.slot for step in walk.steps)
    return Allowed(physical, used, used[-1] if access.kind.writes else None)


def separated(cpu: Cpu, half: int, access: Access) -> Reason | None:
    """The rule by which LASS keeps the access from one half of the addresses, before there is a
    walk (SDM volume 3A, linear-address-space separation).

    An address that is not canonical raises the same exception, so which comes first does not show.

    half  bit 63 of the address: 0 for the user's half, 1 for the supervisor's
    """
    if not cpu.lass or access.user != bool(half):
        return None
    if access.user:
        return Reason.LASS_USER
    if access.kind is Kind.FETCH:
        return Reason.LASS_FETCH
    return Reason.LASS_DATA if cpu.smap and (access.implicit or not cpu.ac) else None


def denied(cpu: Cpu, access: Access, granted: int, shadow_stack: bool = False) -> Reason | None:
    """The first rule that denies the access to a page with the given rights (SDM 4.6.1).

    shadow_stack  whether the page is one
    """
    rights = cpu.format.rights
    user_page = granted & rights["user"]
    if access.user and not user_page:
        return Reason.USER_DENIED
    if access.kind.shadow:
        fits = shadow_stack and access.user == bool(user_page)
        return None if fits else Reason.SHADOW_STACK
    if access.kind is Kind.FETCH:
        if not access.user and user_page and cpu.smep:
            return Reason.SMEP
        execute = rights.get("execute", 0)
        return Reason.EXECUTE_DENIED if execute and not granted & execute else None
    if not access.user and user_page and cpu.smap and (access.implicit or not cpu.ac):
        return Reason.SMAP
    if access.kind.writes and not granted & rights["write"] and (access.user or cpu.wp):
        return Reason.WRITE_DENIED
    return None


def never_withheld(cpu: Cpu) -> int:
    """The rights that no entry withholds from the supervisor, as bits of the format: writing, with
    CR0.WP=0 (SDM 4.6.1).  The user has what entries give and no more."""
    return 0 if cpu.wp else cpu.format.rights["write"]


def key_denies(cpu: Cpu, access: Access, granted: int, key: int) -> Reason | None:
    """The rule by which the protection key of a page denies the access to it (SDM 4.6.2).

    PKRS is not asked about a user's access to a supervisor page, which nothing can allow.
    """
    user_page = bool(granted & cpu.format.rights["user"])
    if access.kind is Kind.FETCH or (access.user and not user_page):
        return None
    keys = cpu.user_keys if user_page else cpu.supervisor_keys
    access_disabled, write_disabled = keys >> 2 * key & 1, keys >> 2 * key + 1 & 1
    if access_disabled or (write_disabled and access.kind.writes and (access.user or cpu.wp)):
        return Reason.PKU if user_page else Reason.PKS
    return None


def shadow_stack(walk: Walk) -> bool:
    """Whether the page that a walk found is a shadow stack: R/W=1 in every entry above its own,
    which has R/W=0 and D=1 (SDM 4.6.1)."""
    format = walk.root.table.format
    write, dirty = format.rights["write"], format.dirty
    *above, leaf = (step.raw for step in walk.steps)
    return all(raw & write for raw in above) and leaf & (write | dirty) == dirty


def described(cpu: Cpu, access: Access) -> int:
    """The bits of the error code that describe the access, whatever failed (SDM 4.7)."""
    error = Error(0)
    if access.kind.writes:
        error |= Error.W
    if access.user:
        error |= Error.U
    if access.kind is Kind.FETCH and cpu.reports_fetches:
        error |= Error.I
    if access.kind.shadow:
        error |= Error.SS
    return int(error)
