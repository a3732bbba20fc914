"""The tests are tested: a library that reads arm64's tables wrongly must disagree with the rules.

Each fault is planted where a maintainer would make it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from harness.paging.arm64 import access as scalar
from harness.paging.arm64 import bulk as arrays
from harness.paging.arm64 import cpu as cpus
from harness.paging.arm64.access import Access, Allowed, Fault, Kind, Outcome, Reason
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.arm64.formats import AF, AP_EL0, AP_READ_ONLY, PXN, UXN, stage1
from harness.paging.bulk import Bytes
from harness.paging.format import Field, Format, Grant, Level, Pattern, Shape
from harness.paging.walk import Walk
from tests.paging.arm64 import beside, drawn
from tests.paging.arm64.beside import disagreements
from tests.paging.arm64_rules import Machine

Plant = Callable[[pytest.MonkeyPatch], None]


def with_levels(change: Callable[[Level], Level]) -> Plant:
    """Plants a change of the levels of every format; formats are made anew, since a decoder
    remembers what it has decoded."""

    def fresh(*arguments: object) -> Format:
        format = stage1(*arguments)  # type: ignore[arg-type]
        return replace(format, levels=tuple(map(change, format.levels)))

    return lambda patch: patch.setattr(cpus, "stage1", lru_cache(fresh))


def with_shapes(change: Callable[[Shape], Shape]) -> Plant:
    return with_levels(lambda here: here.changed(change))


def takes(number: int, change: Callable[[int], int]) -> Plant:
    """Plants formats of another argument: granule, address and output bits, wide, hierarchical,
    dirty state, byte order."""

    def other(*arguments: int) -> Format:
        given = list(arguments)
        given[number] = change(given[number])
        return stage1(*given)  # type: ignore[arg-type]

    return lambda patch: patch.setattr(cpus, "stage1", other)


def accepts_too_large(points: bool) -> Plant:
    return with_shapes(
        lambda shape: replace(shape, reserved=()) if shape.points == points else shape
    )


def address_one_bit_short(points: bool) -> Plant:
    def short(shape: Shape) -> Shape:
        parts = tuple(Field(f.mask & f.mask << 1, f.shift) for f in shape.address)
        return replace(shape, address=parts) if shape.points == points else shape

    return with_shapes(short)


def grants(points: bool, **given: Grant) -> Plant:
    """Plants other places of rights."""

    def otherwise(shape: Shape) -> Shape:
        if shape.points != points or shape.grants == {}:
            return shape
        before = shape.grants or {
            "user": Grant(AP_EL0),
            "write": Grant(AP_READ_ONLY, AP_READ_ONLY),
            "user execute": Grant(UXN, UXN),
            "supervisor execute": Grant(PXN, PXN),
        }
        now = {name.replace("_", " "): one for name, one in given.items()}
        return replace(shape, grants={**before, **now})

    return with_shapes(otherwise)


def blocks_everywhere(here: Level) -> Level:
    """Type 01 is a block at every level above the lowest."""
    if here.leaf is not None or here.pointer is None:
        return here
    page = Shape(Pattern(3, 1), False, (Field((1 << 48) - (1 << here.shift)),))
    return replace(here, shapes=(here.pointer, page), absent=here.absent[:1])


def no_blocks(here: Level) -> Level:
    if here.pointer is None or here.leaf is None:
        return here
    return replace(here, shapes=(here.pointer,), absent=(*here.absent, Pattern(3, 1)))


def block_at_the_bottom(here: Level) -> Level:
    """Type 01 is a page at the lowest level."""
    if here.pointer is not None:
        return here
    [page] = here.shapes
    return replace(here, shapes=(replace(page, when=Pattern(1, 1)),), absent=here.absent[:1])


def processor(change: Callable[[Machine], Machine]) -> Plant:
    """Plants a library that takes the state of the processor for another."""
    original = beside.cpu_of
    return lambda patch: patch.setattr(beside, "cpu_of", lambda m: original(change(m)))


def without(register: str, mask: int) -> Plant:
    return processor(lambda m: replace(m, **{register: getattr(m, register) & ~mask}))


def halves_exchange(high: int, low: int) -> Plant:
    """Plants a bit of TCR_EL1 read for the other half."""

    def exchanged(machine: Machine) -> Machine:
        both = (machine.tcr >> high & 1) << low | (machine.tcr >> low & 1) << high
        return replace(machine, tcr=machine.tcr & ~(1 << high | 1 << low) | both)

    return processor(exchanged)


Denied = Callable[[Cpu, Access, int, bool, bool], Reason | None]
DENIED = scalar.denied


def denied_otherwise(change: Denied) -> Plant:
    """Plants other rules of rights, in which `DENIED` is what they were."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(scalar, "denied", change)
        patch.setattr(arrays, "_denials_by", lru_cache(arrays._denials_by.__wrapped__))

    return plant


