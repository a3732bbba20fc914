"""Layouts for arm64: built, compared with the machine, and faults of the reference found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.check.arm64 import at, debugger, probes, validate
from harness.check.arm64.layouts import build
from harness.check.arm64.quirks import AT_DBM, BLOCK_ANYWHERE, DBM_FETCH
from harness.check.layouts import Layout, LayoutError, divided, load, parse, shipped
from harness.check.quirk import expected_of
from harness.check.translations import GVA2GPA, SAMPLE
from harness.check.validation import SpaceReport
from harness.machine.arm64.guest import Guest
from harness.machine.arm64.processor import MachineInfo
from harness.machine.monitor import Monitor
from harness.paging import bulk
from harness.paging.arm64.access import Kind
from harness.paging.arm64.bulk import Outcomes, outcomes
from harness.paging.arm64.cpu import Cpu, Half, Tcr
from harness.paging.arm64.formats import AF, AP_READ_ONLY, GRANULES
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from tests.machine.arm64.present import QEMU, why_absent

LAYOUTS = {path.stem: path for path in shipped("arm64")}
SPACES = [(name, levels) for name, path in LAYOUTS.items() for levels in load(path).levels]
CHEAP = [(name, levels) for name, levels in SPACES if name not in ("dense", "sparse")]

PAGES = {"smallest": 1, "dense": 2048, "sparse": 120, "rights": 32, "rights-64k": 32, "hpd": 49}
"""How many pages and blocks some layouts have."""

NOWHERE = "the page has no memory behind it"

MAX = MachineInfo((0x32310201126, 0x11010211122, 0x1021011010011011, 0, 0), 0x1221111110212120, 0)
"""The processor `max` of QEMU 7.2, which has all that these layouts need."""

A72 = MachineInfo((0x1124, 0, 0, 0, 0), 0x11120, 0)


def validated(name: str, levels: int) -> SpaceReport:
    """What comes of a shipped layout; a skip where there is no machine for it."""
    if reason := why_absent():
        pytest.skip(reason)
    return validate.validate(load(LAYOUTS[name]), levels, program=QEMU)


def built(layout: Layout, levels: int, info: MachineInfo = MAX) -> tuple[Any, BufferMemory]:
    tables, _ = divided(layout)
    memory = BufferMemory(np.zeros(tables.size, np.uint8), tables.first)
    return build(layout, levels, info, memory), memory


@pytest.mark.parametrize(("name", "levels"), SPACES)
def test_every_layout_is_built(name: str, levels: int) -> None:
    layout = load(LAYOUTS[name])
    cpu, memory = built(layout, levels)
    _, frames = divided(layout)
    [first, *others] = (len(root.table.format.levels) for root in cpu.roots)
    assert first == levels and (layout.control.high_granule or others == [levels])
    pages = bulk.leaves(memory, cpu.roots)
    pages = pages.take(pages.end == End.LEAF)
    if name != "malformed":
        assert (pages.physical >= np.uint64(frames.first)).all()
    if name in PAGES:
        assert len(pages.virtual) == PAGES[name]


def test_the_halves_have_roots_of_their_own_of_the_size_that_they_need() -> None:
    cpu, _ = built(load(LAYOUTS["page-sizes-16k"]), 4)
    assert (cpu.low.root, cpu.high.root) == (0x4200_0000, 0x4200_0010)
    cpu, _ = built(load(LAYOUTS["lpa2"]), 5)
    assert (cpu.low.root, cpu.high.root) == (0x4200_0000, 0x4200_0080)
    assert (cpu.tcr & Tcr.DS, cpu.tcr >> 32 & 7) == (Tcr.DS, 6)


@pytest.mark.hw
@pytest.mark.parametrize(("name", "levels"), CHEAP)
def test_the_machine_agrees_and_known_quirks_show(name: str, levels: int) -> None:
    report = validated(name, levels)
    assert report.disagreed == 0, report.disagreements[0]
    assert report.compared > 1500
    assert not report.count("news")
    version = tuple(map(int, report.qemu.split(".")))
    marks = {"hardware", "hardware-wxn"}
    shown = {
        one.name
        for one in (DBM_FETCH, AT_DBM)
        if name in marks and expected_of(one, "tcg", version)
    }
    assert {one for one, count in report.count("quirks").items() if count} == shown
    out = set[str]()
    if name == "malformed":
        out = {NOWHERE}
        if levels == 4 and expected_of(BLOCK_ANYWHERE, "tcg", version):
            out.add(f"descriptors that QEMU reads otherwise ({BLOCK_ANYWHERE.name})")
    assert set(report.count("not_comparable")) == out


@pytest.mark.hw
@pytest.mark.parametrize(("name", "levels"), [("dense", 3), ("sparse", 4)])
def test_the_machine_agrees_on_many_pages(name: str, levels: int) -> None:
    report = validated(name, levels)
    assert report.disagreed == 0, report.disagreements[0]


def _with(**changes: Callable[[Any], Any]) -> Callable[..., Outcomes]:
    """The reference with some of its arguments changed."""

    def wrong(cpu: Any, memory: Any, address: Any, kind: Any, el0: Any, **flags: Any) -> Outcomes:
        given = {"kind": kind, "el0": el0, **flags}
        given |= {name: change(given[name]) for name, change in changes.items() if name in given}
        cpu = changes.get("cpu", lambda same: same)(cpu)
        return outcomes(cpu, memory, address, **given)

    return wrong


def _instead(of: Kind, other: Kind) -> Callable[[Any], Any]:
    return lambda kind: np.where(kind == of, other, kind).astype(np.uint8)


def _changed(**changes: Callable[[Outcomes], Any]) -> Callable[..., Outcomes]:
    """The reference with some of its answers changed."""

    def wrong(*asked: Any, **flags: Any) -> Outcomes:
        found = outcomes(*asked, **flags)
        return replace(found, **{name: change(found) for name, change in changes.items()})

    return wrong


def _physical(bit: int) -> Callable[[Outcomes], Any]:
    """Walks that lead to another frame, by one bit."""

    def walks(found: Outcomes) -> Any:
        wrong = found.walks.physical ^ np.where(found.reason == 0, bit, 0).astype(np.uint64)
        return replace(found.walks, physical=wrong)

    return walks


def _syndrome(mask: int, bits: int) -> Callable[[Outcomes], Any]:
    """Syndromes with other bits, where there are any."""

    def syndrome(found: Outcomes) -> Any:
        there = found.syndrome != 0
        return np.where(there, found.syndrome ^ np.uint32(bits & mask), 0).astype(np.uint32)

    return syndrome


def _tcr(bits: int) -> Callable[..., Outcomes]:
    return _with(cpu=lambda cpu: replace(cpu, tcr=cpu.tcr ^ bits))


PLANTED: dict[str, tuple[str, Callable[..., Outcomes]]] = {
    "PAN plays no part": ("rights", _with(pan=np.zeros_like)),
    "PAN is always set": ("rights", _with(pan=np.ones_like)),
    "UAO plays no part": ("rights", _with(uao=np.zeros_like)),
    "PAN and UAO are each other": (
        "rights",
        lambda *asked, pan, uao: outcomes(*asked, pan=uao, uao=pan),
    ),
    "EL0 and EL1 are each other": ("rights", _with(el0=np.logical_not)),
    "LDTR is LDR": ("rights", _with(kind=_instead(Kind.LDTR, Kind.READ))),
    "STTR is LDTR": ("rights", _with(kind=_instead(Kind.STTR, Kind.LDTR))),
    "an atomic only reads": ("rights", _with(kind=_instead(Kind.AMO, Kind.READ))),
    "an atomic is a store": ("rights", _with(kind=_instead(Kind.AMO, Kind.WRITE))),
    "a fetch is a read": ("rights", _with(kind=_instead(Kind.FETCH, Kind.READ))),
    "WXN plays no part": ("wxn", _with(cpu=lambda cpu: replace(cpu, sctlr=1))),
    "WXN without SCTLR_EL1.WXN": (
        "rights",
        _with(cpu=lambda cpu: replace(cpu, sctlr=cpu.sctlr | 1 << 19)),
    ),
    "tables withhold with HPD": ("hpd", _tcr(3 << 41)),
    "tables withhold nothing": ("table-rights", _tcr(3 << 41)),
    "the halves withhold by HPD0 alone": ("table-rights", _tcr(1 << 41)),
    "HA is clear": ("hardware", _tcr(Tcr.HA)),
    "HA is set": ("no-hardware", _tcr(Tcr.HA)),
    "HD is clear": ("hardware", _tcr(Tcr.HD)),
    "HD is set": ("only-af", _tcr(Tcr.HD)),
    "AF is never set": (
        "hardware",
        _changed(changes=lambda found: found.changes & np.uint64(AP_READ_ONLY)),
    ),
    "AP[2] is never cleared": (
        "hardware",
        _changed(changes=lambda found: found.changes & np.uint64(AF)),
    ),
    "the neighbouring frame": ("rights", _changed(walks=_physical(0x1000))),
    "a frame beyond all memory": ("rights", _changed(walks=_physical(1 << 40))),
    "the level is another": ("rights", _changed(syndrome=_syndrome(1, 1))),
    "WnR is the opposite": ("rights", _changed(syndrome=_syndrome(1 << 6, 1 << 6))),
    "EC is that of the other level": ("rights", _changed(syndrome=_syndrome(1 << 26, 1 << 26))),
    "FAR is that of the page": (
        "rights",
        _changed(far=lambda found: found.far & np.uint64(~0xFFF & 2**64 - 1)),
    ),
    "every translation fault is of permission": (
        "malformed",
        _changed(syndrome=lambda found: found.syndrome | np.uint32(8)),
    ),
    "AF=0 comes after permission": (
        "no-hardware",
        lambda *asked, **flags: outcomes(
            replace(asked[0], tcr=asked[0].tcr | Tcr.HA), *asked[1:], **flags
        ),
    ),
}
"""Faults of the reference, each with a layout that shows it."""


@pytest.mark.hw
@pytest.mark.parametrize("fault", PLANTED)
def test_a_fault_of_the_reference_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, wrong = PLANTED[fault]
    monkeypatch.setattr(probes, "outcomes", wrong)
    assert validated(name, 3).disagreed >= 4


@pytest.mark.hw
@pytest.mark.parametrize("bit", [1, 1 << 3, 1 << 20])
def test_an_at_that_answers_otherwise_is_found(bit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    judged = at._as_expected

    def otherwise(found: Outcomes, results: Any) -> Any:
        results["data"] ^= np.uint64(bit)
        return judged(found, results)

    monkeypatch.setattr(at, "_as_expected", otherwise)
    (_, translated, *_) = validated("rights", 3).comparisons
    assert translated.disagreed > 100


SIZES = {"4K": ("4K", "2M"), "16K": ("16K", "32M"), "64K": ("64K", "512M")}


def paired(low: str, high: str, wide: bool) -> tuple[Layout, int]:
    """Pages, blocks and denied pages in halves of two granules, and the levels of the lower one."""
    levels = {"4K": 4, "16K": 4, "64K": 3}[low] + (wide and low == "4K")
    first = 0, 2**64 - 2 ** (52 if wide else 48)
    head = f"title = 'two'\narch = 'arm64'\nram = '2G'\nlevels = [{levels}]\n[cpu]\n"
    head += f"granule = '{low}'\nhigh_granule = '{high}'\nwide = {str(wide).lower()}\n"
    maps = ""
    for base, granule in zip(first, (low, high), strict=True):
        page, block = SIZES[granule]
        for offset, size, rights, count in (
            (0x40_0000, page, "wuxk", 3),
            (0x80_0000, page, "wu", 1),
            (0x90_0000, page, "k", 1),
            (0x4000_0000, block, "ux", 1),
        ):
            maps += f"[[map]]\nvirtual = {base + offset}\nsize = '{size}'\ncount = {count}\n"
            maps += f"physical = 'random'\nrights = '{rights}'\n"
    return parse(head + maps, "two.toml"), levels


PAIRS = [
    (low, high, wide) for low in SIZES for high in SIZES if low != high for wide in (False, True)
]


@pytest.mark.parametrize(("low", "high", "wide"), PAIRS)
def test_each_half_has_the_tables_of_its_granule(low: str, high: str, wide: bool) -> None:
    layout, levels = paired(low, high, wide)
    cpu, memory = built(layout, levels)
    assert (cpu.low.granule, cpu.high.granule) == (low, high)
    assert cpu.low.address_bits == cpu.high.address_bits == (52 if wide else 48)
    pages = bulk.leaves(memory, cpu.roots)
    for half, granule in ((0, low), (1, high)):
        here = pages.take(pages.virtual >> np.uint64(63) == half)
        page = 1 << GRANULES[granule].page
        assert here.level.tolist() == [0, 0, 0, 0, 0, 1]
        assert not (here.physical % np.uint64(page)).any() and len(set(here.physical)) == 6
        assert np.diff(here.virtual[:3]).tolist() == [page] * 2


@pytest.mark.hw
@pytest.mark.parametrize(("low", "high", "wide"), PAIRS)
def test_the_machine_agrees_on_two_granules(low: str, high: str, wide: bool) -> None:
    if reason := why_absent():
        pytest.skip(reason)
    report = validate.validate(*paired(low, high, wide), program=QEMU)
    assert report.disagreed == 0, report.disagreements[0]
    assert report.compared > 1500 and not report.count("not_comparable")


@pytest.mark.hw
def test_a_library_that_reads_both_halves_alike_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := why_absent():
        pytest.skip(reason)

    def alike(cpu: Any, memory: Any, *asked: Any, **flags: Any) -> Outcomes:
        low = replace(cpu.high, granule=cpu.low.granule)
        tcr = Cpu.of(cpu.low, low).tcr & (3 << 30) | cpu.tcr & ~(3 << 30)
        return outcomes(replace(cpu, tcr=tcr), memory, *asked, **flags)

    monkeypatch.setattr(probes, "outcomes", alike)
    assert validate.validate(*paired("4K", "64K", False), program=QEMU).disagreed > 100


def el0s(cpu: Any, memory: Any, cases: Any) -> Outcomes:
    """What loads at EL0 come to: the monitor is asked about those of EL1."""
    return probes.of_cases(cpu, memory, replace(cases, el0=np.ones_like(cases.el0)))


def one_page_on(*asked: Any) -> Outcomes:
    """The reference with every page at the next one's address."""
    found = probes.of_cases(*asked)
    moved = found.walks.physical + np.uint64(0x1000)
    return replace(found, walks=replace(found.walks, physical=moved))


