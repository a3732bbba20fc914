"""What is asked of guests, and made of their answers, with a guest that follows the rules as they
are written a second time, or departs from them as some QEMU does: versions that are not here, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.changes import RAM_BYTES, Change
from harness.check.compare import EXAMPLES, PROBE, Comparison, Disagreement
from harness.check.layouts import Layout, divided, load, parse, shipped
from harness.check.marks import marked
from harness.check.matrix import Report
from harness.check.product import Values, evenly
from harness.check.quirk import expected_of
from harness.check.riscv import changes, fixtures, probes, quirks
from harness.check.riscv.cases import Cases, Stated, of_places, of_space
from harness.check.riscv.fixtures import new_live
from harness.check.riscv.layouts import DESCRIBED, build
from harness.check.riscv.live import ACCESSES, Live
from harness.check.riscv.matrix import run
from harness.check.riscv.matrix.chain import Chain
from harness.check.riscv.matrix.families import families, lanes, reserved_alone
from harness.check.riscv.matrix.hart import MODES, Control, Hart
from harness.check.riscv.matrix.judged import expected
from harness.check.riscv.matrix.run import Work, tried_on
from harness.check.riscv.matrix.verdicts import agreeing, jobs_of
from harness.check.riscv.replay import MatrixCase
from harness.check.riscv.replay import _of_matrix as of_matrix
from harness.check.riscv.space import GuestSpace
from harness.check.riscv.validate import compare_one, compare_space, state_of
from harness.check.riscv.window import entries
from harness.check.tables import TABLE_BYTES, TableImage
from harness.check.validation import Built, built_in
from harness.machine.errors import Misuse
from harness.machine.ram import MIB
from harness.machine.riscv.processor import RAM_BASE
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.memory import Mask, within
from harness.paging.riscv.access import Kind
from harness.paging.riscv.cpu import Cpu, Mode
from tests.check.by_rules import ends, has_room_for_two
from tests.check.riscv import by_rules
from tests.check.riscv.by_rules import DEPARTS, SEVEN, TEN, ByRules, Version
from tests.check.riscv.guests import family
from tests.check.samples import total
from tests.check.tampered import looked_at, noted
from tests.paging.riscv_rules import Answer

LAYOUTS = {path.stem: path for path in shipped("riscv")}

QUIRKS: Final = {
    by_rules.AMO_LOADS: "tcg-riscv-amo-reads-first",
    by_rules.AS_LOADS: "tcg-riscv-amo-load",
    by_rules.NO_TABLE: "tcg-riscv-table-without-memory",
    by_rules.HIGH_BITS: "tcg-riscv-reserved-60-54",
    by_rules.PBMT3: "tcg-riscv-pbmt3",
    by_rules.PBMTE: "tcg-riscv-pbmte",
    by_rules.ANY_N: "tcg-riscv-n-without-svnapot",
    by_rules.NAPOT_LATE: "tcg-riscv-napot-marks",
    by_rules.LOW_PAGES: "tcg-riscv32-pages-of-32-bits",
    by_rules.MASKS_MXR: "tcg-riscv-masks-with-mxr",
}
"""Who departs so."""


def qemu(
    mode: str, version: Version, departs: Collection[str] | None = None, *without: str, **more: Any
) -> Any:
    """A guest that can have a mode, and departs as that version of QEMU unless given."""
    usual = DEPARTS[version] if departs is None else departs
    return ByRules(version, usual, Mode(mode).xlen, without=without, **more)


# ---- the matrix ----


def work(mode: str, guest: Any, count: int = 16) -> list[Work]:
    """Some cases of all families, of each under one of its control states."""
    source, found = np.random.default_rng(5), list[Work]()
    named = "rv64" if guest.without else ""
    hart = Hart.of(mode, guest.info, named)
    for one in (reserved_alone if guest.without else families)("quick", hart):
        able = [control for control in one.controls if one.lacks(control) is None]
        legal = np.flatnonzero(one.product.legal())
        control = able[int(source.integers(len(able)))]
        found.append(Work(one, control, np.sort(source.choice(legal, count))))
    return found


def tried(guest: Any, some: list[Work]) -> Report:
    return total(tried_on(guest, some))


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("mode", MODES)
def test_the_matrix_agrees_with_a_guest_that_does_as_qemu_does(mode: str, version: Version) -> None:
    guest = qemu(mode, version)
    found = tried(guest, work(mode, guest))
    assert not found.failures, found.failures
    assert not found.comparison.news
    assert found.comparison.compared == found.by_rule.total() > 60


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("without", [("svnapot",), ("svpbmt",), ("svnapot", "svpbmt")])
def test_so_it_does_where_extensions_are_lacking(
    without: tuple[str, ...], version: Version
) -> None:
    guest = qemu("sv39", version, None, *without)
    found = tried(guest, work("sv39", guest))
    assert not found.failures, found.failures
    assert not found.comparison.news


Where = Callable[[Values], Mask]


def among(name: str, *values: str | int) -> Where:
    """Cases that have one of the values on an axis."""
    return lambda of: np.isin(of[name], values)


class Shown(NamedTuple):
    """A mode, the extensions that are lacking, and cases of a family in which a departure shows."""

    mode: str
    family: str
    level: int
    where: tuple[Where, ...]
    without: tuple[str, ...] = ()


AMOS, DATA = among("access", "amo"), among("access", "read", "write", "lr", "amo")
SHOWN: Final = {
    by_rules.AMO_LOADS: Shown("sv39", "nowhere", 0, (AMOS, among("W", 0))),
    by_rules.AS_LOADS: Shown("sv48", "nowhere", 0, (AMOS, among("W", 1))),
    by_rules.NO_TABLE: Shown("sv57", "nowhere", 2, (among("table", 1),)),
    by_rules.HIGH_BITS: Shown("sv39", "reserved", 1, (among("set", "54", "60", "54+60"),)),
    by_rules.PBMT3: Shown("sv39", "reserved", 0, (among("set", "61+62"),)),
    by_rules.PBMTE: Shown("sv48", "reserved", 0, (among("set", "61", "62"),)),
    by_rules.ANY_N: Shown("sv39", "reserved", 0, (among("set", "63"),), ("svnapot",)),
    by_rules.NAPOT_LATE: Shown(
        "sv39", "napot", 0, (among("N", 1), among("ppn", 0, 4, 12), among("A", 0), among("U", 0))
    ),
    by_rules.LOW_PAGES: Shown("sv32", "nowhere", 0, (among("W", 1),)),
    by_rules.MASKS_MXR: Shown(
        "sv39", "canonical", 0, (among("mxr", 1), among("mprv", 0), among("set", "60"), DATA)
    ),
}


def those(shown: Shown, guest: Any, count: int = 20) -> list[Work]:
    """Some of the cases in which a departure shows, under all control states."""
    source, found = np.random.default_rng(6), list[Work]()
    hart = Hart.of(shown.mode, guest.info, "rv64" if guest.without else "")
    one = family(shown.family, shown.level, hart)
    chosen = one.product.legal()
    for where in shown.where:
        chosen = chosen & where(one.product.grid)
    places = np.flatnonzero(chosen)
    for control in one.controls:
        if one.lacks(control) is None:
            found.append(Work(one, control, np.sort(source.choice(places, count, replace=False))))
    return found


@pytest.mark.parametrize(
    ("name", "version"),
    [  # QEMU 7.2 masks no pointers
        each for each in product(SHOWN, DEPARTS) if each != (by_rules.MASKS_MXR, SEVEN)
    ],
)
def test_each_departure_is_told_by_its_quirk_alone(name: str, version: Version) -> None:
    """Where it is expected it shows, and that it is gone is news; elsewhere it disagrees."""
    shown, departs, quirk = SHOWN[name], DEPARTS[version], QUIRKS[name]
    guest = qemu(shown.mode, version, departs, *shown.without)
    some = those(shown, guest)
    guest.departs = departs | {name, by_rules.AMO_LOADS}
    with_it = tried(guest, some)
    guest.departs = departs - {name}
    without = tried(guest, some)
    assert not without.comparison.disagreed and not without.comparison.quirks[quirk]
    if name in departs:
        assert not with_it.comparison.disagreed and not with_it.comparison.news
        count = with_it.comparison.quirks[quirk]
        assert min(count, with_it.departed.total()) > 4
        assert without.comparison.news[f"{quirk} did not show"] == count
    else:
        assert with_it.comparison.disagreed == with_it.disagreed.total() > 4


def test_the_quirks_of_a_version_are_those_that_it_departs_in() -> None:
    for version, departs in DEPARTS.items():
        known = {one.name for one in quirks.judged_of("tcg", version)}
        assert known == {QUIRKS[name] for name in departs & QUIRKS.keys()}
    assert set(QUIRKS.values()) == {one.name for one in quirks.JUDGED}
    for name, one in quirks.KNOWN.items():
        assert name == one.name and set(one.runs) <= set(DEPARTS) == set(quirks.RUNS)
        seen = {version for version in DEPARTS if expected_of(one, one.engine, version)}
        assert seen == set(one.runs) and one.since == min(seen)[:2]
        later = [version[:2] for version in DEPARTS if version > max(seen)]
        assert one.until == min(later, default=None)


# ---- layouts ----

KINDS: Final = {Kind.READ: "load", Kind.WRITE: "store", Kind.FETCH: "fetch", Kind.AMO: "AMO"}
NAMED: Final = {
    12: "instruction page fault",
    13: "load page fault",
    15: "store/AMO page fault",
    1: "instruction access fault",
    5: "load access fault",
    7: "store/AMO access fault",
}
"""Exception codes and their names ("Machine Cause (mcause) Register")."""

ODD: Final = """
title = "What QEMU 7.2 and 10.0 read otherwise, what has no memory, a page of 64K, and one of IO"
arch = "riscv"
levels = [3]
ram = "64M"
[[map]]
virtual = 0x40_0000
size = "4K"
rights = "rwxu"
[[entry]]
virtual = 0x40_1000
level = 0
value = 0x0040_0000_20c0_00df
[[entry]]
virtual = 0x40_2000
level = 0
value = 0x6000_0000_20c0_00df
[[entry]]
virtual = 0x40_3000
level = 0
value = 0x8000_0000_20c0_001f
[[map]]
virtual = 0x40_4000
size = "4K"
physical = 0x1_0000_0000
rights = "rx"
[[entry]]
virtual = 0x41_6000
level = 0
value = 0x8000_0000_20d0_20df
[[entry]]
virtual = 0x41_7000
level = 0
value = 0x4000_0000_20d1_00df
"""

REFUSED: Final = {(0x40_5000, 0): 0x2080_00D7, (0x4000_0000, 2): 1 << 42 | 1}
"""By address and level, entries of it that no layout may have: of a page outside of its frames, and
of a table where no memory is."""


class Probed(NamedTuple):
    """What was asked of a guest, and what came of it."""

    guest: Any
    cpu: Cpu
    cases: Cases
    results: npt.NDArray[np.void]
    found: Comparison


@contextmanager
def probed(
    layout: Layout,
    levels: int,
    guest: Any,
    count: int = 500,
    stored: Mapping[tuple[int, int], int] = MappingProxyType({}),
) -> Iterator[Probed]:
    """What comes of some accesses to a layout, with entries as in `REFUSED`."""
    noted, true = list[npt.NDArray[np.void]](), type(guest).tampered.__get__(guest)

    def note(results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        noted.append(true(results))
        return noted[-1]

    guest.tampered = note
    with built_in(guest, layout, levels, build, entries) as (memory, cpu, frames, window):
        for (address, level), word in stored.items():
            paths = bulk.paths(memory, cpu.roots[0], np.array([address], np.uint64))
            memory.store(Physical(int(paths.slot[level, 0])), cpu.format.entry_bytes, word)
        leaves = bulk.leaves(memory, cpu.roots)
        every = of_space(cpu, memory, leaves.take(~within(leaves.virtual, window)), window)
        cases: Cases = every.take(evenly(len(every), count))
        tables = memory.octets[: divided(layout)[0].last + 1 - memory.span.first].copy()
        written = TableImage.of(memory, cpu.roots)
        state = state_of(cpu, window)
        found = probes.ask_guest(guest, state, cpu, memory, frames, written, cases)
        assert (tables == memory.octets[: len(tables)]).all(), "entries are put back"
        [results] = noted
        yield Probed(guest, cpu, cases, results, found)


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("levels", DESCRIBED.modes, ids=MODES)
@pytest.mark.parametrize("name", ["rights", "page-sizes"])
def test_layouts_agree_with_a_guest_that_does_as_qemu_does(
    name: str, levels: int, version: Version
) -> None:
    layout = load(LAYOUTS[name])
    guest = qemu(DESCRIBED.modes[levels], version, ram_bytes=layout.ram)
    with probed(layout, levels, guest) as (_, _, cases, results, found):
        pass
    assert not found.disagreed and not found.news, found.disagreements
    assert found.compared == len(results) > 400
    shown = {QUIRKS[by_rules.AS_LOADS]} if version == SEVEN else set()
    assert set(found.quirks) == shown
    text, user = guest.image.text, guest.image.user
    stub = within(cases.address, Span(text.start, user.stop - 1)) & cases.mprv
    count = int(stub.sum()) if version == SEVEN else 0
    assert found.not_comparable == (
        {f"by MPRV to the addresses of the stub's code ({quirks.MPRV_CODE.name})": count}
        if count
        else {}
    )
    assert bool(count) == (version == SEVEN and name == "page-sizes")


@pytest.mark.parametrize("version", DEPARTS)
def test_what_qemu_reads_otherwise_is_not_asked_and_has_its_reason(version: Version) -> None:
    """Each denied access that comes to something else there; and what reaches no frame."""
    layout = parse(ODD, "odd.toml")
    guest = qemu("sv39", version, ram_bytes=layout.ram)
    with probed(layout, 3, guest, 600, REFUSED) as (_, cpu, cases, _, found):
        assert not found.disagreed and not found.news, found.disagreements
        reasons = Counter[str]()
        departs = {
            0x40_1000: by_rules.HIGH_BITS,
            0x40_2000: by_rules.PBMT3,
            0x40_3000: by_rules.NAPOT_LATE,
            0x4000_0000: by_rules.NO_TABLE,
        }
        for lane in range(len(cases)):
            way, address = stated(cases, lane), int(cases.address[lane])
            page = 0x4000_0000 if 1 << 30 <= address < 2 << 30 else address & ~0xFFF
            seen = answer(guest, cpu, address, way)
            rules = answer(guest, cpu, address, way, departs=())
            if page in (0x40_4000, 0x40_5000) and rules.cause is None:
                reasons["the page has no memory behind it"] += 1
            if page in departs and departs[page] in DEPARTS[version]:
                assert rules.cause is not None
                if (rules.cause, rules.updated) != (seen.cause, seen.updated):
                    name = QUIRKS[departs[page]]
                    reasons[f"the engine reads entries otherwise ({name})"] += 1
        assert found.not_comparable == reasons
        assert len(reasons) == 1 + len(DEPARTS[version] & set(departs.values()))
        assert found.compared == len(cases) - reasons.total()


def stated(cases: Cases, lane: int) -> Stated:
    """One of many accesses."""
    flags = (cases.user, cases.sum, cases.mxr, cases.mprv)
    return Stated(Kind(int(cases.kind[lane])), *(bool(one[lane]) for one in flags))


def answer(
    guest: Any, cpu: Cpu, address: int, way: Stated, departs: Collection[str] | None = None
) -> Answer:
    """What an access comes to in a guest, which departs as it does unless given; an AMO as one."""
    hart = guest.hart(state_of(cpu, Span(0, 0)), way.sum, way.mxr)
    departs = guest.departs if departs is None else departs
    found: Answer = guest.of_qemu(hart, address, KINDS[way.kind], way.user, way.mprv, departs)
    return found


@pytest.mark.parametrize("levels", [2, 3])
def test_a_load_of_an_amo_may_leave_a_mark_and_no_other_access_may(
    levels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, looked, free = load(LAYOUTS["rights"]), 0, 0
    guest = qemu(DESCRIBED.modes[levels], TEN, (), ram_bytes=layout.ram)
    batches, leaf = noted(monkeypatch, probes, "_as_expected"), f"after {levels - 1}"
    with probed(layout, levels, guest) as (_, cpu, cases, _, found):
        assert not found.disagreed
        for one in batches:
            reached = one.asked[2].reached
            in_a_page, denied = reached.paths.used[0], np.zeros(len(cases), np.bool_)
            for lane in np.flatnonzero((cases.kind == Kind.AMO) & ~reached.allowed).tolist():
                way = replace(stated(cases, lane), kind=Kind.READ)
                denied[lane] = answer(guest, cpu, int(cases.address[lane]), way).cause is None
            looked += looked_at(one, {leaf: (in_a_page & ~denied, (6, 7))})[leaf]
            looked_at(one, {leaf: (in_a_page, (7,))})
            other = one.results.copy()
            other["after"][:, levels - 1] ^= np.uint64(1 << 6)
            assert one.judge(other)[denied & in_a_page].all()
            free += int((denied & in_a_page).sum())
    assert looked > 100 and free > 5


class Never(ByRules):
    """A guest that says of each access the opposite of what came of it."""

    def tampered(self, results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results["completed"] ^= 1
        results["data"] ^= np.uint64(0xF0)
        return results


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("levels", [2, 4])
def test_what_rules_and_machines_say_is_put_into_words(
    levels: int, version: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = load(LAYOUTS["rights"])
    guest: Any = Never(version, (), 32 if levels == 2 else 64, layout.ram)
    with probed(layout, levels, guest, 40) as asked:
        assert asked.found.disagreed == asked.found.compared == 40
        assert len(asked.found.disagreements) == EXAMPLES
    monkeypatch.setattr(probes, "EXAMPLES", 1 << 16)
    marked_before = {(0x40_5000, 0): 0x2100_00D7}
    with probed(layout, levels, guest, 400, marked_before) as (_, cpu, cases, results, found):
        assert len(found.disagreements) == found.disagreed == len(cases) and not found.quirks
        none, seen = guest.image.enums["CAUSE_NONE"], set[str]()
        for lane, one in enumerate(found.disagreements):
            way, result = stated(cases, lane), results[lane]
            assert (one.oracle, one.access, one.address) == (PROBE, way, cases.address[lane])
            rules, said = answer(guest, cpu, one.address, way), one.expected
            if rules.cause is None:
                at, now = rules.updated or (guest.ram.base, guest.word(guest.ram.base))
                sets = now ^ guest.word(at)
                marked = f", sets {sets:#x} in the leaf" if sets else ""
                assert said == f"reaches {rules.physical:#x}{marked}"
                seen.add(marked)
                assert one.walk is not None and one.walk.physical == rules.physical
            else:
                assert said.startswith(f"cause {rules.cause} ({NAMED[rules.cause]}): ")
                steps = re.search(r"steps? (\d)(?: to (\d))?\)", said)
                first, last = (0, 0) if steps is None else (steps[1], steps[2] or steps[1])
                assert int(first) <= rules.step <= int(last)
            cause, tval, data = (int(result[name]) for name in ("cause", "tval", "data"))
            named = f"{cause} ({NAMED[cause]})" if cause in NAMED else str(cause)
            saw = "no exception" if cause == none else f"cause {named}, tval {tval:#x}"
            made = "made" if result["completed"] else "not made"
            start, words = one.observed.split(", entries then ")
            assert start == f"{made}: {saw}, data {data:#x}"
            count = 0 if rules.level is None else levels - rules.level
            assert (0 if one.walk is None else len(one.walk.steps)) == count
            assert words == ", ".join(hex(word) for word in result["after"][:count].tolist())
        assert seen == {"", ", sets 0x40 in the leaf", ", sets 0xc0 in the leaf"}


@contextmanager
def smallest(guest: Any) -> Iterator[Built[Cpu]]:
    with built_in(guest, load(LAYOUTS["smallest"]), 3, build, entries) as made:
        yield made


def test_every_oracle_is_asked_about_a_space_and_about_one_place_of_it() -> None:
    guest = qemu("sv39", SEVEN, ram_bytes=load(LAYOUTS["smallest"]).ram)
    with smallest(guest) as made:
        found = compare_space(guest, made)
        assert [one.oracle for one in found] == [PROBE, TABLE_BYTES]
        assert not any(one.disagreed or one.not_comparable for one in found)
        for way in WAYS:
            one = compare_one(guest, made, 0x40_0000 + 16 * (way.kind is Kind.FETCH), way)
            assert (one.oracle, one.compared, one.disagreed) == (PROBE, 1, 0)
        root = made.cpu.roots[0].table.address
        one = compare_one(guest, made, root + 8, None)
        assert (one.oracle, one.compared, one.disagreed) == (TABLE_BYTES, 1, 0)
        more = compare_space(guest, made, np.array([0x5000_1238, made.window.first + 8], np.uint64))
        assert more[0].compared - found[0].compared == len(WAYS)  # none in the window
        assert more[1] == found[1]


@pytest.mark.parametrize("mode", ["sv32", "sv39"])
def test_a_space_in_place_is_compared_and_a_question_about_it_asked_again(mode: str) -> None:
    """A page that leads to a table of the space is not tried."""
    guest = qemu(mode, TEN, ram_bytes=128 * MIB)
    space = GuestSpace(guest, mode)
    rights, at = space.format.granting("read", "write", "execute"), Virtual(0x40_8000)
    space.map(at, space.frames(2), 0, rights).done()
    with pytest.raises(Misuse, match="where there is no memory for tables"):
        fixtures.compared(guest, space.memory, Cpu.in_mode(Mode(mode), guest.ram.base), None)
    plain, written = fixtures.compared(guest, space.memory, space.cpu, None)
    assert not plain.disagreed and not plain.not_comparable and not written.disagreed
    asked = Disagreement(PROBE, at, Stated(Kind.READ, user=False, sum=False, mxr=False), "", "")
    one = fixtures.compare_one(guest, space.memory, space.cpu, asked)
    assert (one.oracle, one.compared, one.disagreed) == (PROBE, 1, 0)
    root = Disagreement(TABLE_BYTES, space.cpu.base, None, "", "")
    one = fixtures.compare_one(guest, space.memory, space.cpu, root)
    assert (one.oracle, one.compared, one.disagreed) == (TABLE_BYTES, 1, 0)
    table = np.array([space.cpu.base], np.uint64)
    space.map(Virtual(at + 0x4000), table, 0, space.format.granting("read")).done()
    found, _ = fixtures.compared(guest, space.memory, space.cpu, None)
    assert set(found.not_comparable) == {"the page holds a table"} and not found.disagreed


@pytest.mark.parametrize("mode", ["sv32", "sv57"])
def test_the_words_and_the_code_of_every_page_are_tried_but_for_the_window(mode: str) -> None:
    guest = qemu(mode, TEN, ram_bytes=128 * MIB)
    space = GuestSpace(guest, mode)
    every, at = space.format.granting("read", "execute"), 0x40_8000
    space.map(Virtual(at), space.frames(3), 0, every).done()
    leaves, window = bulk.leaves(space.memory, space.cpu.roots), Span.of(at + 0x1000, 0x1000)
    made = of_space(space.cpu, space.memory, leaves, window)
    fetched = set(made.address[made.kind == Kind.FETCH].tolist())
    read = set(made.address[made.kind == Kind.READ].tolist())
    assert {at + 0x10, at + 0x2010} <= fetched and {at, at + 0x2000} <= read
    assert not within(made.address, window).any()


WAYS: Final = [
    Stated(kind, user, sum, mxr)
    for sum, mxr, user in product((False, True), repeat=3)
    for kind in (Kind.FETCH, Kind.READ, Kind.WRITE, Kind.AMO)
]


@pytest.mark.parametrize(("mode", "word"), [(Mode.SV32, 4), (Mode.SV48, 8)])
def test_the_words_and_the_code_of_places_are_tried_in_every_way(mode: Mode, word: int) -> None:
    """Every other word by MPRV, as who does it otherwise directly."""
    outside, cpu = Span(0x5000, 0x5FFF), Cpu.in_mode(mode, 0x8000_0000)
    places = np.array([0x8765_123D, 0x8765_123C, 0x1FFF, 0x5008], np.uint64)
    made = of_places(cpu, places, outside)
    tried = Counter((int(made.address[lane]), stated(made, lane)) for lane in range(len(made)))
    data = (0x2000 - word, 0x8765_1238 if word == 8 else 0x8765_123C)
    code = (0x8765_1010, 0x1010)
    assert tried == Counter(
        (address, replace(way, mprv=way.kind is not Kind.FETCH and address == data[1]))
        for way in WAYS
        for address in (code if way.kind is Kind.FETCH else data)
    )


def test_a_guest_has_room_for_the_batches_of_the_matrix() -> None:
    has_room_for_two(lambda: qemu("sv39", TEN), run.BATCH)


def test_where_a_walk_ended_differs_where_entries_can_show_it() -> None:
    """Where some results, with the bits that may be either set or not, agree with one level and not
    with the other."""
    guest = qemu("sv39", TEN, ())
    hart = Hart.of("sv39", guest.info)
    chain, control = Chain(guest, hart.format), Control(adue=True)
    made = lanes(family("nowhere", 0, hart), chain, np.arange(0, 4000, 10))
    cpu = hart.cpu(control, chain.root)
    one = expected(hart, cpu, made)
    jobs = jobs_of(chain, made, one)
    results = guest.run(chain.state(cpu), jobs)
    other = results.copy()
    other["after"][np.arange(len(made)), one.walks.level] ^= one.free
    assert (other != results).any()
    elsewhere = replace(one, walks=replace(one.walks, level=one.walks.level ^ np.uint8(1)))
    each = [agreeing(chain, made, jobs, some, one) for some in (results, other)]
    assert all(agree.all() for agree in each)
    each = [agreeing(chain, made, jobs, some, elsewhere) for some in (results, other)]
    seen = ~(each[0] & each[1])
    assert seen.any() and not seen.all()
    assert (one.differs(elsewhere) == seen).all()


@pytest.mark.parametrize("mode", ["sv32", "sv57"])
def test_cases_of_the_matrix_are_put_into_words_and_asked_again(mode: str) -> None:
    """What is expected of the engine, what was seen, and the same of a case that is replayed."""
    version, said = SEVEN, {"engine": "tcg", "qemu": "7.2.22", "expected": "", "observed": ""}
    guest, plain = qemu(mode, version), qemu(mode, version, ())
    opposite: Any = Never(version, DEPARTS[version], guest.xlen)
    every = {QUIRKS[name] for name in DEPARTS[version] & QUIRKS.keys()}
    elsewhere = by_rules.LOW_PAGES if mode == "sv32" else by_rules.NO_TABLE
    departing = by_rules.AMO_LOADS, by_rules.AS_LOADS, elsewhere
    asked = [("", work(mode, guest, 2))]
    asked += [(one, those(SHOWN[one]._replace(mode=mode), guest, 4)) for one in departing]
    for name, some in asked:
        shown = set[str]()
        for part in some:
            hart, control = part.family.hart, part.control
            chain = Chain(guest, hart.format)
            made = lanes(part.family, chain, part.numbers)
            for lane in range(len(made)):
                case = MatrixCase.of(hart, control, made, lane, values="", **said)
                found = of_matrix(guest, case)
                assert (found.compared, found.disagreed) == (1, 0)
                by = guest.last
                assert found.quirks.keys() <= every
                assert of_matrix(plain, case).disagreed or not found.quirks
                shown |= found.quirks.keys()
                [wrong] = of_matrix(opposite, case).disagreements
                assert wrong.address == case.address
                assert not wrong.observed.startswith("made, " if by.cause is None else "cause ")
                told, _, words = wrong.expected.partition("; entries ")
                if by.cause is None:
                    assert told == f"reaches {by.physical:#x}"
                else:
                    start = f"cause {by.cause}, tval {by.tval:#x}, level {by.level or 0}: "
                    assert told.startswith(start) and len(told) > len(start)
                slots = chain.slots(np.array([by.tval], np.uint64))[:, 0].tolist()
                left = [guest.word(slot) for slot in slots]
                # What a denied access may set or not is not said to be set.
                either = (left,) if by.cause is None else (left, list(case.words))
                assert words in [" ".join(map(hex, some)) for some in either], case
        # In Sv32, a page that is found elsewhere has memory, and an AMO there is denied by the
        # rules.
        in_the_way = mode == "sv32" and name == by_rules.AMO_LOADS
        assert not name or in_the_way or QUIRKS[name] in shown
        assert not name or shown <= {QUIRKS[one] for one in departing}


def test_a_case_is_not_replayed_where_the_processor_lacks_what_it_needs() -> None:
    guest, hart = qemu("sv39", TEN), Hart("sv39")
    one = family("canonical", 0, hart)
    made = lanes(one, Chain(guest, hart.format), np.array([0]))
    said = {"engine": "tcg", "qemu": "10.0.13", "expected": "", "observed": ""}
    control = next(control for control in one.controls if control.pmm_s)
    case = MatrixCase.of(hart, control, made, 0, values="", **said)
    assert not of_matrix(guest, case).disagreed
    with pytest.raises(Misuse, match="cannot be replayed: the engine's processor masks no"):
        of_matrix(qemu("sv39", SEVEN), case)


@pytest.mark.parametrize("version", DEPARTS)
def test_a_quirk_excuses_nothing_but_what_it_names(version: Version) -> None:
    for mode in ("sv32", "sv39"):
        opposite: Any = Never(version, DEPARTS[version], Mode(mode).xlen)
        some = work(mode, opposite, 4)
        found = tried(opposite, some)
        assert found.disagreed.total() == found.comparison.compared == found.by_rule.total()
        assert found.comparison.disagreed == sum(len(part.numbers) for part in some)
        assert not found.comparison.quirks and not found.comparison.news and not found.departed


# ---- spaces that are changed ----


def test_each_kind_of_access_is_tried_by_both_modes_with_what_changes_it() -> None:
    tried = {(Kind(kind), user, mxr) for kind, user, _, mxr in ACCESSES}
    every = [(kind, False) for kind in (Kind.READ, Kind.WRITE, Kind.FETCH)] + [(Kind.READ, True)]
    assert tried == {(kind, user, mxr) for kind, mxr in every for user in (False, True)}
    of_the_supervisor = {(kind, sum) for kind, user, sum, _ in ACCESSES if not user}
    assert of_the_supervisor == {
        (Kind.FETCH, False),
        *product((Kind.READ, Kind.WRITE), (False, True)),
    }


def changed_in(guest: Any, mode: str) -> Live:
    """Pages of all rights that are probed, changed, and probed again."""
    space = GuestSpace(guest, mode)
    live, rights = new_live(guest, space), space.format.granting
    size, page = space.format.levels[0].size, Virtual(0x40_8000)
    each = (("read",), ("read", "write", "user"), ("execute", "user"), ("read", "execute"))
    for number, names in enumerate(each):
        space.map(Virtual(page + size * number), space.frames(1), 0, rights(*names)).done()
    every = Span.of(page, size * len(each))
    live.probe(every)
    live.flush(space.unmap(Span.of(page, size)))
    live.flush(space.protect(Span.of(page + size, size), rights("read", "user")))
    live.probe(every)
    return live


@pytest.mark.parametrize("mode", ["sv32", "sv39"])
@pytest.mark.parametrize("change", changes.CHANGES, ids=[one.name for one in changes.CHANGES])
def test_the_library_asks_for_the_flush_of_each_row(mode: str, change: Change) -> None:
    """And accesses end as they must before and after it, at the lowest level and at the highest, on
    a machine that follows every store."""
    for level in ends(change.levels(Cpu.in_mode(Mode(mode), RAM_BASE).format)):
        guest = qemu(mode, TEN, ram_bytes=RAM_BYTES)
        guest.engine = replace(guest.engine, keeps_stale=False)
        assert changes.execute(guest, mode, change, level) == []


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("mode", ["sv32", "sv39"])
def test_a_space_that_changes_agrees_with_a_guest_that_keeps_nothing(
    mode: str, version: Version
) -> None:
    live = changed_in(qemu(mode, version, ram_bytes=128 * MIB), mode)
    found = live.run()
    assert not found.disagreed, found.disagreements
    assert found.compared > 50 and not found.quirks and not found.news


@pytest.mark.parametrize("mode", ["sv32", "sv39"])
def test_what_a_guest_saw_of_a_space_that_changes_is_put_into_words(mode: str) -> None:
    guest: Any = Never(TEN, (), Mode(mode).xlen, 128 * MIB)
    found = changed_in(guest, mode).run()
    assert found.disagreed and found.disagreements
    for one in found.disagreements:
        saw, steps = one.observed.split("; entries from the root down: ")
        assert steps.count("->") == Hart(mode, svnapot=False).levels
        if one.expected.startswith("reaches"):
            assert re.fullmatch(r"cause \d+, tval 0x[0-9a-f]+", saw)
        else:
            assert re.match(r"cause \d+: ", one.expected)
            word, _, mark = saw.removeprefix("done, and the word is ").partition(", the mark of ")
            assert isinstance(one.access, Stated)
            if one.access.kind is not Kind.WRITE:
                assert int(word, 16) == 0xF0  # of data, which is 0 where none was read
            assert bool(mark) == (one.access.kind is Kind.READ and mode != "sv32")
            assert not mark or int(mark, 16) == marked(0xF0)


def test_of_an_address_that_is_not_canonical_no_entries_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As of the page above the lower half, beside one that is probed."""
    monkeypatch.setattr("harness.check.live.EXAMPLES", 1 << 16)
    guest: Any = Never(TEN, (), 64, 128 * MIB)
    space = GuestSpace(guest, "sv39")
    live, last = new_live(guest, space), (1 << 38) - 0x1000
    space.map(Virtual(last), space.frames(1), 0, space.format.granting("read")).done()
    live.probe(Span.of(last, 0x1000))
    told = {
        (one.address >= 1 << 38, one.observed.count("->"), one.observed.endswith(" down: none"))
        for one in live.run().disagreements
    }
    assert told == {(False, 3, False), (True, 0, True)}
