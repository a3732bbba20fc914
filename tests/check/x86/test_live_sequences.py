"""Random sequences of operations, done by a guest that runs in the space and is probed after each.

The operations, and what is expected of them, are those of `tests.paging.test_space_sequences`.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from harness.check.x86.live import Live
from harness.check.x86.space import TABLES as ARENA
from harness.check.x86.space import GuestSpace
from harness.machine.x86.guest import Guest
from harness.paging.address import Span
from harness.paging.flush import Flush
from harness.paging.isolation import IsolatedSpace
from harness.paging.space import Space
from harness.paging.table import Root
from harness.pytest_plugin import SKIPPED
from harness.report.text import disagreement_lines
from tests.paging.spaces import World
from tests.paging.test_space_sequences import TABLES, Sequences

pytestmark = pytest.mark.hw

AROUND = range(-3, 8)
"""The pages that sequences touch, counted from where a table begins."""


class GuestWorld(World):
    """A guest's memory with a space in it."""

    def __init__(self, space: GuestSpace) -> None:
        self.format, self.memory = space.format, space.memory
        self.allocator, self.space = space.allocator, space


class IsolatedWorld(GuestWorld):
    """The same, all its spaces being isolated."""

    def __init__(self, space: GuestSpace) -> None:
        super().__init__(space)
        self.space: Space = self.isolated(space.roots)

    def new_space(self) -> Space:
        return self.isolated(self.new_roots())

    def isolated(self, roots: tuple[Root, ...]) -> Space:
        user_table = self.allocator.allocate(self.format, roots[0].table.level)
        return IsolatedSpace(self.memory, roots, self.allocator, roots[0], user_table)


class LiveSequences(Sequences):
    """The guest does all of a sequence in one go, at its end."""

    guest: Guest
    levels: int
    world_of = GuestWorld

    def new_world(self) -> World:
        space = GuestSpace(self.guest, self.levels)
        self.cpu = space.cpu
        self.live = Live(self.guest, space.memory, space.cpu)
        return self.world_of(space)

    def frames(self, count: int, granule: int) -> int:
        """As in any memory, but from the frames that there are, again and again."""
        first, end = (ARENA.last + 1) // self.world.page, self.guest.ram.size // self.world.page
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
        self.live.load(replace(self.cpu, cr3=roots[0].table.address))

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


class Isolated(LiveSequences):
    """In the user half, now under the kernel's root and now under the user's."""

    world_of = IsolatedWorld

    def served(self) -> Span:
        return self.space.roots[0].span

    def roots(self, space: Space) -> tuple[Root, ...]:
        assert isinstance(space, IsolatedSpace)
        return space.user_roots

    @rule(user=st.booleans())
    def enter(self, user: bool) -> None:
        self.load(self.roots(self.space) if user else self.space.roots)

    def forked(self, other: Space) -> None:
        self.load(self.roots(other))
        self.the_machine_agrees()
        super().forked(other)


class Withheld(LiveSequences):
    def tell(self, flush: Flush) -> None:
        flush.done()


@pytest.mark.parametrize("sequences", [LiveSequences, Isolated])
def test_the_machine_agrees_after_each_operation_of_a_sequence(
    guest: Guest, paging_levels: int, sequences: type[LiveSequences]
) -> None:
    machine = type("Sequences", (sequences,), {"guest": guest, "levels": paging_levels})
    examples, steps = (10, 15) if guest.engine.name == "tcg" else (2, 5)
    limits = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


def test_sequences_find_a_flush_that_is_withheld(guest: Guest, paging_levels: int) -> None:
    if guest.engine.name != "tcg":
        pytest.skip(f"{SKIPPED}only TCG is known to keep what is stale")
    if paging_levels != 5:
        pytest.skip(
            f"{SKIPPED}tests/check/x86/test_live.py withholds every flush at both level counts"
        )
    machine = type("Withheld", (Withheld,), {"guest": guest, "levels": paging_levels})
    limits = settings(
        max_examples=100,
        stateful_step_count=15,
        deadline=None,
        phases=[Phase.generate],
        derandomize=True,
    )
    with pytest.raises(AssertionError, match="done, and the word is"):
        run_state_machine_as_test(machine, settings=limits)
