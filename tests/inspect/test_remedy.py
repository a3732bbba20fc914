"""A change that is proposed lets the access pass, no part of it does, and nothing smaller would.

Each is made in a copy of the memory and judged again by the rules of access.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import combinations, islice
from typing import Any

import pytest

from harness.check.layouts import load, shipped
from harness.inspect import remedy as remedies_module
from harness.inspect.remedy import Missing, Remedy, remedies
from harness.inspect.sources import layout
from harness.paging.address import Physical, Virtual
from harness.paging.memory import BufferMemory, Mask, Memory, Words
from harness.paging.walk import leaves, walk
from harness.paging.x86.access import Access, Allowed, Fault, Kind, Outcome, Reason, outcome
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode, linear, root_for
from tests.paging.x86 import drawn
from tests.paging.x86.made import path

PROPOSED = set(Reason) - {
    *(Reason.NOT_CANONICAL, Reason.CR3_RESERVED, Reason.PDPTE_RESERVED, Reason.LA57_CHANGED)
}
"""What a change of tables or registers can help."""


class Changed:
    """Memory with some words in place of its own."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.words: dict[int, int] = {}

    def load(self, address: Physical, size: int) -> int | None:
        return self.words[address] if address in self.words else self.memory.load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        raise NotImplementedError


Atom = tuple[int | str, int]
"""One bit that is changed: of the entry at an address, or of a register."""


def atoms(remedy: Remedy) -> list[Atom]:
    """Every bit that a remedy changes."""
    words: list[Atom] = [(one.slot.address, one.old ^ one.new) for one in remedy.entries]
    registers: list[Atom] = [(one.register, one.old ^ one.new) for one in remedy.settings]
    return [
        (where, 1 << bit)
        for where, changed in (*words, *registers)
        for bit in range(64)
        if changed >> bit & 1
    ]


def flipped(cpu: Cpu, memory: Memory, bits: Iterable[Atom]) -> tuple[Cpu, Changed]:
    """The CPU and the memory with just these bits changed."""
    copy, width = Changed(memory), cpu.format.entry_bytes
    for where, bit in bits:
        if isinstance(where, str):
            value = getattr(cpu, where) ^ bit
            given: dict[str, Any] = {where: bool(value) if where == "ac" else value}
            cpu = replace(cpu, **given)
        else:
            old = copy.load(Physical(where), width)
            assert old is not None
            copy.words[where] = old ^ bit
    return cpu, copy


FREE = 0xF000_0000
"""Where tables are made: beyond the memory of every case."""


def make(cpu: Cpu, memory: Changed, missing: Missing, address: int) -> Cpu:
    """Makes what is missing: tables from FREE on, and a page at 0."""
    width = cpu.format.entry_bytes
    where = missing.slot.address if missing.slot else None
    for number, entry in enumerate(missing.entries):
        target = 0 if entry.page else FREE + (number << 12)
        raw = entry.bits | target
        if where is None:
            register = address >> 30
            pdptes = (*cpu.pdptes[:register], raw, *cpu.pdptes[register + 1 :])
            cpu = replace(cpu, pdptes=pdptes)
        else:
            memory.words[where] = raw
        if not entry.page:
            index = cpu.format.levels[entry.level - 1].index(address)
            where = Physical(target + index * width)
    return cpu


def after(
    cpu: Cpu, memory: Memory, address: int, access: Access, remedy: Remedy, bits: list[Atom]
) -> Outcome:
    """What the access comes to with these of the remedy's bits, and with what was missing."""
    changed, copy = flipped(cpu, memory, bits)
    if remedy.missing is not None:
        target = address if access.kind is Kind.FETCH else linear(cpu, Virtual(address))
        changed = make(changed, copy, remedy.missing, target)
    return outcome(changed, copy, Virtual(address), access)


def check(cpu: Cpu, memory: Memory, address: int, access: Access) -> tuple[Remedy, ...]:
    """Holds the rules of this file for the access, which faults."""
    found = remedies(cpu, memory, Virtual(address), access)
    for one in found:
        bits = atoms(one)
        answer = after(cpu, memory, address, access, one, bits)
        assert isinstance(answer, Allowed), (cpu, hex(address), access, one)
        assert one.missing is not None or one.cost == len(bits)
        for count in range(len(bits)):
            for fewer in islice(combinations(bits, count), 40):
                less = after(cpu, memory, address, access, one, list(fewer))
                assert not isinstance(less, Allowed), (one, fewer)
    assert [one.cost for one in found] == sorted(one.cost for one in found)
    return found


