"""Spaces that are changed while a guest made of the rules runs in them: what is expected of each
access, that all of its answer is looked at, and what comes of a flush that is missing on a machine
that keeps translations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.check import changes as table
from harness.check.changes import NOTHING, RAM_BYTES, Change
from harness.check.compare import PROBE, Comparison
from harness.check.live import NOT_SHOWN, RUNS
from harness.check.marks import marked
from harness.check.x86 import changes
from harness.check.x86.fixtures import new_live, new_space
from harness.check.x86.live import Live
from harness.check.x86.quirks import KEPT_CODE
from harness.check.x86.space import GuestSpace
from harness.machine.ram import MIB
from harness.paging import bulk, slots
from harness.paging.address import Span, Virtual
from harness.paging.flush import Flush
from harness.paging.value import Value
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cr4
from harness.paging.x86.formats import A, D, G, long_mode
from tests.check.by_rules import ends
from tests.check.tampered import looked_at, noted, passed_over
from tests.check.x86.by_rules import DEPARTS, ByRules
from tests.check.x86.machines import KEEPS_CODE, Keeping
from tests.check.x86.test_live_changes import FOLLOWED

QEMU = "tcg", (7, 2, 22)
PAGE, SIZE, LARGE = Virtual(0x40_0000), 1 << 12, 2 << 20
RIGHTS = (("write", "user", "execute"), ("write",), ("user",), ("write", "user"), ("execute",))
EVERY = Span.of(PAGE, SIZE * len(RIGHTS))
ACCESSES = {
    *(
        (kind, user, False)
        for kind in (Kind.READ, Kind.WRITE, Kind.FETCH)
        for user in (False, True)
    ),
    *((kind, False, True) for kind in (Kind.READ, Kind.WRITE)),
}
"""Kind, from user mode, with EFLAGS.AC: what is tried at a page."""


def page(number: int) -> Span:
    return Span.of(PAGE + number * SIZE, SIZE)


def guest_of(keeps: bool = False, ram_bytes: int = 128 * MIB, kind: type[ByRules] = ByRules) -> Any:
    return (Keeping if keeps else kind)(ram_bytes=ram_bytes)


def pages_in(space: GuestSpace) -> None:
    """Pages of all rights, side by side."""
    for number, names in enumerate(RIGHTS):
        rights = space.format.granting(*names)
        space.map(Virtual(page(number).first), space.frames(1), 0, rights).done()


def changed(guest: Any, levels: int = 4) -> Live:
    """Pages of all rights that are probed, unmapped and given others, and probed again."""
    space = new_space(guest, levels)
    live = new_live(guest, space)
    pages_in(space)
    live.probe(EVERY)
    live.flush(space.unmap(page(0)))
    live.flush(space.protect(page(3), space.format.granting("user")))
    live.probe(EVERY)
    return live


@pytest.mark.parametrize("keeps", [False, True])
@pytest.mark.parametrize("levels", [4, 5])
def test_a_guest_that_follows_the_rules_agrees(levels: int, keeps: bool) -> None:
    found = changed(guest_of(keeps=keeps), levels).run()
    assert not found.disagreed, found.disagreements
    assert found.compared > 2 * 8 * len(RIGHTS) and not found.quirks and not found.news
    assert not found.not_comparable


def test_each_page_is_accessed_in_every_way_and_each_way_is_one_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = noted(monkeypatch, Live, "_agree")
    changed(guest_of()).run()
    assert len(batches) == 2
    for one in batches:
        asked = one.asked[2]
        cases, pages = asked.cases, (asked.address // np.uint64(SIZE) * np.uint64(SIZE)).tolist()
        tried = Counter(
            zip(pages, cases.kind.tolist(), cases.user.tolist(), cases.ac.tolist(), strict=True)
        )
        ways = {(int(kind), user, ac) for kind, user, ac in ACCESSES}
        # With one page beside them on each side.
        every = range(PAGE - SIZE, PAGE + SIZE * (len(RIGHTS) + 1), SIZE)
        assert tried == Counter((at, *way) for at in every for way in ways)
        assert len(ways) == Live.EACH == 8
        assert len(set(asked.key.tolist())) == len(asked)
        for name, kind in (("reads", Kind.READ), ("writes", Kind.WRITE), ("fetches", Kind.FETCH)):
            assert (getattr(asked, name) == (cases.kind == kind)).all()
        places = {
            (int(kind), int(at) % SIZE) for kind, at in zip(cases.kind, asked.address, strict=True)
        }
        assert places == {(Kind.READ, 0), (Kind.WRITE, 8), (Kind.FETCH, 16)}
        assert (asked.walks.physical[asked.allowed] == asked.aimed[asked.allowed]).all()


@pytest.mark.parametrize("pge", [False, True])
def test_a_global_page_lasts_while_pge_is_set(monkeypatch: pytest.MonkeyPatch, pge: bool) -> None:
    """G is heeded in the entry of a page, where CR4.PGE=1 (SDM volume 3A, 4.10.2.4)."""
    guest = guest_of()
    space, batches = new_space(guest, 4), noted(monkeypatch, Live, "_agree")
    cpu = replace(space.cpu, cr4=space.cpu.cr4 & ~Cr4.PGE | (Cr4.PGE if pge else 0))
    live, user = Live(guest, space.memory, cpu), space.format.granting("user")
    for number, bits in enumerate((user, user | G)):
        space.map(Virtual(page(number).first), space.frames(1), 0, bits).done()
    live.probe(page(0), page(1))
    assert not live.run().disagreed
    [one] = batches
    asked = one.asked[2]
    there = asked.address // np.uint64(SIZE) == np.uint64(PAGE // SIZE + 1)
    assert (asked.lasting == there & pge).all() and there.any()


def test_an_address_stands_for_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    guest = guest_of()
    space, batches = new_space(guest, 4), noted(monkeypatch, Live, "_agree")
    live = new_live(guest, space)
    pages_in(space)
    live.probe(page(0))
    live.probe(page(0).first + 8, page(1).first)
    live.flush(page(0).first)
    live.probe(page(0), page(1))
    assert not live.run().disagreed
    one, two, three = (set[int](judged.asked[2].address.tolist()) for judged in batches)
    assert one < two == three


def test_every_field_of_a_result_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, lanes = noted(monkeypatch, Live, "_agree"), Counter[str]()
    assert not changed(guest_of()).run().disagreed
    for one in batches:
        asked = one.asked[2]
        allowed, every, levels = asked.allowed, (0, 17, 63), len(asked.paths.slot)
        faults = asked.rules.vector == 14
        seen = {
            "completed": (allowed | ~allowed, (0,)),
            "vector": (~allowed | asked.fetches, range(8)),
            "error": (~allowed, range(8)),
            "cr2": (allowed | faults, every),
            "rip": (allowed & asked.fetches, every),
            "data": (allowed & ~asked.writes, every),
            f"after {levels}": (allowed & asked.writes, every),
            **{
                f"after {n}": (asked.paths.used[levels - 1 - n], (0, 12, 63)) for n in range(levels)
            },
        }
        lanes.update(looked_at(one, seen))
        passed_over(one, {"reserved": range(16)})
    assert min(lanes.values()) > 2 and batches


def test_a_of_the_entry_of_a_denied_access_is_looked_at_and_above_it_left_to_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SDM volume 3A, 4.8; D is never set."""
    guest = guest_of()
    space, batches = new_space(guest, 4), noted(monkeypatch, Live, "_agree")
    live = new_live(guest, space)
    space.map(PAGE, space.frames(1), 0, space.format.granting()).done()
    live.probe(page(0))  # of which A is clear, for the user's accesses come between
    live.run()
    left = 0
    for one in batches:
        asked, levels = one.asked[2], 4
        denied = ~asked.allowed & (asked.walks.level == 0)
        for level, bit, said in ((0, 5, False), (0, 6, False), (1, 6, False), (1, 5, True)):
            clear = denied & (asked.paths.raw[level] & np.uint64(1 << bit) == 0)
            # What the accesses before it have set is set.
            clear &= one.results["after"][:, levels - 1 - level] & np.uint64(1 << bit) == 0
            other = one.results.copy()
            other["after"][clear, levels - 1 - level] |= np.uint64(1 << bit)
            assert (one.judge(other)[clear] == said).all()
            left += int(clear.sum())
    assert left


