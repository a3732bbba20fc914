"""What the bits of raw entries say, many entries at once, and how attributes change.

Attributes are the bits of a leaf besides its address and what makes it a leaf: rights, memory
type, accessed and dirty, and the software's own.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def pointing(format: Format, level: int, raw: Words) -> Mask:
    """Which entries at `level` are present and pointers, well-formed or not, shape (n,):
    `Level.is_pointer` for arrays."""
    here = format.levels[level]
    *first, last = here.shapes
    found: Mask = np.full(len(raw), last.points)
    for shape in reversed(first):
        found = np.where(bulk.matches(shape.when, raw), shape.points, found)
    for pattern in here.absent:
        found &= ~bulk.matches(pattern, raw)
    return found


def offending_bits(format: Format, level: int, raw: Words) -> Words:
    """The bits for which entries that are present, or reserved, are malformed, 0 where they are
    not, shape (n,)."""
    here = format.levels[level]
    *first, last = here.shapes
    found = _offending(last, raw)
    for shape in reversed(first):
        found = np.where(bulk.matches(shape.when, raw), _offending(shape, raw), found)
    for pattern, _ in here.reserved:
        found = np.where(bulk.matches(pattern, raw), np.uint64(pattern.mask), found)
    return found


def _offending(shape: Shape, raw: Words) -> Words:
    """`Shape.offending` for arrays."""
    found = (raw ^ np.uint64(shape.clean.value)) & np.uint64(shape.reserved_mask)
    for pattern, _ in shape.forbidden:
        found |= bulk.matches(pattern, raw) * np.uint64(pattern.mask)
    return found


@overload
def withheld(format: Format, level: int, raw: int, rights: int) -> int: ...
@overload
def withheld(format: Format, level: int, raw: Words, rights: int) -> Words: ...
def withheld(format: Format, level: int, raw: int | Words, rights: int) -> int | Words:
    """The entry or entries at `level` without the given rights, a mask of bits of `format.rights`.

    Rights in which an entry takes no part cannot be withheld by it, and are not.
    """
    here = format.levels[level]
    if isinstance(raw, int):
        cleared, added = _withholding(format, here.shape(raw), rights)
        return raw & ~cleared | added
    *first, last = here.shapes
    found = _without(format, last, raw, rights)
    if not here.grants_alike:
        for shape in reversed(first):
            chosen = bulk.matches(shape.when, raw)
            found = np.where(chosen, _without(format, shape, raw, rights), found)
    return found


def _without(format: Format, shape: Shape, raw: Words, rights: int) -> Words:
    """The same where all entries are read in one shape."""
    cleared, added = _withholding(format, shape, rights)
    return raw & ~np.uint64(cleared) | np.uint64(added)


def _withholding(format: Format, shape: Shape, rights: int) -> tuple[int, int]:
    """The bits to clear in entries of a shape, and those to set then, to withhold rights."""
    if shape.grants is None:
        return rights, rights & format.denied
    parts = [one for name, one in shape.grants.items() if format.rights[name] & rights]
    return _union(one.mask for one in parts), _union(one.inverted for one in parts)


@lru_cache
def rights_bits(format: Format) -> int:
    """The bits by which a leaf at level 0 gives and withholds rights."""
    leaf = format.levels[0].leaf
    if leaf is None or leaf.grants is None:
        return format.rights_mask
    return _union(one.mask for one in leaf.grants.values())


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
    here = format.levels[level]
    shape = here.matching(raw) if here.groups else here.leaf
    return _attributes(shape, raw)


def pointer_attributes(format: Format, level: int, raw: int) -> int:
    """What a pointer holds besides its address: what `format.pointer` was given to make it."""
    return _attributes(format.levels[level].pointer, raw)


def _attributes(shape: Shape | None, raw: int) -> int:
    """Of what is reserved, bits that must be set tell the shape as well, and go with it."""
    return raw & ~(shape.address_mask | shape.when.mask | shape.clean.value) if shape else raw


def grouped(format: Format, level: int, raw: Words) -> Mask:
    """Which entries are leaves larger than their slot, so that its neighbours hold them as well."""
    found = np.zeros(len(raw), np.bool_)
    for shape in format.levels[level].groups:
        found |= bulk.matches(shape.when, raw)
    if found.any():
        found &= kinds(format, level, raw) == Kind.LEAF
    return found


def ungrouped(format: Format, level: int, raw: Words, addresses: Words) -> Words:
    """The entries at `level` that span `addresses`, with leaves as large as their slot in place of
    larger ones: the same translations with the same attributes."""
    here = format.levels[level]
    chosen = grouped(format, level, raw)
    if not chosen.any():
        return raw
    assert here.leaf is not None
    frames = bulk.physical_of(here, raw, addresses)
    found = raw.copy()
    for shape in here.groups:
        of_it = chosen & bulk.matches(shape.when, raw)
        plain = raw & ~np.uint64(shape.address_mask | shape.clean.mask)
        plain |= np.uint64(here.leaf.clean.value)
        for mask, shift in here.leaf.address:
            plain |= frames >> np.uint64(shift) & np.uint64(mask)
        found[of_it] = plain[of_it]
    return found


def carried(format: Format, bits: int, source: int, target: int) -> int:
    """The attributes `bits` of a leaf at level `source`, as a leaf at level `target` has them.

    A bit that the format names moves to where that name is in the other level; one that it
    does not name is the software's and stays.  ValueError where a name is not known there.
    """
    here, there = format.levels[source], format.levels[target]
    moved = bits & ~_union(here.page_bits.values())
    for name, mask in here.page_bits.items():
        if not bits & mask:
            continue
        if name not in there.page_bits:
            raise ValueError(f"a {there.name} has no {name}, which the {here.name} sets")
        moved |= (bits & mask) // _lowest(mask) * _lowest(there.page_bits[name])
    return moved


@lru_cache
def read_by_machine(format: Format, level: int) -> int:
    """The bits at `level` that the machine reads, in a leaf or in a pointer; the others are the
    software's."""
    return _read_in_leaf(format, level) | _read_in_pointer(format, level)


