"""Files that hold physical memory, as it is or captured, and the registers that go with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np

from harness.inspect.snapshot import RESERVING, Snapshot, SourceError
from harness.inspect.sources import capture, signature, vmcoreinfo
from harness.inspect.sources.content import Content
from harness.inspect.sources.pieces import Pieces
from harness.inspect.sources.segments import SegmentMemory
from harness.inspect.x86.doubt import doubt
from harness.inspect.x86.processor import cpu_with, mark_in, marked, unseen_model
from harness.paging.address import Physical, Span
from harness.paging.memory import BufferMemory, Mask, Memory, Words
from harness.paging.x86.cpu import Cpu, Cr4, Efer

WORD = 8
"""A file's length is cut to a multiple of this many bytes, so that it holds whole entries."""

UNIT = 4096
"""In several files as one, each begins at a multiple of this many bytes."""


@dataclass(frozen=True)
class Placed:
    """A file of memory, and the physical address of its first byte where that was given."""

    path: Path
    address: int | None = None


def snapshot(files: Sequence[Placed], registers: Mapping[str, int], flat: bool = False) -> Snapshot:
    """The memory in files, and a CPU with these registers.

    What they leave open is as usual: 4-level paging, NXE and WP set.  Without CR3 the tables are
    those of the Linux whose VMCOREINFO is there.

    flat  whether each is memory even if it begins as files of another kind do

    Raises SourceError where one cannot be read, holds nothing or is of another kind, and where
    nothing tells CR3.
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
            doubts.append(f"{one.path} was not cut short (its size is not a multiple of {UNIT})")
    held = _held(files, contents, captured[0])
    if "cr3" in registers:
        mark, said = mark_in(registers, registers, held.memory)
        return _snapshot(held, registers, (*said, *doubts), mark)
    return _of_linux(held, registers, doubts)


@dataclass(frozen=True)
class _Held:
    """The memory that files hold, under their names; `content` is all of it, in some order."""

    title: str
    memory: Memory
    backed: tuple[Span, ...]
    content: Content


def _held(files: Sequence[Placed], contents: Sequence[Content], captured: bool) -> _Held:
    if captured:
        memory = capture.memory(contents[0])
        return _Held(str(files[0].path), memory, memory.backed, memory.content)
    if len(files) == 1 and not files[0].address:
        alone = FileMemory(_long_enough(contents[0]))
        return _Held(str(files[0].path), alone, (alone.span,), contents[0])
    joined = _joined(files, contents)
    title = " and ".join(f"{one.path}@{one.address or 0:#x}" for one in files)
    return _Held(title, joined, joined.backed, joined.content)


def _of_linux(held: _Held, registers: Mapping[str, int], assumed: Sequence[str]) -> Snapshot:
    """The snapshot with the tables of the Linux that left its VMCOREINFO in the memory; of several,
    as when one was started by another, the one whose tables are still there."""
    found: dict[tuple[int, ...], Snapshot] = {}
    for text in vmcoreinfo.left_in(held.content):
        told = vmcoreinfo.registers(text, vmcoreinfo.is_x86_64(text))
        if "cr3" not in told or told["cr3"] % WORD:
            continue
        wrong: tuple[str, ...] = ()
        said: tuple[str, ...] = ()
        if vmcoreinfo.is_x86_64(text):
            mark, said, wrong = marked(text, registers)
            told |= mark
        else:
            told["efer"] = Efer.NXE
        root = f"the tables are those of Linux itself, by its VMCOREINFO (--cr3 {told['cr3']:#x})"
        try:
            one = _snapshot(held, registers, (root, *said, *assumed), told)
        except SourceError:
            continue
        if doubt(one.cpu, one.memory) is None:
            found[tuple(told.values())] = replace(one, notes=(*wrong, *one.notes))
    if len(found) == 1:
        (only,) = found.values()
        return only
    if found:
        roots = " or ".join(f"--cr3 {one.cpu.cr3:#x}" for one in found.values())
        raise SourceError(f"{held.title} has VMCOREINFO of several kernels: choose one, {roots}")
    raise SourceError(
        f"{held.title} does not record where the root table is, and has no VMCOREINFO of a Linux"
        " whose tables are there: add --cr3"
    )


def _snapshot(
    held: _Held,
    registers: Mapping[str, int],
    assumed: Sequence[str],
    told: Mapping[str, int] = MappingProxyType({}),
) -> Snapshot:
    """A CPU with these registers, and the memory.

    told     what the memory says of others
    assumed  what is assumed of the memory, a sentence each
    """
    usual = {"efer": Cpu.long_mode(4, 0).efer}
    if not {**told, **registers}.get("cr4", Cr4.PAE) & Cr4.PAE:
        usual["efer"] = Efer.NXE
    memory = held.memory
    cpu = cpu_with(Cpu.long_mode(4, 0), {**usual, **told, **registers}, memory)
    notes: tuple[str, ...] = ()
    if cpu.pdptes_checked is not None:
        from harness.inspect.x86 import engine  # what is known of engines takes a while to import

        cpu, notes = engine.as_marked(cpu)
    assumed = (*_assumed(cpu, registers), *assumed)
    found = Snapshot(held.title, cpu, memory, held.backed, assumed, notes, partial=True)
    return replace(found, unsure=RESERVING - registers.keys())


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
        lambda number, place, count: contents[number].part(place, count),
        lambda number, place: contents[number].data(place),
    )
    name = Path(" and ".join(str(one.path) for one in files))
    joined = Content(name, pieces.size, pieces.fill, pieces.data)
    return SegmentMemory.of(joined, first, size, start)


class FileMemory:
    """Physical memory from address 0 on, as far as the content of a file holds whole words."""

    def __init__(self, content: Content):
        self._content = content
        self._memory = BufferMemory(content.octets[: len(content) // WORD * WORD])
        self.span = self._memory.span

    def load(self, address: Physical, size: int) -> int | None:
        """The word at an address, None where the file has ended."""
        if address in self.span:
            self._content.part(address, size)
        return self._memory.load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses, and at which of them there are some."""
        last = self.span.last
        beyond = len(addresses) and int(addresses.max()) > last
        self._content.ask(addresses[addresses <= last] if beyond else addresses)
        return self._memory.gather(addresses, size)


_: type[Memory] = FileMemory


def _assumed(cpu: Cpu, registers: Mapping[str, int]) -> Iterator[str]:
    for name in ("cr0", "cr4", "efer"):
        if name not in registers:
            yield f"{name.upper()}={getattr(cpu, name):#x} (--{name})"
    if "maxphyaddr" not in registers:
        yield f"MAXPHYADDR={cpu.maxphyaddr} (--maxphyaddr)"
    yield from unseen_model(cpu, registers, "a file of memory")
