"""What an access comes to: the state of a processor, access and walk make an outcome.

Sources: Power ISA 3.0, Book III, "Radix Tree Translation", "Radix Tree Storage Protection" and, for
DSISR and SRR1, "Interrupt Definitions".  The manual was not at hand, and these rest on programs:

a fetch is denied by bit 35 of SRR1   QEMU; Linux's KVM for its guests (book3s_hv_nested.c)
key 0 denies by bit 36 of DSISR       QEMU; Linux (book3s/64/kup.h), of radix trees
R or C that is not set is bit 45      QEMU from 8.2 on; microwatt (mmu.vhdl)
that denial comes before R and C      the same
ATT=3 may be executed                 QEMU; microwatt denies it

QEMU's are in target/ppc/mmu-radix64.c.  Its commit "target/ppc: Generate storage interrupts for
radix RC changes", of September 2023, quotes the POWER9 User's Manual, 4.10.13.1: a POWER9 raises an
interrupt wherever R or C is to be set.  Before it QEMU set them, which the ISA allows too.

`power.bulk` gives the same answers for many accesses at once.

Left to the machine: whether R is set by an access that faults, and C before a write is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag

from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Malformed
from harness.paging.format import bits
from harness.paging.memory import Memory
from harness.paging.power.cpu import QUADRANT, UNTRANSLATED, Cpu, is_supported, walk_of
from harness.paging.power.formats import ATT, CHANGE, EXECUTE, PRIVILEGED, READ, REFERENCE, WRITE
from harness.paging.table import Root, Slot
from harness.paging.walk import Walk

GUARDED = bits(5)
"""ATT of non-idempotent I/O, from which nothing is executed."""


class Kind(IntEnum):
    """What an access does with memory.  What reserves a granule is a read, what stores
    conditionally a write."""

    READ = 0
    WRITE = 1
    FETCH = 2

    @property
    def writes(self) -> bool:
        return self is Kind.WRITE


@dataclass(frozen=True, slots=True)
class Access:
    """One access, in problem state (MSR.PR=1), which is the user's, or else privileged."""

    kind: Kind
    user: bool

    def __str__(self) -> str:
        return f"{'problem-state' if self.user else 'privileged'} {self.kind.name.lower()}"


class Interrupt(IntEnum):
    """The interrupts that translation can raise, by their vectors."""

    DATA_STORAGE = 0x300
    DATA_SEGMENT = 0x380
    INSTRUCTION_STORAGE = 0x400
    INSTRUCTION_SEGMENT = 0x480

    @property
    def called(self) -> str:
        """What the manual calls it."""
        return f"{self.name.lower().replace('_', ' ')} interrupt"


class Status(IntFlag):
    """Bits of DSISR, and of SRR1 where a fetch fails."""

    NO_TRANSLATION = 1 << 30
    NO_EXECUTE = 1 << 28
    PROTECTION = 1 << 27
    STORE = 1 << 25
    UNSUPPORTED = 1 << 19
    NOT_RECORDED = 1 << 18


class Reason(Enum):
    """Why something faults, with the section that says so."""

    SEGMENT = "bits 61:52 of the address are not 0, or its quadrant has no process (Segment)"
    NO_PROCESS = "the process table has no entry for the process (Process Table)"
    BAD_TREE = "the process table entry describes a tree that is not supported (Process Table)"
    NOT_PRESENT = "the entry has V=0 (Radix Tree Translation)"
    UNSUPPORTED = (
        "the entry leads to a table of a size that is not supported, or is a leaf, or none, where"
        " that may not be (Radix Tree Translation)"
    )
    GUARDED = "a fetch from guarded storage, ATT=2 (Radix Tree Storage Attributes)"
    PRIVILEGED = "an access in problem state to a page with EAA0=1 (Encoded Access Authority)"
    KEY = "a privileged access to a user's page, denied by key 0 (Authority Mask Register)"
    READ_DENIED = "a read from a page with EAA1=0 and EAA2=0 (Encoded Access Authority)"
    WRITE_DENIED = "a write to a page with EAA2=0 (Encoded Access Authority)"
    EXECUTE_DENIED = "a fetch from a page with EAA3=0 (Encoded Access Authority)"

    NOT_REFERENCED = "the page has R=0, which the processor does not set (Reference Recording)"
    NOT_CHANGED = "a write to a page with C=0, which the processor does not set (Change Recording)"

    @property
    def status(self) -> Status:
        """The bit that reports it of data; NO_EXECUTE takes the place of PROTECTION for fetches."""
        return _STATUS.get(self, Status.PROTECTION)


_STATUS = {
    Reason.SEGMENT: Status(0),
    Reason.NO_PROCESS: Status.NO_TRANSLATION,
    Reason.NOT_PRESENT: Status.NO_TRANSLATION,
    Reason.BAD_TREE: Status.UNSUPPORTED,
    Reason.UNSUPPORTED: Status.UNSUPPORTED,
    Reason.NOT_REFERENCED: Status.NOT_RECORDED,
    Reason.NOT_CHANGED: Status.NOT_RECORDED,
}


@dataclass(frozen=True, slots=True)
class Allowed:
    """The access reaches `physical`; the processor sets R in `accessed` and C in `dirty`, which
    name the leaf where it does so and nothing where it leaves them to the software.

    Whether there is memory at `physical`, or a device, or nothing, is no matter of translation.
    """

    physical: Physical
    accessed: tuple[Slot, ...]
    dirty: Slot | None