def test_how_one_access_ended_is_told_by_what_it_says_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that a stale translation that served it is known: by whether it was made, the exception
    and its error code, or else the data."""
    batches, live = noted(monkeypatch, Live, "_agree"), None
    changed(guest_of()).run()
    for one in batches:
        asked = one.asked[2]
        for lane in range(len(asked)):
            allowed, writes = bool(asked.allowed[lane]), bool(asked.writes[lane])
            for field, bit, counts in (
                ("completed", 0, True),
                ("vector", 1, not allowed),
                ("error", 2, not allowed),
                ("data", 33, allowed and not writes),
                ("cr2", 20, False),
                ("rip", 3, False),
            ):
                results = one.results.copy()
                assert Live._ended_as(live, asked, lane, results[lane])  # type: ignore[arg-type]
                results[field][lane] ^= results[field].dtype.type(1 << bit)
                same = Live._ended_as(live, asked, lane, results[lane])  # type: ignore[arg-type]
                assert same is not counts, (field, allowed, writes)
    assert batches


class Otherwise(ByRules):
    """A guest all of whose accesses end otherwise, the data among it."""

    def tampered(self, results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results["completed"] ^= 1
        results["vector"] = np.where(results["completed"], 0xFF, 14)
        results["data"] ^= np.uint64(1 << 40)
        results["after"][:, 4] ^= np.uint64(1 << 41)
        return results


def test_what_a_guest_saw_is_put_into_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.check.live.EXAMPLES", 1 << 16)
    batches = noted(monkeypatch, Live, "_agree")
    found = changed(guest_of(kind=Otherwise)).run()
    assert found.disagreed == 2 * 8 * (len(RIGHTS) + 2)
    asked = batches[0].asked[2]
    first = asked.address.tolist()
    by_access = dict[tuple[int, Any, bool, bool], Any]()
    for one in found.disagreements:
        if "call 1 of" in one.expected:
            assert isinstance(one.access, Access)
            key = one.address, one.access.kind, one.access.user, one.flags == {"AC"}
            by_access[key] = one
    assert len(by_access) == len(asked)
    for lane in range(len(asked)):
        kind = Kind(int(asked.cases.kind[lane]))
        key = first[lane], kind, bool(asked.cases.user[lane]), bool(asked.cases.ac[lane])
        one = by_access[key]
        assert one.oracle == PROBE
        saw, entries = one.observed.split("; entries from the root down: ")
        levels = asked.paths.used[:, lane].sum()
        assert entries.count("->") == levels
        root = int(asked.paths.raw[3, lane])
        assert entries.startswith(f"{root:#x} -> ")
        if asked.allowed[lane]:
            assert one.expected.startswith(f"reaches {int(asked.aimed[lane]):#x}; at call 1")
            assert saw.startswith("#PF(0x0), CR2 0x")
        else:
            assert one.expected.startswith("#PF(")
            word, _, mark = saw.removeprefix("done, and the word is ").partition(", the mark of ")
            if kind is not Kind.WRITE:
                assert int(word, 16) == 1 << 40  # of data, which is 0 where none was read
            assert not mark  # nothing was to be found there


class Elsewhere(ByRules):
    """A guest whose data is another."""

    def tampered(self, results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results["data"] ^= np.uint64(1 << 40)
        results["after"][:, 4] ^= np.uint64(1 << 41)
        return results


class Unmarked(ByRules):
    """A guest that sets neither A nor D in the entry of a page."""

    def tampered(self, results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results["after"][:, 3] &= ~np.uint64(A | D)
        return results


def one_page(kind: type[ByRules]) -> tuple[int, Comparison]:
    """The frame of a page that a guest of this kind is asked about, and what comes of that."""
    guest = guest_of(kind=kind)
    space = new_space(guest, 4)
    live, frame = new_live(guest, space), space.frames(1)
    space.map(PAGE, frame, 0, space.format.granting("write", "execute")).done()
    live.probe(page(0))
    return int(frame[0]), live.run()


def test_marks_that_alone_are_missing_are_expected_by_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.check.live.EXAMPLES", 1 << 16)
    told = [one for one in one_page(Unmarked)[1].disagreements if one.access is not None]
    assert len(told) > 2
    for one in told:
        due, had = (
            [int(pair.split(" -> ")[1], 16) for pair in text.split("root down: ")[1].split(", ")]
            for text in (one.expected, one.observed)
        )
        assert due[:3] == had[:3]
        assert due[3] & ~(A | D) == had[3]
        assert due[3] & A
    assert any(int(one.expected.rpartition(" -> ")[2], 16) & D for one in told)


def test_the_word_that_was_found_is_told_and_which_mark_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harness.check.live.EXAMPLES", 1 << 16)
    frame, found = one_page(Elsewhere)
    assert found.disagreed == 5  # what the supervisor may
    for one in found.disagreements:
        assert one.expected == f"reaches {frame + one.address % SIZE:#x}; at call 1 of live.probe"
        saw = one.observed.split(";")[0]
        assert isinstance(one.access, Access) and not one.access.user
        word, _, mark = saw.removeprefix("done, and the word is ").partition(", the mark of ")
        if one.access.kind is Kind.WRITE:
            assert not mark
        else:
            assert int(mark, 16) == marked(int(word, 16)) != one.address
            assert marked(int(word, 16) ^ 1 << 40) == frame + one.address % SIZE


# ---- a machine that keeps translations ----


@pytest.mark.parametrize("levels", [4, 5])
def test_a_flush_that_is_missing_shows_and_is_told(levels: int) -> None:
    guest = guest_of(keeps=True)
    space = new_space(guest, levels)
    live = new_live(guest, space)
    pages_in(space)
    live.probe(EVERY)
    space.unmap(Span.of(PAGE, 2 * SIZE)).done()
    live.probe(EVERY)
    found = live.run()
    # Of the first page all that has no need of AC: without SMAP and SMEP eight, with them five.
    assert found.disagreed and not found.news
    both = f"{Span.of(PAGE, 2 * SIZE)}"
    first = next(one for one in found.disagreements if one.hint)
    assert first.hint.startswith(
        f"a flush may be missing: {both} was unmapped and was not flushed, and "
    )
    assert first.hint.endswith(" still end as at call 1 of live.probe (SDM 4.10.4)")
    assert first.address // SIZE == PAGE // SIZE
    assert {one.count for one in found.disagreements} == {found.disagreed}
    assert f"and {found.disagreed} accesses still end" in first.hint


def told_of(withheld: Callable[[GuestSpace], Flush], levels: int = 4) -> list[tuple[str, int]]:
    """The hints, and what they are of, where a flush is withheld of four pages of the user's."""
    guest = guest_of(keeps=True)
    space = new_space(guest, levels)
    live = new_live(guest, space)
    for number in range(4):
        write = space.format.granting("write", "user")
        space.map(Virtual(page(number).first), space.frames(1), 0, write).done()
    live.probe(Span.of(PAGE, 4 * SIZE))
    withheld(space).done()
    live.probe(Span.of(PAGE, 4 * SIZE))
    found = live.run()
    assert sum(one.count for one in found.disagreements) <= found.disagreed
    return [(one.hint, one.count) for one in found.disagreements]


