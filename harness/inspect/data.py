"""What a word probably is that was never meant as an entry, or as an address: text, or poison.

The word alone is looked at, so each is a guess for people; well-formed entries are not asked about.
"""

from __future__ import annotations

from typing import Final

from harness.paging.memory import Order

MAY_BE_DATA: Final = "this may be data and no table"


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
    return f"the byte {octet:#04x} throughout{who}: {MAY_BE_DATA}"


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


def text(octets: bytes) -> str | None:
    """Letters throughout, or the last of a text, with nothing but zeros behind them."""
    letters = octets.rstrip(b"\0")
    if len(letters) < _LETTERS or not all(0x20 <= octet < 0x7F for octet in letters):
        return None
    return f"the letters {letters.decode()!r}: text was written over the table"


def likely(raw: int, size: int, order: Order) -> str | None:
    """What a word of so many bytes, which lie in memory in this order, probably is."""
    return filled(raw, size) or text(raw.to_bytes(size, order))


# ---- addresses that an access was to ----

_NULL: Final = 0x1000
"""Below: a null pointer and a member's offset."""

_ERRORS: Final = 4095
"""So many addresses, the last ones, are error codes that Linux keeps in pointers
(include/linux/err.h)."""

_POISON: Final = 0xDEAD_0000_0000_0000
_POISONS: Final = ((0x122, "LIST_POISON2"), (0x100, "LIST_POISON1"))
"""What Linux leaves in list entries that were removed (include/linux/poison.h), of 64 bits."""


def pointer(address: int, width: int, shadow: int, order: Order = "little") -> str | None:
    """What a pointer of `width` bits through which an access faulted probably is, as a phrase; None
    where it looks like nothing that is known.

    shadow  where the shadow of address 0 is (KASAN_SHADOW_OFFSET), a byte of it for 8 bytes
    order   in which the bytes of a pointer lie in memory
    """
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
    if 0 <= address - shadow < _NULL:
        return f"the shadow that KASAN keeps of {(address - shadow) << 3:#x}: a null pointer"
    return _letters(address.to_bytes(8, order))


def _letters(octets: bytes) -> str | None:
    if not all(0x20 <= octet < 0x7F for octet in octets):
        return None
    return f"the letters {octets.decode()!r}: text was written over a pointer"