@dataclass(frozen=True, slots=True)
class Fault:
    """An interrupt is taken.

    status   DSISR, or what SRR1 says of a failed fetch; 0 of a segment interrupt
    address  DAR, or SRR0 of a failed fetch
    level    where the walk ended, None where there was none
    """

    interrupt: Interrupt
    status: int
    address: Virtual
    level: int | None
    reason: Reason


@dataclass(frozen=True, slots=True)
class Unbacked:
    """The walk needs an entry where no memory is: a machine check, of which nothing is said."""

    slot: Slot


Outcome = Allowed | Fault | Unbacked


def outcome(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> Outcome:
    """What the access comes to.

    Raises ValueError for an address of more than 64 bits, and for what is translated in two stages.
    """
    if not 0 <= address < 1 << 64:
        raise ValueError(f"there is no address {address:#x} of 64 bits")
    found = unwalked(cpu, address)
    if isinstance(found, Reason):
        return _fault(access, found, address, None)
    return judge(cpu, walk_of(cpu, memory, found, address), access)


def unwalked(cpu: Cpu, address: int) -> Root | Reason:
    """The root of an address, or why no entry of a tree is read.

    Raises ValueError where it is translated in two stages.
    """
    quadrant = (address & QUADRANT) >> 62
    if quadrant in (1, 2):
        if cpu.hv:
            raise ValueError(
                f"{address:#x} is in quadrant {quadrant}, which a hypervisor translates in two"
                " stages: these are not covered"
            )
        return Reason.SEGMENT
    if address & UNTRANSLATED:
        return Reason.SEGMENT
    descriptor = cpu.quadrant3 if quadrant else cpu.quadrant0
    if descriptor is None:
        return Reason.NO_PROCESS
    if not is_supported(descriptor):
        return Reason.BAD_TREE
    return next(root for root in cpu.roots if address in root.span)


def judge(cpu: Cpu, walk: Walk, access: Access) -> Outcome:
    """What the access comes to, given the walk of its address, as `cpu.walk_of` makes it."""
    if walk.unbacked is not None:
        return Unbacked(walk.unbacked)
    slot, raw, entry = walk.steps[-1]
    if isinstance(entry, Absent):
        reason: Reason | None = Reason.NOT_PRESENT
    elif isinstance(entry, Malformed):
        reason = Reason.UNSUPPORTED
    else:
        reason = denied(access, raw, cpu.amr, cpu.iamr)
        reason = reason or unmarked(access, raw, cpu.sets_marks)
    if reason is not None:
        return _fault(access, reason, walk.address, walk.level)
    physical = walk.physical
    assert physical is not None
    if not cpu.sets_marks:
        return Allowed(physical, (), None)
    return Allowed(physical, (slot,), slot if access.kind.writes else None)


def denied(access: Access, leaf: int, amr: int, iamr: int) -> Reason | None:
    """The first rule that denies the access to the page of a well-formed leaf."""
    kind = access.kind
    if kind is Kind.FETCH and leaf & ATT == GUARDED:
        return Reason.GUARDED
    if access.user and leaf & PRIVILEGED:
        return Reason.PRIVILEGED
    needs, reason = _NEEDS[kind]
    if not leaf & needs:
        return reason
    mask = iamr if kind is Kind.FETCH else amr
    keyed = not access.user and not leaf & PRIVILEGED and mask & KEY_0[kind]
    return Reason.KEY if keyed else None


def unmarked(access: Access, leaf: int, sets_marks: bool) -> Reason | None:
    """The rule by which R or C of a leaf, being clear, makes an access fail that is allowed
    otherwise, unless the processor sets them."""
    if sets_marks:
        return None
    if not leaf & REFERENCE:
        return Reason.NOT_REFERENCED
    return Reason.NOT_CHANGED if access.kind.writes and not leaf & CHANGE else None


_NEEDS = {
    Kind.READ: (READ | WRITE, Reason.READ_DENIED),
    Kind.WRITE: (WRITE, Reason.WRITE_DENIED),
    Kind.FETCH: (EXECUTE, Reason.EXECUTE_DENIED),
}
"""The rights of which one lets an access through."""

KEY_0 = {Kind.READ: bits(62), Kind.WRITE: bits(63), Kind.FETCH: bits(62)}
"""The bit of AMR, or for fetches of IAMR, by which key 0 denies an access."""


def interrupt_of(kind: Kind, reason: Reason) -> Interrupt:
    """The interrupt that reports a reason."""
    if kind is Kind.FETCH:
        segment, storage = Interrupt.INSTRUCTION_SEGMENT, Interrupt.INSTRUCTION_STORAGE
    else:
        segment, storage = Interrupt.DATA_SEGMENT, Interrupt.DATA_STORAGE
    return segment if reason is Reason.SEGMENT else storage


def status_of(kind: Kind, reason: Reason) -> int:
    """What DSISR, or SRR1 where a fetch fails, says of a reason."""
    status = reason.status
    if kind is Kind.FETCH:
        return int(Status.NO_EXECUTE if status is Status.PROTECTION else status)
    return int(status | (Status.STORE if kind.writes and status else 0))


def _fault(access: Access, reason: Reason, address: Virtual, level: int | None) -> Fault:
    kind = access.kind
    return Fault(interrupt_of(kind, reason), status_of(kind, reason), address, level, reason)
