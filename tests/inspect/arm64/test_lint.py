"""What arm64 adds to the rules about spaces, and spaces whose halves have tables of two formats."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from harness.inspect import architecture
from harness.inspect.arm64.lint import needs
from harness.inspect.find import addresses, shared
from harness.inspect.graph import RowKind, read
from harness.inspect.lint import Broken, lint
from harness.inspect.ranges import dump
from harness.inspect.select import condition
from harness.inspect.snapshot import Snapshot
from harness.inspect.translation import translate
from harness.paging.address import Physical, Span, Virtual
from harness.paging.arm64.access import Access, Allowed, Kind, outcome
from harness.paging.arm64.cpu import Cpu, Features, Half, Sctlr, Tcr
from harness.paging.entry import Absent
from harness.paging.memory import BufferMemory
from harness.paging.walk import walk
from harness.report.find import addresses_lines
from harness.report.ranges import dump_lines
from harness.report.translation import translation_lines
from tests.cli.commands import run

LOW, HIGH, SIZE = 0x1000, 0x8000, 0x20000
AF, RO, EL0, NG, CONT, PXN, UXN = (1 << bit for bit in (10, 7, 6, 11, 52, 53, 54))
PAGE = 0x8000_0000 | AF | RO | UXN | PXN | 3


def snapshot(
    pages: dict[int, int], cpu: Cpu | None = None, high: dict[int, int] | None = None
) -> Snapshot:
    """Pages in the lowest table of the lower half, of three levels of 4K, by their slots; and in
    that of the upper half."""
    octets = np.zeros(SIZE, np.uint8)
    words = octets.view("<u8")
    for root, own in ((LOW, pages), (HIGH, high)):
        if own is not None:
            words[root // 8] = root + 0x1000 | 3
            words[root // 8 + 512] = root + 0x2000 | 3
            for slot, raw in own.items():
                words[root // 8 + 1024 + slot] = raw
    half = Half("4K", 39, LOW)
    usual = Cpu.of(half, None if high is None else Half("4K", 39, HIGH))
    return Snapshot("", cpu or usual, BufferMemory(octets), None)


def found(of: Snapshot) -> dict[str, Broken]:
    types = architecture.of(of.cpu).memory_types.types(None, of.cpu)
    return {one.rule.name: one for one in lint(of, types)[0]}


def group(**changed: int) -> dict[int, int]:
    """A contiguous group of 16 pages in slots 16 to 31, but for slots that are changed."""
    pages = {16 + n: PAGE + 0x1000 * n | CONT for n in range(16)}
    return {**pages, **{int(slot[1:]): raw for slot, raw in changed.items()}}


def test_a_group_that_is_whole_is_no_finding() -> None:
    assert "contiguous-apart" not in found(snapshot(group()))
    # What differs may be the access flag.
    assert "contiguous-apart" not in found(snapshot(group(s20=(PAGE + 0x4000 | CONT) & ~AF)))


@pytest.mark.parametrize(
    "pages",
    [
        group(s20=PAGE + 0x4000),
        group(s20=0),
        group(s20=(PAGE + 0x4000 | CONT) & ~RO),
        group(s20=PAGE + 0x5000 | CONT),
        group(s20=PAGE + 0x4000 | CONT | 4),
        {16 + n: PAGE + 0x1000 * (n + 1) | CONT for n in range(16)},
        {n: PAGE + 0x1000 * n | CONT for n in range(8, 24)},
    ],
    ids=["without", "absent", "rights", "order", "type", "alignment", "astride"],
)
def test_a_group_that_is_not_whole_is_an_error(pages: dict[int, int]) -> None:
    broken = found(snapshot(pages))["contiguous-apart"]
    marked = sum(1 for raw in pages.values() if raw & CONT)
    assert (broken.rule.severity.value, broken.count) == ("error", marked)


def test_the_dirty_state_may_differ_where_hardware_keeps_it() -> None:
    pages = {slot: raw | 1 << 51 for slot, raw in group().items()}
    pages[20] &= ~RO
    assert "contiguous-apart" in found(snapshot(pages))
    keeps = Cpu.of(Half("4K", 39, LOW), None, ha=True, hd=True)
    assert "contiguous-apart" not in found(snapshot(pages, keeps))


def test_what_can_be_written_and_executed_is_by_whom_it_can() -> None:
    """EL1 executes nothing that EL0 can write, and WXN keeps all from it."""
    pages = {
        1: PAGE & ~(RO | PXN),
        2: PAGE & ~(RO | UXN),
        3: (PAGE | EL0) & ~(RO | PXN),
        4: (PAGE | EL0) & ~(RO | UXN),
        5: PAGE & ~PXN,
    }
    of = snapshot(pages)
    where = [one.where for one in found(of)["write-execute"].findings]
    assert [(span.first, span.last) for span in where if span] == [
        (0x1000, 0x1FFF),
        (0x2000, 0x2FFF),
        (0x4000, 0x4FFF),
    ]
    wxn = replace(of, cpu=replace(of.cpu, sctlr=of.cpu.sctlr | Sctlr.WXN))
    where = [one.where for one in found(wxn)["write-execute"].findings]
    assert [span.first for span in where if span] == [0x2000]


def test_el1_may_write_what_el0_alone_executes() -> None:
    """And not what EL1 executes, nor EL0 what either executes."""
    code = {"el0": PAGE & ~UXN | EL0 | NG, "el1": PAGE & ~PXN}
    data = {"el0": PAGE & ~RO | EL0 | NG, "el1": PAGE & ~RO}
    broken = {
        (one, other)
        for one, other in product(code, data)
        if "writable-code" in found(snapshot({1: code[one], 2: data[other]}))
    }
    assert broken == {("el0", "el0"), ("el1", "el0"), ("el1", "el1")}


def test_el0_has_nothing_of_a_half_that_is_closed_to_it() -> None:
    high = {1: PAGE | EL0 | NG}
    of = snapshot({}, high=high)
    assert found(of)["user-in-kernel-half"].count == 1
    closed = replace(of, cpu=replace(of.cpu, tcr=of.cpu.tcr | 1 << 56))
    assert "user-in-kernel-half" not in found(closed)


@pytest.mark.parametrize("high", [False, True])
def test_a_page_that_el0_may_write_is_executed_by_nobody_where_el0_is_kept_out(high: bool) -> None:
    """EL1 executes nothing that entries let EL0 write, also where E0PDx closes the half to it."""
    kept_out = 1 << 55 + high
    given = {
        1: (PAGE | EL0) & ~(RO | PXN | UXN),
        2: PAGE & ~(RO | PXN | UXN),
        3: PAGE & ~(RO | UXN),
    }
    of = snapshot({} if high else given, high=given if high else {})
    assert found(of)["write-execute"].count == 3
    closed = replace(of, cpu=replace(of.cpu, tcr=of.cpu.tcr | kept_out))
    (one,) = found(closed)["write-execute"].findings
    assert one.where is not None and one.where.first >> 12 & 511 == 2
    assert found(closed)["write-execute"].count == 1


def test_pages_of_el0_without_ng_are_global() -> None:
    broken = found(snapshot({1: PAGE | EL0, 2: PAGE | EL0 | NG, 3: PAGE}))
    assert broken["global-user"].count == 1


@pytest.mark.parametrize(
    ("bits", "said"),
    [
        (Tcr.HD, "HD=1 comes to nothing with HA=0"),
        (1 << 35, "TCR_EL1 has 0x800000000, which is RES0"),
        (1 << 12, "SH0=1 is reserved"),
        (1 << 51, "TBID0=1 comes to nothing with TBI0=0"),
    ],
)
def test_fields_of_tcr_that_come_to_nothing_are_named(bits: int, said: str) -> None:
    of = snapshot({1: PAGE})
    assert "tcr-reserved" not in found(of)
    of = replace(of, cpu=replace(of.cpu, tcr=of.cpu.tcr | bits))
    (finding,) = found(of)["tcr-reserved"].findings
    assert finding.detail.startswith(said)


def test_a_block_with_nt_is_one_that_is_being_changed() -> None:
    """Of blocks alone: bit 16 of a page is of its address (FEAT_BBM)."""
    of = snapshot({1: PAGE | 1 << 16})
    blocks = LOW + 0x1000
    for slot, bit in ((3, 1 << 16), (4, 0), (5, 1 << 16)):
        raw = 0x8000_0000 + (slot << 21) | AF | RO | UXN | PXN | bit | 1
        of.memory.store(Physical(blocks + 8 * slot), 8, raw)  # type: ignore[attr-defined]
    assert found(of)["block-being-changed"].count == 2


EVERYTHING, RES0 = Features(), 1 << 6 | 1 << 35


@pytest.mark.parametrize(
    ("bits", "features", "granule", "said"),
    [
        (0, EVERYTHING, "4K", None),
        (Tcr.HA, EVERYTHING, "4K", None),
        (Tcr.HA, EVERYTHING, "64K", None),
        (0, Features(hafdbs=0, lpa2=frozenset()), "4K", None),
        (Tcr.HA | Tcr.HD, EVERYTHING, "4K", None),
        (Tcr.HD, EVERYTHING, "4K", "HD=1 comes to nothing with HA=0"),
        (Tcr.HA, Features(hafdbs=0), "4K", "HA=1 comes to nothing on this processor"),
        (Tcr.HA, Features(hafdbs=1), "4K", None),
        (Tcr.DS, EVERYTHING, "4K", None),
        (Tcr.DS, Features(lpa2=frozenset()), "4K", "DS=1 comes to nothing on this processor"),
        (Tcr.DS, EVERYTHING, "64K", "DS=1 comes to nothing for TG{}: pages of 64K"),
        (1 << 6, EVERYTHING, "4K", "TCR_EL1 has 0x40, which is RES0"),
        (RES0, EVERYTHING, "4K", "TCR_EL1 has 0x800000040, which is RES0"),
        (1 << 12 | 1 << 28, EVERYTHING, "4K", "SH{}=1 is reserved"),
        (2 << 12 | 3 << 28, EVERYTHING, "4K", None),
        (3 << 51, EVERYTHING, "4K", "TBID{0}=1 comes to nothing with TBI{0}=0"),
        (3 << 51 | 3 << 37, EVERYTHING, "4K", None),
        (3 << 37, EVERYTHING, "4K", None),
    ],
)
@pytest.mark.parametrize("halves", [(True, True), (True, False), (False, True)])
def test_each_field_of_tcr_is_held_against_the_others(
    halves: tuple[bool, bool], bits: int, features: Features, granule: str, said: str | None
) -> None:
    """What is of one half is said of those that are on, with their addresses."""
    own = [Half(granule, 42, 0) if on else None for on in halves]
    plain = Cpu.of(*own, features=features)
    cpu = replace(plain, tcr=plain.tcr | bits)
    found = list(needs(Snapshot("", cpu, BufferMemory(bytes(8)), None)))
    if said is None:
        assert not found
    elif "{" not in said:
        [one] = found
        assert one.detail.startswith(said) and one.where == Span.of(0, 1 << 64)
    else:
        numbers = [number for number in (0, 1) if halves[number]]
        assert len(found) == len(numbers)
        for one, number in zip(found, numbers, strict=True):
            assert one.detail.startswith(said.format(number))
            first = (1 << 64) - (1 << 42) if number else 0
            assert one.where == Span.of(first, 1 << 42)


def two_formats(low: dict[int, int], high: dict[int, int]) -> Snapshot:
    """Halves of which the upper one has tables that withhold nothing."""
    cpu = Cpu.of(Half("4K", 39, LOW), Half("4K", 39, HIGH, hpd=True))
    return snapshot(low, cpu, high)


def test_halves_with_two_formats_are_looked_at_one_by_one() -> None:
    of = two_formats({1: PAGE, 2: PAGE & ~(RO | PXN)}, {5: PAGE, 6: PAGE & ~(RO | PXN)})
    low, high = architecture.parts(of)
    assert [len(one.cpu.roots) for one in (low, high)] == [1, 1]
    starts = [
        [one.first for one in dump(part.memory, part.cpu.format, part.cpu.roots).ranges]
        for part in (low, high)
    ]
    assert starts == [[0x1000, 0x2000], [0xFFFF_FF80_0000_5000, 0xFFFF_FF80_0000_6000]]
    assert found(of)["write-execute"].count == 2
    graphs = [read(one.memory, one.cpu.format, one.cpu.roots) for one in (low, high)]
    pieces, cut = shared(*graphs)
    assert [(one.span.first, one.addresses) for one in pieces] == [(0x8000_0000, 4)] and not cut


def test_a_type_that_differs_between_the_halves_is_found() -> None:
    of = two_formats({1: PAGE}, {1: PAGE | 1 << 2})
    of = replace(of, cpu=replace(of.cpu, mair=0x44FF))
    broken = found(of)["mixed-types"]
    (finding,) = broken.findings
    assert broken.rule.severity.value == "note"
    assert finding.detail == "NC at 0xffffff8000001000 and WB at 0x1000"


def test_commands_show_both_halves_of_two_formats(tmp_path: Path) -> None:
    of = two_formats({1: PAGE}, {5: PAGE})
    assert isinstance(of.memory, BufferMemory)
    octets, _ = of.memory.gather(np.arange(0, SIZE, 8, dtype=np.uint64), 8)
    (tmp_path / "ram").write_bytes(octets.astype("<u8").tobytes())
    roots = ("--ttbr0", f"{LOW:#x}", "--ttbr1", f"{HIGH:#x}")
    where = ("--ram", "ram", *roots, "--tcr", f"{of.cpu.tcr:#x}")
    code, out, _ = run("dump", *where, cwd=tmp_path)
    assert code == 0
    assert "0x0..0x7fffffffff, arm64 4K 39-bit:" in out and "0x1000..0x1fff" in out
    assert "0xffffff8000005000..0xffffff8000005fff" in out
    answer = json.loads(run("dump", *where, "--json", cwd=tmp_path)[1])
    assert (answer["total"], answer["ends"], answer["tables_read"]) == (2, 2, 6)
    assert [one["first"] for one in answer["ranges"]] == ["0x1000", "0xffffff8000005000"]
    rows = run("dump", *where, "--csv", cwd=tmp_path)[1].splitlines()
    assert len(rows) == 3 and rows[0].startswith("first,")
    answer = json.loads(run("find", "0x80000123", *where, "--json", cwd=tmp_path)[1])
    assert answer["places"][0]["total"] == 2
    source = f"ram:ram,ttbr0={LOW:#x},ttbr1={HIGH:#x},tcr={of.cpu.tcr:#x}"
    code, out, _ = run("diff", source, source, cwd=tmp_path)
    assert code == 0 and out.count("The spaces are the same.") == 2
    code, _, err = run("dump", *where, "--html", "x.html", cwd=tmp_path)
    assert code == 2 and "--html shows tables of one format, and these have" in err
    code, out, _ = run("walk", "0xffffff8000005123", *where, cwd=tmp_path)
    assert code == 0 and "0xffffff8000005123: 0x80000123, in a 4K page" in out


def test_a_type_that_is_reserved_is_an_error() -> None:
    """Type 0b01 is a block's: at the level of pages, and at L0 of 4K, none can be.  What has bit 0
    clear is software's, whatever else it holds."""
    assert "reserved-type" not in found(snapshot({1: PAGE, 2: PAGE & ~1, 3: PAGE & ~3}))
    broken = found(snapshot({1: PAGE, 2: PAGE & ~2}))["reserved-type"]
    (finding,) = broken.findings
    assert broken.rule.severity.value == "error" and finding.slot is not None
    assert finding.where is not None and finding.where.first == 0x2000
    assert (finding.slot.address, finding.slot.level) == (LOW + 0x2010, 0)
    octets = np.zeros(SIZE, np.uint8)
    octets.view("<u8")[LOW // 8 + 3] = 0x4000_0000 | AF | 1
    of = Snapshot("", Cpu.of(Half("4K", 48, LOW), None), BufferMemory(octets), None)
    (finding,) = found(of)["reserved-type"].findings
    assert finding.where is not None and finding.where.first == 3 << 39
    assert finding.detail == "0x3 a block: type 0b01 is reserved at L0, which has none"


@pytest.mark.parametrize(("granule", "bits"), [("4K", 48), ("4K", 39), ("16K", 48), ("64K", 48)])
def test_a_type_that_is_reserved_is_shown_with_what_is_mapped(granule: str, bits: int) -> None:
    """At the level of pages, and at the root's where no block can be; with bit 0 clear an entry is
    nobody's, and nothing of the space."""
    cpu = Cpu.of(Half(granule, bits, 0), None)
    format, top = cpu.format, cpu.levels - 1
    octets = np.zeros(4 * 0x10000, np.uint8)
    words = octets.view("<u8")
    for at in range(top, 0, -1):
        words[(top - at) * 0x2000] = (top - at + 1) * 0x10000 | 3
    words[top * 0x2000 + 5 : top * 0x2000 + 8] = PAGE | 3, PAGE & ~2, PAGE & ~1
    shown = dump(BufferMemory(octets), format, cpu.roots)
    kinds = [(one.first >> format.levels[0].shift, one.kind) for one in shown.ranges]
    assert kinds == [(5, RowKind.PAGE), (6, RowKind.MALFORMED)]
    assert shown.total == 2
    chosen = condition(cpu, ("WB",) * 8, "kind=malformed")
    (one,) = dump(BufferMemory(octets), format, cpu.roots, chosen=chosen).ranges
    (line,) = [text for text in dump_lines(cpu, ("WB",) * 8, shown, 9) if "malformed" in text]
    assert one.kind == RowKind.MALFORMED and line.endswith(
        "malformed: a page without bit 1: type 0b01 is reserved at L3, where pages have 0b11"
    )
    if format.levels[top].leaf is None:
        words[1] = 0x4000_0000 | AF | 1
        last = list(dump(BufferMemory(octets), format, cpu.roots).ranges)[-1]
        assert (last.first, last.level) == (format.levels[top].size, top)
    # The walk ends there as at any other descriptor that is invalid.
    last_step = walk(BufferMemory(octets), cpu.roots[0], Virtual(one.first)).steps[-1]
    assert isinstance(last_step.entry, Absent)


def test_a_type_that_is_reserved_is_named_where_its_frame_is_looked_for() -> None:
    of = snapshot({1: PAGE, 2: PAGE & ~2, 3: (PAGE + 0x1000) & ~2, 4: PAGE & ~1})
    tables = read(of.memory, of.cpu.format, of.cpu.roots)
    found_ = addresses(tables, Physical(0x8000_0123), 9)
    assert (found_.total, found_.total_spoilt) == (1, 1)
    *_, last = addresses_lines(of.cpu, found_)
    assert last == (
        f"Not by slot 2 of the level-3 table at {LOW + 0x2000:#x}, {PAGE & ~2:#x}, which is"
        " malformed: 0x3 a page without bit 1: type 0b01 is reserved at L3, where pages have 0b11."
    )


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        (group(s20=PAGE + 0x4000), "entry 4 is without the bit"),
        (group(s31=0), "entry 15 is missing"),
        (group(s16=0, s17=0, s20=0), "entries 0 to 1 and 4 are missing"),
        (group(s20=(PAGE + 0x4000 | CONT) & ~RO), "AP[2] differs in entry 4"),
        (group(s20=PAGE + 0x4000 | CONT | 4), "AttrIndx differs in entry 4"),
        (group(s20=PAGE + 0x5000 | CONT), "entry 4 does not lead on in order"),
        (
            {16 + n: PAGE + 0x1000 * (n + 1) | CONT for n in range(16)},
            "the memory at 0x80001000, of entry 0, is not aligned to 64K",
        ),
        (
            group(s20=0, s21=(PAGE + 0x5000 | CONT) & ~PXN),
            "entry 4 is missing; PXN differs in entry 5",
        ),
        (
            group(s21=(PAGE + 0x5000 | CONT) & ~PXN, s22=PAGE + 0x6000 | CONT | 4),
            "PXN differs in entry 5; AttrIndx differs in entry 6",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_wrong_with_a_group_is_said(pages: dict[int, int], said: str) -> None:
    details = {one.detail for one in found(snapshot(pages))["contiguous-apart"].findings}
    assert details == {said}


def test_each_group_that_is_not_whole_is_a_finding() -> None:
    """Though their entries are neighbours that say the same."""
    pages = {16 + n: PAGE + 0x1000 * n | CONT for n in range(16)}
    pages |= {32 + n: PAGE + 0x1000 * (n + 1) | CONT for n in range(16)}
    pages |= {48 + n: PAGE + 0x1000 * n | CONT for n in range(15)}
    broken = found(snapshot(pages))["contiguous-apart"]
    assert [one.where and one.where.first for one in broken.findings] == [0x20000, 0x30000]
    assert [one.detail for one in broken.findings][1] == "entry 15 is missing"


@pytest.mark.parametrize(
    ("granule", "level", "odd"),
    [("4K", 1, 0x1000), ("4K", 1, 0x10_0000), ("4K", 0, 1 << 48), ("16K", 0, 0x1000),
     ("64K", 1, 0x1FF_0000 & ~(1 << 16)), ("16K", 1, 0x1000)],
)  # fmt: skip
def test_what_an_address_has_no_part_of_is_a_warning(granule: str, level: int, odd: int) -> None:
    """Of blocks and pages, and of pointers to tables (the last)."""
    cpu = Cpu.of(Half(granule, 42, 0), None)
    format = cpu.format
    octets = np.zeros(4 * 0x10000, np.uint8)
    words, top = octets.view("<u8"), cpu.levels - 1
    for at in range(top, 0, -1):
        words[(top - at) * 0x2000] = (top - at + 1) * 0x10000 | 3
    place, table = (top - level) * 0x2000, (granule, level) == ("16K", 1)
    kept = words[place] if table else 0x8000_0000 | AF | RO | PXN | UXN | (1 if level else 3)
    words[place] = kept
    of = Snapshot("", cpu, BufferMemory(octets), None)
    assert "unchecked-bits" not in found(of)
    words[place] |= np.uint64(odd)
    broken = found(of)["unchecked-bits"]
    (finding,) = broken.findings
    at = int(kept) & ~0xFFF & (1 << 48) - 1
    name = format.levels[level].name
    assert (broken.rule.severity.value, finding.detail) == (
        "warning",
        f"{name} has {odd:#x}, which is no part of its address, {at:#x}",
    )
    text = "\n".join(translation_lines(cpu, translate(of, Virtual(0))))
    assert f"ignored   {odd:#x} in the {name}: RES0, and not checked" in text


def test_pages_that_the_processor_does_not_mark_used_are_a_note() -> None:
    pages = {1: PAGE, 2: PAGE & ~AF}
    broken = found(snapshot(pages))["marks-missing"]
    assert (broken.rule.severity.value, broken.count) == ("note", 1)
    assert broken.findings[0].where == Span(0x2000, 0x2FFF)
    assert "marks-missing" not in found(snapshot(pages, Cpu.of(Half("4K", 39, LOW), None, ha=True)))


@pytest.mark.parametrize("changed", [0, AF, AF | RO, AF | PXN | UXN, AF | PXN])
@pytest.mark.parametrize("ha", [False, True])
@pytest.mark.parametrize("el0", [False, True])
@pytest.mark.parametrize("slot", [0, 7])
def test_what_a_self_map_shows_is_what_accesses_to_it_come_to(
    changed: int, ha: bool, el0: bool, slot: int
) -> None:
    """Read as a page, a table descriptor has AF, AP, PXN and UXN where a pointer has bits that are
    ignored (Table D8-52): an access faults with AF=0 unless the processor sets it."""
    cpu = Cpu.of(Half("4K", 39, LOW), None, ha=ha)
    of = snapshot({1: PAGE}, cpu)
    words = of.memory.octets.view("<u8")  # type: ignore[attr-defined]
    pointer = 3 | changed | (EL0 if el0 else 0)
    if slot:  # the root in itself: its own entry is the page
        words[LOW // 8 + slot] = LOW | pointer
    else:  # the root in a table below it, whose page is that which the root leads to
        words[LOW // 8 + 512 + 5] = LOW | 3
        words[LOW // 8] = LOW + 0x1000 | pointer
    broken = found(of)
    assert broken["self-map"].count == 1
    slots = (0, 1, 5, 7)
    under = [7 << 30 | one << 21 for one in slots] if slot else [5 << 21]

    def passes(at: int, kind: Kind, who: int) -> bool:
        asked = Access(kind, el0=bool(who))
        return isinstance(outcome(cpu, of.memory, Virtual(at), asked), Allowed)

    pages = [
        {(kind, who): passes(table | page << 12, kind, who) for kind in Kind for who in (0, 1)}
        for table in under
        for page in slots
    ]
    assert ("self-map-executable" in broken) == any(
        any(page[Kind.WRITE, who] for who in (0, 1))
        and any(page[Kind.FETCH, who] for who in (0, 1))
        for page in pages
    )
    written = any(page[Kind.WRITE, 1] for page in pages)
    assert ("table-user-writable" in broken) == written
    read = any(page[Kind.READ, 1] and not page[Kind.WRITE, 1] for page in pages)
    assert ("table-user-readable" in broken) == read
