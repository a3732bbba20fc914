"""A core in the compressed format of kdump, as makedumpfile and QEMU's dump-guest-memory write it.

A head, a second one, two maps with a bit for each page (which there are, and which are in the
file), and for each of these the place and size of what zlib, LZO, snappy or zstd made of it
(makedumpfile, IMPLEMENTATION; QEMU, include/sysemu/dump.h). Flattened, as for a pipe, all that
comes in pieces, each after its place in the file.

drgn and libkdumpfile are not used: both refuse a core without VMCOREINFO, which only Linux has.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.inspect.snapshot import SourceError
from harness.inspect.sources import compressed
from harness.inspect.sources.content import Content
from harness.inspect.sources.pieces import Pieces
from harness.inspect.sources.segments import SegmentMemory
from harness.paging.memory import Words

KDUMP: Final = b"KDUMP   "
FLATTENED: Final = b"makedumpfile\0\0\0\0"

PAGE: Final = 4096
"""Bytes of a page, and of the blocks of the file."""

MOST_PIECES: Final = 1 << 19
"""Pieces of a flattened file that are looked at."""

MOST_PAGES: Final = 1 << 30
"""Pages of a machine: 4 TiB."""

MOST_EDGES: Final = 1 << 22
"""Bytes of the map in which the file leaves a page out, or begins again."""

_HEADS: Final = ((64, 428), (32, 416))
"""Word length, and where a head of that has the size of a block."""

_SECOND: Final = {
    64: struct.Struct("<Q i i Q Q Q Q Q Q Q Q Q Q Q"),
    32: struct.Struct("<I i i I I Q I Q I Q I Q Q Q"),
}
"""phys_base, dump level, whether it is a part of a split dump, its first and last page, place and
size of VMCOREINFO, of the notes, of the erased, first and last page, and the number of pages."""

_REST: Final = struct.Struct("<4I")
"""From the size of a block on: that, blocks of the second head, blocks of the maps, pages."""

_PIECE: Final = struct.Struct(">qq")
_FLAT_HEAD: Final = 4096
_DESCRIPTOR: Final = struct.Struct("<QIIQ")
_WAYS: Final = {1: "zlib", 2: "lzo", 4: "snappy", 0x20: "zstd"}
_ALL_WAYS: Final = sum(_WAYS)
_NOTES: Final = 16 << 20


@dataclass(frozen=True)
class Kdump:
    """What a core of this format holds.

    notes       as an ELF core has them
    vmcoreinfo  what Linux says of itself, without its head as a note; empty where it is not there
    width       64 or 32: of the kernel that was dumped
    left_out    whether it lacks pages that the machine had
    """

    memory: SegmentMemory
    notes: bytes
    vmcoreinfo: bytes
    width: int
    left_out: bool


def is_kdump(begin: bytes) -> bool:
    """Whether a file that begins so is of this format."""
    return begin.startswith((KDUMP, FLATTENED))


def read(content: Content) -> Kdump:
    """What the file has; raises SourceError where it is damaged, or a part of a split dump."""
    path = content.path
    if content.part(0, len(FLATTENED)).tobytes() == FLATTENED:
        content = _unflattened(content)
    begin = content.part(0, PAGE).tobytes()
    if not begin.startswith(KDUMP):
        raise _no_core(path)
    if len(begin) < PAGE:
        raise content.cut(PAGE, "pages")
    width, at = _width(path, begin)
    _, blocks, map_blocks, pages = _REST.unpack_from(begin, at)
    second = _SECOND[width]
    values = second.unpack(content.exactly(PAGE, second.size, "pages"))
    _, _, split, _, _, info, info_size, note, note_size, _, _, _, _, more_pages = values
    (version,) = struct.unpack_from("<i", begin, len(KDUMP))
    if split:
        raise SourceError(
            f"{path} is one part of a split dump: put them together with makedumpfile --reassemble"
        )
    pages = more_pages if version >= 6 and more_pages else pages
    if not pages:
        raise SourceError(f"{path} is hardly a core: it names no pages")
    if pages > MOST_PAGES:
        raise SourceError(
            f"{path} is hardly a core: it names {pages:,} pages, more than the"
            f" {MOST_PAGES * PAGE >> 40} TiB that are read"
        )
    maps = (1 + blocks) * PAGE
    there = _map(content, maps, pages)
    kept = _map(content, maps + map_blocks * PAGE // 2, pages)
    edges = _edges(content.path, kept, pages)
    memory = _memory(content, edges, maps + map_blocks * PAGE)
    return Kdump(
        memory,
        content.exactly(note, min(note_size, _NOTES), "pages"),
        content.exactly(info, min(info_size, _NOTES), "pages"),
        width,
        bool((there & ~kept).any()),
    )


def _no_core(path: Path) -> SourceError:
    return SourceError(f"{path} is flattened, but holds no kdump-compressed core")


def _width(path: Path, begin: bytes) -> tuple[int, int]:
    """The word length of the kernel, by where the head has the size of a block, and that place."""
    for width, at in _HEADS:
        if _REST.unpack_from(begin, at)[:1] == (PAGE,):
            return width, at
    raise SourceError(
        f"{path} is not a core of an x86 machine that can be read: its head names no pages of"
        f" {PAGE} bytes"
    )


def _map(content: Content, place: int, pages: int) -> npt.NDArray[np.uint8]:
    """A bit for each page, eight in a byte, the lowest first."""
    size = pages + 7 >> 3
    octets = content.part(place, size)
    if len(octets) < size:
        raise content.cut(place + size, "pages")
    return octets


def _edges(path: Path, octets: npt.NDArray[np.uint8], pages: int) -> Words:
    """The numbers of pages at which those begin that are in the file, and those that are not, by
    turns."""
    before = np.concatenate([np.zeros(1, np.uint8), octets[:-1]])
    mixed = np.flatnonzero((octets != before) | ((octets != 0) & (octets != 0xFF)))
    if len(mixed) > MOST_EDGES:
        raise SourceError(
            f"{path} is hardly a core: its pages are in more than {MOST_EDGES:,} pieces"
        )
    bits = np.unpackbits(octets[mixed], bitorder="little").reshape(-1, 8)
    earlier = np.concatenate([(before[mixed] >> 7)[:, None], bits[:, :-1]], axis=1)
    row, bit = np.nonzero(bits != earlier)
    edges = mixed[row].astype(np.uint64) * np.uint64(8) + bit.astype(np.uint64)
    edges = edges[edges < pages]
    return np.append(edges, np.uint64(pages)) if len(edges) % 2 else edges


def _memory(content: Content, edges: Words, descriptors: int) -> SegmentMemory:
    """The pages between edges, in the order of their descriptors."""
    first, count = edges[::2], edges[1::2] - edges[::2]
    before = np.cumsum(count) - count
    total = int(count.sum())
    if descriptors + total * _DESCRIPTOR.size > len(content):
        raise content.cut(descriptors + total * _DESCRIPTOR.size, "pages")
    if not total:
        raise SourceError(f"{content.path} holds no memory: every page was left out of it")
    page = np.uint64(PAGE)
    fill = partial(_fill, content, descriptors)
    pages = Content(content.path, total * PAGE, fill)
    return SegmentMemory.of(pages, first * page, count * page, before * page)


def _fill(content: Content, descriptors: int, octets: npt.NDArray[np.uint8], first: int) -> None:
    """Reads into these bytes the pages from the byte `first` of all of them on."""
    for number, page in enumerate(octets.reshape(-1, PAGE), first // PAGE):
        at = descriptors + number * _DESCRIPTOR.size
        place, size, flags, _ = _DESCRIPTOR.unpack_from(content.part(at, _DESCRIPTOR.size).data)
        if size > 2 * PAGE:
            raise SourceError(
                f"{content.path} is damaged: its page {number:,} takes {size:,} bytes"
            )
        stored = content.exactly(place, size, "pages")
        way = _WAYS.get(flags & _ALL_WAYS)
        if way is None and (flags & _ALL_WAYS or size != PAGE):
            raise SourceError(
                f"{content.path} is damaged: its page {number:,} has {size:,} bytes and flags"
                f" {flags:#x}"
            )
        page[:] = (
            np.frombuffer(stored, np.uint8)
            if way is None
            else compressed.unpacked(content.path, way, stored, PAGE)
        )


def _unflattened(content: Content) -> Content:
    """The file of which a flattened one has the pieces."""
    start, size, places = [], [], []
    place = _FLAT_HEAD
    while True:
        where, length = _PIECE.unpack(content.exactly(place, _PIECE.size, "pages"))
        if where < 0 or length < 0:
            break
        place += _PIECE.size
        start.append(where)
        size.append(length)
        places.append(place)
        place += length
        if len(places) > MOST_PIECES:
            raise SourceError(
                f"{content.path} is in more than {MOST_PIECES:,} pieces: put them together with"
                " makedumpfile -R FILE < FLATTENED"
            )
    if not any(size):
        raise _no_core(content.path)
    pieces = Pieces(
        np.array(start, np.uint64),
        np.array(size, np.uint64),
        lambda number, first, count: np.frombuffer(
            content.glance(places[number] + first, count), np.uint8
        ),
    )
    return Content(content.path, pieces.size, pieces.fill)
