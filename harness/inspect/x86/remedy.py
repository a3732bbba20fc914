"""The smallest changes that would let an access pass.

A change is proposed only after it was tried: on a copy of the CPU state and on memory with the
changed entries laid over it.  Pages keep their addresses, and tables their places: what a change
may touch is rights, keys, reserved bits, D of a shadow stack, and the control bits that the rules
of access ask about.  An entry that is missing, or leads outside memory, is made up.

Reserved bits of an address are another matter: without them the entry is well-formed and leads to
another place than it says now, so that such a change is marked as suspect and stands behind others.
Where a change leads to a table that the source has not read, that is said and nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, product
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
from harness.paging.bits import stale
from harness.paging.entry import Malformed, Pointer
from harness.paging.format import Format
from harness.paging.memory import Mask, Memory, Words
from harness.paging.processor import root_for
from harness.paging.table import Slot, Table
from harness.paging.walk import Step, Walk, walk
from harness.paging.x86 import formats
from harness.paging.x86.access import (
    Access,
    Allowed,
    Kind,
    Outcome,
    Reason,
    Unbacked,
    key_denies,
    outcome,
)
from harness.paging.x86.cpu import LEGACY_SPAN, Cpu, Cr0, Cr4, Efer, linear
from harness.paging.x86.formats import ADDRESS, key_of

_GUARDS: Final = {("cr0", Cr0.WP), ("cr4", Cr4.SMEP), ("cr4", Cr4.SMAP), ("cr4", Cr4.LASS)}
"""What protects pages of many addresses, when it is on."""

_TOGETHER: Final = 4
"""Ways of changing something that are tried together; no access needs more."""


class _State(NamedTuple):
    """A machine with changes tried.

    words    entries that are changed, by their physical address
    made     those that are made up
    missing  what they are
    """

    cpu: Cpu
    words: Mapping[int, int]
    made: Mapping[int, int]
    missing: Missing | None


class _Bits(NamedTuple):
    """Bits to be set and cleared in one word: an entry, by its physical address, or a register,
    by its field of `Cpu`."""

    where: int | str
    set: int
    clear: int


_OF_HALVES: Final[Mapping[Reason, tuple[_Bits, ...]]] = {
    Reason.LASS_USER: (_Bits("cr4", 0, Cr4.LASS),),
    Reason.LASS_FETCH: (_Bits("cr4", 0, Cr4.LASS),),
    Reason.LASS_DATA: (
        _Bits("ac", 1, 0),
        _Bits("cr4", 0, Cr4.LASS),
        _Bits("cr4", 0, Cr4.SMAP),
    ),
}
"""The bits of which any one lets a walk begin that LASS does not."""

_Move = tuple[_Bits, ...]
"""One way to change something, in one or several words."""


def remedies(cpu: Cpu, memory: Memory, address: Virtual, access: Access) -> tuple[Remedy, ...]:
    """The changes that would let an access pass that does not: those of entries first, then those
    of what control registers mean, and last those that switch protection off.  Of each kind those
    of the fewest bits come first; of as many bits, those that concern the least.

    None where no change helps: the address is not canonical, or the root has no memory.
    """
    trial = _Trial(cpu, _Known(memory), address, access)
    found: dict[Remedy, None] = {}
    for start in trial.starts():
        for walked in trial.walked(start):
            if trial.unread(walked):
                found[trial.remedy(walked)] = None
                continue
            for allowed in trial.allowed(walked):
                if trial.minimal(allowed):
                    found[trial.remedy(allowed)] = None
    return tuple(sorted(found, key=rank))


def rank(remedy: Remedy) -> tuple[bool, bool, bool, bool, int, bool]:
    """What a remedy is sorted by: the lowest comes first."""
    own = all(one.register in ("ac", "pkru", "pkrs") for one in remedy.settings)
    of_entries = bool(remedy.entries or remedy.missing)
    return (
        remedy.unprotects,
        remedy.unread is not None,
        remedy.suspect,
        not own,
        remedy.cost,
        of_entries,
    )


class _Known:
    """Memory in which what was not read is like memory that is not there."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory

    def load(self, address: Physical, size: int) -> int | None:
        """The word at an address; None where it is not known."""
        return None if self.unread(address, size) else self.memory.load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses, which must have been read."""
        return self.memory.gather(addresses, size)

    def unread(self, address: Physical, size: int) -> bool:
        """Whether what lies there was not read."""
        try:
            self.memory.load(address, size)
        except UnreadError:
            return True
        return False


@dataclass(frozen=True)
class _Trial:
    """The access whose outcome is tried in one state after another, and where it faults now."""

    cpu: Cpu
    memory: _Known
    address: Virtual
    access: Access

    def starts(self) -> Iterator[_State]:
        """The machine as it is; and as it would be with CR4.PSE, where PS is set in vain."""
        state = _State(self.cpu, {}, {}, None)
        yield state
        found = self.walk(state)
        if found is not None and any(ignored_ps(self.cpu, step) for step in found.steps):
            yield self._moved(state, (_Bits("cr4", Cr4.PSE, 0),))

    def unread(self, state: _State) -> Slot | None:
        """The slot that the walk needs and that was not read."""
        answer = self.outcome(state)
        if isinstance(answer, Unbacked) and self.memory.unread(
            answer.slot.address, self.cpu.format.entry_bytes
        ):
            return answer.slot
        return None

    def passes(self, state: _State) -> bool:
        return isinstance(self.outcome(state), Allowed)

    def outcome(self, state: _State) -> Outcome:
        return outcome(state.cpu, self.memory_in(state), self.address, self.access)

    def walk(self, state: _State) -> Walk | None:
        address = self.linear(state.cpu)
        root = root_for(state.cpu, address)
        return None if root is None else walk(self.memory_in(state), root, address)

    def memory_in(self, state: _State) -> Overlay:
        return Overlay(self.memory, {**state.words, **state.made})

    def linear(self, cpu: Cpu) -> Virtual:
        return self.address if self.access.kind is Kind.FETCH else linear(cpu, self.address)

    def walked(self, state: _State) -> Iterator[_State]:
        """The state with what lets the walk find a page, or leads where nothing was read."""
        answer = self.outcome(state)
        found = self.walk(state)
        if isinstance(answer, Allowed) or self.unread(state):
            yield state
        elif isinstance(answer, Unbacked):
            yield from self._led_into_memory(state, found)
        elif answer.reason in _OF_HALVES:
            for bits in _OF_HALVES[answer.reason]:
                moved = self._moved(state, (bits,))
                if moved != state:
                    yield from self.walked(moved)
        elif answer.reason is Reason.NO_PDPTE:
            old = state.cpu.pdptes[self._pdpte]
            yield from self._made(state, Missing(None, old, ()), state.cpu.levels)
        elif found is None:
            return
        elif answer.reason is Reason.NOT_PRESENT:
            slot, raw, _ = found.steps[-1]
            yield from self._made(state, Missing(slot, raw, ()), slot.level)
        elif answer.reason is Reason.RESERVED:
            for move in _wellformed(state.cpu, found):
                yield from self.walked(self._moved(state, move))
        else:
            yield state

    def _led_into_memory(self, state: _State, found: Walk | None) -> Iterator[_State]:
        """The state with a new table in place of one outside memory; none in place of a root."""
        if found is None or not found.steps:
            return
        slot = found.steps[-1].slot
        words = {where: raw for where, raw in state.words.items() if where != slot.address}
        missing = Missing(slot, self._old(slot.address), ())
        yield self._made_down_to(state._replace(words=words), missing, slot.level, 0)

    def allowed(self, state: _State) -> Iterator[_State]:
        """The state with what lets the page that the walk finds be accessed, one way after
        another."""
        if self.passes(state):
            yield state
            return
        found = self.walk(state)
        assert found is not None
        moves = [
            move for move in _moves(state, found, self.access) if self._moved(state, move) != state
        ]
        enough: list[set[_Move]] = []
        for count in range(1, _TOGETHER + 1):
            for chosen in combinations(moves, count):
                if any(less <= set(chosen) for less in enough):
                    continue
                moved = reduce(self._moved, chosen, state)
                if self.passes(moved):
                    enough.append(set(chosen))
                    yield moved

    def minimal(self, state: _State) -> bool:
        """Whether each bit that the state changes is needed."""
        return not any(self.passes(lessened) for lessened in self._lessened(state))

    def remedy(self, state: _State) -> Remedy:
        """What the state changes."""
        found = self.walk(state)
        assert found is not None
        slots = dict[int, list[Slot]]()
        for step in found.steps:
            if step.slot.address in state.words:
                slots.setdefault(step.slot.address, []).append(step.slot)
        entries = tuple(
            _entry_change(state.cpu, used, self._old(where), state.words[where], found.address)
            for where, used in slots.items()
        )
        settings = tuple(_settings(self.cpu, state.cpu))
        made = state.missing.entries if state.missing else ()
        cost = sum((one.old ^ one.new).bit_count() for one in entries)
        cost += sum((one.old ^ one.new).bit_count() for one in settings)
        cost += sum(one.bits.bit_count() for one in made)
        answer = self.outcome(state)
        reaches = answer.physical if isinstance(answer, Allowed) and not made else None
        off = {(one.register, one.old & ~one.new) for one in settings}
        return Remedy(
            entries,
            settings,
            state.missing,
            cost,
            reaches,
            self.unread(state),
            suspect=any((one.old ^ one.new) & ADDRESS for one in entries),
            unprotects=bool(off & _GUARDS),
        )

    def _moved(self, state: _State, move: _Move) -> _State:
        """The state with bits set and cleared."""
        cpu, words = state.cpu, dict(state.words)
        for where, set_, clear in move:
            if isinstance(where, str):
                cpu = _with(cpu, where, getattr(cpu, where) & ~clear | set_)
            else:
                old = self._old(where)
                words[where] = words.get(where, old) & ~clear | set_
                if words[where] == old:
                    del words[where]
        return state._replace(cpu=cpu, words=words)

    def _lessened(self, state: _State) -> Iterator[_State]:
        """The state without one of the bits that it changes."""
        for address, new in state.words.items():
            for bit in _each(new ^ self._old(address)):
                yield state._replace(words={**state.words, address: new ^ bit})
        for one in _settings(self.cpu, state.cpu):
            for bit in _each(one.old ^ one.new):
                yield state._replace(cpu=_with(state.cpu, one.register, one.new ^ bit))

    def _old(self, address: int) -> int:
        """The entry that is there."""
        raw = self.memory.load(Physical(address), self.cpu.format.entry_bytes)
        assert raw is not None
        return raw

    @property
    def _pdpte(self) -> int:
        return self.address // _PDPTE_SPAN

    def _made(self, state: _State, missing: Missing, level: int) -> Iterator[_State]:
        """The state with the missing entry made up, so that it leads to the smallest page; or, at
        a level where there are pages, is one."""
        yield self._made_down_to(state, missing, level, 0)
        if 0 < level < state.cpu.levels and state.cpu.format.levels[level].leaf is not None:
            yield self._made_down_to(state, missing, level, level)

    def _made_down_to(self, state: _State, missing: Missing, level: int, end: int) -> _State:
        cpu, format = state.cpu, state.cpu.format
        tables, place = _free_tables(format, self.walk(state)), missing.slot
        made, entries = dict[int, int](), list[NewEntry]()
        for here in range(level, end - 1, -1):
            table = None if here == end else Table(format, next(tables), here - 1)
            address = table.address if table else 0
            if place is None:
                name, raw = "PDPTE", address | formats.P
                pdptes = [*cpu.pdptes]
                pdptes[self._pdpte] = raw
                cpu = replace(cpu, pdptes=tuple(pdptes))
            else:
                name, make = format.levels[here].name, format.pointer if table else format.leaf
                raw = make(address, here, _needed(cpu, self.access, here, page=table is None))
                made[place.address] = raw
            entries.append(NewEntry(here, name, raw & ~address, table is None))
            place = table.slot_for(self.linear(cpu)) if table else None
        return _State(cpu, state.words, made, replace(missing, entries=tuple(entries)))


_PDPTE_SPAN: Final = LEGACY_SPAN.size // formats.PDPTES
"""Bytes of address space that a PDPTE of PAE paging spans."""


def ignored_ps(cpu: Cpu, step: Step) -> bool:
    """Whether the entry has PS set and leads to a table all the same, since CR4.PSE=0 (SDM 4.3)."""
    level = step.slot.table.format.levels[step.slot.level]
    large = step.raw & formats.PS and step.raw & formats.P
    return bool(cpu.ignores_ps and level.leaf is None and large)


def _free_tables(format: Format, found: Walk | None) -> Iterator[Physical]:
    """Addresses for tables that are made up: those from the end that no walk so far has used."""
    return free_tables(format, {step.slot.table.address for step in found.steps} if found else ())


def _needed(cpu: Cpu, access: Access, level: int, page: bool) -> int:
    """The bits by which a new entry lets the access pass."""
    if not cpu.format.levels[level].grants:
        return 0
    write, dirty = cpu.format.rights["write"], cpu.format.dirty
    bits = cpu.format.rights["user"] if access.user else 0
    if access.kind.shadow:
        bits |= dirty if page else write
    elif access.kind.writes:
        bits |= write
    if page and cpu.long:
        granted = cpu.format.granted(bits, level)
        keys = (key for key in range(formats.KEYS) if not key_denies(cpu, access, granted, key))
        bits |= next(keys, 0) << formats.KEY_SHIFT
    return bits


def _wellformed(cpu: Cpu, found: Walk) -> Iterator[_Move]:
    """The ways to make well-formed the entry at which a walk ended."""
    slot, raw, entry = found.steps[-1]
    assert isinstance(entry, Malformed)
    format = slot.table.format
    yield (_Bits(slot.address, 0, entry.bits),)
    if isinstance(format.decode(raw & ~formats.PS, slot.level), Pointer):
        yield (_Bits(slot.address, 0, formats.PS),)
    if entry.bits & formats.XD and not cpu.nxe:
        yield (_Bits("efer", Efer.NXE, 0),)


def _moves(state: _State, found: Walk, access: Access) -> Iterator[_Move]:
    """The ways to change what decides about an access to a page: each is all that it takes for
    one of the rules."""
    format = state.cpu.format
    levels = format.levels
    steps = [
        (step.slot.address, step.raw) for step in found.steps if levels[step.slot.level].grants
    ]
    real = [step for step in steps if step[0] not in state.made]
    write, user = format.rights["write"], format.rights["user"]
    moves = [
        tuple(_Bits(where, user, 0) for where, raw in real if not raw & user),
        *_on_leaf(state, *steps[-1], access),
    ]
    if access.kind is Kind.FETCH:
        execute = format.rights.get("execute", 0)
        moves.append(tuple(_Bits(where, 0, execute) for where, raw in real if raw & execute))
        moves.append((_Bits("cr4", 0, Cr4.SMEP),))
    elif access.kind.shadow:
        above = [_Bits(where, write, 0) for where, _ in real if where != steps[-1][0]]
        leaf = [_Bits(where, format.dirty, write) for where, _ in real if where == steps[-1][0]]
        moves.append((*above, *leaf))
    else:
        moves.append(tuple(_Bits(where, write, 0) for where, raw in real if not raw & write))
        moves.append((_Bits("ac", 1, 0),))
        moves.append((_Bits("cr4", 0, Cr4.SMAP),))
    moves.append((_Bits("cr0", 0, Cr0.WP),))
    yield from filter(None, moves)


def _on_leaf(state: _State, where: int, raw: int, access: Access) -> Iterator[_Move]:
    """Those that concern the page's own entry, and its protection key."""
    cpu, user = state.cpu, state.cpu.format.rights["user"]
    made, keyed, key = where in state.made, cpu.user_keys or cpu.supervisor_keys, key_of(raw)
    if keyed:
        for register, bit in product(("pkru", "pkrs"), (1, 2)):
            yield (_Bits(register, 0, bit << 2 * key),)
    if made:
        return
    for whose in (user, 0) if keyed else ():
        keys = (one for one in range(formats.KEYS) if not key_denies(cpu, access, whose, one))
        nearest = (
            min(keys, key=lambda one: (one ^ key).bit_count(), default=key) << formats.KEY_SHIFT
        )
        yield (_Bits(where, nearest, formats.KEY & ~nearest),)
    yield (_Bits(where, 0, user),)


