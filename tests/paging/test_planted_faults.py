"""The tests are tested: a library that reads tables wrongly must disagree with the rules.

Each fault is planted where a maintainer would make it.  Formats are made anew for each, since a
decoder remembers what it has decoded.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.format import Field, Format, Level, Pattern, Reserved, Shape
from harness.paging.table import Root
from harness.paging.walk import Walk
from harness.paging.x86 import formats
from tests.paging import test_bulk, test_walk
from tests.paging.rules import STATES, Machine, disagreements

Plant = Callable[[pytest.MonkeyPatch], None]


def replanted(change: Callable[[Format], Format]) -> Plant:
    """Plants a change of every format that long mode is read in."""
    original = formats.long_mode

    def fresh(*arguments: object) -> Format:
        return change(replace(original(*arguments)))  # type: ignore[arg-type]

    return lambda patch: patch.setattr(formats, "long_mode", fresh)


def with_levels(change: Callable[[Level], Level]) -> Plant:
    return replanted(lambda format: replace(format, levels=tuple(map(change, format.levels))))


def with_leaves(change: Callable[[Level, Shape], Shape]) -> Plant:
    return with_levels(lambda here: replace(here, leaf=here.leaf and change(here, here.leaf)))


def address_mask_one_bit_short(here: Level, leaf: Shape) -> Shape:
    (field,) = leaf.address
    return replace(leaf, address=(Field(field.mask >> 1 & field.mask),))


def offset_bits_in_the_address(here: Level, leaf: Shape) -> Shape:
    (field,) = leaf.address
    return replace(leaf, address=(Field(field.mask | 1 << 12),))


def levels_swapped(format: Format) -> Format:
    first, second, third, *rest = format.levels
    swapped = (first, replace(third, shift=second.shift), replace(second, shift=third.shift), *rest)
    return replace(format, levels=swapped)


def indexes_swapped(format: Format) -> Format:
    first, second, third, *rest = format.levels
    wrong = (first, replace(second, shift=third.shift), replace(third, shift=second.shift), *rest)
    object.__setattr__(format, "levels", wrong)
    return format


def leaf_rights_alone(patch: pytest.MonkeyPatch) -> None:
    def granted(self: Walk) -> int:
        return self.root.table.format.granted(self.steps[-1].raw) if self.steps else 0

    patch.setattr(Walk, "granted", property(granted))


def offset_of_the_smallest_page(patch: pytest.MonkeyPatch) -> None:
    replanted(lambda format: format)(patch)
    patch.setattr(Level, "size", property(lambda here: 4096))


def offset_of_the_level_above(patch: pytest.MonkeyPatch) -> None:
    replanted(lambda format: format)(patch)
    patch.setattr(Level, "size", property(lambda here: 1 << here.shift + here.index_bits))


def wrong_canonical_width(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(formats, "address_bits", lambda levels: 48)


def rule_dropped(change: Callable[[Machine], dict[str, bool]]) -> Plant:
    """Plants a CPU whose flags are read wrongly."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = Machine.cpu
        patch.setattr(
            Machine, "cpu", lambda self, root=0: original(replace(self, **change(self)), root)
        )

    return plant


