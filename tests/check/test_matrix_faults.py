"""The matrix is tested: each rule broken in the reference, it must disagree with the machine.

The faults are planted in what the reference consists of: formats (which bits mean what), walks,
and rights.  Each is looked for in as much of the quick preset as its condition selects, where the
reference unharmed agrees.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check import chain as chains
from harness.check import matrix, rig
from harness.check.rig import Rig
from harness.check.stage import Model
from harness.machine.guest import Guest
from harness.paging import bulk
from harness.paging.bulk import End, Walks
from harness.paging.format import Format, Level, Pattern, Reserved, Shape
from harness.paging.memory import Words
from harness.paging.x86 import bulk as x86
from harness.paging.x86.access import Kind, Vector
from harness.paging.x86.bulk import ALLOWED, Outcomes
from harness.paging.x86.cpu import Cpu

pytestmark = pytest.mark.hw

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
PLACES = {
    "4": "mode=4 and page1gb=1 and maxphyaddr=40 and amd=0 and PSE=1",
    "5": "mode=5 and maxphyaddr=40 and amd=0 and PSE=1",
}
P, RW, US, A, D, PS, G, XD = (1 << bit for bit in (0, 1, 2, 5, 6, 7, 8, 63))
W_ERROR, U_ERROR, RSVD_ERROR, I_ERROR = 2, 4, 8, 16

Plant = Callable[[MonkeyPatch], None]


# ---- how faults are planted ----


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

    def unreserved(shape: Shape | None) -> Shape | None:
        if shape is None:
            return None
        parts = (part._replace(mask=part.mask & ~bits) for part in shape.reserved)
        return replace(shape, reserved=tuple(parts))

    return in_levels(
        lambda n, level: (
            replace(level, pointer=unreserved(level.pointer), leaf=unreserved(level.leaf))
            if n in levels or not levels
            else level
        )
    )


def also_reserved(bits: int, *, pointers: bool = True) -> Plant:
    """Bits are reserved besides, in leaves and in pointers."""

    def more(shape: Shape | None) -> Shape | None:
        if shape is None:
            return None
        return replace(shape, reserved=(*shape.reserved, Reserved(bits, "planted")))

    return in_levels(
        lambda _, level: replace(
            level, pointer=more(level.pointer) if pointers else level.pointer, leaf=more(level.leaf)
        )
    )


def reserved_leaf(level: Level, bits: int) -> Level:
    """The level with more bits of its leaves reserved."""
    assert level.leaf is not None
    more = (*level.leaf.reserved, Reserved(bits, "planted"))
    return replace(level, leaf=replace(level.leaf, reserved=more))


def all_pointers(level: int) -> Plant:
    """An entry of one level is a pointer whatever its PS says."""
    return in_levels(lambda n, here: replace(here, points=Pattern(0, 0)) if n == level else here)


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


def in_marks(change: Callable[[chains.Lanes, Words], Words]) -> Plant:
    """Other A and D bits are expected of accesses that are made."""
    used = chains._used

    def planted(cpu: Cpu, lanes: chains.Lanes, walks: Walks) -> tuple[Words, Words]:
        sets, free = used(cpu, lanes, walks)
        return change(lanes, sets), free

    return lambda patch: patch.setattr(chains, "_used", planted)


def without_in(sets: Words, level: int, bits: int) -> Words:
    sets = sets.copy()
    sets[level] &= ~np.uint64(bits)
    return sets


def raised_in(lanes: chains.Lanes, sets: Words, level: int) -> Words:
    sets = sets.copy()
    sets[level] |= np.uint64(D) & ~lanes.words[level]
    return sets


def granted(rights: Callable[[Words], Words]) -> Plant:
    """The rights of a walk are combined otherwise from those that each entry gives."""
    return in_walks(lambda walks, words: replace(walks, granted=rights(words ^ np.uint64(XD))))


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


def without(register: str, bit: int) -> Plant:
    """A control bit is taken for clear."""
    return in_question(cpu=lambda cpu: replace(cpu, **{register: getattr(cpu, register) & ~bit}))


def with_(register: str, bit: int) -> Plant:
    """A control bit is taken for set."""
    return in_question(cpu=lambda cpu: replace(cpu, **{register: getattr(cpu, register) | bit}))


WP, SMEP, SMAP, NXE = 1 << 16, 1 << 20, 1 << 21, 1 << 11

ENTRY = "family=entry and level={} and G=0 and A=0 and D=0"
FAULTS: dict[str, tuple[str, str, Plant]] = {
    # ---- bits of entries ----
    **{
        f"bit 40 is not reserved at level {level}": (
            "5",
            f"{ENTRY.format(level)} and set=40",
            not_reserved(1 << 40, level),
        )
        for level in range(5)
    },
    **{
        f"bit 51 is not reserved at level {level}": (
            "5",
            f"{ENTRY.format(level)} and set=51",
            not_reserved(1 << 51, level),
        )
        for level in range(5)
    },
    **{
        f"bit {bit} of a large page is not reserved": (
            "4",
            f"{ENTRY.format(level)} and PS=1 and set={bit}",
            not_reserved(1 << bit, level),
        )
        for level, bit in ((1, 13), (1, 20), (2, 13), (2, 29))
    },
    **{
        f"PS is not reserved at level {level}": (
            "5",
            f"{ENTRY.format(level)} and PS=1 and set=none",
            not_reserved(PS, level),
        )
        for level in (3, 4)
    },
    "XD is not reserved without NXE": (
        "4",
        f"{ENTRY.format(0)} and NXE=0 and XD=1",
        not_reserved(XD),
    ),
    "XD is reserved with NXE": ("4", f"{ENTRY.format(1)} and XD=1", also_reserved(XD)),
    "bits above the address are reserved": (
        "4",
        f"{ENTRY.format(0)} and set in (52, 58)",
        also_reserved((1 << 62) - (1 << 52)),
    ),
    "the software's bits are reserved": (
        "4",
        f"{ENTRY.format(0)} and set=11",
        also_reserved(1 << 11),
    ),
    "the highest address bit is reserved": (
        "4",
        f"{ENTRY.format(0)} and set=39",
        also_reserved(1 << 39),
    ),
    "PAT of a large page is reserved": (
        "4",
        f"{ENTRY.format(1)} and PAT=1 and PS=1",
        also_reserved(1 << 12, pointers=False),
    ),
    "PAT of a small page is reserved": (
        "4",
        f"{ENTRY.format(0)} and PAT=1",
        in_levels(lambda n, level: level if n else reserved_leaf(level, PS)),
    ),
    "G is reserved": ("4", "family=entry and level=0 and G=1 and set=none", also_reserved(G)),
    "D is reserved in pointers": (
        "4",
        "family=entry and level=1 and D=1 and set=none",
        also_reserved(D),
    ),
    "A is reserved": ("4", "family=entry and level=0 and A=1 and set=none", also_reserved(A)),
    "P is ignored": (
        "4",
        f"{ENTRY.format(1)} and P=0",
        in_formats(lambda format: replace(format, present=Pattern(0, 0))),
    ),
    **{
        f"PS is ignored at level {level}": (
            "4",
            f"{ENTRY.format(level)} and PS=1 and set=none",
            all_pointers(level),
        )
        for level in (1, 2)
    },
    "R/W and U/S are swapped": (
        "4",
        f"{ENTRY.format(0)} and set=none",
        in_formats(
            lambda f: replace(f, rights={**f.rights, "write": US, "user": RW}),
        ),
    ),
    "XD grants execution": (
        "4",
        f"{ENTRY.format(0)} and set=none and access=fetch",
        in_formats(lambda format: replace(format, denied=0)),
    ),
    # ---- walks ----
    "levels are swapped": (
        "4",
        "family=pair and upper=1 and lower=0",
        in_walks(lambda walks, _: replace(walks, level=walks.level ^ np.uint8(1))),
    ),
    **{
        f"a page of level {level} is elsewhere": (
            "4",
            f"family=place and level={level} and US=1 and access=read",
            moved(1 << 12 if level else 1 << 13, level),
        )
        for level in (0, 1, 2)
    },
    "the offset in a large page is that in a small one": (
        "4",
        "family=place and level=1 and US=1 and access=write",
        in_walks(
            lambda walks, _: replace(
                walks,
                physical=np.where(
                    walks.level == 1,
                    walks.physical & ~np.uint64(0x1FF000),
                    walks.physical,
                ),
            )
        ),
    ),
    "addresses of five levels are canonical by 48 bits": (
        "5",
        "family=place and level=0",
        as_of_width(48),
    ),
    "addresses of four levels are canonical by 57 bits": (
        "4",
        "family=place and level=0",
        as_of_width(57),
    ),
    "an entry below that is not present comes first": (
        "4",
        "family=pair and upper=2 and lower=1 and lower.P=0",
        in_walks(ends_bottom_up),
    ),
    "rights come before presence": (
        "4",
        "family=pair and upper=2 and lower=1 and lower.P=0 and upper.US=0",
        in_walks(rights_before_presence),
    ),
    "the leaf alone gives rights": ("4", "family=rights", granted(lambda given: given[0])),
    "the root's entry alone gives rights": ("4", "family=rights", granted(lambda given: given[-1])),
    "any entry gives rights": ("4", "family=rights", granted(np.bitwise_or.reduce)),
    "a level between is left out of the rights": (
        "5",
        "family=rights and WP=1 and by=user",
        granted(lambda given: np.bitwise_and.reduce(np.delete(given, 2, axis=0))),
    ),
    # ---- rights ----
    "the user may access all pages": ("4", f"{ENTRY.format(2)} and by=user", all_granted(US)),
    "all pages can be written": ("4", f"{ENTRY.format(2)} and access=write", all_granted(RW)),
    "all pages can be executed": ("4", f"{ENTRY.format(2)} and access=fetch", all_granted(XD)),
    "WP is ignored": ("4", f"{ENTRY.format(0)} and access=write", without("cr0", WP)),
    "WP always holds": ("4", f"{ENTRY.format(0)} and access=write", with_("cr0", WP)),
    "SMEP is ignored": ("4", f"{ENTRY.format(0)} and access=fetch", without("cr4", SMEP)),
    "SMEP always holds": ("4", f"{ENTRY.format(0)} and access=fetch", with_("cr4", SMEP)),
    "SMAP is ignored": ("4", f"{ENTRY.format(0)} and access=read", without("cr4", SMAP)),
    "SMAP always holds": ("4", f"{ENTRY.format(0)} and access=read", with_("cr4", SMAP)),
    "EFLAGS.AC is ignored": (
        "4",
        f"{ENTRY.format(0)} and access=read",
        in_question(ac=np.zeros_like),
    ),
    "EFLAGS.AC always holds": (
        "4",
        f"{ENTRY.format(0)} and access=write",
        in_question(ac=np.ones_like),
    ),
    "all accesses are the user's": ("4", ENTRY.format(0), in_question(user=np.ones_like)),
    "all accesses are the supervisor's": ("4", ENTRY.format(0), in_question(user=np.zeros_like)),
    "a fetch is a read": (
        "4",
        f"{ENTRY.format(0)} and XD=1",
        in_question(kind=lambda kind: np.where(kind == Kind.FETCH, Kind.READ, kind)),
    ),
    "a write is a read": (
        "4",
        f"{ENTRY.format(0)} and RW=0",
        in_question(kind=lambda kind: np.where(kind == Kind.WRITE, Kind.READ, kind)),
    ),
    # ---- what a fault reports ----
    "P is clear for a right that is missing": ("4", f"{ENTRY.format(0)} and P=1", error_bits(P)),
    "P is set for an entry that is absent": (
        "4",
        f"{ENTRY.format(0)} and P=0",
        error_bits(raised=P),
    ),
    "W is never set": ("4", f"{ENTRY.format(1)} and P=0", error_bits(W_ERROR)),
    "U is never set": ("4", f"{ENTRY.format(1)} and P=0", error_bits(U_ERROR)),
    "RSVD is never set": ("4", f"{ENTRY.format(1)} and set=51", error_bits(RSVD_ERROR)),
    "I is never set": ("4", f"{ENTRY.format(1)} and P=0", error_bits(I_ERROR)),
    "I is set without NXE and SMEP": (
        "4",
        f"{ENTRY.format(1)} and P=0 and access=fetch and NXE=0",
        error_bits(raised=I_ERROR),
    ),
    "CR2 is not set by a page fault": (
        "4",
        f"{ENTRY.format(1)} and P=0",
        in_answer(lambda out, _: replace(out, sets_cr2=np.zeros_like(out.sets_cr2))),
    ),
    "CR2 is set by a protection fault": (
        "4",
        "family=place and level=0",
        in_answer(lambda out, _: replace(out, sets_cr2=out.vector != ALLOWED)),
    ),
    "a non-canonical address is a page fault": (
        "4",
        "family=place and level=0",
        in_answer(
            lambda out, _: replace(
                out,
                vector=np.where(out.vector == Vector.GP, Vector.PF, out.vector).astype(np.uint8),
            )
        ),
    ),
    # ---- A and D ----
    "A is not set in the leaf": (
        "4",
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda _, sets: without_in(sets, 0, A)),
    ),
    "A is not set in the root's entry": (
        "5",
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda _, sets: without_in(sets, 4, A)),
    ),
    "D is not set by a write": (
        "4",
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda _, sets: sets & ~np.uint64(D)),
    ),
    "D is set by every access": (
        "4",
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda lanes, sets: raised_in(lanes, sets, 0)),
    ),
    "D is set in pointers": (
        "4",
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda lanes, sets: raised_in(lanes, sets, 1)),
    ),
}


# ---- and found ----


@pytest.fixture(scope="module")
def bench() -> Iterator[Rig]:
    """A guest with the chains of both modes, made while the reference is unharmed."""
    usual = Model("4")
    with Guest("tcg", ram_bytes=usual.ram_bytes, cpu=usual.processor, qemu=QEMU) as guest:
        made = Rig(guest)
        for mode in PLACES:
            made.chain(replace(usual, mode=mode))
        yield made


def disagreed(bench: Rig, plan: matrix.Plan) -> int:
    return sum(part.comparison.disagreed for part in matrix.tried_on(bench, plan.work))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_reference_is_found(
    bench: Rig, monkeypatch: MonkeyPatch, fault: str
) -> None:
    mode, where, plant = FAULTS[fault]
    condition = f"{PLACES[mode]} and page1gb=1 and {where}"
    plan = matrix.plan("quick", [mode], "tcg", bench.guest.info, condition)
    plant(monkeypatch)
    assert disagreed(bench, plan) > 0
