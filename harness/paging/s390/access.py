"""What an access comes to: the state of a CPU, access and walk make an outcome.

The rules are those of the Principles of Operation, chapter 3, "Translation Process" and
"Protection", chapter 6, "Access Exceptions".  `s390.bulk` gives the same answers for many accesses
at once.  The storage keys are taken to allow everything (a PSW key of 0); then problem state and
supervisor state are alike.

The manual was not at hand.  Two programs were compared line by line that translate as a CPU does:
QEMU (target/s390x/mmu_helper.c, mmu_translate and mmu_translate_asce), and Linux's KVM for its
guests (arch/s390/kvm/gaccess.c, guest_translate_gva and trans_exc_ending).  They agree on

I, the type and what is common in a private space, in that order, then TF and TL, then P
P in region-table entries, and FC of segments, with EDAT-1 alone; FC and the common bit of a
    region-third-table entry with EDAT-2 alone
bit 52 of a page-table entry being a translation-specification exception
addresses 0 to 511 and 4096 to 4607 being low, but in a private space, before anything is translated
bits 56 and 61 of the TEID: 56 for low addresses, 61 for P, both for IEP

and differ on the TEID of a translation-specification exception, which KVM does not store.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import ClassVar, Final

from harness.paging.address import Physical, Virtual
from harness.paging.entry import Absent, Malformed
from harness.paging.memory import Memory
from harness.paging.processor import root_for
from harness.paging.s390.cpu import AddressSpace, Cpu
from harness.paging.table import Slot
from harness.paging.walk import Walk, walk


class Kind(IntEnum):
    """What an access does with memory."""

    READ = 0
    WRITE = 1
    FETCH = 2


@dataclass(frozen=True, slots=True)
class Access:
    """One access.

    user   made in problem state, which translation does not ask for
    space  the one whose ASCE translates it
    """

    kind: Kind
    user: bool = False
    space: AddressSpace = AddressSpace.PRIMARY

    def __str__(self) -> str:
        state = "problem" if self.user else "supervisor"
        return f"{state}-state {self.kind.name.lower()} in the {self.space.name.lower()} space"


class Code(IntEnum):
    """Program interruptions that an access can end in (chapter 6, "Program-Interruption
    Conditions")."""

    PROTECTION = 0x04
    ADDRESSING = 0x05
    SEGMENT_TRANSLATION = 0x10
    PAGE_TRANSLATION = 0x11
    TRANSLATION_SPECIFICATION = 0x12
    ASCE_TYPE = 0x38
    REGION_FIRST_TRANSLATION = 0x39
    REGION_SECOND_TRANSLATION = 0x3A
    REGION_THIRD_TRANSLATION = 0x3B

    @property
    def called(self) -> str:
        """What the manual calls it."""
        words = self.name.lower().replace("_", "-").replace("asce", "ASCE")
        return f"{words} exception"


TRANSLATION: Final = (
    Code.PAGE_TRANSLATION,
    Code.SEGMENT_TRANSLATION,
    Code.REGION_THIRD_TRANSLATION,
    Code.REGION_SECOND_TRANSLATION,
    Code.REGION_FIRST_TRANSLATION,
)
"""What the lack of an entry raises, by its level."""


class Reason(Enum):
    """Why something faults, with the section that says so."""

    ASCE_TYPE = (
        "the address is wider than the table serves at which the ASCE begins (Lookup in a Table"
        " Designated by an Address-Space-Control Element)"
    )
    OUTSIDE = "the table has no such entry, by TL of the ASCE or TF and TL of the entry above"
    NO_MEMORY = "no memory is where the entry would be (Addressing Exception)"
    NOT_PRESENT = "the entry has I=1"
    RESERVED = (
        "the entry has another type than its table, a bit that must be zero, or makes something"
        " common in a private space (Translation-Specification Exception)"
    )
    LOW_ADDRESS = "a store at addresses 0 to 511 or 4096 to 4607 (Low-Address Protection)"
    WRITE_DENIED = "a store where an entry has P=1 (DAT Protection)"
    EXECUTE_DENIED = "a fetch from a page with IEP=1 (Instruction-Execution Protection)"


LOW: Final = (range(512), range(4096, 4608))
"""The addresses that low-address protection is about."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The access reaches `physical`: in the storage key of its 4 KiB the CPU sets the reference
    bit, and where `changes` the change bit.  Tables are left as they are.

    `physical` is the real address, which is the absolute one while the prefix is 0.  Whether there
    is memory is no matter of translation.
    """

    accessed: ClassVar[tuple[Slot, ...]] = ()
    dirty: ClassVar[Slot | None] = None

    physical: Physical
    changes: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """A program interruption.

    teid   the translation-exception identification, None where none is defined
    level  where the walk ended, None where there was none
    """

    code: Code
    teid: int | None
    level: int | None
    reason: Reason


Outcome = Allowed | Fault


def outcome(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> Outcome:
    """What the access at `address` comes to.

    Raises ValueError for an address that is wider than 64 bits.
    """
    if not 0 <= address < 1 << 64:
        raise ValueError(f"there is no address {address:#x}: it has 64 bits")
    root = root_for(cpu, address)
    if root is not None:
        return judge(cpu, walk(memory, root, address), access)
    if address >> cpu.mode.address_bits:
        return _fault(Reason.ASCE_TYPE, None, address, access)
    return _fault(Reason.OUTSIDE, cpu.mode.level, address, access)


def judge(cpu: Cpu, walk: Walk, access: Access) -> Outcome:
    """What the access comes to, given the walk of its address."""
    if is_low(cpu, walk.address, access.kind):
        return _fault(Reason.LOW_ADDRESS, None, walk.address, access)
    reason = _end(walk) or denied(access.kind, cpu.format.rights_of(walk.granted), cpu)
    if reason is not None:
        return _fault(reason, walk.level, walk.address, access)
    assert walk.physical is not None
    return Allowed(walk.physical, access.kind is Kind.WRITE)


def is_low(cpu: Cpu, address: int, kind: Kind) -> bool:
    """Whether low-address protection denies an access, before anything is translated."""
    stores = kind is Kind.WRITE and cpu.low_address_protection
    return stores and any(address in low for low in LOW)


def _end(walk: Walk) -> Reason | None:
    """Why a walk that found no page faults."""
    if walk.unbacked is not None:
        return Reason.NO_MEMORY
    if walk.outside is not None:
        return Reason.OUTSIDE
    entry = walk.steps[-1].entry
    if isinstance(entry, Absent):
        return Reason.NOT_PRESENT
    return Reason.RESERVED if isinstance(entry, Malformed) else None


def denied(kind: Kind, rights: tuple[str, ...], cpu: Cpu) -> Reason | None:
    """The rule that denies an access to a page with these rights."""
    if kind is Kind.WRITE and "write" not in rights:
        return Reason.WRITE_DENIED
    if kind is Kind.FETCH and "execute" in cpu.format.rights and "execute" not in rights:
        return Reason.EXECUTE_DENIED
    return None


def code_of(reason: Reason, level: int) -> Code:
    """The program interruption that a reason raises at a level."""
    if reason in (Reason.OUTSIDE, Reason.NOT_PRESENT):
        return TRANSLATION[level]
    return _CODES[reason]


_CODES: Final = {
    Reason.ASCE_TYPE: Code.ASCE_TYPE,
    Reason.NO_MEMORY: Code.ADDRESSING,
    Reason.RESERVED: Code.TRANSLATION_SPECIFICATION,
    Reason.LOW_ADDRESS: Code.PROTECTION,
    Reason.WRITE_DENIED: Code.PROTECTION,
    Reason.EXECUTE_DENIED: Code.PROTECTION,
}

PAGE: Final = 1 << 12
FETCHES, STORES = 0x800, 0x400
"""Bits 52 and 53 of a TEID (access-exception fetch/store indication)."""

MARKS: Final = {
    Reason.LOW_ADDRESS: 0x80,
    Reason.WRITE_DENIED: 0x04,
    Reason.EXECUTE_DENIED: 0x84,
}
"""Bits 56 and 61 of the TEID of a protection exception (enhanced suppression on protection,
facility 2)."""


UNIDENTIFIED: Final = (Reason.NO_MEMORY, Reason.RESERVED)
"""What is reported without a TEID."""


def teid(address: int, kind: Kind, space: AddressSpace, reason: Reason) -> int | None:
    """The translation-exception identification (chapter 3, "Assigned Storage Locations", real
    168-175); None for addressing and translation-specification exceptions, for which nothing is
    said of it."""
    if reason in UNIDENTIFIED:
        return None
    accessed = STORES if kind is Kind.WRITE else FETCHES
    return address & -PAGE | accessed | MARKS.get(reason, 0) | space


def _fault(reason: Reason, level: int | None, address: int, access: Access) -> Fault:
    found = teid(address, access.kind, access.space, reason)
    return Fault(code_of(reason, level or 0), found, level, reason)
