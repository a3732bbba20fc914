"""What is said of two spaces that were compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from harness.inspect import graph
from harness.inspect.diff import diff
from harness.inspect.snapshot import Snapshot
from harness.inspect.x86.memory_type import types
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu, Mode
from harness.report.diff import diff_lines, head_lines, summary


def test_spaces_are_called_the_same_only_where_all_was_compared() -> None:
    cpu = Cpu.long_mode(4, 0)
    empty = graph.read(BufferMemory(bytes(cpu.format.table_bytes(3))), cpu.format, cpu.roots)
    found = diff(empty, empty)
    assert summary(found) == "The spaces are the same."
    cut = replace(found, cut=("3 pairs of tables were not compared.",))
    assert summary(cut) == "What was compared is the same."


def test_a_table_without_memory_is_told_by_its_own_level_where_parts_of_it_are_compared() -> None:
    cpu = Cpu.long_mode(4, 0)
    words = np.zeros(512 * 4, np.uint64)
    words[512], words[1024], words[1536 + 3] = 0x2007, 0x3007, 0x9007
    spaces = []
    for root in (0xDEAD007, 0x1007):
        words[0] = root
        memory = BufferMemory(words.copy().view(np.uint8))
        spaces.append(graph.read(memory, cpu.format, cpu.roots))
    said = "what the level-2 table at 0xdead000 has here lies outside memory"
    lines = list(diff_lines((cpu, cpu), types(None), diff(*spaces), 100))
    told = [line for line in lines if "outside memory" in line]
    assert len(told) == 5
    assert all(line.rstrip().endswith(said) for line in told)


def looked_at(cr3: int, title: str = "QEMU at q, processor 0") -> Snapshot:
    memory = BufferMemory(np.zeros(0x4000, np.uint8))
    return Snapshot(title, Cpu.in_mode(Mode.LEVEL_4, cr3), memory, None)


def test_each_side_says_by_which_cr3_it_is_read() -> None:
    one, other = looked_at(0x1000), looked_at(0x2000)
    assert list(head_lines(one, other, again=False)) == [
        "- QEMU at q, processor 0, CR3 0x1000",
        "+ QEMU at q, processor 0, CR3 0x2000",
        "",
    ]


def test_a_root_that_changed_between_two_moments_is_said() -> None:
    one, other = looked_at(0x1000), looked_at(0x2000)
    note = list(head_lines(one, other, again=True))[2]
    assert note == (
        "The root changed between the two moments, so these are two spaces;"
        " ,cr3=0x1000 after the source keeps to the first."
    )
    # The low bits of CR3 are no part of the root's address.
    other = looked_at(0x1018)
    assert one.cpu.roots == other.cpu.roots
    assert not any("root changed" in line for line in head_lines(one, other, again=True))
    assert not any("root changed" in line for line in head_lines(one, one, again=True))
