"""Known departures of engines from the rules, each with its evidence.

A quirk is expected of the engine it names, counted and shown; it never bends the reference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from harness.paging.memory import Mask
from harness.paging.x86.access import Error, Vector
from harness.paging.x86.bulk import Outcomes


@dataclass(frozen=True)
class Quirk:
    """One departure.

    engine    who departs: the name of an engine, or of a part of QEMU's monitor
    versions  the versions it was seen in, both included
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
class FaultQuirk(Quirk):
    """A departure in the exception that an access raises.

    departing  given the rules' outcomes, the error codes that the engine gives instead, and a
               mask of the lanes in which it departs
    """

    departing: Callable[[Outcomes], tuple[np.ndarray, Mask]]


def _reserved_without_present(outcomes: Outcomes) -> tuple[np.ndarray, Mask]:
    departs = (outcomes.vector == Vector.PF) & ((outcomes.error & int(Error.RSVD)) != 0)
    return outcomes.error & ~np.uint32(Error.P), departs


RESERVED_WITHOUT_PRESENT = FaultQuirk(
    name="tcg-reserved-bit-fault-lacks-p",
    engine="tcg",
    versions=((7, 2, 0), (10, 0, 13)),
    rule="A page fault for a reserved bit has P=1 in its error code: the entry is present"
    " (SDM volume 3A, 4.7).",
    departs="The error code has RSVD without P: 08, 0a, 0c, 0e, 18, 1c for 09, 0b, 0d, 0f, 19, 1d.",
    evidence="Seen with QEMU 7.2.22 and 10.0.13; KVM and Bochs set P on the same tables.",
    departing=_reserved_without_present,
)

DEBUG_WALKER = Quirk(
    name="debug-walker-ignores-reserved-bits",
    engine="monitor",
    versions=((7, 2, 0), (10, 0, 13)),
    rule="An entry with a reserved bit set translates nothing (SDM volume 3A, 4.7).",
    departs="gva2gpa, info tlb and memsave walk through it as if the bit were clear.",
    evidence="QEMU's debug walker tests P and PS alone: target/i386/helper.c,"
    " x86_cpu_get_phys_page_attrs_debug, and target/i386/monitor.c.",
)

FAULT_QUIRKS = (RESERVED_WITHOUT_PRESENT,)


def fault_quirks(engine: str, version: tuple[int, ...]) -> tuple[FaultQuirk, ...]:
    """The departures in faults to be expected of an engine in this version of QEMU."""
    return tuple(
        quirk
        for quirk in FAULT_QUIRKS
        if quirk.engine == engine and quirk.versions[0] <= version <= quirk.versions[1]
    )
