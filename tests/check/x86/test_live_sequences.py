"""Random sequences of operations on spaces of x86, done by a guest that runs in the space."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from harness.check.x86.live import Live
from harness.check.x86.space import GuestSpace
from harness.machine.x86.guest import Guest
from harness.paging.address import Physical, Span
from harness.paging.isolation import IsolatedSpace
from harness.paging.space import Space
from harness.paging.table import Root
from harness.paging.x86.cpu import Cpu
from harness.pytest_plugin import SKIPPED
from tests.check.live_sequences import GuestWorld, LiveSequences, Withheld, finds_what_is_withheld

pytestmark = pytest.mark.hw


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


class OfX86(LiveSequences):
    def with_root(self, cpu: Cpu, root: Physical) -> Cpu:
        return replace(cpu, cr3=root)


class Isolated(OfX86):
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


class Missing(Withheld, OfX86):
    """On x86."""


def made(guest: Guest, levels: int) -> staticmethod[[], tuple[GuestSpace, Live]]:
    def make() -> tuple[GuestSpace, Live]:
        space = GuestSpace(guest, levels)
        return space, Live(guest, space.memory, space.cpu)

    return staticmethod(make)


@pytest.mark.parametrize("sequences", [OfX86, Isolated])
def test_the_machine_agrees_after_each_operation_of_a_sequence(
    guest: Guest, paging_levels: int, sequences: type[OfX86]
) -> None:
    machine = type("Sequences", (sequences,), {"made": made(guest, paging_levels)})
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
    finds_what_is_withheld(type("Missing", (Missing,), {"made": made(guest, paging_levels)}))
