"""The sequences are tested: a library that changes tables wrongly is caught by them.

Each fault is planted where a maintainer would make it: in RISC-V's spaces, where a machine keeps
the most, in arm64's, where entries must be absent before they become others, and in s390's, where
zero is a page.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from harness.paging import space as spaces
from harness.paging import tree as trees
from harness.paging.bits import breaks, ungrouped
from harness.paging.flush import Flush
from harness.paging.format import Format, Level
from harness.paging.memory import Mask, Words
from harness.paging.space import Space
from harness.paging.tree import Run, Tree
from tests.paging.arm64 import test_space as arm64
from tests.paging.riscv import test_space as groups
from tests.paging.spaces import ARM64, RISCV, S390, World
from tests.paging.test_space_sequences import Sequences

Plant = Callable[[pytest.MonkeyPatch], None]


def other_rule(**rule: object) -> Plant:
    """Formats that say something else of what is to be flushed."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        for formats, name in ((RISCV, "sv39"), (ARM64, "arm64 4K"), (S390, "s390")):
            flushing = formats[name].flushing
            assert flushing is not None
            changed = replace(flushing, **rule)  # type: ignore[arg-type]
            patch.setitem(formats, name, replace(formats[name], flushing=changed))

    return plant


def instead(owner: object, name: str, made: object) -> Plant:
    return lambda patch: patch.setattr(owner, name, made)


def groups_frame_for_all(format: Format, level: int, raw: Words, addresses: Words) -> Words:
    return ungrouped(format, level, raw, addresses & ~np.uint64(0xFFFF))


def first_slot_of_a_group(self: Space, level: int, addresses: Words, raw: Words) -> Words:
    return np.unique(addresses & ~np.uint64(0xFFFF))


def first_end_alone(space: Space, run: Run, flush: Flush) -> None:
    if not run.span.covers(space._page_of(run, 0)):
        space.ungroup(run.first, flush)


FAULTS: dict[str, Plant] = {
    "a new mapping is not flushed": other_rule(absent=False),
    "a right that is given is not flushed": other_rule(denials=False),
    "a table that is gone is flushed by its address": other_rule(leaves_alone=False),
    "a table that is new is flushed by an address": instead(Tree, "is_fresh", lambda *_: False),
    "what moves is flushed where it was alone": instead(Space, "_forget_absent", lambda *_: None),
    "a collapse forgets that there was a table": instead(Space, "forget_table", lambda *_: None),
    "of a group the first slot is flushed": instead(Space, "_all_of_groups", first_slot_of_a_group),
    "a group's first frame is that of all its pages": instead(
        spaces, "ungrouped", groups_frame_for_all
    ),
}


def pages_only(format: Format, level: int, before: Words, after: Words) -> Mask:
    """Nothing but what becomes absent, and what was it not."""
    found: Mask = breaks(format, level, before, after) & (after == 0)
    return found


BREAKING: dict[str, Plant] = {
    "nothing is absent in between": other_rule(breaks=None),
    "a right that is given is not flushed": other_rule(denials=False),
    "what comes is there at once": instead(Tree, "_without_broken", lambda _, slot, raw: raw),
    "what was absent stays so": instead(Tree, "_make", lambda *_: None),
    "a page and a table are exchanged at once": instead(trees, "breaks", pages_only),
}

EMPTY: dict[str, Plant] = {
    "zero is a hole": instead(Level, "filled", lambda _, raw: raw != 0),
    "what goes becomes zero": instead(Level, "emptied", lambda _, raw: np.zeros_like(raw)),
    "a table of zeros is empty": instead(
        Tree, "is_empty", lambda self, table: not self.words(table.slot(0), 256).any()
    ),
    "nothing is absent in between": other_rule(breaks=None),
    "a table that is gone is flushed by its address": other_rule(leaves_alone=False),
}
"""In s390's, where an entry of zero is a page."""

GROUPS: dict[str, tuple[Plant, Callable[[World], None]]] = {
    "a group is changed in part": (
        instead(Space, "_ungroup_ends", lambda *_: None),
        groups.test_to_change_a_part_splits_the_page_first,
    ),
    "a group is cut at its first end alone": (
        instead(Space, "_ungroup_ends", first_end_alone),
        groups.test_a_page_that_is_cut_at_the_end_of_a_range_is_split,
    ),
    "a fork takes a part of a group along": (
        instead(Space, "reach", lambda _, run: run.span),
        groups.test_a_part_is_not_copied_nor_moved,
    ),
    "of a group the slot that changed is flushed": (
        instead(Space, "_all_of_groups", lambda _, level, addresses, raw: addresses),
        groups.test_one_slot_that_changes_is_flushed_for_all,
    ),
    "A and D of a group's other slots are lost": (
        instead(spaces, "grouped", lambda format, level, raw: raw == 0),
        groups.test_to_change_a_part_splits_the_page_first,
    ),
}
"""Those that the sequences find late, if at all, each with the test that finds it at once."""


def run(name: str, examples: int) -> None:
    """The same sequences each time, as many as it takes or this many."""
    run_state_machine_as_test(
        type("Sequences", (Sequences,), {"name": name}),
        settings=settings(
            max_examples=examples,
            stateful_step_count=20,
            deadline=None,
            phases=[Phase.generate],
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.fixture
def dropped() -> Iterator[None]:
    """What is dropped undone, where a test stops in between, is no matter here."""
    gc.freeze()  # what other tests have left need not be looked at
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        yield
        gc.collect()


@pytest.mark.usefixtures("dropped")
@pytest.mark.parametrize(
    ("name", "fault", "plant"),
    [
        *(("sv39", fault, plant) for fault, plant in FAULTS.items()),
        *(("arm64 4K", fault, plant) for fault, plant in BREAKING.items()),
        *(("s390", fault, plant) for fault, plant in EMPTY.items()),
    ],
)
def test_sequences_find_a_fault(
    name: str, fault: str, plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, ExceptionGroup)) as found:
        run(name, 300)
    all_found = found.value.exceptions if isinstance(found.value, ExceptionGroup) else [found.value]
    assert all(isinstance(one, AssertionError) for one in all_found), all_found


@pytest.mark.parametrize("name", ["sv39", "arm64 4K", "s390"])
def test_the_same_sequences_find_nothing_where_nothing_is_planted(name: str) -> None:
    run(name, 20)


@pytest.mark.usefixtures("dropped")
@pytest.mark.parametrize("fault", GROUPS)
def test_a_fault_in_groups_is_found(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plant, test = GROUPS[fault]
    test(groups.two_groups())
    plant(monkeypatch)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(groups.two_groups())


@pytest.mark.usefixtures("dropped")
def test_a_space_that_does_not_see_what_is_to_come_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In sequences every flush is done before the space is looked at again."""
    test = arm64.test_another_memory_type_comes_after_the_flush
    test(World(ARM64["arm64 4K"]))
    monkeypatch.setattr(Tree, "_meant", lambda _, slot, raw: raw)
    with pytest.raises(AssertionError):
        test(World(ARM64["arm64 4K"]))
