"""The tests are tested: a library that reads POWER's trees wrongly must disagree with the rules.

Each fault is planted where a maintainer would make it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from harness.paging.address import Physical, Virtual
from harness.paging.bulk import Bytes, End
from harness.paging.format import Field, Format, Level, Pattern, Reserved, Shape, bits
from harness.paging.memory import Words
from harness.paging.power import access as scalar
from harness.paging.power import bulk as arrays
from harness.paging.power import cpu as cpus
from harness.paging.power.access import Access, Allowed, Fault, Interrupt, Kind, Outcome, Reason
from harness.paging.power.formats import ATT, EXECUTE, PRIVILEGED, READ, WRITE, radix
from harness.paging.walk import Walk
from tests.paging.plants import without_absence
from tests.paging.power import beside, drawn
from tests.paging.power.beside import disagreements
from tests.paging.power_rules import Machine

Plant = Callable[[pytest.MonkeyPatch], None]


def with_levels(change: Callable[[Level], Level]) -> Plant:
    """Plants a change of the levels of both formats, made anew since a decoder remembers."""

    @cache
    def fresh(page_bits: int) -> Format:
        format = radix(page_bits)
        return replace(format, levels=tuple(map(change, format.levels)))

    return lambda patch: patch.setattr(cpus, "radix", fresh)


def with_shapes(change: Callable[[Shape], Shape | None]) -> Plant:
    return with_levels(lambda here: here.changed(change))


def accepts(reason: str) -> Plant:
    """Plants shapes that accept what is reserved for a reason."""
    return with_shapes(
        lambda shape: replace(
            shape, reserved=tuple(part for part in shape.reserved if reason not in part.reason)
        )
    )


def reserves(mask: int, pointers: bool) -> Plant:
    wrong = Reserved(mask, "by mistake")
    return with_shapes(
        lambda shape: (
            replace(shape, reserved=(*shape.reserved, wrong)) if shape.points == pointers else shape
        )
    )


def one_bit_short(shape: Shape) -> Shape:
    return replace(
        shape, address=tuple(Field(f.mask & ~(1 << f.mask.bit_length() - 1)) for f in shape.address)
    )


def not_aligned(shape: Shape) -> Shape:
    return replace(shape, address=(Field(shape.address_mask | 0xFFF00),))


def large_pages_lead_on(here: Level) -> Level:
    when = Pattern(here.presence, here.presence)
    return here.changed(
        lambda shape: (
            replace(shape, when=when) if shape.points else (shape if here.pointer is None else None)
        )
    )


def machine(change: Callable[[Machine], Machine]) -> Plant:
    """Plants a library that takes the state of the processor for another."""
    original = beside.cpu_of
    return lambda patch: patch.setattr(
        beside, "cpu_of", lambda m, page_bits: original(change(m), page_bits)
    )


DENIED = scalar.denied


def denied_otherwise(change: Callable[[Access, int, int, int], Reason | None]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(scalar, "denied", change)
        patch.setattr(arrays, "_answers", cache(arrays._answers.__wrapped__))

    return plant


UNMARKED = scalar.unmarked


def unmarked_otherwise(change: Callable[[Access, int, bool], Reason | None]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(scalar, "unmarked", change)
        patch.setattr(arrays, "_answers", cache(arrays._answers.__wrapped__))

    return plant


def judged_otherwise(change: Callable[[Walk, Access, Outcome], Outcome]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        original = scalar.judge
        patch.setattr(
            scalar,
            "judge",
            lambda cpu, walk, access: change(walk, access, original(cpu, walk, access)),
        )

    return plant


def marks_on_the_way(walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and found.accessed:
        return replace(found, accessed=tuple(step.slot for step in walk.steps))
    return found


def reads_set_c(walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and found.accessed:
        return replace(found, dirty=found.accessed[0])
    return found


def writes_set_no_c(walk: Walk, access: Access, found: Outcome) -> Outcome:
    return replace(found, dirty=None) if isinstance(found, Allowed) else found


def address_of_the_page(walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Fault):
        return replace(found, address=Virtual(found.address & ~0xFFF))
    return found


def status(change: Callable[[Kind, int], int]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        original = scalar.status_of
        patch.setattr(
            scalar, "status_of", lambda kind, reason: change(kind, original(kind, reason))
        )

    return plant


def interrupts(change: Callable[[Kind, Reason, Interrupt], Interrupt]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        original = scalar.interrupt_of
        patch.setattr(
            scalar,
            "interrupt_of",
            lambda kind, reason: change(kind, reason, original(kind, reason)),
        )

    return plant


def in_modules(name: str, value: object) -> Plant:
    """Plants another constant or function in each module that has it."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for module in (cpus, scalar, arrays):
            if hasattr(module, name):
                patch.setattr(module, name, value)

    return plant


