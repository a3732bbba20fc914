"""VMCOREINFO: what Linux says of itself to those who read its memory.

Lines of text in a note of a core: where things are and how large (Linux,
Documentation/admin-guide/kdump/vmcoreinfo.rst). Here, what tells the state of a processor that
uses the kernel's own tables.
"""

from __future__ import annotations

import re
from typing import Final

from harness.paging.x86.cpu import Cr4

NOTE: Final = b"VMCOREINFO"
"""The name of the note."""

KERNEL_64: Final = 0xFFFF_FFFF_8000_0000
"""Where a 64-bit kernel's image is mapped before it is moved (__START_KERNEL_map)."""

KERNEL_32: Final = 0xC000_0000
"""Where a 32-bit kernel has physical address 0, as it is usually configured (PAGE_OFFSET)."""

_WORD: Final = (1 << 64) - 1
_LINE: Final = re.compile(rb"^(SYMBOL|NUMBER)\((\w+)\)=(-?[0-9a-fA-F]{1,20})$", re.MULTILINE)
_BASES: Final = {b"SYMBOL": 16, b"NUMBER": 10}


def registers(text: bytes, x86_64: bool) -> dict[str, int]:
    """CR3 and CR4 of a processor that uses the kernel's own tables, as far as it is told; what it
    has of encryption is in `encryption`."""
    told = _told(text)
    root = told.get(b"SYMBOL(swapper_pg_dir)", told.get(b"SYMBOL(init_top_pgt)"))
    found = {}
    if x86_64:
        if root is not None and b"NUMBER(phys_base)" in told:
            found["cr3"] = root - KERNEL_64 + told[b"NUMBER(phys_base)"] & _WORD
        if b"NUMBER(pgtable_l5_enabled)" in told:
            five = Cr4.LA57 if told[b"NUMBER(pgtable_l5_enabled)"] else 0
            found["cr4"] = Cr4.PAE | five
    elif root is not None:
        found["cr3"] = root - KERNEL_32 & _WORD
        found["cr4"] = Cr4.PSE | (Cr4.PAE if b"CONFIG_X86_PAE=y" in text else 0)
    return found


def encryption(text: bytes) -> int:
    """The bit of an entry that says that its page is encrypted, as a mask: 0 where none does."""
    return _told(text).get(b"NUMBER(sme_mask)", 0) & _WORD


def _told(text: bytes) -> dict[bytes, int]:
    """The numbers in it, by how they are called."""
    found = {}
    for kind, name, digits in _LINE.findall(text):
        try:
            found[kind + b"(" + name + b")"] = int(digits, _BASES[kind])
        except ValueError:
            continue
    return found
