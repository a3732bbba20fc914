"""The state in which tables are read is said: by which CR3, and what else bears on every answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.inspect.snapshot import Snapshot
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu, Cr0, Cr3, Cr4, Mode
from harness.report.state import head_lines, root_text
from tests.cli.commands import run
from tests.inspect.spaces import memory_of

BASE = {Mode.BITS_32: 0x10_6000, Mode.PAE: 0x10_6020, Mode.LEVEL_4: 0x10_6000}


def cpu(mode: Mode, cr3: int, cr4: int = 0) -> Cpu:
    made = Cpu.in_mode(mode, cr3)
    return replace(made, cr4=made.cr4 | cr4)


@pytest.mark.parametrize(
    ("mode", "rest", "cr4", "told"),
    [
        (Mode.BITS_32, 0, 0, ""),
        (Mode.BITS_32, 8, 0, " (root at 0x106000; 0x8 is PWT)"),
        (Mode.BITS_32, 0xFE7, 0, " (root at 0x106000; 0xfe7 is ignored)"),
        (Mode.BITS_32, 1 << 32, 0, " (root at 0x106000; 0x100000000 is ignored)"),
        (Mode.PAE, 0x18, 0, " (PDPTEs at 0x106020; 0x18 is ignored)"),
        (Mode.PAE, 3, 0, " (PDPTEs at 0x106020; 0x3 is ignored)"),
        (Mode.LEVEL_4, 0x11, 0, " (root at 0x106000; 0x10 is PCD, 0x1 is ignored)"),
        (Mode.LEVEL_4, 0x808, Cr4.PCIDE, " (root at 0x106000; PCID 0x808)"),
        (Mode.LEVEL_4, Cr3.LAM_U48, 0, " (root at 0x106000; 0x4000000000000000 is LAM_U48)"),
        (Mode.LEVEL_4, 1 << 51, 0, " (root at 0x106000; 0x8000000000000 is reserved)"),
    ],
)
def test_every_bit_of_cr3_that_is_no_part_of_the_address_is_named(
    mode: Mode, rest: int, cr4: int, told: str
) -> None:
    state = cpu(mode, BASE[mode] | rest, cr4)
    assert root_text(state) == f"CR3 {state.cr3:#x}{told}"
    assert state.base == BASE[mode]


@pytest.mark.parametrize("mark", ["c_bit", "shared_bit"])
def test_the_bit_that_marks_memory_is_named(mark: str) -> None:
    state = replace(cpu(Mode.LEVEL_4, 0x10_6000 | 1 << 51), **{mark: 51})  # type: ignore[arg-type]
    name = {"c_bit": "C", "shared_bit": "shared"}[mark]
    told = f"(root at 0x106000; 0x8000000000000 is the {name} bit)"
    assert root_text(state) == f"CR3 {state.cr3:#x} {told}"


def test_lass_stands_below_the_title_where_it_is_heeded() -> None:
    memory = memory_of([0])
    for mode, noted in ((Mode.LEVEL_4, True), (Mode.PAE, False)):
        snapshot = Snapshot("it", cpu(mode, 0x1000, Cr4.LASS), memory, None)
        notes = [line for line in head_lines(snapshot) if "CR4.LASS=1, so the user" in line]
        assert bool(notes) == noted


def test_wp_off_and_what_the_source_notes_stand_below_the_title() -> None:
    state = Cpu.in_mode(Mode.LEVEL_4, 0x1000)
    memory = memory_of([0])
    assert list(head_lines(Snapshot("it", state, memory, None))) == ["it, CR3 0x1000"]
    off = replace(state, cr0=state.cr0 & ~Cr0.WP)
    head = list(head_lines(Snapshot("it", off, memory, None, (), ("One thing more.",))))
    assert head[1].startswith("Note: CR0.WP=0, so the supervisor writes to every page")
    assert head[2] == "Note: One thing more."


@pytest.fixture
def ram(tmp_path: Path) -> Path:
    """A page at 0x800000 by 32-bit tables whose root is at 0x1000."""
    memory = BufferMemory(memory_of([0] * 2048).octets.copy())
    memory.store(0x1008, 4, 0x2003)  # type: ignore[arg-type]
    memory.store(0x2000, 4, 0x3003)  # type: ignore[arg-type]
    path = tmp_path / "ram"
    path.write_bytes(memory.octets.tobytes())
    return path


COMMANDS = [
    ("walk", "0x800000"),
    ("fault", "0x800000"),
    ("fault", "--code", "0", "--cr2", "0x900000"),
    ("dump",),
    ("lint",),
    ("find", "--tables"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_says_by_which_root_it_answers(ram: Path, command: tuple[str, ...]) -> None:
    given = ("--ram", ram, "--cr3", "0x1008", "--cr4", "0", "--cr0", "0x80000001")
    out = run(*command, *given, cwd=ram.parent)[1]
    assert out.splitlines()[0].endswith("CR3 0x1008 (root at 0x1000; 0x8 is PWT)")
    assert "Note: CR0.WP=0" in out
    answer = json.loads(run(*command, *given, "--json", cwd=ram.parent)[1])
    assert (answer["cpu"]["cr3"], answer["cpu"]["root"]) == ("0x1008", "0x1000")
    assert answer["notes"][0].startswith("CR0.WP=0")


def test_a_difference_says_by_which_roots(ram: Path) -> None:
    here = f"ram:{ram},cr4=0,cr3="
    out = run("diff", f"{here}0x1008", f"{here}0x1000", cwd=ram.parent)[1].splitlines()
    assert out[0].endswith("ram, CR3 0x1008 (root at 0x1000; 0x8 is PWT)")
    assert out[1].endswith("ram, CR3 0x1000")
