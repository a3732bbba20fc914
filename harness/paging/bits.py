"""What the bits of raw entries say, many entries at once, and how attributes change.

Attributes are the bits of a leaf besides its address and what makes it a leaf: rights, memory
type, accessed and dirty, and the software's own.
"""

from __future__ import annotations

from functools import lru_cache, reduce
from operator import or_
from typing import overload

import numpy as np

from harness.paging import bulk
from harness.paging.bulk import Bytes, End
from harness.paging.format import Format, Shape
from harness.paging.memory import Mask, Words


class Kind:
    """The kinds of `Entry`, for arrays of uint8."""

    ABSENT = np.uint8(End.ABSENT)
    POINTER = np.uint8(bulk.POINTER)
    LEAF = np.uint8(End.LEAF)
    MALFORMED = np.uint8(End.MALFORMED)


def kinds(format: Format, level: int, raw: Words) -> Bytes:
    """The `Kind` of each entry at `level`, shape (n,): `Format.decode` for arrays."""
    return bulk.kinds(format, level, raw)


def offending_bits(format: Format, level: int, raw: Words) -> Words:
    """The bits for which present entries are malformed, 0 where they are not, shape (n,)."""
    here = format.levels[level]
    *first, last = here.shapes
    found = _offending(last, raw)
    for shape in reversed(first):
        found = np.where(bulk.matches(shape.when, raw), _offending(shape, raw), found)
    return found


def _offending(shape: Shape, raw: Words) -> Words:
    """`Shape.offending` for arrays."""
    found = (raw ^ np.uint64(shape.clean.value)) & np.uint64(shape.reserved_mask)
    for pattern, _ in shape.forbidden:
        found |= bulk.matches(pattern, raw) * np.uint64(pattern.mask)
    return found


@overload
def withheld(format: Format, raw: int, rights: int) -> int: ...
@overload
def withheld(format: Format, raw: Words, rights: int) -> Words: ...
def withheld(format: Format, raw: int | Words, rights: int) -> int | Words:
    """The entry or entries without the given rights, a mask of bits of `format.rights`."""
    denied = rights & format.denied
    if isinstance(raw, int):
        return raw & ~rights | denied
    return raw & ~np.uint64(rights) | np.uint64(denied)


@lru_cache
def address_mask(format: Format, level: int) -> int:
    """The bits of a leaf at `level` that hold its address."""
    leaf = format.levels[level].leaf
    return leaf.address_mask if leaf else 0


@lru_cache
def structure_mask(format: Format, level: int) -> int:
    """The bits that make an entry at `level` a leaf; a pointer where there are no leaves."""
    here = format.levels[level]
    return (here.leaf or here.shapes[-1]).when.mask


def attributes(format: Format, level: int, raw: int) -> int:
    """What a leaf holds besides its address: what `format.leaf` was given to make it."""
    return _attributes(format.levels[level].leaf, raw)


def pointer_attributes(format: Format, level: int, raw: int) -> int:
    """What a pointer holds besides its address: what `format.pointer` was given to make it."""
    return _attributes(format.levels[level].pointer, raw)


def _attributes(shape: Shape | None, raw: int) -> int:
    return raw & ~(shape.address_mask | shape.when.mask) if shape else raw


def carried(format: Format, bits: int, source: int, target: int) -> int:
    """The attributes `bits` of a leaf at level `source`, as a leaf at level `target` has them.

    A bit that the format names moves to where that name is in the other level; one that it
    does not name is the software's and stays.  ValueError where a name is not known there.
    """
    here, there = format.levels[source], format.levels[target]
    moved = bits & ~reduce(or_, here.bits.values(), 0)
    for name, mask in here.bits.items():
        if not bits & mask:
            continue
        if name not in there.bits:
            raise ValueError(f"a {there.name} has no {name}, which the {here.name} sets")
        moved |= (bits & mask) // _lowest(mask) * _lowest(there.bits[name])
    return moved


@lru_cache
def read_by_machine(format: Format, level: int) -> int:
    """The bits at `level` that the machine reads, in a leaf or in a pointer; the others are the
    software's."""
    return _read_in_leaf(format, level) | _read_in_pointer(format, level)


def stale(format: Format, level: int, before: Words, after: Words) -> Mask:
    """Where the machine may go on using `before`, which says what `after` does not.

    Not where it was absent or malformed, which no machine keeps, nor where it only gains: a
    right newly given, an accessed or dirty bit newly set, is looked up when it is missed.  A
    right that is exclusive is no mere gain (SDM volume 3A, 4.10.4.3), and a shadow stack that
    becomes an ordinary page, which grants writing, is one no longer (4.6.1).
    """
    found = kinds(format, level, before)
    inclusive = np.uint64(format.rights_mask & ~format.exclusive)
    gains = (after ^ np.uint64(format.denied)) & inclusive
    gains |= after & np.uint64(format.accessed | format.dirty)
    changed = before ^ after
    given = changed & after & np.uint64(format.shadow)
    if given.any():
        dirty = (found == Kind.LEAF) & (before & np.uint64(format.dirty) != 0)
        gains &= ~(dirty * given)
    lost = changed & ~gains
    narrowed: Mask = (found == Kind.LEAF) & (lost & np.uint64(_read_in_leaf(format, level)) != 0)
    if level:
        read = np.uint64(_read_in_pointer(format, level))
        narrowed |= (found == Kind.POINTER) & (lost & read != 0)
    return narrowed


@lru_cache
def _read_in_leaf(format: Format, level: int) -> int:
    """The bits of a leaf that the machine reads; reserved ones too, which end a translation."""
    return _read_in(format, level, format.levels[level].leaf)


@lru_cache
def _read_in_pointer(format: Format, level: int) -> int:
    """The same of a pointer, in which it ignores what is said of pages alone."""
    read = _read_in(format, level, format.levels[level].pointer)
    return read & ~(format.leaf_only | format.dirty | format.lasting)


def _read_in(format: Format, level: int, shape: Shape | None) -> int:
    if shape is None:
        return 0
    here = format.levels[level]
    named = reduce(or_, here.bits.values(), 0) | here.presence | here.telling
    named |= format.rights_mask | format.accessed | format.dirty
    return named | shape.address_mask | shape.reserved_mask


def _lowest(mask: int) -> int:
    return mask & -mask