def arrays_end(end: int, reason: Reason) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        wrong = arrays._END_REASON.copy()
        wrong[end] = arrays._CODE[reason]
        patch.setattr(arrays, "_END_REASON", wrong)

    return plant


def arrays_set_r_again(patch: pytest.MonkeyPatch) -> None:
    original = arrays._answers.__wrapped__

    def answers(sets_marks: bool) -> tuple[Bytes, Words]:
        reasons, marks = original(sets_marks)
        return reasons, marks | np.uint64(1 << 8)

    patch.setattr(arrays, "_answers", cache(answers))


FAULTS: dict[str, Plant] = {
    "tables of any size accepted": accepts("another size"),
    "a leaf accepted at the root": accepts("where no page can be"),
    "a directory accepted at the lowest level": accepts("no leaf at"),
    "software's bit of leaves reserved": reserves(1 << 61, pointers=False),
    "low bits of leaves reserved": reserves(0xE00, pointers=False),
    "bits 7:5 of directories reserved": reserves(0xE0, pointers=True),
    "the address of a page one bit short": with_shapes(
        lambda shape: shape if shape.points else one_bit_short(shape)
    ),
    "the address of a table one bit short": with_shapes(
        lambda shape: one_bit_short(shape) if shape.points else shape
    ),
    "a table's address not aligned to its size": with_shapes(
        lambda shape: not_aligned(shape) if shape.points else shape
    ),
    "large pages read as directories": with_levels(large_pages_lead_on),
    "what is not valid is there": with_levels(without_absence),
    "the root not aligned to its size": in_modules(
        "root_address", lambda descriptor: Physical(descriptor & cpus.ROOT_BASE)
    ),
    "a tree of any size accepted": in_modules("is_supported", lambda descriptor: True),
    "RTS not looked at": in_modules("is_supported", lambda descriptor: descriptor & 31 == 13),
    "RPDS not looked at": in_modules(
        "is_supported", lambda descriptor: cpus.tree_bits(descriptor) == 52
    ),
    "trees of 51 bits": in_modules("UNTRANSLATED", bits(61, 51)),
    "one size of page tables alone": in_modules("OTHER_SIZE", 0),
    "quadrant 3 that of the process": machine(lambda m: replace(m, kernel=m.user or 0)),
    "quadrant 0 that of process 0": machine(lambda m: replace(m, user=m.kernel)),
    "AMR ignored": machine(lambda m: replace(m, amr=0)),
    "IAMR ignored": machine(lambda m: replace(m, iamr=0)),
    "AMR and IAMR taken for one another": machine(lambda m: replace(m, amr=m.iamr, iamr=m.amr)),
    "key 0 taken from the other end": machine(
        lambda m: replace(m, amr=m.amr << 62 & 3 << 62, iamr=m.iamr << 62 & 3 << 62)
    ),
    "key 0 holds for the user": denied_otherwise(
        lambda access, leaf, amr, iamr: (
            DENIED(access, leaf, amr, iamr) or DENIED(replace(access, user=False), leaf, amr, iamr)
        )
    ),
    "key 0 holds for privileged pages": denied_otherwise(
        lambda access, leaf, amr, iamr: DENIED(
            access, leaf if access.user else leaf & ~PRIVILEGED, amr, iamr
        )
    ),
    "the user may use privileged pages": denied_otherwise(
        lambda access, leaf, amr, iamr: DENIED(
            access, leaf & ~PRIVILEGED if access.user else leaf, amr, iamr
        )
    ),
    "others may not use the user's pages": denied_otherwise(
        lambda access, leaf, amr, iamr: (
            Reason.PRIVILEGED
            if not access.user and not leaf & PRIVILEGED
            else DENIED(access, leaf, amr, iamr)
        )
    ),
    "RW does not imply R": denied_otherwise(
        lambda access, leaf, amr, iamr: DENIED(
            access, leaf if access.kind else leaf & ~WRITE, amr, iamr
        )
    ),
    "X implies R": denied_otherwise(
        lambda access, leaf, amr, iamr: DENIED(
            access, leaf | (READ if leaf & EXECUTE and not access.kind else 0), amr, iamr
        )
    ),
    "a fetch needs R": denied_otherwise(
        lambda access, leaf, amr, iamr: DENIED(
            access, leaf if leaf & 6 or access.kind < 2 else leaf & ~EXECUTE, amr, iamr
        )
    ),
    "guarded storage may be executed": denied_otherwise(
        lambda access, leaf, amr, iamr: DENIED(access, leaf & ~ATT, amr, iamr)
    ),
    "tolerant I/O may not be executed": denied_otherwise(
        lambda access, leaf, amr, iamr: DENIED(
            access, leaf & ~(1 << 4) if leaf & ATT == ATT else leaf, amr, iamr
        )
    ),
    "R and C always set": machine(lambda m: replace(m, records=True)),
    "R and C never set": machine(lambda m: replace(m, records=False)),
    "C=0 does not fail": unmarked_otherwise(
        lambda access, leaf, sets: UNMARKED(access, leaf | 1 << 7, sets)
    ),
    "C=0 fails in reads": unmarked_otherwise(
        lambda access, leaf, sets: UNMARKED(replace(access, kind=Kind.WRITE), leaf, sets)
    ),
    "R=0 does not fail in fetches": unmarked_otherwise(
        lambda access, leaf, sets: UNMARKED(
            access, leaf | (1 << 8 if access.kind is Kind.FETCH else 0), sets
        )
    ),
    "R is set in directories too": judged_otherwise(marks_on_the_way),
    "reads set C": judged_otherwise(reads_set_c),
    "writes set no C": judged_otherwise(writes_set_no_c),
    "DAR is the page's": judged_otherwise(address_of_the_page),
    "DSISR does not say that it was a store": status(lambda kind, found: found & ~(1 << 25)),
    "SRR1 says protection of fetches": status(
        lambda kind, found: 1 << 27 if found == 1 << 28 else found
    ),
    "a segment interrupt has a status": in_modules(
        "status_of", lambda kind, reason: int(reason.status) or 1 << 25
    ),
    "a failed fetch is a data storage interrupt": interrupts(
        lambda kind, reason, found: (
            Interrupt.DATA_STORAGE if kind == 2 and found == 0x400 else found
        )
    ),
    "a segment interrupt is a storage interrupt": interrupts(
        lambda kind, reason, found: Interrupt.DATA_STORAGE if found == 0x380 else found
    ),
    "arrays: what is absent is malformed": arrays_end(End.ABSENT, Reason.UNSUPPORTED),
    "arrays: what is malformed is absent": arrays_end(End.MALFORMED, Reason.NOT_PRESENT),
    "arrays: R is set where it is set": arrays_set_r_again,
}


def found_by_the_rules() -> bool:
    """Whether any machine disagrees with the rules; a crash is no finding."""
    source = random.Random(0)
    return any(next(disagreements(drawn.machine(source), seed, 80, 80), None) for seed in range(60))


def test_without_a_fault_nothing_is_found() -> None:
    assert not found_by_the_rules()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_reads_wrongly_disagrees_with_the_rules(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    assert found_by_the_rules()
