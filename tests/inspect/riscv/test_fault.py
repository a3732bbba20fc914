"""Why accesses fault on RISC-V, and that each remedy helps, and needs all of its bits."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.inspect import architecture
from harness.inspect.fault import explain, explain_all
from harness.inspect.lint import lint
from harness.inspect.overlay import Overlay
from harness.inspect.remedy import Remedy
from harness.inspect.riscv.remedy import remedies
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.paging.riscv.access import Access, Allowed, Kind, Reason, outcome
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, Mstatus
from harness.paging.riscv.formats import A, D, N, R, U, V, W, X
from harness.report.fault import explanation_lines

TABLE = 0x1000
ADDRESS = Virtual(0x40_5123)
LOAD = Access(Kind.READ, user=False)
ACCESSES = [Access(kind, user) for kind in Kind for user in (False, True)]


def tables(cpu: Cpu, *raws: int) -> BufferMemory:
    """Tables one behind the other from 0x1000 on, each with one of the entries on the way of
    ADDRESS; those that are left out are as they should be."""
    format = cpu.format
    octets = np.zeros(TABLE * (cpu.levels + 2), np.uint8)
    words = octets.view(f"<u{format.entry_bytes}")
    raws = (*raws, *[-1] * (cpu.levels - len(raws)))
    for number, level in enumerate(reversed(range(cpu.levels))):
        table = TABLE * (number + 1)
        raw = raws[number]
        if raw < 0:
            raw = (table + TABLE) >> 2 | V if level else (0x8000_0000 >> 2) | V | R | W | X | U
        index = format.levels[level].index(ADDRESS)
        words[(table + index * format.entry_bytes) // format.entry_bytes] = raw
    return BufferMemory(octets)


def states() -> Iterator[Cpu]:
    for mode in Mode:
        wide = mode is not Mode.SV32
        for bits in range(8):
            yield Cpu.in_mode(
                mode,
                TABLE,
                sum=bool(bits & 1),
                mxr=bool(bits & 2),
                adue=bool(bits & 4),
                pbmte=wide,
                svnapot=wide,
            )


def entries(cpu: Cpu, count: int) -> Iterator[tuple[int, ...]]:
    """Entries on the way of which the last is of any kind."""
    source = random.Random(f"{cpu} {count}")
    for _ in range(count):
        depth = source.randrange(cpu.levels)
        raw = source.getrandbits(8) | 0x8000_0000 >> 2
        if source.random() < 0.3:
            raw |= source.choice((1 << 13, 1 << 10, *([N, N | 1 << 13, 3 << 61] * (cpu.xlen > 32))))
        good = tuple(TABLE * (number + 2) >> 2 | V for number in range(depth))
        yield (*good, raw)


def applied(cpu: Cpu, memory: BufferMemory, one: Remedy) -> tuple[Cpu, Overlay]:
    words: dict[int, int] = {
        slot.address: change.new for change in one.entries for slot in change.slots
    }
    return one.applied_to(cpu), Overlay(memory, words)


@pytest.mark.parametrize("cpu", [*states()], ids=lambda cpu: f"{cpu.mode.value}-{cpu.mstatus:#x}")
def test_each_remedy_lets_the_access_pass_and_none_of_its_bits_is_too_many(cpu: Cpu) -> None:
    helped = 0
    for raws in entries(cpu, 10):
        memory = tables(cpu, *raws)
        for access in ACCESSES:
            found = remedies(cpu, memory, ADDRESS, access)
            before = outcome(cpu, memory, ADDRESS, access)
            if isinstance(before, Allowed):
                continue
            assert found, (raws, access, before)
            explained = explain(snapshot(cpu, *raws), ADDRESS, access)
            assert all(explanation_lines(cpu, explained))
            for one in found:
                assert one.missing is not None or passes(cpu, memory, access, one)
                for less in lessened(one):
                    assert one.missing is not None or not passes(cpu, memory, access, less)
            helped += 1
    assert helped > 25


def passes(cpu: Cpu, memory: BufferMemory, access: Access, one: Remedy) -> bool:
    changed, laid = applied(cpu, memory, one)
    return isinstance(outcome(changed, laid, ADDRESS, access), Allowed)


def lessened(one: Remedy) -> Iterator[Remedy]:
    """The remedy without one of the bits of its entries, or one of its settings."""
    for number, change in enumerate(one.entries):
        for bit in range(64):
            if (change.old ^ change.new) >> bit & 1:
                less = replace(change, new=change.new ^ 1 << bit)
                yield replace(
                    one, entries=(*one.entries[:number], less, *one.entries[number + 1 :])
                )
    for number, setting in enumerate(one.settings):
        for bit in range(64):
            if (setting.old ^ setting.new) >> bit & 1:
                fewer = replace(setting, new=setting.new ^ 1 << bit)
                rest = one.settings[number + 1 :]
                yield replace(one, settings=(*one.settings[:number], fewer, *rest))


PAGE = 0x8000_0000 >> 2 | V
SV39 = Cpu.in_mode(Mode.SV39, TABLE, pbmte=True, svnapot=True)


def first(raw: int, access: Access, cpu: Cpu = SV39) -> Remedy:
    memory = tables(cpu, -1, -1, raw)
    return remedies(cpu, memory, ADDRESS, access)[0]


@pytest.mark.parametrize(
    ("raw", "access", "new"),
    [
        (PAGE | R | A, Access(Kind.READ, True), PAGE | R | A | U),
        (PAGE | R | U, Access(Kind.READ, True), PAGE | R | U | A),
        (PAGE | R | A, Access(Kind.WRITE, False), PAGE | R | W | A | D),
        (PAGE | R | A, Access(Kind.FETCH, False), PAGE | R | X | A),
        (PAGE | R | X | U | A, Access(Kind.FETCH, False), PAGE | R | X | A),
        (PAGE | A, Access(Kind.READ, False), PAGE | A | R),
        (PAGE | W | A | D, Access(Kind.WRITE, False), PAGE | R | W | A | D),
        (PAGE | N | R | A, Access(Kind.READ, False), PAGE | R | A),
    ],
)
def test_the_first_remedy_is_the_smallest(raw: int, access: Access, new: int) -> None:
    found = first(raw, access)
    assert [(one.old, one.new) for one in found.entries] == [(raw, new)]
    assert not found.settings and not found.unprotects


def test_either_bit_of_a_reserved_memory_type_may_be_cleared() -> None:
    raw = PAGE | R | U | A | 3 << 61
    asked = Access(Kind.READ, True)
    found = explain(snapshot(SV39, -1, -1, raw), ADDRESS, asked)
    new = {raw ^ 1 << bit for bit in (61, 62)}
    assert {change.new for one in found.remedies for change in one.entries} == new
    said = [line for line in explanation_lines(SV39, found) if "PBMT: makes" in line]
    assert len(said) == 2
    assert all("clears a bit of PBMT: makes this 4K page" in line for line in said)


def test_an_entry_of_64k_that_is_reserved_is_one_of_its_sixteen_or_a_small_page() -> None:
    """Of a 64K page the lowest four bits of the page number are 0b1000 ("Svnapot")."""
    for low in (0b0000, 0b0101, 0b1111):
        raw = PAGE | N | R | U | A | low << 10
        found = remedies(SV39, tables(SV39, -1, -1, raw), ADDRESS, Access(Kind.READ, True))
        new = {change.new for one in found for change in one.entries}
        assert new == {raw & ~N, raw & ~(0xF << 10) | 1 << 13}


def test_a_fetch_is_walked_by_its_whole_address() -> None:
    """PMM=3 takes the upper 16 bits from addresses of data alone."""
    cpu = replace(Cpu.in_mode(Mode.SV57, TABLE, pbmte=True), menvcfg=3 << 32)
    memory, tagged = tables(cpu, -1, -1, -1, -1, PAGE), Virtual(ADDRESS | 1 << 50)
    [fetch] = remedies(cpu, memory, tagged, Access(Kind.FETCH, False))
    assert fetch.missing is not None
    assert [one.level for one in fetch.missing.entries] == [4, 3, 2, 1, 0]
    changed = remedies(cpu, memory, tagged, Access(Kind.READ, False))[0].entries
    assert [one.old for one in changed] == [PAGE]


def test_sum_and_mxr_are_offered_behind_changes_of_the_entry() -> None:
    memory = tables(SV39, -1, -1, PAGE | X | U | A)
    found = remedies(SV39, memory, ADDRESS, Access(Kind.READ, False))
    named = [[one.name for one in remedy.settings] for remedy in found]
    assert named[0] == []
    assert ["mstatus.MXR"] in named
    assert ["mstatus.SUM MXR"] in named
    assert found[-1].unprotects


@pytest.mark.parametrize("cpu", [*states()], ids=str)
def test_protection_is_switched_off_where_sum_is_set_and_by_nothing_else(cpu: Cpu) -> None:
    found = remedies(cpu, tables(cpu, *[-1] * (cpu.levels - 1), PAGE | X | U | A), ADDRESS, LOAD)
    for one in found:
        changed = [setting.old ^ setting.new for setting in one.settings]
        assert one.unprotects == any(bits & Mstatus.SUM for bits in changed)


def test_what_is_missing_is_made_with_the_bits_that_the_access_needs() -> None:
    memory = tables(SV39, -1, 0)
    found = remedies(SV39, memory, ADDRESS, Access(Kind.WRITE, True))
    assert len(found) == 1 and found[0].missing is not None
    made = [(one.level, one.bits, one.page) for one in found[0].missing.entries]
    assert made == [(1, V, False), (0, V | R | W | U | A | D, True)]
    setting = replace(SV39, menvcfg=SV39.menvcfg | Envcfg.ADUE)
    [one] = remedies(setting, memory, ADDRESS, Access(Kind.WRITE, True))
    assert one.missing is not None and one.missing.entries[-1].bits == V | R | W | U


def test_nothing_helps_an_address_that_is_not_canonical() -> None:
    memory = tables(SV39)
    assert remedies(SV39, memory, Virtual(1 << 40), Access(Kind.READ, False)) == ()


def snapshot(cpu: Cpu, *raws: int) -> Snapshot:
    memory = tables(cpu, *raws)
    return Snapshot("tables", cpu, memory, (memory.span,))


def test_the_leaf_is_to_blame_and_the_rule_is_the_outcomes() -> None:
    where = snapshot(SV39, -1, -1, PAGE | R | A)
    for access in ACCESSES:
        found = explain(where, ADDRESS, access)
        assert found.outcome == outcome(SV39, where.memory, ADDRESS, access)
        if isinstance(found.outcome, Allowed):
            assert not found.to_blame and not found.remedies
        else:
            assert [stage.reading.level for stage in found.to_blame] == [0]


def test_a_hart_that_sets_marks_is_said_to() -> None:
    cpu = replace(SV39, menvcfg=SV39.menvcfg | Envcfg.ADUE)
    found = explain(snapshot(cpu, -1, -1, PAGE | R | W), ADDRESS, Access(Kind.WRITE, False))
    assert [name for _, name in found.noted] == ["A", "D"]


def test_pointers_are_masked_by_the_mode_that_uses_them() -> None:
    cpu = replace(SV39, senvcfg=2 << 32)
    tagged = Virtual(ADDRESS | 0x7F << 57)
    accesses = [Access(Kind.READ, True), Access(Kind.READ, False), Access(Kind.FETCH, True)]
    user, supervisor, fetch = explain_all(
        snapshot(cpu, -1, -1, PAGE | R | X | U | A), tagged, accesses
    )
    assert isinstance(user.outcome, Allowed) and user.translation.address == ADDRESS
    for one in (supervisor, fetch):
        assert one.outcome.reason is Reason.NOT_CANONICAL and one.translation.address == tagged


def test_no_access_of_risc_v_is_implicit_and_amo_is_one() -> None:
    asked = architecture.named("riscv")
    assert asked.accesses("AMO", None, False) == [Access(Kind.AMO, True), Access(Kind.AMO, False)]
    for kind, implicit in ((None, True), ("PUSH", False)):
        with pytest.raises(ValueError, match="RISC-V"):
            asked.accesses(kind, None, implicit)


LINTED = {
    "reserved-bits": PAGE | W,
    "write-execute": PAGE | R | W | X | A,
    "global-user": PAGE | R | U | 1 << 5,
    "device": PAGE | R | 2 << 61,
    "table-user-writable": TABLE >> 2 | V | R | W | U,
    "table-in-itself": 0,
    "empty-table": 0,
    "table-without-memory": 0,
}


@pytest.mark.parametrize("rule", LINTED)
def test_what_is_planted_is_found(rule: str) -> None:
    raws: tuple[int, ...] = (-1, -1, LINTED[rule])
    if rule == "table-in-itself":
        raws = (TABLE >> 2 | V,)
    elif rule == "empty-table":
        raws = (-1, 4 * TABLE >> 2 | V, PAGE | R)
    elif rule == "table-without-memory":
        raws = (-1, 0x9000_0000 >> 2 | V)
    where = snapshot(SV39, *raws)
    if rule == "device":
        assert isinstance(where.memory, BufferMemory)
        words = where.memory.octets.view("<u8")
        words[3 * TABLE // 8] = TABLE * 4 >> 2 | V | R  # a page in memory: the source shows some
    types = architecture.named("riscv").memory_types.types(None, None)
    broken, _ = lint(where, types)
    named = {one.rule.name for one in broken}
    assert rule in named and "cached-outside-ram" not in named


def test_mxr_does_not_change_what_is_said_of_writing() -> None:
    cpu = replace(SV39, mstatus=Mstatus.MXR)
    found = explain(snapshot(cpu, -1, -1, PAGE | X | A), ADDRESS, Access(Kind.READ, False))
    assert isinstance(found.outcome, Allowed)