def stale(format: Format, level: int, before: Words, after: Words) -> Mask:
    """Where the machine may go on using `before`, which says what `after` does not.

    What it keeps is for `format.flushing` to say.  Where it keeps no more than it must: not where
    it was absent or malformed, nor where it only gains: a right newly given, an accessed or dirty
    bit newly set, is looked up when it is missed.  A right that is exclusive is no mere gain (SDM
    volume 3A, 4.10.4.3), and a shadow stack that becomes an ordinary page, which grants writing,
    is one no longer (4.6.1).  What must be absent in between (`breaks`) must be flushed then.
    """
    rules = format.flushing
    assert rules is not None
    here, found, changed = format.levels[level], kinds(format, level, before), before ^ after
    narrowed: Mask = np.zeros(len(before), np.bool_)
    if here.leaf:
        lost = changed & ~_leaf_gains(format, here.leaf, before, after)
        narrowed |= (found == Kind.LEAF) & (lost & np.uint64(_read_in_leaf(format, level)) != 0)
    if here.pointer:
        lost = changed & ~_gains(format, here.pointer, after)
        read = np.uint64(_read_in_pointer(format, level))
        narrowed |= (found == Kind.POINTER) & (lost & read != 0)
    if rules.faults:
        read = np.uint64(read_by_machine(format, level))
        narrowed |= (found == Kind.MALFORMED) & (changed & read != 0)
    if rules.absent and (absent := found == Kind.ABSENT).any():
        narrowed |= absent & (kinds(format, level, after) != Kind.ABSENT)
    return narrowed | breaks(format, level, before, after) if rules.breaks else narrowed


