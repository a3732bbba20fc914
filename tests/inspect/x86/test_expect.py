"""What tables are meant to say: as it is written, and where they say something else."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.inspect import expect as module
from harness.inspect.expect import (
    Expect,
    Unmet,
    Wanted,
    accesses_of,
    expectations,
    load,
    parse,
    places,
    unmet,
)
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.x86 import memory_type
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.space import Space, TableAllocator
from harness.paging.walk import walk
from harness.paging.x86.access import Access, Allowed, Kind, Unbacked, outcome
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from harness.report.expect import as_object, unmet_lines
from tests.inspect.spaces import layered
from tests.paging.x86 import made as by_hand

PAGE = 1 << 12
LETTERS = {"r": Kind.READ, "w": Kind.WRITE, "x": Kind.FETCH}
ACCESSES: tuple[Any, ...] = tuple(accesses_of("x86"))
USER_READ, SUPERVISOR_READ = Access(Kind.READ, True), Access(Kind.READ, False)


class Made:
    """A space whose tables begin at the root, at 0."""

    def __init__(self, levels: int = 4, **state: Any) -> None:
        memory = BufferMemory(np.zeros(1 << 20, np.uint8))
        allocator = TableAllocator(memory, memory.span)
        self.cpu = Cpu.long_mode(levels, 0, **state)
        allocator.allocate(self.cpu.format, levels - 1)
        self.space = Space(memory, self.cpu.roots, allocator)
        self.memory = memory

    def map(self, at: int, to: int, letters: str, count: int = 1, level: int = 0) -> None:
        format = self.cpu.format
        names = {"u": "user", "w": "write", "x": "execute"}
        bits = format.granting(*(names[one] for one in letters if one in names))
        size = format.levels[level].size
        frames = np.uint64(to) + np.arange(count, dtype=np.uint64) * np.uint64(size)
        self.space.map(Virtual(at), frames, level, bits)

    def unmet(self, wanted: Wanted, strict: bool = False, cpu: Cpu | None = None) -> list[Unmet]:
        return list(unmet(self.snapshot(cpu), expectations(wanted, strict)))

    def snapshot(self, cpu: Cpu | None = None) -> Snapshot:
        return Snapshot("made", cpu or self.cpu, self.memory, (self.memory.span,))

    def leaf(self, address: int) -> tuple[Physical, int]:
        root = root_for(self.cpu, Virtual(address))
        assert root is not None
        step = walk(self.memory, root, Virtual(address)).steps[-1]
        return step.slot.address, step.raw


@pytest.fixture
def made() -> Made:
    found = Made()
    found.map(0x40_0000, 0x500_0000, "u-x", 16)
    found.map(0x7F12_3456_7000, 0x510_0000, "uw-", 8)
    found.map(0xFFFF_FFFF_8000_0000, 0x400_0000, "wx", 4, level=1)
    return found


MEANT: Mapping[Any, Any] = {
    Span.of(0x40_0000, 16 * PAGE): ("ur-x", 0x500_0000),
    Span.of(0x7F12_3456_7000, 8 * PAGE): "urw-",
    0x7F12_3456_6000: None,
    Span.of(0xFFFF_FFFF_8000_0000, 8 << 20): {
        **{"user": "", "supervisor": "rwx", "physical": np.uint64(0x400_0000)},
        **{"page": "2M", "type": "WB", "bits": []},
    },
}


def test_tables_that_say_what_was_meant_meet_it(made: Made) -> None:
    assert made.unmet(MEANT, strict=True) == []


# ---- against the rules, one address at a time ----


def scalar(cpu: Cpu, memory: BufferMemory, address: int) -> dict[Access, bool | None]:
    """Whether each access is allowed by the scalar rules; None where they do not say."""
    found = {access: outcome(cpu, memory, Virtual(address), access) for access in ACCESSES}
    return {
        access: None if isinstance(one, Unbacked) else isinstance(one, Allowed)
        for access, one in found.items()
    }


def as_letters(allowed: Mapping[Access, bool | None], user: bool) -> str:
    return "".join(letter for letter, kind in LETTERS.items() if allowed[Access(kind, user)])


STATES = {
    "usual": lambda cpu: cpu,
    "WP=0": lambda cpu: replace(cpu, cr0=cpu.cr0 & ~(1 << 16)),
    "SMEP, SMAP": lambda cpu: replace(cpu, cr4=cpu.cr4 | Cr4.SMEP | Cr4.SMAP),
    "LASS": lambda cpu: replace(cpu, cr4=cpu.cr4 | Cr4.LASS),
    "LASS, SMAP": lambda cpu: replace(cpu, cr4=cpu.cr4 | Cr4.LASS | Cr4.SMAP),
    "SMAP, AC": lambda cpu: replace(cpu, cr4=cpu.cr4 | Cr4.SMAP, ac=True),
    "keys": lambda cpu: replace(cpu, cr4=cpu.cr4 | Cr4.PKE, pkru=0xAAAA_5554),
    "NXE=0": lambda cpu: replace(cpu, efer=cpu.efer & ~(1 << 11)),
}


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("levels", [4, 5])
def test_who_can_do_what_is_what_the_rules_say_of_each_page(levels: int, state: str) -> None:
    memory = layered(levels, levels)
    cpu = STATES[state](Cpu.long_mode(levels, 0, maxphyaddr=40))
    snapshot = Snapshot("", cpu, memory, (memory.span,))
    source, so, otherwise = random.Random(1), dict[Any, Any](), dict[Any, Any]()
    asked: list[tuple[int, Access, str]] = []
    for address in source.sample(sorted(bulk.leaves(memory, cpu.roots).virtual.tolist()), 60):
        allowed = scalar(cpu, memory, address)
        if None in allowed.values():
            continue
        said = {"user": as_letters(allowed, True), "supervisor": as_letters(allowed, False)}
        so[address] = said.copy()
        access = source.choice(ACCESSES)
        who = "user" if access.user else "supervisor"
        letter = {kind: one for one, kind in LETTERS.items()}[access.kind]
        said[who] = said[who].replace(letter, "") if letter in said[who] else said[who] + letter
        said[who] = "".join(one for one in LETTERS if one in said[who])
        otherwise[address] = said
        asked.append((address, access, "denied" if allowed[access] else "allowed"))
    assert len(asked) > 20
    assert unmet(snapshot, expectations(so)) == ()
    found = unmet(snapshot, expectations(otherwise))
    assert [(one.address, one.access, one.wanted) for one in found] == asked
    assert not any(one.also for one in found)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("letters", ["r", "rw", "rx", "rwx", "ur", "urw", "urx", "urwx"])
def test_rights_are_those_of_the_entries_and_what_the_rules_leave_the_supervisor(
    letters: str, state: str
) -> None:
    made = Made()
    cpu = STATES[state](made.cpu)
    if state == "NXE=0" and "x" not in letters:
        return  # no page of that processor withholds execution
    made.map(0x40_0000, 0x500_0000, letters)
    assert made.unmet({0x40_0000: letters}, cpu=cpu) == []
    for other in ("r", "rw", "rx", "rwx", "ur", "urw", "urx", "urwx"):
        if other == letters:
            continue
        built = Made()
        if state != "NXE=0" or "x" in other:
            built.map(0x40_0000, 0x500_0000, other)
            same = scalar(cpu, made.memory, 0x40_0000) == scalar(cpu, built.memory, 0x40_0000)
            assert (made.unmet({0x40_0000: other}, cpu=cpu) == []) == same, other


def test_where_entries_cannot_withhold_execution_it_cannot_be_expected_withheld() -> None:
    """32-bit paging has no XD (SDM 4.6.1)."""
    memory = BufferMemory(np.zeros(1 << 14, np.uint8))
    for address, raw in (0, 0x1007), (0x1000, 0x2007):
        memory.store(Physical(address), 4, raw)
    made = Snapshot("made", Cpu.in_mode(Mode.BITS_32, 0), memory, (memory.span,))
    assert unmet(made, expectations({0: "urwx"})) == ()
    (found,) = unmet(made, expectations({0: "urw-"}))
    assert (found.access, found.wanted, found.change) == (Access(Kind.FETCH, True), "denied", None)


@pytest.mark.parametrize(
    ("cr4", "denials"),
    [
        (0, []),
        (Cr4.SMEP, [(Kind.FETCH, (), "denied by CR4.SMEP")]),
        (Cr4.SMAP, [(Kind.READ, (), "denied by CR4.SMAP")]),
        (Cr4.SMEP | Cr4.SMAP, [(Kind.READ, (Kind.FETCH,), "denied by CR4.SMAP and CR4.SMEP")]),
    ],
)
def test_what_keeps_the_supervisor_from_a_page_meant_for_the_user_is_named(
    made: Made, cr4: int, denials: list[tuple[Kind, tuple[Kind, ...], str]]
) -> None:
    """The page is the supervisor's own, whom SMEP and SMAP do not keep from it (SDM 4.6.1)."""
    made.map(0x80_0000, 0x500_0000, "-x")
    cpu = replace(made.cpu, cr4=made.cpu.cr4 | cr4)
    found = made.unmet({0x80_0000: "ur-x"}, cpu=cpu)
    supervisor = [one for one in found if not one.access.user]
    alike = [tuple(access.kind for access in one.also) for one in supervisor]
    kinds, wanted = [one.access.kind for one in supervisor], [one.wanted for one in supervisor]
    assert list(zip(kinds, alike, wanted, strict=True)) == denials
    plain = made.unmet({0x80_0000: {"supervisor": ""}}, cpu=cpu)
    assert {one.wanted for one in plain} == {"denied"}


