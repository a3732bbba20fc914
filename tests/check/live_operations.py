"""Operations on a space of small pages and a large one, with a guest that runs in it: what it sees
of them, and where a flush that is withheld shows.

The space is of an architecture that has an entry made absent before it becomes another.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.check.compare import PROBE
from harness.check.live import NOT_SHOWN, Live
from harness.check.quirk import Quirk
from harness.check.space import GuestSpace
from harness.machine.errors import Misuse
from harness.paging import slots
from harness.paging.address import Span, Virtual
from harness.paging.flush import Flush
from harness.paging.reshape import collapse, move, split


class Furnished(ABC):
    """Small pages, a large page where there is one, and holes between them.

    executable  the rights with which everybody executes
    rewritten   bits of a page, of which one less is a translation that must be flushed
    """

    executable: tuple[str, ...]
    rewritten: int

    def __init__(self, space: GuestSpace) -> None:
        self.space, levels = space, space.format.levels
        self.page, self.large = levels[0].size, levels[1].size
        self.at = 8 * self.large
        space.map(Virtual(self.at), space.frames(6), 0, self.bits("write", "user")).done()
        beside = Virtual(self.at + 6 * self.page)
        space.map(beside, space.frames(2), 0, self.bits(*self.executable)).done()
        space.map(self.big_at, space.frames(1, 1), 1, self.bits("write", "user")).done()

    @abstractmethod
    def rights(self, *names: str) -> int:
        """The bits of a page that give these rights, and whatever goes with them."""

    @abstractmethod
    def bits(self, *names: str) -> int:
        """The bits of a page that is mapped with these rights."""

    @property
    def small(self) -> Span:
        return Span.of(self.at, 8 * self.page)

    @property
    def big_at(self) -> Virtual:
        return Virtual(self.at + 2 * self.large)

    @property
    def big(self) -> Span:
        return Span.of(self.big_at, self.large)

    @property
    def pages_of_the_large(self) -> range:
        return range(self.big_at, self.big_at + self.large, self.page)

    @property
    def free_at(self) -> Virtual:
        return Virtual(self.at + 5 * self.large)

    def probe(self, live: Live) -> None:
        live.probe(self.small, self.big, Span.of(self.free_at, 8 * self.page), pages=9)


def moved_in_place(space: GuestSpace, made: Furnished) -> Flush:
    """Another frame for a page that is there: by break-before-make."""
    slot = space.slot(Virtual(made.at), 0)
    raw = space.format.leaf(int(space.frames(1)[0]), 0, made.bits("write", "user"))
    value = replace(slots.value(space, slot), raw=raw)
    return slots.put(space, slot, value, Virtual(made.at))


Operation = Callable[[Any, Any], Flush]
"""Of a `GuestSpace`, and of how it is furnished."""

NARROWING: dict[str, Operation] = {
    "unmap small pages": lambda s, made: s.unmap(made.small),
    "unmap a large page": lambda s, made: s.unmap(made.big),
    "protect small pages": lambda s, made: s.protect(made.small, made.rights("user")),
    "protect a large page": lambda s, made: s.protect(made.big, made.rights("write")),
    "rewrite": lambda s, made: s.rewrite(
        made.small, lambda raw, level: raw & ~np.uint64(made.rewritten)
    ),
    "move small pages": lambda s, made: move(s, made.small, made.free_at),
    "clear a slot": lambda s, made: slots.clear(s, s.slot(Virtual(made.at), 0), Virtual(made.at)),
    "clear a pointer": lambda s, made: slots.clear(
        s, s.slot(Virtual(made.at), 1), Virtual(made.at)
    ),
    "another frame": moved_in_place,
}
"""Operations after which the machine may hold something stale, and QEMU does."""

OTHERS: dict[str, Operation] = {
    "map small pages": lambda s, made: s.map(
        made.free_at, s.frames(5), 0, made.bits("write", "user")
    ),
    "split": lambda s, made: split(s, made.big_at),
    "free empty tables": lambda s, made: s.unmap(made.small).absorb(s.free_empty(made.small)),
}


def sees(live: Live, space: GuestSpace, made: Any, operation: Operation) -> None:
    """The machine sees what the operation made of the tables."""
    made.probe(live)
    live.flush(operation(space, made))
    made.probe(live)
    found = live.run()
    assert found.disagreed == 0, found.disagreements[0]
    assert found.compared > 200
    assert not any(reason.startswith(NOT_SHOWN) for reason in found.not_comparable)


def shows_what_is_withheld(live: Live, space: GuestSpace, made: Any, operation: Operation) -> None:
    """The machine shows that the flush of an operation was withheld."""
    made.probe(live)
    operation(space, made).done()
    made.probe(live)
    found = live.run()
    assert found.disagreed
    first = found.disagreements[0]
    assert first.oracle == PROBE and "at call 2 of live.probe" in first.expected
    assert first.hint.startswith("a flush may be missing: ") and "at call 1 of" in first.hint


def splits_and_collapses(live: Live, space: GuestSpace, made: Furnished) -> None:
    """A large page is split and made again."""
    made.probe(live)
    live.flush(split(space, made.big_at))
    made.probe(live)
    live.flush(collapse(space, made.big_at, 1))
    made.probe(live)
    found = live.run()
    assert found.disagreed == 0, found.disagreements[0]


def makes_absent_until_flushed(live: Live, space: GuestSpace, made: Furnished) -> None:
    """An entry is absent until the flush is done."""
    live.probe(Span.of(made.at, made.page), pages=1)
    flush = moved_in_place(space, made)
    slot = space.slot(Virtual(made.at), 0)
    assert space.memory.load(slot.address, 8) == 0 != space.read(slot)
    live.probe(Span.of(made.at + 3 * made.page, made.page), pages=1)
    live.flush(flush)
    assert space.memory.load(slot.address, 8) == space.read(slot)
    live.probe(Span.of(made.at, made.page), pages=1)
    found = live.run()
    assert found.disagreed == 0, found.disagreements[0]


def refuses_what_no_one_announced(live: Live, space: GuestSpace, made: Furnished, ram: Any) -> None:
    """A store that no one announced is refused."""
    made.probe(live)
    slot = space.slot(Virtual(made.at), 0)
    at = slot.address - ram.base
    ram.buffer[at : at + 8] = 0
    with pytest.raises(Misuse, match="no one has announced that store"):
        made.probe(live)


def keeps_code(begin: Callable[[], Live], space: GuestSpace, made: Furnished, quirk: Quirk) -> None:
    """Code of a large page is kept where another of its addresses was flushed, and not where all
    were; `begin` makes a new `Live`."""
    space.protect(made.big, made.rights(*made.executable)).done()
    for addresses, shows in (([made.big_at], True), (made.pages_of_the_large, False)):
        if not space.read(space.slot(made.big_at, 1)):
            space.map(made.big_at, space.frames(1, 1), 1, made.bits(*made.executable)).done()
        live = begin()
        live.probe(made.big, pages=9)
        space.unmap(made.big).done()
        live.flush(addresses)
        live.probe(made.big, pages=9)
        found = live.run()
        assert found.disagreed == 0, found.disagreements[0]
        assert bool(found.quirks[quirk.name]) is shows
