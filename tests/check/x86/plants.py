"""Faults to be planted in the reference: in formats (which bits mean what), walks, and rights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Any

import numpy as np
from pytest import MonkeyPatch

from harness.check.x86 import quirks
from harness.check.x86.entries import PathEntries
from harness.check.x86.matrix import chain as chains
from harness.check.x86.matrix import rig
from harness.check.x86.matrix.sequence import Path, SequenceBatch
from harness.check.x86.quirks import FaultQuirk
from harness.machine.x86.guest import Guest
from harness.paging import bulk
from harness.paging.bulk import End, Walks
from harness.paging.format import Format, Level, Reserved, Shape
from harness.paging.memory import Words
from harness.paging.x86 import access as scalar
from harness.paging.x86 import bulk as x86
from harness.paging.x86.access import Access, Kind, Reason, Vector
from harness.paging.x86.bulk import REASONS, Outcomes
from harness.paging.x86.cpu import Cpu
from harness.paging.x86.formats import KEY_SHIFT
from tests.paging.plants import without_pages

P, RW, US, A, D, PS, G, XD = (1 << bit for bit in (0, 1, 2, 5, 6, 7, 8, 63))
W_ERROR, U_ERROR, RSVD_ERROR, I_ERROR, PK_ERROR = 2, 4, 8, 16, 32

Plant = Callable[[MonkeyPatch], None]


def in_formats(change: Callable[[Format], Format]) -> Plant:
    """Every format that a CPU reads its tables in is changed."""
    original = Cpu.__dict__["format"].func
    changed = cache(lambda cpu: change(original(cpu)))
    return lambda patch: patch.setattr(Cpu, "format", property(changed))


def in_levels(change: Callable[[int, Level], Level]) -> Plant:
    """Every level of every format is changed."""
    return in_formats(
        lambda format: replace(
            format, levels=tuple(change(n, level) for n, level in enumerate(format.levels))
        )
    )


def not_reserved(bits: int, *levels: int) -> Plant:
    """Bits are not reserved, at some levels or at all."""

    def unreserved(shape: Shape) -> Shape:
        parts = (part._replace(mask=part.mask & ~bits) for part in shape.reserved)
        return replace(shape, reserved=tuple(parts))

    return in_levels(
        lambda n, level: level.changed(unreserved) if n in levels or not levels else level
    )


def also_reserved(bits: int, *, pointers: bool = True) -> Plant:
    """Bits are reserved besides, in leaves and in pointers."""

    def more(shape: Shape) -> Shape:
        if shape.points and not pointers:
            return shape
        return replace(shape, reserved=(*shape.reserved, Reserved(bits, "planted")))

    return in_levels(lambda _, level: level.changed(more))


def reserved_leaf(level: Level, bits: int) -> Level:
    """The level with more bits of its leaves reserved."""
    planted = Reserved(bits, "planted")
    return level.changed(
        lambda shape: shape if shape.points else replace(shape, reserved=(*shape.reserved, planted))
    )


def all_pointers(level: int) -> Plant:
    """An entry of one level is a pointer whatever its PS says."""
    return in_levels(lambda n, here: without_pages(here) if n == level else here)


def in_walks(change: Callable[[Walks, Words], Walks]) -> Plant:
    """The walks come out differently, given the entries of their paths."""
    walk_words = bulk.walk_words

    def planted(roots: Any, words: Words, addresses: Words) -> Walks:
        return change(walk_words(roots, words, addresses), words)

    return lambda patch: patch.setattr(bulk, "walk_words", planted)


def in_question(**change: Callable[[Any], Any]) -> Plant:
    """Rights are judged of other CPU state, or another access, than is there."""
    judge, names = x86.judge, ("cpu", "walks", "kind", "user", "ac", "implicit")

    def planted(*given: Any) -> Outcomes:
        asked = dict(zip(names, given, strict=True))
        asked |= {name: change[name](asked[name]) for name in change}
        asked["implicit"] &= ~asked["user"] & (asked["kind"] != Kind.FETCH)
        return judge(*asked.values())

    return lambda patch: patch.setattr(rig, "judge", planted)


def in_answer(change: Callable[[Outcomes, Any], Outcomes]) -> Plant:
    """Outcomes are changed; the other argument is the kind of each access."""
    judge = x86.judge

    def planted(cpu: Cpu, walks: Walks, kind: Any, *rest: Any) -> Outcomes:
        return change(judge(cpu, walks, kind, *rest), kind)

    return lambda patch: patch.setattr(rig, "judge", planted)


def error_bits(cleared: int = 0, raised: int = 0) -> Plant:
    """Page faults have other error codes."""
    return in_answer(
        lambda out, _: replace(
            out,
            error=np.where(
                out.vector == Vector.PF, out.error & np.uint32(~cleared & 0xFF) | raised, out.error
            ).astype(np.uint32),
        )
    )


def in_marks(change: Callable[..., Words]) -> Plant:
    """Other A and D bits are expected of accesses that are made; `change` is given those that are
    true, and the entries before if it takes them."""
    true, takes = PathEntries.of, len(signature(change).parameters)

    def planted(*given: Any) -> PathEntries:
        entries = true(*given)
        return replace(entries, sets=change(*(entries.sets, entries.before)[:takes]))

    return lambda patch: patch.setattr(PathEntries, "of", planted)


def without_in(sets: Words, level: int, bits: int) -> Words:
    sets = sets.copy()
    sets[level] &= ~np.uint64(bits)
    return sets


def clean_below_accessed(sets: Words, before: Words) -> Words:
    """D is not set where the two lowest entries had A before."""
    both = (before[0] & before[1] & np.uint64(A)) != 0
    return np.where(both, sets & ~np.uint64(D), sets)


def raised_in(sets: Words, level: int) -> Words:
    sets = sets.copy()
    sets[level] |= np.uint64(D)
    return sets


def granted(rights: Callable[[Words], Words]) -> Plant:
    """The rights of a walk are combined otherwise from those that each entry gives."""
    return in_walks(lambda walks, words: replace(walks, granted=rights(words ^ np.uint64(XD))))


def user_where_keyed(walks: Walks, words: Words) -> Walks:
    """A page that has a key is the user's by its own US, whatever the entries above say."""
    keyed = (walks.raw >> np.uint64(KEY_SHIFT) & np.uint64(15)) != 0
    return replace(walks, granted=walks.granted | keyed * (walks.raw & np.uint64(US)))


