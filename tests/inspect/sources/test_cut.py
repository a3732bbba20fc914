"""Of a table that is cut by the end of a file what is there is used, and what is not is named."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from harness.inspect import architecture
from harness.inspect.sources import layout
from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.table import Slot
from harness.paging.walk import walk
from tests.cli.commands import run

ROOTS = {
    "x86": ("cr3",),
    "riscv": ("satp",),
    "arm64": ("tcr", "ttbr0", "ttbr1"),
    "s390": ("asce",),
    "power": ("quadrant0",),
}
PAGE = 0x40_0000


def in_file(path: Path, arch: str, left: int) -> tuple[tuple[object, ...], Slot]:
    """The options that name the tables of the smallest layout in a file that ends `left` bytes
    after the page table begins; and the slot of its page, which is the first of that table."""
    name = "smallest" if arch == "x86" else f"{arch}/smallest"
    made = layout.snapshot(name, 4 if arch == "x86" else None, {})
    cpu, memory = architecture.of(made.cpu).part(made.cpu, PAGE), made.memory
    assert isinstance(memory, BufferMemory)
    root = root_for(cpu, Virtual(PAGE))
    assert root is not None
    slot = walk(memory, root, Virtual(PAGE)).steps[-1].slot
    assert (slot.level, slot.index) == (0, 0)
    first, base = min(root.table.address for root in cpu.roots), memory.span.first
    path.write_bytes(memory.octets[first - base : slot.table.address - base + left].tobytes())
    registers = [(f"--{one}", f"{getattr(cpu, one):#x}") for one in ROOTS[arch]]
    named = ("--ram", f"{path.name}@{first:#x}", *(word for one in registers for word in one))
    return named, slot


@pytest.mark.parametrize("arch", ROOTS)
def test_a_table_astride_the_end_of_a_file_is_read_as_far_as_it_goes(
    arch: str, tmp_path: Path
) -> None:
    source, slot = in_file(tmp_path / "ram", arch, 1000)
    table, lost = slot.table, PAGE + 125 * slot.size
    code, out, errors = run("dump", *source, cwd=tmp_path)
    assert (code, errors) == (0, "")
    entries = table.format.levels[0].entries
    level = table.format.number(0)
    assert f"slots 125 to {entries - 1} of the level-{level} table at {table.address:#x} lie" in out
    assert any(line.startswith(f"{PAGE:#x}..") and " 1 x 4K " in line for line in out.splitlines())
    end = f"it ends at {table.address + 1000:#x}, in the middle of {table}."
    assert f"Note: ram was cut short: {end}" in out
    assert "was not cut short" not in out
    _, out, _ = run("walk", f"{PAGE:#x}", f"{lost:#x}", *source, cwd=tmp_path)
    assert f"{PAGE:#x}: 0x" in out
    assert f"{lost:#x}: no translation at level {level}: slot 125 of {table} lies outside" in out
    _, out, _ = run("fault", f"{lost:#x}", "--access", "read", *source, cwd=tmp_path)
    assert "none is known without the rest of that table" in out
    assert f"unknown, for slot 125 of {table} lies outside memory" in out
    assert "reads as zeros" not in out
    asked = ("fault", f"{lost:#x}", *source, "--json")
    outcomes = json.loads(run(*asked, cwd=tmp_path)[1])["outcomes"]
    assert {(one["outcome"], one["rule"]) for one in outcomes} == {("unknown", None)}
    told = json.loads(run("walk", f"{PAGE:#x}", *source, "--json", cwd=tmp_path)[1])
    assert not any("cut short" in one for one in told["assumed"])
    assert any("was cut short" in one for one in told["notes"])


def test_tables_in_another_file_do_not_show_that_one_was_cut_short(tmp_path: Path) -> None:
    """Whether one lies there, or its other end does, beyond a gap."""
    for entry, size, place, left in ((0x9003, 0x1008, 0x9000, 0x1000), (0, 0x808, 0x1C00, 0x400)):
        (tmp_path / "ram").write_bytes(entry.to_bytes(8, "little").ljust(size, b"\0"))
        (tmp_path / "rest").write_bytes(bytes(left))
        files = ("--ram", "ram@0x1000", "--ram", f"rest@{place:#x}", "--cr3", "0x1000")
        _, out, errors = run("walk", "0x8000000000", *files, cwd=tmp_path)
        assert not errors
        assert "was cut short" not in out
        assert "ram was not cut short (its size is not a multiple of 4096)" in " ".join(out.split())


def test_a_file_that_ends_before_a_table_in_use_is_not_assumed_to_be_whole(
    tmp_path: Path,
) -> None:
    words = {0x1000: 0x2007, 0x2000: 0x3007, 0x3000: 0x10007}
    octets = bytearray(0x4000 + 1000)
    for at, word in words.items():
        octets[at : at + 8] = word.to_bytes(8, "little")
    (tmp_path / "ram").write_bytes(octets)
    _, out, _ = run("dump", "--ram", "ram", "--cr3", "0x1000", cwd=tmp_path)
    table = "the level-0 table at 0x10000"
    assert f"{table} lies outside memory" in out
    assert f"or is a part of memory: it ends at 0x43e8, and {table} is in use." in out
    assert "was not cut short" not in out


def test_a_file_of_an_odd_size_whose_tables_are_all_there_is_assumed_to_be_whole(
    tmp_path: Path,
) -> None:
    source, _ = in_file(tmp_path / "ram", "x86", 4096 + 1000)
    _, out, _ = run("dump", *source, cwd=tmp_path)
    assert "Assumed" in out and "ram was not cut short (its size is not a multiple of 4096)" in out
    assert "was cut short" not in out


def test_a_table_that_begins_before_a_file_does_is_read_from_there_on(tmp_path: Path) -> None:
    """Slots that are absent behind those without memory are counted as such, up to the next."""
    source, slot = in_file(tmp_path / "ram", "x86", 4096)
    words = (tmp_path / "ram").read_bytes()
    table, entry = words[-4096:], words[-4096:][:8]
    (tmp_path / "ram").write_bytes(words[:-4096])
    (tmp_path / "rest").write_bytes(entry + table[16:])
    two = ("--ram", source[1], "--ram", f"rest@{slot.table.address + 8:#x}")
    _, out, _ = run("dump", *two, *source[2:], cwd=tmp_path)
    assert f"slot 0 of {slot.table} lies outside memory" in out
    assert any(one.startswith("0x401000..") and " 1 x 4K " in one for one in out.splitlines())


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("arm64/rights-64k", 0x4201_0000),
        ("s390/smallest", 0x200_0000),
        ("power/smallest", 0x200_0000),
    ],
)
def test_a_table_that_goes_on_in_another_file_cuts_none_short(
    name: str, table: int, tmp_path: Path
) -> None:
    """Nor is the first of two files cut short where the second ends in the middle of the table."""
    made = layout.snapshot(name, None, {})
    cpu, memory = made.cpu, made.memory
    assert isinstance(memory, BufferMemory)
    first = min(root.table.address for root in cpu.roots) & -0x1000
    registers = [
        f"--{one}={getattr(cpu, one):#x}" for one in ROOTS[cpu.architecture] if getattr(cpu, one)
    ]
    base, at, end = memory.span.first, table + 0x1000, first + 0x10_0000

    def said(*ends: int) -> list[str]:
        files = []
        for number, (start, past) in enumerate(pairwise((first, *ends))):
            octets = memory.octets[start - base : past - base]
            (tmp_path / f"part{number}").write_bytes(octets.tobytes())
            files += ["--ram", f"part{number}@{start:#x}"]
        code, out, errors = run("dump", *files, *registers, cwd=tmp_path)
        assert (code, errors) == (0, "")
        return [line for line in out.splitlines() if "cut short" in line]

    assert said(at, end) == []
    (line,) = said(at)
    assert line.startswith(f"Note: part0 was cut short: it ends at {at:#x}, in the middle of the ")
    assert line.endswith(f" table at {table:#x}.")
    (line,) = said(at, at + 0x1000)
    assert line.startswith("Note: part1 was cut short")


@pytest.mark.parametrize(
    ("arch", "seen"),
    [
        ("x86", ("--code", "4")),
        ("riscv", ("--code", "13")),
        ("arm64", ("--esr", "0x92000007")),
        ("s390", ("--code", "0x11")),
        ("power", ("--dsisr", "0x40000000")),
    ],
)
def test_a_fault_may_be_given_that_the_rest_of_a_cut_table_decides(
    arch: str, seen: tuple[str, ...], tmp_path: Path
) -> None:
    source, slot = in_file(tmp_path / "ram", arch, 1000)
    asked = ("fault", f"{PAGE + 200 * slot.size:#x}", *seen, *source)
    _, out, errors = run(*asked, cwd=tmp_path)
    (line,) = (one for one in out.splitlines() if "give this fault" in one)
    assert line.startswith("The tables as they are may give this fault: it depends on slot 200 of ")
    assert line.endswith(", which lies outside memory."), errors
    assert json.loads(run(*asked, "--json", cwd=tmp_path)[1])["given"] is None