def test_a_span_is_every_page_of_it() -> None:
    source = random.Random(2)
    for _ in range(20):
        made, first = Made(), 0x40_0000
        pages = {}
        for number in range(40):
            if source.random() < 0.8:
                letters = source.choice(("u", "uw", "uwx"))
                pages[number] = letters, 0x500_0000 + PAGE * source.choice((number, number, 7))
                made.map(first + PAGE * number, pages[number][1], letters)
        start, count = source.randrange(38), source.randrange(1, 6)
        part = range(start, start + count)
        span = Span.of(first + PAGE * start, PAGE * count)
        meant = {span: {"user": "rw", "physical": 0x500_0000 + PAGE * start}}
        found = {
            (one.wanted, one.access.kind): (one.address, one.size) for one in made.unmet(meant)
        }
        gaps = [number for number in part if number not in pages]
        no_write = [n for n in part if n in pages and pages[n][0] == "u"]
        executable = [n for n in part if n in pages and "x" in pages[n][0]]
        elsewhere = [n for n in part if n in pages and pages[n][1] != 0x500_0000 + PAGE * n]
        expected = {}
        for wanted, kind, numbers in (
            ("allowed", Kind.READ, gaps),
            ("allowed", Kind.WRITE, no_write),
            ("denied", Kind.FETCH, executable),
        ):
            if numbers:
                expected[wanted, kind] = first + PAGE * numbers[0], PAGE * len(numbers)
        if elsewhere:
            at = first + PAGE * elsewhere[0]
            reach = f"to reach {0x500_0000 + PAGE * elsewhere[0]:#x}"
            expected[reach, Kind.READ] = at, PAGE * len(elsewhere)
        assert found == expected


