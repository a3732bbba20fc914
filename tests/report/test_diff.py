"""What is said of two spaces that were compared."""

from __future__ import annotations

from dataclasses import replace

from harness.inspect import graph
from harness.inspect.diff import diff
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu
from harness.report.diff import summary


def test_spaces_are_called_the_same_only_where_all_was_compared() -> None:
    cpu = Cpu.long_mode(4, 0)
    empty = graph.read(BufferMemory(bytes(cpu.format.table_bytes(3))), cpu.format, cpu.roots)
    found = diff(empty, empty)
    assert summary(found) == "The spaces are the same."
    cut = replace(found, cut=("3 pairs of tables were not compared.",))
    assert summary(cut) == "What was compared is the same."
