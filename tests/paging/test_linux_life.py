"""Pages of processes that are mapped, hidden, swapped, moved and forked in any order, beside a
model that knows nothing of bits."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from harness.paging.address import Physical, Span, Virtual
from harness.paging.copy import copy_range
from harness.paging.entry import Leaf
from harness.paging.flush import Flush
from harness.paging.linux.entries import (
    SOFT_DIRTY,
    Counted,
    Linux,
    Migration,
    ProtNone,
    Swap,
    Type,
)
from harness.paging.memory import Words
from harness.paging.space import Space
from harness.paging.visit import visits
from harness.paging.walk import walk
from harness.paging.x86.formats import D
from tests.paging.spaces import FORMATS, World

FIRST = (1 << 30) - (4 << 12)
"""The pages lie on both sides of a boundary of every table."""

PAGES = 8
WHOLE = Span.of(FIRST, PAGES << 12)

pages = st.integers(0, PAGES - 1)
numbers = st.integers(1, (1 << 28) - 1)


@dataclass(frozen=True)
class Page:
    """What the model knows of a page: where it is, and what may be done with it."""

    state: str  # "mapped", "hidden", "swapped" or "moving"
    number: int  # of its frame or of its place in swap
    write: bool
    marked: bool = False


class Life(RuleBasedStateMachine):
    """The processes of one kernel."""

    levels: str
    processes = Bundle("processes")

    def __init__(self) -> None:
        super().__init__()
        self.world = World(FORMATS[self.levels])
        self.linux = Linux(self.world.format)
        self.spaces: list[Space] = []
        self.model: list[dict[int, Page]] = []

    def rights(self, write: bool) -> int:
        return self.world.rights("user", *(["write"] if write else []))

    def change(self, process: int, page: int, change: Callable[[int], int]) -> Flush:
        """Rewrites the entry of one page."""

        def changed(raw: Words, level: int) -> Words:
            return np.array([change(int(entry)) for entry in raw], np.uint64)

        return self.spaces[process].rewrite(Span.of(FIRST + (page << 12), 1 << 12), changed)

    def flushed(self, flush: Flush, expected: set[int]) -> None:
        """Exactly the pages expected are to be flushed."""
        assert set(flush.addresses.tolist()) == {FIRST + (page << 12) for page in expected}
        flush.done()

    def found(self, process: int, page: int, *states: str) -> Page | None:
        """The page, if there is one in one of the states."""
        found = self.model[process].get(page)
        return found if found and found.state in states else None

    @rule(target=processes)
    @precondition(lambda self: len(self.spaces) < 3)
    def begin(self) -> int:
        self.spaces.append(self.world.new_space())
        self.model.append({})
        return len(self.spaces) - 1

    @rule(process=processes, page=pages, frame=numbers, write=st.booleans(), dirty=st.booleans())
    def map(self, process: int, page: int, frame: int, write: bool, dirty: bool) -> None:
        if page in self.model[process]:
            return
        bits = self.rights(write) | (D if write and dirty else 0)
        frames = np.array([frame << 12], np.uint64)
        self.spaces[process].map(Virtual(FIRST + (page << 12)), frames, 0, bits)
        self.model[process][page] = Page("mapped", frame, write)

    @rule(process=processes, page=pages)
    def unmap(self, process: int, page: int) -> None:
        mapped = {page} if self.found(process, page, "mapped") else set()
        self.model[process].pop(page, None)
        flush = self.spaces[process].unmap(Span.of(FIRST + (page << 12), 1 << 12))
        self.flushed(flush, mapped)

    @rule(process=processes, page=pages)
    def hide(self, process: int, page: int) -> None:
        found = self.found(process, page, "mapped", "hidden")
        if found:
            flush = self.change(process, page, lambda raw: self.linux.protect(raw, 0, None))
            self.flushed(flush, {page} if found.state == "mapped" else set())
            self.model[process][page] = replace(found, state="hidden", write=False)

    @rule(process=processes, page=pages, write=st.booleans())
    def show(self, process: int, page: int, write: bool) -> None:
        found = self.found(process, page, "mapped", "hidden")
        if found:
            rights = self.rights(write)
            flush = self.change(process, page, lambda raw: self.linux.protect(raw, 0, rights))
            narrowed = found.state == "mapped" and found.write and not write
            self.flushed(flush, {page} if narrowed else set())
            self.model[process][page] = replace(found, state="mapped", write=write)

    @rule(process=processes, page=pages)
    def mark(self, process: int, page: int) -> None:
        found = self.model[process].get(page)
        if found:
            flush = self.change(process, page, lambda raw: self.linux.mark(raw, 0, SOFT_DIRTY))
            self.flushed(flush, set())
            self.model[process][page] = replace(found, marked=True)

    @rule(process=processes, page=pages, place=numbers)
    def swap(self, process: int, page: int, place: int) -> None:
        found = self.found(process, page, "mapped", "hidden")
        if found:
            away = self.linux.encode(Swap(3, place))
            if found.marked:
                away = self.linux.mark(away, 0, SOFT_DIRTY)
            flush = self.change(process, page, lambda raw: away)
            self.flushed(flush, {page} if found.state == "mapped" else set())
            self.model[process][page] = replace(found, state="swapped", number=place, write=False)

    @rule(process=processes, page=pages)
    def move(self, process: int, page: int) -> None:
        found = self.found(process, page, "mapped")
        if found:
            type = Type.MIGRATION_WRITE if found.write else Type.MIGRATION_READ
            away = self.linux.encode(Migration(type, Physical(found.number << 12)))
            if found.marked:
                away = self.linux.mark(away, 0, SOFT_DIRTY)
            self.flushed(self.change(process, page, lambda raw: away), {page})
            self.model[process][page] = replace(found, state="moving")

    @rule(process=processes, page=pages, frame=numbers)
    def come_back(self, process: int, page: int, frame: int) -> None:
        found = self.found(process, page, "swapped", "moving")
        if found:
            bits = self.rights(found.write)
            leaf = self.world.format.leaf(frame << 12, 0, bits)
            if found.marked:
                leaf = self.linux.mark(leaf, 0, SOFT_DIRTY)
            self.flushed(self.change(process, page, lambda raw: leaf), set())
            self.model[process][page] = replace(found, state="mapped", number=frame)

    @rule(target=processes, process=processes)
    @precondition(lambda self: len(self.spaces) < 4)
    def fork(self, process: int) -> int:
        parent = self.model[process]
        child = self.world.new_space()
        copied = copy_range(self.spaces[process], child, WHOLE, self.linux)
        self.flushed(
            copied.flush, {n for n, page in parent.items() if page.state == "mapped" and page.write}
        )
        states = [page.state for page in parent.values()]
        assert copied.counts.get(Counted.SWAP, 0) == states.count("swapped")
        assert copied.counts.get(Counted.MIGRATION, 0) == states.count("moving")
        in_memory = states.count("mapped") + states.count("hidden")
        assert copied.counts.get(Counted.PAGE, 0) == in_memory
        self.model[process] = {n: replace(page, write=False) for n, page in parent.items()}
        self.spaces.append(child)
        self.model.append(dict(self.model[process]))
        return len(self.spaces) - 1

    @invariant()
    def every_entry_says_what_the_model_does(self) -> None:
        for space, model in zip(self.spaces, self.model, strict=True):
            found: dict[int, Page] = {}
            for visit in visits(space, WHOLE):
                if visit.raw:
                    found[visit.span.first - FIRST >> 12] = self.read(visit.raw)
            assert found == model

    @invariant()
    def the_machine_finds_the_mapped_pages_alone(self) -> None:
        for process, space in enumerate(self.spaces):
            for n in range(PAGES):
                address = Virtual(FIRST + (n << 12))
                mapped = self.found(process, n, "mapped")
                walked = walk(space.memory, space.root_for(address), address)
                assert walked.physical == (mapped.number << 12 if mapped else None)

    def read(self, raw: int) -> Page:
        """An entry as a page of the model."""
        marked = self.linux.marked(raw, 0, SOFT_DIRTY)
        match self.linux.decode(raw, 0):
            case Leaf(address):
                format = self.world.format
                write = "write" in format.rights_of(format.granted(raw, 0))
                return Page("mapped", address >> 12, write, marked)
            case ProtNone(address):
                return Page("hidden", address >> 12, False, marked)
            case Swap(_, place):
                return Page("swapped", place, False, marked)
            case Migration(type, address):
                return Page("moving", address >> 12, type is Type.MIGRATION_WRITE, marked)
            case other:
                raise AssertionError(f"{raw:#x} says {other}")

    def teardown(self) -> None:
        for space in self.spaces:
            space.tear_down().done()
            assert not space.account().bytes


class FourLevels(Life):
    levels = "x86-4"


class FiveLevels(Life):
    levels = "x86-5"


for machine in FourLevels, FiveLevels:
    machine.TestCase.settings = settings(max_examples=60, stateful_step_count=40)

TestFourLevels = FourLevels.TestCase
TestFiveLevels = FiveLevels.TestCase
