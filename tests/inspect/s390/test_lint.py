"""What lint finds in tables of s390, and what dump shows of those that lead back up."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.inspect.graph import RowKind
from harness.inspect.lint import Broken, lint
from harness.inspect.ranges import dump
from harness.inspect.s390.memory_type import AT_RESET
from harness.paging.address import Virtual
from harness.paging.s390.access import Access, Allowed, Kind, outcome
from harness.report.ranges import cells
from tests.inspect.s390.spaces import CPU, MEMORY, PAGES, REGIONS, SEGMENTS, snapshot


def broken(cpu: object = CPU, **changed: int) -> dict[str, Broken]:
    found, _ = lint(replace(snapshot(CPU, **changed), cpu=cpu), AT_RESET)
    return {one.rule.name: one for one in found}


def test_a_space_that_is_right_breaks_what_it_is_meant_to() -> None:
    assert set(broken(p0=0x400)) == set()
    assert set(broken()) == {"write-execute", "address-zero"}


@pytest.mark.parametrize(
    ("changed", "rule"),
    [
        ({"p0": 0x9800}, "reserved-bits"),
        ({"s0": PAGES | 4}, "reserved-bits"),
        ({"r0": SEGMENTS}, "reserved-bits"),
        ({"r0": SEGMENTS | 4 | 0x40}, "no-part-of-table"),
        ({"s0": PAGES | 0x80}, "unchecked-bits"),
        ({"r0": SEGMENTS | 4 | 0x10}, "unchecked-bits"),
        ({"s1": MEMORY}, "table-without-memory"),
        ({"s0": PAGES | 0x200}, "withheld-above"),
        ({"s1": PAGES + 0x800}, "empty-table"),
        ({"r1": REGIONS | 7}, "table-in-itself"),
        ({"p0": PAGES}, "table-mapped"),
    ],
)
def test_what_can_be_wrong_is_found(changed: dict[str, int], rule: str) -> None:
    found = broken(**changed)
    assert rule in found, set(found)
    assert rule not in broken()


def test_whether_tables_can_be_written_through_a_self_map_is_what_stores_come_to() -> None:
    """Of entries that lead back up, at each level and to tables of each: those of segments make
    pages of tables, whose entries have no type, and those of regions never do."""
    at = {"r1": (1 << 31, 20), "s1": (1 << 20, 12)}
    seen = set()
    for name, (address, shift) in at.items():
        for lead in (REGIONS, SEGMENTS):
            for odd in (0, 4, 7, 0x200):
                where = snapshot(CPU, **{name: lead | odd})
                tables = {REGIONS, SEGMENTS, PAGES}
                reached = set()
                for index in range(256):
                    asked = Virtual(address + (index << shift))
                    for kind in (Kind.READ, Kind.WRITE):
                        found = outcome(CPU, where.memory, asked, Access(kind))
                        if isinstance(found, Allowed) and found.physical & -0x1000 in tables:
                            reached.add(kind)
                expected = set()
                if Kind.WRITE in reached:
                    expected.add("self-map-writable")
                elif Kind.READ in reached:
                    expected.add("self-map-readable")
                rules = set(broken(**{name: lead | odd}))
                assert rules & {"self-map-writable", "self-map-readable"} == expected, (name, odd)
                seen.add((name, *expected))
    assert seen >= {("r1",), ("s1", "self-map-writable"), ("s1", "self-map-readable")}


def test_common_segments_are_wrong_in_a_private_space_alone() -> None:
    private = replace(CPU, asce=CPU.asce | 0x100)
    assert "reserved-bits" in broken(private, s0=PAGES | 0x10)
    assert "reserved-bits" not in broken(s0=PAGES | 0x10)


def test_what_bounds_leave_out_breaks_nothing() -> None:
    """Slot 512 of the segment table is in its second quarter."""
    assert "reserved-bits" not in broken(s512=PAGES | 4)
    assert "reserved-bits" in broken(s512=PAGES | 4, r0=SEGMENTS | 5)


@pytest.mark.parametrize(
    ("slot", "good", "unused"),
    [("s0", PAGES, {53, 55, 56, 57, 62, 63}), ("r0", SEGMENTS | 4, {52, 53, 55, 59})],
)
def test_bits_of_pointers_that_should_be_0_are_noted(
    slot: str, good: int, unused: set[int]
) -> None:
    """By the manual's numbers.  Of a segment-table entry 54 is P, 58 I, 59 CS, 60 and 61 TT; of a
    region-table entry 54 is P, 56 and 57 TF, 58 I, 60 and 61 TT, 62 and 63 TL."""
    for number in range(51, 64):
        found = broken(**{slot: good ^ 1 << 63 - number})
        assert ("unchecked-bits" in found) == (number in unused), number


@pytest.mark.parametrize("raw", [REGIONS | 7, REGIONS | 4, REGIONS | 0x207])
def test_a_self_map_through_which_no_access_passes_has_no_rights(raw: int) -> None:
    """That of a region table: entries of its own type are malformed where segments are meant."""
    for name, address, step, passes in (("r1", 1 << 31, 20, False), ("s1", 1 << 20, 12, True)):
        where = snapshot(CPU, **{name: raw & ~(0xF if name == "s1" else 0)})
        reads = [
            outcome(CPU, where.memory, Virtual(address + (index << step)), Access(Kind.READ))
            for index in range(256)
        ]
        assert any(isinstance(one, Allowed) for one in reads) == passes
        [loop] = (
            one
            for one in dump(where.memory, CPU.format, CPU.roots).ranges
            if one.kind == RowKind.SELF_MAP
        )
        row = cells(CPU, AT_RESET, loop)
        assert bool(loop.shown) == bool(row[3]) == passes
        assert row[-1].endswith("through it" if passes else "and no page")
        before = dump(where.memory, CPU.format, CPU.roots, each=1 << 12).ranges
        shown = sum(
            one.pages
            for one in before
            if one.kind == RowKind.PAGE and loop.first <= one.first <= loop.last
        )
        assert loop.shown == shown
