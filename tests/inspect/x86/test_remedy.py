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
from harness.inspect.held import UnreadError
from harness.inspect.remedy import Missing, Remedy
from harness.inspect.sources import layout
from harness.inspect.x86 import remedy as remedies_module
from harness.inspect.x86.remedy import ignored_ps, remedies
from harness.paging import bulk
from harness.paging.address import Physical, Virtual
from harness.paging.memory import BufferMemory, Mask, Memory, Words
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.paging.x86.access import (
    Access,
    Allowed,
    Fault,
    Kind,
    Outcome,
    Reason,
    Unbacked,
    outcome,
)
from harness.paging.x86.cpu import Cpu, Cr0, Cr4, Efer, Mode, linear
from tests.paging.x86 import drawn
from tests.paging.x86.made import PAGE, path

PROPOSED = set(Reason) - {
    *(Reason.NOT_CANONICAL, Reason.CR0_INVALID, Reason.CR3_RESERVED, Reason.CR4_RESERVED),
    *(Reason.PDPTE_RESERVED, Reason.LA57_CHANGED, Reason.PAE_CLEARED, Reason.PCIDE_SET),
    Reason.CET_WITHOUT_WP,
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


OFF = {("cr0", int(Cr0.WP)), *(("cr4", int(bit)) for bit in (Cr4.SMEP, Cr4.SMAP, Cr4.LASS))}
"""Bits of which each protects pages that an access has nothing to do with."""


def order(remedy: Remedy) -> tuple[bool, bool, bool, int]:
    """Protection is switched off last, before that come registers that concern all pages, before
    these addresses that are changed; else the fewest bits come first."""
    bits = atoms(remedy)
    control = any(where in ("cr0", "cr4", "efer") for where, _ in bits)
    address = any(not isinstance(where, str) and bit & 0xF_FFFF_FFFF_F000 for where, bit in bits)
    return bool(OFF & set(bits)), address, control, remedy.cost


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
        made = one.missing.entries if one.missing is not None else ()
        assert one.cost == len(bits) + sum(entry.bits.bit_count() for entry in made)
        for count in range(len(bits)):
            for fewer in islice(combinations(bits, count), 40):
                less = after(cpu, memory, address, access, one, list(fewer))
                assert not isinstance(less, Allowed), (one, fewer)
    assert [order(one) for one in found] == sorted(order(one) for one in found)
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


@pytest.mark.parametrize("mode", Mode)
def test_on_random_memory_tables_outside_it_are_helped(mode: Mode) -> None:
    source, tried = random.Random(7), 0
    while tried < 12:
        cpu, memory = drawn.cpu(source, mode), drawn.memory(source, mode)
        address, access = drawn.address(source, mode), drawn.access(source)
        answer = outcome(cpu, memory, Virtual(address), access)
        if isinstance(answer, Unbacked) and answer.slot.table not in {r.table for r in cpu.roots}:
            assert check(cpu, memory, address, access)
            tried += 1


SHIPPED = [(path.stem, levels) for path in shipped() for levels in load(path).levels]


@pytest.mark.parametrize(("name", "levels"), SHIPPED)
def test_on_every_shipped_layout_each_fault_is_helped(name: str, levels: int) -> None:
    snapshot = layout.snapshot(name, levels, {})
    cpu, memory = snapshot.cpu, snapshot.memory
    strict = replace(cpu, cr4=cpu.cr4 | Cr4.SMEP | Cr4.SMAP)
    tried = set()
    for page in bulk.leaves(memory, cpu.roots).virtual[:1500:7].tolist():
        root = root_for(cpu, Virtual(page))
        assert root is not None
        steps = walk(memory, root, Virtual(page)).steps
        signs = tuple((step.slot.level, step.raw & 0x8000_0000_0000_0187) for step in steps)
        if signs in tried:
            continue
        tried.add(signs)
        hole = (page ^ 1 << 30) & -0x1000
        for state, address, kind, user in (
            (state, address, kind, user)
            for state in (cpu, strict)
            for address in (page, hole)
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
    registers += [("cr4", bit) for bit in (Cr4.SMEP, Cr4.SMAP, Cr4.LASS)]
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


@pytest.mark.parametrize("cr4", [Cr4(0), Cr4.SMEP, Cr4.SMAP, Cr4.SMEP | Cr4.SMAP])
def test_all_entries_that_deny_are_changed_together(cr4: Cr4) -> None:
    """0x1000 and 0x3000 withhold U, which takes from the supervisor where SMEP or SMAP is on, and
    must be flushed there alone (SDM 4.10.4.3); 0x3000 and 0x4000 withhold W."""
    cpu, memory = path(replace(CPU, cr4=CPU.cr4 | cr4), 3, 7, 1, 5)
    found = first(cpu, memory, WRITE)
    assert [(one.slot.address, one.old, one.new) for one in found.entries] == [
        (0x1000, 0x2003, 0x2007),
        (0x3000, 0x4001, 0x4007),
        (0x4000, 0x8005, 0x8007),
    ]
    assert [one.span.size for one in found.entries] == [512 << 30, 2 << 20, 4 << 10]
    assert [one.flush for one in found.entries] == [bool(cr4), bool(cr4), False]


def test_more_rights_for_the_supervisor_alone_need_no_flush() -> None:
    """An absent right is no stale one: the fault that it raises drops it (SDM 4.10.4.2)."""
    cpu, memory = path(CPU, 3, 3, 3, 1)
    (entry,) = first(cpu, memory, Access(Kind.WRITE, user=False)).entries
    assert (entry.old, entry.new, entry.flush) == (0x8001, 0x8003, False)


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


def test_an_entry_that_is_missing_gets_a_key_that_is_open_in_its_page_alone() -> None:
    closed = replace(CPU, cr4=CPU.cr4 | Cr4.PKE, pkru=0b11)  # AD of key 0
    state, memory = path(closed, 7, 7)
    made = [
        [(new.level, new.bits, new.page) for new in one.missing.entries]
        for one in remedies(state, memory, Virtual(0), WRITE)
        if one.missing
    ]
    assert [(1, 7, False), (0, 7 | 1 << 59, True)] in made
    assert [(1, 0x87 | 1 << 59, True)] in made


@pytest.mark.parametrize("other", [0, 1 << 51])
def test_nxe_makes_xd_a_right_and_leaves_other_reserved_bits_to_be_cleared(other: int) -> None:
    raw, without = 0x8007 | 1 << 63 | other, replace(CPU, efer=CPU.efer & ~Efer.NXE)
    state, memory = path(without, 7, 7, 7, raw)
    found = [
        ([one.name for one in remedy.settings], [(one.old, one.new) for one in remedy.entries])
        for remedy in remedies(state, memory, Virtual(0), WRITE)
    ]
    assert ([], [(raw, 0x8007)]) in found
    assert (["EFER.NXE"], [(raw, raw & ~other)] if other else []) in found
    assert len(found) == 2


def test_nothing_helps_an_address_that_is_not_canonical_or_a_root_without_memory() -> None:
    cpu, memory = path(CPU, 7, 7, 7, 7)
    assert remedies(cpu, memory, Virtual(1 << 47), WRITE) == ()
    assert remedies(replace(cpu, cr3=0x8_0000), memory, Virtual(0), WRITE) == ()


LEVELS = {Mode.BITS_32: 2, Mode.PAE: 2, Mode.LEVEL_4: 4, Mode.LEVEL_5: 5}
OUTSIDE = 0x8_0000
"""Beyond the memory of `path`."""


@pytest.mark.parametrize("mode", Mode)
def test_in_place_of_a_table_outside_memory_another_is_made_at_every_level(mode: Mode) -> None:
    for depth in range(LEVELS[mode] - 1):
        cpu, memory = path(Cpu.in_mode(mode, 0), *[7] * LEVELS[mode])
        slot = Physical(0x1000 * (depth + 1))
        memory.store(slot, cpu.format.entry_bytes, OUTSIDE | 7)
        (found,) = check(cpu, memory, 0, WRITE)
        assert found.missing is not None and found.missing.slot is not None
        assert (found.missing.slot.address, found.missing.old) == (slot, OUTSIDE | 7)
        assert len(found.missing.entries) == LEVELS[mode] - depth


def test_of_the_keys_that_let_an_access_pass_the_one_with_the_fewest_other_bits_is_offered() -> (
    None
):
    """AD of PKRU is clear for keys 0 and 5 alone: from 7 it is one bit to 5, bit 60 (SDM 4.6.2)."""
    cpu, memory = path(CPU, 7, 7, 7, 7 | 7 << 59)
    pkru = sum(1 << 2 * key for key in range(16) if key not in (0, 5))
    keyed = replace(cpu, cr4=cpu.cr4 | Cr4.PKE, pkru=pkru)
    register, entry = check(keyed, memory, 0, WRITE)
    assert atoms(register) == [("pkru", 1 << 14)]
    assert atoms(entry) == [(0x4000, 1 << 60)]
    allowed = replace(cpu, cr4=keyed.cr4, pkru=pkru ^ 1 << 14)
    assert register.applied_to(keyed) == allowed and entry.applied_to(keyed) == keyed


def test_entries_come_first_and_what_switches_protection_off_comes_last() -> None:
    """A read-only page below tables that are read-only, written by the supervisor: three entries
    against one bit of CR0."""
    cpu, memory = path(CPU, 5, 5, 7, 5)
    entries, wp = check(cpu, memory, 0, Access(Kind.WRITE, user=False))
    assert (len(entries.entries), entries.cost, entries.unprotects) == (3, 3, False)
    assert ([one.name for one in wp.settings], wp.cost, wp.unprotects) == (["CR0.WP"], 1, True)


def test_a_register_that_gives_bits_their_meaning_comes_before_one_that_protects() -> None:
    """XD in a read-only page with EFER.NXE=0: it is cleared or NXE set, and W set or WP cleared."""
    cpu, memory = path(replace(CPU, efer=CPU.efer & ~Efer.NXE), 7, 7, 7, 5 | 1 << 63)
    found = check(cpu, memory, 0, Access(Kind.WRITE, user=False))
    assert [sorted(one.name for one in each.settings) for each in found[:2]] == [[], ["EFER.NXE"]]
    assert [each.unprotects for each in found] == [False, False, True, True]


@pytest.mark.parametrize("off", ["CR4.SMEP", "CR4.SMAP"])
def test_smep_and_smap_are_switched_off_last(off: str) -> None:
    strict = replace(CPU, cr4=CPU.cr4 | Cr4.SMEP | Cr4.SMAP)
    kind = Kind.FETCH if off == "CR4.SMEP" else Kind.READ
    found = check(*path(strict, 7, 7, 7, 7), 0, Access(kind, user=False))
    assert [one.name for one in found[-1].settings] == [off]
    assert [one.unprotects for one in found] == [False] * (len(found) - 1) + [True]


BITS_32 = Cpu.in_mode(Mode.BITS_32, 0)


@pytest.mark.parametrize(
    ("pde", "cr4", "ignored"),
    [(0x2083, 0, True), (0x2003, 0, False), (0x2082, 0, False), (0x83, Cr4.PSE, False)],
)
def test_ps_is_ignored_in_a_pde_that_is_present_while_cr4_pse_is_clear(
    pde: int, cr4: int, ignored: bool
) -> None:
    cpu, memory = path(replace(BITS_32, cr4=cr4), 7, 7)
    memory.store(Physical(0x1000), 4, pde)
    pde_step, *rest = walk(memory, cpu.roots[0], Virtual(0)).steps
    assert ignored_ps(cpu, pde_step) == ignored
    assert not any(ignored_ps(cpu, step) for step in rest)


@pytest.mark.parametrize("pde", [0x83, 0x40_0083, OUTSIDE | 0x83])
def test_a_large_page_that_needs_cr4_pse_is_offered_it(pde: int) -> None:
    """The PDE has PS set, and is taken for a pointer: to an empty table, or to none."""
    cpu, memory = path(BITS_32, 7)
    memory.store(Physical(0x1000), 4, pde)
    found = check(cpu, memory, 0x5000, Access(Kind.READ, user=False))
    (pse,) = (one for one in found if one.settings)
    assert [one.name for one in pse.settings] == ["CR4.PSE"] and not pse.unprotects
    wide = pde & 0x1F_E000  # bits 39:32 of the address (SDM table 4-4)
    assert pse.reaches == (pde & 0xFFC0_0000 | 0x5000 | wide << 19)


def test_cr4_pse_is_not_offered_where_it_means_nothing() -> None:
    for cpu, flags in ((BITS_32, (7, 0)), (CPU, (7, 0x87, 0, 0)), (BITS_32, (7, 0x80))):
        found = remedies(*path(cpu, *flags), Virtual(0), WRITE)
        assert found and not [one for one in found if one.settings]


@pytest.mark.parametrize(
    ("raw", "reaches"),
    [
        (0x000F_FFFF_A759_8063, 0xFF_A759_8000),
        (0xFFFF_FFFF_FEE0_0083, 0xFF_FEE0_0000),
        (1 << 40 | 0x8007, 0x8000),
    ],
)
def test_reserved_bits_of_an_address_are_suspect_and_lead_where_is_said(
    raw: int, reaches: int
) -> None:
    cpu, memory = path(CPU, 7, 7, 7, 7)
    memory.store(Physical(0x4000), 8, raw)
    first, *_ = check(cpu, memory, 0, Access(Kind.READ, user=False))
    assert (first.suspect, first.reaches) == (True, reaches)


def test_ps_in_an_entry_that_leads_to_a_table_is_cleared_before_the_address_is() -> None:
    """A PDE that leads to the table at 0x4000, with PS by mistake; and a 2M page that is askew."""
    cpu, memory = path(CPU, 7, 7, 0x87, 7)
    memory.store(Physical(0x3000), 8, 0x4087)
    table, page = check(cpu, memory, 0, Access(Kind.READ, user=False))
    assert [(one.new, table.suspect) for one in table.entries] == [(0x4007, False)]
    assert [(one.new, page.suspect) for one in page.entries] == [(0x87, True)]
    assert (table.reaches, page.reaches) == (PAGE, 0)


class Partly:
    """Memory of which one page was not read."""

    def __init__(self, memory: BufferMemory, page: int) -> None:
        self.memory, self.page = memory, page

    def load(self, address: Physical, size: int) -> int | None:
        if address & -0x1000 == self.page:
            raise UnreadError("it was not read")
        return self.memory.load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        raise NotImplementedError


@pytest.mark.parametrize("target", [0, 0x9000])
def test_a_change_that_leads_where_nothing_was_read_claims_nothing(target: int) -> None:
    """PS in a PDPTE where there are no 1G pages: without it the entry leads to another table."""
    cpu, memory = path(replace(CPU, page1gb=False), 7, 7)
    memory.store(Physical(0x2000), 8, target | 0x87)
    (found,) = remedies(cpu, Partly(memory, target), Virtual(0x20_0000), WRITE)
    assert found.unread is not None and found.unread.address == target + 8
    assert [(one.old, one.new) for one in found.entries] == [(target | 0x87, target | 7)]
    assert found.reaches is None
    assert remedies(cpu, memory, Virtual(0x20_0000), WRITE)[0].unread is None


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
