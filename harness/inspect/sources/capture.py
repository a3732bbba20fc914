"""Captures of a machine's memory: LiME's, and AVML's, which are the same but for compression.

Each block has a head of 32 bytes: a word that says whose it is, the version, and the first and
last physical address. LiME (version 1) has the memory after it; AVML (version 2) has a stream of
snappy's frames, and then their length in 8 bytes (LiME, doc/README.md; AVML, src/image.rs; snappy,
framing_format.txt).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Final, cast

import numpy as np
import numpy.typing as npt

from harness.inspect.snapshot import SourceError
from harness.inspect.sources import compressed
from harness.inspect.sources.content import Content
from harness.inspect.sources.pieces import Pieces
from harness.inspect.sources.segments import SegmentMemory

LIME: Final = b"EMiL\x01\0\0\0"
AVML: Final = b"AVML\x02\0\0\0"

MOST: Final = 1 << 19
"""Blocks and frames that are looked at: 32 GiB of AVML's."""

FRAME: Final = 1 << 16
"""Bytes of memory that a frame has at most (framing_format.txt, 4.2)."""

_HEAD: Final = struct.Struct("<8sQQ8x")
_FRAME: Final = struct.Struct("<I")
_LENGTH: Final = struct.Struct("<Q")
_CHECKSUM: Final = 4
_PACKED, _PLAIN, _SKIPPED, _STREAM = 0, 1, 0x80, 0xFF
"""Kinds of frame: compressed, as it is, the first that may be skipped, and the beginning."""


def is_capture(begin: bytes) -> bool:
    """Whether a file that begins so is a capture that can be read."""
    return begin.startswith((LIME, AVML))


@dataclass
class _Blocks:
    """What a capture holds, gathered block by block.

    first, size         of each block, in physical memory
    place, stored       of each piece in the file
    memory, packed      how much memory a piece is, and whether it is compressed
    frames              how many there were, with those that hold nothing
    """

    first: list[int] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    place: list[int] = field(default_factory=list)
    stored: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    packed: list[bool] = field(default_factory=list)
    frames: int = 0

    def piece(self, place: int, stored: int, memory: int, packed: bool) -> None:
        self.place.append(place)
        self.stored.append(stored)
        self.memory.append(memory)
        self.packed.append(packed)


def memory(content: Content) -> SegmentMemory:
    """The memory in a capture.

    Raises SourceError where it is cut short or damaged, or has more blocks than are looked at.
    """
    blocks = _Blocks()
    place = 0
    while place < len(content):
        place = _block(content, place, blocks)
        if len(blocks.first) > MOST:
            raise _too_long(content.path)
    sizes = np.array(blocks.memory, np.uint64)
    pieces = Pieces(_starts(sizes), sizes, _reader(content, blocks), _ahead(content, blocks))
    size = np.array(blocks.size, np.uint64)
    return SegmentMemory.of(
        Content(content.path, pieces.size, pieces.fill, pieces.data),
        np.array(blocks.first, np.uint64),
        size,
        _starts(size),
    )


def _starts(sizes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Where each of some pieces begins that follow one another."""
    return np.cumsum(sizes) - sizes


def _block(content: Content, place: int, blocks: _Blocks) -> int:
    """Adds the block at a place of the file, and says where the next one is."""
    head = content.exactly(place, _HEAD.size, "blocks")
    whose, first, last = cast("tuple[bytes, int, int]", _HEAD.unpack(head))
    if not is_capture(whose) or last < first:
        raise SourceError(
            f"{content.path} is damaged: no block of a capture is at {place:#x} of it, but"
            f" {head[:8].hex(' ')}"
        )
    size = last - first + 1
    blocks.first.append(first)
    blocks.size.append(size)
    place += _HEAD.size
    if whose == LIME:
        if place + size > len(content):
            raise content.cut(place + size, "blocks")
        blocks.piece(place, size, size, packed=False)
        return place + size
    began = place
    while size:
        place, found = _frame(content, place, blocks)
        if found > size:
            raise SourceError(
                f"{content.path} is damaged: the block of {first:#x}..{last:#x} has more memory"
                " than that"
            )
        size -= found
    (stored,) = _LENGTH.unpack(content.exactly(place, _LENGTH.size, "blocks"))
    if stored != place - began:
        raise SourceError(
            f"{content.path} is damaged: the block of {first:#x}..{last:#x} takes"
            f" {place - began:,} bytes, and says that it takes {stored:,}"
        )
    return place + _LENGTH.size


def _frame(content: Content, place: int, blocks: _Blocks) -> tuple[int, int]:
    """Adds a frame, and says where the next one is, and how much memory this one has."""
    blocks.frames += 1
    if blocks.frames > MOST:
        raise _too_long(content.path)
    (word,) = _FRAME.unpack(content.exactly(place, _FRAME.size, "blocks"))
    kind, stored = word & 0xFF, word >> 8
    place += _FRAME.size
    past = place + stored
    if past > len(content):
        raise content.cut(past, "blocks")
    if kind >= _SKIPPED:
        return past, 0
    place, stored = place + _CHECKSUM, stored - _CHECKSUM
    found = 0
    if kind == _PLAIN:
        found = stored
    elif kind == _PACKED:
        found = _varint(content.glance(place, min(5, stored)))
    if not 0 < found <= FRAME:
        raise SourceError(
            f"{content.path} is damaged: there is no snappy frame at {place - 8:#x}"
        )
    blocks.piece(place, stored, found, packed=kind == _PACKED)
    return past, found


def _varint(octets: bytearray) -> int:
    """The number at the beginning, seven bits a byte, the lowest first; -1 where it has no end."""
    value = 0
    for number, octet in enumerate(octets):
        value |= (octet & 0x7F) << 7 * number
        if octet < 0x80:
            return value
    return -1


def _reader(content: Content, blocks: _Blocks) -> Callable[[int, int, int], npt.NDArray[np.uint8]]:
    """What reads some bytes of a piece."""

    @lru_cache(maxsize=16)  # a frame is read in parts, most often one after the other
    def whole(number: int) -> npt.NDArray[np.uint8]:
        stored = bytes(content.glance(blocks.place[number], blocks.stored[number]))
        return compressed.unpacked(content.path, "snappy", stored, blocks.memory[number])

    def read(number: int, first: int, size: int) -> npt.NDArray[np.uint8]:
        if blocks.packed[number]:
            return whole(number)[first : first + size]
        place = blocks.place[number] + first
        return np.frombuffer(content.glance(place, size), np.uint8)

    return read


def _ahead(content: Content, blocks: _Blocks) -> Callable[[int, int], int]:
    """What says from where on a piece has more than zeros; of a compressed one nothing does."""

    def ahead(number: int, place: int) -> int:
        first = blocks.place[number]
        return place if blocks.packed[number] else content.data(first + place) - first

    return ahead


def _too_long(path: Path) -> SourceError:
    return SourceError(
        f"{path} has more than {MOST:,} blocks: convert it to the format of LiME"
        " (avml-convert --source-format lime_compressed --format lime), which has few"
    )