def with_pan(cpu: Any, memory: Any, cases: Any) -> Outcomes:
    """What the loads come to with PAN, which the parked processor has not."""
    return probes.of_cases(cpu, memory, replace(cases, pan=np.ones_like(cases.pan)))


MISTAKEN: dict[str, tuple[str, str, Any]] = {
    "every page at the next one's address": ("rights", "of_cases", one_page_on),
    "a load of EL0": ("rights", "of_cases", el0s),
    "a load with PAN": ("rights", "of_cases", with_pan),
    "AF counts": ("no-hardware", "TRANSLATED", [0]),
    "what faults is translated": ("malformed", "TRANSLATED", range(16)),
}
"""Faults of what gva2gpa is expected to say, each with a layout that shows it."""


@pytest.mark.hw
@pytest.mark.parametrize("fault", MISTAKEN)
def test_what_gva2gpa_is_mistaken_for_is_found_by_it_alone(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, name, wrong = MISTAKEN[fault]
    monkeypatch.setattr(debugger, name, wrong)
    report = validated(layout, 3)
    assert report.disagreed > 1
    assert {one.oracle for one in report.disagreements} == {GVA2GPA}


@pytest.mark.hw
def test_a_monitor_that_translates_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Monitor.translations

    def otherwise(monitor: Monitor, addresses: Any) -> Any:
        found = asked(monitor, addresses)
        return [None if one is None else one ^ 0x1000 for one in found]

    monkeypatch.setattr(Monitor, "translations", otherwise)
    report = validated("smallest", 3)
    assert {one.oracle for one in report.disagreements} == {GVA2GPA}


@pytest.mark.hw
def test_gva2gpa_is_asked_about_a_sample_or_all_mappings() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    some, every = (
        next(one.compared for one in report.comparisons if one.oracle == GVA2GPA)
        for report in (
            validate.validate(load(LAYOUTS["dense"]), 3, program=QEMU, thorough=thorough)
            for thorough in (False, True)
        )
    )
    assert some == SAMPLE and every > 2 * PAGES["dense"]


@pytest.mark.hw
def test_gva2gpa_sees_a_half_that_e0pd_closes_to_el0(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = 1 << 56  # the upper half; in the lower one is the window, which EL0 executes
    monkeypatch.setattr(
        validate, "build", lambda *asked: replace(cpu := build(*asked), tcr=cpu.tcr | closed)
    )
    report = validated("rights", 3)
    assert report.disagreed == 0, report.disagreements[0]
    monkeypatch.setattr(debugger, "LOAD", replace(debugger.LOAD, el0=True))
    assert {one.oracle for one in validated("rights", 3).disagreements} == {GVA2GPA}


@pytest.mark.hw
def test_the_monitor_lists_no_translations() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as guest:
        for what in ("tlb", "mem"):
            answer = guest.monitor.human(f"info {what}")  # the second one by 11.1
            assert "unknown command" in answer or "not available" in answer


@pytest.mark.hw
def test_tables_that_change_behind_the_harness_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = probes.ask_guest

    def and_writes(guest: Any, state: Any, cpu: Any, memory: BufferMemory, *rest: Any) -> Any:
        found = asked(guest, state, cpu, memory, *rest)
        memory.store(cpu.roots[1].table.slot(5).address, 8, 1 << 8)
        return found

    monkeypatch.setattr(probes, "ask_guest", and_writes)
    report = validated("smallest", 4)
    assert report.disagreed == 1
    assert report.disagreements[0].oracle == "table bytes"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("levels = [6]", "tables of arm64 have 2, 3, 4 or 5 levels, not 6"),
        ("levels = [3]\n[cpu]\nwp = true", "no key 'wp'"),
        ('levels = [3]\n[cpu]\ngranule = "8K"', "granule is '8K', "),
        ("levels = [3]\n[cpu]\ngranule = 4", "granule is 4, "),
        ("levels = [3]\n[cpu]\nha = 1", "ha is 1, neither true nor false"),
        ('levels = [4]\n[[map]]\nvirtual = 0\nsize = "4K"\nrights = "rw"', "letters w, u, x, k"),
    ],
)
def test_what_no_layout_is_is_refused(text: str, said: str) -> None:
    with pytest.raises(LayoutError, match=said):
        parse(f'title = "wrong"\narch = "arm64"\n{text}\n', "wrong.toml")


