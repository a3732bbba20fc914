"""What lint says of POWER's trees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.inspect.lint import Broken, lint
from harness.inspect.power import memory_type
from harness.inspect.snapshot import Snapshot
from harness.paging.power.cpu import Cpu
from tests.inspect.power.handmade import ROOT, TREE, Built, L, R, V

CPU = Cpu(TREE | ROOT, sets_marks=False)
SECOND, THIRD, LAST = 0x3_0000, 0x3_1000, 0x3_2000
PAGE = V | L | R | 4


def broken_by(words: dict[str, int] | None = None, cpu: Cpu = CPU) -> dict[str, Broken]:
    """The rules that a path with these entries in place of its own breaks, by level: l0 and so
    on."""
    built = Built()
    for name, table, good in (
        ("l3", ROOT, V | SECOND | 9),
        ("l2", SECOND, V | THIRD | 9),
        ("l1", THIRD, V | LAST | 9),
        ("l0", LAST, PAGE | 0x10_0000),
    ):
        built.put(table + 8, (words or {}).get(name, good))
    snapshot = Snapshot("made by hand", cpu, built.memory, (built.memory.span,))
    broken, _ = lint(snapshot, memory_type.AT_RESET)
    return {one.rule.name: one for one in broken}


def test_a_good_path_breaks_no_rule() -> None:
    assert broken_by() == {}


@pytest.mark.parametrize(
    ("words", "rule", "count"),
    [
        ({"l1": V | LAST | 8}, "reserved-bits", 1),
        ({"l3": V | L | SECOND | 9}, "reserved-bits", 1),
        ({"l0": V | 0x10_0000}, "reserved-bits", 1),
        ({"l1": V | 1 << 30 | 9}, "table-without-memory", 512),
        ({"l1": V | LAST | 0x100 | 9}, "table-misaligned", 1),
        ({"l2": V | THIRD | 0xF00 | 9}, "table-misaligned", 1),
        ({"l1": PAGE | 0x20_1000}, "page-misaligned", 1),
        ({"l0": PAGE | 0x10_0000 | 1 << 5 | 1}, "guarded-code", 1),
        ({"l1": V | THIRD | 9}, "table-in-itself", 1),
    ],
)
def test_what_is_wrong_is_found(words: dict[str, int], rule: str, count: int) -> None:
    found = broken_by(words)
    assert found[rule].count == count
    assert found[rule].findings


@pytest.mark.parametrize(
    "words",
    [
        {"l1": V | LAST | 0x100 | 5},  # a small table is at any multiple of 256 bytes
        {"l0": PAGE | 0x10_0000 | 7 << 9},  # software's
    ],
)
def test_what_is_right_is_not(words: dict[str, int]) -> None:
    wrong = broken_by(words).keys()
    assert not wrong & {"table-misaligned", "page-misaligned", "reserved-bits"}


def test_process_table_entries_are_looked_at() -> None:
    wrong = broken_by(cpu=replace(CPU, quadrant3=TREE ^ 1 << 5 | ROOT))
    [said] = [one.detail for one in wrong["tree-shape"].findings]
    assert said.endswith("a tree of 51 bits, and a root of 1 << 13 entries")
    odd = broken_by(cpu=replace(CPU, quadrant0=TREE | ROOT | 1 << 60 | 0x100))
    [said] = [one.detail for one in odd["root-misaligned"].findings]
    assert said.endswith("has 0x1000000000000100")
    assert "tree-shape" not in odd and "root-misaligned" not in broken_by()
