"""The entries of one walk of RISC-V, as a kernel or a debugger prints them, and a hart that they
fit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from harness.inspect.names import LINUX
from harness.inspect.remedy import free_tables, leading
from harness.inspect.riscv.processor import assumed as assumed_of
from harness.inspect.riscv.processor import cpu_of
from harness.inspect.snapshot import Given, QuestionError, Snapshot
from harness.inspect.sources.entries import GivenMemory, Pairs, by_level, made_up, placed, unread
from harness.paging.address import Physical, Virtual
from harness.paging.processor import root_for
from harness.paging.riscv.cpu import Cpu, Mode, Satp
from harness.paging.riscv.formats import PAGE_BITS

_TWO_NAMES = "the names that the mode lacks are those of its root's entry (--satp has the mode)"


def snapshot(
    title: str,
    pairs: Pairs,
    address: int,
    registers: Mapping[str, int],
    mode: Mode | None = None,
) -> Snapshot:
    """The entries that the walk of an address reads, and a hart with these registers.

    mode  where satp is not among the registers; None has it found by the names and the address

    Raises QuestionError for a name that is no level's, and for entries that contradict each other;
    SourceError for a state that no hart can be in.
    """
    known, said = "satp" in registers, list[str]()
    if not known:
        if mode is None:
            mode = _mode(pairs, address)
            called = mode.value.capitalize()
            said = [f"{called}, by the names of the entries and the address (--satp)"]
        registers = {**registers, "satp": Satp(mode, 0).raw}
    cpu = cpu_of(registers)
    if address >> cpu.xlen:
        raise QuestionError(f"there is no address {address:#x} on a hart of {cpu.xlen} bits")
    given = by_level(cpu, pairs, _TWO_NAMES)
    free, unplaced = tables_beside(cpu, [raw for _, raw in pairs]), set[Physical]()
    if not known:
        root = next(free)
        unplaced.add(root)
        cpu = replace(cpu, satp=Satp(cpu.mode, root >> PAGE_BITS).raw)
    found = root_for(cpu, Virtual(address))
    words, made = placed(found.table if found else None, given, Virtual(address), 0, free)
    said += [*assumed_of(cpu, registers, "the list of entries"), *made_up(cpu, given)]
    tables = Given(frozenset(given), frozenset(unplaced | made))
    notes = tuple(unread(cpu, given))
    return Snapshot(title, cpu, GivenMemory(words), None, tuple(said), notes, given=tables)


def _mode(pairs: Pairs, address: int) -> Mode:
    """The mode that the names are of: those of the levels that it lacks hold the root's entry
    again. Where that does not tell, the smallest that translates the address."""
    by_name = {name.lower(): raw for name, raw in pairs}
    *_, pud, p4d, pgd = (by_name.get(name) for name in LINUX)
    if p4d is not None and pgd is not None and p4d != pgd:
        return Mode.SV57
    if pud is not None and (p4d if p4d is not None else pgd) not in (None, pud):
        return Mode.SV48
    wide = (Mode.SV39, Mode.SV48, Mode.SV57)
    modes = [one for one in wide if root_for(Cpu.in_mode(one, 0), Virtual(address))]
    return next(iter(modes), Mode.SV57)


def tables_beside(cpu: Cpu, raws: Sequence[int]) -> Iterator[Physical]:
    """Addresses for tables that are made up: those to which no entry leads."""
    shape = leading(cpu.format)
    return free_tables(cpu.format, {cpu.base, *(shape.address_of(raw) for raw in raws)})
