"""What came of one space, every oracle asked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from operator import attrgetter
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from harness.architectures import module_of
from harness.check.compare import Comparison, Disagreement
from harness.check.layouts import Layout, divided
from harness.check.product import evenly
from harness.check.window import Entries, window_in
from harness.machine.guest import StubGuest
from harness.machine.machine import dotted
from harness.paging.address import Span
from harness.paging.bulk import Counts
from harness.paging.memory import BY_ORDER, BufferMemory, Order
from harness.paging.table import Root

MOST: Final = 500_000
"""Accesses of a space that a guest is given, which take it half a minute at most."""

DEADLINE: Final = 60.0
"""Seconds that a guest has for each answer."""

C = TypeVar("C")
"""The state of an architecture's processor."""


@dataclass(frozen=True)
class SpaceReport:
    """What came of one layout at one number of levels on one engine.

    skipped      why nothing was compared, None where it was
    comparisons  one for each oracle
    seconds      wall time, the start of the guest included
    not_run_on   what answered in a version that was not yet run, a sentence each
    """

    layout: Layout
    levels: int
    engine: str
    qemu: str
    skipped: str | None
    comparisons: tuple[Comparison, ...]
    seconds: float
    not_run_on: tuple[str, ...] = ()

    @property
    def disagreed(self) -> int:
        """Disagreements over all oracles."""
        return sum(comparison.disagreed for comparison in self.comparisons)

    @property
    def disagreements(self) -> list[Disagreement]:
        """Those that the oracles describe in full."""
        return [one for comparison in self.comparisons for one in comparison.disagreements]

    @property
    def compared(self) -> int:
        """Questions with a verdict over all oracles."""
        return sum(comparison.compared for comparison in self.comparisons)

    def count(self, what: str) -> Counter[str]:
        """One of the counters of a comparison (`quirks`, `not_comparable`, `news`), over all."""
        return reduce(Counter.__add__, map(attrgetter(what), self.comparisons), Counter[str]())


class Validate(Protocol):
    """Builds a layout in a new guest's memory, and asks every oracle about it.

    Raises LayoutError for a layout that cannot be built, SpaceError for one that leaves no hole for
    the window, Misuse and MachineError for a guest that cannot be had or is lost.
    """

    def __call__(
        self,
        layout: Layout,
        levels: int,
        engine: str,
        *,
        program: str | None = None,
        thorough: bool = False,
    ) -> SpaceReport:
        """What came of it at a number of levels on an engine.

        program   another emulator than the engine's own
        thorough  ask the emulator's monitor about all mappings, and not a sample
        """


def validate_of(arch: str) -> Validate:
    """How layouts of an architecture are validated: `validate` of its module `validate`."""
    found: Validate = module_of(arch, "check", "validate").validate
    return found


class Built(NamedTuple, Generic[C]):
    """A space in a guest's memory, for its accesses.

    memory  the guest's RAM
    cpu     the state that uses the space
    frames  the parts of memory in which pages are: they are overwritten with marks
    window  the addresses at which the stub runs
    """

    memory: BufferMemory
    cpu: C
    frames: tuple[Span, ...]
    window: Span


@contextmanager
def built_in(
    guest: StubGuest[Any, Any],
    layout: Layout,
    levels: int,
    build: Callable[..., Any],
    entries: Entries,
) -> Iterator[Built[Any]]:
    """A layout in a guest's memory, with a window, while the block runs.

    build    as in an architecture's module `layouts`
    entries  as in its module `window`

    Raises LayoutError for a layout that cannot be built, SpaceError for one that leaves no hole for
    the window.
    """
    order: Order = "little" if guest.image.little_endian else "big"
    memory = BY_ORDER[order](guest.ram.buffer, guest.ram.base)
    cpu = build(layout, levels, guest.info, memory)
    _, frames = divided(layout)
    with window_in(guest, memory, cpu.roots, entries) as window:
        yield Built(memory, cpu, (frames,), window)


@contextmanager
def in_place(
    guest: StubGuest[Any, Any],
    memory: BufferMemory,
    cpu: C,
    entries: Entries,
    roots: tuple[Root, ...] | None = None,
) -> Iterator[Built[C]]:
    """A space that is there, with a window, while the block runs: its pages may be in all that is
    the caller's.

    roots  below which the window can be; all, by default

    Raises SpaceError for one that leaves no hole for the window.
    """
    frames = tuple(Span.of(part.start, len(part)) for part in guest.free)
    every: tuple[Root, ...] = cpu.roots  # type: ignore[attr-defined]
    with window_in(guest, memory, every if roots is None else roots, entries) as window:
        yield Built(memory, cpu, frames, window)


def chosen(count: int) -> Counts:
    """The numbers of those of so many accesses that a guest is given."""
    return evenly(count, MOST)


def note_left_out(comparison: Comparison, count: int) -> None:
    """Counts those of so many accesses that it is not given."""
    if (left_out := count - MOST) > 0:
        reason = f"not asked: of a space a guest is given {MOST:,} accesses at most"
        comparison.not_comparable[reason] = left_out


def reported(
    guest: StubGuest[Any, Any],
    layout: Layout,
    levels: int,
    comparisons: tuple[Comparison, ...],
    started: float,
    not_run_on: tuple[str, ...],
) -> SpaceReport:
    """What came of a layout on a guest; `started` is by the monotonic clock."""
    name, version, seconds = guest.engine.name, dotted(guest.version), time.monotonic() - started
    return SpaceReport(layout, levels, name, version, None, comparisons, seconds, not_run_on)
