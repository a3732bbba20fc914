"""The guest program as a file: where its parts lie, and the structures of its protocol.

The structures are declared once, in the guest's exchange.h and protocol.h; their layout, the
enumerators and the addresses of the shared variables are read from the ELF file's symbols and debug
information.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, SymbolTableSection

from harness.machine.errors import Misuse
from harness.machine.ram import ARENA, ARENA_UNIT, JOB_ARENA, MIB, TABLE_ARENA

LARGEST_FILE: Final = 16 * MIB
HIGHEST_ARENA: Final = (1 << 32) - len(ARENA) - ARENA_UNIT
"""Up to here an arena can begin: below 4 GiB, with something behind it."""
_STRUCTURES: Final = ("job", "result", "batch", "machine_info")
_VARIABLES: Final = ("batch", "machine_info")


@dataclass(frozen=True)
class Relocations:
    """The types of relocations that a stub which can be moved may have.

    absolute  those that hold an address, each with the bytes of that
    relative  those that hold wherever the program is

    Both by their numbers in the processor's psABI.
    """

    absolute: tuple[tuple[int, int], ...]
    relative: tuple[int, ...]


@dataclass(frozen=True)
class Build:
    """What `make guest` makes a stub of.

    called    its processor, for people
    path      where it is put
    machine   the processor's name in ELF (e_machine), and its bits
    moves     its relocations, if it can be moved
    compiler  what makes it, where that is not what makes everything
    base      the physical address at which the arena begins that it is linked for
    stub      which part of the arena it lies in
    text, user, data  the sections, adjacent ones, that these are made of
    """

    called: str
    path: Path
    machine: tuple[str, int]
    base: int
    stub: range
    text: tuple[str, ...]
    user: tuple[str, ...]
    data: tuple[str, ...]
    moves: Relocations | None = None
    compiler: str = ""

    @property
    def within(self) -> range:
        """The physical addresses that it may take."""
        return _shifted(self.stub, self.base)

    @property
    def needs(self) -> str:
        """The end of a sentence that says how to build it."""
        return f", which takes {self.compiler}" if self.compiler else ""


class _NotAStubError(Exception):
    """Why a file is not a stub, as the end of a sentence."""


@dataclass(frozen=True)
class StubImage:
    """A stub that was read and found sound.

    `text`, `user` and `data` are the physical addresses of its sections, whole pages: code of the
    supervisor, code of CPL 3, writable data. `batch` and `machine_info` are the physical addresses
    of these variables. `enums` holds every enumerator of protocol.h by name. `content` is the ELF
    file, `base` where the arena begins: what belongs to the machine goes where the stub goes. The
    structures are those of this process: `in_memory` has the guest's byte order.
    """

    path: Path
    content: bytes = field(repr=False)
    text: range
    user: range
    data: range
    batch: int
    machine_info: int
    job_dtype: np.dtype[np.void]
    result_dtype: np.dtype[np.void]
    batch_dtype: np.dtype[np.void]
    machine_info_dtype: np.dtype[np.void]
    enums: Mapping[str, int]
    build: Build = field(repr=False)
    base: int
    little_endian: bool

    def in_memory(self, dtype: np.dtype[np.void]) -> np.dtype[np.void]:
        """A structure as it lies in the guest's memory, with numbers in its byte order."""
        return dtype if self.little_endian else dtype.newbyteorder(">")

    @property
    def arena(self) -> range:
        """What belongs to the machine."""
        return _shifted(ARENA, self.base)

    @property
    def table_arena(self) -> range:
        """The part of it that is for the caller's entry and window tables."""
        return _shifted(TABLE_ARENA, self.base)

    @property
    def job_arena(self) -> range:
        """The part of it that is for jobs and results."""
        return _shifted(JOB_ARENA, self.base)

    def moved(self, base: int) -> StubImage:
        """The stub for an arena that begins at `base`, `HIGHEST_ARENA` at most and a multiple of
        `ARENA_UNIT`.

        Raises `Misuse` for another base, and for a stub that holds no relocations.
        """
        if base % ARENA_UNIT or not 0 <= base <= HIGHEST_ARENA:
            raise Misuse(f"no arena begins at {base:#x}: take a multiple of {ARENA_UNIT:#x}")
        by = base - self.base
        if not by:
            return self
        try:
            content = _moved(self.content, by, self.build.moves)
        except _NotAStubError as error:
            raise Misuse(
                f"{self.path} cannot be moved: {error}. Build it again: `make guest`"
            ) from None
        return replace(
            self,
            content=content,
            text=_shifted(self.text, by),
            user=_shifted(self.user, by),
            data=_shifted(self.data, by),
            batch=self.batch + by,
            machine_info=self.machine_info + by,
            base=base,
        )

    def flat(self) -> bytes:
        """What memory begins with, from 0 on, when the stub is loaded: for a machine that starts
        what it is given as firmware."""
        elf = ELFFile(io.BytesIO(self.content))
        loaded = [one for one in elf.iter_segments("PT_LOAD") if one["p_filesz"]]
        found = bytearray(max(one["p_paddr"] + one["p_filesz"] for one in loaded))
        for one in loaded:
            found[one["p_paddr"] : one["p_paddr"] + one["p_filesz"]] = one.data()
        return bytes(found)

    @classmethod
    def load(cls, build: Build, path: Path | None = None) -> StubImage:
        """Read a stub, where it is built unless elsewhere; raises `Misuse` with the reason if the
        file is missing or no sound stub."""
        path = path or build.path
        try:
            content = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
        except OSError as error:
            raise Misuse(
                f"{path} cannot be read ({error.strerror}): build it, `make guest`{build.needs}"
            ) from None
        try:
            return _read(path, content, build)
        except _NotAStubError as error:
            reason = str(error)
        except Exception as error:  # the parser meets a damaged file in any of its steps
            reason = f"it is damaged ({type(error).__name__}: {error})".replace("\n", " ")
        raise Misuse(f"{path} is not a stub: {reason}. Build it again: `make guest`")

    def new_jobs(self, count: int) -> npt.NDArray[np.void]:
        """`count` jobs with every field zero."""
        return np.zeros(count, dtype=self.job_dtype)


