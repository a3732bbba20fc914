"""The tables of any program, put into a guest's memory where they are, and proved there.

Nothing is relocated: what the machine needs for itself lies where no table is. A table for which a
guest has no memory is left out with all that lies below it, and that is said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from harness.architectures import has, module_of
from harness.check.compare import Answer, Disagreement, answer_of
from harness.check.fixtures import Guest, fixtures_of
from harness.check.replay import Host, of_absent
from harness.inspect import architecture
from harness.inspect.check import Checked
from harness.inspect.expect import Expectations, Unmet, places, unmet
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.machine.errors import MachineError, Misuse
from harness.machine.machine import dotted
from harness.machine.ram import ARENA, ARENA_UNIT, spans
from harness.machine.stub import HIGHEST_ARENA
from harness.paging import bulk
from harness.paging.address import Span
from harness.paging.bulk import End, Leaves
from harness.paging.format import Format
from harness.paging.memory import BufferMemory, Words
from harness.paging.processor import Cpu
from harness.paging.space import SpaceError
from harness.paging.table import Root

MOST: Final = 1 << 24
"""Entries of a space, each counted at all its addresses, that are proved."""


@dataclass(frozen=True)
class Part:
    """What the roots of a space lead to whose tables have one format."""

    format: Format
    roots: tuple[Root, ...]
    leaves: Leaves


class NewGuest(Protocol):
    """A guest with memory where the tables of a snapshot are, with a processor like its own as far
    as the engine has one; raises as `prove` does."""

    def __call__(
        self, snapshot: Snapshot, parts: Sequence[Part], engine: str, program: str | None, /
    ) -> Guest: ...


def _all_ram(guest: Guest) -> tuple[range, ...]:
    return (range(guest.ram.base, guest.ram.base + guest.engine.largest_ram),)


@dataclass(frozen=True)
class Prover:
    """How an architecture's tables are proved: `PROVER` of its module `prove`.

    machine    what the guest's machine is called
    new_guest  a guest in which they are proved
    own        the state that the guest takes in place of the snapshot's, and how its processor
               differs, a sentence each; raises Misuse where it lacks what the tables are made for
    loadable   the snapshot as a processor can have it; raises QuestionError for one that none can
    loaded     the state, after what it has in registers was read from the guest's memory
    marked     the bits of entries that a guest has clear: those that mark memory as encrypted
    where      where guests of this kind can have memory
    """

    machine: str
    new_guest: NewGuest
    own: Callable[[Any, Any], tuple[Any, list[str]]]
    loadable: Callable[[Snapshot], Snapshot] = lambda snapshot: snapshot
    loaded: Callable[[Any, Any, BufferMemory], Any] = lambda own, guest, memory: own
    marked: Callable[[Any], int] = lambda cpu: 0
    where: Callable[[Any], tuple[range, ...]] = _all_ram

    def why_not_there(self, guest: Guest, table: Span) -> str | None:
        """Why a guest cannot have a table at its place, as the end of a sentence; None if it
        can."""
        if any(Span.of(part.start, len(part)).covers(table) for part in guest.free):
            return None
        if table.first in guest.image.arena:
            return "which the machine needs itself"
        where = self.where(guest)
        if table.first < where[-1].stop and not any(table.first in part for part in where):
            return f"where {self.machine} has no RAM"
        return "where the guest has no memory"


def prover_of(snapshot: Snapshot) -> Prover:
    """That of a snapshot's architecture; QuestionError where its tables cannot be proved."""
    arch = snapshot.cpu.architecture
    if not has(arch, "inspect", "prove"):
        called = architecture.of(snapshot.cpu).called
        raise QuestionError(f"{snapshot.title} is of {called}, whose tables are not proved here")
    found: Prover = module_of(arch, "inspect", "prove").PROVER
    return found


@dataclass(frozen=True)
class Proved:
    """What came of a proof.

    checked   the machine's answers
    meant     what was expected; None where nothing was
    unmet     what is not so
    mapped    whether the guest's memory holds a table that maps anything
    left_out  what the machine was not asked about, a sentence each
    """

    checked: Checked
    mapped: bool
    meant: Expectations | None
    unmet: tuple[Unmet, ...]
    left_out: tuple[str, ...]