def _entry_change(cpu: Cpu, slots: Sequence[Slot], old: int, new: int, address: int) -> EntryChange:
    """A change that gives to the user takes from the supervisor with SMEP and SMAP alone, so that
    without them it is a mere gain."""
    given = 0 if cpu.cr4 & (Cr4.SMEP | Cr4.SMAP) else new & ~old & cpu.format.rights["user"]
    before, after = np.array([old | given], np.uint64), np.array([new], np.uint64)
    flush = any(stale(one.table.format, one.level, before, after)[0] for one in slots)
    span = Span.of(address & -slots[0].size, slots[0].size)
    return EntryChange(tuple(slots), old, new, span, flush)


def _settings(before: Cpu, after: Cpu) -> Iterator[Setting]:
    """The registers that differ."""
    for register, prefix, flags in (
        ("cr0", "CR0.", Cr0),
        ("cr4", "CR4.", Cr4),
        ("efer", "EFER.", Efer),
        ("ac", "EFLAGS.AC", None),
        ("pkru", "PKRU.", None),
        ("pkrs", "IA32_PKRS.", None),
    ):
        old, new = int(getattr(before, register)), int(getattr(after, register))
        if old != new:
            bits = list(_each(old ^ new))
            names = [str(flags(bit).name) for bit in bits] if flags else []
            if register.startswith("pk"):
                names = [_key_bit(bit) for bit in bits]
            yield Setting(prefix + " ".join(names), register, old, new)


def _key_bit(bit: int) -> str:
    """The manual's name of a bit of PKRU or IA32_PKRS: AD3 or WD3 of key 3."""
    key, write = divmod(bit.bit_length() - 1, 2)
    return f"{'WD' if write else 'AD'}{key}"


def _with(cpu: Cpu, register: str, value: int) -> Cpu:
    """The CPU with another value in a register."""
    changed: dict[str, Any] = {register: bool(value) if register == "ac" else value}
    return replace(cpu, **changed)


def _each(mask: int) -> Iterator[int]:
    """Every bit of the mask."""
    while mask:
        yield mask & -mask
        mask &= mask - 1