def faults(mode: Mode, seeds: range, each: int) -> Iterator[tuple[Cpu, BufferMemory, int, Access]]:
    """Random accesses that fault."""
    for seed in seeds:
        source = random.Random(seed)
        cpu, memory = drawn.cpu(source, mode), drawn.memory(source, mode)
        for _ in range(each):
            address, access = drawn.address(source, mode), drawn.access(source)
            if isinstance(outcome(cpu, memory, Virtual(address), access), Fault):
                yield cpu, memory, address, access


def reason(cpu: Cpu, memory: BufferMemory, address: int, access: Access) -> Reason:
    answer = outcome(cpu, memory, Virtual(address), access)
    assert isinstance(answer, Fault)
    return answer.reason


def test_on_random_memory_every_change_helps_and_each_of_its_bits_is_needed() -> None:
    """For every rule by which something is denied."""
    helped = {
        reason(*case) for mode in Mode for case in faults(mode, range(20), 25) if check(*case)
    }
    assert helped == PROPOSED


SHIPPED = [(path.stem, levels) for path in shipped() for levels in load(path).levels]


@pytest.mark.parametrize(("name", "levels"), SHIPPED)
def test_on_every_shipped_layout_each_fault_is_helped(name: str, levels: int) -> None:
    snapshot = layout.snapshot(name, levels, {})
    cpu, memory = snapshot.cpu, snapshot.memory
    strict = replace(cpu, cr4=cpu.cr4 | Cr4.SMEP | Cr4.SMAP)
    tried = set()
    for page in islice(leaves(memory, cpu.roots), 0, 1500, 7):
        signs = tuple((step.slot.level, step.raw & 0x8000_0000_0000_0187) for step in page.steps)
        if signs in tried or page.unbacked:
            continue
        tried.add(signs)
        hole = (page.address ^ 1 << 30) & -0x1000
        for state, address, kind, user in (
            (state, address, kind, user)
            for state in (cpu, strict)
            for address in (page.address, hole)
            for kind in (Kind.READ, Kind.WRITE, Kind.FETCH)
            for user in (False, True)
        ):
            access = Access(kind, user)
            if isinstance(outcome(state, memory, Virtual(address), access), Fault):
                assert check(state, memory, address, access)
    assert tried


def others(cpu: Cpu, memory: BufferMemory, address: int, access: Access) -> list[Atom]:
    """Every bit that a change might touch: of each entry on the walk those that are no part of an
    address, presence or kind; of the registers those that the rules ask about."""
    target = Virtual(address) if access.kind is Kind.FETCH else linear(cpu, Virtual(address))
    root = root_for(cpu, target)
    assert root is not None
    found = walk(memory, root, target)
    key = range(59, 63) if cpu.long else ()
    entries: list[Atom] = [
        (step.slot.address, 1 << bit)
        for step in found.steps
        for bit in (1, 2, 6, *key, 63)
        if bit < 8 * cpu.format.entry_bytes
    ]
    registers: list[Atom] = [("cr0", Cr0.WP), ("ac", 1), ("efer", Efer.NXE)]
    registers += [("cr4", bit) for bit in (Cr4.SMEP, Cr4.SMAP)]
    registers += [(name, 1 << bit) for name in ("pkru", "pkrs") for bit in range(32) if cpu.long]
    return entries + registers