def test_nothing_else_is_what_no_expectation_covers() -> None:
    source = random.Random(3)
    for _ in range(20):
        made, base = Made(), 0xFFFF_FFFF_FFE0_0000  # the last pages of the address space
        there = {number for number in range(512) if source.random() < 0.5}
        for number in sorted(there):
            made.map(base + PAGE * number, 0x500_0000 + PAGE * number, "w")
        named: set[int] = set()
        meant: dict[Any, Any] = {0x1000: None}
        for _ in range(source.randrange(6)):
            start, size = source.randrange(512), source.randrange(1, 200)
            own = range(start, min(start + size, 512))
            named |= set(own)
            meant[Span.of(base + PAGE * start, PAGE * len(own))] = {"user": ""}
        stray = sorted(there - named)
        found = made.unmet(meant, strict=True)
        if not stray:
            assert found == []
            continue
        (one,) = found
        assert one.expect is None
        assert (one.address, one.size) == (base + PAGE * stray[0], PAGE * len(stray))
        inside = [
            n
            for span, _, _ in one.ranges
            for n in range((span.first - base) // PAGE, (span.last - base) // PAGE + 1)
        ]
        assert inside == stray


def test_what_is_unexpected_is_shown_in_ranges_of_the_same_rights_and_frames_in_a_row() -> None:
    source, base = random.Random(6), 0x40_0000
    for _ in range(20):
        made, expected = Made(), list[tuple[int, int, str, int]]()
        for number in range(60):
            letters = source.choice(("u", "u", "uw"))
            frame = 0x500_0000 + PAGE * (number + source.choice((0, 0, 0, 100)))
            if source.random() < 0.2:
                continue
            made.map(base + PAGE * number, frame, letters)
            first, pages, said, to = expected[-1] if expected else (0, 0, "", 0)
            if (first + pages, said, to + PAGE * pages) == (number, letters, frame):
                expected[-1] = (first, pages + 1, said, to)
            else:
                expected.append((number, 1, letters, frame))
        (one,) = made.unmet({}, strict=True)
        write = made.cpu.format.granting("write")
        shown = [
            ((span.first - base) // PAGE, span.size // PAGE, "uw" if granted & write else "u", to)
            for span, granted, to in one.ranges
        ]
        assert shown == expected


def test_a_page_that_is_expected_in_part_is_unexpected_in_the_rest(made: Made) -> None:
    (one,) = made.unmet(
        {
            Span.of(0x40_0000, 16 * PAGE): "ur-x",
            Span.of(0x7F12_3456_7000, 8 * PAGE): "urw-",
            Span.of(0xFFFF_FFFF_8000_0000, (6 << 20) + PAGE): {"user": ""},
        },
        strict=True,
    )
    assert (one.address, one.size) == (0xFFFF_FFFF_8060_1000, (2 << 20) - PAGE)
    (only,) = one.ranges
    assert only[0] == Span(0xFFFF_FFFF_8060_1000, 0xFFFF_FFFF_807F_FFFF)
    assert only[2] == 0x460_1000


def test_only_the_bytes_of_large_pages_that_no_expectation_names_are_unexpected() -> None:
    source, large = random.Random(5), 2 << 20
    for first in (0, 0xFFFF_FFFF_FF80_0000):  # the first and the last pages of the address space
        for _ in range(30):
            made, pages = Made(), 4
            there = [number for number in range(pages) if source.random() < 0.8]
            for number in there:
                made.map(first + large * number, 0x400_0000 + large * number, "w", level=1)
            mapped = {n * 512 + at for n in there for at in range(512)}
            meant: dict[Any, Any] = {0x7000_0000_0000: None}
            for _ in range(source.randrange(5)):
                start, size = source.randrange(pages * 512), source.choice((1, 3, 512, 700))
                own = range(start, min(start + size, pages * 512))
                mapped -= {*own}
                meant[Span.of(first + PAGE * start, PAGE * len(own))] = {"user": ""}
            found = made.unmet(meant, strict=True)
            ranges = [one for each in found for one in each.ranges]
            inside = [at for span, _, _ in ranges for at in range(span.first, span.last, PAGE)]
            assert inside == [first + PAGE * number for number in sorted(mapped)]
            assert all(to - 0x400_0000 == span.first - first for span, _, to in ranges)
            assert sum(one.size for one in found) == PAGE * len(mapped)


# ---- entries that map nothing, and tables that cannot be read ----

OF_A_PAGE: dict[str, dict[str, Any]] = {
    "physical": {"physical": 0x500_0000},
    "page": {"page": "4K"},
    "type": {"type": "WB"},
    "bits": {"bits": []},
    "rights": {"rights": "ur-x"},
    "all but rights": {"physical": 0x500_0000, "page": "4K", "type": "WB", "bits": []},
}


def spoiled(made: Made, how: str, number: int = 0) -> None:
    """Has a page, or the table with it, be such that no access can pass."""
    address = 0x40_0000 + PAGE * number
    slot, raw = made.leaf(address)
    if how == "malformed":
        made.memory.store(slot, 8, raw | 1 << 45)
    elif how == "absent":
        made.memory.store(slot, 8, 0)
    else:
        above = made.space.slot(Virtual(address), 1).address
        made.memory.store(above, 8, 0x4000_0007)


@pytest.mark.parametrize("how", ["malformed", "unbacked", "absent"])
@pytest.mark.parametrize("keys", OF_A_PAGE)
def test_no_page_meets_what_is_expected_of_one_where_every_access_faults(
    made: Made, keys: str, how: str
) -> None:
    assert made.unmet({0x40_0000: OF_A_PAGE[keys]}) == []
    spoiled(made, how)
    first, *more = made.unmet({0x40_0000: OF_A_PAGE[keys]})
    assert (first.address, first.size) == (0x40_0000, PAGE)
    assert first.wanted == ("allowed" if keys == "rights" else "a page")
    # Whether an access passes that is to be denied is not known either where memory is missing.
    assert [one.wanted for one in more] == ["denied"] * (keys == "rights" and how == "unbacked")


def test_the_first_of_the_addresses_without_a_page_is_shown(made: Made) -> None:
    spoiled(made, "malformed", 5)
    spoiled(made, "absent", 9)
    meant = {Span.of(0x40_0000, 16 * PAGE): {"page": "4K"}}
    (found,) = made.unmet(meant)
    assert (found.address, found.size, found.wanted) == (0x40_5000, 2 * PAGE, "a page")


@pytest.mark.parametrize(("how", "size"), [("malformed", 0), ("absent", 0), ("unbacked", 2 << 20)])
def test_what_may_be_mapped_is_the_same_for_absent_and_for_strict(
    made: Made, how: str, size: int
) -> None:
    spoiled(made, how)
    if how != "unbacked":
        made.space.unmap(Span.of(0x40_1000, 15 * PAGE)).done()
    others = {one: what for one, what in MEANT.items() if one != next(iter(MEANT))}
    absent = made.unmet({Span.of(0x40_0000, 2 << 20): None})
    strict = made.unmet(others, strict=True)
    assert [one.size for one in absent] == [one.size for one in strict] == [size] * bool(size)
    assert [one.change for one in (*absent, *strict)] == [None, None] * bool(size)


# ---- what is wrong, and what would mend it ----

WRONG: dict[str, tuple[int, dict[str, Any], str, str]] = {
    "a write that is to fail": (0x7F12_3456_7000, {"user": "r"}, "denied", "closes .* to writes"),
    "a fetch that is to fail": (0x40_0000, {"user": "r"}, "denied", "closes .* to fetches"),
    "a user that is to be kept out": (0x40_0000, {"user": ""}, "denied", "keeps .* supervisor"),
    "a page that is to be absent": (0x40_0000, {"absent": True}, "nothing mapped", "unmaps"),
    "another frame": (0x40_0000, {"physical": 0x600_0000}, "to reach 0x6000000", "leads to"),
    "another type": (0x40_0000, {"type": "UC"}, "type UC", "gives it type UC"),
    "other bits": (0x40_0000, {"bits": ["G", "PCD"]}, "the bits G PCD", "sets PCD, sets G"),
    "a large page's type": (
        *(0xFFFF_FFFF_8000_0000, {"type": "UC-"}),
        *("type UC-", "gives it type UC-"),
    ),
    "a large page's frame": (
        *(0xFFFF_FFFF_8020_0000, {"physical": 0x480_0000}),
        *("to reach 0x4800000", "leads to 0x4800000"),
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_the_change_that_is_shown_makes_it_so(made: Made, case: str) -> None:
    address, said, wanted, does = WRONG[case]
    (found,) = made.unmet({address: said})
    assert (found.address, found.wanted) == (address, wanted)
    assert re.search(does, found.does)
    assert found.change is not None
    slot, old = made.leaf(address)
    lines = list(unmet_lines(made.snapshot(), [found]))
    assert any(f"{slot:#x}: {old:#018x} -> {found.change:#018x}" in line for line in lines)
    made.memory.store(slot, 8, found.change)
    assert made.unmet({address: said}) == []


def test_of_what_one_entry_cannot_mend_no_change_is_shown(made: Made) -> None:
    """A 2M page leads to multiples of 2M alone (SDM table 4-17), and after a reset the PAT holds no
    WP (12.12.4)."""
    large = 0xFFFF_FFFF_8000_0000
    found = made.unmet({large: {"physical": 0x480_1000, "type": "WP"}})
    assert [one.wanted for one in found] == ["to reach 0x4801000", "type WP"]
    assert [(one.change, one.does) for one in found] == [(None, "")] * 2


@pytest.mark.parametrize("level", [0, 1, 2])
@pytest.mark.parametrize("index", range(8))
def test_a_page_of_every_size_is_given_each_type_by_its_three_bits(level: int, index: int) -> None:
    """PA0 to PA7 by PWT, PCD and PAT, which is bit 7 of a PTE and bit 12 of a large page's entry
    (SDM 4.9.2, tables 4-17, 4-19 and 4-20)."""
    made = Made()
    made.map(0x4000_0000, 0x4000_0000, "w", level=level)
    pat = 1 << 8 * index  # WC there, UC everywhere else
    wanted = parse(f"pat={pat}\n[[expect]]\nvirtual=0x40000000\ntype='WC'", "x.toml")
    slot, raw = made.leaf(0x4000_0000)
    pattern = (index & 1) << 3 | (index >> 1 & 1) << 4 | (index >> 2) << (12 if level else 7)
    other = raw ^ (1 << 3 | 1 << 4 | 1 << (12 if level else 7)) ^ pattern
    made.memory.store(slot, 8, other)
    found = unmet(made.snapshot(), wanted)
    made.memory.store(slot, 8, raw | pattern)
    assert unmet(made.snapshot(), wanted) == ()
    assert [one.change for one in found] == [raw | pattern]


def test_what_is_set_aside_is_not_the_program_s(made: Made) -> None:
    def strict(*aside: Span) -> list[Span]:
        found = unmet(made.snapshot(), expectations({}, strict=True), aside)
        return [span for one in found for span, *_ in one.ranges]

    user, stack = Span.of(0x40_0000, 16 * PAGE), Span.of(0x7F12_3456_7000, 8 * PAGE)
    kernel = Span.of(0xFFFF_FFFF_8000_0000, 8 << 20)
    assert strict() == [user, stack, kernel]
    assert strict(user, kernel) == [stack]
    assert strict(Span(0x40_1000, 0x40_3000)) == [
        *(Span.of(0x40_0000, PAGE), Span.of(0x40_4000, 12 * PAGE)),
        *(stack, kernel),
    ]


def test_more_entries_than_can_be_compared_are_refused(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16, 8 and 4 pages are mapped."""
    assert module.MOST * PAGE == 64 << 30  # as is said of it
    monkeypatch.setattr(module, "MOST", 28)
    assert made.unmet(MEANT) == []
    monkeypatch.setattr(module, "MOST", 27)
    with pytest.raises(QuestionError, match=r"the space has 28 entries.* no more than 27 are"):
        made.unmet(MEANT)


def test_an_expectation_reads_as_its_keys_do() -> None:
    for said, text in (
        ({"absent": True}, "nothing mapped"),
        ({"rights": "ur-x", "physical": 0x50_0000}, "ur-x, physical 0x500000"),
        ({"rights": "w"}, "-rw-"),
        ({"user": "", "supervisor": "rx"}, "user ---, supervisor r-x"),
        ({"page": "2M", "type": "UC-"}, "pages of 2M, type UC-"),
        ({"bits": ["G", "PCD"]}, "bits G PCD"),
        ({"bits": []}, "bits none"),
    ):
        (expect,) = expectations({0x1000: said}).expects
        assert str(expect) == text


@pytest.mark.parametrize(("rights", "user"), [("uwx", "wx"), ("u-wx", "-wx"), ("urwx", "wx")])
def test_letters_stand_with_dashes_in_their_places_or_alone(rights: str, user: str) -> None:
    (granted, kinds) = expectations({0: rights, 1: {"user": user}}).expects
    assert granted.rights == "urwx"
    assert kinds.user == frozenset(["write", "fetch"])


@pytest.mark.parametrize("rights", ["ur--x", "xwrruu", "----urwx", "ru", "-xwu", "u-x", "uu"])
def test_rights_of_another_form_are_refused(rights: str) -> None:
    with pytest.raises(QuestionError, match="no rights: write u, r, w and x in this order"):
        expectations({0: rights})


@pytest.mark.parametrize("kinds", ["rwxr", "xr", "r--x", "-r-", "w-", "rr", "r-x\n"])
@pytest.mark.parametrize("who", ["user", "supervisor"])
def test_accesses_of_another_form_are_refused(who: str, kinds: str) -> None:
    with pytest.raises(QuestionError, match="no accesses: write r, w and x in this order"):
        expectations({0: {who: kinds}})


ONE_BIT = [case for case, (_, _, wanted, _) in WRONG.items() if wanted == "denied"]


@pytest.mark.parametrize("case", ONE_BIT)
def test_an_access_is_withheld_by_one_bit(made: Made, case: str) -> None:
    address, said, _, _ = WRONG[case]
    (found,) = made.unmet({address: said})
    assert found.change is not None
    assert (found.change ^ made.leaf(address)[1]).bit_count() == 1


def test_no_change_is_shown_of_an_entry_by_which_it_would_not_be_so(made: Made) -> None:
    """With CR0.WP=0 no entry keeps the supervisor from writing (SDM 4.6.1); what an upper entry
    withholds no page's entry gives; and of tables outside memory no entry is known."""
    cpu = STATES["WP=0"](made.cpu)
    for page in 0x40_0000, 0x7F12_3456_7000:
        (found,) = made.unmet({page: {"supervisor": "rx" if page == 0x40_0000 else "r"}}, cpu=cpu)
        assert (found.access, found.wanted) == (Access(Kind.WRITE, False), "denied")
        assert (found.change, found.does) == (None, "")
    kernel = 0xFFFF_FFFF_8000_0000  # it is no page of users, so that SMAP keeps nobody from it
    (found,) = made.unmet({kernel: {"supervisor": "rx"}}, cpu=replace(cpu, cr4=cpu.cr4 | Cr4.SMAP))
    assert (found.access, found.change, found.does) == (Access(Kind.WRITE, False), None, "")
    (found,) = made.unmet({0x40_0000: {"user": "rwx"}})
    assert (found.wanted, found.change, found.does) == ("allowed", None, "")
    spoiled(made, "unbacked")
    for said in {"user": ""}, {"user": "r"}, {"rights": "r"}:
        for one in made.unmet({0x40_0000: said}):
            assert (one.change, one.does) == (None, "")
            assert "->" not in "\n".join(unmet_lines(made.snapshot(), [one]))


def test_what_nobody_named_is_shown_by_an_access_that_passes(made: Made) -> None:
    for page, access in (
        (0x40_0000, USER_READ),
        (0x7F12_3456_7000, USER_READ),
        (0xFFFF_FFFF_8000_0000, SUPERVISOR_READ),
    ):
        others = {where: what for where, what in MEANT.items() if page not in ends(where)}
        (found,) = made.unmet(others, strict=True)
        assert (found.address, found.access) == (page, access)


def ends(where: int | Span) -> tuple[int, ...]:
    return (where.first, where.last) if isinstance(where, Span) else (where,)


def test_bits_are_those_of_each_page_s_own_size() -> None:
    """Bit 12 is PAT in a PDE and part of the address in a PTE (SDM tables 4-18 and 4-20)."""
    made = Made()
    made.map(0x40_0000, 0x50_1000, "w", 512)
    made.map(0x60_0000, 0x80_0000, "w", level=1)
    assert made.unmet({Span.of(0x40_0000, 4 << 20): {"bits": []}}) == []
    slot, raw = made.leaf(0x60_0000)
    made.memory.store(slot, 8, raw | 1 << 12)
    (found,) = made.unmet({Span.of(0x40_0000, 4 << 20): {"bits": []}})
    assert (found.address, found.size, found.does) == (0x60_0000, 2 << 20, "clears PAT")
    assert found.change == raw


@pytest.mark.parametrize(
    ("has", "meant", "does"),
    [
        (1 << 3 | 1 << 4 | 1 << 8, {"type": "UC", "bits": ["G"]}, None),
        (1 << 3 | 1 << 4, {"type": "UC", "bits": ["G"]}, "sets G"),
        (1 << 4, {"bits": ["PCD", "G"]}, "sets G"),
        (1 << 4 | 1 << 8, {"bits": []}, "clears PCD, clears G"),
        (1 << 4 | 1 << 8, {"bits": ["PWT", "G"]}, "sets PWT, clears PCD"),
    ],
)
def test_bits_that_differ_are_named_and_those_of_a_type_that_is_asked_are_the_type_s(
    made: Made, has: int, meant: dict[str, Any], does: str | None
) -> None:
    slot, raw = made.leaf(0x40_0000)
    made.memory.store(slot, 8, raw | has)
    found = made.unmet({0x40_0000: meant})
    assert [one.does for one in found] == ([] if does is None else [does])
    for one in found:
        assert one.change is not None
        made.memory.store(slot, 8, one.change)
        assert made.unmet({0x40_0000: meant}) == []


ABSENT: Mapping[str, tuple[int, dict[str, Any], str]] = {
    "a page of the user's code": (
        0x40_0000,
        {"rights": "ur-x", "physical": 0x90_0000},
        "PTE at 0x3000, now 0x0: 0x900005",
    ),
    "a page that is not executed, of no frame that was named": (
        0x40_0000,
        {"rights": "ur--"},
        "PTE at 0x3000, now 0x0: 0x8000000000000005 | the address of a page",
    ),
    "a page of the kernel with a type and a bit": (
        0x40_0000,
        {"user": "", "supervisor": "rw", "physical": 0x1000, "type": "UC", "bits": ["G"]},
        "PTE at 0x3000, now 0x0: 0x800000000000111b",
    ),
    "a page with all rights, for the user's accesses": (
        0x40_0000,
        {"user": "rwx", "physical": 0x90_0000},
        "PTE at 0x3000, now 0x0: 0x900007",
    ),
    "a page as large as is said, and a table above it": (
        0x7F12_3440_0000,
        {"size": 2 << 20, "rights": "urw-", "physical": 0x60_0000},
        "PML4E at 0x7f0, now 0x0: 0x7 | the address of a new table",
    ),
    "a page of the kernel's, and a table above it that is no user's": (
        0x7F12_3440_0000,
        {"size": 2 << 20, "rights": "-rw-", "physical": 0x60_0000},
        "PML4E at 0x7f0, now 0x0: 0x3 | the address of a new table",
    ),
    "a page of 1G where there is room for one": (
        0x4000_0000,
        {"page": "1G", "rights": "-rwx", "physical": 0x8000_0000},
        "PDPTE at 0x1008, now 0x0: 0x80000083",
    ),
}


@pytest.mark.parametrize("name", ABSENT)
def test_where_nothing_is_mapped_the_entries_meet_the_expectation(name: str) -> None:
    """They are stored, with tables that are made for them, and then nothing is unmet."""
    address, meant, line = ABSENT[name]
    made = Made(smap=True, smep=True)
    made.map(0x40_1000, 0, "uwx")
    expected: Any = {address: meant}
    (found,) = made.unmet(expected)
    said = [" ".join(one.split()) for one in unmet_lines(made.snapshot(), [found])]
    assert any(one.endswith(line) for one in said), said
    assert not any(one.startswith("or ") for one in said)
    assert found.missing is not None and found.missing.slot is not None
    place, table = found.missing.slot.address, 0x8_0000
    for entry in found.missing.entries:
        raw = entry.bits | (0 if entry.page else table)
        made.memory.store(place, 8, found.change or raw if entry.page else raw)
        index = address >> 12 + 9 * (entry.level - 1) & 0x1FF if entry.level else 0
        place, table = Physical(table + 8 * index), table + PAGE
    assert made.unmet(expected) == []


@pytest.mark.parametrize(("at", "level"), [(0x4000_0000, 1), (0x4010_0000, 0)])
def test_a_page_is_made_as_large_as_there_is_room_for_in_what_is_meant(at: int, level: int) -> None:
    (found,) = Made().unmet({at: {"size": 2 << 20, "rights": "urw-"}})
    assert found.missing is not None
    page = found.missing.entries[-1]
    assert (page.level, page.page) == (level, True)


def test_rights_that_are_named_are_given_even_where_the_supervisor_has_them_anyway() -> None:
    """With WP=0 it writes whatever entries say."""
    made = Made(wp=False)
    made.map(0x40_1000, 0, "uwx")
    for meant, entry in (
        ({"rights": "-rw-"}, 0x8000_0000_0090_0003),
        ({"supervisor": "rw"}, 0x8000_0000_0090_0001),
    ):
        (found,) = made.unmet({0x40_0000: {**meant, "physical": 0x90_0000}})
        assert found.change == entry


def test_of_some_bytes_the_page_is_made_that_has_them() -> None:
    made = Made()
    made.map(0x40_1000, 0, "uwx")
    (found,) = made.unmet({Span.of(0x40_0010, 8): "urw-"})
    assert found.missing is not None and found.missing.slot is not None
    (entry,) = found.missing.entries
    assert (found.missing.slot.address, entry.level, entry.page) == (0x3000, 0, True)


def test_a_gap_in_what_was_to_be_mapped_leads_where_its_place_in_it_says() -> None:
    made = Made()
    made.map(0x40_0000, 0x90_0000, "ux", 2)
    (found,) = made.unmet({Span.of(0x40_0000, 4 * PAGE): ("ur-x", 0x90_0000)})
    assert (found.address, found.change) == (0x40_2000, 0x90_2005)


@pytest.mark.parametrize(
    "meant",
    [
        {"physical": 0x1000},  # who may do what is not said
        {"page": "2M", "rights": "ur--"},  # a page table is there already
        {"user": "w"},  # a page that the user can write, he can read
    ],
)
def test_where_no_entry_meets_the_expectation_none_is_named(meant: dict[str, Any]) -> None:
    made = Made()
    made.map(0x40_1000, 0, "uwx")
    for found in made.unmet({0x40_0000: meant}):
        assert (found.missing, found.change) == (None, None)
    assert made.unmet({0x40_0000: meant})


def test_where_a_pdpte_is_absent_no_entry_is_named() -> None:
    """It is a register."""
    cpu, memory = by_hand.path(Cpu.in_mode(Mode.PAE, 0), 7, 7)
    snapshot = Snapshot("made", cpu, memory, (memory.span,))
    (found,) = unmet(snapshot, expectations({1 << 30: "ur-x"}))
    assert (found.missing, found.change) == (None, None)


def test_pages_of_another_size_are_unlike(made: Made) -> None:
    found = made.unmet({0x40_0000: {"page": "2M"}, 0xFFFF_FFFF_8000_0000: {"page": "4K"}})
    assert [one.wanted for one in found] == ["a 2M page", "a 4K page"]


def test_what_is_amiss_beside_the_frame_is_named_by_itself(made: Made) -> None:
    (found,) = made.unmet({0x40_0000: {"physical": 0x500_0000, "page": "2M"}})
    assert (found.wanted, found.instead) == ("a 2M page", "")


def test_an_index_that_is_computed_wrongly_at_one_level_is_found() -> None:
    made = Made()
    made.map(0x7F24_7456_7000, 0x510_0000, "uw")  # the PDPTE's index taken from bit 29 on
    (found,) = made.unmet({0x7F12_3456_7000: ("urw-", 0x510_0000)})
    assert found.instead == (
        "0x7f2474567000 leads to 0x5100000: its PDPTE index, at level 2, is 145 where this address"
        " has 72"
    )
    (found,) = made.unmet({0x7F12_3457_7000: ("urw-", 0x510_0000)})
    assert found.instead == ""  # two indices differ


def test_another_address_is_named_to_the_last_byte_of_its_page() -> None:
    made = Made()
    made.map(0x7F24_7456_7000, 0x510_0000, "uw")
    found, *_ = made.unmet({Span.of(0x7F12_3456_7FFF, 1): {"physical": 0x510_0FFF}})
    assert found.instead.startswith("0x7f2474567fff leads to 0x5100fff: its PDPTE index")


def test_no_address_is_named_that_does_not_lead_to_the_frame() -> None:
    """The page beside it would, if there were one; so would one of a table outside memory."""
    wanted = 0x7F12_3456_7000
    made = Made()
    made.map(0x7F24_7456_6000, 0x50F_F000, "uw")
    made.map(0x7F24_7456_8000, 0x510_1000, "uw")
    (found,) = made.unmet({wanted: {"physical": 0x510_0000}})
    assert found.instead == ""
    above = made.space.slot(Virtual(0x7F24_7456_7000), 1).address
    made.memory.store(above, 8, 0x4000_0007)
    (found,) = made.unmet({wanted: {"physical": 0x16_7000}})
    assert found.instead == ""
    found, *_ = made.unmet({wanted: {"user": "r"}})
    assert found.instead == ""


def test_the_change_is_that_of_the_page_that_is_shown(made: Made) -> None:
    slot, raw = made.leaf(0x40_5000)
    made.memory.store(slot, 8, raw ^ 0x777_0000)
    (found,) = made.unmet({Span.of(0x40_0000, 16 * PAGE): ("ur-x", 0x500_0000)})
    assert (found.address, found.size, found.change) == (0x40_5000, PAGE, raw)


def test_of_a_root_outside_memory_nothing_is_known_in_either_half() -> None:
    memory = BufferMemory(np.zeros(PAGE, np.uint8))
    made = Snapshot("", Cpu.long_mode(4, 0x4000_0000), memory, (memory.span,))
    (found,) = unmet(made, expectations({}, strict=True))
    assert [span for span, *_ in found.ranges] == [
        Span(0, (1 << 47) - 1),
        Span((1 << 64) - (1 << 47), (1 << 64) - 1),
    ]
    assert found.size == 1 << 48


def test_what_is_not_known_of_a_table_ends_where_that_is_in_memory() -> None:
    """The first half of the PTEs lies before the memory begins."""
    memory = BufferMemory(np.zeros(0x4000, np.uint8), 0x1800)
    for at, raw in (0x2000, 0x3007), (0x3000, 0x4007), (0x4008, 0x1007), (0x1800, 0x9_0003):
        memory.store(Physical(at), 8, raw)
    made = Snapshot("", Cpu.long_mode(4, 0x2000), memory, (memory.span,))
    (found,) = unmet(made, expectations({}, strict=True))
    base = 0x20_0000
    assert [span for span, *_ in found.ranges] == [
        Span.of(base, 256 * PAGE),
        Span.of(base + 256 * PAGE, PAGE),
    ]


def test_what_is_missed_shows_the_access_the_expectation_and_the_walk(made: Made) -> None:
    meant = parse("[[expect]]\nvirtual = 0x40_0000\ncount = 17\nrights = 'urwx'\n", "x/vmm.toml")
    lines = list(unmet_lines(made.snapshot(), unmet(made.snapshot(), meant)))
    assert lines[0] == "user read at 0x410000: #PF, error code 0x4 (U), CR2 0x410000"
    assert lines[1] == ("  expected  allowed, by 0x400000..0x410fff urwx (vmm.toml, expect 1)")
    assert "missed in 4K of 68K, by user write and user fetch" in lines[2]
    write = lines.index("user write at 0x400000: #PF, error code 0x7 (P W U), CR2 0x400000")
    assert lines[write + 2] == "            missed in 64K of 68K, by supervisor write too"
    said = "\n".join(lines[write:])
    assert "because   the PTE at 0x3000, level 0, holds 0x0000000005000005" in said
    assert "sets W: opens this 4K page to writes" in said
    assert "walk      level  entry" in said


def test_an_object_has_all_of_it(made: Made) -> None:
    (found,) = made.unmet({0x40_0000: ("ur-x", 0x600_0000)})
    shown = as_object(made.snapshot(), found)
    assert shown["wanted"] == "to reach 0x6000000"
    assert shown["explained"]["physical"] == "0x5000000"
    assert shown["change"] == "0x6000005"
    assert shown["span"] == {"first": "0x400000", "last": "0x400fff"}


def test_the_machine_is_asked_about_both_ends_of_each_expectation(made: Made) -> None:
    asked = places(made.cpu, expectations(MEANT)).tolist()
    assert asked[:4] == [0x40_0000, 0x40_FFFF, 0x7F12_3456_7000, 0x7F12_3456_EFFF]


# ---- as it is written ----


def documented() -> str:
    """The file in the documentation of the module, which uses every key."""
    text = (module.__doc__ or "").split("every key::\n\n")[1]
    lines = text.split("\n\nEvery key but")[0].splitlines()
    return "\n".join(line.removeprefix("    ") for line in lines)


def test_the_documented_file_uses_every_key_and_is_read() -> None:
    text = documented()
    found = parse(text, "kernel.toml")
    assert found.strict and memory_type.types(found.pat)[1] == "WC"
    for key in module._KEYS:
        assert f"{key} = " in text, key
    assert found.expects[0] == Expect(
        where="kernel.toml, expect 1",
        virtual=0x40_0000,
        size=PAGE,
        count=16,
        rights="ur-x",
        physical=0x500_0000,
        page=PAGE,
        type="WB",
        bits=("G",),
        levels=(4, 5),
    )
    assert found.expects[1].user == frozenset()
    assert found.expects[2].absent


def test_python_and_the_file_say_the_same(tmp_path: Path, made: Made) -> None:
    path = tmp_path / "kernel.toml"
    path.write_text(
        """
        strict = true
        [[expect]]
        virtual = 0x40_0000
        count = 16
        rights = "ur-x"
        physical = 0x500_0000
        [[expect]]
        virtual = 0x7f12_3456_7000
        size = "32K"
        rights = "uw"
        [[expect]]
        virtual = 0x7f12_3456_6000
        absent = true
        [[expect]]
        virtual = 0xffff_ffff_8000_0000
        size = "2M"
        count = 4
        user = ""
        supervisor = "rwx"
        physical = 0x400_0000
        page = "2M"
        type = "WB"
        bits = []
        """
    )
    read, python = load(path), expectations(MEANT, strict=True)
    assert read.strict and python.strict
    for one, other in zip(read.expects, python.expects, strict=True):
        assert one.span(made.cpu) == other.span(made.cpu)
        assert one.allows(made.cpu) == other.allows(made.cpu)
        for name in ("physical", "page", "type", "bits", "absent", "levels"):
            assert getattr(one, name) == getattr(other, name)


HERE = "[[expect]]\nvirtual = 0x400000\n"

REFUSED = {
    "nothing": ("", "x.toml expects nothing: write an"),
    "no TOML": ("strict = yes", "x.toml is not TOML: "),
    "an unknown key": (
        "stric = true",
        "x.toml: there is no key 'stric' here: did you mean strict",
    ),
    "an unknown key of one": (HERE + "right = ''", "x.toml, expect 1: there is no key 'right'"),
    "one that asks nothing": (HERE, "x.toml, expect 1: this asks nothing: say absent = true, or"),
    "no address": ("[[expect]]\nrights = 'ur'", "x.toml, expect 1: virtual is missing"),
    "no list": ("expect = 3", "x.toml: expect is not a list of tables"),
    "no table": ("expect = [3]", "x.toml, expect 1: this is no table"),
    "a wide address": (HERE.replace("0x4", "0x10000000000000004"), "wider than 64 bits"),
    "beyond the end": (
        "[[expect]]\nvirtual = 0xffff_ffff_ffff_f000\ncount = 2\nsize = '4K'\nrights = 'u'",
        "x.toml, expect 1: the addresses go beyond 64 bits",
    ),
    "no rights": (HERE + "rights = 'urz'", "rights is 'urz', no rights: write u, r, w"),
    "rights of no letters": (HERE + "rights = ''", "every page can be read"),
    "beyond the end in bytes": (
        "[[expect]]\nvirtual = 0xffff_ffff_ffff_ffff\ncount = 2\nrights = 'u'",
        "x.toml, expect 1: the addresses go beyond 64 bits",
    ),
    "levels of no mode": (
        HERE + "user = ''\nlevels = [4, 6]",
        "x.toml, expect 1: levels has 6: tables have one of 2, 3, 4, 5",
    ),
    "rights of nothing": (HERE + "rights = '----'", "every page can be read"),
    "a number for rights": (HERE + "rights = 5", "rights is 5, no rights: write u, r, w"),
    "a list for rights": (HERE + "rights = ['u']", "no rights: write u, r, w and x in this order"),
    "a number for kinds": (HERE + "user = 5", "user is 5, no accesses: write r, w"),
    "a list for kinds": (
        HERE + "supervisor = ['r']",
        "no accesses: write r, w and x in this order",
    ),
    "no kinds": (HERE + "user = 'u'", "user is 'u', no accesses: write r, w"),
    "no type": (HERE + "type = 'XX'", "type is 'XX', no memory type: there are UC, WC"),
    "a list for a type": (HERE + "type = []", "type is \\[\\], no memory type"),
    "2**64": ("[[expect]]\nvirtual = 0x1_0000_0000_0000_0000\nuser = ''", "wider than 64 bits"),
    "rights and the supervisor's": (HERE + "rights = 'u'\nsupervisor = 'r'", "write it once"),
    "rights twice": (HERE + "rights = 'u'\nuser = 'r'", "write it once"),
    "absent with rights": (HERE + "absent = true\nrights = 'u'", "so rights can be nothing"),
    "no number of pages": (HERE + "count = 0\nuser = ''", "count is 0, but must be more"),
    "a word for true": (HERE + "absent = 1", "absent is 1, neither true nor false"),
    "a PAT of no types": ("pat = 2\nstrict = true", "IA32_PAT 0x2 has 0x2 as PA0"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_meant_is_refused_with_its_place(case: str) -> None:
    text, sentence = REFUSED[case]
    with pytest.raises(QuestionError, match=sentence) as error:
        parse(text, "x.toml")
    assert "\n" not in str(error.value)


UNANSWERED: dict[str, tuple[Any, str]] = {
    "no canonical address": ({1 << 52: "ur--"}, "0x10000000000000..0x10000000000fff are no add"),
    "a span over the hole": ({Span(0, 1 << 63): {"user": ""}}, "are no addresses here"),
    "no size of a page": ({0x40_0000: {"page": "8K"}}, "page is 8K; pages of .* 4K, 2M, 1G"),
    "inside a page": ({0x40_0001: "ur--"}, "virtual is 0x400001, inside a page: write 0x400000"),
    "a part of a page": ({0x40_0000: {"size": 3 << 10, "rights": "r"}}, "size is 3K, no whole num"),
    "a page from inside a frame": (
        {0x40_0000: ("ur--", 0x300_0001)},
        "physical is 0x3000001, and no page of 4K leads there from 0x400000",
    ),
    "a large page from inside one": (
        {0x40_0000: {"page": "2M", "physical": 0x310_0000}},
        "physical is 0x3100000, and no page of 2M leads there from 0x400000",
    ),
    "pages from inside one on": ({Span.of(0x40_0800, 2 * PAGE): None}, "a page: write 0x400000"),
    **{
        f"two of one page: {name}": (
            {0x40_0000: one, Span.of(0x3F_F000, 3 * PAGE): other},
            "^0x400000..0x400fff are expected to be .*0x3ff000..0x401fff.*, and .*: both cannot be",
        )
        for name, one, other in (
            ("rights", "ur--", "ur-x"),
            ("rights that the user has alike", "rw", "r"),
            ("absent", "ur--", None),
            ("who", "ur-x", {"user": "r"}),
            ("who else", {"user": "r"}, {"user": "rw"}),
            ("frame", ("ur--", 0x500_0000), {"physical": 0x500_0000}),
            ("page", {"page": "4K"}, {"page": "2M"}),
            ("type", {"type": "WB"}, {"type": "UC"}),
            ("bits", {"bits": ["G"]}, {"bits": []}),
        )
    },
    "no frame": (
        {Span.of(0x40_0000, 2 * PAGE): {"physical": (1 << 40) - PAGE}},
        "physical 0xfffffff000..0x10000000fff is nowhere: pages of .* lead to 0xffffffffff at most",
    ),
    "no frame of 64 bits": (
        {0x40_0000: {"physical": 0xFFFF_FFFF_FFFF_F000, "count": 2}},
        "physical 0xfffffffffffff000..0x10000000000000fff is nowhere: pages of",
    ),
    "the last address": ({(1 << 64) - 1: "ur--"}, "0xf{16}..0x10{13}ffe are no addr"),
    "a field of several bits": ({0x40_0000: {"bits": ["KEY"]}}, "bits has 'KEY'; a page of"),
    "no bit": ({0x40_0000: {"bits": ["Z"]}}, "bits has 'Z'; a page of .* has PWT, PCD"),
    "a right as a bit": ({0x40_0000: {"bits": ["W"]}}, "bits has 'W'"),
}


@pytest.mark.parametrize("case", UNANSWERED)
def test_what_this_processor_does_not_have_is_refused(made: Made, case: str) -> None:
    meant, sentence = UNANSWERED[case]
    with pytest.raises(QuestionError, match=sentence):
        made.unmet(meant)


def test_expectations_of_the_same_addresses_that_can_all_be_met_are_met(made: Made) -> None:
    page = Span.of(0x40_1000, PAGE)
    wanted: Mapping[Any, Any] = {
        Span.of(0x40_0000, 16 * PAGE): ("ur-x", 0x500_0000),
        page: {"user": "rx", "physical": 0x500_1000, "page": "4K", "bits": []},
        page.first: {"supervisor": "rx", "type": "WB"},
        Span.of(page.first + 8, 8): {"rights": "ux", "physical": 0x500_1008},
    }
    assert not made.unmet(wanted)
    assert made.unmet(wanted, cpu=replace(made.cpu, cr3=0x1000))  # and are asked


def test_what_cannot_both_be_met_at_other_levels_is_no_contradiction(made: Made) -> None:
    text = "".join(
        f"[[expect]]\nvirtual = 0x400000\nrights = '{rights}'\nlevels = [{levels}]\n"
        for rights, levels in (("ur-x", 4), ("urwx", 5))
    )
    assert not unmet(made.snapshot(), parse(text, "x.toml"))
    with pytest.raises(QuestionError, match=r"ur-x \(x.toml, expect 1\), and urwx \(x.toml, exp"):
        unmet(made.snapshot(), parse(text.replace("[5]", "[4, 5]"), "x.toml"))


def test_what_is_refused_names_its_place_in_the_file(made: Made) -> None:
    text = f"[[expect]]\nvirtual = {1 << 52}\nuser = ''\n"
    for meant, place in (
        (parse(text, "x/y.toml"), "y.toml, expect 1: "),
        ({1 << 52: ""}, "expect"),
    ):
        with pytest.raises(QuestionError, match=f"^{place}"):
            unmet(made.snapshot(), expectations(meant))


def test_the_highest_frame_can_be_expected(made: Made) -> None:
    (found,) = made.unmet({0x40_0000: {"physical": (1 << 40) - PAGE}})
    assert found.wanted == "to reach 0xfffffff000"


def test_outside_long_mode_every_address_of_32_bits_has_its_place() -> None:
    """Also those of a PDPTE that is not present, below which there is no table."""
    memory = BufferMemory(np.zeros(1 << 14, np.uint8))
    memory.store(Physical(0x1000), 8, 0x83)
    cpu = replace(Cpu.in_mode(Mode.PAE, 0x2000), pdptes=(0x1001, 0, 0, 0))
    made = Snapshot("made", cpu, memory, (memory.span,))
    meant = {0: {"supervisor": "rwx", "size": "2M", "page": "2M"}, 0xFFFF_F000: None}
    assert unmet(made, expectations(meant, strict=True)) == ()
    with pytest.raises(QuestionError, match=r"those are 0x0\.\.0xffffffff$"):
        unmet(made, expectations({1 << 32: None}))


def test_a_span_may_begin_and_end_in_large_pages(made: Made) -> None:
    span = Span(0xFFFF_FFFF_8000_1000, 0xFFFF_FFFF_8060_2FFF)
    assert made.unmet({span: {"physical": 0x400_1000, "page": "2M"}}) == []
    (found,) = made.unmet({span: {"physical": 0x400_0000}})
    assert (found.address, found.size) == (span.first, span.size)


def test_of_an_entry_that_maps_nothing_it_is_said_once_and_nothing_of_its_bits(made: Made) -> None:
    slot, raw = made.leaf(0x40_0000)
    made.memory.store(slot, 8, raw | 1 << 45 | 1 << 8 | 1 << 4)
    (found,) = made.unmet({0x40_0000: {"page": "2M", "type": "WB", "bits": []}})
    assert found.wanted == "a page"


def test_what_is_to_be_absent_is_no_name_for_what_is_there(made: Made) -> None:
    meant = {**MEANT, 0x40_0000: None}
    absent, other = made.unmet({one: meant[one] for one in list(meant)[1:]}, strict=True)
    assert absent.expect is not None and other.expect is None
    assert other.ranges[0][0] == Span.of(0x40_0000, 16 * PAGE)


def test_expectations_of_other_levels_are_left_out() -> None:
    meant = {1 << 52: {"user": "r", "levels": [5]}, 0x1000: None}
    assert Made(4).unmet(meant) == []
    assert len(Made(5).unmet(meant)) == 1
    read = expectations(meant)
    assert [len(read.at(Cpu.long_mode(levels, 0))) for levels in (4, 5)] == [1, 2]


def test_expectations_are_of_every_number_of_levels_that_a_mode_has() -> None:
    """In PAE paging tables have two, and three where the PDPTEs are no registers."""
    for levels in 2, 3, 4, 5:
        read = expectations({0x1000: {"user": "r", "levels": [levels]}})
        there = [len(read.at(Cpu.in_mode(mode, 0))) for mode in Mode]
        assert there == [Cpu.in_mode(mode, 0).levels == levels for mode in Mode]
    for levels in 1, 6:
        with pytest.raises(QuestionError, match=f"levels has {levels}: tables have one of 2, 3, "):
            expectations({0x1000: {"user": "r", "levels": [levels]}})


def test_expectations_of_which_none_is_of_these_levels_ask_nothing(made: Made) -> None:
    meant = {0x1000: {"user": "r", "levels": [5, 3]}}
    with pytest.raises(QuestionError, match="and none of them 4, which these tables have"):
        made.unmet(meant)
    (one,) = made.unmet(meant, strict=True)  # that does ask: nothing else is mapped
    assert one.expect is None


@pytest.mark.parametrize(
    ("meant", "sentence"),
    [
        ({0x1000: "urz"}, "expect 0x1000: rights is 'urz'"),
        ({Span.of(0x1000, 16): ("ur", -1)}, "expect 0x1000..0x100f: physical is -1"),
        ({-1: None}, "expect -0x1: virtual is -1"),
        ({0x1000: ("urwx",)}, r"expect 0x1000: this is \('urwx',\): write rights, \(rights, phys"),
        ({0x1000: ("ur", 1, 2)}, r"expect 0x1000: this is \('ur', 1, 2\): write rights"),
        ({0x1000: ()}, r"expect 0x1000: this is \(\): write rights"),
        ({0x1000: 7}, "expect 0x1000: this is 7: write rights"),
        ({0x1000: ("ur", None)}, "expect 0x1000: physical is None"),
        ({0x1000: {7: ""}}, "expect 0x1000: there is no key 7"),
        ({"0x1000": "ur"}, "expect '0x1000': this is neither an address nor a span"),
        ({True: "ur"}, "expect True: this is neither an address nor a span"),
        ({4096.0: "ur"}, "expect 4096.0: this is neither an address nor a span"),
        (None, "None is neither a mapping nor the path of a file"),
        ([0x1000], r"\[4096\] is neither a mapping nor the path of a file"),
        ({0x1000: {"usr": ""}}, "expect 0x1000: there is no key 'usr'"),
    ],
)
def test_what_python_cannot_mean_is_refused(meant: Any, sentence: str) -> None:
    with pytest.raises(QuestionError, match=sentence):
        expectations(meant)


def test_mutated_and_truncated_files_are_read_or_refused_in_a_sentence(made: Made) -> None:
    source, text = random.Random(4), documented()
    refused = 0
    for number in range(200):
        if number % 2:
            mutated = text[: source.randrange(len(text))]
        else:
            at = source.randrange(len(text))
            mutated = (
                text[:at] + chr(source.choice((0, 34, 48, 91, 120, 255, 8232))) + text[at + 1 :]
            )
        try:
            list(unmet(made.snapshot(), parse(mutated, "x.toml")))
        except QuestionError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 30


def test_expectations_come_by_either_kind_of_path_and_as_they_were_read(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text(HERE + "user = ''\n")
    read = expectations(path)
    assert expectations(str(path)) == expectations(read) == read == load(path)
    assert expectations(read, strict=True) == replace(read, strict=True) != read


def test_nothing_else_alone_may_be_expected_and_is_not_by_default() -> None:
    assert parse("strict = true", "x.toml").strict
    assert not parse(HERE + "user = ''", "x.toml").strict
    assert not parse(HERE + "user = ''\n[[expect]]\nvirtual = 0\nuser = ''", "x.toml").strict


def test_an_address_may_be_a_number_of_numpy_s() -> None:
    meant: Mapping[Any, Any] = {np.uint64(0x1000): ("ur", np.int64(0x2000))}
    (found,) = expectations(meant).expects
    assert (found.virtual, found.physical) == (0x1000, 0x2000)


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for path, why in ((tmp_path, "Is a directory"), (tmp_path / "x", "No such file")):
        with pytest.raises(QuestionError, match=why):
            load(path)
    with pytest.raises(QuestionError, match="not text in UTF-8"):
        load(tmp_path / "binary")
    with pytest.raises(QuestionError, match="not a name of a file"):
        load("a\0b")


def test_a_large_span_is_compared_by_its_pages_at_once() -> None:
    made = Made()
    made.map(0xFFFF_8000_0000_0000, 0, "w", 512, level=2)  # 512 GiB in 1G pages
    span = Span.of(0xFFFF_8000_0000_0000, 512 << 30)
    assert made.unmet({span: {"user": "", "supervisor": "rw", "physical": 0}}, True) == []


def test_what_the_same_entries_withhold_is_explained_once() -> None:
    """The user's right is missing in all tables above both spans: one bug, said in full once."""
    made = Made(smep=True, smap=True)
    made.map(0x40_0000, 0x500_0000, "u-x", 16)
    made.map(0x7F12_3456_7000, 0x510_0000, "uw-")
    user = made.cpu.format.granting("user")
    for address in (0x40_0000, 0x7F12_3456_7000):
        root = root_for(made.cpu, Virtual(address))
        assert root is not None
        for step in walk(made.memory, root, Virtual(address)).steps[:-1]:
            made.memory.store(step.slot.address, 8, step.raw & ~user)
    found = made.unmet({Span.of(0x40_0000, 1 << 16): "ur-x", 0x7F12_3456_7000: "urw-"})
    assert [(one.access.user, one.address) for one in found] == [
        (user, address) for address in (0x40_0000, 0x7F12_3456_7000) for user in (True, False)
    ]
    parts = "\n".join(unmet_lines(made.snapshot(), found)).split("\n\n")
    assert [part.count("sets U: opens") for part in parts] == [3, 0, 0, 0]
    assert ["level  entry  slot" in part for part in parts] == [True, False, False, False]
    assert [part.count("holds 0x") for part in parts] == [3, 0, 3, 0]
    assert "  change    as above, in these entries" in parts[2].split("\n")
    assert parts[1].endswith("\n  walk      as above") and parts[3].endswith("walk      as above")


def parts_of(made: Made, wanted: Wanted) -> list[list[str]]:
    text = "\n".join(unmet_lines(made.snapshot(), made.unmet(wanted)))
    return [part.split("\n") for part in text.split("\n\n")]


def test_expectations_that_are_alike_and_missed_in_one_way_are_shown_as_one(made: Made) -> None:
    pages = [0x40_0000 + PAGE * number for number in (0, 1, 2, 3, 5, 7, 9)]
    (only,) = parts_of(made, {at: ("urwx", 0x500_0000 + at - 0x40_0000) for at in pages})
    assert only[0] == "user write at 0x400000: #PF, error code 0x7 (P W U), CR2 0x400000"
    at = only.index("  likewise  0x401000..0x403fff")
    assert only[at : at + 4] == [
        "  likewise  0x401000..0x403fff",
        "            0x405000..0x405fff",
        "            0x407000..0x407fff",
        "            by 6 expectations more in 4 places",
    ]
    (short,) = parts_of(made, dict.fromkeys(pages[:3], "urwx"))
    assert "            by 2 expectations more" in short
    (alone,) = parts_of(made, {pages[0]: "urwx"})
    assert not any("likewise" in line for line in alone)


def test_pages_that_lead_off_by_as_much_are_shown_as_one(made: Made) -> None:
    pages = [0x40_0000 + PAGE * number for number in range(4)]
    meant = {at: {"physical": 0x600_0000 + at - 0x40_0000} for at in pages}
    (only,) = parts_of(made, meant)
    assert "  likewise  0x401000..0x403fff" in only
    meant[pages[2]] = {"physical": 0x700_0000}
    assert len(parts_of(made, meant)) == 2


@pytest.mark.parametrize(
    "other",
    [
        {0x40_1000: {"user": ""}},  # another access
        {0x40_1000: "urw-"},  # another right is missing, and one too many there
        {0x7F12_3456_7000: "urwx"},  # it is withheld by another entry of the same walk
        {Span.of(0x40_F000, 2 * PAGE): "urwx"},  # some of it is not mapped
        {0x40_1000: {"user": "rwx"}},  # otherwise written
        {0x1000: "urwx"},  # nothing is there
        {0x40_1000: None},
    ],
)
def test_what_is_missed_in_another_way_is_shown_apart(made: Made, other: Mapping[Any, Any]) -> None:
    parts = parts_of(made, {0x40_0000: "urwx", **other})
    assert len(parts) > 1
    assert not any("likewise" in line for part in parts for line in part)


def test_what_other_entries_withhold_is_shown_apart(made: Made) -> None:
    made.map(0x5000_0000, 0x510_0000, "w")
    made.map(0x6000_0000, 0x510_0000, "uw")
    root = root_for(made.cpu, Virtual(0x6000_0000))
    assert root is not None
    pde = walk(made.memory, root, Virtual(0x6000_0000)).steps[2]
    made.memory.store(pde.slot.address, 8, pde.raw & ~made.cpu.format.granting("user"))
    parts = parts_of(made, {0x5000_0000: {"user": "r"}, 0x6000_0000: {"user": "r"}})
    assert [part[0].split(":")[0] for part in parts] == [
        "user read at 0x50000000",
        "user read at 0x60000000",
    ]


def test_what_is_missed_in_many_ways_counts_what_is_not_shown(made: Made) -> None:
    for number in range(10):
        made.map(0x5000_0000 + (number << 12), 0x510_0000 + (number * number << 12), "uw-")
    meant: dict[Any, Any] = {0x5000_0000 + (n << 12): {"physical": n << 12} for n in range(10)}
    meant |= {0x5100_0000 + (n << 12): "ur--" for n in range(3)}
    # 0 and 1 are their own squares, so there are nine ways, and one for those where nothing is.
    *parts, last = parts_of(made, meant)
    assert len(parts) == 7 and last[-1] == "and 4 expectations more that are not met"


def test_another_cause_at_another_address_is_explained_too(made: Made) -> None:
    found = made.unmet({0x40_0000: "urwx", 0x7F12_3456_7000: "urwx", 0xFFFF_FFFF_8000_0000: "ur--"})
    parts = "\n".join(unmet_lines(made.snapshot(), found)).split("\n\n")
    assert len(parts) >= 3
    for part, does in zip(parts, ("sets W", "clears XD", "sets U"), strict=False):
        assert does in part and "level  entry  slot" in part
