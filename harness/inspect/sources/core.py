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

from harness.inspect.snapshot import RESERVING, Snapshot, SourceError
from harness.inspect.sources import kdump, signature, vmcoreinfo
from harness.inspect.sources.content import Content
from harness.inspect.sources.segments import SegmentMemory
from harness.inspect.x86 import engine
from harness.inspect.x86.processor import (
    AC,
    CODE_64,
    cpu_with,
    mark_in,
    marked,
    tables_of,
    unseen_keys,
    unseen_model,
)
from harness.paging.x86.cpu import WIDTHS, Cpu, Cr4, Efer

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
"""A program header, by the class of the file."""

NOTE_BYTES = 16 << 20
"""Notes are read up to here: QEMU writes about 800 bytes a processor."""

MOST_SEGMENTS = 1 << 22
"""Program headers that are looked at; `-p` writes one for each run of pages that is mapped."""

STATE_SIZE, RSP, RIP, RFLAGS, CS, CS_FLAGS, CR = 432, 56, 136, 144, 152, 160, 392
"""QEMU's note of a processor, version 1: its size at least, and where in it RSP, RIP, RFLAGS, CS,
its flags and the five control registers are (QEMU, target/i386/arch_dump.c: QEMUCPUState)."""

RPL = 3
"""The bits of CS that are the privilege level (SDM volume 3A, 3.4.2)."""


def snapshot(path: Path, vcpu: int, registers: Mapping[str, int]) -> Snapshot:
    """The memory in a core, and one of its processors.

    registers  in place of its own

    Raises SourceError where the file is not a core of an x86 guest, is cut short, or tells no state
    in which addresses are translated.
    """
    dump = _dump(path)
    memory = dump.memory
    states = [desc for name, desc in dump.notes if name == b"QEMU"]
    own, rest, assumed = _registers(path, vcpu, states, dump, registers)
    damaged: tuple[str, ...] = ()
    if own["efer"] & Efer.LMA:
        mark, told, damaged = marked(dump.vmcoreinfo, registers)
        if not mark:
            mark, told = mark_in({**own, **registers}, registers, memory)
        own |= mark
        assumed += told
    cpu = cpu_with(Cpu.long_mode(4, 0), {**own, **registers}, memory)
    cpu, notes = engine.as_marked(cpu)
    if "maxphyaddr" not in registers:
        assumed.append(f"MAXPHYADDR={WIDTHS[-1]}, since a core does not record it (--maxphyaddr)")
    assumed += unseen_model(cpu, registers, "a core")
    assumed += unseen_keys(cpu, "a core")
    if states and dump.virtual:
        assumed.append(
            "the core was written with -p, so that memory which the guest does not map is missing"
        )
    if dump.left_out:
        assumed.append(
            "makedumpfile left pages out of the core: where there is no memory, a page of zeros or"
            " one of a program may have been"
        )
    title = f"{path}, processor {vcpu}"
    notes = (*damaged, *notes)
    found = Snapshot(title, cpu, memory, memory.backed, tuple(assumed), notes, rest, partial=True)
    unsure = RESERVING - registers.keys()
    if not states and any(name == VIRTUALBOX for name, _ in dump.notes):
        unsure -= {"efer"}
    return replace(found, unsure=unsure)


@dataclass(frozen=True)
class _Dump:
    """What a core holds, whatever its format.

    notes    name and content of each
    x86_64   whether it says that its processor was in long mode, or its kernel is of 64 bits
    virtual  whether it has addresses of virtual memory
    left_out whether it lacks pages that the machine had
    """

    memory: SegmentMemory
    notes: tuple[tuple[bytes, bytes], ...]
    x86_64: bool
    virtual: bool = False
    left_out: bool = False

    @property
    def vmcoreinfo(self) -> bytes:
        """What Linux says of itself, empty where it is not there."""
        return next((text for name, text in self.notes if name == vmcoreinfo.NOTE), b"")


