"""The tests are tested: a library that reads RISC-V's tables wrongly must disagree with the rules.

Each fault is planted where a maintainer would make it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from harness.paging.address import Physical, Span, signed_halves
from harness.paging.bulk import Bytes
from harness.paging.format import Field, Format, Level, Reserved, Shape
from harness.paging.memory import Mask, Words
from harness.paging.riscv import access as scalar
from harness.paging.riscv import bulk as arrays
from harness.paging.riscv import cpu as cpus
from harness.paging.riscv.access import Access, Allowed, Cause, Fault, Kind, Outcome, Reason
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import A, D, R, U, W, X, sv
from harness.paging.walk import Walk
from tests.paging.riscv import beside, drawn
from tests.paging.riscv.beside import disagreements
from tests.paging.riscv_rules import Machine

Plant = Callable[[pytest.MonkeyPatch], None]


def with_levels(change: Callable[[Level], Level]) -> Plant:
    """Plants a change of the levels of every format; formats are made anew, since a decoder
    remembers what it has decoded."""

    def fresh(*arguments: int) -> Format:
        format = sv(*arguments)
        return replace(format, levels=tuple(map(change, format.levels)))

    return lambda patch: patch.setattr(cpus, "sv", fresh)


def with_shapes(change: Callable[[Shape], Shape | None]) -> Plant:
    return with_levels(lambda here: here.changed(change))


def accepts(reason: str, pointers: bool = True, leaves: bool = True) -> Plant:
    """Plants shapes that accept what is reserved or forbidden for a reason."""

    def accepting(shape: Shape) -> Shape:
        if not (pointers if shape.points else leaves):
            return shape
        return replace(
            shape,
            reserved=tuple(part for part in shape.reserved if reason not in part.reason),
            forbidden=tuple(part for part in shape.forbidden if reason not in part.reason),
        )

    return with_shapes(accepting)


def reserves(mask: int, pointers: bool) -> Plant:
    """Plants more reserved bits of pointers or of leaves."""
    wrong = Reserved(mask, "by mistake")
    return with_shapes(
        lambda shape: (
            replace(shape, reserved=(*shape.reserved, wrong)) if shape.points == pointers else shape
        )
    )


def address_one_bit_short(shape: Shape) -> Shape:
    return replace(
        shape, address=tuple(Field(f.mask >> 1 & f.mask, f.shift) for f in shape.address)
    )


def hart(change: Callable[[Machine], Machine]) -> Plant:
    """Plants a library that takes the state of the hart for another."""
    original = beside.cpu_of
    return lambda patch: patch.setattr(beside, "cpu_of", lambda m: original(change(m)))


def without(register: str, mask: int) -> Plant:
    return hart(lambda m: replace(m, **{register: getattr(m, register) & ~mask}))


def denied_otherwise(change: Callable[[Access, int, bool, bool], Reason | None]) -> Plant:
    """Plants other rules of rights, in which `denied` is what they were."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(scalar, "denied", change)
        patch.setattr(arrays, "_answers", cache(arrays._answers.__wrapped__))

    return plant


DENIED = scalar.denied


def execute_only_with_mxr_for_writes(
    access: Access, leaf: int, sum: bool, mxr: bool
) -> Reason | None:
    if access.kind.writes and mxr and leaf & X:
        leaf |= W
    return DENIED(access, leaf, sum, mxr)


def amo_needs_read(access: Access, leaf: int, sum: bool, mxr: bool) -> Reason | None:
    kind = Kind.READ if access.kind is Kind.AMO and not leaf & W else access.kind
    return DENIED(replace(access, kind=kind), leaf, sum, mxr)


