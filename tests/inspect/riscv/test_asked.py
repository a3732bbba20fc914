"""What questions ask of RISC-V: each answer by the rules, as the scalar outcome has them."""

from __future__ import annotations

import numpy as np
import pytest

from harness.check.layouts import load, shipped
from harness.inspect import architecture
from harness.inspect.decode import read
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.memory import BufferMemory
from harness.paging.riscv.access import Allowed, Fault, Reason, outcome
from harness.paging.riscv.bulk import REASONS
from harness.paging.riscv.cpu import Cpu, Mode, Mstatus
from harness.paging.riscv.formats import A, D, R, U, W, X
from tests.inspect.riscv.test_fault import ACCESSES, ADDRESS, PAGE, SV39, states, tables

RISCV = architecture.named("riscv")
HARTS = [*states()]


@pytest.mark.parametrize("cpu", HARTS[::3], ids=lambda cpu: f"{cpu.mode.value}-{cpu.mstatus:#x}")
def test_many_accesses_are_judged_as_each_is(cpu: Cpu) -> None:
    withheld = set[str | None]()
    above = (-1,) * (cpu.levels - 1)
    for flags in range(0, 32, 2):  # R, W, X and U
        memory = tables(cpu, *above, PAGE | A | D | flags)
        walks = bulk.walk(memory, cpu.roots, np.array([ADDRESS], np.uint64))
        for access in ACCESSES:
            answer = outcome(cpu, memory, ADDRESS, access)
            allowed, unknown, reasons = RISCV.judged(cpu, walks, access)
            assert not unknown.any() and allowed.tolist() == [isinstance(answer, Allowed)]
            if isinstance(answer, Fault):
                assert REASONS[int(reasons[0])] is answer.reason
                found = RISCV.withheld(cpu, answer)
                named = answer.reason.name.removesuffix("_DENIED").lower()
                denied = answer.reason.name.endswith("_DENIED")
                assert found == (named if denied else None)
                assert RISCV.of_address(answer) == (answer.reason is Reason.NOT_CANONICAL)
                withheld.add(found)
    # With MXR, what may be executed may be read, and a page has one of these rights.
    mxr = {"read"} if cpu.mxr else set[str]()
    assert withheld == {None, "user", "read", "write", "execute"} - mxr


@pytest.mark.parametrize("access", ACCESSES, ids=str)
def test_what_rights_deny_is_what_a_page_with_them_denies(access: object) -> None:
    for sum_, mxr in ((0, 0), (Mstatus.SUM, 0), (0, Mstatus.MXR), (Mstatus.SUM, Mstatus.MXR)):
        cpu = Cpu(SV39.satp, sum_ | mxr, SV39.menvcfg, svnapot=True)
        for rights in (R, R | W, X, R | X, R | W | X):
            for user in (0, U):
                raw = PAGE | rights | user | A | D
                answer = outcome(cpu, tables(cpu, -1, -1, raw), ADDRESS, access)  # type: ignore[arg-type]
                granted = cpu.format.granted(raw, 0)
                found = RISCV.denied(cpu, access, granted, None)
                assert found is (answer.reason if isinstance(answer, Fault) else None)


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (End.NO_ROOT, Reason.NOT_CANONICAL),
        (End.MALFORMED, Reason.RESERVED),
        (End.ABSENT, Reason.NOT_PRESENT),
        (End.UNBACKED, Reason.NO_MEMORY),
        (End.LEAF, None),
    ],
)
def test_the_end_of_a_walk_has_its_reason(end: End, reason: Reason | None) -> None:
    assert RISCV.reason(SV39, ADDRESS, end) is reason


def test_a_hart_that_does_not_mark_wants_its_pages_marked() -> None:
    assert RISCV.marks(SV39, {"read", "execute"}) == A
    assert RISCV.marks(SV39, {"read", "write"}) == A | D
    setting = Cpu.in_mode(Mode.SV39, 0, adue=True)
    assert RISCV.marks(setting, {"read", "write"}) == 0


def test_what_is_left_open_is_said_with_the_option_that_settles_it() -> None:
    setting = Cpu.in_mode(Mode.SV39, 0, adue=True)
    status = "mstatus.SUM=0 and MXR=0 (--mstatus)"
    assert list(RISCV.left_open(SV39, {})) == [
        status,
        f"menvcfg={SV39.menvcfg:#x}, by which the hart sets neither A nor D (--menvcfg)",
    ]
    assert list(RISCV.left_open(setting, {"mstatus": 0})) == [
        f"menvcfg={setting.menvcfg:#x}, by which the hart sets A and D (--menvcfg)"
    ]
    assert list(RISCV.left_open(setting, {"menvcfg": 0})) == [status]


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_a_layout_is_of_a_hart_with_every_extension_of_its_mode(levels: int) -> None:
    smallest = load(next(path for path in shipped("riscv") if path.stem == "smallest"))
    memory = BufferMemory(np.zeros(32 << 20, np.uint8), 0x8200_0000)
    cpu = RISCV.build(smallest, levels, memory, {"mstatus": 1 << 18})
    wide = levels > 2
    assert (cpu.levels, cpu.mstatus, cpu.sets_marks) == (levels, 1 << 18, True)
    assert (cpu.svnapot, cpu.pbmte, cpu.xlen) == (wide, wide, 64 if wide else 32)
    assert bulk.leaves(memory, cpu.roots).total == 1


def test_a_table_full_of_text_is_said_to_be() -> None:
    text = int.from_bytes(b"ABCDEFGH", "little")
    assert "ABCDEFGH" in str(RISCV.likely(SV39, read(SV39, text, 0)))
    for plain in (PAGE | R | A, 0):
        assert RISCV.likely(SV39, read(SV39, plain, 0)) == ()


def test_tables_of_another_memory_are_doubted() -> None:
    memory = tables(SV39)
    assert RISCV.doubt(SV39, memory) is None
    outside = Cpu.in_mode(Mode.SV39, 0x9000_0000)
    doubt = RISCV.doubt(outside, memory)
    assert doubt is not None and doubt.startswith(f"satp {outside.satp:#x} belongs to this memory,")


def test_data_is_pointed_to_by_what_is_left_of_a_pointer() -> None:
    masked = Cpu(SV39.satp, menvcfg=2 << 32)
    tagged = Virtual(ADDRESS | 0x55 << 57)
    assert RISCV.pointed(masked, tagged) == ADDRESS
    assert RISCV.pointed(SV39, tagged) == tagged
