"""The smallest changes that would let an access pass on RISC-V.

A change is proposed only after it was tried, on a copy of the hart's state and on memory with the
changed entries laid over it, and without any one of its bits the access does not pass.  Pages and
tables keep their places; an entry that is missing is made up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from harness.inspect.held import UnreadError
from harness.inspect.overlay import Overlay
from harness.inspect.remedy import EntryChange, Missing, NewEntry, Remedy, Setting
from harness.paging.address import Physical, Span, Virtual
from harness.paging.bits import stale
from harness.paging.entry import Malformed
from harness.paging.memory import Memory
from harness.paging.processor import root_for
from harness.paging.riscv.access import Access, Allowed, Kind, Outcome, Reason, outcome
from harness.paging.riscv.cpu import Cpu, Envcfg, Mstatus, transformed
from harness.paging.riscv.formats import A, D, N, R, U, V, W, X
from harness.paging.table import Slot, Table
from harness.paging.walk import Step, Walk, walk

_STEPS: Final = 6
"""Rules that are met one after the other; no access meets more."""

_REGISTERS: Final = {
    "mstatus": (Mstatus.SUM, Mstatus.MXR),
    "menvcfg": (Envcfg.ADUE,),
}
"""The bits of registers that may be set."""


@dataclass(frozen=True)
class _State:
    """A hart with changes tried.

    words    entries that are changed, by their physical address
    made     those that are made up
    missing  what they are
    """

    cpu: Cpu
    words: Mapping[int, int]
    made: Mapping[int, int]
    missing: Missing | None = None


def remedies(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> tuple[Remedy, ...]:
    """The changes that would let an access pass that does not: those of entries first, then those
    of registers; of each kind those of the fewest bits.

    None where no change helps: the address is not canonical, or the root has no memory.
    """
    trial = _Trial(cpu, memory, address, access)
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

    cpu: Cpu
    memory: Memory
    address: Virtual
    access: Access

    def outcome(self, state: _State) -> Outcome:
        return outcome(state.cpu, self.memory_in(state), self.address, self.access)

    def passes(self, state: _State) -> bool:
        return isinstance(self.outcome(state), Allowed)

    def memory_in(self, state: _State) -> Overlay:
        return Overlay(self.memory, {**state.words, **state.made})

    def walk(self, state: _State) -> Walk | None:
        used = self.address
        if self.access.kind is not Kind.FETCH:
            used = Virtual(transformed(state.cpu, used, self.access.user))
        root = root_for(state.cpu, used)
        return None if root is None else walk(self.memory_in(state), root, used)

    def passing(self, state: _State, steps: int) -> Iterator[_State]:
        """The states by one change after another, each against the rule that denies the access."""
        try:
            answer = self.outcome(state)
        except UnreadError:  # where a change leads was not read: nothing is claimed
            return
        if isinstance(answer, Allowed):
            yield state
        elif steps:
            for changed in self.changed(state, answer.reason):
                if changed != state:
                    yield from self.passing(changed, steps - 1)

    def changed(self, state: _State, reason: Reason) -> Iterator[_State]:
        """The state with a change against the reason."""
        found = self.walk(state)
        if found is None or not (found.steps or reason is Reason.NOT_PRESENT):
            return
        if reason is Reason.NO_MEMORY:
            yield self._made(state, found.steps[-1].slot, found.steps[-1].raw, found)
        elif reason is Reason.NOT_PRESENT:
            slot, raw, _ = found.steps[-1]
            yield self._made(state, slot, raw, found)
        else:
            slot, raw, _ = found.steps[-1]
            for set_, clear in _moves(found.steps[-1], reason, self.access):
                yield replace(state, words=self._with(state, slot.address, raw & ~clear | set_))
            for register, bit in _SETTINGS.get(reason, ()):
                changed = {register: getattr(state.cpu, register) | bit}
                yield replace(state, cpu=replace(state.cpu, **changed))

    def _with(self, state: _State, where: int, raw: int) -> dict[int, int]:
        words = {**state.words, where: raw}
        if raw == self._old(where):
            del words[where]
        return words

    def _old(self, where: int) -> int:
        raw = self.memory.load(Physical(where), self.cpu.format.entry_bytes)
        assert raw is not None
        return raw

    def _made(self, state: _State, slot: Slot, raw: int, found: Walk) -> _State:
        """The state with the missing entry made up, down to a page of the smallest size."""
        format, place = state.cpu.format, slot
        used = {step.slot.table.address for step in found.steps}
        pointer = format.levels[-1].pointer
        assert pointer is not None
        last, size = pointer.address_of(-1), format.table_bytes(0)
        free = (Physical(one) for one in range(last, 0, -size) if one not in used)
        made, entries = dict[int, int](), list[NewEntry]()
        for level in range(slot.level, -1, -1):
            name = format.levels[level].name
            if level:
                table = Table(format, next(free), level - 1)
                made[place.address] = format.pointer(table.address, level, 0)
                entries.append(NewEntry(level, name, V, page=False))
                place = table.slot_for(found.address)
            else:
                bits = self._needed(state.cpu)
                made[place.address] = format.leaf(0, 0, bits)
                entries.append(NewEntry(level, name, V | bits, page=True))
        missing = Missing(slot, raw, tuple(entries))
        words = {where: word for where, word in state.words.items() if where != slot.address}
        return replace(state, words=words, made=made, missing=missing)

    def _needed(self, cpu: Cpu) -> int:
        """The bits by which a new page lets the access pass."""
        access = self.access
        bits = X if access.kind is Kind.FETCH else R | W if access.kind.writes else R
        marks = A | (D if access.kind.writes else 0)
        return bits | (U if access.user else 0) | (0 if cpu.sets_marks else marks)

    def minimal(self, state: _State) -> bool:
        """Whether each bit that the state changes is needed."""
        return not any(self.passes(one) for one in self._lessened(state))

    def _lessened(self, state: _State) -> Iterator[_State]:
        for where, raw in state.words.items():
            for bit in _each(raw ^ self._old(where)):
                yield replace(state, words=self._with(state, where, raw ^ bit))
        for one in _settings(self.cpu, state.cpu):
            for bit in _each(one.old ^ one.new):
                lessened: dict[str, Any] = {one.register: one.new ^ bit}
                yield replace(state, cpu=replace(state.cpu, **lessened))

    def remedy(self, state: _State) -> Remedy:
        """What the state changes."""
        found = self.walk(state)
        assert found is not None
        slots = dict[int, list[Slot]]()
        for step in found.steps:
            if step.slot.address in state.words:
                slots.setdefault(step.slot.address, []).append(step.slot)
        entries = tuple(
            _entry_change(used, self._old(where), state.words[where], found.address)
            for where, used in slots.items()
        )
        settings = tuple(_settings(self.cpu, state.cpu))
        made = state.missing.entries if state.missing else ()
        cost = sum((one.old ^ one.new).bit_count() for one in entries)
        cost += sum((one.old ^ one.new).bit_count() for one in settings)
        cost += sum(one.bits.bit_count() for one in made)
        answer = self.outcome(state)
        reaches = answer.physical if isinstance(answer, Allowed) and not made else None
        suspect = any((one.old ^ one.new) & _address(one) for one in entries)
        off = any(one.new & ~one.old & Mstatus.SUM for one in settings)
        return Remedy(entries, settings, state.missing, cost, reaches, None, None, suspect, off)


_SETTINGS: Final = {
    Reason.SUM: (("mstatus", int(Mstatus.SUM)),),
    Reason.READ_DENIED: (("mstatus", int(Mstatus.MXR)),),
    Reason.NOT_ACCESSED: (("menvcfg", int(Envcfg.ADUE)),),
    Reason.NOT_DIRTY: (("menvcfg", int(Envcfg.ADUE)),),
}
"""The bits of registers by which a rule does not deny an access."""


def _moves(step: Step, reason: Reason, access: Access) -> Iterator[tuple[int, int]]:
    """The bits to set and to clear in the last entry of a walk, one way after another."""
    needed = X if access.kind is Kind.FETCH else R | W if access.kind.writes else R
    match reason:
        case Reason.RESERVED:
            yield from _wellformed(step, needed)
        case Reason.USER_DENIED:
            yield U, 0
        case Reason.SUM | Reason.SUPERVISOR_FETCH:
            yield 0, U
        case Reason.READ_DENIED | Reason.WRITE_DENIED | Reason.EXECUTE_DENIED:
            yield needed, 0
        case Reason.NOT_ACCESSED:
            yield A, 0
        case Reason.NOT_DIRTY:
            yield D, 0


def _wellformed(step: Step, needed: int) -> Iterator[tuple[int, int]]:
    """The same of what makes an entry malformed."""
    slot, raw, entry = step
    assert isinstance(entry, Malformed)
    level = slot.table.format.levels[slot.level]
    shape = level.shape(raw)
    for part in shape.reserved:
        if (raw ^ part.value) & part.mask:
            yield part.value & ~raw, part.mask & ~part.value & raw
            if raw & N and part.value:
                yield 0, N
            return
    for odd in shape.forbidden:
        if odd.pattern.matches(raw):
            if not odd.pattern.value:
                yield needed, 0
            elif odd.pattern.mask & W:
                yield R, 0
                yield 0, W
            else:  # PBMT=3, of which either bit is one too many
                yield from ((0, bit) for bit in _each(odd.pattern.mask))
            return


def _settings(before: Cpu, after: Cpu) -> Iterator[Setting]:
    """The registers that differ."""
    for register, bits in _REGISTERS.items():
        old, new = int(getattr(before, register)), int(getattr(after, register))
        names = [str(bit.name) for bit in bits if (old ^ new) & bit]
        if names:
            yield Setting(f"{register}.{' '.join(names)}", register, old, new)


def _address(change: EntryChange) -> int:
    """The bits of a change that are the entry's address, or below it."""
    slot = change.slot
    shapes = slot.table.format.levels[slot.level].shapes
    return max(shape.address_mask for shape in shapes) | (
        slot.table.format.levels[0].shapes[-1].address_mask
    )


def _entry_change(slots: list[Slot], old: int, new: int, address: int) -> EntryChange:
    before, after = np.array([old], np.uint64), np.array([new], np.uint64)
    flush = any(stale(one.table.format, one.level, before, after)[0] for one in slots)
    span = Span.of(address & -slots[0].size, slots[0].size)
    return EntryChange(tuple(slots), old, new, span, flush)


def _each(mask: int) -> Iterator[int]:
    """Every bit of the mask."""
    while mask:
        yield mask & -mask
        mask &= mask - 1