def prove(
    snapshot: Snapshot,
    engine: str,
    program: str | None = None,
    meant: Expectations | None = None,
) -> Proved:
    """Proves a snapshot's tables in a new guest.

    Raises QuestionError for tables that no guest can have, Misuse for an engine whose processor
    lacks what they are made for, SpaceError where no hole is left for the stub, and MachineError
    for a guest that is lost.
    """
    prover = prover_of(snapshot)
    missed = () if meant is None else unmet(snapshot, meant)
    with _built(prover, snapshot, engine, program) as built:
        guest, memory, own = built.guest, built.memory, built.cpu
        fixtures = fixtures_of(own.architecture)
        asked = None if meant is None else places(own, meant)
        mapped = bool(bulk.leaves(memory, own.roots, limit=0).total)
        comparisons = fixtures.compared(guest, memory, own, asked)
        told = replace(built.snapshot, notes=(*snapshot.notes, *built.notes))
        new = fixtures.new_versions(guest)
        checked = Checked(told, dotted(guest.version), engine, new, comparisons)
    return Proved(checked, mapped, meant, missed, built.left_out)


def ask_every(
    snapshot: Snapshot, found: Sequence[Disagreement], host: Host[Any]
) -> Iterator[tuple[int, Answer]]:
    """What each engine says of the questions of disagreements about a snapshot, with the number of
    each, as the answers come."""
    prover = prover_of(snapshot)
    for name, here in host.present.items():
        said = 0
        try:
            with _built(prover, snapshot, name, here.program) as built:
                for one in found:
                    yield said, _answered(name, here.called, built, one)
                    said += 1
        except (MachineError, Misuse, QuestionError, SpaceError) as error:
            for number in range(said, len(found)):
                yield number, Answer(name, here.called, None, str(error))
    yield from of_absent(host, len(found))


def _answered(name: str, who: str, built: _Built, found: Disagreement) -> Answer:
    fixtures = fixtures_of(built.cpu.architecture)
    try:
        comparison = fixtures.compare_one(built.guest, built.memory, built.cpu, found)
    except Misuse as error:
        return Answer(name, who, None, str(error))
    if not comparison.compared and not comparison.disagreed:
        reason = next(iter(comparison.not_comparable), "the tables have nothing there")
        return Answer(name, who, None, f"not comparable: {reason}")
    return answer_of(name, who, comparison)


@dataclass(frozen=True)
class _Built:
    """A snapshot's tables in a guest.

    snapshot  as a processor can have it
    cpu       the state that the guest takes in place of the snapshot's
    notes     how its processor differs
    left_out  what could not be there, a sentence each
    """

    guest: Guest
    memory: BufferMemory
    snapshot: Snapshot
    cpu: Cpu
    notes: tuple[str, ...]
    left_out: tuple[str, ...]


@contextmanager
def _built(
    prover: Prover, snapshot: Snapshot, engine: str, program: str | None
) -> Iterator[_Built]:
    """The tables in a new guest; raises as `prove` does."""
    snapshot = prover.loadable(snapshot)
    cpu = snapshot.cpu
    _check_roots(snapshot)
    parts = parts_of(snapshot)
    with prover.new_guest(snapshot, parts, engine, program) as guest:
        own, notes = prover.own(cpu, guest)
        memory = BufferMemory(guest.ram.buffer, guest.ram.base)
        left_out = tuple(_place(prover, snapshot, parts, guest, memory))
        own = prover.loaded(own, guest, memory)
        yield _Built(guest, memory, snapshot, own, tuple(notes), left_out)


def _check_roots(snapshot: Snapshot) -> None:
    """Raises QuestionError for a root table that is not in the source's memory."""
    cpu = snapshot.cpu
    for root in cpu.roots:
        at = root.table.address
        if snapshot.memory.load(at, root.table.format.entry_bytes) is None:
            register = fixtures_of(cpu.architecture).root(cpu, root).partition(" ")[0]
            raise QuestionError(
                f"the root table is at {at:#x}, where the source has no memory: {register} is"
                " wrong, or a file lies elsewhere (--ram FILE@ADDRESS)"
            )


def parts_of(snapshot: Snapshot) -> tuple[Part, ...]:
    """What a snapshot's tables hold, by their formats; QuestionError for more than `MOST`."""
    by_format = dict[Format, list[Root]]()
    for root in snapshot.cpu.roots:
        by_format.setdefault(root.table.format, []).append(root)
    parts = tuple(
        Part(format, tuple(roots), bulk.leaves(snapshot.memory, roots, limit=MOST))
        for format, roots in by_format.items()
    )
    if (total := sum(part.leaves.total for part in parts)) > MOST:
        raise QuestionError(
            f"the space has {total:,} entries, each counted at all its addresses: no more"
            f" than {MOST:,} are proved"
        )
    return parts