def _dump(path: Path) -> _Dump:
    content = Content.of_file(path)
    if kdump.is_kdump(content.part(0, 16).tobytes()):
        found = kdump.read(content)
        notes = (*_notes(found.notes), (vmcoreinfo.NOTE, found.vmcoreinfo))
        return _Dump(found.memory, notes, found.width == 64, left_out=found.left_out)
    core = _Core.of(path, content)
    segments = core.segments()
    loads = segments[segments["type"] == LOAD]
    first, size, offset = (loads[name].astype(np.uint64) for name in ("physical", "size", "offset"))
    memory = SegmentMemory.of(content, first, size, offset)
    virtual = bool((segments["virtual"] != segments["physical"]).any())
    return _Dump(memory, tuple(core.notes(segments)), core.x86_64, virtual)


@dataclass(frozen=True)
class _Core:
    """A file with the head of an x86 core.

    head    its ELF header
    width   of its class: 32 or 64
    count   of its program headers
    """

    path: Path
    content: Content
    head: Mapping[str, Any]
    width: int
    count: int

    @classmethod
    def of(cls, path: Path, content: Content) -> _Core:
        signature.as_core(path, content)
        try:
            with path.open("rb") as file:
                elf = ELFFile(file)
                core = cls(path, content, elf.header, elf.elfclass, elf.num_segments())
        except (ELFError, ConstructError, ValueError, OverflowError, LookupError) as error:
            raise SourceError(f"{path} is not a core: {str(error) or repr(error)}") from None
        except (AttributeError, TypeError) as error:  # what pyelftools makes of odd sections
            raise SourceError(f"{path} is not a core that can be read: {error}") from None
        kind, machine = core.head["e_type"], core.head["e_machine"]
        if kind != "ET_CORE":
            raise SourceError(f"{path} is not a core: its ELF type is {kind}")
        if machine not in ("EM_X86_64", "EM_386") or not elf.little_endian:
            raise SourceError(f"{path} is a core of another machine than x86: {machine}")
        return core

    @property
    def x86_64(self) -> bool:
        """Whether the first processor was in long mode: QEMU chooses the machine by that."""
        return bool(self.head["e_machine"] == "EM_X86_64")

    def segments(self) -> npt.NDArray[np.void]:
        """The program headers, an array of SEGMENT."""
        layout, first = SEGMENT[self.width], self.head["e_phoff"]
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
            yield from _notes(self.content.part(first, min(size, NOTE_BYTES)).tobytes())

    def _holds(self, first: int, size: int, what: str) -> None:
        """Raises SourceError where the file ends before that."""
        if first + size > len(self.content):
            raise self.content.cut(first + size, what)