def el1_executes_el0s(cpu: Cpu, access: Access, rights: int, pan: bool, uao: bool) -> Reason | None:
    found = DENIED(cpu, access, rights, pan, uao)
    return None if found is Reason.EL0_WRITABLE else found


def wxn_of_el1(cpu: Cpu, access: Access, rights: int, pan: bool, uao: bool) -> Reason | None:
    found = DENIED(cpu, access, rights, pan, uao)
    if found is None and access.kind is Kind.FETCH and cpu.wxn and rights & AP_READ_ONLY:
        return Reason.WXN
    return found


def pan_in_fetches(cpu: Cpu, access: Access, rights: int, pan: bool, uao: bool) -> Reason | None:
    found = DENIED(cpu, access, rights, pan, uao)
    fetched = access.kind is Kind.FETCH and not access.el0
    return Reason.PAN if found is None and fetched and pan and rights & AP_EL0 else found


def pan_of_ldtr(cpu: Cpu, access: Access, rights: int, pan: bool, uao: bool) -> Reason | None:
    found = DENIED(cpu, access, rights, pan, uao)
    at_el1 = access.kind.unprivileged and not access.el0
    return Reason.PAN if found is None and at_el1 and pan else found


def amo_reads_alone(cpu: Cpu, access: Access, rights: int, pan: bool, uao: bool) -> Reason | None:
    kind = Kind.READ if access.kind is Kind.AMO else access.kind
    return DENIED(cpu, replace(access, kind=kind), rights, pan, uao)


def amo_writes_alone(cpu: Cpu, access: Access, rights: int, pan: bool, uao: bool) -> Reason | None:
    found = DENIED(cpu, access, rights, pan, uao)
    return Reason.WRITE_DENIED if found is Reason.READ_DENIED else found


