"""Files that hold physical memory, as it is or captured, and the registers that go with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np

from harness.architectures import NAMES, USUAL, has
from harness.check.layouts import described
from harness.inspect import architecture
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import capture, cut, signature
from harness.inspect.sources.content import Content
from harness.inspect.sources.cut import UNIT
from harness.inspect.sources.pieces import Pieces
from harness.inspect.sources.segments import SegmentMemory
from harness.inspect.sources.vmcoreinfo import left_in, written_by
from harness.paging.address import Physical, Span
from harness.paging.memory import BY_ORDER, Mask, Memory, Order, Words

WORD = 8
"""A file's length is cut to a multiple of this many bytes, so that it holds whole entries."""


@dataclass(frozen=True)
class Placed:
    """A file of memory, and the physical address of its first byte where that was given."""

    path: Path
    address: int | None = None


def snapshot(files: Sequence[Placed], registers: Mapping[str, int], flat: bool = False) -> Snapshot:
    """The memory in files, and a CPU with these registers: of the architecture of the root that is
    among them, or if none is, of that whose Linux left its VMCOREINFO there.

    flat  whether each is memory even if it begins as files of another kind do

    Raises SourceError where one cannot be read, holds nothing or is of another kind, and where
    nothing tells where the root is.
    """
    contents = [Content.of_file(one.path) for one in files]
    captured = [
        not flat and capture.is_capture(content.part(0, UNIT).tobytes()) for content in contents
    ]
    doubts = []
    for one, content, whole in zip(files, contents, captured, strict=True):
        if whole and (one.address is not None or len(files) > 1):
            raise SourceError(
                f"{one.path} is a capture of memory, which says itself where that lies: give it"
                " alone and without an address"
            )
        if not whole and not flat and (doubt := signature.as_memory(one.path, content)):
            doubts.append(doubt)
        if not whole and len(content) % UNIT:
            doubts.append(cut.doubt(one.path))
    held = _held(files, contents, captured[0])
    arch = architecture.of_root(registers)
    if arch is None:
        by_linux = (name for text in held.texts() if (name := written_by(text)))
        arch = next(by_linux, USUAL)
    asked = architecture.named(arch)
    architecture.refuse_others(asked, registers, held.title)
    doubts += _elsewhere(arch, held)
    if not captured[0] and described(arch).ram_base:
        doubts += (f"{one.path} begins at 0 (FILE@ADDRESS)" for one in files if one.address is None)
    held = replace(held, memory=held.memory.in_order(asked.byte_order))
    found = asked.of_memory(held, registers, doubts)
    if captured[0]:  # which is refused where it is cut short
        return found
    ends = {
        (one.address or 0) + len(content) // WORD * WORD: one.path
        for one, content in zip(files, contents, strict=True)
    }
    return cut.told(found, ends)


def _elsewhere(arch: str, held: Held) -> Iterator[str]:
    """That memory begins where machines of another architecture have it, and this one's have
    not."""
    asked, first = architecture.named(arch), held.backed[0].first
    others = [one for one in NAMES if has(one, "inspect", "asked")]
    for other in others if first > described(arch).ram_base else ():
        if first == described(other).ram_base:
            there = architecture.named(other)
            yield (
                f"this is memory of {asked.called} (--{asked.roots[0]}), though it begins at"
                f" {first:#x}, where {there.called}'s machines have theirs (--{there.roots[0]})"
            )


@dataclass(frozen=True)
class Held:
    """The memory that files hold, under their names.

    texts  every VMCOREINFO that a kernel left there, looked for once
    """

    title: str
    memory: FileMemory | SegmentMemory
    backed: tuple[Span, ...]
    texts: Callable[[], tuple[bytes, ...]]

    @classmethod
    def of(cls, title: str, memory: FileMemory | SegmentMemory, content: Content) -> Held:
        """What is in `content`, in some order."""
        backed = (memory.span,) if isinstance(memory, FileMemory) else memory.backed
        return cls(title, memory, backed, cache(lambda: tuple(left_in(content))))


def _held(files: Sequence[Placed], contents: Sequence[Content], captured: bool) -> Held:
    if captured:
        memory = capture.memory(contents[0])
        return Held.of(str(files[0].path), memory, memory.content)
    if len(files) == 1 and not files[0].address:
        alone = FileMemory(_long_enough(contents[0]))
        return Held.of(str(files[0].path), alone, contents[0])
    joined = _joined(files, contents)
    title = " and ".join(f"{one.path}@{one.address or 0:#x}" for one in files)
    return Held.of(title, joined, joined.content)


def _long_enough(content: Content) -> Content:
    if len(content) < WORD:
        raise SourceError(f"{content.path} has {len(content)} bytes: it holds no entry")
    return content


def _joined(files: Sequence[Placed], contents: Sequence[Content]) -> SegmentMemory:
    """The memory in several files; raises SourceError where two have the same address."""
    for one, content in zip(files, contents, strict=True):
        address = one.address or 0
        if address % WORD:
            raise SourceError(f"{one.path} does not begin at a multiple of {WORD}: {address:#x}")
        if address + len(content) >= 1 << 64:
            raise SourceError(f"{one.path} at {address:#x} reaches beyond what 64 bits can say")
    size = np.array([len(_long_enough(one)) // WORD * WORD for one in contents], np.uint64)
    unit = np.uint64(UNIT)
    taken = -(-size // unit) * unit
    start = np.cumsum(taken) - taken
    first = np.array([one.address or 0 for one in files], np.uint64)
    past = first + size
    for lower, upper in pairwise(np.argsort(first, kind="stable").tolist()):
        if past[lower] > first[upper]:
            raise SourceError(
                f"{files[lower].path} and {files[upper].path} overlap: the first reaches to"
                f" {int(past[lower]) - 1:#x}, and the second begins at {int(first[upper]):#x}"
            )
    pieces = Pieces(
        start,
        size,
        # What is joined is kept there, and not in each file's content too.
        lambda number, place, count: np.frombuffer(contents[number].glance(place, count), np.uint8),
        lambda number, place: contents[number].data(place),
    )
    name = Path(" and ".join(str(one.path) for one in files))
    joined = Content(name, pieces.size, pieces.fill, pieces.data)
    return SegmentMemory.of(joined, first, size, start)


class FileMemory:
    """Physical memory from address 0 on, as far as the content of a file holds whole words."""

    def __init__(self, content: Content, order: Order = "little"):
        self._content = content
        self._memory = BY_ORDER[order](content.octets[: len(content) // WORD * WORD])
        self.span = self._memory.span

    def in_order(self, order: Order) -> FileMemory:
        """The same memory, whose words have this order of bytes."""
        return FileMemory(self._content, order)

    def load(self, address: Physical, size: int) -> int | None:
        """The word at an address, None where the file has ended."""
        self._content.part(address, size)
        return self._memory.load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses, and at which of them there are some."""
        last = self.span.last
        beyond = len(addresses) and int(addresses.max()) > last
        self._content.ask(addresses[addresses <= last] if beyond else addresses)
        return self._memory.gather(addresses, size)


_: type[Memory] = FileMemory
