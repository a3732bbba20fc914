"""What accesses leave in the entries of their paths, by hand: A is bit 5, D bit 6."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from harness.check.x86.entries import PathEntries
from harness.paging.bulk import Bytes, Paths
from harness.paging.memory import Mask, Words
from harness.paging.x86.access import Kind
from harness.paging.x86.formats import long_mode

FORMAT = long_mode(4, 40, True, True)
A, D = 0x20, 0x40


def words(*rows: list[int]) -> Words:
    return np.array(rows, np.uint64)


def flags(*values: bool) -> Mask:
    return np.array(values, np.bool_)


def of(used: list[list[bool]], ended: list[int], kinds: list[Kind]) -> PathEntries:
    before = np.full(np.shape(used), 0x1001, np.uint64)
    return PathEntries.of(FORMAT, before, np.array(used), _bytes(ended), _bytes(kinds))


def _bytes(values: list[int] | list[Kind]) -> Bytes:
    return np.array(values, np.uint8)


def seen(*paths: list[int]) -> npt.NDArray[np.void]:
    """Results of a guest, which has entries from the root down."""
    results = np.zeros(len(paths), [("after", np.uint64, (len(paths[0]),))])
    results["after"] = paths
    return results


def test_every_entry_used_gets_a_and_the_last_one_of_a_write_gets_d() -> None:
    """Levels 0 to 3; a read and a write of a 4K page, a write of a 2M page."""
    every = [[True, True, False], [True, True, True], [True] * 3, [True] * 3]
    entries = of(every, [0, 0, 1], [Kind.READ, Kind.WRITE, Kind.WRITE])
    assert entries.sets.tolist() == [[A, A | D, 0], [A, A, A | D], [A] * 3, [A] * 3]
    assert entries.last.tolist() == [[A, A, 0], [0, 0, A], [0] * 3, [0] * 3]
    assert entries.free.tolist() == [[0] * 3, [A, A, 0], [A] * 3, [A] * 3]


def test_an_entry_that_no_walk_reads_gets_nothing_even_at_the_level_where_it_ends() -> None:
    """A walk whose slot has no memory ends there without an entry."""
    entries = of([[False], [True]], [0], [Kind.WRITE])
    assert entries.sets.tolist() == [[0], [A]]
    assert entries.last.tolist() == [[0], [0]]
    assert entries.free.tolist() == [[0], [A]]


def test_where_an_address_is_not_canonical_no_a_may_be_set_anywhere() -> None:
    entries = of([[False], [False]], [0], [Kind.READ])
    made, after = flags(False), entries.after(flags(False))
    for found, agrees in ([0x1001, 0x1001], True), ([0x1001 | A, 0x1001], False):
        assert entries.agree(seen(found), made, after).tolist() == [agrees]


def test_pushes_write_and_fetches_do_not() -> None:
    for kind, last in (Kind.PUSH, A | D), (Kind.FETCH, A), (Kind.POP, A):
        assert of([[True]], [0], [kind]).sets.tolist() == [[last]]


def test_after_an_access_that_is_made_all_is_set_and_after_a_fault_nothing() -> None:
    entries = of([[True, True], [True, True]], [0, 0], [Kind.WRITE, Kind.WRITE])
    after = entries.after(flags(True, False))
    assert after.tolist() == [[0x1001 | A | D, 0x1001], [0x1001 | A, 0x1001]]
    anyway = entries.after(flags(True, False), flags(False, True))
    assert anyway.tolist() == [[0x1001 | A | D, 0x1001 | A], [0x1001 | A, 0x1001]]


def test_one_slot_at_two_levels_is_one_entry() -> None:
    """A root that leads to itself: the entry of levels 3 and 2 gets what either gets."""
    raw, used = np.full((4, 1), 0x1003, np.uint64), np.ones((4, 1), np.bool_)
    slot = words([0x3000], [0x2000], [0x1000], [0x1000])
    entries = PathEntries.of_paths(
        FORMAT, Paths(slot, raw, used), _bytes([2]), _bytes([Kind.WRITE])
    )
    assert entries.sets.ravel().tolist() == [A, A, A | D, A | D]
    assert entries.last.ravel().tolist() == [0, 0, A, A]
    assert entries.free.ravel().tolist() == [0, 0, A, A]
    alone = PathEntries.of_paths(
        FORMAT,
        Paths(slot, raw, np.array([[True], [True], [True], [False]])),
        _bytes([2]),
        _bytes([Kind.WRITE]),
    )
    assert alone.sets.ravel().tolist() == [A, A, A | D, 0], "a slot that is not used plays no part"


def test_what_the_guest_saw_must_be_what_the_access_leaves() -> None:
    """Two levels, the guest's path from the root down: level 1, then level 0."""
    entries = of([[True], [True]], [0], [Kind.WRITE])
    made, after = flags(True), entries.after(flags(True))
    upper, leaf = 0x1001 | A, 0x1001 | A | D
    assert entries.agree(seen([upper, leaf]), made, after).tolist() == [True]
    for wrong in (
        *([upper ^ 1 << bit, leaf] for bit in range(64)),
        *([upper, leaf ^ 1 << bit] for bit in range(64)),
        [leaf, upper],
    ):
        assert entries.agree(seen(wrong), made, after).tolist() == [False], wrong


def test_after_a_fault_only_a_above_the_end_of_the_walk_may_be_set() -> None:
    """SDM volume 3A, 4.8: not in the entry where the walk ends, and never D."""
    entries = of([[True], [True], [True]], [0], [Kind.WRITE])
    made, after = flags(False), entries.after(flags(False))
    plain = 0x1001
    for upper in (plain, plain | A):
        for middle in (plain, plain | A):
            assert entries.agree(seen([upper, middle, plain]), made, after).tolist() == [True]
    for wrong in (
        [plain, plain, plain | A],
        [plain, plain, plain | D],
        [plain, plain | D, plain],
        [plain | D, plain, plain],
        [plain & ~1, plain, plain],
    ):
        assert entries.agree(seen(wrong), made, after).tolist() == [False], wrong


def test_a_that_must_be_set_in_spite_of_a_fault_may_not_be_missing() -> None:
    entries = of([[True], [True]], [0], [Kind.READ])
    after = entries.after(flags(False), flags(True))
    found = [[0x1001, 0x1001 | A], [0x1001, 0x1001]]
    assert [entries.agree(seen(one), flags(False), after).tolist() for one in found] == [
        [True],
        [False],
    ]


def test_bits_that_are_left_out_are_not_compared_and_all_others_are() -> None:
    entries = of([[True]], [0], [Kind.READ])
    after = entries.after(flags(True))
    care = words([~A & (1 << 64) - 1])
    assert entries.agree(seen([0x1001]), flags(True), after, care).tolist() == [True]
    assert entries.agree(seen([0x1003]), flags(True), after, care).tolist() == [False]
    assert entries.agree(seen([0x1001]), flags(True), after).tolist() == [False]


def test_lanes_are_judged_apart() -> None:
    entries = of([[True, True, True]], [0, 0, 0], [Kind.READ, Kind.WRITE, Kind.READ])
    made = flags(True, True, False)
    found = seen([0x1001 | A], [0x1001 | A], [0x1001])
    assert entries.agree(found, made, entries.after(made)).tolist() == [True, False, True]
