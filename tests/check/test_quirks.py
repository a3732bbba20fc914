"""What each quirk excuses, by expectations written out, and what engines do where it opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from harness.check import probes
from harness.check.cases import Cases
from harness.check.compare import Comparison
from harness.check.debugger import TableImage
from harness.check.layouts import find, load
from harness.check.marks import CODE
from harness.check.quirks import (
    DEBUG_WALKER,
    ENDS_AT_LAST_BYTE,
    FAULT_QUIRKS,
    GIGABYTE_PAGE_ACCESSED,
    KEPT_CODE,
    KNOWN,
    PVM_EMULATES_UNDER_SMAP,
    PVM_KEEPS_A_SLOT,
    RESERVED_WITHOUT_PRESENT,
    FaultQuirk,
    Quirk,
    expected_of,
    fault_quirks,
    known_of,
    not_run_on,
)
from harness.check.validate import validate
from harness.check.window import open_window
from harness.machine.engines import executor, why_absent
from harness.machine.guest import Guest
from harness.machine.ram import ARENA, MIB, TABLE_ARENA
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.x86.access import Kind
from harness.paging.x86.bulk import ALLOWED, Outcomes
from harness.paging.x86.cpu import Cpu

PAGE_FAULT, PROTECTION = 14, 13
P, PS, NX = 1 << 0, 1 << 7, 1 << 63
READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH
SLOT = 0xFFFF_8000_0000_0000


def outcome(
    vector: int, error: int = 0, end: End = End.MALFORMED, level: int = 0, raw: int = 0
) -> Outcomes:
    """One outcome, in as much as quirks look at it."""
    word, byte = np.zeros(1, np.uint64), np.zeros(1, np.uint8)
    return Outcomes(
        bulk.Walks(
            address=word,
            end=byte + np.uint8(end),
            level=byte + np.uint8(level),
            raw=word + np.uint64(raw),
            physical=word,
            granted=word,
            above=word,
        ),
        vector=byte + np.uint8(vector),
        error=np.array([error], np.uint32),
        sets_cr2=np.array([vector == PAGE_FAULT]),
        reason=byte,
        unbacked=np.zeros(1, np.bool_),
    )


def case(address: int, kind: Kind, user: bool) -> Cases:
    return Cases(
        np.array([address], np.uint64),
        np.array([kind], np.uint8),
        np.array([user]),
        np.zeros(1, np.bool_),
    )


# ---- which quirks an engine has ----


def test_every_quirk_has_a_name_of_its_own() -> None:
    names = [quirk.name for quirk in (*FAULT_QUIRKS, DEBUG_WALKER, KEPT_CODE, ENDS_AT_LAST_BYTE)]
    assert len(set(names)) == len(names)


BOUNDS: dict[str, tuple[str, tuple[int, ...], list[tuple[int, ...]]]] = {
    quirk.name: ("tcg", (7, 1, 99), [(7, 2), (7, 2, 22), (10, 0, 13), (11, 1, 3), (99, 0)])
    for quirk in (*FAULT_QUIRKS[:8], KEPT_CODE, ENDS_AT_LAST_BYTE)
}
"""Of each quirk: who departs, a version before it begins, and versions in which it is expected."""
BOUNDS |= {
    quirk.name: ("kvm_pvm", (6, 18, 43), [(6, 18, 44), (6, 19), (99, 0)])
    for quirk in (PVM_KEEPS_A_SLOT, PVM_EMULATES_UNDER_SMAP)
}
BOUNDS[DEBUG_WALKER.name] = ("monitor", *BOUNDS[RESERVED_WITHOUT_PRESENT.name][1:])


def test_every_quirk_has_bounds_of_its_own() -> None:
    assert set(BOUNDS) == set(KNOWN)


@pytest.mark.parametrize("quirk", KNOWN.values(), ids=lambda quirk: quirk.name)
def test_a_quirk_is_expected_from_where_it_begins_on_as_long_as_no_end_was_seen(
    quirk: Quirk,
) -> None:
    engine, before, since = BOUNDS[quirk.name]
    assert not expected_of(quirk, engine, before)
    assert all(expected_of(quirk, engine, version) for version in since)
    assert quirk.until is None
    others = {"tcg", "kvm", "kvm_pvm", "kvm_amd", "kvm_intel", "monitor"} - {engine}
    assert not any(expected_of(quirk, other, version) for other in others for version in since)


@pytest.mark.parametrize("quirk", KNOWN.values(), ids=lambda quirk: quirk.name)
def test_a_quirk_was_run_on_versions_of_which_it_is_expected(quirk: Quirk) -> None:
    assert quirk.runs
    assert list(quirk.runs) == sorted(set(quirk.runs))
    assert all(expected_of(quirk, quirk.engine, version) for version in quirk.runs)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((11, 1, 3), True),
        ((11, 9, 99), True),
        ((12,), False),
        ((12, 0, 0), False),
        ((13, 1), False),
    ],
    ids=str,
)
def test_a_quirk_whose_end_was_seen_is_expected_before_it_alone(
    version: tuple[int, ...], expected: bool
) -> None:
    ended = replace(RESERVED_WITHOUT_PRESENT, until=(12,))
    assert expected_of(ended, "tcg", version) is expected


@pytest.mark.parametrize(
    ("engine", "version"), [("tcg", (7, 2, 22)), ("tcg", (11, 1, 3)), ("kvm_pvm", (6, 18, 44))]
)
def test_the_departures_of_an_engine_are_all_that_is_expected_of_it(
    engine: str, version: tuple[int, ...]
) -> None:
    known = known_of(engine, version)
    assert set(fault_quirks(engine, version)) == {one for one in known if one in FAULT_QUIRKS}
    assert (ENDS_AT_LAST_BYTE in known) is (engine == "tcg")


def test_where_the_version_is_unknown_an_engine_may_have_any_departure() -> None:
    assert set(known_of("tcg", None)) == {one for one in KNOWN.values() if one.engine == "tcg"}


RUNS = "not yet run on this version; runs of: 7.2.22, 10.0.13, 11.1.3"


@pytest.mark.parametrize(
    ("engine", "version", "qemu", "said"),
    [
        ("tcg", (7, 2, 22), (7, 2, 22), ()),
        ("tcg", (10, 0, 13), (10, 0, 13), ()),
        ("tcg", (11, 1, 3), (11, 1, 3), ()),
        ("tcg", (11, 1, 4), (11, 1, 4), (f"tcg 11.1.4: {RUNS}",)),
        ("tcg", (8, 2, 2), (8, 2, 2), (f"tcg 8.2.2: {RUNS}",)),
        ("tcg", (7, 2, 0), (7, 2, 0), (f"tcg 7.2.0: {RUNS}",)),
        ("kvm_pvm", (6, 18, 44), (7, 2, 22), ()),
        (
            "kvm_pvm",
            (7, 0),
            (7, 2, 22),
            ("kvm_pvm 7.0: not yet run on this version; runs of: 6.18.44",),
        ),
        ("kvm_amd", (7, 0), (7, 2, 22), ()),
        ("kvm_amd", (7, 0), (12, 0, 0), (f"QEMU 12.0.0: {RUNS}",)),
        ("kvm", (7, 2, 22), (7, 2, 22), ()),
    ],
    ids=str,
)
def test_a_version_that_was_not_run_is_named_with_those_that_were(
    engine: str, version: tuple[int, ...], qemu: tuple[int, ...], said: tuple[str, ...]
) -> None:
    assert not_run_on(engine, version, qemu) == said


@pytest.mark.parametrize("module", ["kvm_intel", "kvm_amd", "kvm"])
def test_a_kvm_that_is_not_known_to_be_pvm_is_excused_nothing(module: str) -> None:
    assert fault_quirks(module, (6, 18, 44)) == ()


# ---- what each departs in ----


@pytest.mark.parametrize(
    ("rule", "tcg"),
    [(0x09, 0x08), (0x0B, 0x0A), (0x0D, 0x0C), (0x0F, 0x0E), (0x19, 0x18), (0x1D, 0x1C)],
)
def test_on_tcg_a_reserved_bit_fault_lacks_p(rule: int, tcg: int) -> None:
    lanes, error = RESERVED_WITHOUT_PRESENT.departing(outcome(PAGE_FAULT, rule))
    assert (lanes.tolist(), error.tolist()) == ([True], [tcg])


@pytest.mark.parametrize("rule", [0x00, 0x01, 0x02, 0x05, 0x07, 0x10, 0x11, 0x14, 0x15])
def test_on_tcg_no_other_page_fault_lacks_p(rule: int) -> None:
    lanes, _ = RESERVED_WITHOUT_PRESENT.departing(outcome(PAGE_FAULT, rule, End.LEAF))
    assert lanes.tolist() == [False]


@pytest.mark.parametrize("vector", [ALLOWED, PROTECTION])
def test_on_tcg_nothing_but_a_page_fault_lacks_p(vector: int) -> None:
    lanes, _ = RESERVED_WITHOUT_PRESENT.departing(outcome(vector))
    assert lanes.tolist() == [False]


@pytest.mark.parametrize(
    ("vector", "end", "level", "raw", "nxe", "departs"),
    [
        pytest.param(14, End.LEAF, 2, PS | P, True, True, id="denied"),
        pytest.param(14, End.LEAF, 2, NX | PS | P, True, True, id="denied, execute-disabled"),
        pytest.param(14, End.MALFORMED, 2, 1 << 13 | PS | P, True, True, id="misaligned at 13"),
        pytest.param(14, End.MALFORMED, 2, 1 << 29 | PS | P, True, True, id="misaligned at 29"),
        pytest.param(14, End.MALFORMED, 2, 1 << 40 | PS | P, True, False, id="beyond MAXPHYADDR"),
        pytest.param(14, End.MALFORMED, 2, NX | PS | P, False, False, id="NX without NXE"),
        pytest.param(14, End.ABSENT, 2, PS, True, False, id="absent"),
        pytest.param(14, End.MALFORMED, 2, 1 << 40 | P, True, False, id="pointer"),
        pytest.param(14, End.LEAF, 1, PS | P, True, False, id="2M page"),
        pytest.param(14, End.LEAF, 0, PS | P, True, False, id="PAT of a 4K page"),
        pytest.param(ALLOWED, End.LEAF, 2, PS | P, True, False, id="allowed"),
    ],
)
def test_on_tcg_a_fault_at_a_1g_page_sets_its_a(
    vector: int, end: End, level: int, raw: int, nxe: bool, departs: bool
) -> None:
    cpu = Cpu.long_mode(4, 0, maxphyaddr=40, nxe=nxe)
    lanes = GIGABYTE_PAGE_ACCESSED.departing(cpu, outcome(vector, 1, end, level, raw))
    assert lanes.tolist() == [departs]


@pytest.mark.parametrize(
    ("kind", "absent", "present"), [(READ, 0x04, 0x0D), (WRITE, 0x06, 0x0F), (FETCH, 0x14, 0x1D)]
)
@pytest.mark.parametrize(
    ("offset", "area"),
    [
        (0, True),
        (0x5FF8, True),
        (0x6000, False),
        (0x1F_FFF8, False),
        (0x20_0000, True),
        (0x20_5FF8, True),
        (0x20_6000, False),
        (0x7F_FFFF_FFF8, False),
    ],
)
def test_pvm_denies_user_mode_its_slot_as_a_processor_of_the_host_would(
    offset: int, area: bool, kind: Kind, absent: int, present: int
) -> None:
    lanes, codes = PVM_KEEPS_A_SLOT.departing(case(SLOT + offset, kind, user=True))
    assert lanes.tolist() == [True]
    assert set(codes[:, 0].tolist()) == ({absent, present} if area else {absent})


@pytest.mark.parametrize("kind", (READ, WRITE, FETCH))
@pytest.mark.parametrize(
    ("address", "user"),
    [
        (SLOT, False),
        (SLOT + 0x7F_FFFF_FFF8, False),
        (SLOT - 8, True),
        (SLOT + (1 << 39), True),
        (0xFFFF_FFFF_FFFF_FFF8, True),
        (0x7FFF_FFFF_FFF8, True),
        (0, True),
    ],
    ids=hex,
)
def test_pvm_follows_the_rules_elsewhere_and_for_the_supervisor(
    address: int, user: bool, kind: Kind
) -> None:
    lanes, _ = PVM_KEEPS_A_SLOT.departing(case(address, kind, user))
    assert lanes.tolist() == [False]


# ---- what engines do ----

FRAME = 64 * MIB
USER_PAGE, SUPERVISOR_PAGE, ABSENT_PAGE = (SLOT + (n << 30) + MIB for n in (1, 2, 3))
NEXT_SLOT = SLOT + (1 << 39)
"""A user page there, too."""

PROCESSOR = min(os.sched_getaffinity(0))
AREA, OTHER_AREA = (SLOT + cpu * 2 * MIB for cpu in (PROCESSOR, PROCESSOR + 1))
"""Nothing is mapped there; the first belongs to the host's processor that runs the guest."""


