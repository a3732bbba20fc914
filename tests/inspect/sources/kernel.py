"""A guest in any paging mode: `paging.S` with tables that a test writes by hand."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("paging.S")
FIRST: Final = 0x1F_F000
"""Where the state is, and in the next page the root."""

ROOT: Final = 0x20_0000
PE, WP, PG = 1, 1 << 16, 1 << 31
PSE, PAE, NXE = 1 << 4, 1 << 5, 1 << 11


def kernel(directory: Path) -> Path:
    """The kernel, linked."""
    made = directory / "paging.elf"
    subprocess.run(
        (
            *("gcc", "-nostdlib", "-static", "-no-pie", "-o", str(made), str(SOURCE)),
            *("-Wl,--build-id=none", "-Wl,-Ttext=0x100000", "-Wl,-z,noexecstack"),
        ),
        check=True,
    )
    return made


def arguments(
    directory: Path,
    cr4: int,
    cr3: int,
    words: Mapping[int, int],
    *,
    efer: int = 0,
    machine: str = "microvm,pic=on,pit=off,rtc=off,acpi=off,auto-kernel-cmdline=off",
) -> Iterator[str]:
    """QEMU's, for a guest in that state with these words of entries at physical addresses; they
    are as wide as CR4 has them."""
    width = "<Q" if cr4 & PAE else "<I"
    octets = bytearray(max(words) + 8 - FIRST)
    struct.pack_into("<4I", octets, 0, cr4, efer, cr3, PE | WP | PG)
    for address, word in words.items():
        struct.pack_into(width, octets, address - FIRST, word)
    tables = directory / "tables"
    tables.write_bytes(octets)
    yield from ("-machine", machine, "-cpu", "max", "-m", "64M", "-kernel", str(kernel(directory)))
    yield from ("-device", f"loader,file={tables},addr={FIRST:#x},force-raw=on")