def hint(pages: Span, became: str, accesses: str) -> str:
    first, last = (at // SIZE * SIZE for at in (pages.first, pages.last))
    where = f"{first:#x}" if first == last else f"{Span(first, last + SIZE - 1)}"
    return (
        f"a flush may be missing: {where} {became} and was not flushed, and {accesses} as at call 1"
        " of live.probe (SDM 4.10.4)"
    )


def test_accesses_of_one_cause_are_told_together_and_pages_apart_by_themselves() -> None:
    """The user reads and writes these pages, and the supervisor where EFLAGS.AC is set, by SMAP."""

    def unmapped(*pages: Span) -> Callable[[GuestSpace], Flush]:
        def withheld(space: GuestSpace) -> Flush:
            flush = Flush()
            for one in pages:
                flush.absorb(space.unmap(one))
            return flush

        return withheld

    both = Span(page(1).first, page(2).last)
    assert told_of(unmapped(both)) == [(hint(both, "was unmapped", "8 accesses still end"), 8)]
    apart = told_of(unmapped(page(0), page(2)))
    four = "4 accesses still end"
    assert apart == [(hint(page(n), "was unmapped", four), 4) for n in (0, 2)]
    # Of one that only loses writing two accesses are told, beside one that is gone.
    mixed = told_of(
        lambda space: (
            space.unmap(page(0)).absorb(space.protect(page(1), space.format.granting("user")))
            or Flush()
        )
    )
    two = "2 accesses still end"
    assert mixed == [
        (hint(page(0), "was unmapped", four), 4),
        (hint(page(1), "lost rights", two), 2),
    ]


def test_what_became_of_a_page_is_told() -> None:
    def put(space: GuestSpace, frame: int, cleared: int = 0) -> Flush:
        slot, format = space.slot(Virtual(PAGE), 0), space.format
        raw = format.leaf(frame, 0, format.granting("write", "user"))
        raw |= (format.accessed | format.dirty) & ~cleared
        return slots.put(space, slot, Value(format, 0, raw), Virtual(PAGE))

    def frame_of(space: GuestSpace) -> int:
        return space.read(space.slot(Virtual(PAGE), 0)) & 0xF_FFFF_FFFF_F000

    moved = told_of(lambda space: put(space, int(space.frames(1)[0])))
    assert moved == [(hint(page(0), "was led elsewhere", "4 accesses still end"), 4)]
    # Two writes are to set D, and two reads and two writes A; between the reads and the writes, by
    # their addresses, is what is denied and finds A clear.
    for bit, groups in (D, 1), (A, 2):
        cleared = told_of(partial(lambda bit, space: put(space, frame_of(space), bit), bit))
        told = hint(page(0), "was changed", "2 accesses still end"), 2
        assert cleared.count(told) == groups == sum(bool(hint) for hint, _ in cleared)


@pytest.mark.parametrize(("keeps_stale", "runs"), [(True, f"{RUNS} runs"), (False, "1 run")])
def test_without_keeping_anything_it_is_said_that_a_flush_may_be_missing(
    keeps_stale: bool, runs: str
) -> None:
    guest = guest_of()
    guest.engine = replace(guest.engine, keeps_stale=keeps_stale)
    space = new_space(guest, 4)
    live = new_live(guest, space)
    pages_in(space)
    live.probe(page(2))
    space.unmap(page(2)).done()
    live.probe(page(2))
    found = live.run()
    assert not found.disagreed
    [(reason, count)] = found.not_comparable.items()
    assert reason == f"{NOT_SHOWN} in {runs}: {page(2).first:#x} is the first address"
    assert count == 2  # what it let be: the user's read, and the supervisor's with AC set
    live.probe(page(2))
    assert not live.run().disagreed


@pytest.mark.parametrize("change", changes.CHANGES, ids=[one.name for one in changes.CHANGES])
def test_the_library_asks_for_the_flush_of_each_row(change: Change) -> None:
    """And accesses end as they must before and after it, at the lowest level and at the highest, on
    a machine that keeps what it may, where each flush that is missing shows; and on one that
    follows every store."""
    for level in ends(change.levels(long_mode(4, 40, True, True))):
        guest: Any = Keeping(*QEMU, DEPARTS[QEMU], ram_bytes=RAM_BYTES)
        assert changes.execute(guest, 4, change, level) == []
    if change.name in FOLLOWED:
        guest = ByRules(*QEMU, DEPARTS[QEMU], ram_bytes=RAM_BYTES)
        guest.engine = replace(guest.engine, keeps_stale=False)
        assert changes.execute(guest, 4, change, level) == []


class Deaf(Keeping):
    """A guest on which no flush of a page drops anything."""

    def _flushed(self, state: Any, job: np.void) -> bool:
        job = job.copy()
        if self._flushes[int(job["flush"])] == "PAGE":
            job["flush"] = self.image.enums["FLUSH_NONE"]
        return super()._flushed(state, job)


CONTRADICTED: dict[str, tuple[str, str, type[ByRules], bool, list[str]]] = {
    "nothing is to be flushed": (
        "a page moved to another frame",
        NOTHING,
        Keeping,
        True,
        [
            "the library asks to flush the page, not nothing",
            "stale though nothing had to be flushed, or to be seen: done, and the word is 0x",
        ],
    ),
    "a page is to be": (
        "write given to a page",
        table.PAGE,
        Keeping,
        True,
        [
            "the library asks to flush nothing, not the page",
            "nothing stale was seen while the flush was withheld",
            "the library asks to flush nothing, not the page",
        ],
    ),
    "a page is to be, on a machine that follows every store": (
        "write given to a page",
        table.PAGE,
        ByRules,
        False,
        [
            "the library asks to flush nothing, not the page",
            "it was not said that a flush may be missing",
            "the library asks to flush nothing, not the page",
        ],
    ),
    "all is to be": (
        "a page unmapped",
        table.ALL,
        Keeping,
        True,
        ["the library asks to flush the page, not everything"] * 2,
    ),
    "a page is, and not all below a table": (
        "a table unlinked",
        table.PAGE,
        Keeping,
        True,
        ["the library asks to flush everything, not the page"] * 2,
    ),
    "a machine keeps nothing": (
        "write given to a page",
        NOTHING,
        ByRules,
        True,
        ["the machine kept nothing of the page beside it, in any run"],
    ),
    "a machine keeps nothing of what must be flushed": (
        "a page unmapped",
        table.PAGE,
        ByRules,
        True,
        ["nothing stale was seen while the flush was withheld"],
    ),
    "a machine keeps what was flushed": (
        "a page unmapped",
        table.PAGE,
        Deaf,
        True,
        ["stale after the flush: done, and the word is 0x"],
    ),
}
"""A row as it were, a machine, whether it is taken for one that keeps what is stale, and what
contradicts the row."""


@pytest.mark.parametrize("name", CONTRADICTED)
def test_what_contradicts_a_row_is_said(name: str) -> None:
    row, flush, kind, keeps, said = CONTRADICTED[name]
    [change] = [one for one in changes.CHANGES if one.name == row]
    guest: Any = kind(*QEMU, DEPARTS[QEMU], ram_bytes=RAM_BYTES)
    guest.engine = replace(guest.engine, keeps_stale=keeps)
    level = next(change.levels(long_mode(4, 40, True, True)))
    found = changes.execute(guest, 4, replace(change, flush=flush), level)
    assert len(found) == len(said), found
    assert all(one.startswith(start) for one, start in zip(found, said, strict=True)), found
    assert all(re.search(" at 0x[0-9a-f]+$", one) for one in found if one.startswith("stale"))


def test_the_levels_of_a_row_are_those_that_can_hold_it() -> None:
    """A guest has room for two pages of 1 GiB, and none of 512."""
    format, by_name = long_mode(5, 40, True, True), {one.name: one for one in changes.CHANGES}
    for name, levels in (
        ("a page unmapped", [0, 1, 2]),
        ("a table unlinked", [1, 2, 3, 4]),
        ("a page split into other frames", [1, 2]),
        ("a table made one page", [1, 2]),
    ):
        assert list(by_name[name].levels(format)) == levels
    without = long_mode(4, 40, True, False)
    assert list(by_name["a page unmapped"].levels(without)) == [0, 1]


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("kind", [Keeping, ByRules])
def test_a_page_beside_it_is_looked_at_in_a_space_of_its_own_where_it_is_to_be(
    kind: type[ByRules], apart: bool
) -> None:
    """So that each is seen to be kept where a flush of one address drops all."""
    [change] = [one for one in changes.CHANGES if one.name == "write given to a page"]
    guest: Any = kind(*QEMU, DEPARTS[QEMU], ram_bytes=RAM_BYTES)
    spaces = list[GuestSpace]()

    def new() -> GuestSpace:
        spaces.append(GuestSpace(guest, 4))
        return spaces[-1]

    def live(space: GuestSpace) -> Live:
        return Live(guest, space.memory, space.cpu)

    found = table.execute(guest, new, live, change, 0, software=1 << 52, apart=apart)
    kept_nothing = ["the machine kept nothing of the page beside it, in any run"]
    assert found == ([] if kind is Keeping else kept_nothing)
    assert len(spaces) == 1 + apart


def test_what_was_not_asked_is_counted_once() -> None:
    """The page beside the last of the lower half is the stub's no more than the next run's."""
    guest = guest_of()
    space = new_space(guest, 4)
    live = new_live(guest, space)
    assert live.window is not None
    live.probe(Span.of(live.window.first, SIZE))
    assert live.run().not_comparable == {"the stub runs there": 2 * 8}
    space.map(PAGE, space.frames(1), 0, space.format.granting("user"))
    live.probe(page(0))
    assert not live.run().not_comparable


def test_what_writes_store_is_another_word_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """And another in every run."""
    batches = noted(monkeypatch, Live, "_agree")
    guest = guest_of()
    space = new_space(guest, 4)
    live = new_live(guest, space)
    pages_in(space)
    live.probe(EVERY)
    space.unmap(page(2)).done()
    live.probe(EVERY)
    live.run()
    stored = [one.asked[2].value[one.asked[2].writes].tolist() for one in batches]
    assert len(stored) == 2 * RUNS
    every = [value for values in stored for value in values]
    assert len(every) == len(set(every)) > 100
    assert sum(value >> 63 for value in every) > 10 < sum(value & 1 for value in every)


def tables_of(space: GuestSpace) -> set[int]:
    found = bulk.leaves(space.memory, space.cpu.roots, limit=0).tables.address
    return set(found.tolist())


def test_the_tables_by_which_the_stub_runs_are_its_own() -> None:
    """In the machine's memory, below one entry of the root."""
    guest = guest_of()
    space = new_space(guest, 4)
    space.map(PAGE, space.frames(1), 0, space.format.granting("user"))
    before = tables_of(space)
    live = new_live(guest, space)
    assert live.own_tables == tables_of(space) - before
    assert live.own_tables and all(at in guest.image.table_arena for at in live.own_tables)
    assert live.window is not None and live.window.size == guest.ram.size
    with live.changes():  # an entry that leads nowhere
        space.memory.store(space.slot(Virtual(live.window.first), 3).address, 8, 0)
        assert live.own_tables == set()
        space.memory.store(space.slot(Virtual(live.window.first), 3).address, 8, 7 | 0x40_0000)


@pytest.mark.parametrize("keeps_stale", [False, True])
def test_a_guest_that_follows_every_store_is_told_of_all_tables(
    monkeypatch: pytest.MonkeyPatch, keeps_stale: bool
) -> None:
    """Which its spaces had before; another learns what is stored from then on."""
    guest = guest_of()
    guest.engine = replace(guest.engine, keeps_stale=keeps_stale)
    space = new_space(guest, 4)
    space.map(PAGE, space.frames(1), 0, space.format.granting("user"))
    told, run = set[int](), guest.run

    def noted(state: Any, jobs: npt.NDArray[np.void]) -> Any:
        for job in jobs:
            told.update(job["where"][: job["patched"]].tolist())
        return run(state, jobs)

    monkeypatch.setattr(guest, "run", noted)
    tables = tables_of(space)
    live = new_live(guest, space)
    live.load(space.cpu)
    live.probe(page(0))
    assert not live.run().disagreed
    words = {table + 8 * n for table in tables for n in range(512)}
    assert (words <= told) is not keeps_stale


def test_each_root_has_one_window_for_as_long_as_its_table_is_there() -> None:
    guest = guest_of(keeps=True)
    space = new_space(guest, 4)
    other = GuestSpace(guest, 4, beside=space)
    live = new_live(guest, space)
    for one in (space, other):
        one.map(PAGE, space.frames(1), 0, space.format.granting("user"))
    first = live.own_tables
    live.load(other.cpu)
    second = live.own_tables
    live.probe(page(0))
    live.load(space.cpu)
    assert live.own_tables == first != second and not first & second
    live.probe(page(0))
    live.load(other.cpu)
    assert live.own_tables == second
    assert not live.run().disagreed
    # The table of the root is another's meanwhile, and empty: the stub has its entry anew.
    live.load(space.cpu)
    with live.changes():
        space.memory.octets[other.cpu.cr3 : other.cpu.cr3 + 0x1000] = 0
    live.load(other.cpu)
    assert live.own_tables and not live.own_tables & (first | second)
    live.probe(page(0))
    assert not live.run().disagreed


def test_code_that_is_kept_is_a_quirk_where_it_ran_and_left_all_else_as_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a large page that was executed, unmapped, and flushed by another of its addresses."""
    guest: Any = Keeping(*QEMU, {*DEPARTS[QEMU], KEEPS_CODE}, ram_bytes=128 * MIB)
    space, batches = new_space(guest, 4), noted(monkeypatch, Live, "_agree")
    live, large = new_live(guest, space), Span.of(0x60_0000, LARGE)
    every = space.format.granting("user", "execute")
    space.map(Virtual(large.first), space.frames(1, 1), 1, every).done()
    live.probe(large, pages=4)
    space.unmap(large).done()
    live.flush([large.first])
    live.probe(large, pages=4)
    found = live.run()
    count = found.quirks[KEPT_CODE.name]
    assert not found.disagreed and count > 2
    one = batches[-1]
    asked = one.asked[2]
    kept = asked.fetches & ~asked.allowed & (one.results["completed"] != 0)
    assert kept.sum() == count and one.agree.all()
    levels = len(asked.paths.slot)
    wrong: dict[str, tuple[int, ...]] = {
        "vector": (0, 7),
        "rip": (0, 63),
        "data": (0, 63),
        "cr2": (0, 63),
    }
    wrong |= {
        f"after {n}": (0, 12, 63) for n in range(levels) if asked.paths.used[levels - 1 - n].all()
    }
    for name, bits in wrong.items():
        field, _, word = name.partition(" ")
        for bit in bits:
            other = one.results.copy()
            column = other[field][:, int(word)] if word else other[field]
            column[kept] ^= column.dtype.type(1 << bit)
            assert not (one.judge(other) & kept).any(), (name, bit)
    assert asked.paths.used[1:, kept].all() and not asked.paths.used[0, kept].any()
    # The reference says nothing of its error code, where no code leaves one.
    other = one.results.copy()
    other["error"][kept] ^= 1
    assert one.judge(other).all()


def test_software_s_bit_is_one_that_entries_leave_to_software(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bits 58:52, of pages and of tables, whether there are keys or not (SDM 4.5)."""
    asked = dict[str, Any]()
    monkeypatch.setattr("harness.check.changes.execute", lambda *_, **named: asked.update(named))
    changes.execute(guest_of(), 4, changes.CHANGES[0], 0)
    assert asked["software"] in {1 << bit for bit in range(52, 59)}
