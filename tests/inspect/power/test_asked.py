"""What questions about tables ask of POWER."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.inspect import architecture
from harness.inspect.sources.layout import snapshot
from harness.paging.power.cpu import Cpu
from tests.inspect.power.handmade import ROOT, TREE

CPU = Cpu(TREE | ROOT, TREE | ROOT, sets_marks=False)
ASKED = architecture.of(CPU)


@pytest.mark.parametrize("quadrant", [0, 3])
def test_an_address_is_one_of_a_tree_of_52_bits(quadrant: int) -> None:
    for address in (0, 0x1000, (1 << 52) - 1):
        served, said = ASKED.canonical(CPU, quadrant << 62 | address)
        assert served
        assert said == f"bits 63:62 are {quadrant}, quadrant {quadrant}, and bits 61:52 are 0"
        for bit in range(52, 62):
            served, said = ASKED.canonical(CPU, quadrant << 62 | address | 1 << bit)
            assert not served and said.endswith("bits 61:52 are not 0")
            assert said.startswith(f"bits 63:62 are {quadrant}, ")


def test_where_there_is_no_tree_the_reason_is_said() -> None:
    without = replace(CPU, quadrant0=None)
    served, said = ASKED.canonical(without, 0x1000)
    assert not served and said.startswith("bits 63:62 are 0, quadrant 0, and ")
    assert ASKED.canonical(without, 3 << 62)[0]


def test_a_layout_is_of_a_processor_that_leaves_r_and_c_to_software() -> None:
    """As what is assumed of it says."""
    where = snapshot("power/rights", None, {})
    assert not where.cpu.sets_marks
    assert any("sets neither R nor C" in one for one in ASKED.left_open(where.cpu, {}))