PROTOCOL: Final = 4
"""The version of `guest/common/exchange.h` that this package speaks."""


@lru_cache(maxsize=4)  # the next guest has the same stub, and to read it takes as long as its start
def _read(path: Path, content: bytes, build: Build) -> StubImage:
    elf = ELFFile(io.BytesIO(content))
    _check_header(elf, build)
    text, user, data = (
        _extent(elf, parts, build.within) for parts in (build.text, build.user, build.data)
    )
    if not elf.has_dwarf_info():
        raise _NotAStubError("it has no debug information")
    dwarf = elf.get_dwarf_info(relocate_dwarf_sections=False)  # the linker has done that
    enums = _enumerators(dwarf)
    if (version := enums.get("PROTOCOL_VERSION")) != PROTOCOL:
        raise _NotAStubError(f"it speaks version {version} of the protocol, and this {PROTOCOL}")
    structures = _structures(dwarf)
    symbols = _symbols(elf, _VARIABLES)
    for name, address in symbols.items():
        span = range(address, address + structures[name].itemsize)
        if span.start not in data or span[-1] not in data:
            raise _NotAStubError(f"{name} at {address:#x} lies outside its data")
    return StubImage(
        path=path,
        content=content,
        text=text,
        user=user,
        data=data,
        batch=symbols["batch"],
        machine_info=symbols["machine_info"],
        job_dtype=structures["job"],
        result_dtype=structures["result"],
        batch_dtype=structures["batch"],
        machine_info_dtype=structures["machine_info"],
        enums=enums,
        build=build,
        base=build.base,
        little_endian=elf.little_endian,
    )


_ENTRY_AT: Final = 24
"""Where an ELF header has the entry."""
_PLACES_AT: Final = {64: (16, 24), 32: (8, 12)}
"""Where a program header has its virtual and its physical address, by the file's bits."""
_NUMBERS: Final = {8: struct.Struct("<Q"), 4: struct.Struct("<I")}
"""By their bytes."""


def _moved(content: bytes, by: int, moves: Relocations | None) -> bytes:
    """An ELF file whose segments lie elsewhere, with all addresses in them and in its headers."""
    if moves is None:
        raise _NotAStubError("its addresses are not known")
    elf, moved, absolute = ELFFile(io.BytesIO(content)), bytearray(content), dict(moves.absolute)

    def add(width: int, at: int) -> None:
        number = _NUMBERS[width]
        number.pack_into(moved, at, number.unpack_from(moved, at)[0] + by)

    relocations, word = list(_relocations(elf)), elf.elfclass // 8
    if not relocations:
        raise _NotAStubError("it was linked without its relocations")
    for record, at, kind in relocations:
        if kind in absolute:
            add(absolute[kind], at)
        elif kind not in moves.relative:
            raise _NotAStubError(f"it has a relocation of type {kind}")
        add(word, record)
    add(word, _ENTRY_AT)
    for number in range(elf.num_segments()):
        for place in _PLACES_AT[elf.elfclass]:
            add(word, elf["e_phoff"] + number * elf["e_phentsize"] + place)
    return bytes(moved)


def _relocations(elf: ELFFile) -> Iterator[tuple[int, int, int]]:
    """The relocations of what is loaded: where in the file one begins, with its address; where what
    it is about stands; and its type."""
    segments = list(elf.iter_segments("PT_LOAD"))
    for section in elf.iter_sections():
        if not isinstance(section, RelocationSection):
            continue
        if elf.get_section(section["sh_info"])["sh_flags"] & SH_FLAGS.SHF_ALLOC:
            for number, one in enumerate(section.iter_relocations()):
                record = section["sh_offset"] + number * section["sh_entsize"]
                for segment in segments:
                    if 0 <= one["r_offset"] - segment["p_vaddr"] < segment["p_filesz"]:
                        at = one["r_offset"] - segment["p_vaddr"] + segment["p_offset"]
                        yield record, at, one["r_info_type"]


