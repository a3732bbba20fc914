"""Physical memory held in a buffer."""

from itertools import product

import numpy as np
import pytest

from harness.paging.address import Physical
from harness.paging.memory import BigEndianMemory, BufferMemory, distinct

BYTES = bytes(range(64))
BASES = (0, 0x1000, 0xFFFF_FFFF_F000)


@pytest.mark.parametrize(("base", "size"), list(product(BASES, (4, 8))))
def test_words_are_little_endian_at_every_place(base: int, size: int) -> None:
    memory = BufferMemory(BYTES, base)
    places = range(0, 64, size)
    expected = [sum(BYTES[place + n] << 8 * n for n in range(size)) for place in places]
    assert [memory.load(Physical(base + place), size) for place in places] == expected
    words, backed = memory.gather(np.array([base + p for p in places], np.uint64), size)
    assert backed is None
    assert words.dtype == np.uint64
    assert words.tolist() == expected


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("base", BASES)
def test_an_address_without_memory_has_no_word(base: int, size: int) -> None:
    memory = BufferMemory(BYTES, base)
    outside = [base + 64, base + 4096, (1 << 64) - size]
    outside += [base - size, 0] if base else []
    assert {memory.load(Physical(address), size) for address in outside} == {None}
    addresses = np.array([base, *outside, base + 64 - size], np.uint64)
    words, backed = memory.gather(addresses, size)
    assert backed is not None
    assert backed.tolist() == [True] + [False] * len(outside) + [True]
    assert words[1:-1].tolist() == [0] * len(outside)
    assert words[-1] == sum(BYTES[64 - size + n] << 8 * n for n in range(size))


def test_gathering_nothing_gives_nothing() -> None:
    words, backed = BufferMemory(BYTES).gather(np.zeros(0, np.uint64), 8)
    assert len(words) == 0
    assert backed is None


def test_scattering_nothing_changes_nothing() -> None:
    octets = np.arange(16, dtype=np.uint8)
    BufferMemory(octets).scatter(np.zeros(0, np.uint64), 8, np.zeros(0, np.uint64))
    assert octets.tolist() == list(range(16))


def test_a_memory_of_one_word_ends_after_it() -> None:
    memory = BufferMemory(BYTES[:8], 0x1000)
    words, backed = memory.gather(np.array([0x1000, 0x1008], np.uint64), 8)
    assert backed is not None and backed.tolist() == [True, False]
    assert words.tolist() == [0x0706_0504_0302_0100, 0]


@pytest.mark.parametrize("size", [4, 8])
def test_a_store_writes_its_word_and_no_other(size: int) -> None:
    octets = np.zeros(64, np.uint8)
    memory = BufferMemory(octets, 0x1000)
    memory.store(Physical(0x1010), size, 0x01020304)
    assert octets.tolist() == [0] * 16 + [4, 3, 2, 1] + [0] * 44


@pytest.mark.parametrize("size", [4, 8])
def test_a_scatter_writes_every_word(size: int) -> None:
    octets = np.zeros(32, np.uint8)
    places = np.array([0x1000 + 3 * size, 0x1000], np.uint64)
    BufferMemory(octets, 0x1000).scatter(places, size, np.array([7, 9], np.uint64))
    assert {i: int(v) for i, v in enumerate(octets) if v} == {0: 9, 3 * size: 7}


@pytest.mark.parametrize("outside", [0xFF8, 0x1040])
def test_writing_where_there_is_no_memory_says_where_and_changes_nothing(outside: int) -> None:
    octets = np.zeros(64, np.uint8)
    memory = BufferMemory(octets, 0x1000)
    with pytest.raises(ValueError, match=f"no memory at {outside:#x}: it is 0x1000..0x103f"):
        memory.store(Physical(outside), 8, 1)
    places = np.array([0x1000, outside], np.uint64)
    with pytest.raises(ValueError, match=f"no memory at {outside:#x}: it is 0x1000..0x103f"):
        memory.scatter(places, 8, np.array([1, 1], np.uint64))
    assert not octets.any()


@pytest.mark.parametrize("size", [4, 8])
def test_words_of_the_other_byte_order_have_their_highest_byte_first(size: int) -> None:
    memory = BigEndianMemory(bytearray(range(16)), 0x1000)
    word = int.from_bytes(bytes(range(8, 8 + size)), "big")
    assert memory.load(Physical(0x1008), size) == word
    assert memory.load(Physical(0x1010), size) is None
    found, backed = memory.gather(np.array([0x1008, 0x1000], np.uint64), size)
    assert backed is None and found.dtype == np.uint64 and int(found[0]) == word
    memory.store(Physical(0x1000), size, word)
    assert memory.octets[:size].tolist() == list(range(8, 8 + size))
    memory.scatter(np.array([0x1008], np.uint64), size, np.array([1], np.uint64))
    assert memory.octets[8:16].tolist()[:size] == [*[0] * (size - 1), 1]


@pytest.mark.parametrize(
    "values", [[], [7], [7, 7], [2**64 - 1, 0, 2**63, 0, 2**64 - 1, 5]], ids=len
)
def test_distinct_values_are_in_order_and_there_once(values: list[int]) -> None:
    found = distinct(np.array(values, np.uint64))
    assert found.dtype == np.uint64
    assert found.tolist() == sorted(set(values))
    pairs = np.array([values, values], np.uint64)
    assert distinct(pairs).tolist() == sorted(set(values))
