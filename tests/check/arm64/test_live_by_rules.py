"""Spaces that are changed while a guest made of the rules, which keeps nothing, runs in them: what
is expected of each access, and that all of its answer is looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.arm64 import changes
from harness.check.arm64.fixtures import DEFAULT, LEVELS, new_live, new_space
from harness.check.arm64.live import Live
from harness.check.arm64.quirks import BLOCK_ANYWHERE, KEPT_CODE
from harness.check.arm64.space import GuestSpace
from harness.check.changes import RAM_BYTES, Change
from harness.check.compare import Comparison
from harness.check.marks import marked
from harness.machine.ram import MIB
from harness.paging.address import Span, Virtual
from harness.paging.arm64.access import Kind
from harness.paging.arm64.formats import stage1
from tests.check.arm64.by_rules import ByRules
from tests.check.arm64.samples import UNSAID
from tests.check.by_rules import ends
from tests.check.tampered import looked_at, noted, passed_over

PAGE, SIZE = Virtual(0x40_0000), 1 << 12
RIGHTS = (("user", "user execute"), ("write",), ("write", "user"), ("supervisor execute",))


def changed(guest: Any, levels: int = 3) -> Live:
    """Pages of all rights that are probed, unmapped and given others, and probed again."""
    space = new_space(guest, levels)
    live = new_live(guest, space)
    pages = [Virtual(PAGE + SIZE * number) for number in range(len(RIGHTS))]
    for page, names in zip(pages, RIGHTS, strict=True):
        space.map(page, space.frames(1), 0, space.format.granting(*names)).done()
    every = Span.of(PAGE, SIZE * len(RIGHTS))
    live.probe(every)
    live.flush(space.unmap(Span.of(pages[0], SIZE)))
    live.flush(space.protect(Span.of(pages[2], SIZE), space.format.granting("user")))
    live.probe(every)
    return live


@pytest.mark.parametrize("levels", [3, 4])
def test_a_guest_that_follows_the_rules_agrees(levels: int) -> None:
    guest: Any = ByRules((10, 0, 13), ram_bytes=128 * MIB)
    found = changed(guest, levels).run()
    assert not found.disagreed, found.disagreements
    assert found.compared > 50 and not found.quirks and not found.news


def test_what_has_ng_lasts_no_longer_than_its_address_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bit 11 of a page is nG."""
    guest: Any = ByRules((10, 0, 13), ram_bytes=128 * MIB)
    space, batches = new_space(guest, 3), noted(monkeypatch, Live, "_agree")
    live, user = new_live(guest, space), space.format.granting("user")
    for number, bits in enumerate((user, user | 1 << 11)):
        space.map(Virtual(PAGE + number * SIZE), space.frames(1), 0, bits).done()
        live.probe(Span.of(PAGE + number * SIZE, SIZE))
    assert not live.run().disagreed
    seen = set[tuple[int, bool]]()
    for one in batches:
        asked = one.asked[2]
        pages = (asked.address // np.uint64(SIZE)).tolist()
        seen |= set(zip(pages, asked.lasting.tolist(), strict=True))
    assert {(PAGE // SIZE, True), (PAGE // SIZE + 1, False)} <= seen


def test_whether_a_denied_access_sets_af_is_left_to_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the processor does (TCR_EL1.HA); no other bit of the page, and none of a table."""
    guest: Any = ByRules((10, 0, 13), ram_bytes=128 * MIB)
    space, batches, left = new_space(guest, 3), noted(monkeypatch, Live, "_agree"), 0
    live, entry = new_live(guest, space), space.slot(PAGE, 0)
    space.map(PAGE, space.frames(1), 0, space.format.granting("user")).done()
    with live.changes():
        at = entry.address - guest.ram.base
        guest.ram.buffer[at : at + 8].view(np.uint64)[0] &= np.uint64(~(1 << 10) & 2**64 - 1)
    live.flush([PAGE])
    live.probe(Span.of(PAGE, SIZE))
    assert not live.run().disagreed
    for one in batches:
        asked, levels = one.asked[2], 3
        unused = asked.paths.used[0] & (asked.paths.raw[0] & np.uint64(1 << 10 | 3) == 3)
        may = unused & ~asked.allowed
        for level, bit in ((0, 10), (0, 11), (0, 55), (1, 10)):
            other = one.results.copy()
            other["after"][may, levels - 1 - level] ^= np.uint64(1 << bit)
            assert (one.judge(other) == (one.agree & ~(may & ((level, bit) != (0, 10))))).all()
        left += int(may.sum())
    assert left > 1


def test_every_field_of_a_result_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    guest: Any = ByRules((10, 0, 13), ram_bytes=128 * MIB)
    batches, lanes = noted(monkeypatch, Live, "_agree"), Counter[str]()
    assert not changed(guest).run().disagreed
    for one in batches:
        asked = one.asked[2]
        allowed, every, levels = asked.allowed, (0, 17, 63), len(asked.paths.slot)
        seen = {
            "completed": (allowed | ~allowed, (0,)),
            "esr": (allowed | ~allowed, (26, 31, 0, 5, 6)),
            "far": (~allowed, every),
            "elr": (asked.fetches, every),
            "data": (allowed & ~asked.writes, every),
            f"after {levels}": (allowed & asked.writes, every),
            **{
                f"after {n}": (asked.paths.used[levels - 1 - n], (0, 12, 63)) for n in range(levels)
            },
        }
        lanes.update(looked_at(one, seen))
        passed_over(one, UNSAID)
    assert min(lanes.values()) > 2 and batches


def test_how_one_access_ended_is_told_by_what_it_says_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    guest, live = ByRules((10, 0, 13), ram_bytes=128 * MIB), None
    batches = noted(monkeypatch, Live, "_agree")
    changed(guest).run()
    for one in batches:
        asked = one.asked[2]
        for lane in range(len(asked)):
            allowed, writes = bool(asked.allowed[lane]), bool(asked.writes[lane])
            for field, bit, counts in (
                ("esr", 8, False),
                ("esr", 38, False),
                ("esr", 2, not allowed),
                ("completed", 0, True),
                ("data", 33, allowed and not writes),
                ("far", 20, False),
            ):
                results = one.results.copy()
                assert Live._ended_as(live, asked, lane, results[lane])  # type: ignore[arg-type]
                results[field][lane] ^= np.uint64(1 << bit)
                same = Live._ended_as(live, asked, lane, results[lane])  # type: ignore[arg-type]
                assert same is not counts, (field, bit, allowed, writes)
    assert batches


class Otherwise(ByRules):
    """A guest all of whose accesses end otherwise, the data among it."""

    def tampered(self, results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results["completed"] ^= 1
        results["esr"] ^= np.uint64(1 << 26)
        results["data"] ^= np.uint64(1 << 40)
        return results


def test_what_a_guest_saw_is_put_into_words() -> None:
    guest: Any = Otherwise((10, 0, 13), ram_bytes=128 * MIB)
    found = changed(guest).run()
    assert found.disagreed and found.disagreements
    for one in found.disagreements:
        saw, entries = one.observed.split("; entries from the root down: ")
        assert entries.count("->") >= 2
        if one.expected.startswith("reaches"):
            assert saw.startswith("ESR 0x") and ", FAR 0x" in saw
        else:
            assert one.expected.startswith("ESR 0x") and saw.startswith("done, and the word is 0x")
            assert one.access is not None
            word, _, mark = saw.removeprefix("done, and the word is ").partition(", the mark of ")
            if one.access.kind != Kind.WRITE:
                assert int(word, 16) == 1 << 40  # of data, which is 0 where none was read
            assert bool(mark) == (one.access.kind == Kind.READ)
            assert not mark or int(mark, 16) == marked(1 << 40)


@pytest.mark.parametrize("version", [(7, 2, 22), (10, 0, 13)])
def test_what_qemu_reads_otherwise_is_left_out_of_what_is_probed(version: tuple[int, ...]) -> None:
    """A block at level 0 of the manual, where 4K has none without TCR_EL1.DS."""
    guest: Any = ByRules(version, ram_bytes=128 * MIB)
    space = new_space(guest, 4)
    live, page = new_live(guest, space), Virtual(5 << 39)
    with live.changes():
        block = int(space.frames(1)[0]) & ~0xFFFF | 1 << 10 | 1
        at = space.slot(page, 3).address - guest.ram.base
        guest.ram.buffer[at : at + 8] = np.frombuffer(block.to_bytes(8, "little"), np.uint8)
    live.flush([page])
    live.probe(Span.of(page + SIZE, SIZE))
    found = live.run()
    assert not found.disagreed, found.disagreements
    left = f"descriptors that QEMU reads otherwise ({BLOCK_ANYWHERE.name})"
    tried, departs = 3 * Live.EACH, version < (10,)
    assert dict(found.not_comparable) == ({left: tried} if departs else {})
    assert found.compared == 1 + tried * (not departs)  # what is stored besides


class KeepsCode(ByRules):
    """A guest that executes what it has executed of a large page, until its own small page, or
    everything, is flushed.

    otherwise  the bit of a field that is another where it does so
    """

    def __init__(self, otherwise: Mapping[str, int]) -> None:
        super().__init__((10, 0, 13), ram_bytes=128 * MIB)
        self.otherwise, self.kept = otherwise, dict[tuple[int, bool], int]()

    def _execute(self, state: Any, job: np.void, name: str, result: np.void) -> None:
        flush, enums, page = int(job["flush"]), self.image.enums, int(job["address"]) // SIZE
        of_page = flush in (enums["FLUSH_PAGE"], enums["FLUSH_PAGE_ASID"])
        if flush != enums["FLUSH_NONE"]:
            self.kept = {
                one: at for one, at in self.kept.items() if of_page and one[0] // SIZE != page
            }
        super()._execute(state, job, name, result)
        fetched = int(job["address"]), bool(job["user"])
        if name == "ACCESS_FETCH" and result["completed"]:
            if self.last.level == 2:
                self.kept[fetched] = self.last.physical
        elif name == "ACCESS_FETCH" and fetched in self.kept:
            result["completed"], result["esr"], result["far"] = 1, 0x5600_0000, 0
            result["data"], result["elr"] = self._code(self.kept[fetched]), fetched[0] + 12
            for field, bit in self.otherwise.items():
                result[field] ^= np.uint64(1 << bit)


LARGE = Span.of(0x60_0000, 512 * SIZE)


def with_kept_code(otherwise: Mapping[str, int], flushed: Sequence[int]) -> Comparison:
    """A large page that was executed, unmapped, and flushed by some of its addresses."""
    guest: Any = KeepsCode(otherwise)
    space = new_space(guest, 3)
    live = new_live(guest, space)
    executed = space.format.granting("user", "user execute", "supervisor execute")
    space.map(Virtual(LARGE.first), space.frames(1, 1), 1, executed).done()
    live.probe(LARGE, pages=4)
    space.unmap(LARGE).done()
    live.flush(flushed)
    live.probe(LARGE, pages=4)
    return live.run()


def test_code_that_is_kept_of_a_large_page_is_a_quirk_where_it_ran_and_nothing_else() -> None:
    name, one = KEPT_CODE.name, [LARGE.first]
    plain = with_kept_code({}, one)
    assert not plain.disagreed and plain.quirks[name] > 2
    # What the reference says nothing of, and what no code leaves.
    assert with_kept_code({"esr": 24}, one) == plain
    for otherwise in ({"esr": 26}, {"elr": 2}, {"data": 3}):
        found = with_kept_code(otherwise, one)
        assert found.disagreed == plain.quirks[name] and not found.quirks
    every = [LARGE.first + SIZE * number for number in range(512)]
    assert not with_kept_code({}, every).disagreed and not with_kept_code({}, every).quirks


@pytest.mark.parametrize(
    ("granule", "levels", "bits"),
    [("4K", 3, 39), ("4K", 4, 48), ("16K", 3, 47), ("16K", 4, 48), ("64K", 2, 42), ("64K", 3, 48)],
)
def test_a_space_has_the_lower_half_of_whole_tables(granule: str, levels: int, bits: int) -> None:
    """Up to 48 bits; the processor sets AF and keeps no dirty state."""
    guest: Any = ByRules((10, 0, 13), ram_bytes=128 * MIB)
    cpu = GuestSpace(guest, granule, levels).cpu
    assert cpu.low is not None and cpu.high is None
    assert (cpu.low.granule, cpu.low.address_bits, cpu.levels) == (granule, bits, levels)
    assert cpu.sets_access_flag and not cpu.keeps_dirty_state and cpu.tcr >> 32 & 7 == 5


def test_the_plugin_s_spaces_have_the_levels_that_they_are_called_by() -> None:
    guest: Any = ByRules((10, 0, 13), ram_bytes=128 * MIB)
    assert set(LEVELS) == {3, 4} and "tcg" in DEFAULT
    for levels, name in LEVELS.items():
        cpu = new_space(guest, levels).cpu
        assert (cpu.levels, name) == (levels, f"{levels}-level")
        assert cpu.low is not None and cpu.low.granule == "4K"


@pytest.mark.parametrize("change", changes.CHANGES, ids=[one.name for one in changes.CHANGES])
def test_the_library_asks_for_the_flush_of_each_row(change: Change) -> None:
    """And accesses end as they must before and after it, at the lowest level and at the highest, on
    a machine that follows every store."""
    for level in ends(change.levels(stage1("4K", 39, 48))):
        guest: Any = ByRules((10, 0, 13), ram_bytes=RAM_BYTES)
        guest.engine = replace(guest.engine, keeps_stale=False)
        assert changes.execute(guest, "4K", 3, change, level) == []


def test_software_s_bit_is_one_that_descriptors_leave_to_software(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Bits 58:55, of pages and of tables ("Other descriptor fields")."""
    asked = dict[str, Any]()
    monkeypatch.setattr("harness.check.changes.execute", lambda *_, **named: asked.update(named))
    changes.execute(ByRules((10, 0, 13)), "4K", 3, changes.CHANGES[0], 0)  # type: ignore[arg-type]
    assert asked["software"] in {1 << bit for bit in range(55, 59)}