def breaks(format: Format, level: int, before: Words, after: Words) -> Mask:
    """Where `before` leads somewhere, so that it must be absent, and flushed, before anything else
    that leads somewhere may be there, `after` or what comes once that is absent."""
    rules = format.flushing
    if rules is None or rules.breaks is None:
        return np.zeros(len(before), np.bool_)
    found, then = kinds(format, level, before), kinds(format, level, after)
    changed, alike = before ^ after, found == then
    same: Mask = alike & (found == Kind.POINTER)
    if pointer := format.levels[level].pointer:
        fixed = pointer.address_mask | rules.breaks.tables & _read_in_pointer(format, level)
        same &= changed & np.uint64(fixed) == 0
    same |= alike & (found == Kind.LEAF) & ~_leaf_breaks(format, level, before, after)
    leads: Mask = (found == Kind.POINTER) | (found == Kind.LEAF)
    return leads & ~same


def _leaf_breaks(format: Format, level: int, before: Words, after: Words) -> Mask:
    """The same where both are leaves."""
    rules = format.flushing
    assert rules is not None and rules.breaks is not None
    changed, in_leaf = before ^ after, _read_in_leaf(format, level)
    fixed = rules.breaks.bits & in_leaf | address_mask(format, level)
    lasts = before & ~after & np.uint64(format.fleeting)
    joined: Mask = (before | after) & np.uint64(rules.breaks.joined) != 0
    read: Mask = changed & np.uint64(in_leaf) != 0
    found: Mask = (changed & np.uint64(fixed) | lasts) != 0
    return found | (joined & read)


def _gains(format: Format, shape: Shape, after: Words) -> Words:
    """The bits of entries of a shape that only give something which is looked up when it is missed,
    if they come to be as in `after`: other shapes have other things in the same bits."""
    rules = format.flushing
    assert rules is not None
    marks = format.accessed | (0 if shape.points else format.dirty)
    gains: Words = after & np.uint64(0 if rules.faults or not shape.notes else marks)
    if rules.denials:
        return gains
    given = format.rights_mask & ~format.exclusive
    places, denied = _withholding(format, shape, given)
    return gains | (after ^ np.uint64(denied)) & np.uint64(places)


def _leaf_gains(format: Format, shape: Shape, before: Words, after: Words) -> Words:
    """The same of leaves: a shadow stack is one no longer once it may be written."""
    gains, shadow = _gains(format, shape, after), np.uint64(format.shadow)
    return gains & ~np.where(before & np.uint64(format.dirty) != 0, shadow, np.uint64(0))


@lru_cache
def _read_in_leaf(format: Format, level: int) -> int:
    """The bits of a leaf that the machine reads; reserved ones too, which end a translation."""
    return _union(_read_in(format, level, shape) for shape in format.levels[level].pages)


@lru_cache
def _read_in_pointer(format: Format, level: int) -> int:
    """The same of a pointer, in which it ignores what is said of pages alone."""
    pointer = format.levels[level].pointer
    return _read_in(format, level, pointer) if pointer else 0


def _read_in(format: Format, level: int, shape: Shape) -> int:
    here, rules = format.levels[level], format.flushing
    read = _union(shape.bits.values()) & ~shape.ignored
    if shape.points:
        lasts = rules is not None and rules.lasting_tables
        read &= ~(format.dirty | (0 if lasts else format.lasting))
    else:
        read |= format.dirty
    if shape.grants is None:
        read |= format.rights_mask
    else:
        read |= _union(one.mask for one in shape.grants.values())
    read |= format.accessed if shape.notes else 0
    read |= shape.address_mask | shape.reserved_mask | here.presence | here.telling
    return read | _union(pattern.mask for pattern, _ in shape.forbidden)


def _lowest(mask: int) -> int:
    return mask & -mask


def _union(masks: Iterable[int]) -> int:
    return reduce(or_, masks, 0)
