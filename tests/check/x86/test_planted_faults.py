"""The check is checked: a fault planted in the reference makes the machine disagree with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest

from harness.check import layouts, marks
from harness.check.x86 import validate
from harness.check.x86.window import Window
from harness.machine.x86.engines import why_absent
from harness.machine.x86.guest import Guest
from harness.paging import bulk
from harness.paging.bulk import End, Walks
from harness.paging.format import Field, Format, Level
from harness.paging.memory import BufferMemory, Memory, Words
from harness.paging.table import Root, Table
from harness.paging.x86 import formats
from harness.paging.x86.cpu import Cpu, canonical_halves

pytestmark = pytest.mark.hw

PROGRAMS = {
    "tcg": os.environ.get("QEMU", "qemu-system-x86_64"),
    "bochs": os.environ.get("BOCHS", "bochs"),
}
"""Two engines, on each of which alone every fault is caught."""


def reading(cpu: Cpu, format: Format) -> Cpu:
    """The same CPU, but the reference reads its tables by another format."""
    other = replace(cpu)
    other.__dict__["format"] = format
    return other


def with_levels(format: Format, **levels: Level) -> Format:
    """The format with some levels replaced, unchecked: the fault may be one of geometry."""
    changed = replace(format)
    altered = tuple(
        levels.get(f"level{number}", level) for number, level in enumerate(format.levels)
    )
    object.__setattr__(changed, "levels", altered)
    return changed


def wrong_address_mask(cpu: Cpu, _: pytest.MonkeyPatch) -> Cpu:
    pte = cpu.format.levels[0]
    assert pte.leaf is not None
    short = replace(pte.leaf, address=(Field(pte.leaf.address[0].mask & ~formats.bits(13)),))
    return reading(cpu, with_levels(cpu.format, level0=replace(pte, shapes=(short,))))


def levels_swapped(cpu: Cpu, _: pytest.MonkeyPatch) -> Cpu:
    pte, pde = cpu.format.levels[:2]
    return reading(
        cpu,
        with_levels(
            cpu.format, level0=replace(pte, shift=pde.shift), level1=replace(pde, shift=pte.shift)
        ),
    )


def xd_ignored(cpu: Cpu, _: pytest.MonkeyPatch) -> Cpu:
    rights = {**cpu.format.rights, "execute": formats.P}
    return reading(cpu, replace(cpu.format, rights=rights, denied=0))


def rights_of_the_leaf_alone(cpu: Cpu, patch: pytest.MonkeyPatch) -> Cpu:
    def leaf_alone(memory: Memory, roots: tuple[Root, ...], addresses: Words) -> Walks:
        walks = true_walk(memory, roots, addresses)
        given = (walks.raw ^ np.uint64(cpu.format.denied)) & np.uint64(cpu.format.rights_mask)
        return replace(walks, granted=np.where(walks.end == End.LEAF, given, walks.granted))

    true_walk = bulk.walk
    patch.setattr(bulk, "walk", leaf_alone)
    return cpu


def reserved_bit_accepted(cpu: Cpu, _: pytest.MonkeyPatch) -> Cpu:
    return reading(cpu, cpu.format.without_reserved())


def canonical_width_48(cpu: Cpu, _: pytest.MonkeyPatch) -> Cpu:
    other = replace(cpu)
    table: Table = cpu.roots[0].table
    other.__dict__["roots"] = tuple(Root(table, half) for half in canonical_halves(4))
    return other


def offset_from_the_wrong_level(cpu: Cpu, patch: pytest.MonkeyPatch) -> Cpu:
    def short_offset(memory: Memory, roots: tuple[Root, ...], addresses: Words) -> Walks:
        walks = true_walk(memory, roots, addresses)
        small = np.uint64(cpu.format.levels[0].size - 1)
        size = np.array([level.size for level in cpu.format.levels], np.uint64)[walks.level]
        lost = addresses & (size - np.uint64(1)) & ~small
        found = walks.end == End.LEAF
        return replace(walks, physical=np.where(found, walks.physical & ~lost, walks.physical))

    true_walk = bulk.walk
    patch.setattr(bulk, "walk", short_offset)
    return cpu


def accessed_and_dirty_not_expected(cpu: Cpu, _: pytest.MonkeyPatch) -> Cpu:
    return reading(cpu, replace(cpu.format, accessed=0, dirty=0))


Fault = Callable[[Cpu, pytest.MonkeyPatch], Cpu]

PLANTED: dict[Fault, tuple[str, int]] = {
    wrong_address_mask: ("halves", 4),
    levels_swapped: ("halves", 4),
    xd_ignored: ("rights", 4),
    rights_of_the_leaf_alone: ("rights", 5),
    reserved_bit_accepted: ("malformed", 4),
    canonical_width_48: ("edges-57", 5),
    offset_from_the_wrong_level: ("halves", 4),
    accessed_and_dirty_not_expected: ("smallest", 5),
}


MARKED = 0x0123_4567_89AB_CDEF
"""In place of what marks of a process are made of."""


def disagreements(engine: str, name: str, levels: int, fault: Fault | None) -> int:
    """How many answers disagree when the reference has the fault and the machine has not."""
    reason = why_absent(engine, program=PROGRAMS[engine])
    if reason is not None:
        pytest.skip(f"{engine} cannot run here: {reason}")
    layout = layouts.load(layouts.find(name))
    with (
        validate.guest_for(layout, engine, PROGRAMS[engine]) as guest,
        pytest.MonkeyPatch.context() as patch,
    ):
        if reason := validate.lacking(layout, levels, guest.info):
            pytest.skip(f"{engine}: {reason}")
        memory, cpu = validate.build_in(guest, layout, levels)
        # Where a wrong reference lets pages be executed that it has not marked, the marks that are
        # in registers decide what becomes of the guest: of random ones one in twenty is lost.
        patch.setattr(marks, "NONCE", MARKED)
        patch.setattr(validate, "_window", window_of(cpu))
        asked = fault(cpu, patch) if fault else cpu
        return sum(one.disagreed for one in validate.compare_space(guest, memory, asked))


def window_of(cpu: Cpu) -> Callable[..., object]:
    """The window as the sound CPU state makes it: the fault is the reference's alone."""
    sound = validate._window

    @contextmanager
    def window(guest: Guest, memory: BufferMemory, _: Cpu) -> Iterator[Window]:
        with sound(guest, memory, cpu) as opened:
            yield opened

    return window


@pytest.mark.parametrize("engine", PROGRAMS)
@pytest.mark.parametrize("fault", PLANTED, ids=lambda fault: fault.__name__)
def test_a_planted_fault_is_caught(fault: Fault, engine: str) -> None:
    name, levels = PLANTED[fault]
    assert disagreements(engine, name, levels, fault) > 0


@pytest.mark.parametrize("engine", PROGRAMS)
def test_planting_nothing_changes_nothing(engine: str) -> None:
    """That all these layouts agree with the sound reference is for test_validate to hold."""
    assert disagreements(engine, "smallest", 4, None) == 0