@pytest.mark.parametrize("mode", Mode)
def test_no_other_change_of_fewer_bits_lets_the_access_pass(mode: Mode) -> None:
    """Tried by brute force where the walk is valid and the rights alone deny."""
    source, tried = random.Random(1), 0
    for cpu, memory, address, access in faults(mode, range(20, 50), 30):
        answer = outcome(cpu, memory, Virtual(address), access)
        assert isinstance(answer, Fault)
        if answer.error & 0b1001 != 1:
            continue
        best = min((one.cost for one in remedies(cpu, memory, Virtual(address), access)), default=4)
        bits = others(cpu, memory, address, access)
        fewer = [[bit] for bit in bits] if best > 1 else []
        if best > 2:
            pairs = list(combinations(bits, 2))
            fewer += [list(pair) for pair in source.sample(pairs, min(60, len(pairs)))]
        tried += len(fewer) > 0
        for some in fewer:
            changed, copy = flipped(cpu, memory, some)
            less = outcome(changed, copy, Virtual(address), access)
            assert not isinstance(less, Allowed), (cpu, hex(address), access, some, best)
        if tried == 25:
            break
    assert tried > 5


CPU = Cpu.in_mode(Mode.LEVEL_4, 0)
WRITE = Access(Kind.WRITE, user=True)


def first(cpu: Cpu, memory: BufferMemory, access: Access) -> Remedy:
    return remedies(cpu, memory, Virtual(0), access)[0]


def test_all_entries_that_deny_are_changed_together() -> None:
    """0x1000 and 0x3000 withhold U, which is flushed when given; 0x3000 and 0x4000 W."""
    found = first(*path(CPU, 3, 7, 1, 5), WRITE)
    assert [(one.slot.address, one.old, one.new) for one in found.entries] == [
        (0x1000, 0x2003, 0x2007),
        (0x3000, 0x4001, 0x4007),
        (0x4000, 0x8005, 0x8007),
    ]
    assert [one.span.size for one in found.entries] == [512 << 30, 2 << 20, 4 << 10]
    assert [one.flush for one in found.entries] == [True, True, False]


@pytest.mark.parametrize(
    ("access", "cpu", "names"),
    [
        (Access(Kind.READ, user=False), {"cr4": CPU.cr4 | Cr4.SMAP}, "EFLAGS.AC"),
        (Access(Kind.READ, user=False, implicit=True), {"cr4": CPU.cr4 | Cr4.SMAP}, ""),
        (Access(Kind.FETCH, user=False), {"cr4": CPU.cr4 | Cr4.SMEP}, ""),
        (Access(Kind.READ, user=True), {"cr4": CPU.cr4 | Cr4.PKE, "pkru": 3}, "PKRU.AD0"),
    ],
)
def test_what_concerns_the_least_comes_first(
    access: Access, cpu: dict[str, int], names: str
) -> None:
    """AC and PKRU are the program's own, a page's entry concerns the page, CR4 everything."""
    state, memory = path(replace(CPU, **cpu), 7, 7, 7, 7)  # type: ignore[arg-type]
    found = first(state, memory, access)
    assert " ".join(one.name for one in found.settings) == names
    if not names:
        (entry,) = found.entries
        assert (entry.slot.address, entry.new, entry.flush) == (0x4000, 0x8003, True)


def test_a_missing_entry_is_described_down_to_the_smallest_page_and_as_a_large_one() -> None:
    found = remedies(*path(CPU, 7, 7), Virtual(0), WRITE)
    made = [
        [(new.level, new.bits, new.page) for new in one.missing.entries]
        for one in found
        if one.missing
    ]
    assert [(1, 0x87, True)] in made
    assert [(1, 7, False), (0, 7, True)] in made


def test_nothing_helps_an_address_that_is_not_canonical_or_a_table_without_memory() -> None:
    cpu, memory = path(CPU, 7, 7, 7, 7)
    assert remedies(cpu, memory, Virtual(1 << 47), WRITE) == ()
    memory.store(Physical(0x1000), 8, 0xFFFF_0087)
    assert remedies(cpu, memory, Virtual(0), WRITE) == ()


def test_a_change_that_is_not_needed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies_module._Trial, "minimal", lambda self, state: True)
    with pytest.raises(AssertionError):
        for case in faults(Mode.LEVEL_4, range(12), 25):
            check(*case)


def test_a_change_that_does_not_help_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remedies_module._Trial, "passes", lambda self, state: bool(state.words))
    monkeypatch.setattr(remedies_module._Trial, "minimal", lambda self, state: True)
    with pytest.raises(AssertionError):
        for case in faults(Mode.LEVEL_4, range(4), 25):
            check(*case)
