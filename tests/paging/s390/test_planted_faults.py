"""The tests are tested: a library that reads s390's tables wrongly must disagree with the rules.

Each fault is planted where a maintainer would make it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from harness.paging import bulk as walks
from harness.paging.bulk import Bytes, End
from harness.paging.format import Bounds, Field, Format, Level, Pattern, Shape
from harness.paging.s390 import access as scalar
from harness.paging.s390 import bulk as arrays
from harness.paging.s390 import cpu as cpus
from harness.paging.s390.access import Code, Kind, Reason
from harness.paging.s390.cpu import Cpu
from harness.paging.s390.formats import dat
from tests.paging.plants import without_absence
from tests.paging.s390 import beside, drawn
from tests.paging.s390.beside import disagreements
from tests.paging.s390_rules import Machine

Plant = Callable[[pytest.MonkeyPatch], None]


def with_level(number: int | None, change: Callable[[Level], Level]) -> Plant:
    """Plants a change of a level of every format, or of all of them; formats are made anew, since a
    decoder remembers what it has decoded."""

    def fresh(*arguments: int) -> Format:
        format = dat(*arguments)
        levels = (
            change(here) if number in (None, place) else here
            for place, here in enumerate(format.levels)
        )
        return replace(format, levels=tuple(levels))

    return lambda patch: patch.setattr(cpus, "dat", fresh)


def with_shapes(number: int | None, change: Callable[[Shape], Shape | None]) -> Plant:
    return with_level(number, lambda here: here.changed(change))


def accepts(number: int | None, reason: str) -> Plant:
    """Plants shapes that accept what is reserved for a reason."""
    return with_shapes(
        number,
        lambda shape: replace(
            shape, reserved=tuple(part for part in shape.reserved if reason not in part.reason)
        ),
    )


def bounded(change: Callable[[Bounds], Bounds | None]) -> Plant:
    def changed(shape: Shape) -> Shape:
        return replace(shape, bounds=change(shape.bounds)) if shape.bounds else shape

    return with_shapes(None, changed)


def address_one_bit_short(shape: Shape) -> Shape:
    return replace(
        shape, address=tuple(Field(f.mask << 1 & f.mask, f.shift) for f in shape.address)
    )


def pointers(change: Callable[[Shape], Shape]) -> Callable[[Shape], Shape]:
    return lambda shape: change(shape) if shape.points else shape


def leaves(change: Callable[[Shape], Shape]) -> Callable[[Shape], Shape]:
    return lambda shape: shape if shape.points else change(shape)


def cpu(change: Callable[[Machine], Machine]) -> Plant:
    """Plants a library that takes the state of the CPU for another."""
    original = beside.cpu_of
    return lambda patch: patch.setattr(beside, "cpu_of", lambda m: original(change(m)))


def invalid_as_elsewhere(here: Level) -> Level:
    """I of a page-table entry where the other tables have it."""
    [page] = here.shapes
    return replace(
        here, shapes=(replace(page, when=Pattern(0x20, 0)),), absent=(Pattern(0x20, 0x20),)
    )


def rule(owner: object, name: str, made: object) -> Plant:
    """Plants another rule, for arrays too, which ask the scalar ones."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, made)
        for cached in ("_denials", "_reports", "_ends"):
            patch.setattr(arrays, cached, cache(getattr(arrays, cached).__wrapped__))

    return plant


DENIED, CODE_OF, TEID = scalar.denied, scalar.code_of, scalar.teid


def denied_to_all(kind: Kind, rights: tuple[str, ...], cpu: Cpu) -> Reason | None:
    return DENIED(Kind.FETCH if kind is Kind.READ else kind, rights, cpu)


def level_above(reason: Reason, level: int) -> Code:
    return CODE_OF(reason, min(level + 1, 4) if reason is Reason.OUTSIDE else level)


def ends(end: End, reason: Reason) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        wrong: Bytes = arrays._ends().copy()
        wrong[end] = arrays._CODE[reason]
        patch.setattr(arrays, "_ends", lambda: wrong)

    return plant


def of_root(change: Callable[[Cpu], Cpu]) -> Plant:
    def plant(patch: pytest.MonkeyPatch) -> None:
        original = beside.cpu_of
        patch.setattr(beside, "cpu_of", lambda machine: change(original(machine)))

    return plant


