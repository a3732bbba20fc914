"""Entries and ASCEs of s390, bit by bit, by the manual's bits counted from the highest."""

from __future__ import annotations

import pytest

from harness.inspect.decode import Part, Role, read
from harness.inspect.s390 import asce
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.s390.cpu import Cpu, Mode

CPU = Cpu.in_mode(Mode.REGION_FIRST, 0, edat1=True, edat2=True, iep=True)
OLD = Cpu.in_mode(Mode.REGION_FIRST, 0)
PRIVATE = Cpu.in_mode(Mode.REGION_FIRST, 0, private=True, edat1=True, edat2=True)


def bit(number: int) -> int:
    """A bit as the manual numbers it."""
    return 1 << 63 - number


def parts(cpu: Cpu, raw: int, level: int) -> dict[str, Part]:
    return {part.name: part for part in read(cpu, raw, level).parts}


@pytest.mark.parametrize("level", range(5))
@pytest.mark.parametrize("cpu", [CPU, OLD, PRIVATE], ids=["all", "none", "private"])
def test_every_bit_is_shown_once(cpu: Cpu, level: int) -> None:
    for raw in (0, bit(58), bit(53), bit(58) | bit(53), (level - 1) << 2 & 12, (1 << 64) - 1):
        shown = 0
        for part in read(cpu, raw, level).parts:
            assert not shown & part.mask
            shown |= part.mask
        assert shown == (1 << 64) - 1


@pytest.mark.parametrize(
    ("level", "raw", "name", "mask", "role", "meaning"),
    [
        (0, 0x5000, "I", bit(53), Role.PRESENT, "valid"),
        (0, 0x5000 | bit(54), "P", bit(54), Role.RIGHT, "no stores"),
        (0, 0x5000 | bit(55), "IEP", bit(55), Role.RIGHT, "no fetches of instructions"),
        (0, 0x5000, "frame", 0xFFFFFFFFFFFFF000, Role.ADDRESS, "the frame is at 0x5000"),
        (1, 0x5800, "I", bit(58), Role.PRESENT, "valid"),
        (1, 0x5800, "origin", 0xFFFFFFFFFFFFF800, Role.ADDRESS, "the page table is at 0x5800"),
        (
            1,
            0x5800 | bit(59),
            "CS",
            bit(59),
            Role.GLOBAL,
            "common: in all spaces",
        ),
        (2, 0x5000 | bit(59) | 4, "CR", bit(59), Role.GLOBAL, "common: in all spaces"),
        (1, 0x500000 | bit(53), "FC", bit(53), Role.KIND, "a frame as large as the slot"),
        (1, 0x500000 | bit(53), "frame", 0xFFFFFFFFFFF00000, Role.ADDRESS, "the frame is at 0x500"),
        (
            2,
            0x5000 | 0x47,
            "TF",
            bit(56) | bit(57),
            Role.KIND,
            "the table below begins with",
        ),
        (
            2,
            0x5000 | 0x47,
            "TL",
            bit(62) | bit(63),
            Role.KIND,
            "the table below ends with",
        ),
        (2, 0x5004, "TT", bit(60) | bit(61), Role.KIND, "of a region-third table"),
        (2, 0x5004, "origin", 0xFFFFFFFFFFFFF000, Role.ADDRESS, "the segment table is at 0x5000"),
        (4, 0x500F, "TT", bit(60) | bit(61), Role.KIND, "of a region-first table"),
    ],
)
def test_what_parts_say(
    level: int, raw: int, name: str, mask: int, role: Role, meaning: str
) -> None:
    part = parts(CPU, raw, level)[name]
    assert (part.mask, part.role) == (mask, role)
    assert part.meaning.startswith(meaning)


def test_what_is_wrong_is_reserved() -> None:
    for cpu, level, raw, name, must_be in (
        (CPU, 0, bit(52), "0", 0),
        (CPU, 1, bit(61), "TT", 0),
        (CPU, 3, bit(61), "TT", 2),
        (PRIVATE, 1, bit(59), "CS", 0),
        (PRIVATE, 2, 4 | bit(53) | bit(59), "CR", 0),
    ):
        assert isinstance(read(cpu, raw, level).entry, Malformed)
        (wrong,) = (part for part in read(cpu, raw, level).parts if part.wrong)
        assert (wrong.name, wrong.must_be) == (name, must_be)


