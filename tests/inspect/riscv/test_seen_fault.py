"""Exceptions of RISC-V that were seen: which accesses raise them, and whether tables give them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.inspect.fault import Reproduction
from harness.inspect.riscv.fault import compare, reproduced, seen
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.paging.riscv.access import Access, Fault, Kind, outcome
from harness.paging.riscv.cpu import Cpu, Envcfg, Mode, Mstatus
from harness.paging.riscv.formats import A, D, R, U, V, W, X
from tests.inspect.riscv.test_fault import ADDRESS, PAGE, SV39, entries, states, tables

CAUSES = {
    1: (Kind.FETCH,),
    5: (Kind.READ,),
    7: (Kind.WRITE, Kind.AMO),
    12: (Kind.FETCH,),
    13: (Kind.READ,),
    15: (Kind.WRITE, Kind.AMO),
}
"""Who raises what, by the table "Supervisor cause register (scause) values after trap"."""


OUTSIDE = 0x9000_0000 >> 2 | V
"""An entry that leads to a table where no memory is."""


def snapshot(memory: BufferMemory, cpu: Cpu = SV39) -> Snapshot:
    return Snapshot("test", cpu, memory, None)


def asked(raw: int, code: str, *named: Access, cpu: Cpu = SV39) -> Reproduction:
    """What is said of a cause at ADDRESS, of a PTE."""
    fault = seen(code, cpu)
    return compare(snapshot(tables(cpu, -1, -1, raw), cpu), fault, ADDRESS, named=named)


@pytest.mark.parametrize("cause", CAUSES)
def test_a_cause_names_the_accesses_that_raise_it(cause: int) -> None:
    for text in (str(cause), hex(cause), f"{cause:016x}"):
        found = seen(text, SV39)
        assert found.cause == cause
        wanted = {Access(kind, user) for kind in CAUSES[cause] for user in (True, False)}
        assert set(found.accesses) == wanted


@pytest.mark.parametrize(
    ("text", "cpu", "sentence"),
    [
        ("2", SV39, "cause 2 is no fault of translation"),
        ("0x13", SV39, "cause 19 is no fault of translation"),
        ("21", SV39, "cause 21 is a fault of the second stage"),
        ("8000000000000005", SV39, "0x8000000000000005 is the cause of an interrupt"),
        ("0x8000000d", Cpu.in_mode(Mode.SV32, 0x1000), "0x8000000d is the cause of an interrupt"),
        ("0x8000000d", SV39, "cause 2147483661 is no fault of translation"),
        ("load", SV39, "the cause is 'load', no number"),
    ],
)
def test_what_is_no_cause_of_translation_is_a_sentence(text: str, cpu: Cpu, sentence: str) -> None:
    with pytest.raises(QuestionError) as raised:
        seen(text, cpu)
    assert str(raised.value).startswith(sentence)


@pytest.mark.parametrize("cpu", [*states()], ids=lambda cpu: f"{cpu.mode.value}-{cpu.mstatus:#x}")
def test_every_fault_is_given_by_its_own_tables_and_by_no_access_that_passes(cpu: Cpu) -> None:
    kinds = set[int]()
    for raws in (*entries(cpu, 12), (OUTSIDE,)):
        memory = tables(cpu, *raws)
        for cause, raising in CAUSES.items():
            found = compare(snapshot(memory, cpu), seen(str(cause), cpu), ADDRESS)
            wanted = set()
            for access in (Access(kind, user) for kind in raising for user in (True, False)):
                answer = outcome(cpu, memory, ADDRESS, access)
                if isinstance(answer, Fault) and answer.cause == cause:
                    wanted.add(access)
            told = {one.access for one in found.giving}
            assert told == {one for one in wanted if one.kind is not Kind.AMO}
            assert bool(found.instead) == (not told)
            assert bool(found.explanations) == (not told)
            kinds |= {cause} if told else set()
    assert kinds == set(CAUSES)


def test_only_the_accesses_that_are_named_are_asked() -> None:
    of_the_user = Access(Kind.READ, True)
    found = asked(PAGE | R | U | A, "13", of_the_user)
    assert not found.giving
    assert [one.access for one in found.instead] == [of_the_user]
    [given] = asked(PAGE | R | U | A, "13").giving
    assert given.access == Access(Kind.READ, False)
    [amo] = asked(PAGE | R | A, "15", Access(Kind.AMO, False)).giving
    assert amo.access == Access(Kind.AMO, False)


@pytest.mark.parametrize("user", [False, True])
def test_by_whom_it_was_is_kept_where_it_is_known(user: bool) -> None:
    """An oops says so by mstatus.SPP, which its accesses must not contradict."""
    memory = snapshot(tables(SV39, -1, -1, PAGE | R | A))
    _, every, _ = reproduced(memory, "15", ADDRESS, None, False, ())
    assert {access.user for access in every.accesses} == {False, True}
    named = (Access(Kind.WRITE, user),)
    _, found, _ = reproduced(memory, "15", ADDRESS, None, False, named)
    assert set(found.accesses) == {Access(Kind.WRITE, user), Access(Kind.AMO, user)}


def test_an_access_that_raises_another_cause_is_told() -> None:
    found = asked(PAGE | R | A, "13", Access(Kind.WRITE, False), Access(Kind.READ, True))
    assert [one.access for one in found.giving] == [Access(Kind.READ, True)]
    found = asked(PAGE | R | W | A | D, "13", Access(Kind.WRITE, False))
    assert found.explanations == (
        "a supervisor write is allowed there, so that another access raised this fault",
    )
    found = asked(PAGE | R | A, "13", Access(Kind.WRITE, False))
    assert found.explanations == (
        "a supervisor write raises cause 15 there, so that another access raised this fault",
    )


@pytest.mark.parametrize(
    ("raw", "cpu", "code", "sentence"),
    [
        (
            PAGE | R | U | A,
            replace(SV39, mstatus=int(Mstatus.SUM)),
            "13",
            "a supervisor read gives it with mstatus.SUM=0, and here it is 1 (--mstatus)",
        ),
        (
            PAGE | X | A,
            replace(SV39, mstatus=int(Mstatus.MXR)),
            "13",
            "a supervisor read gives it with mstatus.MXR=0, and here it is 1 (--mstatus)",
        ),
        (
            PAGE | R | W | A,
            replace(SV39, menvcfg=int(Envcfg.ADUE)),
            "15",
            "a supervisor write gives it with menvcfg.ADUE=0, and here it is 1 (--menvcfg)",
        ),
        (
            PAGE | R | A | 1 << 61,
            SV39,
            "13",
            "a supervisor read gives it with menvcfg.PBMTE=0, and here it is 1 (--menvcfg)",
        ),
    ],
)
def test_registers_that_would_give_it_are_named(
    raw: int, cpu: Cpu, code: str, sentence: str
) -> None:
    named = Access(Kind.WRITE if code == "15" else Kind.READ, False)
    found = asked(raw, code, named, cpu=cpu)
    assert not found.giving and found.explanations[0] == sentence


def test_why_tables_may_not_give_it() -> None:
    wide = PAGE | R | W | X | A | D
    by_user = Access(Kind.READ, True)
    of_page = asked(wide | U, "13", by_user).explanations
    assert of_page[0].startswith("rights were given since") and "SFENCE.VMA" in of_page[0]
    of_access = asked(wide | U, "5", by_user).explanations
    assert of_access[0].startswith("memory refused it, at 0x80000123, or at a table on the way")
    assert of_access[-1].startswith(f"another address space: here satp is {SV39.satp:#x}")
    memory = tables(SV39, -1, OUTSIDE)
    found = compare(snapshot(memory), seen("13", SV39), ADDRESS)
    assert "a table on the way lies outside this memory: what is there decides" in (
        found.explanations
    )
    [first, _] = compare(snapshot(memory), seen("5", SV39), ADDRESS).giving
    assert first.outcome.level == 0


def test_an_stval_that_pointer_masking_would_not_leave_is_told() -> None:
    masked = replace(SV39, menvcfg=2 << 32)  # PMM=2 of S-mode: the upper 7 bits
    tagged = Virtual(ADDRESS | 0x55 << 57)
    memory = snapshot(tables(SV39, -1, -1, PAGE | A), masked)
    by_s_mode = (Access(Kind.READ, False),)
    found = compare(memory, seen("13", masked), tagged, named=by_s_mode)
    assert not found.giving
    assert f"pointer masking makes stval another address: {ADDRESS:#x}" in found.explanations
    [one] = compare(memory, seen("13", masked), tagged).giving
    assert one.access.user
