"""The guest program as a file: where its parts lie, and the structures of its protocol.

The structures are declared once, in the guest's protocol.h; their layout, the enumerators and the
addresses of the shared variables are read from the ELF file's symbols and debug information.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from elftools.dwarf.die import DIE
from elftools.dwarf.dwarfinfo import DWARFInfo
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

from harness.machine.errors import Misuse
from harness.machine.ram import MIB, STUB

BUILT_STUB: Final = Path(__file__).with_name("stub.elf")
LARGEST_FILE: Final = 16 * MIB
_STRUCTURES: Final = ("job", "result", "batch", "machine_info")
_VARIABLES: Final = ("batch", "machine_info")
_SECTIONS: Final = {"text": (".note.pvh", ".text"), "user": (".user",), "data": (".data", ".bss")}


class _NotAStubError(Exception):
    """Why a file is not a stub, as the end of a sentence."""


@dataclass(frozen=True)
class StubImage:
    """A stub that was read and found sound.

    `text`, `user` and `data` are the physical addresses of its sections, whole pages: code of the
    supervisor, code of CPL 3, writable data. `batch` and `machine_info` are the physical addresses
    of these variables. `enums` holds every enumerator of protocol.h by name.
    """

    path: Path
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

    @classmethod
    def load(cls, path: Path = BUILT_STUB) -> StubImage:
        """Read a stub; raises `Misuse` with the reason if the file is missing or no sound stub."""
        try:
            content = path.read_bytes() if path.stat().st_size <= LARGEST_FILE else b""
        except OSError as error:
            raise Misuse(
                f"{path} cannot be read ({error.strerror}): build it, `make guest`"
            ) from None
        try:
            return _read(path, content)
        except _NotAStubError as error:
            reason = str(error)
        except Exception as error:  # the parser meets a damaged file in any of its steps
            reason = f"it is damaged ({type(error).__name__}: {error})".replace("\n", " ")
        raise Misuse(f"{path} is not a stub: {reason}. Build it again: `make guest`")

    def new_jobs(self, count: int) -> npt.NDArray[np.void]:
        """`count` jobs with every field zero."""
        return np.zeros(count, dtype=self.job_dtype)


PROTOCOL: Final = 3
"""The version of `guest/x86/protocol.h` that this package speaks."""


@lru_cache(maxsize=1)  # the next guest has the same stub, and to read it takes as long as its start
def _read(path: Path, content: bytes) -> StubImage:
    elf = ELFFile(io.BytesIO(content))
    _check_header(elf)
    sections = {name: _extent(elf, parts) for name, parts in _SECTIONS.items()}
    if not elf.has_dwarf_info():
        raise _NotAStubError("it has no debug information")
    dwarf = elf.get_dwarf_info()
    enums = _enumerators(dwarf)
    if (version := enums.get("PROTOCOL_VERSION")) != PROTOCOL:
        raise _NotAStubError(f"it speaks version {version} of the protocol, and this {PROTOCOL}")
    structures = _structures(dwarf)
    symbols = {name: _symbol(elf, name) for name in _VARIABLES}
    for name, address in symbols.items():
        span = range(address, address + structures[name].itemsize)
        if span.start not in sections["data"] or span[-1] not in sections["data"]:
            raise _NotAStubError(f"{name} at {address:#x} lies outside its data")
    return StubImage(
        path=path,
        text=sections["text"],
        user=sections["user"],
        data=sections["data"],
        batch=symbols["batch"],
        machine_info=symbols["machine_info"],
        job_dtype=structures["job"],
        result_dtype=structures["result"],
        batch_dtype=structures["batch"],
        machine_info_dtype=structures["machine_info"],
        enums=enums,
    )


def _check_header(elf: ELFFile) -> None:
    if elf.elfclass != 64 or elf["e_machine"] != "EM_X86_64" or elf["e_type"] != "ET_EXEC":
        raise _NotAStubError("it is not an executable for x86-64")
    loaded = [segment for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    if not loaded:
        raise _NotAStubError("it loads nothing")
    for segment in loaded:
        first, size = segment["p_paddr"], segment["p_memsz"]
        if first < STUB.start or first + size > STUB.stop:
            raise _NotAStubError(f"it loads {size} bytes at {first:#x}, outside its 1 MiB")
        if segment["p_vaddr"] != first:
            raise _NotAStubError(
                f"it is linked at {segment['p_vaddr']:#x} but loaded at {first:#x}"
            )
        if segment["p_offset"] + segment["p_filesz"] > elf.stream_len:
            raise _NotAStubError("it is truncated")


def _extent(elf: ELFFile, names: tuple[str, ...]) -> range:
    """The addresses that the adjacent sections take together."""
    first, last = _section(elf, names[0]), _section(elf, names[-1])
    extent = range(first["sh_addr"], last["sh_addr"] + last["sh_size"])
    if not extent or extent.start < STUB.start or extent.stop > STUB.stop:
        raise _NotAStubError(f"its section {names[0]} lies outside its 1 MiB")
    return extent


def _section(elf: ELFFile, name: str) -> Section:
    section = elf.get_section_by_name(name)
    if section is None:
        raise _NotAStubError(f"it has no section {name}")
    return section


def _symbol(elf: ELFFile, name: str) -> int:
    table = _section(elf, ".symtab")
    found = table.get_symbol_by_name(name) if isinstance(table, SymbolTableSection) else None
    if not found:
        raise _NotAStubError(f"it has no symbol {name}")
    return int(found[0]["st_value"])


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