def all_granted(right: int) -> Plant:
    """A right is never denied."""
    return in_walks(lambda walks, _: replace(walks, granted=walks.granted | np.uint64(right)))


def ends_bottom_up(walks: Walks, words: Words) -> Walks:
    """The lowest entry that is not present counts before all above it."""
    absent = (words & np.uint64(P)) == 0
    lowest = np.argmax(absent, axis=0).astype(np.uint8)
    some = absent.any(axis=0) & (walks.end != End.NO_ROOT)
    return replace(
        walks,
        end=np.where(some, np.uint8(End.ABSENT), walks.end),
        level=np.where(some, lowest, walks.level),
    )


def rights_before_presence(walks: Walks, words: Words) -> Walks:
    """An upper entry that denies the user ends the walk of an absent one as if that were there."""
    denied = (walks.end == End.ABSENT) & ((walks.granted & np.uint64(US)) == 0)
    return replace(walks, end=np.where(denied, np.uint8(End.LEAF), walks.end))


def in_ends(end: End, instead: End) -> Plant:
    """Walks that end in one way are taken to end in another."""
    walks_of = chains._walks

    def planted(*given: Any) -> tuple[Walks, Any, Words]:
        walks, refused, marked = walks_of(*given)
        ends = np.where(walks.end == end, np.uint8(instead), walks.end)
        return replace(walks, end=ends), refused, marked

    return lambda patch: patch.setattr(chains, "_walks", planted)


def moved(bits: int, level: int) -> Plant:
    """Pages of one level are found elsewhere."""
    return in_walks(
        lambda walks, _: replace(
            walks,
            physical=np.where(
                (walks.level == level) & (walks.end == End.LEAF),
                walks.physical ^ np.uint64(bits),
                walks.physical,
            ),
        )
    )


