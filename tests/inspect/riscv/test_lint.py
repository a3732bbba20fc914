"""What RISC-V has otherwise among the rules about spaces."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.inspect.find import addresses
from harness.inspect.graph import read
from harness.inspect.lint import Broken, Severity, lint
from harness.inspect.riscv import memory_type
from harness.inspect.snapshot import Snapshot
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, N, R, V, W, X

NC = 1 << 61
FRAME = 0x8000_0000 >> 2


def test_memory_that_is_cached_at_one_address_alone_is_a_note() -> None:
    words = np.zeros(3 * 512, np.uint64)
    words[0], words[512] = 0x1000 >> 2 | V, 0x2000 >> 2 | V
    words[1024 : 1024 + 2] = FRAME | V | R | W | A | D, FRAME | V | R | W | A | D | NC
    cpu = Cpu.in_mode(Mode.SV39, 0, pbmte=True)
    snapshot = Snapshot("test", cpu, BufferMemory(words.view(np.uint8)), None)
    broken, _ = lint(snapshot, memory_type.types(None), (), 10)
    [mixed] = [one for one in broken if one.rule.name == "mixed-types"]
    assert (mixed.rule.severity, mixed.rule.section) == (Severity.NOTE, "Svpbmt")
    [finding] = mixed.findings
    assert finding.detail == "NC at 0x1000 and PMA at 0x0"


def of_pages(pages: dict[int, int], adue: bool = True) -> dict[str, Broken]:
    """What is odd about pages of the lowest table of Sv39 with Svnapot, by their slots."""
    words = np.zeros(3 * 512, np.uint64)
    words[0], words[512] = 0x1000 >> 2 | V, 0x2000 >> 2 | V
    for slot, raw in pages.items():
        words[1024 + slot] = raw
    cpu = Cpu.in_mode(Mode.SV39, 0, svnapot=True, adue=adue)
    if not adue:
        cpu = replace(cpu, svade=True)
    snapshot = Snapshot("test", cpu, BufferMemory(words.view(np.uint8)), None)
    return {one.rule.name: one for one in lint(snapshot, memory_type.types(None), (), 10)[0]}


def napot(**changed: int) -> dict[int, int]:
    """A 64K page in slots 16 to 31, but for slots that are changed."""
    pages = dict.fromkeys(range(16, 32), NAPOT)
    return {**pages, **{int(slot[1:]): raw for slot, raw in changed.items()}}


NAPOT = FRAME | 1 << 13 | N | V | R | A | D


@pytest.mark.parametrize(
    ("pages", "said"),
    [
        (napot(s20=0), "entry 4 is missing"),
        (napot(s31=FRAME | V | R | A | D), "entry 15 is without the bit"),
        (napot(s20=NAPOT | W), "W differs in entry 4"),
        (napot(s20=NAPOT + (1 << 14)), "entry 4 does not lead on in order"),
    ],
    ids=["missing", "without", "rights", "order"],
)
def test_a_64k_page_whose_entries_are_not_alike_is_an_error(
    pages: dict[int, int], said: str
) -> None:
    assert "napot-apart" not in of_pages(napot())
    assert "napot-apart" not in of_pages(napot(s20=NAPOT & ~(A | D)))
    broken = of_pages(pages)["napot-apart"]
    assert (broken.rule.severity, broken.rule.section) == (Severity.ERROR, "Svnapot")
    assert {one.detail for one in broken.findings} == {said}


def test_each_64k_page_is_a_finding_of_its_own() -> None:
    broken = of_pages({slot: NAPOT + (slot % 2 << 14) for slot in range(32, 64)})["napot-apart"]
    found = [(one.where.first, one.count) for one in broken.findings if one.where]
    assert found == [(32 << 12, 16), (48 << 12, 16)]
    assert {one.detail for one in broken.findings} == {
        "entries 1, 3, 5 and 8 in all do not lead on in order"
    }


def test_pages_that_the_hart_does_not_mark_are_a_note() -> None:
    """A write needs D as well, where writing is granted."""
    pages = {1: FRAME | V | R | A, 2: FRAME | V | R, 3: FRAME | V | R | W | A}
    assert "marks-missing" not in of_pages(pages)
    broken = of_pages(pages, adue=False)["marks-missing"]
    assert (broken.rule.severity, broken.count) == (Severity.NOTE, 2)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (FRAME | 1 << 10 | V | R | A | D, "in a table of a lower level, a 4K page at 0x80001000"),
        (FRAME | 1 << 19 | V | R | A | D, "in a table of a lower level, a 2M page at 0x80200000"),
        (FRAME | 1 << 10 | V | R, "without R, W and X a pointer, to the table at 0x80001000"),
        (
            FRAME | 1 << 10 | V | R | W | X,
            "without R, W and X a pointer, to the table at 0x80001000",
        ),
    ],
)
def test_a_superpage_that_is_not_aligned_is_told_as_a_page_of_a_lower_level_or_a_pointer(
    raw: int, said: str
) -> None:
    words = np.zeros(2 * 512, np.uint64)
    words[0], words[1] = 0x1000 >> 2 | V, raw
    cpu = Cpu.in_mode(Mode.SV39, 0)
    snapshot = Snapshot("test", cpu, BufferMemory(words.view(np.uint8)), None)
    broken, _ = lint(snapshot, memory_type.types(None), (), 10)
    (finding,) = next(one for one in broken if one.rule.name == "reserved-bits").findings
    assert finding.detail.endswith(f"below a superpage; {said}")


def test_a_malformed_pointer_is_none_of_the_entries_that_would_map_a_frame() -> None:
    words = np.zeros(3 * 512, np.uint64)
    words[0], words[512] = 0x1000 >> 2 | V, 0x2000 >> 2 | V
    words[513], words[1024] = FRAME | V | A | D, FRAME | V | W
    cpu = Cpu.in_mode(Mode.SV39, 0)
    tables = read(BufferMemory(words.view(np.uint8)), cpu.format, cpu.roots)
    (one,) = addresses(tables, Physical(FRAME << 2), 9).spoilt
    assert (one.slot.level, one.slot.index) == (0, 0)