@pytest.mark.parametrize(("level", "kind"), [(1, 0), (2, 4)])
def test_the_storage_key_of_a_frame_is_named(level: int, kind: int) -> None:
    """ACCF validity, the access key and fetch protection are bits 47 to 52 of large frames."""
    for raw in (bit(53) | kind, kind):
        for part in read(CPU, raw, level).parts:
            keyed = part.mask & sum(bit(number) for number in range(47, 53))
            assert ("storage key" in part.meaning) == bool(keyed and raw & bit(53)), part


def test_the_lowest_eight_bits_of_a_page_table_entry_are_softwares() -> None:
    for raw in (0x5000, 0x50FF):
        (free,) = (part for part in read(CPU, raw, 0).parts if "software" in part.meaning)
        assert (free.mask, free.role) == (0xFF, Role.IGNORED)


def test_zero_is_an_entry_and_invalid_is_none() -> None:
    assert isinstance(read(CPU, 0, 0).entry, Leaf)
    assert isinstance(read(CPU, 0, 1).entry, Pointer)
    for level, invalid in ((0, bit(53)), (1, bit(58)), (4, bit(58))):
        reading = read(CPU, invalid, level)
        assert isinstance(reading.entry, Absent)
        assert {part.role for part in reading.parts} == {Role.PRESENT, Role.IGNORED}


def test_without_facilities_their_bits_are_ignored() -> None:
    assert parts(CPU, 4 | bit(54), 2)["P"].role is Role.RIGHT
    for level, raw, mask in ((0, bit(55), bit(55)), (1, bit(53), bit(53)), (2, 4, bit(54))):
        (found,) = (part for part in read(OLD, raw, level).parts if part.mask & mask)
        assert found.role is Role.IGNORED


def test_bits_that_should_be_0_are_told_from_those_that_a_facility_has() -> None:
    """Of a segment-table entry, without enhanced DAT: P is there always, FC, IEP and CS are not
    looked at; bits 0 and 6 to 8 from the lowest, and 10, should be 0."""
    found = read(OLD, 0x5800, 1).parts
    other = next(part for part in found if part.mask & bit(53))
    assert other.role is Role.UNCHECKED or "facility" in other.meaning
    unchecked = {part.mask: part for part in found if part.role is Role.UNCHECKED}
    assert all(part.meaning == "should be 0, and is not looked at" for part in unchecked.values())
    assert sum(unchecked) & (bit(63) | bit(57)) == bit(63) | bit(57)
    assert not sum(unchecked) & bit(54)


def test_an_asce_is_shown_bit_by_bit() -> None:
    found = asce.read(CPU, 0x12345000 | bit(55) | bit(60) | bit(63))
    assert (found.name, found.leads_to, found.reserved) == ("ASCE", 0x12345000, 0)
    assert sum(part.mask for part in found.parts) == (1 << 64) - 1
    said = {part.name: part.meaning for part in found.parts}
    assert said["DT"] == "a region-second table"
    assert said["TL"] == "2 of its 4 quarters are there"
    assert said["P"] == "a private space: nothing is common"
    said = {part.name: part.meaning for part in asce.read(CPU, 0x12345000 | bit(62)).parts}
    assert said["DT"] == "a segment table"
    assert said["TL"] == "3 of its 4 quarters are there"
    assert said["P"] == "not private"
    said = {part.name: part.meaning for part in asce.read(CPU, 0x12345000).parts}
    assert said["TL"] == "1 of its 4 quarters is there"
    for part in found.parts:
        if part.role is not Role.ADDRESS:
            assert part.value == (found.raw & part.mask) >> part.low, part.name
        else:
            assert part.value == found.leads_to
        assert part.reason == (part.meaning if part.role is Role.IGNORED else "")
    for wrong in (bit(58), 1 << 64):
        with pytest.raises(QuestionError, match=r"real space|wider than 64"):
            asce.read(CPU, wrong)