def _notes(octets: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The notes in a segment, as far as they are whole; none has no name and no content."""
    place = 0
    while place + _NOTE.size <= len(octets):
        name, content, _ = _NOTE.unpack_from(octets, place)
        place += _NOTE.size
        start = place + -(-name // 4) * 4
        if not name + content or start + content > len(octets):
            return
        yield octets[place : place + name].rstrip(b"\0"), octets[start : start + content]
        place = start + -(-content // 4) * 4


_NOTE = struct.Struct("<III")


def _registers(
    path: Path, vcpu: int, states: list[bytes], dump: _Dump, given: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, int], list[str]]:
    """The registers in the note of a processor that decide how it pages, the others, and what is
    assumed of EFER, which is in none."""
    own: dict[str, int] = {"maxphyaddr": WIDTHS[-1]}
    rest: dict[str, int] = {}
    long, assumed = dump.x86_64, []
    if states:
        if not vcpu < len(states):
            raise SourceError(f"{path} has no processor {vcpu}: it has 0 to {len(states) - 1}")
        state = states[vcpu]
        if len(state) < STATE_SIZE:
            raise SourceError(
                f"{path} has a note of processor {vcpu} of {len(state)} bytes, not {STATE_SIZE}"
            )
        cr0, _, cr2, cr3, cr4 = struct.unpack_from("<5Q", state, CR)
        rest = {"cr2": cr2, "cpl": struct.unpack_from("<I", state, CS)[0] & RPL}
        rest |= {name: struct.unpack_from("<Q", state, at)[0] for name, at in _POINTERS}
        rest |= tables_of({name: _segment(state, at) for name, at in _SEGMENTS})
        own |= {"cr0": cr0, "cr3": cr3, "cr4": cr4}
        own["ac"] = bool(struct.unpack_from("<Q", state, RFLAGS)[0] & AC)
        long = long or bool(struct.unpack_from("<I", state, CS_FLAGS)[0] & CODE_64)
    elif boxes := [desc for name, desc in dump.notes if name == VIRTUALBOX]:
        if not vcpu < len(boxes):
            raise SourceError(f"{path} has no processor {vcpu}: it has 0 to {len(boxes) - 1}")
        if len(boxes[vcpu]) < BOX_SIZE:
            raise SourceError(
                f"{path} has a note of processor {vcpu} of {len(boxes[vcpu])} bytes, not {BOX_SIZE}"
            )
        told, rest = _of_virtualbox(boxes[vcpu])
        return own | told, rest, []
    else:
        told = vmcoreinfo.registers(dump.vmcoreinfo, dump.x86_64)
        if "cr3" not in told and "cr3" not in given:
            raise SourceError(
                f"{path} has no notes of QEMU or VirtualBox and no VMCOREINFO, which tell the"
                " control registers: add --cr3, and --cr4 for other than 4-level paging"
            )
        own |= told
        if told and "cr3" not in given:
            assumed.append(
                f"the core has no control registers: the tables are those of Linux itself, at"
                f" {told['cr3']:#x} by its VMCOREINFO; --cr3 says otherwise"
            )
    pae = {**own, **given}.get("cr4", Cr4.PAE) & Cr4.PAE
    own["efer"] = Efer.NXE | (Efer.LME | Efer.LMA if long and pae else 0)
    if "efer" not in given:
        assumed.append(
            f"EFER.LMA={int(bool(own['efer'] & Efer.LMA))}, as the machine of the core's head says,"
            " and EFER.NXE=1 (--efer)"
        )
    return own, rest, assumed


_POINTERS = (("rip", RIP), ("rsp", RSP))
_SEGMENTS = (("CS", CS), ("SS", 272), ("TR", 320), ("GDT", 344), ("IDT", 368))
"""Where QEMU's note has selector, limit, flags and base of each."""


def _segment(state: bytes, at: int) -> tuple[int, int, int, int]:
    selector, limit, flags, base = struct.unpack_from("<IIQQ", state, at)
    return selector, base, limit, flags


VIRTUALBOX = b"VBCPU"
"""The name of VirtualBox's note of a processor (VirtualBox, include/VBox/dbgfcorefmt.h)."""

BOX_SIZE, _BOX_POINTERS, _BOX_FLAGS, _BOX_CR, _BOX_EFER = 496, 112, 136, 288, 488
"""Its size at least, and where in it RIP and RSP, RFLAGS, CR0, CR2, CR3 and CR4, and EFER are."""

_BOX_SEGMENTS = (("CS", 144), ("SS", 264), ("TR", 440))
_BOX_TABLES = (("GDT", 384), ("IDT", 400))


def _of_virtualbox(state: bytes) -> tuple[dict[str, int], dict[str, int]]:
    """The registers that decide how a processor pages, and the others."""
    cr0, cr2, cr3, cr4 = struct.unpack_from("<4Q", state, _BOX_CR)
    (efer,), (flags,) = (struct.unpack_from("<Q", state, at) for at in (_BOX_EFER, _BOX_FLAGS))
    rip, rsp = struct.unpack_from("<2Q", state, _BOX_POINTERS)
    segments = {}
    for name, at in _BOX_SEGMENTS:
        base, limit, attributes, selector = struct.unpack_from("<QIIH", state, at)
        segments[name] = (selector, base, limit, attributes << 8)  # without the byte of the base
    for name, at in _BOX_TABLES:
        base, limit = struct.unpack_from("<QI", state, at)
        segments[name] = (0, base, limit, 0)
    own = {"cr0": cr0, "cr3": cr3, "cr4": cr4, "efer": efer, "ac": bool(flags & AC)}
    rest = {"cr2": cr2, "rip": rip, "rsp": rsp, "cpl": segments["CS"][0] & RPL}
    return own, rest | tables_of(segments)