def judged_otherwise(change: Callable[[Cpu, Walk, Access, Outcome], Outcome]) -> Plant:
    """Plants a change of what accesses come to, one by one."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = scalar.judge
        patch.setattr(
            scalar,
            "judge",
            lambda cpu, walk, access, *far: change(
                cpu, walk, access, original(cpu, walk, access, *far)
            ),
        )

    return plant


def marks_on_the_way(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and found.accessed:
        return replace(found, accessed=tuple(step.slot for step in walk.steps))
    return found


def reads_make_dirty(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and cpu.keeps_dirty_state:
        return replace(found, dirty=walk.steps[-1].slot)
    return found


def no_doubt_about_af(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    return replace(found, may_access=False) if isinstance(found, Fault) else found


def project_level(cpu: Cpu, walk: Walk, access: Access, found: Outcome) -> Outcome:
    """The level of the library in the code."""
    if not isinstance(found, Fault) or found.level is None or found.level > 3:
        return found
    return replace(found, syndrome=scalar.syndrome(access, found.reason, found.level))


def order(first: Reason, then: Reason) -> Plant:
    """Plants a fault that comes before another which the manual has first."""
    original = scalar._fault

    def fault(cpu: Cpu, walk: Walk, access: Access) -> tuple[Reason | None, bool]:
        reason, may = original(cpu, walk, access)
        if reason is first and scalar.denied(cpu, access, walk.granted, cpu.pan, cpu.uao):
            return then, may
        return reason, may

    return lambda patch: patch.setattr(scalar, "_fault", fault)


def syndromes(change: Callable[..., int]) -> Plant:
    return lambda patch: patch.setattr(scalar, "syndrome", change)


SYNDROME = scalar.syndrome


def checked(change: Callable[[Cpu, Access], bool]) -> Plant:
    return lambda patch: patch.setattr(scalar, "checked", change)


def unwalked(change: Callable[[Cpu, int, bool], object]) -> Plant:
    return lambda patch: patch.setattr(scalar, "unwalked", change)


UNWALKED = scalar.unwalked


def spans(change: Callable[[Half, bool], object]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        for module in (cpus, scalar, arrays):
            patch.setattr(module, "span_of", change)

    return plant


SPAN = cpus.span_of


def far_has_no_tag(patch: pytest.MonkeyPatch) -> None:
    original = scalar.judge
    patch.setattr(scalar, "judge", lambda cpu, walk, access, far: original(cpu, walk, access))


def arrays_end(end: int, reason: Reason) -> Plant:
    changed: Bytes = arrays._END_REASON.copy()
    changed[end] = arrays._CODE[reason]
    return lambda patch: patch.setattr(arrays, "_END_REASON", changed)


OUTPUT_BITS = Cpu.output_bits

FAULTS: dict[str, Plant] = {
    "a block at every level": with_levels(blocks_everywhere),
    "no blocks": with_levels(no_blocks),
    "type 01 at the lowest level": with_levels(block_at_the_bottom),
    "tables beyond the output size accepted": accepts_too_large(points=True),
    "pages beyond the output size accepted": accepts_too_large(points=False),
    "the address of a page one bit short": address_one_bit_short(points=False),
    "the address of a table one bit short": address_one_bit_short(points=True),
    "AP[1] inverted": grants(False, user=Grant(AP_EL0, AP_EL0)),
    "AP[2] ignored": grants(False, write=Grant(1, 0)),
    "UXN ignored": grants(False, user_execute=Grant(1, 0)),
    "PXN taken for UXN": grants(False, supervisor_execute=Grant(UXN, UXN)),
    "APTable[0] ignored": grants(True, user=Grant(1, 0)),
    "APTable[1] ignored": grants(True, write=Grant(1, 0)),
    "UXNTable ignored": grants(True, user_execute=Grant(1, 0)),
    "PXNTable ignored": grants(True, supervisor_execute=Grant(1, 0)),
    "descriptors always hold 48 bits": with_shapes(
        lambda shape: replace(shape, address=shape.address[:1])
    ),
    "the output size is 48 bits at least": takes(2, lambda given: max(48, given)),
    "HPD taken as set": takes(4, lambda _: False),
    "HPD ignored": takes(4, lambda _: True),
    "dirty state never kept": takes(5, lambda _: False),
    "DBM always heeded": takes(5, lambda _: True),
    "IPS taken for 44 bits": lambda patch: patch.setattr(
        Cpu, "output_bits", lambda cpu, half: min(44, OUTPUT_BITS(cpu, half))
    ),
    "PARange ignored": processor(lambda m: replace(m, pamax=max(m.pamax, 48))),
    "WXN ignored": without("sctlr", 1 << 19),
    "EPAN ignored": without("sctlr", 1 << 57),
    "EPAN without FEAT_PAN3": processor(lambda m: replace(m, pan_level=3)),
    "A ignored": without("sctlr", 1 << 1),
    "A is for fetches, too": checked(lambda cpu, access: cpu.aligns and not access.aligned),
    "A is for what is aligned, too": checked(
        lambda cpu, access: cpu.aligns and access.kind is not Kind.FETCH
    ),
    "A is for writes alone": checked(
        lambda cpu, access: cpu.aligns and not access.aligned and access.kind.writes
    ),
    "HA ignored": without("tcr", 1 << 39),
    "HD ignored": without("tcr", 1 << 40),
    "HD without FEAT_HAFDBS": processor(lambda m: replace(m, hafdbs=2)),
    "HPDS taken as there": processor(lambda m: replace(m, hpds=True)),
    "E0PD ignored": without("tcr", 3 << 55),
    "FEAT_E0PD taken as there": processor(lambda m: replace(m, e0pd=True)),
    "TBI ignored": without("tcr", 3 << 37),
    "TBID ignored": without("tcr", 3 << 51),
    "TBI of the other half": halves_exchange(38, 37),
    "HPD of the other half": halves_exchange(42, 41),
    "E0PD of the other half": halves_exchange(56, 55),
    "MAIR one byte off": processor(lambda m: replace(m, mair=m.mair >> 8)),
    "EL1 executes what EL0 writes": denied_otherwise(el1_executes_el0s),
    "WXN counts what EL1 writes for EL0": denied_otherwise(wxn_of_el1),
    "PAN keeps from fetches": denied_otherwise(pan_in_fetches),
    "PAN keeps from LDTR": denied_otherwise(pan_of_ldtr),
    "PAN ignored": processor(lambda m: replace(m, pan=False)),
    "UAO ignored": processor(lambda m: replace(m, uao=False)),
    "an atomic reads alone": denied_otherwise(amo_reads_alone),
    "an atomic that may not read has WnR": denied_otherwise(amo_writes_alone),
    "AF is set in tables": judged_otherwise(marks_on_the_way),
    "reads clear AP[2]": judged_otherwise(reads_make_dirty),
    "AF of what is denied stays": judged_otherwise(no_doubt_about_af),
    "the code has the library's level": judged_otherwise(project_level),
    "permission before the access flag": order(Reason.ACCESS_FLAG, Reason.WRITE_DENIED),
    "permission before alignment": order(Reason.ALIGNMENT, Reason.WRITE_DENIED),
    "EC of LDTR is EL0's": syndromes(
        lambda access, reason, level=0: SYNDROME(
            replace(access, el0=access.el0 or access.kind.unprivileged), reason, level
        )
    ),
    "WnR of an atomic is set": syndromes(
        lambda access, reason, level=0: SYNDROME(
            replace(access, kind=Kind.WRITE) if access.kind is Kind.AMO else access, reason, level
        )
    ),
    "E0PD lets LDTR through": unwalked(
        lambda cpu, address, as_el0: UNWALKED(cpu, address, as_el0 and cpu.pan)
    ),
    "E0PD keeps EL1 out": unwalked(lambda cpu, address, as_el0: UNWALKED(cpu, address, True)),
    "the hole begins a bit later": spans(
        lambda half, high: SPAN(replace(half, address_bits=half.address_bits + 1), high)
    ),
    "FAR has no tag": far_has_no_tag,
    "arrays: no memory is a translation fault": arrays_end(3, Reason.INVALID),
    "arrays: an address size fault is a translation fault": arrays_end(2, Reason.INVALID),
    "arrays: all memory is Normal": lambda patch: patch.setattr(
        arrays, "_devices", lambda cpu: np.zeros(8, np.bool_)
    ),
    "arrays: tags stay": lambda patch: patch.setattr(
        arrays, "without_tags", lambda cpu, pointers, kind: pointers
    ),
    "arrays: AF of what is denied is set": lambda patch: patch.setattr(arrays, "AF", AF | 1 << 11),
}


def found_by_the_rules() -> bool:
    """Whether any processor disagrees with the rules; a crash is no finding."""
    source = random.Random(0)
    kinds = drawn.KINDS_OF_TABLES
    return any(
        next(disagreements(drawn.machine(source, kinds[seed % len(kinds)]), seed, 80, 80), None)
        for seed in range(120)
    )


def test_without_a_fault_nothing_is_found() -> None:
    assert not found_by_the_rules()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_reads_wrongly_disagrees_with_the_rules(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    assert found_by_the_rules()
