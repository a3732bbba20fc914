"""A guest that runs under tables into which code stores that is no part of the package."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from harness.check.live import NOT_SHOWN
from harness.check.x86.live import Live
from harness.check.x86.space import GuestSpace
from harness.machine.errors import Misuse
from harness.machine.x86.guest import Guest
from harness.paging.address import Span, Virtual
from harness.paging.x86.cpu import Cpu

pytestmark = pytest.mark.hw

PAGE, P, W, U, A, D, XD = 1 << 12, 1, 2, 4, 1 << 5, 1 << 6, 1 << 63
STACK = Span.of(0x7000_0000_1000, 4 * PAGE)
WORDS = 512


class Mapper:
    """A kernel's own code, as C would have it: it stores words into memory, and nobody sees it.

    Its tables and frames come from a pile, on which what it frees is put back.
    """

    def __init__(self, guest: Guest, levels: int, first: int) -> None:
        self.words = guest.ram.buffer.view("<u8")
        self.pile = [first + PAGE * number for number in reversed(range(64))]
        self.levels, self.root = levels, self.table()
        self.flush: Callable[[int], object] = lambda address: None

    def table(self) -> int:
        address = self.pile.pop()
        self.words[address // 8 : address // 8 + WORDS] = 0
        return address

    def slots(self, virtual: int) -> list[int]:
        """The number of the word at each level, from the root down, tables made where needed."""
        table, found = self.root, []
        for level in reversed(range(self.levels)):
            found.append(table // 8 + (virtual >> 12 + 9 * level) % WORDS)
            if level and not self.words[found[-1]] & P:
                self.words[found[-1]] = self.table() | P | W | U
            table = int(self.words[found[-1]]) & 0xF_FFFF_FFFF_F000
        return found

    def map(self, span: Span, frames: Sequence[int], bits: int = P | W | U) -> None:
        for page, frame in zip(span.pieces(PAGE), frames, strict=True):
            self.words[self.slots(page.first)[-1]] = frame | bits

    def unmap(self, span: Span, first_flush: bool = False) -> None:
        for page in span.pieces(PAGE):
            if first_flush:
                self.flush(page.first)
            self.words[self.slots(page.first)[-1]] = 0
            if not first_flush:
                self.flush(page.first)

    def drop_table(self, virtual: int) -> int:
        """Takes the lowest table of an address out, and frees it."""
        *_, above, last = self.slots(virtual)
        self.words[above] = 0
        self.pile.append(last * 8 // PAGE * PAGE)
        return self.pile[-1]


@pytest.fixture
def mapper(guest: Guest, space: GuestSpace, live: Live) -> Mapper:
    """Code with memory of its own, under whose root the guest runs."""
    made = Mapper(guest, space.cpu.levels, int(space.frames(64)[0]))
    live.load(Cpu.long_mode(made.levels, made.root, maxphyaddr=guest.info.physical_bits))
    return made


@pytest.fixture
def frames(space: GuestSpace) -> list[int]:
    return [int(frame) for frame in space.frames(STACK.size // PAGE)]


def test_what_it_stores_is_what_the_guest_stores(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    mapper.flush = lambda address: live.flush([address])
    with live.changes():
        mapper.map(STACK, frames)
    live.probe(STACK)
    with live.changes():
        mapper.unmap(STACK)
    live.probe(STACK)
    with live.changes():
        mapper.map(STACK, frames[::-1], P | U | XD)
    live.probe(STACK)
    found = live.run()
    assert not found.disagreed
    assert not any(reason.startswith(NOT_SHOWN) for reason in found.not_comparable)


def test_flushes_can_be_handed_over_afterwards(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    flushed: list[int] = []
    mapper.flush = flushed.append
    mapper.map(STACK, frames)  # before anything was asked: no one has to announce it
    live.probe(STACK)
    with live.changes():
        mapper.unmap(STACK)
    live.flush(flushed)
    live.probe(STACK)
    assert len(flushed) == 4
    assert not live.run().disagreed


@pytest.mark.parametrize("wrong", ["no flush", "a flush of all but one", "flushes before stores"])
def test_a_flush_that_is_missing_shows(
    mapper: Mapper, live: Live, frames: list[int], wrong: str, guest: Guest
) -> None:
    if guest.engine.name == "kvm":
        pytest.skip("pagetable: kvm follows every store to a table, flushed or not")

    def flush(address: int) -> None:
        if wrong == "flushes before stores" or (wrong != "no flush" and address != STACK.first):
            live.flush([address])
            if wrong == "flushes before stores":
                live.probe(Span.of(address, PAGE))  # which the machine caches anew

    mapper.flush = flush
    mapper.map(STACK, frames)
    live.probe(STACK)
    with live.changes():
        mapper.unmap(STACK, first_flush=wrong == "flushes before stores")
    live.probe(STACK)
    found = live.run()
    assert found.disagreed
    assert all("a flush may be missing" in one.hint for one in found.disagreements)
    if wrong == "a flush of all but one":
        assert {one.address & -PAGE for one in found.disagreements} == {STACK.first}


def test_a_load_of_cr3_flushes_what_is_not_global(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    mapper.map(STACK, frames)
    live.probe(STACK)
    with live.changes():
        mapper.unmap(STACK)
    live.flush_all()
    live.probe(STACK)
    assert not live.run().disagreed


ASKED: dict[str, Callable[[Live], object]] = {
    "probe": lambda live: live.probe(STACK),
    "flush": lambda live: live.flush([STACK.first]),
    "load": lambda live: live.load(live.cpu),
    "run": lambda live: live.run(),
}


@pytest.mark.parametrize("asked", ASKED)
def test_a_store_that_no_one_announced_is_refused(
    mapper: Mapper, live: Live, frames: list[int], asked: str
) -> None:
    mapper.map(STACK, frames)
    live.probe(STACK)
    slot = mapper.slots(STACK.first)[-1]
    before = int(mapper.words[slot])
    mapper.words[slot] ^= W
    for _ in range(2):  # nor is it taken the second time
        with pytest.raises(
            Misuse,
            match=f"^the entry at {8 * slot:#x} was {before:#x} and is {before ^ W:#x}, and no one"
            " has announced that store: put what .* `with live.changes",
        ):
            ASKED[asked](live)
    assert mapper.words[slot] == before ^ W  # it is the caller's, and stays


def test_a_new_table_and_what_is_stored_there_later_is_noted(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    far = Span.of(STACK.first + (1 << 30), STACK.size)
    mapper.flush = lambda address: live.flush([address])
    mapper.map(STACK, frames)
    live.probe(STACK, far)
    with live.changes():
        mapper.map(far, frames)
    live.probe(far)
    with live.changes():
        mapper.unmap(far)
    live.probe(STACK, far)
    assert not live.run().disagreed


def test_a_page_that_becomes_a_table_and_a_table_that_becomes_a_page(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    """Frames change their use in the course of a run, which the guest goes through again."""
    far = Span.of(STACK.first + (1 << 30), STACK.size)
    mapper.flush = lambda address: live.flush([address])
    mapper.map(STACK, frames)
    live.probe(STACK)
    with live.changes():
        mapper.unmap(STACK)
        mapper.pile += frames
        mapper.map(far, [mapper.pile.pop(0) for _ in frames])  # its table was a page before
    live.probe(STACK, far)
    with live.changes():
        table = mapper.drop_table(far.first)
        live.flush_all(global_pages=True)
        mapper.map(Span.of(STACK.first, PAGE), [table])  # the table is a page now
        mapper.pile.remove(table)
    live.probe(STACK, far)
    with live.changes():
        mapper.unmap(Span.of(STACK.first, PAGE))
    live.probe(STACK)
    assert not live.run().disagreed


def test_a_table_that_was_never_a_page_becomes_one(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    low = Span.of(STACK.first - PAGE, STACK.size)  # whose entries lie where marks are put
    mapper.flush = lambda address: live.flush([address])
    mapper.map(low, frames)
    live.probe(low)
    with live.changes():
        mapper.unmap(low)
        table = mapper.drop_table(low.first)
        live.flush_all(global_pages=True)
        mapper.pile.remove(table)
        mapper.map(Span.of(low.first + (1 << 30), PAGE), [table])
    live.probe(Span.of(low.first + (1 << 30), PAGE))
    assert not live.run().disagreed


def test_a_table_that_is_mapped_is_not_probed(mapper: Mapper, live: Live) -> None:
    mapper.map(Span.of(STACK.first, PAGE), [mapper.root])
    with pytest.raises(
        Misuse, match=f"^{STACK.first:#x} leads to {mapper.root:#x}, in a table, where accesses"
    ):
        live.probe(Span.of(STACK.first, PAGE))


def test_operations_of_the_library_may_stand_between(
    space: GuestSpace, live: Live, guest: Guest
) -> None:
    words = guest.ram.buffer.view("<u8")
    space.map(Virtual(STACK.first), space.frames(4), 0, space.format.granting("write", "user"))
    live.probe(STACK)
    slots = [space.slot(Virtual(page.first), 0) for page in STACK.pieces(PAGE)]
    with live.changes():
        words[slots[0].address // 8] = 0
        live.flush(space.unmap(Span(STACK.first + PAGE, STACK.last)))
        words[slots[1].address // 8] = words[slots[3].address // 8] = 0
        space.write(slots[1], int(space.frames(1)[0]) | P | U)
        live.flush([STACK.first])
    live.probe(STACK)
    found = live.run()
    assert not found.disagreed
    assert not any(reason.startswith(NOT_SHOWN) for reason in found.not_comparable)


def test_the_entry_by_which_the_stub_runs_is_not_to_be_overwritten(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    mapper.map(STACK, frames)
    live.probe(STACK)
    with (
        pytest.raises(Misuse, match=r"of the root's table, at 0x.*, is the stub's, which runs by"),
        live.changes(),
    ):
        mapper.words[mapper.root // 8 : mapper.root // 8 + WORDS // 2 + 1] = 0


def test_what_was_stored_before_an_error_in_the_block_is_announced(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    mapper.map(STACK, frames)
    live.probe(STACK)
    with pytest.raises(ZeroDivisionError), live.changes():
        mapper.unmap(STACK)
        raise ZeroDivisionError  # as the code under test is meant to fail after its store
    live.flush([page.first for page in STACK.pieces(PAGE)])
    live.probe(STACK)
    assert not live.run().disagreed


def test_what_is_too_much_for_one_run_leaves_the_rest_usable(
    mapper: Mapper, guest: Guest, live: Live, frames: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    mapper.map(STACK, frames)
    live.probe(STACK)
    with monkeypatch.context() as patch:
        patch.setattr(guest, "capacity", 1)
        for _ in range(2):
            with pytest.raises(Misuse, match="a batch holds 1;"):
                live.run()
    assert not live.run().disagreed


def test_after_an_error_in_the_block_stores_are_no_longer_announced(
    mapper: Mapper, live: Live, frames: list[int]
) -> None:
    mapper.map(STACK, frames)
    live.probe(STACK)
    with pytest.raises(ZeroDivisionError), live.changes():
        raise ZeroDivisionError
    mapper.words[mapper.slots(STACK.first)[-1]] = 0
    with pytest.raises(Misuse, match="no one has announced"):
        live.probe(STACK)
