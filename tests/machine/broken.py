"""Stubs that misbehave: the built one, with other code where it starts."""

from __future__ import annotations

import io
from pathlib import Path

from elftools.elf.elffile import ELFFile

from harness.machine.stub import StubImage
from harness.machine.x86.stub import BUILD

# 32-bit code without paging, as the stub's entry has it
PRINT = b"\x66\xba\xf8\x03"  # mov $0x3f8, %dx
LETTER = b"\xb0%c\xee"  # mov $letter, %al; out %al, %dx
HALT = b"\xf4\xeb\xfd"  # hlt; jmp to it

HANG = b"\xeb\xfe"  # jmp to itself
TRIPLE_FAULT = b"\x0f\x01\x1d" + bytes(4) + b"\x0f\x0b"  # lidt 0 (limit 0 there); ud2
ENDLESS_LINE = PRINT + b"\xb0\xa5\xee\xeb\xfd"  # byte a5 for ever


def says(text: bytes) -> bytes:
    """Code that prints `text` and halts."""
    return PRINT + b"".join(LETTER % byte for byte in text) + HALT


def stub_that(code: bytes, directory: Path) -> StubImage:
    """The built stub with `code` at its entry."""
    content = bytearray(BUILD.path.read_bytes())
    elf = ELFFile(io.BytesIO(content))
    entry = elf["e_entry"]
    segment = next(
        one
        for one in elf.iter_segments("PT_LOAD")
        if one["p_vaddr"] <= entry < one["p_vaddr"] + one["p_filesz"]
    )
    offset = entry - segment["p_vaddr"] + segment["p_offset"]
    content[offset : offset + len(code)] = code
    path = directory / "stub.elf"
    path.write_bytes(content)
    return StubImage.load(BUILD, path)
