"""s390 spaces that are changed while a guest runs in them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from harness.check.changes import RAM_BYTES, Change
from harness.check.live import NOT_SHOWN
from harness.check.s390.changes import CHANGES, execute
from harness.check.s390.live import Live
from harness.check.s390.matrix.chain import MODES
from harness.check.s390.space import GuestSpace
from harness.machine.errors import Misuse
from harness.machine.s390.guest import Guest
from harness.paging import slots
from harness.paging.address import Physical, Span, Virtual
from harness.paging.s390.cpu import Asce, Cpu
from tests.check.live_sequences import LiveSequences, Withheld, finds_what_is_withheld
from tests.machine.s390.present import QEMU, why_absent

pytestmark = pytest.mark.hw

PAGE = 1 << 12


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(ram_bytes=RAM_BYTES, program=QEMU) as guest:
        yield guest


ROWS = [
    (mode, change, level)
    for mode in MODES
    for change in CHANGES
    for level in (
        (0,)
        if "page" in (change.before.kind, change.after.kind)
        else range(1, MODES.index(mode) + 2)
    )
]


@pytest.mark.parametrize(
    ("mode", "change", "level"), ROWS, ids=[f"{m}, {c.name}, {n}" for m, c, n in ROWS]
)
def test_a_change_needs_its_flush_and_no_other(
    mode: str, change: Change, level: int, guest: Guest
) -> None:
    assert execute(guest, mode, change, level) == []


@pytest.fixture(params=MODES)
def space(request: pytest.FixtureRequest, guest: Guest) -> GuestSpace:
    return GuestSpace(guest, request.param)


def mapped(space: GuestSpace, at: int = 3 << 20) -> Span:
    """Four pages, and no others beside them."""
    rights = space.format.granting("write", "execute")
    space.map(Virtual(at), space.frames(4), 0, rights).done()
    return Span.of(at, 4 * PAGE)


def test_what_is_flushed_as_asked_shows_nothing_stale(guest: Guest, space: GuestSpace) -> None:
    span = mapped(space)
    live = Live(guest, space.memory, space.cpu)
    live.probe(span)
    live.flush(space.protect(Span.of(span.first, PAGE), space.format.granting("execute")))
    live.probe(span)
    live.flush(space.unmap(span))
    live.probe(span)
    found = live.run()
    assert found.disagreed == 0 and found.compared > 100
    assert not [reason for reason in found.not_comparable if reason.startswith(NOT_SHOWN)]


def test_a_flush_that_is_withheld_is_seen(guest: Guest, space: GuestSpace) -> None:
    span = mapped(space)
    live = Live(guest, space.memory, space.cpu)
    live.probe(span)
    space.unmap(span).done()
    live.probe(span)
    found = live.run()
    assert found.disagreed > 0
    assert "done, and the word is" in found.disagreements[0].observed


def test_of_an_address_that_the_tables_do_not_reach_no_entries_are_told(
    guest: Guest, space: GuestSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.check.live.EXAMPLES", 1 << 16)
    monkeypatch.setattr(
        Live, "_agree", lambda live, comparison, asked, *_: np.zeros(len(asked), np.bool_)
    )
    [root] = space.cpu.roots
    last = root.span.last + 1 - PAGE
    mapped(space, last - 3 * PAGE)
    live = Live(guest, space.memory, space.cpu)
    live.probe(Span.of(last, PAGE))
    told = {
        (
            one.address > root.span.last,
            one.observed.count("->"),
            one.observed.endswith(" down: none"),
        )
        for one in live.run().disagreements
    }
    levels = len(space.format.levels)
    # Beside the last of all 64-bit addresses is the first, of which the root has an entry.
    beside = (False, 1, False) if root.span.last == 2**64 - 1 else (True, 0, True)
    assert told == {(False, levels, False), beside}


def test_ipte_flushes_the_entry_that_it_names_and_no_other(guest: Guest, space: GuestSpace) -> None:
    span = mapped(space)
    live = Live(guest, space.memory, space.cpu)
    live.probe(span)
    space.unmap(span).done()
    live.flush([span.first])
    live.probe(span)
    stale = {one.address & -PAGE for one in live.run().disagreements}
    assert stale and span.first not in stale


def test_an_entry_that_is_not_invalid_in_between_is_found(
    guest: Guest, space: GuestSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the new entry is written before the flush, and the flush withheld."""
    span = mapped(space)
    live = Live(guest, space.memory, space.cpu)
    live.probe(span)
    slot = space.slot(Virtual(span.first), 0)
    raw = space.format.leaf(int(space.frames(1)[0]), 0, 0)
    with slots.put(space, slot, replace(slots.value(space, slot), raw=raw), Virtual(span.first)):
        assert space.memory.load(slot.address, 8) == 0x400, "invalid until it is flushed"
    live.probe(span)
    assert live.run().disagreed > 0


def test_stores_in_every_part_of_a_table_are_seen(guest: Guest, space: GuestSpace) -> None:
    """Tables of other levels are eight times as large as page tables."""
    span = mapped(space)
    live = Live(guest, space.memory, space.cpu)
    live.probe(span)
    last = space.roots[0].table.slot(2047)
    space.memory.octets[last.address : last.address + 8] = np.frombuffer(bytes(7) + b"!", np.uint8)
    with pytest.raises(Misuse, match="was 0x20 and is 0x21, and no one has announced that"):
        live.probe(span)


def test_a_root_outside_memory_is_refused(guest: Guest) -> None:
    space = GuestSpace(guest, "segment")
    with pytest.raises(Misuse, match="has the root's table at 0x0, where there is no memory"):
        Live(guest, space.memory, replace(space.cpu, asce=3))


# ---- random sequences ----


def machine(guest: Guest, base: type[LiveSequences], mode: str) -> type[LiveSequences]:
    def made() -> tuple[GuestSpace, Live]:
        space = GuestSpace(guest, mode)
        return space, Live(guest, space.memory, space.cpu)

    def with_root(self: LiveSequences, cpu: Cpu, root: Physical) -> Cpu:
        return replace(cpu, asce=replace(Asce.of(cpu.asce), origin=root).raw)

    parts = {"name": "s390 without EDAT", "made": staticmethod(made), "with_root": with_root}
    return type("Sequences", (base,), parts)


@pytest.mark.parametrize("mode", ["segment", "region-second"])
def test_random_sequences_show_nothing_stale(guest: Guest, mode: str) -> None:
    limits = settings(max_examples=6, stateful_step_count=12, deadline=None)
    run_state_machine_as_test(machine(guest, LiveSequences, mode), settings=limits)


def test_random_sequences_show_what_is_withheld(guest: Guest) -> None:
    finds_what_is_withheld(machine(guest, Withheld, "region-third"))  # type: ignore[arg-type]