FAULTS: dict[str, Plant] = {
    "zero is absent": with_level(
        0,
        lambda here: replace(
            here,
            absent=(*here.absent, Pattern((1 << 64) - 1, 0)),
            shapes=tuple(
                replace(one, when=Pattern(one.when.mask | 1 << 12, 1 << 12)) for one in here.shapes
            ),
        ),
    ),
    "I is ignored": with_level(1, without_absence),
    "I of pages where that of tables is": with_level(0, invalid_as_elsewhere),
    "bit 52 of pages accepted": accepts(0, "bit 52"),
    "the type of segments not looked at": accepts(1, "type"),
    "the type of regions not looked at": accepts(3, "type"),
    "common segments in private spaces": accepts(1, "private"),
    "common regions in private spaces": accepts(2, "private"),
    "TF ignored": bounded(lambda one: one._replace(first=0x100)),
    "TL ignored": bounded(lambda _: None),
    "TF and TL exchanged": bounded(lambda one: Bounds(one.last, one.first)),
    "page tables aligned to 4K": with_shapes(1, pointers(address_one_bit_short)),
    "region tables aligned to 8K": with_shapes(3, pointers(address_one_bit_short)),
    "1M frames aligned to 2M": with_shapes(1, leaves(address_one_bit_short)),
    "2G frames aligned to 4G": with_shapes(2, leaves(address_one_bit_short)),
    "P of segments ignored": with_shapes(1, pointers(lambda one: replace(one, grants={}))),
    "P of regions ignored": with_shapes(3, lambda one: replace(one, grants={})),
    "EDAT ignored": cpu(lambda m: replace(m, edat1=False, edat2=False)),
    "EDAT without CR0": cpu(lambda m: replace(m, cr0=m.cr0 | 1 << 23)),
    "EDAT-2 taken as there": cpu(lambda m: replace(m, edat2=m.edat1)),
    "IEP ignored": cpu(lambda m: replace(m, iep=False)),
    "IEP without CR0": cpu(lambda m: replace(m, cr0=m.cr0 | 1 << 20)),
    "IEP denies reads": rule(scalar, "denied", denied_to_all),
    "low-address protection ignored": cpu(lambda m: replace(m, cr0=m.cr0 & ~(1 << 28))),
    "low-address protection in private spaces": rule(
        Cpu, "low_address_protection", property(lambda self: bool(self.cr0 & 1 << 28))
    ),
    "low-address protection of one place": rule(scalar, "LOW", (range(512),)),
    "low-address protection of whole pages": rule(scalar, "LOW", (range(8192),)),
    "TL of the ASCE one too many": of_root(
        lambda one: replace(one, asce=one.asce | 1) if one.asce & 2 else one
    ),
    "outside its table by the code of the table above": rule(scalar, "code_of", level_above),
    "a page too wide by the code of its table": rule(
        scalar,
        "code_of",
        lambda reason, level: CODE_OF(
            Reason.OUTSIDE if reason is Reason.ASCE_TYPE else reason, level
        ),
    ),
    "the TEID has bytes": rule(scalar, "PAGE", 1),
    "the TEID of stores is that of fetches": rule(scalar, "STORES", 0x800),
    "the TEID has no mark of IEP": rule(
        scalar, "MARKS", {**scalar.MARKS, Reason.EXECUTE_DENIED: 0x04}
    ),
    "a TEID of specification exceptions": rule(
        scalar,
        "teid",
        lambda address, kind, space, reason: TEID(
            address, kind, space, Reason.NOT_PRESENT if reason is Reason.RESERVED else reason
        ),
    ),
    "arrays: no memory is an absent entry": ends(End.UNBACKED, Reason.NOT_PRESENT),
    "arrays: outside is malformed": ends(End.OUTSIDE, Reason.RESERVED),
    "arrays: tables are whole": lambda patch: patch.setattr(
        walks, "_is_there", lambda format, level, raw, address: np.ones(len(raw), np.bool_)
    ),
}


def found_by_the_rules() -> bool:
    """Whether any CPU disagrees with the rules; a crash is no finding."""
    source = random.Random(0)
    modes = list(drawn.LEVELS)
    return any(
        next(disagreements(drawn.machine(source, modes[seed % 4]), seed, 100, 100), None)
        for seed in range(160)
    )


def test_without_a_fault_nothing_is_found() -> None:
    assert not found_by_the_rules()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_reads_wrongly_disagrees_with_the_rules(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    assert found_by_the_rules()
