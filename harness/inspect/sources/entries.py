"""The entries of one walk, as a kernel or a debugger prints them, and nothing else of the memory.

Each entry is put where the walk of its address reads it: in the table to which the entry above it
leads.  Where that is not known, the table is made up, and so are the entries above the lowest one
that are missing; both are named in the snapshot.  The module `entries` of each architecture has
the processor that the entries fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from harness.architectures import NAMES, USUAL, has, module_of
from harness.inspect import architecture, decode
from harness.inspect.names import folded, level_named, name_of
from harness.inspect.snapshot import QuestionError, Snapshot, SourceError
from harness.paging.address import Physical, Virtual
from harness.paging.entry import Pointer
from harness.paging.memory import Mask, Memory, Words
from harness.paging.processor import Cpu
from harness.paging.table import Table

Pairs = Sequence[tuple[str, int]]
"""Entries, each after its name."""


class GivenMemory:
    """Memory that holds a few words, at physical addresses, and is not known else."""

    def __init__(self, words: Mapping[int, int]) -> None:
        self._words = words

    def load(self, address: Physical, size: int) -> int | None:
        """The word at an address; None where none is known."""
        return self._words.get(address)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses, and which of them are known."""
        words = [self._words.get(int(address)) for address in addresses]
        known = np.array([word is not None for word in words], np.bool_)
        return np.array([word or 0 for word in words], np.uint64), None if known.all() else known


_: type[Memory] = GivenMemory


def snapshot(title: str, pairs: Pairs, address: int, registers: Mapping[str, int]) -> Snapshot:
    """The entries that the walk of an address reads, and a CPU with these registers: of the
    architecture that has them all, or the usual one.

    Raises QuestionError for a name that is no level's, and for entries that contradict each other;
    SourceError for a register that the architecture does not have, and a state that no machine can
    be in.
    """
    other = architecture.of_root(registers)
    if other is not None and not has(other, "inspect", "entries"):
        called = architecture.named(other).called
        raise SourceError(f"of {called} no list of entries is read: decode shows each by itself")
    known = [arch for arch in NAMES if has(arch, "inspect", "entries")]
    of = {arch: architecture.named(arch).registers for arch in known}
    arch = next((arch for arch in known if registers.keys() <= of[arch]), USUAL)
    architecture.refuse_others(architecture.named(arch), registers, "the list of entries")
    found: Snapshot = module_of(arch, "inspect", "entries").snapshot(
        title, pairs, address, registers
    )
    return found


def levels_of(cpu: Cpu) -> Sequence[int]:
    """All levels, from the root down; registers that serve addresses are the first."""
    return [*reversed(decode.levels_of(cpu))]


def by_level(cpu: Cpu, pairs: Pairs, twice: str) -> dict[int, int]:
    """The entries by their levels.

    twice  why two may have come to one level of which one has the name of a level that is lacking
    """
    given: dict[int, tuple[str, int]] = {}
    for name, raw in pairs:
        level = level_named(cpu, name)
        if raw >> 8 * cpu.format.entry_bytes:
            raise QuestionError(f"{name} {raw:#x} is wider than an entry of {cpu.format.name}")
        first, other = given.setdefault(level, (name, raw))
        if other != raw:
            why = f": {twice}" if folded(cpu, [first]) != folded(cpu, [name]) else ""
            raise QuestionError(
                f"two entries are given for level {cpu.format.number(level)}, {other:#x} and"
                f" {raw:#x}{why}"
            )
    if not given:
        raise QuestionError("no entry is given: write them as PGD=... PUD=... PMD=... PTE=...")
    return {level: raw for level, (_, raw) in given.items()}


def placed(
    table: Table | None,
    given: Mapping[int, int],
    address: Virtual,
    rights: int,
    free: Iterator[Physical],
) -> tuple[dict[int, int], set[Physical]]:
    """The entries in memory, by their addresses, and the tables that are made up.

    table   the root's
    given   entries by their levels; of a case whose root's table is missing, none
    rights  what entries grant that are made up
    free    addresses for tables that are made up
    """
    words, made = dict[int, int](), set[Physical]()
    while table is not None:
        format = table.format
        slot, raw = table.slot_for(address), given.get(table.level)
        if raw is None:
            raw = words.get(slot.address)
        if raw is None and table.level > min(given, default=table.level):
            below = next(free)
            raw = format.pointer(below, table.level, rights)
            made.add(below)
        if raw is None:
            break
        if words.setdefault(slot.address, raw) != raw:
            raise QuestionError(
                f"two entries are given for {slot.address:#x}, to which this walk comes twice:"
                f" {words[slot.address]:#x} and {raw:#x}, the second as the"
                f" {format.levels[table.level].name}"
            )
        entry = format.decode(raw, table.level)
        table = entry.table if isinstance(entry, Pointer) else None
    return words, made


def made_up(cpu: Cpu, given: Mapping[int, int]) -> Iterator[str]:
    """What is assumed where entries are made up, a sentence."""
    levels = [level for level in levels_of(cpu) if min(given) < level not in given]
    names = {level: name_of(cpu, level) for level in levels_of(cpu)}
    if len(set(names.values())) < len(names):
        number = cpu.format.number
        names = {level: f"the {name} of level {number(level)}" for level, name in names.items()}
    if levels:
        verbs = "lead here and withhold" if len(levels) > 1 else "leads here and withholds"
        yield f"{' and '.join(names[level] for level in levels)} {verbs} nothing (not given)"


def unread(cpu: Cpu, given: Mapping[int, int]) -> Iterator[str]:
    """Which entries the machine does not read, since the walk ends above them."""
    levels = [level for level in levels_of(cpu) if level in given]
    for number, level in enumerate(levels):
        entry = decode.read(cpu, given[level], level).entry
        if not isinstance(entry, Pointer) and levels[number + 1 :]:
            below = ", ".join(name_of(cpu, one) for one in levels[number + 1 :])
            yield f"The walk ends at the {name_of(cpu, level)}: {below} is given and plays no part"
            return