def _shifted(part: range, by: int) -> range:
    return range(part.start + by, part.stop + by)


def _check_header(elf: ELFFile, build: Build) -> None:
    if (elf["e_machine"], elf.elfclass) != build.machine or elf["e_type"] != "ET_EXEC":
        raise _NotAStubError(f"it is not an executable for {build.called}")
    loaded = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    if not loaded:
        raise _NotAStubError("it loads nothing")
    for segment in loaded:
        first, size = segment["p_paddr"], segment["p_memsz"]
        if first < build.within.start or first + size > build.within.stop:
            raise _NotAStubError(f"it loads {size} bytes at {first:#x}, outside its 1 MiB")
        if segment["p_vaddr"] != first:
            raise _NotAStubError(
                f"it is linked at {segment['p_vaddr']:#x} but loaded at {first:#x}"
            )
        if segment["p_offset"] + segment["p_filesz"] > elf.stream_len:
            raise _NotAStubError("it is truncated")


def _extent(elf: ELFFile, names: tuple[str, ...], within: range) -> range:
    """The addresses that the adjacent sections take together."""
    first, last = _section(elf, names[0]), _section(elf, names[-1])
    extent = range(first["sh_addr"], last["sh_addr"] + last["sh_size"])
    if not extent or extent.start < within.start or extent.stop > within.stop:
        raise _NotAStubError(f"its section {names[0]} lies outside its 1 MiB")
    return extent


def _section(elf: ELFFile, name: str) -> Section:
    section = elf.get_section_by_name(name)
    if section is None:
        raise _NotAStubError(f"it has no section {name}")
    return section


def _symbols(elf: ELFFile, names: Sequence[str]) -> dict[str, int]:
    """The addresses of these; the table is read once, which may have thousands of others."""
    table = _section(elf, ".symtab")
    symbols = table.iter_symbols() if isinstance(table, SymbolTableSection) else ()
    found = {one.name: int(one["st_value"]) for one in symbols if one.name in names}
    for name in names:
        if name not in found:
            raise _NotAStubError(f"it has no symbol {name}")
    return found


def _structures(dwarf: DWARFInfo) -> dict[str, np.dtype[np.void]]:
    """The layouts of the protocol's structures, by tag."""
    found = {
        _name(die): _dtype(die)
        for die in _top_level(dwarf, "DW_TAG_structure_type")
        if _name(die) in _STRUCTURES and "DW_AT_declaration" not in die.attributes
    }
    missing = [name for name in _STRUCTURES if name not in found]
    if missing:
        raise _NotAStubError(f"its debug information has no struct {missing[0]}")
    return found


def _enumerators(dwarf: DWARFInfo) -> dict[str, int]:
    return {
        _name(enumerator): _value(enumerator, "DW_AT_const_value")
        for enumeration in _top_level(dwarf, "DW_TAG_enumeration_type")
        for enumerator in enumeration.iter_children()
    }


def _top_level(dwarf: DWARFInfo, tag: str) -> list[DIE]:
    return [
        die
        for unit in dwarf.iter_CUs()
        for die in unit.get_top_DIE().iter_children()
        if die.tag == tag
    ]


def _name(die: DIE) -> str:
    attribute = die.attributes.get("DW_AT_name")
    return attribute.value.decode() if attribute else ""


def _dtype(die: DIE) -> np.dtype[Any]:
    """The numpy type of a C type: unsigned numbers, arrays and structures of them."""
    if die.tag == "DW_TAG_structure_type":
        members = list(die.iter_children())
        return np.dtype(
            {
                "names": [_name(member) for member in members],
                "formats": [_type_of(member) for member in members],
                "offsets": [_value(member, "DW_AT_data_member_location") for member in members],
                "itemsize": _value(die, "DW_AT_byte_size"),
            }
        )
    if die.tag == "DW_TAG_array_type":
        shape = tuple(_value(part, "DW_AT_upper_bound") + 1 for part in die.iter_children())
        return np.dtype((_type_of(die), shape))
    if die.tag == "DW_TAG_base_type":
        return np.dtype(f"<u{_value(die, 'DW_AT_byte_size')}")
    if die.tag == "DW_TAG_typedef":
        return _type_of(die)
    raise _NotAStubError(f"its protocol has a {die.tag}, which is no number")


def _type_of(die: DIE) -> np.dtype[Any]:
    return _dtype(die.get_DIE_from_attribute("DW_AT_type"))


def _value(die: DIE, attribute: str) -> int:
    return int(die.attributes[attribute].value)