def room(cpu: Cpu, parts: Sequence[Part], most: int, first: int = 0) -> tuple[int, int]:
    """Where the machine's own memory begins, and how large RAM is, from `first` on: all tables and
    pages have it where they are, as far as there is any.

    The machine's own is where no table is; if there is a choice, where the fewest pages are, where
    RAM is smallest, and lowest.
    """
    count, own = most // ARENA_UNIT, len(ARENA) // ARENA_UNIT
    roots = np.array([cpu.base, *(root.table.address for root in cpu.roots)], np.uint64)
    addresses = np.concatenate([roots[:1], *(part.leaves.tables.address for part in parts)])
    tables = _in_units(addresses, np.uint64(1), count, first)
    pages = np.zeros(count, np.int64)
    for part in parts:
        leaves = part.leaves
        mapped = leaves.end == End.LEAF
        sizes = np.array([level.size for level in part.format.levels], np.uint64)
        pages += _in_units(leaves.physical[mapped], sizes[leaves.level[mapped]], count, first)
    used = np.flatnonzero(tables + pages)
    last = int(used[-1]) if len(used) else 0
    bases = np.arange(min(count - own, (HIGHEST_ARENA - first) // ARENA_UNIT) + 1)
    ends = np.maximum(np.maximum(bases + own, last + 1), own + 1)

    def covered(those: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.convolve(those, np.ones(own, np.int64), "valid")[: len(bases)]

    at_first = _in_units(roots, np.uint64(1), count, first)
    lost = covered(at_first), covered(tables), covered(pages)
    best = np.lexsort((bases, ends, *reversed(lost)))[0]
    return first + int(bases[best]) * ARENA_UNIT, int(ends[best]) * ARENA_UNIT


def _in_units(
    first: Words, size: Words | np.uint64, count: int, base: int = 0
) -> npt.NDArray[np.int64]:
    """How many of the pieces of memory lie in each of `count` units from `base` on, in a part at
    least."""
    unit, low = np.uint64(ARENA_UNIT), np.uint64(base)
    past = np.maximum(first + size, low) - low  # of what is below nothing is left
    begin = (np.maximum(first, low) - low) // unit
    ends = np.maximum((past + unit - np.uint64(1)) // unit, begin)
    edges = np.zeros(count + 1, np.int64)
    for edge, step in ((begin, 1), (ends, -1)):
        np.add.at(edges, np.minimum(edge, np.uint64(count)).astype(np.int64), step)
    return edges.cumsum()[:count]


def _place(
    prover: Prover, snapshot: Snapshot, parts: Sequence[Part], guest: Guest, memory: BufferMemory
) -> Iterator[str]:
    """Puts the tables into the guest's RAM, and takes out what leads to those that cannot be there;
    which these are, a sentence each."""
    kept = ~np.uint64(prover.marked(snapshot.cpu))
    where = spans(prover.where(guest))
    placed = [dict[int, list[int]]() for _ in parts]
    for part, there in zip(parts, placed, strict=True):
        format, tables = part.format, part.leaves.tables
        roots = {(root.table.address, root.table.level) for root in part.roots}
        for address, level in zip(tables.address.tolist(), tables.level.tolist(), strict=True):
            table, number = Span.of(address, format.table_bytes(level)), format.number(level)
            if (why := prover.why_not_there(guest, table)) is not None:
                if (address, level) in roots:
                    raise QuestionError(
                        f"the root table is at {address:#x}, {why}: tables can be proved in {where}"
                    )
                yield (
                    f"the level-{number} table at {address:#x}, {why} (tables can be in {where}),"
                    " and all below it"
                )
                continue
            slots = _slots(address, table.size, format.entry_bytes)
            words, backed = snapshot.memory.gather(slots, format.entry_bytes)
            if backed is not None and not backed.all():
                yield (
                    f"the level-{number} table at {address:#x}, which is not in memory, and all"
                    " below"
                )
                continue
            memory.scatter(slots, format.entry_bytes, words & kept)
            there.setdefault(level, []).append(address)
    for part, there in zip(parts, placed, strict=True):  # a table may be in several parts
        _unlink(part.format, memory, there)


def _unlink(format: Format, memory: BufferMemory, placed: Mapping[int, list[int]]) -> None:
    """Clears the entries of tables, by their levels, that lead to others than those placed."""
    for level in range(1, len(format.levels)):
        shape, below = format.levels[level].pointer, np.array(placed.get(level - 1, []), np.uint64)
        assert shape is not None
        for table in placed.get(level, []):
            slots = _slots(table, format.table_bytes(level), format.entry_bytes)
            words, _ = memory.gather(slots, format.entry_bytes)
            leads = bulk.kinds(format, level, words) == bulk.POINTER
            lost = leads & ~np.isin(bulk.address_of(shape, words), below)
            empty = np.full(int(lost.sum()), format.levels[level].empty, np.uint64)
            memory.scatter(slots[lost], format.entry_bytes, empty)


def _slots(table: int, size: int, width: int) -> Words:
    return np.uint64(table) + np.arange(0, size, width, dtype=np.uint64)