def as_of_width(width: int) -> Plant:
    """An address is canonical if its bits above `width` are all the same."""
    walk_words = bulk.walk_words

    def planted(roots: Any, words: Words, addresses: Words) -> Walks:
        walks = walk_words(roots, words, addresses)
        top = addresses.astype(np.int64) >> (width - 1)
        canonical = (top == 0) | (top == -1)
        end = np.where(canonical, walks.end, np.uint8(End.NO_ROOT))
        return replace(walks, end=np.where(canonical & (end == End.NO_ROOT), End.LEAF, end))

    return lambda patch: patch.setattr(bulk, "walk_words", planted)


def of_another_cpu(**fields: Any) -> Plant:
    """PathEntries are read as on a processor with other features."""
    original = Cpu.__dict__["format"].func
    changed = cache(lambda cpu: original(replace(cpu, **fields)))
    return lambda patch: patch.setattr(Cpu, "format", property(changed))


def of_the_other_vendor() -> Plant:
    """PathEntries are read as Intel's processors do on AMD's, and the other way round."""
    original = Cpu.__dict__["format"].func
    changed = cache(lambda cpu: original(replace(cpu, amd=not cpu.amd)))
    return lambda patch: patch.setattr(Cpu, "format", property(changed))


def with_pse(pse: bool) -> Plant:
    """CR4.PSE is taken for set, or for clear."""
    original = Cpu.__dict__["format"].func
    changed = cache(lambda cpu: original(replace(cpu, cr4=cpu.cr4 & ~PSE | PSE * pse)))
    return lambda patch: patch.setattr(Cpu, "format", property(changed))


def in_cpu(name: str, value: Callable[[Cpu], Any]) -> Plant:
    """Something else follows from the state of the processor."""
    return lambda patch: patch.setattr(Cpu, name, property(value))


def in_keys(change: Callable[[Any, Cpu, Access, int, int], Reason | None]) -> Plant:
    """Keys deny otherwise; `change` is given the rule that is true, and what it is given."""
    rule = scalar.key_denies
    return lambda patch: patch.setattr(
        scalar, "key_denies", lambda cpu, access, *page: change(rule, cpu, access, *page)
    )


def in_shift(by: int) -> Plant:
    """Keys are looked for elsewhere in an entry."""
    return lambda patch: patch.setattr(x86, "KEY_SHIFT", KEY_SHIFT + by)


def all_loaded() -> Plant:
    """Whatever is loaded into a control register is taken."""

    def plant(patch: MonkeyPatch) -> None:
        patch.setattr(chains, "load", lambda _, then, memory: then)
        patch.setattr(chains, "move", lambda cpu, memory, **registers: cpu)

    return plant


def in_vector(reason: Reason, vector: Vector) -> Plant:
    """What faults for a reason raises another exception."""
    code = REASONS.index(reason)
    return in_answer(
        lambda out, _: replace(
            out, vector=np.where(out.reason == code, np.uint8(vector), out.vector)
        )
    )


def in_push(vector: Vector) -> Plant:
    """Pushes to addresses that are not canonical raise another exception."""
    code = REASONS.index(Reason.NOT_CANONICAL)

    def other(out: Outcomes, kind: Any) -> Outcomes:
        pushes = (out.reason == code) & (kind == Kind.PUSH)
        return replace(out, vector=np.where(pushes, np.uint8(vector), out.vector))

    return in_answer(other)


def without(register: str, bit: int) -> Plant:
    """A control bit is taken for clear."""
    return in_question(cpu=lambda cpu: replace(cpu, **{register: getattr(cpu, register) & ~bit}))


def with_(register: str, bit: int) -> Plant:
    """A control bit is taken for set."""
    return in_question(cpu=lambda cpu: replace(cpu, **{register: getattr(cpu, register) | bit}))


