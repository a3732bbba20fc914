"""A core dump of a guest, as QEMU's `dump-guest-memory` writes it, with and without `-p`.

The addresses in it are physical ones: what `-p` says of virtual ones is not looked at, since QEMU
gives wrong ones in 4- and 5-level paging.  With `-p` QEMU names what the guest maps alone, and of a
mapping that is longer than the piece of RAM in which it begins, no more than that piece: all else
is in the file, but nothing says where, so that it is no memory here.  The registers are those in
QEMU's own notes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from harness.architectures import USUAL
from harness.inspect import architecture
from harness.inspect.architecture import Architecture
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import kdump, signature, vmcoreinfo
from harness.inspect.sources.content import Content
from harness.inspect.sources.segments import SegmentMemory
from harness.paging.memory import MARKS, Order

MACHINES = {
    "EM_X86_64": "x86",
    "EM_386": "x86",
    "EM_RISCV": "riscv",
    "EM_AARCH64": "arm64",
    "EM_S390": "s390",
    "EM_PPC64": "power",
}
"""The architectures of cores, by e_machine as pyelftools names it."""

LOAD, NOTE = 1, 4
"""p_type of what is looked at (System V ABI, program header)."""

SEGMENT = {
    64: np.dtype(
        [("type", "<u4"), ("flags", "<u4")]
        + [(name, "<u8") for name in ("offset", "virtual", "physical", "size", "memory", "align")]
    ),
    32: np.dtype(
        [("type", "<u4")]
        + [(name, "<u4") for name in ("offset", "virtual", "physical", "size", "memory")]
        + [("flags", "<u4"), ("align", "<u4")]
    ),
}
"""A program header, by the class of the file; with the lowest byte of a word first."""

NOTE_BYTES = 16 << 20
"""Notes are read up to here: QEMU writes about 800 bytes a processor."""

MOST_SEGMENTS = 1 << 22
"""Program headers that are looked at; `-p` writes one for each run of pages that is mapped."""


def snapshot(path: Path, vcpu: int, registers: Mapping[str, int]) -> Snapshot:
    """The memory in a core, and one of its processors.

    registers  in place of its own

    Raises SourceError where the file is not a core of a guest that is known here, is cut short, or
    tells no state in which addresses are translated.
    """
    dump = _dump(path)
    asked = _architecture(dump, registers)
    architecture.refuse_others(asked, registers, str(path))
    dump = replace(dump, memory=dump.memory.in_order(asked.byte_order))
    found = asked.of_core(dump, vcpu, registers)
    assumed = found.assumed
    if dump.left_out:
        assumed += (
            "makedumpfile left pages out of the core: where there is no memory, a page of zeros or"
            " one of a program may have been",
        )
    title, memory = f"{path}, processor {vcpu}", dump.memory
    return Snapshot(
        title,
        found.cpu,
        memory,
        memory.backed,
        assumed,
        found.notes,
        found.registers,
        partial=True,
        unsure=found.unsure,
        left_open=found.left_open,
    )


def _architecture(dump: Dump, registers: Mapping[str, int]) -> Architecture:
    """The architecture that a core is of: by its head, its kernel, or the root that is given."""
    arch = dump.arch or vmcoreinfo.written_by(dump.vmcoreinfo) or architecture.of_root(registers)
    return architecture.named(arch or USUAL)


@dataclass(frozen=True)
class Dump:
    """What a core holds, whatever its format.

    path    the file
    notes    name and content of each
    x86_64   whether it says that its processor was in long mode, or its kernel is of 64 bits
    virtual  whether it has addresses of virtual memory
    left_out whether it lacks pages that the machine had
    arch     the architecture that its head says it is of; None where it says none
    """

    path: Path
    memory: SegmentMemory
    notes: tuple[tuple[bytes, bytes], ...]
    x86_64: bool
    virtual: bool = False
    left_out: bool = False
    arch: str | None = None

    @property
    def vmcoreinfo(self) -> bytes:
        """What Linux says of itself, empty where it is not there."""
        return next((text for name, text in self.notes if name == vmcoreinfo.NOTE), b"")


def _dump(path: Path) -> Dump:
    content = Content.of_file(path)
    if kdump.is_kdump(content.part(0, 16).tobytes()):
        found = kdump.read(content)
        notes = (*_notes(found.notes), (vmcoreinfo.NOTE, found.vmcoreinfo))
        return Dump(path, found.memory, notes, found.width == 64, left_out=found.left_out)
    core = _Core.of(path, content)
    segments = core.segments()
    loads = segments[segments["type"] == LOAD]
    first, size, offset = (loads[name].astype(np.uint64) for name in ("physical", "size", "offset"))
    memory = SegmentMemory.of(content, first, size, offset)
    virtual = bool((segments["virtual"] != segments["physical"]).any())
    notes = tuple(core.notes(segments))
    return Dump(path, memory, notes, core.x86_64, virtual, arch=core.arch)


@dataclass(frozen=True)
class _Core:
    """A file with the head of a core.

    head    its ELF header
    width   of its class: 32 or 64
    count   of its program headers
    order   of the bytes of words in its headers and notes
    """

    path: Path
    content: Content
    head: Mapping[str, Any]
    width: int
    count: int
    order: Order

    @classmethod
    def of(cls, path: Path, content: Content) -> _Core:
        signature.as_core(path, content)
        try:
            with path.open("rb") as file:
                elf = ELFFile(file)
                order: Order = "little" if elf.little_endian else "big"
                core = cls(path, content, elf.header, elf.elfclass, elf.num_segments(), order)
        except (ELFError, ConstructError, ValueError, OverflowError, LookupError) as error:
            raise SourceError(f"{path} is not a core: {str(error) or repr(error)}") from None
        except (AttributeError, TypeError) as error:  # what pyelftools makes of odd sections
            raise SourceError(f"{path} is not a core that can be read: {error}") from None
        kind, machine = core.head["e_type"], core.head["e_machine"]
        if kind != "ET_CORE":
            raise SourceError(f"{path} is not a core: its ELF type is {kind}")
        if machine not in MACHINES:
            archs = dict.fromkeys(MACHINES.values())
            known = ", ".join(architecture.named(arch).called for arch in archs)
            raise SourceError(f"{path} is a core of another machine than {known}: {machine}")
        if order == "big" and architecture.named(core.arch).byte_order == "little":
            raise SourceError(
                f"{path} is a core of a big-endian machine, whose tables are not looked at here"
            )
        return core

    @property
    def arch(self) -> str:
        """The architecture that it is of."""
        return MACHINES[self.head["e_machine"]]

    @property
    def x86_64(self) -> bool:
        """Whether the first processor was in long mode: QEMU chooses the machine by that."""
        return bool(self.head["e_machine"] == "EM_X86_64")

    def segments(self) -> npt.NDArray[np.void]:
        """The program headers, an array of SEGMENT."""
        layout = SEGMENT[self.width].newbyteorder(self.order)
        first = self.head["e_phoff"]
        if self.count and self.head["e_phentsize"] != layout.itemsize:
            raise SourceError(
                f"{self.path} is not a core that can be read: its program headers have"
                f" {self.head['e_phentsize']} bytes, not {layout.itemsize}"
            )
        if self.count > MOST_SEGMENTS:
            raise SourceError(
                f"{self.path} is hardly a core: it names {self.count:,} program headers"
            )
        self._holds(first, self.count * layout.itemsize, f"{self.count:,} program headers")
        return self.content.part(first, self.count * layout.itemsize).view(layout)

    def notes(self, segments: npt.NDArray[np.void]) -> Iterator[tuple[bytes, bytes]]:
        """Name and content of each note."""
        for segment in segments[segments["type"] == NOTE]:
            first, size = int(segment["offset"]), int(segment["size"])
            self._holds(first, size, "notes")
            octets = self.content.part(first, min(size, NOTE_BYTES)).tobytes()
            yield from _notes(octets, self.order)

    def _holds(self, first: int, size: int, what: str) -> None:
        """Raises SourceError where the file ends before that."""
        if first + size > len(self.content):
            raise self.content.cut(first + size, what)


def _notes(octets: bytes, order: Order = "little") -> Iterator[tuple[bytes, bytes]]:
    """The notes in a segment, as far as they are whole; none has no name and no content."""
    place, head = 0, struct.Struct(f"{MARKS[order]}III")
    while place + head.size <= len(octets):
        name, content, _ = head.unpack_from(octets, place)
        place += head.size
        start = place + -(-name // 4) * 4
        if not name + content or start + content > len(octets):
            return
        yield octets[place : place + name].rstrip(b"\0"), octets[start : start + content]
        place = start + -(-content // 4) * 4
