"""What an access comes to: the state of a processor, access and walk make an outcome.

The order of checks is that of the pseudocode of the Arm ARM (DDI 0487, AArch64.S1Translate and what
it calls); each reason names the function that raises it.  `arm64.bulk` gives the same answers for
many accesses at once.

Left to the machine: whether an atomic or exclusive access that is not aligned faults where
SCTLR_EL1.A is 0 (it does, but within 16 bytes with FEAT_LSE2); what a fetch from Device memory does
that may be executed (it may fault), what disagreeing entries of a contiguous group do, and whether
the access flag is set by an access that faults after it was checked (`Fault.may_access`).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum

from harness.paging.address import Physical, Virtual
from harness.paging.arm64.cpu import Cpu, half_for, is_device, is_high, span_of, untagged
from harness.paging.arm64.formats import AF, AP_EL0, AP_READ_ONLY, DBM, PXN, UXN
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Memory
from harness.paging.table import Root, Slot
from harness.paging.walk import Walk, walk


class Kind(IntEnum):
    """What an access does with memory.

    READ, WRITE  loads and stores, exclusive ones too
    FETCH        of an instruction, after a branch to the pointer
    AMO          an atomic instruction, which reads and writes
    LDTR, STTR   loads and stores that EL1 makes as EL0 does, unless PSTATE.UAO is set
    """

    READ = 0
    WRITE = 1
    FETCH = 2
    AMO = 3
    LDTR = 4
    STTR = 5

    @property
    def writes(self) -> bool:
        return self in (Kind.WRITE, Kind.AMO, Kind.STTR)

    @property
    def unprivileged(self) -> bool:
        return self in (Kind.LDTR, Kind.STTR)


@dataclass(frozen=True, slots=True)
class Access:
    """One access, made at EL0 or else at EL1.

    aligned  whether its address is a multiple of its size, which Device memory asks for, and all
             memory with SCTLR_EL1.A
    """

    kind: Kind
    el0: bool
    aligned: bool = True

    def __str__(self) -> str:
        kind = self.kind.name if self.kind > Kind.FETCH else self.kind.name.lower()
        return f"EL{0 if self.el0 else 1} {kind}{'' if self.aligned else ', not aligned'}"

    def is_as_el0(self, uao: bool) -> bool:
        """Whether it is judged as one of EL0 (AArch64.IsUnprivAccessPriv)."""
        return self.el0 or (self.kind.unprivileged and not uao)


class Status(IntEnum):
    """What a fault status code says besides the level ("ISS encoding for an exception from a Data
    Abort")."""

    ADDRESS_SIZE = 0b000000
    TRANSLATION = 0b000100
    ACCESS_FLAG = 0b001000
    PERMISSION = 0b001100
    EXTERNAL_ON_WALK = 0b010100
    ALIGNMENT = 0b100001

    def at(self, level: int) -> int:
        """The code of a fault at a level of the manual, -1 to 3."""
        if self is Status.ALIGNMENT:
            return int(self)
        return BELOW_0[self] if level < 0 else int(self) | level


BELOW_0 = {
    Status.ADDRESS_SIZE: 0b101001,
    Status.TRANSLATION: 0b101011,
    Status.EXTERNAL_ON_WALK: 0b010011,
}
"""The codes at level -1 of the manual, where there are no pages."""


class Reason(Enum):
    """Why something faults, with the function of the pseudocode that says so."""

    UNALIGNED = "an access that is not aligned, with SCTLR_EL1.A=1 (AArch64.UnalignedAccessFaults)"
    OUT_OF_RANGE = "the upper bits of the address differ (AArch64.VAIsOutOfRange)"
    EL0_KEPT_OUT = "an access of EL0 to a half that E0PDx closes to it (AArch64.S1Translate)"
    HALF_OFF = "the half is turned off, EPDx=1 (AArch64.S1Walk)"
    ROOT_SIZE = "the root's address is beyond the output size (AArch64.S1Walk)"
    NO_MEMORY = "no memory is where the descriptor would be (FetchDescriptor)"
    INVALID = "the descriptor is invalid (AArch64.DecodeDescriptorType)"
    ADDRESS_SIZE = "the descriptor's address is beyond the output size (AArch64.S1Walk)"
    ACCESS_FLAG = "the page has AF=0, which the processor does not set (AArch64.S1Walk)"
    ALIGNMENT = "an access to Device memory that is not aligned (AArch64.S1HasAlignmentFault)"
    READ_DENIED = "an access as EL0 to a page that is not EL0's (AArch64.S1CheckPermissions)"
    WRITE_DENIED = "a write to a page that may not be written (AArch64.S1CheckPermissions)"
    PAN = "EL1 uses data of EL0, with PSTATE.PAN=1 (AArch64.S1DirectBasePermissions)"
    EXECUTE_DENIED = "a fetch from a page that may not be executed (AArch64.S1CheckPermissions)"
    EL0_WRITABLE = "EL1 executes what EL0 may write (AArch64.S1DirectBasePermissions)"
    WXN = "a fetch of what may be written, with WXN=1 (AArch64.S1ComputePermissions)"

    @property
    def status(self) -> Status:
        return _STATUS.get(self, Status.PERMISSION)


_STATUS = {
    Reason.UNALIGNED: Status.ALIGNMENT,
    Reason.OUT_OF_RANGE: Status.TRANSLATION,
    Reason.EL0_KEPT_OUT: Status.TRANSLATION,
    Reason.HALF_OFF: Status.TRANSLATION,
    Reason.ROOT_SIZE: Status.ADDRESS_SIZE,
    Reason.NO_MEMORY: Status.EXTERNAL_ON_WALK,
    Reason.INVALID: Status.TRANSLATION,
    Reason.ADDRESS_SIZE: Status.ADDRESS_SIZE,
    Reason.ACCESS_FLAG: Status.ACCESS_FLAG,
    Reason.ALIGNMENT: Status.ALIGNMENT,
}


@dataclass(frozen=True, slots=True)
class Allowed:
    """The access reaches `physical`; the processor sets AF in `accessed` and clears AP[2] in
    `dirty`, which name the leaf where it does so and nothing where it leaves them to the software.

    Whether there is memory at `physical`, or a device, or nothing, is no matter of translation.
    """

    physical: Physical
    accessed: tuple[Slot, ...]
    dirty: Slot | None


@dataclass(frozen=True, slots=True)
class Fault:
    """An instruction abort or a data abort is taken to EL1.

    syndrome    ESR_EL1
    far         FAR_EL1: the pointer with its tag, but for a fetch, since a branch takes that away
    level       where the walk ended, 0 the lowest; None where there was none
    may_access  whether the processor may have set AF of the leaf all the same, which is clear
                (AArch64.SettingAccessFlagPermitted, Unpredictable_AFUPDATE)
    """

    syndrome: int
    far: Virtual
    level: int | None
    reason: Reason
    may_access: bool = False

    @property
    def status(self) -> int:
        """The fault status code, IFSC or DFSC."""
        return self.syndrome & 0x3F

    @property
    def write(self) -> bool:
        """WnR: whether the fault is said to be a write's."""
        return bool(self.syndrome >> 6 & 1)


Outcome = Allowed | Fault


def outcome(cpu: Cpu, memory: Memory, pointer: Virtual, access: Access) -> Outcome:
    """What the access through `pointer` comes to.

    Raises ValueError for one of more than 64 bits.
    """
    if not 0 <= pointer < 1 << 64:
        raise ValueError(f"there is no address {pointer:#x} of 64 bits")
    address = Virtual(untagged(cpu, pointer, access.kind is Kind.FETCH))
    if checked(cpu, access):
        return Fault(syndrome(access, Reason.UNALIGNED), pointer, None, Reason.UNALIGNED)
    refused = unwalked(cpu, address, access.is_as_el0(cpu.uao))
    if isinstance(refused, Reason):
        far = address if access.kind is Kind.FETCH else pointer
        return Fault(syndrome(access, refused), far, None, refused)
    return judge(cpu, walk(memory, refused, address), access, pointer)


def checked(cpu: Cpu, access: Access) -> bool:
    """Whether the access has an alignment fault before its address is translated (Mem, MemAtomic,
    AArch64.UnalignedAccessFaults): data that is not aligned has, whatever the tables say."""
    return cpu.aligns and not access.aligned and access.kind is not Kind.FETCH


def unwalked(cpu: Cpu, address: int, as_el0: bool) -> Root | Reason:
    """The root of an address without a tag, or why no descriptor is read."""
    half = half_for(cpu, address)
    if half is None:
        return Reason.HALF_OFF
    if address not in span_of(half, is_high(address)):
        return Reason.OUT_OF_RANGE
    if half.e0pd and as_el0:
        return Reason.EL0_KEPT_OUT
    found = (root for root in cpu.roots if address in root.span)
    return next(found, Reason.ROOT_SIZE)


def judge(cpu: Cpu, walk: Walk, access: Access, pointer: Virtual | None = None) -> Outcome:
    """What the access comes to, given the walk of its address.

    pointer  the address with the tag that it had, if it had one

    The walk was made: what is not aligned is so to SCTLR_EL1.A=0 (`checked`).
    """
    far = walk.address if pointer is None or access.kind is Kind.FETCH else pointer
    reason, may_access = _fault(cpu, walk, access)
    if reason is not None:
        code = syndrome(access, reason, 3 - walk.level)
        return Fault(code, far, walk.level, reason, may_access)
    slot, raw, _ = walk.steps[-1]
    physical = walk.physical
    assert physical is not None
    accessed = (slot,) if cpu.sets_access_flag else ()
    return Allowed(physical, accessed, slot if dirties(cpu, access.kind, raw) else None)


def _fault(cpu: Cpu, walk: Walk, access: Access) -> tuple[Reason | None, bool]:
    """Why the access faults, and whether AF may be set all the same if it does."""
    if walk.unbacked is not None:
        return Reason.NO_MEMORY, False
    _, raw, entry = walk.steps[-1]
    if isinstance(entry, Absent):
        return Reason.INVALID, False
    if isinstance(entry, Malformed):
        return Reason.ADDRESS_SIZE, False
    if not raw & AF and not cpu.sets_access_flag:
        return Reason.ACCESS_FLAG, False
    reason = misaligned(access, is_device(cpu.memory_type(raw)))
    reason = reason or denied(cpu, access, walk.granted, cpu.pan, cpu.uao)
    return reason, not raw & AF


def misaligned(access: Access, device: bool) -> Reason | None:
    """AArch64.S1HasAlignmentFault: data in Device memory must be aligned."""
    if device and not access.aligned and access.kind is not Kind.FETCH:
        return Reason.ALIGNMENT
    return None


def denied(cpu: Cpu, access: Access, granted: int, pan: bool, uao: bool) -> Reason | None:
    """The first rule that denies an access to a page, given the rights that the walk grants
    (AArch64.S1DirectBasePermissions, AArch64.S1ComputePermissions, AArch64.S1CheckPermissions).

    pan, uao  as they are when it is made
    """
    kind, as_el0 = access.kind, access.is_as_el0(uao)
    el0_reads, written = bool(granted & AP_EL0), bool(granted & AP_READ_ONLY)
    el0_writes, el0_executes = el0_reads and written, bool(granted & UXN)
    writable = el0_writes if as_el0 else written
    if kind is Kind.FETCH:
        if not granted & (UXN if as_el0 else PXN):
            return Reason.EXECUTE_DENIED
        if el0_writes and not as_el0:
            return Reason.EL0_WRITABLE
        return Reason.WXN if cpu.wxn and writable else None
    if as_el0 and not el0_reads:
        return Reason.READ_DENIED
    if not as_el0 and pan and (el0_reads or (cpu.epan and el0_executes)):
        return Reason.PAN
    return Reason.WRITE_DENIED if kind.writes and not writable else None


def dirties(cpu: Cpu, kind: Kind, leaf: int) -> bool:
    """Whether the processor clears AP[2] of a leaf in an access that is allowed."""
    return cpu.keeps_dirty_state and kind.writes and bool(leaf & DBM)


def syndrome(access: Access, reason: Reason, level: int = 0) -> int:
    """ESR_EL1 of a fault at a level of the manual ("ESR_EL1, Exception Syndrome Register").

    level  0 for a fault before any descriptor is read

    WnR of an atomic instruction is 0 where a read would have had the fault.
    """
    fetch = access.kind is Kind.FETCH
    exception = (0x20 if fetch else 0x24) + (not access.el0)
    write = access.kind.writes and (access.kind is not Kind.AMO or reason is Reason.WRITE_DENIED)
    return exception << 26 | 1 << 25 | write << 6 | reason.status.at(level)
