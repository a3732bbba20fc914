"""The search for the smallest changes that would let an access pass, whatever the rules are.

A change is proposed only after it was tried, on a copy of the CPU state and on memory with the
changed entries laid over it, and without any one of its bits the access does not pass.  Pages and
tables keep their places; an entry that is missing is made up.  What may be changed against a rule
is the architecture's to say: its `Moves`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import Enum
from functools import reduce
from operator import or_
from typing import Any, Final, NamedTuple

import numpy as np

from harness.inspect.held import UnreadError
from harness.inspect.overlay import Overlay
from harness.inspect.remedy import (
    EntryChange,
    Missing,
    NewEntry,
    Remedy,
    Setting,
    free_tables,
)
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bits import breaks, stale
from harness.paging.format import Shape
from harness.paging.memory import Memory
from harness.paging.table import Slot, Table
from harness.paging.walk import Step, Walk

_STEPS: Final = 6
"""Rules that are met one after the other; no access meets more."""


class Move(NamedTuple):
    """A change of an entry on the way: which bits are set, and which cleared."""

    step: Step
    set: int
    clear: int


class Register(NamedTuple):
    """A register whose bits may be changed, as the CPU state has it: what it is called, its bits by
    their names, and which of these switch off what protects other pages, set or cleared."""

    name: str
    bits: Mapping[str, int]
    guards: int = 0


@dataclass(frozen=True)
class Moves:
    """What an architecture tells of its rules.

    outcome    what an access comes to
    allowed    the type of what passes
    walk       the walk of an access; None where there is none
    absent     the rule that an entry is absent
    unbacked   the rule that a table has no memory
    entries    the changes of one entry against a rule, one way after another
    states     the CPU states in which the rule does not deny
    registers  the registers that may be changed, by the fields of the CPU state
    page       the bits of a new page that lets the access pass, besides its address and what makes
               it one
    pointer    the same of a new pointer at a level
    address    the bits of an entry of a shape by which it leads elsewhere
    """

    outcome: Callable[[Any, Memory, Virtual, Any], Any]
    allowed: type[Any]
    walk: Callable[[Any, Memory, Virtual, Any], Walk | None]
    absent: Enum
    unbacked: Enum
    entries: Callable[[Any, Walk, Any, Any], Iterator[Move]]
    states: Callable[[Any, Walk | None, Any, Any], Iterator[Any]]
    registers: Mapping[str, Register]
    page: Callable[[Any, Table, Any], int]
    pointer: Callable[[Table], int]
    address: Callable[[Shape], int]


@dataclass(frozen=True)
class _State:
    """A machine with changes tried.

    words    entries that are changed, by their physical address
    made     those that are made up
    missing  what they are
    """

    cpu: Any
    words: Mapping[int, int]
    made: Mapping[int, int]
    missing: Missing | None = None


def remedies(
    moves: Moves, cpu: Any, memory: Memory, address: Virtual, access: Any
) -> tuple[Remedy, ...]:
    """The changes that would let an access pass that does not: those of entries first, then those
    of registers; of each kind those of the fewest bits.

    None where no change helps: the address has no root, or its table no memory.
    """
    trial = _Trial(moves, cpu, memory, address, access)
    found: dict[Remedy, None] = {}
    for state in trial.passing(_State(cpu, {}, {}), _STEPS):
        if trial.minimal(state):
            found[trial.remedy(state)] = None
    return tuple(sorted(found, key=_rank))


def _rank(remedy: Remedy) -> tuple[bool, bool, bool, int]:
    return remedy.unprotects, remedy.suspect, bool(remedy.settings), remedy.cost


@dataclass(frozen=True)
class _Trial:
    """The access whose outcome is tried in one state after another, and where it faults now."""

    moves: Moves
    cpu: Any
    memory: Memory
    address: Virtual
    access: Any

    def outcome(self, state: _State) -> Any:
        return self.moves.outcome(state.cpu, self.memory_in(state), self.address, self.access)

    def passes(self, state: _State) -> bool:
        return isinstance(self.outcome(state), self.moves.allowed)

    def memory_in(self, state: _State) -> Overlay:
        return Overlay(self.memory, {**state.words, **state.made})

    def walk(self, state: _State) -> Walk | None:
        return self.moves.walk(state.cpu, self.memory_in(state), self.address, self.access)

    def passing(self, state: _State, steps: int) -> Iterator[_State]:
        """The states by one change after another, each against the rule that denies the access."""
        try:
            answer = self.outcome(state)
        except UnreadError:  # where a change leads was not read: nothing is claimed
            return
        if isinstance(answer, self.moves.allowed):
            yield state
        elif steps:
            for changed in self.changed(state, answer.reason):
                if changed != state:
                    yield from self.passing(changed, steps - 1)

    def changed(self, state: _State, reason: Enum) -> Iterator[_State]:
        """The state with a change against the reason."""
        found = self.walk(state)
        moves = list[Move]()
        if found is not None and found.steps:
            moves += self.moves.entries(state.cpu, found, reason, self.access)
        if found is not None and not moves and reason in (self.moves.absent, self.moves.unbacked):
            if found.steps:
                yield self._made(state, found.steps[-1], found)
            return
        for (slot, raw, _), set_, clear in moves:
            words = self._with(state, slot, raw & ~clear | set_)
            yield replace(state, words=words)
        for cpu in self.moves.states(state.cpu, found, reason, self.access):
            yield replace(state, cpu=cpu)

    def _with(self, state: _State, slot: Slot, raw: int) -> dict[int, int]:
        words = {**state.words, slot.address: raw}
        if raw == self._old(slot.address, slot.table):
            del words[slot.address]
        return words

    def _old(self, where: int, table: Table) -> int:
        raw = self.memory.load(Physical(where), table.format.entry_bytes)
        assert raw is not None
        return raw

    def _made(self, state: _State, last: Step, found: Walk) -> _State:
        """The state with the missing entry made up, down to a page of the smallest size."""
        place, format = last.slot, last.slot.table.format
        free = free_tables(format, {step.slot.table.address for step in found.steps})
        made, entries = dict[int, int](), list[NewEntry]()
        for level in range(place.level, -1, -1):
            name = format.levels[level].name
            if level:
                table = Table(format, next(free), level - 1)
                bits = self.moves.pointer(place.table)
                raw = format.pointer(table.address, level, bits)
                entries.append(NewEntry(level, name, _without(raw, place), page=False))
                made[place.address] = raw
                place = table.slot_for(found.address)
            else:
                bits = self.moves.page(state.cpu, place.table, self.access)
                made[place.address] = raw = format.leaf(0, 0, bits)
                entries.append(NewEntry(level, name, raw, page=True))
        missing = Missing(last.slot, last.raw, tuple(entries))
        words = {where: word for where, word in state.words.items() if where != last.slot.address}
        return replace(state, words=words, made=made, missing=missing)

    def minimal(self, state: _State) -> bool:
        """Whether each bit that the state changes is needed."""
        return not any(self.passes(one) for one in self._lessened(state))

    def _lessened(self, state: _State) -> Iterator[_State]:
        slots = self._slots(state)
        for where, raw in state.words.items():
            slot = slots[where][0]
            for bit in each(raw ^ self._old(where, slot.table)):
                yield replace(state, words=self._with(state, slot, raw ^ bit))
        for one in self.settings(state):
            for bit in each(one.old ^ one.new):
                kind = type(getattr(state.cpu, one.register))
                lessened: dict[str, Any] = {one.register: kind(one.new ^ bit)}
                yield replace(state, cpu=replace(state.cpu, **lessened))

    def _slots(self, state: _State) -> dict[int, list[Slot]]:
        """The slots of changed entries, by where these are."""
        found = self.walk(state)
        assert found is not None
        slots = dict[int, list[Slot]]()
        for step in found.steps:
            if step.slot.address in state.words:
                slots.setdefault(step.slot.address, []).append(step.slot)
        return slots

    def settings(self, state: _State) -> tuple[Setting, ...]:
        """The registers that differ."""
        return tuple(_settings(self.moves.registers, self.cpu, state.cpu))

    def remedy(self, state: _State) -> Remedy:
        """What the state changes."""
        found = self.walk(state)
        assert found is not None
        entries = tuple(
            _entry_change(used, self._old(where, used[0].table), state.words[where], found.address)
            for where, used in self._slots(state).items()
        )
        settings = self.settings(state)
        made = state.missing.entries if state.missing else ()
        cost = sum((one.old ^ one.new).bit_count() for one in entries)
        cost += sum((one.old ^ one.new).bit_count() for one in settings)
        cost += sum(one.bits.bit_count() for one in made)
        reaches = None if made else self.outcome(state).physical
        suspect = any((one.old ^ one.new) & self._address(one) for one in entries)
        off = any(
            (one.old ^ one.new) & self.moves.registers[one.register].guards for one in settings
        )
        return Remedy(entries, settings, state.missing, cost, reaches, None, None, suspect, off)

    def _address(self, change: EntryChange) -> int:
        """The bits of a change that are the entry's address, or below it."""
        slot = change.slot
        shapes = slot.table.format.levels[slot.level].shapes
        return reduce(or_, map(self.moves.address, shapes))