FAULTS: dict[str, Plant] = {
    "a wrong address mask": with_leaves(address_mask_one_bit_short),
    "address bits taken from below a large page": with_leaves(offset_bits_in_the_address),
    "levels swapped": replanted(levels_swapped),
    "indexes of two levels swapped": replanted(indexes_swapped),
    "XD ignored": replanted(
        lambda format: replace(format, rights={**format.rights, "execute": formats.P}, denied=0)
    ),
    "R/W read from U/S": replanted(
        lambda format: replace(format, rights={**format.rights, "write": formats.US})
    ),
    "the rights of the leaf alone": leaf_rights_alone,
    "reserved bits accepted": replanted(Format.without_reserved),
    "reserved bits of leaves accepted": with_leaves(lambda _, leaf: replace(leaf, reserved=())),
    "reserved bits of pointers accepted": with_levels(
        lambda here: replace(here, pointer=here.pointer and replace(here.pointer, reserved=()))
    ),
    "bits 62:52 of a leaf reserved": with_leaves(
        lambda _, leaf: replace(
            leaf, reserved=(*leaf.reserved, Reserved(formats.bits(62, 52), "by mistake"))
        )
    ),
    "bits below a large page accepted": with_leaves(
        lambda _, leaf: replace(
            leaf, reserved=tuple(part for part in leaf.reserved if "below" not in part.reason)
        )
    ),
    "PS ignored": with_levels(
        lambda here: replace(here, leaf=None) if here.pointer is not None else here
    ),
    "presence ignored": replanted(lambda format: replace(format, present=Pattern(0, 0))),
    "LA57 with addresses of 48 bits": wrong_canonical_width,
    "a large page's offset of the smallest page": offset_of_the_smallest_page,
    "a large page's offset of the level above": offset_of_the_level_above,
    "CR0.WP ignored": rule_dropped(lambda _: {"wp": True}),
    "SMEP ignored": rule_dropped(lambda _: {"smep": False}),
    "SMAP ignored": rule_dropped(lambda _: {"smap": False}),
    "EFLAGS.AC ignored": rule_dropped(lambda _: {"ac": False}),
    "NXE taken as set": rule_dropped(lambda _: {"nxe": True}),
    "1G pages taken as there": rule_dropped(lambda _: {"page1gb": True}),
}


def rights_of_tables_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = bulk._fill

    def fill(rows: bulk._Rows, *arguments: object) -> None:
        original(rows, *arguments)  # type: ignore[arg-type]
        np.bitwise_or(rows.granted, np.uint64(1 << 3), out=rows.granted)

    patch.setattr(bulk, "_fill", fill)


def rows_one_place_early(patch: pytest.MonkeyPatch) -> None:
    original = bulk._runs

    def runs(first: bulk.Counts, counts: bulk.Counts) -> slice | bulk.Counts:
        found = original(first, counts)
        return found if isinstance(found, slice) else np.where(found > found[0], found - 1, found)

    patch.setattr(bulk, "_runs", runs)


LISTING_FAULTS: dict[str, tuple[Plant, Callable[[int], None]]] = {
    "arrays: the rights of tables forgotten": (
        rights_of_tables_forgotten,
        test_walk.test_the_array_of_leaves_is_what_brute_force_finds,
    ),
    "arrays: every slot without memory listed": (
        lambda patch: patch.setattr(bulk, "_first_unbacked_only", np.ones_like),
        test_walk.test_the_array_of_leaves_is_what_brute_force_finds,
    ),
    "arrays: rows one place early": (
        rows_one_place_early,
        test_walk.test_the_array_of_leaves_is_what_brute_force_finds,
    ),
    "arrays: the second root served by the first one's walk": (
        lambda patch: patch.setattr(bulk, "groupby", lambda roots, key: [(roots[0].table, roots)]),
        test_bulk.test_roots_with_tables_of_their_own_each_serve_their_addresses,
    ),
    "leaves: all roots begin at address 0": (
        lambda patch: patch.setattr(
            Root, "first_address", lambda root, index: index << root.table.format.levels[-1].shift
        ),
        test_walk.test_leaves_are_what_brute_force_finds,
    ),
}


@pytest.mark.parametrize("fault", LISTING_FAULTS)
def test_a_listing_that_is_wrong_is_found_by_brute_force(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, check = LISTING_FAULTS[fault]
    check(0)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in range(20):
            check(seed)


def found_by_the_rules() -> bool:
    """Whether any machine disagrees with the rules; a crash is no finding."""
    return any(
        next(disagreements(machine, seed, 40), None)
        for seed, machine in zip(count(), STATES[::3] + STATES[1::3], strict=False)
    )


def test_without_a_fault_nothing_is_found() -> None:
    assert not found_by_the_rules()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_reads_wrongly_disagrees_with_the_rules(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    assert found_by_the_rules()
