"""VMCOREINFO: what Linux says of itself to those who read its memory.

Lines of text in a note of a core: where things are and how large (Linux,
Documentation/admin-guide/kdump/vmcoreinfo.rst). What tells the state of a processor that uses the
kernel's own tables, the module `vmcoreinfo` of its architecture reads.

Linux keeps the note in its memory, too, from early in its boot on, where anyone may find it who has
nothing else.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from harness.inspect.sources.content import Content

NOTE: Final = b"VMCOREINFO"
"""The name of the note."""

_LINE: Final = re.compile(
    rb"^(SYMBOL|NUMBER)\((\w+)\)=(-?[0-9a-fA-F]{1,20}|0x[0-9a-f]{1,16})$", re.MULTILINE
)
_WORD: Final = (1 << 64) - 1
_BASES: Final = {b"SYMBOL": 16, b"NUMBER": 10}


_WRITERS: Final = {
    b"NUMBER(va_kernel_pa_offset)": "riscv",
    b"NUMBER(kimage_voffset)": "arm64",
}
"""By how much a kernel's image is moved, which each architecture says in words of its own."""


def written_by(text: bytes) -> str | None:
    """The architecture of the kernel that wrote it; None where it does not say that of another
    than x86."""
    return next((arch for name, arch in _WRITERS.items() if name in told(text)), None)


def left_in(content: Content) -> Iterator[bytes]:
    """Every text that a kernel left in its memory, as a note, each once."""
    seen = set()
    place = 0
    while (place := content.data(place)) < len(content):
        part = content.glance(place, _PART + _LONGEST)
        for at in _places(part, _PART):
            text = _text(part, at)
            if text is not None and text not in seen:
                seen.add(text)
                yield text
        place += _PART


_NOTE_HEAD: Final = struct.Struct("<III")
_NAME: Final = NOTE + b"\0\0"
"""The name as it stands in a note: to a multiple of 4 bytes, zeros."""

_FIRST: Final = b"OSRELEASE="
"""How the text begins (Linux, crash_save_vmcoreinfo_init)."""

_PART: Final = 1 << 20
"""Bytes that are looked through at once: so few that their memory is used again."""

_LONGEST: Final = 64 << 10
"""Bytes of a note: Linux has a page for it, of some kilobytes."""


def _places(part: bytearray, before: int) -> Iterator[int]:
    """Where notes may begin, before a place."""
    # Without the zeros behind it, which in a page of zeros would be found at every byte.
    at = part.find(NOTE, _NOTE_HEAD.size)
    while 0 <= at - _NOTE_HEAD.size < before:
        if part.startswith(_NAME, at):
            yield at - _NOTE_HEAD.size
        at = part.find(NOTE, at + 1)


def _text(part: bytearray, at: int) -> bytes | None:
    """What the note at a place says; None where none is there."""
    name, size, _ = _NOTE_HEAD.unpack_from(part, at)
    head = _NOTE_HEAD.size + len(_NAME)
    text = bytes(part[at + head : at + head + size])
    whole = name == len(NOTE) + 1 and len(text) == size <= _LONGEST - head
    return text if whole and text.startswith(_FIRST) else None


def told(text: bytes) -> dict[bytes, int]:
    """The numbers in a text, by how they are called: b"NUMBER(phys_base)".  They are words of 64
    bits, also where a kernel prints them as signed."""
    found = {}
    for kind, name, digits in _LINE.findall(text):
        base = 16 if digits.startswith(b"0x") else _BASES[kind]
        with suppress(ValueError):
            found[kind + b"(" + name + b")"] = int(digits, base) & _WORD
    return found
