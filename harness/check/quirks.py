"""Known departures of engines from the rules, each with its evidence.

A quirk is expected of the engine it names, counted and shown; it never bends the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.paging.memory import Mask
from harness.paging.x86 import formats
from harness.paging.x86.access import Error, Vector
from harness.paging.x86.bulk import Outcomes
from harness.paging.x86.cpu import Cpu


@dataclass(frozen=True)
class Quirk:
    """One departure.

    engine    who departs: the name of an engine, or of a part of QEMU's monitor
    versions  the first and the last version that it was seen in
    rule      what the manual says
    departs   what the engine does instead
    evidence  how that is known
    """

    name: str
    engine: str
    versions: tuple[tuple[int, ...], tuple[int, ...]]
    rule: str
    departs: str
    evidence: str


@dataclass(frozen=True)
class ErrorQuirk(Quirk):
    """A departure in error codes.

    departing  given the rules' outcomes, the lanes in which the engine departs, and the error
               codes that it gives there
    """

    departing: Callable[[Outcomes], tuple[Mask, npt.NDArray[np.uint32]]]


@dataclass(frozen=True)
class AccessedQuirk(Quirk):
    """A departure in A of the entry at which a walk ends in a fault: the engine sets it.

    departing  given the CPU and the rules' outcomes, the lanes in which it does
    """

    departing: Callable[[Cpu, Outcomes], Mask]


def _reserved_without_present(outcomes: Outcomes) -> tuple[Mask, npt.NDArray[np.uint32]]:
    lanes = (outcomes.vector == Vector.PF) & ((outcomes.error & int(Error.RSVD)) != 0)
    return lanes, outcomes.error & ~np.uint32(Error.P)


def _gigabyte_page(cpu: Cpu, outcomes: Outcomes) -> Mask:
    """Faults at a PDPTE with PS=1 that has no bit set which is reserved in a pointer too."""
    walks, pdpte = outcomes.walks, cpu.format.levels[2]
    fits = (walks.raw & np.uint64(pdpte.pointer.reserved_mask if pdpte.pointer else 0)) == 0
    page = (walks.raw & np.uint64(formats.P | formats.PS)) == formats.P | formats.PS
    lanes: Mask = (outcomes.vector == Vector.PF) & (walks.level == 2) & page & fits
    return lanes


RESERVED_WITHOUT_PRESENT = ErrorQuirk(
    name="tcg-reserved-bit-fault-lacks-p",
    engine="tcg",
    versions=((7, 2, 22), (10, 0, 13)),
    rule="A page fault for a reserved bit has P=1 in its error code: the entry is present"
    " (SDM volume 3A, 4.7).",
    departs="The error code has RSVD without P: 08, 0a, 0c, 0e, 18, 1c for 09, 0b, 0d, 0f, 19, 1d.",
    evidence="Seen with QEMU 7.2.22 and 10.0.13; KVM and Bochs set P on the same tables.",
    departing=_reserved_without_present,
)

GIGABYTE_PAGE_ACCESSED = AccessedQuirk(
    name="tcg-faulting-1g-page-is-accessed",
    engine="tcg",
    versions=((7, 2, 22), (7, 2, 22)),
    rule="A is set when an entry is used for a translation (SDM volume 3A, 4.8): an access that"
    " faults leaves the last entry as it was, as TCG itself does for 4K and 2M pages.",
    departs="A denied access to a 1G page, or one to a misaligned 1G page, sets A in the PDPTE.",
    evidence="Seen with QEMU 7.2.22: the probes of the layouts page-sizes, linux-4, linux-5 and"
    " malformed. Its walker sets A in a PDPTE before it looks at PS"
    " (target/i386/tcg/sysemu/excp_helper.c, mmu_translate).",
    departing=_gigabyte_page,
)

DEBUG_WALKER = Quirk(
    name="debug-walker-ignores-reserved-bits",
    engine="monitor",
    versions=((7, 2, 22), (10, 0, 13)),
    rule="An entry with a reserved bit set translates nothing (SDM volume 3A, 4.7).",
    departs="gva2gpa, info tlb and memsave walk through it as if the bit were clear.",
    evidence="QEMU's debug walker tests P and PS alone: target/i386/helper.c,"
    " x86_cpu_get_phys_page_attrs_debug, and target/i386/monitor.c.",
)

FAULT_QUIRKS: tuple[ErrorQuirk | AccessedQuirk, ...] = (
    RESERVED_WITHOUT_PRESENT,
    GIGABYTE_PAGE_ACCESSED,
)


def fault_quirks(engine: str, version: tuple[int, ...]) -> tuple[ErrorQuirk | AccessedQuirk, ...]:
    """The departures in faults to be expected of an engine in this version of QEMU."""
    return tuple(
        quirk
        for quirk in FAULT_QUIRKS
        if quirk.engine == engine and quirk.versions[0] <= version <= quirk.versions[1]
    )
