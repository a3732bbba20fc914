"""The entries of one walk of RISC-V give the same walk as the memory in which they stand, and what
was not given is never made out to be known."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from harness.inspect.riscv import entries as of_riscv
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.sources import entries
from harness.inspect.translation import translate
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.paging.riscv.access import outcome
from harness.paging.riscv.cpu import Cpu, Mode, Satp
from harness.paging.riscv.formats import A, D, R, U, V, W
from tests.cli.commands import run
from tests.inspect.riscv.test_fault import ACCESSES, ADDRESS, states, tables
from tests.inspect.riscv.test_fault import entries as drawn

NAMES = ("pte", "pmd", "pud", "p4d", "pgd")

PAGE = 0x8000_0000 >> 2 | V | R | W | U | A | D


def by_linux(raws: list[int], levels: int) -> list[tuple[str, int]]:
    """Entries from the root down as Linux prints them: the root's after each name that the mode
    has no level for."""
    every = [raws[0]] * (len(NAMES) - levels) + raws
    return list(zip(reversed(NAMES), every, strict=False))


@pytest.mark.parametrize("cpu", [*states()], ids=lambda cpu: f"{cpu.mode.value}-{cpu.mstatus:#x}")
def test_all_entries_of_a_walk_are_the_walk_and_its_outcomes(cpu: Cpu) -> None:
    own = {name: int(getattr(cpu, name)) for name in ("satp", "mstatus", "menvcfg")}
    for raws in drawn(cpu, 20):
        memory = tables(cpu, *raws)
        whole = translate(Snapshot("memory", cpu, memory, None), ADDRESS)
        if whole.end is End.UNBACKED:
            continue
        pairs = by_linux([one.reading.raw for one in whole.stages], cpu.levels)
        made = entries.snapshot("given", pairs, ADDRESS, own)
        alone = translate(made, ADDRESS)
        assert [(one.slot, one.reading) for one in alone.stages] == [
            (one.slot, one.reading) for one in whole.stages
        ]
        for access in ACCESSES:
            expected = outcome(cpu, memory, ADDRESS, access)
            assert outcome(made.cpu, made.memory, ADDRESS, access) == expected


@pytest.mark.parametrize("mode", [Mode.SV39, Mode.SV48, Mode.SV57])
def test_the_mode_is_told_by_the_names(mode: Mode) -> None:
    levels = len(Cpu.in_mode(mode, 0).format.levels)
    raws = [(0x8100_0000 + 0x1000 * level) >> 2 | V for level in range(levels - 1)] + [PAGE]
    found = of_riscv.snapshot("given", by_linux(raws, levels), 0x1000, {})
    assert found.cpu.mode is mode
    assert found.assumed[0].startswith(f"{mode.value.capitalize()}, by the names")
    assert translate(found, Virtual(0x1000)).end is End.LEAF


def test_without_names_that_tell_the_address_does() -> None:
    for address, mode in (
        (0x1000, Mode.SV39),
        (0x7FFF_FFFF_F000, Mode.SV48),
        (0xFF20_0000_0000_0000, Mode.SV57),
    ):
        assert of_riscv.snapshot("given", [("pte", PAGE)], address, {}).cpu.mode is mode


def test_what_is_not_given_is_unknown(tmp_path: Path) -> None:
    satp = ("--satp", "0x8000000000080000")
    way = ("--entries", "pgd=20400401")
    out = run("fault", "0x1000", "--access", "read", "--user", *way, *satp, cwd=tmp_path)[1]
    assert "user read at 0x1000: unknown, for the PTE is not given" in out
    assert "change    none is known without that entry" in out and "rule" not in out
    code = run("fault", "0x1000", "--code", "5", *way, *satp, cwd=tmp_path)[1]
    assert "These entries may give this fault: it depends on the PTE, which is not given." in code
    low = ("--entries", "pte=200000d7", *satp)
    out = run("walk", "0x1000", *low, cwd=tmp_path)[1]
    assert "0x1000: 0x80000000, in a 4K page" in out
    assert "the PTE of level 2 and the PTE of level 1 lead here and withhold nothing" in out


def test_entries_that_contradict_each_other_are_a_sentence() -> None:
    with pytest.raises(QuestionError, match="two entries are given for level 2"):
        of_riscv.snapshot("x", [("pgd", 1), ("p4d", 1), ("pud", 5)], 0, {"satp": 8 << 60})
    with pytest.raises(QuestionError, match="no address 0x100000000 on a hart of 32 bits"):
        of_riscv.snapshot("x", [("pte", 1)], 1 << 32, {"satp": 1 << 31})


@pytest.mark.parametrize(
    ("given", "mode"),
    [
        ({"pgd": 5, "p4d": 1, "pud": 1}, Mode.SV57),
        ({"pgd": 5, "p4d": 1}, Mode.SV57),
        ({"pgd": 5, "p4d": 5, "pud": 1}, Mode.SV48),
        ({"p4d": 5, "pud": 1}, Mode.SV48),
        ({"pgd": 5, "pud": 1}, Mode.SV48),
        ({"pgd": 5, "p4d": 5, "pud": 5}, Mode.SV39),
        ({"pgd": 5, "pud": 5}, Mode.SV39),
        ({"p4d": 5, "pud": 5}, Mode.SV39),
        ({"PUD": 1}, Mode.SV39),
        ({"PGD": 5, "PUD": 1}, Mode.SV48),
    ],
)
def test_levels_whose_entry_is_not_the_one_above_s_are_there(
    given: dict[str, int], mode: Mode
) -> None:
    assert of_riscv.snapshot("x", list(given.items()), 0x1000, {}).cpu.mode is mode


def test_tables_that_are_made_up_are_none_that_an_entry_leads_to() -> None:
    cpu = Cpu.in_mode(Mode.SV39, 0)
    highest = (1 << 56) - 0x1000
    free = islice(of_riscv.tables_beside(cpu, []), 4)
    assert list(free) == [highest - 0x1000 * number for number in range(4)]
    used = [highest >> 2 | V, (highest - 0x2000) >> 2 | V]
    at = replace(cpu, satp=Satp(Mode.SV39, (highest - 0x3000) >> 12).raw)
    found = list(islice(of_riscv.tables_beside(at, used), 2))
    assert found == [highest - 0x1000, highest - 0x4000]