@pytest.mark.parametrize(
    ("text", "levels", "info", "said"),
    [
        ("", 5, MAX, "wrong: pages of 4K have at most 4 levels for 48 bits, not 5"),
        ('[cpu]\ngranule = "64K"', 4, MAX, "pages of 64K have at most 3 levels for 48 bits, not 4"),
        ('[cpu]\ngranule = "16K"', 3, A72, "wrong: .* 16K in TG0, which the processor lacks"),
        ("[cpu]\nwide = true", 3, A72, "the processor has no 52 bits with pages of 4K"),
        ('[[map]]\nvirtual = 0\nsize = "16K"', 3, MAX, "4K 39-bit have 4K, 2M, 1G"),
        ('[[map]]\nvirtual = 0\nsize = "4K"\nphysical = 0x300_0000', 3, MAX, "below 0x43000000"),
        (
            '[[map]]\nvirtual = 0x80_0000_0000\nsize = "4K"',
            3,
            MAX,
            "0x8000000000 is not an address of this space",
        ),
        (
            '[[map]]\nvirtual = 0\nsize = "4K"\nphysical = 0x1_0000_0000_0000',
            4,
            MAX,
            "beyond MAXPHYADDR 48",
        ),
    ],
)
def test_spaces_that_cannot_be_are_refused(
    text: str, levels: int, info: MachineInfo, said: str
) -> None:
    head = 'title = "wrong"\narch = "arm64"\nlevels = [2, 3, 4, 5]\n'
    layout = parse(head + text + "\n", "wrong.toml")
    tables, _ = divided(layout)
    memory = BufferMemory(np.zeros(tables.size, np.uint8), tables.first)
    with pytest.raises(LayoutError, match=said):
        build(layout, levels, info, memory)
    assert not memory.octets.any()


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("granule", "levels"), [("4K", 4), ("16K", 4), ("64K", 3)])
def test_pages_can_be_as_far_up_as_the_output_size_reaches(
    granule: str, levels: int, wide: bool
) -> None:
    bits, size = 52 if wide else 48, {"4K": 1 << 12, "16K": 1 << 14, "64K": 1 << 16}[granule]
    head = f'title = "far"\narch = "arm64"\nlevels = [2, 3, 4, 5]\n[cpu]\ngranule = "{granule}"\n'
    head += f"wide = {str(wide).lower()}\n[[map]]\nvirtual = 0\nsize = '{granule}'\nphysical = "
    levels += wide and granule == "4K"
    cpu, memory = built(parse(f"{head}{(1 << bits) - size:#x}\n", "far.toml"), levels)
    assert bulk.leaves(memory, cpu.roots).physical.tolist() == [(1 << bits) - size]
    with pytest.raises(LayoutError, match=f"{1 << bits:#x}"):
        built(parse(f"{head}{1 << bits:#x}\n", "far.toml"), levels)


def test_a_layout_that_says_nothing_has_pages_of_4k_and_marks_kept() -> None:
    cpu, _ = built(parse('title = "plain"\narch = "arm64"\nlevels = [3]\n', "plain.toml"), 3)
    assert [half.granule for half in (cpu.low, cpu.high)] == ["4K", "4K"]
    assert cpu.sets_access_flag and cpu.keeps_dirty_state
    assert not (cpu.wxn or cpu.low.hpd or cpu.high.hpd or cpu.is_wide("4K"))


def test_output_sizes_follow_the_processor() -> None:
    cpu, _ = built(load(LAYOUTS["smallest"]), 4, A72)
    assert cpu.output_bits(Half("4K", 48, 0)) == 44
