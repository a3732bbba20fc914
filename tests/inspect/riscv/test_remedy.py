"""What is proposed for an entry that was meant as a pointer, or as a page."""

from __future__ import annotations

import numpy as np
import pytest

from harness.inspect.riscv.remedy import remedies
from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.paging.riscv.access import Access, Kind
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, R, U, V, W, X

READ = Access(Kind.READ, user=True)
PAGE = 0x8800_0000 >> 2 | V | R | X | U | A | D


def proposed(root: int, middle: int, last: int) -> list[tuple[tuple[int, ...], bool]]:
    """The new entries of each change, and whether more must be made, of address 0: tables are at 0,
    0x1000 and 0x2000."""
    words = np.zeros(3 * 512, np.uint64)
    words[0], words[512], words[1024] = root, middle, last
    memory = BufferMemory(words.view(np.uint8))
    found = remedies(Cpu.in_mode(Mode.SV39, 0), memory, Virtual(0), READ)
    return [(tuple(e.new for e in one.entries), one.missing is not None) for one in found]


@pytest.mark.parametrize("rights", [R, X, R | W, R | X, R | W | X, R | W | X | U | A | D])
def test_a_pointer_that_has_rights_loses_them_where_its_table_is_good(rights: int) -> None:
    first, *_ = proposed(0x1000 >> 2 | V | rights, 0x2000 >> 2 | V, PAGE)
    assert first == ((0x1000 >> 2 | V,), False)
    first, *_ = proposed(0x1000 >> 2 | V, 0x2000 >> 2 | V | rights, PAGE)
    assert first == ((0x2000 >> 2 | V,), False)


@pytest.mark.parametrize("middle", [0, V | R | W, 0x2000 >> 2 | V | R])
@pytest.mark.parametrize("frame", [0x1000, 0x8000_1000])
def test_a_page_that_is_not_aligned_leads_to_no_table_to_be_mended_or_made(
    middle: int, frame: int
) -> None:
    found = proposed(frame >> 2 | V | R | U | A | D, middle, 0)
    assert found and not any(missing for _, missing in found)
    assert all(new & (R | W | X) for entries, _ in found for new in entries)
