"""What a word probably is that was never meant as an entry, or as an address: text, code, a number.

The word alone is looked at, so each is a guess for people; well-formed entries are not asked about.
"""

from __future__ import annotations

from typing import Final

from harness.paging.x86.formats import ADDRESS, bits


def said(raw: int, size: int) -> str | None:
    """What a word of `size` bytes that makes no sense as an entry probably is, as a phrase; None
    where it looks like nothing that is known."""
    octets = raw.to_bytes(size, "little")
    return filled(raw, size) or (
        None if size < _LONG else _text(octets) or _code(octets) or _address(raw)
    )


_LONG: Final = 8
"""Bytes of a word in which enough stands to tell what it is."""

_MAY_BE_DATA: Final = "this may be data and no table"


def filled(raw: int, size: int) -> str | None:
    """What a word of one byte again and again is, as memory is filled by those who look for its
    misuse, and as memory reads that is not there; of zeros there is nothing to say."""
    octet = raw & 0xFF
    if not octet or raw != int.from_bytes(bytes([octet]) * size):
        return None
    if octet == 0xFF:
        return (
            "all ones: memory that is not there reads so, a device that does not answer, and flash"
            " that was erased; or zeros that were inverted"
        )
    who = f", with which Linux fills {_FILLERS[octet]}" if octet in _FILLERS else ""
    return f"the byte {octet:#04x} throughout{who}: {_MAY_BE_DATA}"


_FILLERS: Final = {
    0x5A: "an object that was allocated and not written yet (POISON_INUSE)",
    0x6B: "an object that was freed (POISON_FREE)",
    0xA5: "the end of an object (POISON_END)",
    0xAA: "a page that was freed (PAGE_POISON)",
    0xBB: "what is beside an object that was freed (SLUB_RED_INACTIVE)",
    0xCC: "what is beside an object (SLUB_RED_ACTIVE), and its __init memory when that is freed",
}
"""What Linux fills with a byte: include/linux/poison.h."""

_LETTERS: Final = 5
"""So many letters, at least, are the end of a text."""


def _text(octets: bytes) -> str | None:
    """Letters throughout, or the last of a text, with nothing but zeros behind them."""
    letters = octets.rstrip(b"\0")
    if len(letters) < _LETTERS or not all(0x20 <= octet < 0x7F for octet in letters):
        return None
    return f"the letters {letters.decode()!r}: text was written over the table"


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
        return f"an address of a process, {raw:#x}: {_MAY_BE_DATA}"
    return None


_SMALL: Final = 1 << 16


def numbers(raw: int) -> str | None:
    """That a word is two small numbers of 32 bits."""
    upper, lower = raw >> 32, raw & bits(31, 0)
    if 0 < upper < _SMALL and 0 < lower < _SMALL:
        return (
            f"two numbers of 32 bits, {lower:#x} and {upper:#x}, unless MAXPHYADDR is wider:"
            f" {_MAY_BE_DATA}"
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


# ---- addresses that an access was to ----

_NULL: Final = 0x1000
"""Below: a null pointer and a member's offset."""

_ERRORS: Final = 4095
"""So many addresses, the last ones, are error codes that Linux keeps in pointers
(include/linux/err.h)."""

_POISON: Final = 0xDEAD_0000_0000_0000
_POISONS: Final = ((0x122, "LIST_POISON2"), (0x100, "LIST_POISON1"))
"""What Linux leaves in list entries that were removed (include/linux/poison.h), of 64 bits."""

_KASAN: Final = 0xDFFF_FC00_0000_0000
"""Where the shadow of address 0 is (KASAN_SHADOW_OFFSET of x86-64): a byte of it for 8 bytes."""


def pointer(address: int, width: int = 64) -> str | None:
    """What a pointer of `width` bits through which an access faulted probably is, as a phrase; None
    where it looks like nothing that is known."""
    if address < _NULL:
        return "a null pointer" + (f", with a member's offset of {address:#x}" if address else "")
    if (number := address - (1 << width)) >= -_ERRORS:
        return f"an error code in place of a pointer, {number}"
    if 0 <= address - _POISON < _NULL:
        for offset, name in _POISONS:
            if (beyond := address - _POISON - offset) >= 0:
                more = f" + {beyond:#x}" if beyond else ""
                return f"a pointer of a list entry that was removed ({name}{more}, of Linux)"
        return "a pointer that Linux made invalid (POISON_POINTER_DELTA)"
    for octet, what in _FILLERS.items():
        word = int.from_bytes(bytes([octet]) * (width // 8))
        if abs(address - word) < _NULL:
            return f"the byte {octet:#04x} throughout, with which Linux fills {what}"
    if 0 <= address - _KASAN < _NULL:
        return f"the shadow that KASAN keeps of {(address - _KASAN) << 3:#x}: a null pointer"
    return _letters(address.to_bytes(8, "little"))


def _letters(octets: bytes) -> str | None:
    if not all(0x20 <= octet < 0x7F for octet in octets):
        return None
    return f"the letters {octets.decode()!r}: text was written over a pointer"
