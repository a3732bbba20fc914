"""The formats of POWER's radix trees, as POWER9 and POWER10 take them: 52 bits of address.

Source: Power ISA 3.0, Book III, "Radix Tree Translation", "Page Directory Entry" and "Page Table
Entry".  Bits are numbered here as everywhere in the library, from the lowest; the manual numbers
them from the highest.

Entries lie in memory with the highest byte first.  A directory entry says how large the next table
is; a tree has one size of table at each level, and an entry that says another is malformed.  Only
leaves give rights.  What of addresses lies below a page or a table is ignored.

A tree may lead to page tables of both sizes: each path is then of one of the two formats, and `cpu`
reads the other where a directory entry says so.  What is built has one.
"""

from __future__ import annotations

from functools import cache

from harness.paging.format import (
    Breaking,
    Field,
    Flushing,
    Format,
    Grant,
    Level,
    Pattern,
    Reserved,
    Shape,
    bits,
)

VALID = bits(63)
LEAF = bits(62)
REFERENCE = bits(8)
CHANGE = bits(7)
ATT = bits(5, 4)
PRIVILEGED = bits(3)
READ = bits(2)
WRITE = bits(1)
EXECUTE = bits(0)
NEXT_SIZE = bits(4, 0)

_ABSENT = (Pattern(VALID, 0),)
_PAGE = Pattern(VALID | LEAF, VALID | LEAF)
_TABLE = Pattern(VALID | LEAF, VALID)

_GRANTS = {
    "read": Grant(READ | WRITE),
    "write": Grant(WRITE),
    "execute": Grant(EXECUTE),
    "user": Grant(PRIVILEGED, PRIVILEGED),
}
"""The encoded access authority: that to write brings that to read."""

_FLUSHING = Flushing(leaves_alone=True, breaks=Breaking(ATT))
"""tlbie with RIC=0 is for leaves alone, RIC=2 for what is kept of directories as well.  What an
entry leads to, and as what kind of storage, changes by way of an absent one (Power ISA 3.0, Book
III, "Modifying a Translation Table Entry").  That text was not at hand; Linux does so:

another frame           absent first, and flushed: ptep_clear_flush, in wp_page_copy (mm/memory.c)
authority that is taken in place, then flushed: change_page_attr (arch/powerpc/mm/pageattr.c)
authority that is given needs nothing: radix__ptep_set_access_flags (book3s64/radix_pgtable.c) says
                        that the architecture has the core read the entry again before it denies.
                        Not so the nest MMU of a POWER9, by which accelerators translate: it may
                        hang, and Linux has the entry absent in between.  It is no part of this

Of ATT that changes in place no program was found that does it, or that forbids it."""

_NAMES = {
    **{"V": VALID, "L": LEAF, "R": REFERENCE, "C": CHANGE, "ATT": ATT},
    **{"EAA0": PRIVILEGED, "EAA1": READ, "EAA2": WRITE, "EAA3": EXECUTE},
}


@cache
def radix(page_bits: int) -> Format:
    """The format of a tree whose smallest pages have 4K or 64K: `page_bits` is 12 or 16.

    Larger ones have 2M and 1G.  Raises ValueError for another size.
    """
    if page_bits not in (12, 16):
        raise ValueError(f"the smallest pages have 12 or 16 bits, not {page_bits}")
    lowest = 21 - page_bits
    return Format(
        name=f"POWER radix {1 << page_bits - 10}K",
        entry_bytes=8,
        levels=(
            Level("PTE", page_bits, lowest, (_leaf(page_bits, only=True),), _ABSENT),
            Level("PDE 2M", 21, 9, (_directory(lowest), _leaf(21)), _ABSENT),
            Level("PDE 1G", 30, 9, (_directory(9), _leaf(30)), _ABSENT),
            Level("PDE 512G", 39, 13, (_directory(9, only=True),), _ABSENT),
        ),
        rights={"read": READ, "write": WRITE, "execute": EXECUTE, "user": PRIVILEGED},
        denied=PRIVILEGED,
        accessed=REFERENCE,
        dirty=CHANGE,
        byte_order="big",
        flushing=_FLUSHING,
    )


def _leaf(shift: int, only: bool = False) -> Shape:
    """A page; `only`: an entry can be nothing else, which is so at the lowest level."""
    address = (Field(bits(56, shift)),)
    if only:
        leaf = Reserved(LEAF, "no leaf at the lowest level", value=LEAF)
        names = {name: mask for name, mask in _NAMES.items() if mask != LEAF}  # it tells nothing
        when = Pattern(VALID, VALID)
        return Shape(when, False, address, (leaf,), grants=_GRANTS, bits=names)
    return Shape(_PAGE, False, address, grants=_GRANTS, bits=_NAMES)


def _directory(index_bits: int, only: bool = False) -> Shape:
    """An entry for a table of 1 << index_bits entries; `only`: no page can be so large."""
    size = Reserved(NEXT_SIZE, "a table of another size", value=index_bits)
    no_page = (Reserved(LEAF, "a leaf where no page can be"),) if only else ()
    return Shape(
        Pattern(VALID, VALID) if only else _TABLE,
        True,
        (Field(bits(59, index_bits + 3)),),
        (size, *no_page),
        grants={},
        notes=False,
        bits={"V": VALID, "L": LEAF, "NLS": NEXT_SIZE},
    )