def unmarked_otherwise(change: Callable[[Access, int, bool], Reason | None]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(scalar, "unmarked", change)
        patch.setattr(arrays, "_answers", cache(arrays._answers.__wrapped__))

    return plant


UNMARKED = scalar.unmarked


def judged_otherwise(change: Callable[[Cpu, Walk, Access, Outcome], Outcome]) -> Plant:
    """Plants a change of what accesses come to, one by one."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = scalar.judge
        patch.setattr(
            scalar,
            "judge",
            lambda cpu, walk, access: change(cpu, walk, access, original(cpu, walk, access)),
        )

    return plant


def marks_on_the_way(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and cpu.sets_marks:
        return replace(found, accessed=tuple(step.slot for step in walk.steps))
    return found


def amo_sets_no_d(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and access.kind is Kind.AMO:
        return replace(found, dirty=None)
    return found


def reads_set_d(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and found.accessed:
        return replace(found, dirty=found.accessed[0])
    return found


def page_fault_without_memory(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Fault) and found.reason is Reason.NO_MEMORY:
        return replace(found, cause=scalar.page_fault(access.kind))
    return found


def sum_changes_fetches(access: Access, leaf: int, sum: bool, mxr: bool) -> Reason | None:
    found = DENIED(access, leaf, sum, mxr)
    return None if sum and found is Reason.SUPERVISOR_FETCH else found


def causes(change: Callable[[Kind, Cause], Cause]) -> Plant:
    """Plants other causes of page faults, one by one."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = scalar.page_fault
        patch.setattr(scalar, "page_fault", lambda kind: change(kind, original(kind)))

    return plant


def halves(change: Callable[[int], tuple[Span, Span]]) -> Plant:
    return lambda patch: patch.setattr(cpus, "signed_halves", change)


def napot_size_of_a_slot(here: Level) -> Level:
    return here.changed(lambda shape: replace(shape, size=None))


def masks(change: Callable[[Cpu, int, bool], int]) -> Plant:
    return lambda patch: patch.setattr(scalar, "transformed", change)


MASK = cpus.transformed


def tval_with_its_tag(patch: pytest.MonkeyPatch) -> None:
    original = scalar.outcome

    def outcome(cpu: Cpu, memory: object, address: int, access: Access) -> Outcome:
        found = original(cpu, memory, address, access)  # type: ignore[arg-type]
        return replace(found, tval=address) if isinstance(found, Fault) else found  # type: ignore[arg-type]

    patch.setattr(scalar, "outcome", outcome)


def arrays_mask_fetches(patch: pytest.MonkeyPatch) -> None:
    original = arrays.transformed

    def masked(
        cpu: Cpu, pointers: Words, kind: Bytes, user: Mask, mxr: Mask | None = None
    ) -> Words:
        return original(cpu, pointers, np.zeros_like(kind), user, mxr)

    patch.setattr(arrays, "transformed", masked)


def arrays_exchange_pmm(patch: pytest.MonkeyPatch) -> None:
    original = arrays.transformed
    patch.setattr(
        arrays,
        "transformed",
        lambda cpu, pointers, kind, user, mxr: original(cpu, pointers, kind, ~user, mxr),
    )


def arrays_end(end: int, reason: Reason) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        wrong = arrays._END_REASON.copy()
        wrong[end] = arrays._CODE[reason]
        patch.setattr(arrays, "_END_REASON", wrong)

    return plant


def arrays_mark_all(patch: pytest.MonkeyPatch) -> None:
    original = arrays._answers.__wrapped__

    def answers(sets_marks: bool) -> tuple[Bytes, Words]:
        reasons, marks = original(sets_marks)
        return reasons, marks | np.uint64(A)

    patch.setattr(arrays, "_answers", cache(answers))


def root_one_page_late(patch: pytest.MonkeyPatch) -> None:
    original = Cpu.base.func  # type: ignore[attr-defined]
    patch.setattr(Cpu, "base", property(lambda cpu: Physical(original(cpu) + 0x1000)))


def asid_in_the_root(patch: pytest.MonkeyPatch) -> None:
    original = Cpu.base.func  # type: ignore[attr-defined]
    patch.setattr(Cpu, "base", property(lambda cpu: Physical(original(cpu) | cpu.asid << 56)))


FAULTS: dict[str, Plant] = {
    "W without R accepted": accepts("W without R"),
    "R=W=X=0 at level 0 accepted": accepts("R=W=X=0"),
    "a misaligned superpage accepted": accepts("below a superpage"),
    "NAPOT pages of all sizes accepted": accepts("of another size"),
    "bits 60:54 of pointers accepted": accepts("54", leaves=False),
    "bits 60:54 of leaves accepted": accepts("54", pointers=False),
    "U, A or D in pointers accepted": accepts("in a pointer"),
    "PBMT in pointers accepted": accepts("PBMT where", leaves=False),
    "PBMT of leaves accepted without PBMTE": accepts("PBMT where", pointers=False),
    "PBMT=3 accepted": accepts("PBMT=3"),
    "N in pointers accepted": accepts("N where", leaves=False),
    "N of leaves accepted where it means nothing": accepts("N where", pointers=False),
    "G of pointers reserved": reserves(1 << 5, pointers=True),
    "RSW of leaves reserved": reserves(3 << 8, pointers=False),
    "RSW of pointers reserved": reserves(1 << 9, pointers=True),
    "the address of a page one bit short": with_shapes(
        lambda shape: shape if shape.points else address_one_bit_short(shape)
    ),
    "the address of a table one bit short": with_shapes(
        lambda shape: address_one_bit_short(shape) if shape.points else shape
    ),
    "a NAPOT page's offset that of its slot": with_levels(napot_size_of_a_slot),
    "N ignored with Svnapot": hart(lambda m: replace(m, svnapot=False)),
    "Svnapot taken as there": hart(lambda m: replace(m, svnapot=m.xlen == 64)),
    "Svrsw60t59b ignored": hart(lambda m: replace(m, svrsw60t59b=False)),
    "menvcfg.PBMTE taken as clear": without("menvcfg", 1 << 62),
    "menvcfg.PBMTE taken as set": hart(lambda m: replace(m, menvcfg=m.menvcfg | 1 << 62)),
    "menvcfg.ADUE ignored": without("menvcfg", 1 << 61),
    "A and D always set": hart(lambda m: replace(m, svade=False)),
    "SUM ignored": without("mstatus", 1 << 18),
    "MXR ignored": without("mstatus", 1 << 19),
    "SUM lets S-mode execute": denied_otherwise(sum_changes_fetches),
    "SUM needed for pages of S-mode": denied_otherwise(
        lambda access, leaf, sum, mxr: DENIED(
            access, leaf if access.user or access.kind is Kind.FETCH else leaf | U, sum, mxr
        )
    ),
    "S-mode executes pages of U-mode": denied_otherwise(
        lambda access, leaf, sum, mxr: DENIED(
            access, leaf if access.user or access.kind is not Kind.FETCH else leaf & ~U, sum, mxr
        )
    ),
    "MXR lets writes through": denied_otherwise(execute_only_with_mxr_for_writes),
    "a fetch needs R": denied_otherwise(
        lambda access, leaf, sum, mxr: DENIED(
            access, leaf if leaf & R or access.kind is not Kind.FETCH else 0, sum, mxr
        )
    ),
    "an AMO that may not read is a read": denied_otherwise(amo_needs_read),
    "U-mode may use pages of S-mode": denied_otherwise(
        lambda access, leaf, sum, mxr: DENIED(access, leaf | (U if access.user else 0), sum, mxr)
    ),
    "D=0 never faults": unmarked_otherwise(
        lambda access, leaf, sets: UNMARKED(access, leaf | D, sets)
    ),
    "D=0 faults in reads": unmarked_otherwise(
        lambda access, leaf, sets: UNMARKED(replace(access, kind=Kind.WRITE), leaf, sets)
    ),
    "A=0 does not fault in fetches": unmarked_otherwise(
        lambda access, leaf, sets: (
            None if access.kind is Kind.FETCH else UNMARKED(access, leaf, sets)
        )
    ),
    "A is set in pointers too": judged_otherwise(marks_on_the_way),
    "an AMO sets no D": judged_otherwise(amo_sets_no_d),
    "reads set D": judged_otherwise(reads_set_d),
    "a table without memory is a page fault": judged_otherwise(page_fault_without_memory),
    "an AMO has a load's cause": causes(
        lambda kind, cause: Cause.LOAD_PAGE if kind is Kind.AMO else cause
    ),
    "a fetch has a load's cause": causes(
        lambda kind, cause: Cause.LOAD_PAGE if kind is Kind.FETCH else cause
    ),
    "Sv57 with addresses of 48 bits": halves(lambda width: signed_halves(min(width, 48))),
    "the lower half one byte too long": halves(
        lambda width: (Span(0, signed_halves(width)[0].last + 1), signed_halves(width)[1])
    ),
    "no upper half": halves(lambda width: signed_halves(width)[:1]),  # type: ignore[arg-type, return-value]
    "tags replaced by zeros": masks(
        lambda cpu, pointer, user: pointer & (1 << 64 - cpu.pmlen(user)) - 1
    ),
    "tags masked by the other mode's PMM": masks(
        lambda cpu, pointer, user: MASK(cpu, pointer, not user)
    ),
    "tags masked with MXR": masks(
        lambda cpu, pointer, user: MASK(replace(cpu, mstatus=0), pointer, user)
    ),
    "tval has its tag": tval_with_its_tag,
    "the root one page late": root_one_page_late,
    "the ASID taken into the root": asid_in_the_root,
    "arrays: fetches have tags": arrays_mask_fetches,
    "arrays: PMM of the other mode": arrays_exchange_pmm,
    "arrays: no memory is a page fault": arrays_end(3, Reason.NOT_PRESENT),
    "arrays: what is malformed has no memory": arrays_end(2, Reason.NO_MEMORY),
    "arrays: A is set where it is set": arrays_mark_all,
}


def found_by_the_rules() -> bool:
    """Whether any hart disagrees with the rules; a crash is no finding."""
    source = random.Random(0)
    modes = list(drawn.LEVELS)
    return any(
        next(disagreements(drawn.machine(source, modes[seed % 4]), seed, 80, 80), None)
        for seed in range(200)
    )


def test_without_a_fault_nothing_is_found() -> None:
    assert not found_by_the_rules()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_reads_wrongly_disagrees_with_the_rules(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    assert found_by_the_rules()
