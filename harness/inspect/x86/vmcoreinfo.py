"""What x86's Linux says of itself to those who read its memory: where its own tables are, and how
memory is encrypted.

Source: Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst, "x86_64" and "x86_32".
"""

from __future__ import annotations

from typing import Final

from harness.inspect.sources.vmcoreinfo import told
from harness.paging.x86.cpu import MARKS, Cr4

KERNEL_64: Final = 0xFFFF_FFFF_8000_0000
"""Where a 64-bit kernel's image is mapped before it is moved (__START_KERNEL_map)."""

KERNEL_32: Final = 0xC000_0000
"""Where a 32-bit kernel has physical address 0, as it is usually configured (PAGE_OFFSET)."""

_WORD: Final = (1 << 64) - 1


def registers(text: bytes, x86_64: bool) -> dict[str, int]:
    """CR3 and CR4 of a processor that uses the kernel's own tables, as far as it is told; what it
    has of encryption is in `encryption`."""
    numbers = told(text)
    root = numbers.get(b"SYMBOL(swapper_pg_dir)", numbers.get(b"SYMBOL(init_top_pgt)"))
    found = {}
    if x86_64:
        if root is not None and b"NUMBER(phys_base)" in numbers:
            found["cr3"] = root - KERNEL_64 + numbers[b"NUMBER(phys_base)"] & _WORD
        if b"NUMBER(pgtable_l5_enabled)" in numbers:
            five = Cr4.LA57 if numbers[b"NUMBER(pgtable_l5_enabled)"] else 0
            found["cr4"] = Cr4.PAE | five
    elif root is not None:
        found["cr3"] = root - KERNEL_32 & _WORD
        found["cr4"] = Cr4.PSE | (Cr4.PAE if b"CONFIG_X86_PAE=y" in text else 0)
    return found


def encryption(text: bytes) -> tuple[int | None, str | None]:
    """The bit of an entry that says that its page is encrypted, None where none does; and a
    sentence where what is said can be no such bit."""
    mask = told(text).get(b"NUMBER(sme_mask)", 0)
    bit = mask.bit_length() - 1
    if not mask:
        return None, None
    if mask == 1 << bit and bit in MARKS:
        return bit, None
    return None, (
        f"The sme_mask of VMCOREINFO, {mask:#x}, is no bit that can mark encrypted memory, and is"
        f" not used: that is one of {MARKS[0]} to {MARKS[-1]} (--c-bit)"
    )


def is_x86_64(text: bytes) -> bool:
    """Whether a 64-bit kernel wrote it, which alone says where it was moved to."""
    return b"NUMBER(phys_base)" in told(text)
