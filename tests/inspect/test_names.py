"""What levels are called: by the manual, Linux, Windows' debugger, and by their numbers."""

from __future__ import annotations

import pytest

from harness.inspect.names import level_named, name_of
from harness.inspect.snapshot import QuestionError
from harness.paging.x86.cpu import Cpu, Mode

CPUS = {mode: Cpu.in_mode(mode, 0) for mode in Mode}


@pytest.mark.parametrize(
    ("mode", "names"),
    [
        (Mode.BITS_32, ["PTE", "PDE"]),
        (Mode.PAE, ["PTE", "PDE", "PDPTE"]),
        (Mode.LEVEL_4, ["PTE", "PDE", "PDPTE", "PML4E"]),
        (Mode.LEVEL_5, ["PTE", "PDE", "PDPTE", "PML4E", "PML5E"]),
    ],
)
def test_levels_are_named_by_the_manual_by_its_tables_and_by_number(
    mode: Mode, names: list[str]
) -> None:
    cpu = CPUS[mode]
    for level, name in enumerate(names):
        assert name_of(cpu, level) == name
        for said in (name, name.lower(), f" {name} ", name.removesuffix("E"), str(level)):
            assert level_named(cpu, said) == level
    for beyond in (str(len(names)), "-1"):
        last = len(names) - 1
        with pytest.raises(QuestionError, match=f"has levels 0 to {last}, not {beyond}$"):
            level_named(cpu, beyond)


@pytest.mark.parametrize(
    ("mode", "linux"),
    [
        (Mode.BITS_32, {"pte": 0, "pmd": 1, "pud": 1, "p4d": 1, "pgd": 1}),
        (Mode.PAE, {"pte": 0, "pmd": 1, "pud": 2, "p4d": 2, "pgd": 2}),
        (Mode.LEVEL_4, {"pte": 0, "pmd": 1, "pud": 2, "p4d": 3, "pgd": 3}),
        (Mode.LEVEL_5, {"pte": 0, "pmd": 1, "pud": 2, "p4d": 3, "pgd": 4}),
    ],
)
def test_what_linux_folds_is_the_top(mode: Mode, linux: dict[str, int]) -> None:
    assert {name: level_named(CPUS[mode], name) for name in linux} == linux
    assert {name: level_named(CPUS[mode], f"*{name}") for name in linux} == linux  # of an oops


def test_windows_names_are_those_of_its_debugger() -> None:
    names = ["PTE", "PDE", "PPE", "PXE"]
    assert [level_named(CPUS[Mode.LEVEL_4], name) for name in names] == [0, 1, 2, 3]
    with pytest.raises(QuestionError, match="has no level 'PPE': it has 0 to 1, or PTE, PDE, or"):
        level_named(CPUS[Mode.BITS_32], "PPE")


@pytest.mark.parametrize("text", ["", "pt3", "1.0", "0x1", "*", "9" * 5000])
def test_what_is_no_level_is_refused(text: str) -> None:
    with pytest.raises(QuestionError, match=r"has no level '.*': it has 0 to 3, or PTE, PDE, PDP"):
        level_named(CPUS[Mode.LEVEL_4], text)
