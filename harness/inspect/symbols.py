"""Names of code addresses: from an ELF file, a System.map, or what /proc/kallsyms shows."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from harness.machine.errors import Misuse

LONGEST_FUNCTION: Final = 1 << 20
"""Bytes behind its begin for which a symbol without a size is taken to stand."""

MOST_TEXT: Final = 64 << 20
"""Bytes of a list of symbols that are read."""

_LINE: Final = re.compile(rb"([0-9a-fA-F]+) [tTwWvViI] (\S+)")
_CODE: Final = ("STT_FUNC", "STT_NOTYPE", "STT_GNU_IFUNC")


class Symbols:
    """Where functions begin, by address."""

    def __init__(self, found: Iterable[tuple[int, int, str]]) -> None:
        """`found` has the address, the size in bytes (0 where it is not known) and the name."""
        self._found = sorted(found, key=lambda one: (one[0], one[1] > 0))
        self._begins = [begin for begin, _, _ in self._found]

    def __iter__(self) -> Iterator[tuple[int, int, str]]:
        return iter(self._found)

    def name(self, address: int) -> str | None:
        """The function that an address lies in, as `name+0x1f`; None where none is known."""
        place = bisect_right(self._begins, address) - 1
        if place < 0:
            return None
        begin, size, name = self._found[place]
        offset = address - begin
        if offset >= (size or LONGEST_FUNCTION):
            return None
        return f"{name}+{offset:#x}" if offset else name


def symbols(path: Path) -> Symbols:
    """The symbols in a file; raises `Misuse` where it has none."""
    try:
        with path.open("rb") as file:
            elf = file.read(4) == b"\x7fELF"
            file.seek(0)
            found = list(_of_elf(ELFFile(file)) if elf else _of_text(file.read(MOST_TEXT)))
    except OSError as error:
        raise Misuse(f"{path} cannot be read: {error.strerror}") from None
    except (ELFError, ValueError, KeyError, AttributeError) as error:
        raise Misuse(f"{path} is no ELF file that can be read: {error}") from None
    if not found:
        raise Misuse(
            f"{path} has no symbols of code: name an ELF file that is not stripped, a System.map,"
            " or what /proc/kallsyms shows to root"
        )
    return Symbols(found)


def _of_elf(file: ELFFile) -> Iterator[tuple[int, int, str]]:
    for section in file.iter_sections():
        if isinstance(section, SymbolTableSection):
            for symbol in section.iter_symbols():
                placed = symbol["st_shndx"] not in ("SHN_UNDEF", "SHN_ABS")
                if symbol.name and placed and symbol["st_info"]["type"] in _CODE:
                    yield symbol["st_value"], symbol["st_size"], symbol.name


def _of_text(text: bytes) -> Iterator[tuple[int, int, str]]:
    for line in text.splitlines():
        if (match := _LINE.match(line)) and (address := int(match[1], 16)):
            yield address, 0, match[2].decode("utf-8", "replace")
