"""What a change says of itself is what it changes, on every architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from harness.architectures import NAMES, USUAL
from harness.inspect import architecture
from harness.inspect.overlay import Overlay
from harness.inspect.remedy import EntryChange, Remedy, Setting
from harness.inspect.sources.layout import snapshot
from harness.paging import bulk
from harness.paging.address import Virtual


def found(arch: str) -> Iterator[tuple[Any, Virtual, Any, Remedy]]:
    """The changes that are proposed for accesses to pages and beside them, which fault."""
    made = snapshot("rights" if arch == USUAL else f"{arch}/rights", None, {})
    asked = architecture.of(made.cpu)
    pages = bulk.leaves(made.memory, made.cpu.roots).virtual.tolist()
    for page in (*pages[:: max(1, len(pages) // 8)], pages[0] ^ 1 << 30):
        address = Virtual(page + 0x123)
        for access in asked.accesses(None, None, False):
            answer = asked.outcome(made.cpu, made.memory, address, access)
            if not isinstance(answer, asked.allowed):
                for one in asked.remedies(made.cpu, made.memory, address, access):
                    yield made, address, access, one


@pytest.mark.parametrize("arch", NAMES)
def test_a_change_costs_its_bits_and_reaches_what_the_access_does_after_it(arch: str) -> None:
    kinds = set[str]()
    for made, address, access, one in found(arch):
        asked = architecture.of(made.cpu)
        changed: list[EntryChange | Setting] = [*one.entries, *one.settings]
        new = one.missing.entries if one.missing else ()
        bits = sum((each.old ^ each.new).bit_count() for each in changed)
        assert one.cost == bits + sum(entry.bits.bit_count() for entry in new)
        kinds |= {type(each).__name__ for each in changed} | {"Missing" for _ in new[:1]}
        if one.missing is not None:
            assert one.reaches is None
        elif one.unread is None:
            memory = Overlay(made.memory, {part.slot.address: part.new for part in one.entries})
            there = asked.outcome(one.applied_to(made.cpu), memory, address, access)
            assert one.reaches == there.physical is not None
    assert kinds >= {"EntryChange", "Missing"}
    assert "Setting" in kinds or arch in ("arm64", "power")  # of which no register helps there
