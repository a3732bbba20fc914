"""What QEMU lists of a hart's tables, beside the reference: departures, and planted faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check.compare import Comparison
from harness.check.riscv import foreign
from harness.check.riscv.foreign import compare_mappings, new_versions, of_foreign
from harness.check.riscv.quirks import INFO_MEM_HIGH_BITS, INFO_MEM_RESERVED
from harness.check.riscv.space import GuestSpace
from harness.check.riscv.validate import state_of
from harness.machine.errors import ProtocolError
from harness.machine.monitor import Monitor
from harness.machine.riscv.mappings import mappings_in
from harness.paging.address import Span, Virtual
from harness.paging.memory import BufferMemory, Words
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, R, U, V, W
from tests.check.riscv.guests import guest as guest_of

PAGE = 1 << 12
PBMT_NC = 1 << 61
"""PBMT=1: memory that is not cached."""
N = 1 << 63
UPPER = -1 << 20
"""From the end of the addresses."""


def frames(count: int) -> Words:
    """Physical addresses that no access reaches."""
    return np.uint64(0x8300_0000) + np.arange(count, dtype=np.uint64) * np.uint64(PAGE)


@contextmanager
def listed(mode: str) -> Iterator[tuple[GuestSpace, Callable[[], Comparison]]]:
    """A space in a guest, and what comes of comparing the list of it."""
    with guest_of(32 if mode == "sv32" else 64) as guest:
        space = GuestSpace(guest, mode)
        cpu = space.cpu
        space.map(Virtual(0x40_0000), frames(3), 0, space.format.granting("read", "user")).done()
        space.map(Virtual(0x40_3000), frames(2), 0, space.format.granting("read", "write")).done()
        size = space.format.levels[1].size
        large = np.array([guest.ram.base], np.uint64) // np.uint64(size) * np.uint64(size)
        rights = space.format.granting("read", "execute", "write")
        space.map(Virtual(0x4000_0000), large, 1, rights).done()
        top = (1 << cpu.xlen) + UPPER
        space.map(Virtual(top), frames(1), 0, space.format.granting("read")).done()

        def compared() -> Comparison:
            with guest.parked(state_of(cpu, Span.of(0, 1))) as monitor:
                return compare_mappings(monitor, cpu, space.memory)

        yield space, compared


@pytest.mark.hw
@pytest.mark.parametrize("mode", ["sv32", "sv39", "sv48", "sv57"])
def test_every_page_is_in_one_row_and_every_row_is_full_of_pages(mode: str) -> None:
    with listed(mode) as (space, compared):
        found = compared()
        assert (found.compared, found.disagreed, found.quirks) == (7, 0, {})
        space.write(space.slot(Virtual(0x40_1000), 0), 0)
        found = compared()
        assert (found.compared, found.disagreed) == (6, 0)


@pytest.mark.hw
def test_what_the_list_takes_for_the_address_is_named() -> None:
    """Two entries with a memory type, of which one is reserved as well, and a page of 64K, whose
    ninth slot is printed as it is."""
    with listed("sv39") as (space, compared):
        if not (space.cpu.pbmte and space.cpu.svnapot):
            pytest.skip("this QEMU has no Svpbmt or Svnapot")
        first = space.slot(Virtual(0x40_0000), 0)
        space.write(first, space.read(first) | PBMT_NC)
        second = space.slot(Virtual(0x40_1000), 0)
        space.write(second, space.read(second) & ~R | W | PBMT_NC)
        beside = Virtual(0x61_0000)
        space.map(beside, frames(1), 0, space.format.granting("read")).done()
        for number in range(16):
            slot = space.slot(Virtual(0x60_0000 + number * PAGE), 0)
            space.write(slot, N | 0x8400_8000 >> 2 | A | D | R | V)
        found = compared()
        assert (found.compared, found.disagreed) == (7 + 1 + 16, 0)
        named = {INFO_MEM_HIGH_BITS.name: 1 + 15, INFO_MEM_RESERVED.name: 1}
        assert found.quirks == named


def changed(change: Callable[[list[str]], list[str]]) -> Callable[[MonkeyPatch], None]:
    """The lines that the monitor prints below the head, changed."""
    true = Monitor.human

    def human(self: Monitor, command: str, *given: Any, **named: Any) -> str:
        text = true(self, command, *given, **named)
        if command != "info mem":
            return text
        head, rule, *rows = text.splitlines()
        return "\r\n".join((head, rule, *change(rows)))

    return lambda patch: patch.setattr(Monitor, "human", human)


SMALL = [0x40_0000, 0x40_1000, 0x40_2000]
"""The pages of the first row."""

PLANTED = {
    "a row is missing": (lambda rows: rows[1:], SMALL),
    "a row is twice as long": (
        lambda rows: [rows[0].replace("3000 r", "6000 r"), *rows[1:]],
        [0x40_0000],
    ),
    "a row is too short": (
        lambda rows: [rows[0].replace("3000 r", "2000 r"), *rows[1:]],
        [0x40_2000],
    ),
    "a row leads elsewhere": (
        lambda rows: [rows[0].replace(" 000000008", " 000000009"), *rows[1:]],
        [*SMALL, 0x40_0000],
    ),
    "a right is missing": (
        lambda rows: [rows[0].replace("r--u", "---u"), *rows[1:]],
        [*SMALL, 0x40_0000],
    ),
    "A is set": (lambda rows: [rows[0].replace("u---", "u-a-"), *rows[1:]], [*SMALL, 0x40_0000]),
    "a row has no pages": (
        lambda rows: [*rows, rows[-1].replace("ffffffffff", "fffffffff0")],
        [0xFFFF_FFFF_F0F0_0000],
    ),
}
"""What becomes of the rows, and the pages, and then the rows, that are found to be wrong."""


@pytest.mark.hw
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_of_the_list_is_a_disagreement(
    fault: str, monkeypatch: MonkeyPatch
) -> None:
    change, wrong = PLANTED[fault]
    with listed("sv39") as (_, compared):
        changed(change)(monkeypatch)
        found = compared()
        assert [one.address for one in found.disagreements] == wrong
        assert found.disagreed == len(wrong)
        assert {one.oracle for one in found.disagreements} == {"info mem"}


# ---- without a guest ----

FRAME, LARGE = 0x8300_0000, 0x8400_0000


class Printing:
    """A monitor of a version that prints these rows."""

    def __init__(self, *rows: tuple[int, int, int, str], version: tuple[int, ...]) -> None:
        self.version = version
        self.text = "\n".join(f"{at:016x} {to:016x} {size:016x} {of}" for at, to, size, of in rows)

    def human(self, command: str, *, long: bool) -> str:
        assert (command, long) == ("info mem", True)
        return f"vaddr paddr size attr\n---- ---- ---- ----\n{self.text}\n"


def tables(*pages: int) -> BufferMemory:
    """Three tables of Sv39: a large page at 4M, and from 2M on the pages of the last."""
    words = np.zeros(3 * 512, np.uint64)
    words[0], words[512 + 1], words[512 + 2] = 0x1000 >> 2 | V, 0x2000 >> 2 | V, BIG
    words[1024 : 1024 + len(pages)] = pages
    return BufferMemory(words.view(np.uint8))


BIG = LARGE >> 2 | V | R | W | U | A | D
PAGES = [FRAME >> 2 | V | R | A, FRAME + 0x1000 >> 2 | V | R | A]
ROWS = [(2 << 20, FRAME, 0x2000, "r----a-"), (4 << 20, LARGE, 2 << 20, "rw-u-ad")]
HART = Cpu.in_mode(Mode.SV39, 0, pbmte=True, svnapot=True)
SEVEN = (7, 2, 22)


def compared(*rows: tuple[int, int, int, str], memory: BufferMemory) -> Comparison:
    monitor: Any = Printing(*rows, version=SEVEN)
    return compare_mappings(monitor, HART, memory)


def told(found: Comparison) -> list[tuple[int, str, str]]:
    return [(one.address, one.expected, one.observed) for one in found.disagreements]


@pytest.mark.parametrize("rows", [ROWS, ROWS[::-1]])
def test_rows_in_any_order_are_the_pages(rows: list[tuple[int, int, int, str]]) -> None:
    found = compared(*rows, memory=tables(*PAGES))
    assert (found.oracle, found.compared, found.disagreed, found.quirks) == ("info mem", 3, 0, {})


def test_each_page_and_each_row_that_is_wrong_is_told_as_it_is() -> None:
    first, second = ("0x1000 bytes at 0x83000000 r----a-", "0x1000 bytes at 0x83001000 r----a-")
    large = "0x200000 bytes at 0x84000000 rw-u-ad"
    memory, (small, big) = tables(*PAGES), ROWS
    assert told(compared(big, memory=memory)) == [
        (2 << 20, first, "no such row"),
        (0x20_1000, second, "no such row"),
    ]
    short = "0x1000 bytes at 0x83000000 r----a-"
    assert told(compared((2 << 20, FRAME, 0x1000, "r----a-"), big, memory=memory)) == [
        (0x20_1000, second, short)
    ]
    cut = "0x1800 bytes at 0x83000000 r----a-"
    assert told(compared((2 << 20, FRAME, 0x1800, "r----a-"), big, memory=memory))[0] == (
        0x20_1000,
        second,
        cut,
    )
    half = "0x100000 bytes at 0x84000000 rw-u-ad"
    assert told(compared(small, (4 << 20, LARGE, 1 << 20, "rw-u-ad"), memory=memory)) == [
        (4 << 20, large, half),
        (4 << 20, "no such pages", half),
    ]
    beside = (6 << 20, FRAME, 0x1000, "--xug-d")
    assert told(compared(*ROWS, beside, memory=memory)) == [
        (6 << 20, "no such pages", "0x1000 bytes at 0x83000000 --xug-d")
    ]
    elsewhere = (4 << 20, LARGE + (2 << 20), 2 << 20, "rw-u-ad")
    found = compared(small, elsewhere, memory=memory)
    assert [one[0] for one in told(found)] == [4 << 20, 4 << 20]


def test_departures_of_the_list_are_those_of_its_version() -> None:
    """Of a NAPOT page and one with a memory type, the upper bits are printed; what is reserved is
    listed all the same."""
    napot = N | (FRAME | 0x8000) >> 2 | V | R | A
    uncached, reserved = PAGES[1] | PBMT_NC, FRAME + 0x2000 >> 2 | V | R | A | 1 << 54
    memory = tables(napot, uncached, reserved)
    high = [bit >> 10 << 12 & (1 << 64) - 1 for bit in (N, PBMT_NC, 1 << 54)]
    of = "r----a-"
    rows = [
        (2 << 20, FRAME | 0x8000 | high[0], 0x1000, of),
        (0x20_1000, FRAME + 0x1000 | high[1], 0x1000, of),
        (0x20_2000, FRAME + 0x2000 | high[2], 0x1000, of),
        ROWS[1],
    ]
    found = compared(*rows, memory=memory)
    assert (found.disagreed, found.compared) == (0, 4)
    assert found.quirks == {INFO_MEM_HIGH_BITS.name: 2, INFO_MEM_RESERVED.name: 1}
    before: Any = Printing(*rows, version=(7, 1))
    assert compare_mappings(before, HART, memory).disagreed > 0


def test_too_many_pages_are_not_asked_for(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(foreign, "MOST_ROWS", 2)
    found = compared(*ROWS, memory=tables(*PAGES))
    assert found.compared == found.disagreed == 0
    assert found.not_comparable == {"not asked: info mem would print more than 2 pages": 3}


def test_what_the_monitor_reads_is_asked_where_it_was_read() -> None:
    monitor: Any = Printing(*ROWS, version=SEVEN)
    memory, other = tables(*PAGES), tables(PAGES[1], PAGES[1])
    plain = list(of_foreign(monitor, HART, memory, None, False))
    assert [(one.oracle, one.disagreed) for one in plain] == [("info mem", 0)]
    both = list(of_foreign(monitor, HART, memory, other, False))
    assert [one.oracle for one in both] == ["walk of monitor memory", "info mem"]
    assert both[0].disagreed and not both[1].disagreed
    assert new_versions("tcg", (99, 0)) and not new_versions("tcg", SEVEN)


LONG = f"1{'0' * 16} 20 30 rwxugad"
"""A number of more than 64 bits."""


def test_what_is_no_list_is_refused() -> None:
    nothing = "No translation or protection"
    for text in (nothing, "0000 0000 0000 rwxugad", "10 20 30 rwxugax", LONG):
        if text.startswith("0000"):
            assert mappings_in(text)["flags"].tolist() == [0xFE]
            continue
        with pytest.raises(ProtocolError, match="the monitor answered info mem with"):
            mappings_in(text)
