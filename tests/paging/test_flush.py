"""A flush cannot be forgotten without a trace."""

import gc

import numpy as np
import pytest

from harness.paging.address import Span, Virtual
from harness.paging.flush import Flush
from tests.paging.spaces import FORMATS, World

SOME = np.array([0x3000, 0x1000, 0x3000], np.uint64)


def test_a_flush_that_is_dropped_undone_is_a_resource_warning() -> None:
    flush = Flush()
    flush.add(SOME)
    with pytest.warns(RuntimeWarning, match="<Flush of 2 addresses> was dropped"):
        del flush
        gc.collect()


def test_a_result_that_nobody_takes_is_a_resource_warning() -> None:
    world = World(FORMATS["x86-4"])
    world.space.map(Virtual(0), world.frames(1), 0, world.rights())
    with pytest.warns(RuntimeWarning):
        world.space.unmap(world.pages(0, 1))


def test_a_flush_of_nothing_may_be_dropped() -> None:
    flush = Flush()
    flush.add(np.empty(0, np.uint64), everything=True, global_pages=True)
    assert not flush and not flush.everything and not flush.global_pages


def test_a_flush_of_everything_must_be_done_though_no_address_is_listed() -> None:
    flush = Flush()
    flush.add_everything()
    assert flush
    flush.done()
    assert not flush


def test_a_flush_of_nothing_after_which_something_is_to_be_done_must_be_done() -> None:
    done: list[bool] = []
    flush = Flush()
    flush.then(lambda: done.append(True))
    assert flush
    flush.done()
    assert done == [True] and not flush


def test_a_flush_says_how_much_it_is() -> None:
    with Flush() as flush:
        assert repr(flush) == "<Flush of 0 addresses>"
        flush.add(SOME[:1])
        assert repr(flush) == "<Flush of 1 address>"
        flush.add(SOME, global_pages=True)
        assert repr(flush) == "<Flush of 2 addresses, global ones too>"
        flush.add_everything()
        assert repr(flush) == "<Flush of everything, global ones too>"


def test_leaving_the_block_is_doing_it() -> None:
    done = []
    flush = Flush()
    flush.add(SOME)
    flush.then(lambda: done.append(True))
    with flush as same:
        assert same is flush
        assert not done
    assert done == [True]
    assert not flush


def test_leaving_the_block_by_an_exception_is_not() -> None:
    flush = Flush()
    flush.add_everything()
    with pytest.raises(KeyError), flush:
        raise KeyError
    assert flush.everything and flush.global_pages
    flush.done()


def test_addresses_are_listed_once_and_in_order() -> None:
    with Flush() as flush:
        flush.add(SOME)
        flush.add(np.array([0x2000], np.uint64))
        assert flush.addresses.tolist() == [0x1000, 0x2000, 0x3000]


def test_a_flush_takes_over_all_of_another() -> None:
    done = []
    first, second = Flush(), Flush()
    second.add(SOME, everything=True, global_pages=True)
    second.then(lambda: done.append(True))
    assert first.absorb(second) is first
    assert not second
    assert first.everything and first.global_pages and len(first.addresses) == 2
    first.done()
    assert done == [True]


def test_tables_whose_flush_was_dropped_are_never_used_again() -> None:
    world = World(FORMATS["x86-4"])
    world.space.populate(Span(0, 0))
    with pytest.warns(RuntimeWarning):
        world.space.free_empty(Span(0, 0))
    used = world.allocator.next
    world.space.populate(Span(0, 0))
    assert world.allocator.next > used
