"""What a word probably is that was never meant as an entry, or as an address: text, code, a number.

The word alone is looked at, so each is a guess for people; well-formed entries are not asked about.
"""

from __future__ import annotations

from typing import Final

from harness.inspect import data
from harness.inspect.data import MAY_BE_DATA, filled, text
from harness.paging.x86.formats import ADDRESS, bits


def said(raw: int, size: int) -> str | None:
    """What a word of `size` bytes that makes no sense as an entry probably is, as a phrase; None
    where it looks like nothing that is known."""
    octets = raw.to_bytes(size, "little")
    return filled(raw, size) or (
        None if size < _LONG else text(octets) or _code(octets) or _address(raw)
    )


_LONG: Final = 8
"""Bytes of a word in which enough stands to tell what it is."""

_CODE: Final = (
    (b"\xf3\x0f\x1e\xfa", "endbr64"),
    (b"\xf3\x0f\x1e\xfb", "endbr32"),
    (b"\x55\x48\x89\xe5", "push %rbp; mov %rsp,%rbp"),
    (b"\x0f\x1f\x44\x00\x00", "nopl 0(%rax,%rax)"),
    (b"\x0f\x1f\x80\x00\x00\x00\x00", "nopl 0(%rax)"),
    (b"\x66\x0f\x1f\x44\x00\x00", "nopw 0(%rax,%rax)"),
    (b"\x66\x2e\x0f\x1f\x84", "cs nopw"),
    (b"\x90\x90\x90\x90", "nop; nop; nop; nop"),
    (b"\xcc\xcc\xcc\xcc", "int3; int3; int3; int3"),
)
"""Instructions of which compilers write many, and which are long enough to be no chance."""


def _code(octets: bytes) -> str | None:
    found = next((name for code, name in _CODE if code in octets), None)
    return f"code, with {found} in it: this is no table" if found else None


_PROCESS: Final = ((0x5500, 0x56FF), (0x7F00, 0x7FFF))
"""Bits 47:32 of the addresses at which Linux puts programs, and their libraries and stacks, in
spaces of 47 bits."""


def _address(raw: int) -> str | None:
    """An address of a process; those of the upper half are found where an entry is read."""
    if any(first <= raw >> 32 <= last for first, last in _PROCESS):
        return f"an address of a process, {raw:#x}: {MAY_BE_DATA}"
    return None


_SMALL: Final = 1 << 16


def numbers(raw: int) -> str | None:
    """That a word is two small numbers of 32 bits."""
    upper, lower = raw >> 32, raw & bits(31, 0)
    if 0 < upper < _SMALL and 0 < lower < _SMALL:
        return (
            f"two numbers of 32 bits, {lower:#x} and {upper:#x}, unless MAXPHYADDR is wider:"
            f" {MAY_BE_DATA}"
        )
    return None


def noise(raw: int, width: int) -> str | None:
    """That a word is no entry at all, where its address has some of the bits, and not all, that no
    memory has: those from `width` on."""
    beyond = bits(51, width)
    if (raw & beyond).bit_count() < _STRAYS or raw & beyond == beyond:
        return None
    needs = (raw & ADDRESS).bit_length()
    return (
        f"no entry at all: its address, {raw & ADDRESS:#x}, needs {needs} bits, more than any"
        " memory, and no slip that is known (a shift, a flipped bit) explains it: data, or a table"
        " that was overwritten"
    )


_STRAYS: Final = 2
"""A single such bit is rather one that was set by mistake."""

_KASAN: Final = 0xDFFF_FC00_0000_0000
"""Where the shadow of address 0 is (KASAN_SHADOW_OFFSET of x86-64)."""


def pointer(address: int, width: int = 64) -> str | None:
    """What a pointer of `width` bits probably is through which an access faulted."""
    return data.pointer(address, width, _KASAN)
