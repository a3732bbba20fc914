"""Random sequences of operations, done by a guest that runs in the space and is probed after each.

The operations, and what is expected of them, are those of `tests.paging.test_space_sequences`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from harness.check.live import Live
from harness.check.space import GuestSpace
from harness.paging.address import Physical, Span
from harness.paging.flush import Flush
from harness.paging.space import Space
from harness.paging.table import Root
from harness.report.text import disagreement_lines
from tests.paging.spaces import World
from tests.paging.test_space_sequences import TABLES, Sequences

AROUND = range(-3, 8)
"""The pages that sequences touch, counted from where a table begins."""


class GuestWorld(World):
    """A guest's memory with a space in it."""

    def __init__(self, space: GuestSpace) -> None:
        self.format, self.memory = space.format, space.memory
        self.allocator, self.space = space.allocator, space


class LiveSequences(Sequences):
    """The guest does all of a sequence in one go, at its end."""

    made: Callable[[], tuple[GuestSpace, Live]]
    world_of: type[GuestWorld] = GuestWorld

    def new_world(self) -> World:
        self.own, self.live = self.made()
        return self.world_of(self.own)

    def frames(self, count: int, granule: int) -> int:
        """As in any memory, but from the frames that there are, again and again."""
        page, memory = self.world.page, self.own.memory
        first, end = (self.own.tables.last + 1) // page, (memory.span.last + 1) // page
        self.next_frame = max(self.next_frame, first)
        if self.next_frame + granule + count + self.per_table > end:
            self.next_frame = first
        return super().frames(count, granule)

    def tell(self, flush: Flush) -> None:
        self.live.flush(flush)

    @invariant()
    def the_machine_agrees(self) -> None:
        per_table = self.world.table_span
        edges = [self.base + table * per_table for table in range(TABLES + 1)]
        spans = [
            Span.of(edge + AROUND.start * self.world.page, len(AROUND) * self.world.page)
            for edge in edges[:-1]
        ]
        self.live.probe(*spans, Span.of(edges[-1] - 3 * self.world.page, 3 * self.world.page))

    def load(self, roots: tuple[Root, ...]) -> None:
        self.live.load(self.with_root(self.own.cpu, roots[0].table.address))

    def with_root(self, cpu: Any, root: Physical) -> Any:
        """The state under which a root's table at a physical address is used."""
        raise NotImplementedError

    def forked(self, other: Space) -> None:
        self.load(other.roots)
        self.the_machine_agrees()
        self.load(self.space.roots)

    def teardown(self) -> None:
        found = self.live.run()
        assert not found.disagreed, "\n".join(
            line for one in found.disagreements for line in disagreement_lines(one)
        )
        super().teardown()


class Withheld(LiveSequences):
    """Flushes are said to be done, and are not."""

    def tell(self, flush: Flush) -> None:
        flush.done()


def finds_what_is_withheld(machine: type[Withheld]) -> None:
    """Asserts that the machine is seen to use what should have been flushed."""
    limits = settings(
        max_examples=100,
        stateful_step_count=15,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
    )
    # Told again, a sequence may show nothing: a machine drops what it keeps when it likes.
    with pytest.raises((AssertionError, BaseExceptionGroup)) as caught:
        run_state_machine_as_test(machine, settings=limits)
    assert any("done, and the word is" in text for text in _texts(caught.value))


def _texts(error: BaseException) -> Iterator[str]:
    """What an error says, or what those of a group say."""
    yield str(error)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _texts(one)
