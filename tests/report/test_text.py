"""What people read of a walk, on tables whose words are the manual's (SDM 3A, 4.5)."""

from __future__ import annotations

import numpy as np
import pytest

from harness.check.compare import Disagreement
from harness.check.keys import LETTERS
from harness.check.x86.cases import AC
from harness.paging.address import Virtual
from harness.paging.format import Format
from harness.paging.memory import BufferMemory
from harness.paging.s390.formats import dat
from harness.paging.walk import Walk, walk
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu
from harness.report.text import (
    agreeing,
    disagreeing,
    disagreement_lines,
    letters,
    rights,
    walk_lines,
)

XD = 1 << 63
FAR = 1 << 37


def walked(*words: int, maxphyaddr: int = 40) -> Walk:
    """The walk of address 0 whose root is at 0 and whose entries, from the top, are the words."""
    memory = np.zeros(0x4000, np.uint8)
    tables = (word & 0x7000 for word in (0, *words[:-1]))
    for table, word in zip(tables, words, strict=True):
        memory.view("<u8")[table // 8] = word
    cpu = Cpu.long_mode(4, 0, maxphyaddr=maxphyaddr)
    return walk(BufferMemory(memory), cpu.roots[0], Virtual(0))


def cells(walk: Walk, column: int) -> list[str]:
    """A column of the lines, from the root down; columns are two spaces or more apart."""
    head, *lines = walk_lines(walk)
    starts = [head.index(name) for name in ("level", "entry", "slot", "raw", "meaning", "bits")]
    starts += [head.index("rights so far"), 1000]
    return [line[starts[column] : starts[column + 1]].strip() for line in lines]


MAPPED = (0x1007, 0x2027, 0x3003, 0x5061 | XD)


def test_every_step_has_its_level_entry_slot_and_raw_value() -> None:
    walk = walked(*MAPPED)
    assert cells(walk, 0) == ["3", "2", "1", "0"]
    assert cells(walk, 1) == ["PML4E", "PDPTE", "PDE", "PTE"]
    assert cells(walk, 2) == ["0x0", "0x1000", "0x2000", "0x3000"]
    assert cells(walk, 3)[-1] == "0x8000000000005061"


def test_rights_accumulate_from_the_root_down() -> None:
    assert cells(walked(*MAPPED), 6) == [
        "read write user execute",
        "read write user execute",
        "read write execute",
        "read",
    ]


def test_bits_are_named_but_those_of_the_address() -> None:
    """0x1000 is PAT in a page of 2M, and in a pointer a part of the table's address."""
    assert cells(walked(*MAPPED), 5) == ["P W U", "P W U A", "P W", "P A D XD"]
    assert cells(walked(0x1007, 0x2007, 0x1087), 5)[-1] == "P W U PS PAT"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (MAPPED, "4K page at 0x5000"),
        ((0x1007, 0x2007, 0x20_0087), "2M page at 0x200000"),
        ((0x1007, 0x4000_0087), "1G page at 0x40000000"),
        ((0x1007, 0), "not present"),
        ((0x1007, 0x2007, 0x2087), "reserved: 0x2000 below a 2M page"),
        ((0x1087,), "reserved: 0x80 PS where no page can be"),
        ((0x4007,), "no memory there"),
    ],
)
def test_the_last_line_says_where_a_walk_ends(words: tuple[int, ...], said: str) -> None:
    assert cells(walked(*words), 4)[-1] == said


def test_a_reserved_address_bit_is_told_with_the_width_that_makes_it_so() -> None:
    walk = walked(0x1007, 0x2007, 0x3007, FAR | 1, maxphyaddr=36)
    assert cells(walk, 4)[-1] == "reserved: 0x2000000000 beyond MAXPHYADDR 36"


def test_a_disagreement_is_the_question_both_answers_and_the_walk() -> None:
    access = Access(Kind.WRITE, user=True)
    found = Disagreement("probe", 0x1234, access, "this", "that", walked(0), flags=AC)
    assert list(disagreement_lines(found)) == [
        "probe: user write at 0x1234 with AC set",
        "  expected  this",
        "  observed  that",
        "  walk      level  entry  slot  raw                 meaning      bits  rights so far",
        "            3      PML4E  0x0   0x0000000000000000  not present",
    ]


def test_one_is_no_plural() -> None:
    assert agreeing(1, "access") == "1 access agrees"
    assert agreeing(2, "access") == "All 2 accesses agree"
    assert agreeing(2, "answer", all_of_them=False) == "2 answers agree"
    assert disagreeing(1, 1, "answer") == "1 of 1 answer disagrees"
    assert disagreeing(2, 1234, "answer") == "2 of 1,234 answers disagree"


@pytest.mark.parametrize(
    "format",
    [
        *(dat(iep=iep) for iep in (False, True)),
        Cpu(cr3=0, cr0=0x8000_0001, cr4=0, efer=0).format,
        Cpu.long_mode(4, 0).format,
    ],
    ids=lambda format: f"{format.name}-{'-'.join(format.rights)}",
)
def test_rights_in_words_are_those_in_letters(format: Format) -> None:
    """What no entry withholds is given in both: of s390 without IEP, and of 32-bit paging, x."""
    masks = list(format.rights.values())
    for chosen in range(1 << len(masks)):
        granted = sum(mask for place, mask in enumerate(masks) if chosen >> place & 1)
        said = {LETTERS[word] for word in rights(format, granted)}
        assert said == set(letters(format, granted)) - {"-"}