@pytest.fixture(scope="module")
def pvm() -> Iterator[Guest]:
    if reason := why_absent("kvm"):
        pytest.skip(reason)
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {PROCESSOR})
    try:
        with Guest("kvm", ram_bytes=128 * MIB) as guest:
            name, version = executor(guest)
            if PVM_KEEPS_A_SLOT not in fault_quirks(name, version):
                pytest.skip(f"KVM is {name} {version} here, which has not this quirk")
            yield guest
    finally:
        os.sched_setaffinity(0, usual)


class Probed:
    """User accesses to a page of each sort, made by a guest and not yet judged."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        memory = BufferMemory(guest.ram.buffer)
        self.cpu = build_pages(memory, guest.info.physical_bits)
        allocator = TableAllocator(memory, Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1))
        self.window = open_window(memory, self.cpu, guest.image, allocator)
        pages = (USER_PAGE, SUPERVISOR_PAGE, ABSENT_PAGE, AREA, OTHER_AREA, NEXT_SLOT)
        kinds = (READ, WRITE, FETCH)
        lanes = [(page + CODE * (kind is FETCH), kind) for page in pages for kind in kinds]
        cases = Cases(
            np.array([address for address, _ in lanes], np.uint64),
            np.array([kind for _, kind in lanes], np.uint8),
            np.ones(len(lanes), np.bool_),
            np.zeros(len(lanes), np.bool_),
        )
        tables = TableImage.of(memory, self.cpu.roots).address
        self.expected, reasons = probes.expect(self.cpu, memory, tables, cases, self.window)
        assert not reasons
        self.jobs = probes.make_jobs(guest, self.expected)
        self.results = guest.run(self.window.state, self.jobs)

    def judged(self, results: npt.NDArray[np.void], *quirks: FaultQuirk) -> Comparison:
        comparison = Comparison("probe")
        probes.judge(comparison, self.cpu, self.guest, self.expected, self.jobs, results, quirks)
        return comparison


def build_pages(memory: BufferMemory, maxphyaddr: int) -> Cpu:
    """The CPU of a space with the pages above."""
    allocator = TableAllocator(memory, Span(ARENA.stop, FRAME - 1))
    format = Cpu.long_mode(4, 0, maxphyaddr=maxphyaddr).format
    root = allocator.allocate(format, len(format.levels) - 1)
    cpu = Cpu.long_mode(4, root.address, maxphyaddr=maxphyaddr)
    space = Space(memory, cpu.roots, allocator)
    user = format.granting("write", "user", "execute")
    supervisor = format.granting("write", "execute")
    pages = (USER_PAGE, user), (SUPERVISOR_PAGE, supervisor), (NEXT_SLOT, user)
    for number, (page, bits) in enumerate(pages):
        space.map(Virtual(page), np.array([FRAME + number * MIB], np.uint64), 0, bits)
    return cpu


@pytest.fixture(scope="module")
def probed(pvm: Guest) -> Probed:
    return Probed(pvm)


@pytest.mark.hw
def test_no_window_is_where_an_engine_keeps_user_mode_out(probed: Probed) -> None:
    span = Span(SLOT, NEXT_SLOT - 1)  # where the lowest hole of this space is
    assert span.clip(probed.window.span) is None


@pytest.mark.hw
def test_pvm_keeps_user_mode_out_of_the_slot(probed: Probed) -> None:
    fields = probed.results[["completed", "vector", "error"]]
    answers = [tuple(map(int, answer)) for answer in fields.tolist()]
    nothing_there = [(0, PAGE_FAULT, 0x04), (0, PAGE_FAULT, 0x06), (0, PAGE_FAULT, 0x14)]
    the_hosts = [(0, PAGE_FAULT, 0x0D), (0, PAGE_FAULT, 0x0F), (0, PAGE_FAULT, 0x1D)]
    assert answers[:15] == nothing_there * 3 + the_hosts + nothing_there
    assert [completed for completed, _, _ in answers[15:]] == [1, 1, 1]


@pytest.mark.hw
def test_the_quirk_excuses_what_departs_there_and_that_alone(probed: Probed) -> None:
    judged = probed.judged(probed.results, PVM_KEEPS_A_SLOT)
    assert dict(judged.quirks) == {PVM_KEEPS_A_SLOT.name: 9}  # at absent pages 04 is the rule
    assert (judged.disagreed, dict(judged.news)) == (0, {})


@pytest.mark.hw
def test_without_the_quirk_all_that_departs_there_disagrees(probed: Probed) -> None:
    assert probed.judged(probed.results).disagreed == 9


@pytest.mark.hw
@pytest.mark.parametrize(
    ("field", "change"),
    [
        pytest.param("error", 0x01, id="P"),
        pytest.param("error", 0x09, id="P and RSVD"),
        pytest.param("error", 0x04, id="U"),
        pytest.param("cr2", 0x08, id="CR2"),
        pytest.param("vector", PAGE_FAULT ^ PROTECTION, id="vector"),
        pytest.param("completed", 1, id="done"),
        pytest.param("after", 1 << 6, id="D"),
        pytest.param("after", 1 << 12, id="address in the entry"),
    ],
)
def test_the_quirk_excuses_no_other_answer(probed: Probed, field: str, change: int) -> None:
    altered = probed.results.copy()
    altered[field][:3] ^= np.array(change, altered[field].dtype)
    judged = probed.judged(altered, PVM_KEEPS_A_SLOT)
    assert (judged.disagreed, judged.quirks.total(), judged.news.total()) == (3, 6, 0)


@pytest.mark.hw
def test_a_slot_that_follows_the_rules_is_news(probed: Probed) -> None:
    mended = probed.results.copy()
    mended["error"][3:6] |= np.uint32(P)  # the supervisor's page
    judged = probed.judged(mended, PVM_KEEPS_A_SLOT)
    assert dict(judged.news) == {f"{PVM_KEEPS_A_SLOT.name} did not show": 3}
    assert (judged.disagreed, judged.quirks.total()) == (0, 6)


@pytest.mark.hw
@pytest.mark.parametrize("levels", [4, 5])
def test_the_quirks_of_tcg_show_on_malformed_tables_and_nothing_else_departs(levels: int) -> None:
    report = validate(load(find("malformed")), levels, "tcg")
    probe = report.comparisons[0]
    assert set(probe.quirks) == {RESERVED_WITHOUT_PRESENT.name, GIGABYTE_PAGE_ACCESSED.name}
    assert (probe.disagreed, dict(probe.news)) == (0, {})
