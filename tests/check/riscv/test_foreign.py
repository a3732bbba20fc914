"""What QEMU lists of a hart's tables, beside the reference: departures, and planted faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check.compare import Comparison
from harness.check.riscv.foreign import compare_mappings
from harness.check.riscv.quirks import INFO_MEM_HIGH_BITS, INFO_MEM_RESERVED
from harness.check.riscv.space import GuestSpace
from harness.check.riscv.validate import state_of
from harness.machine.errors import ProtocolError
from harness.machine.monitor import Monitor
from harness.machine.riscv.mappings import mappings_in
from harness.paging.address import Span, Virtual
from harness.paging.memory import Words
from harness.paging.riscv.formats import A, D, R, V, W
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


PLANTED = {
    "a row is missing": lambda rows: rows[1:],
    "a row is twice as long": lambda rows: [rows[0].replace("3000 r", "6000 r"), *rows[1:]],
    "a row is too short": lambda rows: [rows[0].replace("3000 r", "2000 r"), *rows[1:]],
    "a row leads elsewhere": lambda rows: [rows[0].replace(" 000000008", " 000000009"), *rows[1:]],
    "a right is missing": lambda rows: [rows[0].replace("r--u", "---u"), *rows[1:]],
    "A is set": lambda rows: [rows[0].replace("u---", "u-a-"), *rows[1:]],
    "a row has no pages": lambda rows: [*rows, rows[-1].replace("ffffffffff", "fffffffff0")],
}


@pytest.mark.hw
@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_fault_of_the_list_is_a_disagreement(
    fault: str, monkeypatch: MonkeyPatch
) -> None:
    with listed("sv39") as (_, compared):
        changed(PLANTED[fault])(monkeypatch)
        found = compared()
        assert found.disagreed and found.disagreements[0].oracle == "info mem"


def test_what_is_no_list_is_refused() -> None:
    for text in ("No translation or protection", "0000 0000 0000 rwxugad", "10 20 30 rwxugax"):
        if text.startswith("0000"):
            assert mappings_in(text)["flags"].tolist() == [0xFE]
            continue
        with pytest.raises(ProtocolError, match="the monitor answered info mem with"):
            mappings_in(text)
