"""Every format of the library is held to what must hold of all, and each check is seen to fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.paging import bits as bits_of_entries
from harness.paging import bulk
from harness.paging.arm64.formats import stage1
from harness.paging.format import (
    Field,
    Forbidden,
    Format,
    Grant,
    Level,
    Pattern,
    Reserved,
    Shape,
    bits,
)
from harness.paging.memory import Mask, Words
from harness.paging.power.formats import radix
from harness.paging.riscv.formats import sv
from harness.paging.s390.formats import dat
from harness.paging.x86.formats import Mark, long_mode, pae, paging32, pdpte
from tests.paging import conformance
from tests.paging.conformance import CHECKS, Check
from tests.paging.spaces import SHORT, UNEVEN
from tests.paging.toys import MIXED, SCATTERED

FORMATS: dict[str, Format] = {
    "x86 32-bit": paging32(40, True, True),
    "x86 32-bit without PSE": paging32(32, False, False),
    "x86 PAE": pae(36, True),
    "x86 PAE with PDPTEs in a table": pae(52, False, pdpte(52)),
    "x86 4-level": long_mode(4, 40, True, True),
    "x86 4-level without NXE and 1G pages": long_mode(4, 52, False, False),
    "x86 5-level on AMD": long_mode(5, 52, True, True, amd=True),
    "x86 5-level with a C-bit": long_mode(5, 52, True, True, mark=Mark("C", 47)),
    "Sv32": sv(32),
    "Sv39": sv(39),
    "Sv39 with Svnapot": sv(39, svnapot=True),
    "Sv48 with Svpbmt": sv(48, svpbmt=True),
    "Sv57 with Svrsw60t59b": sv(57, svrsw60t59b=True),
    "Sv57 with all": sv(57, svnapot=True, svpbmt=True, svrsw60t59b=True),
    "arm64 4K": stage1("4K", 48, 48),
    "arm64 4K, 39 bits, 36 of output": stage1("4K", 39, 36, hierarchical=False),
    "arm64 4K with LPA2": stage1("4K", 52, 52, wide=True),
    "arm64 4K with LPA2, 48 of output": stage1("4K", 52, 48, wide=True, hardware_dirty=True),
    "arm64 4K with LPA2, 36 of output": stage1("4K", 50, 36, wide=True),
    "arm64 4K, big-endian": stage1("4K", 16, 40, big_endian=True),
    "arm64 16K": stage1("16K", 48, 48),
    "arm64 16K with LPA2": stage1("16K", 52, 52, wide=True),
    "arm64 64K": stage1("64K", 48, 48),
    "arm64 64K with 52 bits": stage1("64K", 52, 52, wide=True, hardware_dirty=True),
    "arm64 64K, 52 bits of address, 42 of output": stage1("64K", 52, 42),
    "s390": dat(),
    "s390 with EDAT-1": dat(edat1=True, iep=True),
    "s390 with EDAT-2": dat(edat1=True, edat2=True, iep=True),
    "POWER radix 4K": radix(12),
    "POWER radix 64K": radix(16),
    "mixed": MIXED,
    "scattered": SCATTERED,
    "uneven": UNEVEN,
    "short": SHORT,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_format_holds_what_all_must(name: str, check: Check) -> None:
    assert not list(check(FORMATS[name]))


@pytest.mark.parametrize("name", FORMATS)
def test_the_levels_tile_the_address(name: str) -> None:
    format = FORMATS[name]
    first, top = format.levels[0], format.levels[-1]
    for bit in range(64):
        users = sum(bool(here.index(1 << bit)) for here in format.levels)
        assert users == (first.shift <= bit < top.shift + top.index_bits)


# ---- faults in the data of a format, and in arrays ----


def at(number: int, place: int, change: Callable[[Shape], Shape]) -> Callable[[Format], Format]:
    """A change of one shape of one level."""

    def changed(format: Format) -> Format:
        levels = list(format.levels)
        made = list(levels[number].shapes)
        made[place] = change(made[place])
        levels[number] = replace(levels[number], shapes=tuple(made))
        return replace(format, levels=tuple(levels))

    return changed


def level(number: int, change: Callable[[Level], Level]) -> Callable[[Format], Format]:
    """A change of one level."""

    def changed(format: Format) -> Format:
        levels = list(format.levels)
        levels[number] = change(levels[number])
        return replace(format, levels=tuple(levels))

    return changed


def also_reserved(mask: int, value: int = 0) -> Callable[[Shape], Shape]:
    return lambda one: replace(one, reserved=(*one.reserved, Reserved(mask, "planted", value)))


def wider(one: Shape) -> Shape:
    """The address takes the bit below its lowest."""
    [field] = one.address
    return replace(one, address=(Field(field.mask | (field.mask & -field.mask) >> 1, field.shift),))


SV39, ARM, S390, POWER = "Sv39 with Svnapot", "arm64 4K", "s390 with EDAT-1", "POWER radix 4K"

PLANTS: dict[str, tuple[str, Check, Callable[[Format], Format]]] = {
    "a bit of the address is reserved too": (
        *(SV39, conformance.every_bit_is_decoded_once),
        at(1, 1, also_reserved(bits(40))),
    ),
    "a bit that tells the shape is of the address too": (
        *(SV39, conformance.every_bit_is_decoded_once),
        at(0, 0, lambda one: replace(one, address=(Field(bits(53, 10) | bits(63), 2),))),
    ),
    "two bits of an entry hold one bit of the address": (
        *(ARM, conformance.every_bit_is_decoded_once),
        at(0, 0, lambda one: replace(one, address=(*one.address, Field(bits(9), 31)))),
    ),
    "an entry of four bytes has bit 32": (
        *("Sv32", conformance.every_bit_is_decoded_once),
        at(0, 0, also_reserved(bits(32))),
    ),
    "two names share a bit": (
        *(ARM, conformance.names_are_of_bits_of_their_own),
        at(1, 1, lambda one: replace(one, bits={**one.bits, "also": bits(52)})),
    ),
    "a name lies in the address": (
        *(POWER, conformance.names_are_of_bits_of_their_own),
        at(0, 0, lambda one: replace(one, bits={**one.bits, "SW": bits(13, 12)})),
    ),
    "an address that is encoded is reserved": (
        *("arm64 4K with LPA2", conformance.what_is_encoded_is_decoded),
        at(0, 0, also_reserved(bits(8))),
    ),
    "no entry can have a shape": (
        *(S390, conformance.what_is_encoded_is_decoded),
        at(1, 1, lambda one: replace(one, forbidden=(Forbidden(one.when, "planted"),))),
    ),
    "pages come before pointers": (
        *(SV39, conformance.no_shape_is_shadowed),
        level(1, lambda here: replace(here, shapes=here.shapes[::-1])),
    ),
    "NAPOT comes after pages": (
        *(SV39, conformance.no_shape_is_shadowed),
        level(0, lambda here: replace(here, shapes=here.shapes[::-1])),
    ),
    "an empty table is full of zeros": (
        *(S390, conformance.what_is_empty_is_absent),
        level(1, lambda here: replace(here, empty=0)),
    ),
    "what is absent is not said to be": (
        *(ARM, conformance.what_is_empty_is_absent),
        level(0, lambda here: replace(here, absent=(Pattern(3, 1),))),
    ),
    "two rights are one bit": (
        *(POWER, conformance.rights_come_back),
        lambda format: replace(format, rights={**format.rights, "execute": bits(1)}),
    ),
    "a right is never given": (
        *(ARM, conformance.rights_come_back),
        at(1, 0, lambda one: replace(one, grants={**(one.grants or {}), "user": Grant(0)})),
    ),
    "two rights stand in one place of a table": (
        *(ARM, conformance.rights_come_back),
        at(
            1,
            0,
            lambda one: replace(
                one, grants={**(one.grants or {}), "user": Grant(bits(62), bits(62))}
            ),
        ),
    ),
    "a page is half its slot": (
        *(SV39, conformance.pages_are_whole),
        at(0, 0, lambda one: replace(one, size=11)),
    ),
    "a page of 128K has an address as of 64K": (
        *(SV39, conformance.pages_are_whole),
        at(0, 0, lambda one: replace(one, size=17)),
    ),
    "an address lies within a large page": (
        *(ARM, conformance.pages_are_whole),
        at(1, 1, wider),
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_fault_in_the_data_is_found_by_the_check_that_is_there_for_it(plant: str) -> None:
    name, check, change = PLANTS[plant]
    assert not list(check(FORMATS[name]))
    assert list(check(change(FORMATS[name])))


def first_shape_alone(here: Level, raw: Words, addresses: Words) -> Words:
    return bulk._physical_in(here, here.pages[0], raw, addresses)


ARRAYS: dict[str, tuple[str, Check, str, object]] = {
    "arrays: shapes that overlap are all taken for the last": (
        *(SV39, conformance.arrays_read_entries_as_scalars_do),
        *("earlier", property(lambda here: ((),) * len(here.shapes))),
    ),
    "arrays: all shapes keep rights alike": (
        *(SV39, conformance.arrays_read_entries_as_scalars_do),
        *("grants_alike", True),
    ),
    "arrays: nothing is absent": (
        *(ARM, conformance.arrays_read_entries_as_scalars_do),
        *("absent", ()),
    ),
}


@pytest.mark.parametrize("plant", ARRAYS)
def test_arrays_that_read_otherwise_are_found(plant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, check, attribute, wrong = ARRAYS[plant]
    assert not list(check(FORMATS[name]))
    given = replace(FORMATS[name])
    for here in given.levels:
        value = wrong.__get__(here) if isinstance(wrong, property) else wrong
        monkeypatch.setitem(here.__dict__, attribute, value)
    if attribute == "absent":  # which scalars read too: those have read it before
        monkeypatch.setattr(Level, "is_absent", lambda here, raw: not raw & 1 or raw & 3 == 1)
    assert list(check(given))


def test_arrays_that_find_pages_of_one_size_alone_are_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bulk, "physical_of", first_shape_alone)
    assert list(conformance.arrays_walk_as_scalars_do(FORMATS[SV39]))
    assert not list(conformance.arrays_walk_as_scalars_do(FORMATS[ARM]))


def test_arrays_that_take_every_table_for_whole_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    checks = (
        conformance.arrays_walk_as_scalars_do,
        conformance.arrays_walk_words_as_scalars_walk_memory,
    )
    monkeypatch.setattr(bulk, "_is_there", lambda format, level, raw, _: np.full(len(raw), True))
    for check in checks:
        assert list(check(FORMATS["s390"]))
        assert not list(check(FORMATS[POWER])), "where all are"


def test_arrays_that_read_no_rights_of_tables_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def ignored(format: Format, shape: Shape, raw: Words) -> Words:
        given = raw ^ np.uint64(format.denied)
        return given | np.uint64(format.rights_mask if shape.points else 0)

    monkeypatch.setattr(bulk, "_given_in", ignored)
    assert list(conformance.arrays_walk_as_scalars_do(FORMATS[ARM]))
    assert not list(conformance.arrays_walk_as_scalars_do(FORMATS[SV39]))


def test_what_is_a_gain_in_a_page_and_another_thing_in_a_pointer_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_all_shapes(format: Format, shape: Shape, after: Words) -> Words:
        return after & np.uint64(format.rights_mask & ~format.denied | format.accessed)

    monkeypatch.setattr(bits_of_entries, "_gains", in_all_shapes)
    power = FORMATS["POWER radix 64K"]
    assert power.flushing is not None
    at_once = replace(power, flushing=replace(power.flushing, breaks=None))
    for format in at_once, FORMATS["x86 PAE with PDPTEs in a table"]:
        assert list(conformance.what_leads_elsewhere_is_flushed(format)), format
    assert not list(conformance.what_leads_elsewhere_is_flushed(FORMATS["x86 PAE"]))


def test_what_breaks_and_waits_for_no_flush_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """An accessed bit that is set in an entry of arm64 with the contiguous bit."""

    def nothing(format: Format, level: int, before: Words, after: Words) -> Mask:
        return np.zeros(len(before), np.bool_)

    check = conformance.what_breaks_is_flushed
    monkeypatch.setattr(bits_of_entries, "breaks", nothing)
    assert list(check(FORMATS[ARM]))
    assert not list(check(FORMATS[SV39]))