def in_sequences(change: Callable[[SequenceBatch], SequenceBatch]) -> Plant:
    """Sequences are judged as if others had been executed."""
    finish = SequenceBatch.finish
    return lambda patch: patch.setattr(
        SequenceBatch, "finish", lambda self, rig: finish(change(self), rig)
    )


def kept(*registers: str) -> Plant:
    """What a register is changed to is not heeded: rights are those that were cached."""

    def judged(batch: SequenceBatch) -> SequenceBatch:
        first = {name: getattr(batch.first, name) for name in registers}
        return replace(batch, then=replace(batch.then, **first))

    return in_sequences(judged)


def of_one_path() -> Plant:
    """Rights at the other address are those of the first, since both lead to one page."""

    def judged(batch: SequenceBatch) -> SequenceBatch:
        steps = tuple((replace(step, there=False), asked) for step, asked in batch.questions.steps)
        return replace(batch, questions=replace(batch.questions, steps=steps))

    return in_sequences(judged)


def dirty_once_read() -> Plant:
    """What was read is taken to be dirty."""
    follow = Path.follow

    def followed(self: Path, path: Path, after: Words) -> None:
        follow(self, path, after)
        self.words = self.words | np.uint64(D)

    return lambda patch: patch.setattr(Path, "follow", followed)


def left_to_its_path() -> Plant:
    """What one path leaves in an entry is not seen from the other."""
    follow = Path.follow

    def followed(self: Path, path: Path, after: Words) -> None:
        if self is path:
            follow(self, path, after)

    return lambda patch: patch.setattr(Path, "follow", followed)


WP, SMEP, SMAP, NXE = 1 << 16, 1 << 20, 1 << 21, 1 << 11
PSE, PKE, PKS = 1 << 4, 1 << 22, 1 << 24


# ---- an engine that departs no longer ----


def mended(quirk: FaultQuirk) -> Plant:
    """What a guest saw is what it would have seen, had its engine not departed."""

    def plant(patch: MonkeyPatch) -> None:
        run, start, finish, waiting = Guest.run, Guest.start, Guest.finish, list[Any]()

        def started(guest: Guest, state: Any, jobs: Any) -> None:
            waiting.append(jobs)
            start(guest, state, jobs)

        def finished(guest: Guest) -> Any:
            results = finish(guest).copy()
            _MENDS[quirk](waiting.pop(0), results)
            return results

        def ran(guest: Guest, state: Any, jobs: Any) -> Any:
            results = run(guest, state, jobs).copy()
            _MENDS[quirk](jobs, results)
            return results

        patch.setattr(Guest, "run", ran)
        patch.setattr(Guest, "start", started)
        patch.setattr(Guest, "finish", finished)

    return plant


def _with_present(_: Any, results: Any) -> None:
    reserved = (results["vector"] == Vector.PF) & (results["error"] & RSVD_ERROR != 0)
    results["error"][reserved] |= P


def _with_stack_fault(_: Any, results: Any) -> None:
    results["vector"][results["vector"] == Vector.GP] = Vector.SS


_ACCESS_WRITE, _ACCESS_FETCH = 2, 3
"""The stub's numbers (guest/x86/protocol.h)."""


def _with_bit_8(jobs: Any, results: Any) -> None:
    """The root's entry is the first word of a job."""
    wrong = jobs["word"][:, 0] & (P | G) == P | G
    results["completed"][wrong], results["vector"][wrong] = 0, Vector.PF
    error = P | RSVD_ERROR | jobs["user"] * U_ERROR
    access = jobs["access"]
    error = error | (access == _ACCESS_WRITE) * W_ERROR | (access == _ACCESS_FETCH) * I_ERROR
    results["error"][wrong], results["cr2"][wrong] = error[wrong], jobs["address"][wrong]
    results["data"][wrong], results["rip"][wrong] = 0, 0
    results["after"][wrong] = jobs["word"][wrong]


_MENDS: dict[FaultQuirk, Callable[[Any, Any], None]] = {
    quirks.RESERVED_WITHOUT_PRESENT: _with_present,
    quirks.PUSH_IS_A_WRITE: _with_stack_fault,
    quirks.PML4E_BIT_8_IGNORED: _with_bit_8,
}
