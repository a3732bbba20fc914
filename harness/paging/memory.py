"""Physical memory as the library sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from harness.paging.address import Physical, Span

Words = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.bool_]

Order = Literal["little", "big"]
"""In which order the bytes of a word lie in memory."""

MARKS: Final[Mapping[Order, str]] = {"little": "<", "big": ">"}
"""The same as numpy writes it."""


def within(addresses: Words, *spans: Span) -> Mask:
    """Which addresses are in one of the spans, shape (n,)."""
    inside = np.zeros(len(addresses), np.bool_)
    for span in spans:
        inside |= (addresses >= np.uint64(span.first)) & (addresses <= np.uint64(span.last))
    return inside


def distinct(values: Words) -> Words:
    """The values in order, each once, shape (m,): `np.unique`, which hashes them since NumPy 2.3,
    and takes eight times as long where most differ, as addresses do."""
    ordered = np.sort(values, axis=None)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


class Memory(Protocol):
    """Memory that can be read an entry at a time, or many entries at once."""

    def load(self, address: Physical, size: int) -> int | None:
        """The word of `size` bytes (4 or 8) at an aligned address, in the memory's byte order.

        None where there is no memory: never a made-up value.
        """

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many aligned addresses, shape (n,).

        The mask tells which addresses have memory behind them; None says that all have.
        Words without memory are 0.
        """


class WritableMemory(Memory, Protocol):
    """Memory that a space can be built in."""

    def store(self, address: Physical, size: int, value: int) -> None:
        """Writes one word; ValueError where there is no memory."""

    def scatter(self, addresses: Words, size: int, values: Words) -> None:
        """Writes many words; ValueError where there is no memory behind any of them."""


class BufferMemory:
    """Memory held in a buffer, its first byte at physical address `base`; words are little-endian.

    The buffer's length and `base` are multiples of 8 bytes.  A writable buffer gives a
    WritableMemory.
    """

    _ORDER = MARKS["little"]

    def __init__(self, buffer: bytes | bytearray | npt.NDArray[np.uint8], base: int = 0):
        self.octets = np.frombuffer(buffer, np.uint8)
        self.span = Span.of(base, len(self.octets))
        self._words: dict[int, npt.NDArray[np.unsignedinteger]] = {
            4: self.octets.view(f"{self._ORDER}u4"),
            8: self.octets.view(f"{self._ORDER}u8"),
        }
        self._views: dict[int, memoryview[int]] = {
            width: self.octets.view(f"<u{width}").data for width in self._words
        }

    def load(self, address: Physical, size: int) -> int | None:
        offset = address - self.span.first
        if 0 <= offset < len(self.octets):
            return self._views[size][offset // size]
        return None

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        words = self._words[size]
        index = self._index(addresses, size)
        if not len(index) or int(index.max()) < len(words):
            return words[index].astype(np.uint64, copy=False), None
        backed = index < len(words)
        return np.where(backed, words[np.where(backed, index, 0)], 0).astype(np.uint64), backed

    def store(self, address: Physical, size: int, value: int) -> None:
        if address not in self.span:
            raise ValueError(f"no memory at {address:#x}: it is {self.span}")
        self._views[size][(address - self.span.first) // size] = value

    def scatter(self, addresses: Words, size: int, values: Words) -> None:
        words = self._words[size]
        index = self._index(addresses, size)
        if len(index) and int(index.max()) >= len(words):
            outside = addresses[index >= len(words)][0]
            raise ValueError(f"no memory at {int(outside):#x}: it is {self.span}")
        words[index] = values

    def _index(self, addresses: Words, size: int) -> npt.NDArray[np.int64]:
        """Word numbers; an address below the base wraps to one far beyond the end.

        Signed, since numpy looks up signed numbers three times as fast, and never negative.
        """
        offsets = addresses - np.uint64(self.span.first)
        return (offsets >> np.uint64(size.bit_length() - 1)).view(np.int64)


class BigEndianMemory(BufferMemory):
    """The same whose words have their highest byte first, for formats whose `byte_order` is big."""

    _ORDER = MARKS["big"]

    def load(self, address: Physical, size: int) -> int | None:
        word = super().load(address, size)
        return None if word is None else _swapped(word, size)

    def store(self, address: Physical, size: int, value: int) -> None:
        super().store(address, size, _swapped(value, size))


BY_ORDER: Final[Mapping[Order, type[BufferMemory]]] = {
    "little": BufferMemory,
    "big": BigEndianMemory,
}
"""Memory for formats of each byte order."""


def _swapped(word: int, size: int) -> int:
    return int.from_bytes(word.to_bytes(size, "little"), "big")