def _without(raw: int, slot: Slot) -> int:
    """A pointer without the address that it holds."""
    pointer = slot.table.format.levels[slot.level].pointer
    assert pointer is not None
    return raw & ~pointer.address_mask


def _settings(registers: Mapping[str, Register], before: Any, after: Any) -> Iterator[Setting]:
    for field, (called, bits, _) in registers.items():
        old, new = int(getattr(before, field)), int(getattr(after, field))
        if names := [name for name, bit in bits.items() if (old ^ new) & bit]:
            yield Setting(f"{called}.{' '.join(names)}", field, old, new)


def giving(walk: Walk, right: str, among: Collection[Step] | None = None) -> Iterator[Move]:
    """The changes by which the first entry that withholds a right gives it, one bit each."""
    for step in walk.steps if among is None else among:
        slot, raw, _ = step
        format = slot.table.format
        bit = format.rights[right]
        if format.granted(raw, slot.level) & bit:
            continue
        shape = format.levels[slot.level].shape(raw)
        mask, inverted = bit, bit & format.denied
        if shape.grants is not None:
            mask, inverted = shape.grants[right]
        for one in each(mask):
            yield Move(step, one & ~inverted, one & inverted)
        return


def _entry_change(slots: list[Slot], old: int, new: int, address: int) -> EntryChange:
    before, after = np.array([old], np.uint64), np.array([new], np.uint64)
    flush = any(stale(one.table.format, one.level, before, after)[0] for one in slots)
    breaking = any(breaks(one.table.format, one.level, before, after)[0] for one in slots)
    span = Span.of(address & -slots[0].size, slots[0].size)
    return EntryChange(tuple(slots), old, new, span, flush, breaking)


def each(mask: int) -> Iterator[int]:
    """Every bit of the mask."""
    while mask:
        yield mask & -mask
        mask &= mask - 1
