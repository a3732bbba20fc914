"""Memory with changed words is the other memory but for those, however it is read."""

from __future__ import annotations

import numpy as np
import pytest

from harness.inspect.overlay import Overlay
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory

ADDRESSES = (0x0, 0x8, 0x10, 0x18, 0x40, 0x48)
"""The first four have memory."""

CHANGED = {0x8: 0, 0x10: 0x77, 0x40: 0x99}


def overlaid() -> Overlay:
    memory = BufferMemory(np.array([1, 2, 3, 4], np.uint64).view(np.uint8))
    return Overlay(memory, CHANGED)


def test_a_word_is_the_changed_one_or_that_of_the_memory() -> None:
    loaded = [overlaid().load(Physical(address), 8) for address in ADDRESSES]
    assert loaded == [1, 0, 0x77, 4, 0x99, None]


@pytest.mark.parametrize(
    ("addresses", "words", "backed"),
    [
        (ADDRESSES, [1, 0, 0x77, 4, 0x99, 0], [True] * 5 + [False]),
        (ADDRESSES[:4], [1, 0, 0x77, 4], [True] * 4),
        ((0x10, 0x0, 0x10), [0x77, 1, 0x77], [True] * 3),
    ],
    ids=["some without memory", "all with memory", "one twice"],
)
def test_many_words_are_what_each_alone_is(
    addresses: tuple[int, ...], words: list[int], backed: list[bool]
) -> None:
    found, mask = overlaid().gather(np.array(addresses, np.uint64), 8)
    assert found.tolist() == words
    assert ([True] * len(words) if mask is None else mask.tolist()) == backed


def test_the_memory_below_is_not_written() -> None:
    memory = BufferMemory(np.array([1, 2], np.uint64).view(np.uint8))
    Overlay(memory, {0: 5}).gather(np.array([0], np.uint64), 8)
    assert memory.load(Physical(0), 8) == 1
