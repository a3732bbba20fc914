"""What a format of page tables is: geometry and masks as data; decode and encode once for all.

A format is constants.  Whatever of it depends on CPU state (the width of physical
addresses, whether execution can be disabled) is settled when the format is made, so that a
decoder sees masks only.  `x86.formats` shows what a complete one looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, reduce
from operator import or_
from typing import NamedTuple

import numpy as np

from harness.paging.address import Physical
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.memory import Mask, Order, Words
from harness.paging.table import Table


def bits(high: int, low: int | None = None) -> int:
    """The mask of bits high:low, as manuals write them."""
    low = high if low is None else low
    return (1 << high + 1) - (1 << low)


class Pattern(NamedTuple):
    """Matches a raw entry whose bits under `mask` are `value`."""

    mask: int
    value: int

    def matches(self, raw: int) -> bool:
        return raw & self.mask == self.value


class Field(NamedTuple):
    """Entry bits that hold a part of an address: the bits under `mask`, moved left by `shift`."""

    mask: int
    shift: int = 0


class Reserved(NamedTuple):
    """Bits that must be clear, or be `value`, and why."""

    mask: int
    reason: str
    value: int = 0

    def __str__(self) -> str:
        wrongly_set = self.mask & ~self.value
        return f"{wrongly_set:#x} {self.reason}" if wrongly_set else self.reason


class Forbidden(NamedTuple):
    """Bits that may each be set and clear, but not all together as in `pattern`, and why."""

    pattern: Pattern
    reason: str


class Bounds(NamedTuple):
    """Where a pointer says which part of its table is there: the bits under `first` and `last`
    number the first and the last of equal parts, of which a table has as many as they can tell.

    Slots before and after are not there, whatever memory holds at their addresses.
    """

    first: int
    last: int

    def slots(self, raw: int, entries: int) -> range:
        """The slots of a table of so many entries that a raw pointer says are there."""
        part = entries >> self.last.bit_count()
        first, last = _number(self.first, raw), _number(self.last, raw)
        return range(first * part, (last + 1) * part)


class Grant(NamedTuple):
    """Where a shape keeps a right: any of the bits under `mask` gives it by being set, those under
    `inverted` by being clear."""

    mask: int
    inverted: int = 0

    def gives(self, raw: int) -> bool:
        """Whether the raw entry gives the right."""
        return bool((raw ^ self.inverted) & self.mask)


@dataclass(frozen=True)
class Shape:
    """One way to read a present entry, as a pointer or as a leaf: a table of the manual.

    when       which entries are read so
    points     whether it leads to a table, not to a page
    address    where its address stands
    reserved   bits that must be as they are said to be
    forbidden  what else no entry of this shape may hold
    grants     where it keeps the rights that it gives or withholds, by name; those left out take
               no part.  None: all rights, at their own bits of `Format.rights`
    size       log2 of the bytes of its page, None where that is what its slot spans
    bounds     where a pointer says how much of its table is there, None where all of it is
    notes      whether accesses that use it are noted in it
    bits       names of its bits and fields, to their masks
    ignored    those of them that the machine ignores here
    """

    when: Pattern
    points: bool
    address: tuple[Field, ...]
    reserved: tuple[Reserved, ...] = ()
    forbidden: tuple[Forbidden, ...] = ()
    grants: Mapping[str, Grant] | None = field(default=None, hash=False)
    size: int | None = None
    bounds: Bounds | None = None
    notes: bool = True
    bits: Mapping[str, int] = field(default_factory=dict, hash=False)
    ignored: int = 0

    @cached_property
    def address_mask(self) -> int:
        """The bits that hold the address."""
        return _union(field.mask for field in self.address)

    @cached_property
    def reserved_mask(self) -> int:
        """The bits that must be as `reserved` says."""
        return _union(part.mask for part in self.reserved)

    @cached_property
    def clean(self) -> Pattern:
        """The entries that are read so and have every reserved bit as it must be."""
        required = _union(part.value for part in self.reserved)
        return Pattern(self.when.mask | self.reserved_mask, self.when.value | required)

    @cached_property
    def taken(self) -> int:
        """The bits that the address, and what makes an entry one of this shape, leave no choice."""
        return self.address_mask | self.clean.mask

    def offending(self, raw: int) -> int:
        """The bits for which an entry of this shape is malformed, 0 where it is not."""
        wrong = (raw ^ self.clean.value) & self.reserved_mask
        for pattern, _ in self.forbidden:
            if pattern.matches(raw):
                wrong |= pattern.mask
        return wrong

    def address_of(self, raw: int) -> Physical:
        """The physical address that a raw entry holds."""
        address = 0
        for mask, shift in self.address:
            address |= (raw & mask) << shift
        return Physical(address)

    def encode(self, address: int) -> int:
        """The raw bits that hold `address`; ValueError where they cannot."""
        raw = 0
        for mask, shift in self.address:
            raw |= address >> shift & mask
        if self.address_of(raw) != address:
            raise ValueError(f"no entry of this kind can hold physical address {address:#x}")
        return raw


@dataclass(frozen=True)
class Level:
    """What the entries of the tables at one level look like.

    An entry is absent where a pattern says so; else it has the first of the shapes whose pattern
    it matches; one that matches none is malformed.

    name        the format's own word for such an entry
    shift       log2 of the bytes that one entry spans
    index_bits  log2 of the entries in a table
    shapes      how entries are read; at most one of them points, and of those that do not one is
                as large as its slot
    absent      the entries that hold nothing for the hardware
    empty       the entry of a new table, which is absent
    reserved    absent entries that are no software's either: the manual reserves them, and why
    aside       entries that another format reads: in this one they are absent, whatever their shape
    """

    name: str
    shift: int
    index_bits: int
    shapes: tuple[Shape, ...]
    absent: tuple[Pattern, ...]
    empty: int = 0
    reserved: tuple[Forbidden, ...] = ()
    aside: tuple[Pattern, ...] = ()

    @property
    def size(self) -> int:
        """Bytes that one entry spans."""
        return 1 << self.shift

    @property
    def entries(self) -> int:
        """Entries in a table."""
        return 1 << self.index_bits

    def index(self, address: int) -> int:
        """Which entry of a table at this level `address` uses."""
        return address >> self.shift & (1 << self.index_bits) - 1

    @cached_property
    def pointer(self) -> Shape | None:
        """How to read a pointer, None where there can be none."""
        return next((shape for shape in self.shapes if shape.points), None)

    @cached_property
    def leaf(self) -> Shape | None:
        """How to read a leaf as large as its slot, None where there can be none."""
        whole = (None, self.shift)
        pages = (shape for shape in self.shapes if not shape.points and shape.size in whole)
        return next(pages, None)

    @cached_property
    def pages(self) -> tuple[Shape, ...]:
        """How to read leaves of all sizes."""
        return tuple(shape for shape in self.shapes if not shape.points)

    @cached_property
    def groups(self) -> tuple[Shape, ...]:
        """How to read leaves larger than their slot: all slots of such a page hold it."""
        return tuple(shape for shape in self.pages if self.page_size(shape) > self.size)

    @cached_property
    def bits(self) -> Mapping[str, int]:
        """Names of single bits and fields of the entries at this level, to their masks."""
        return _named((*self.pages, *self.shapes))

    @cached_property
    def page_bits(self) -> Mapping[str, int]:
        """The same of the leaves alone, where there are any: what a pointer has a name for may be
        other bits of theirs."""
        return _named(self.pages or self.shapes)

    @cached_property
    def grants(self) -> bool:
        """Whether its entries give and withhold rights; those of PAE's PDPTEs do not."""
        return any(shape.grants != {} for shape in self.shapes)

    @cached_property
    def grants_alike(self) -> bool:
        """Whether entries of all shapes keep their rights in the same places."""
        return all(shape.grants == self.shapes[0].grants for shape in self.shapes)

    @cached_property
    def telling(self) -> int:
        """The bits that tell which shape an entry has."""
        return _union(shape.when.mask for shape in self.shapes)

    @cached_property
    def presence(self) -> int:
        """The bits that tell whether an entry is absent."""
        return _union(pattern.mask for pattern in self.absent)

    @cached_property
    def contested(self) -> int:
        """The bits of a leaf by whose change it can become malformed, or a pointer."""
        odd = _union(part.pattern.mask for shape in self.pages for part in shape.forbidden)
        fixed = _union(shape.when.mask for shape in self.pages)
        return odd | self.telling & ~fixed

    @cached_property
    def earlier(self) -> tuple[tuple[Pattern, ...], ...]:
        """For each shape, the patterns of those before it that entries of its own can match."""
        whens = [shape.when for shape in self.shapes]
        return tuple(
            tuple(one for one in whens[:number] if _overlap(one, when))
            for number, when in enumerate(whens)
        )

    def filled(self, raw: Words) -> Mask:
        """Which entries are not as in a new table, shape (n,): something was put there, if only by
        software."""
        found: Mask = raw != np.uint64(self.empty)
        return found

    def emptied(self, raw: Words) -> Words:
        """As many entries as are given, as in a new table."""
        return np.full(len(raw), self.empty, np.uint64)

    def is_absent(self, raw: int) -> bool:
        """Whether the raw entry holds nothing for the hardware."""
        return any(pattern.matches(raw) for pattern in self.absent)

    def page_size(self, shape: Shape) -> int:
        """Bytes of a page of that shape."""
        return self.size if shape.size is None else 1 << shape.size

    def page(self, size: int) -> Shape | None:
        """How to read leaves of so many bytes, None where there can be none."""
        return next((shape for shape in self.pages if self.page_size(shape) == size), None)

    def matching(self, raw: int) -> Shape | None:
        """The shape that an entry has, well-formed or not; None for one that has none."""
        for shape in self.shapes:
            if shape.when.matches(raw):
                return shape
        return None

    def shape(self, raw: int) -> Shape:
        """How the raw entry is to be read here; an absent one, how it would be if it were there."""
        found = self.matching(raw)
        if found is None:
            told = ((one, (raw ^ one.when.value) & one.when.mask) for one in self.shapes)
            alike = (one for one, differs in told if not differs & ~self.presence)
            found = next(alike, self.shapes[-1])
        return found

    def is_pointer(self, raw: int) -> bool:
        """Whether the present entry `raw` is a pointer here, well-formed or not."""
        return self.shape(raw).points

    def changed(self, change: Callable[[Shape], Shape | None]) -> Level:
        """The level with each shape replaced by what `change` makes of it, if anything."""
        made = (change(shape) for shape in self.shapes)
        return replace(self, shapes=tuple(shape for shape in made if shape is not None))


class Breaking(NamedTuple):
    """What of an entry that leads somewhere may change only by way of an absent one, besides where
    it leads, how large its page is, and whether that comes to be lasting.

    bits    these bits of a leaf, where the machine reads them
    joined  with one of these bits before or after, all that the machine reads of a leaf
    tables  these bits of a pointer, where the machine reads them
    """

    bits: int
    joined: int = 0
    tables: int = 0


@dataclass(frozen=True)
class Flushing:
    """What a machine may go on using after an entry has changed, until it is told.

    Every machine keeps entries that lead to pages and tables.  Unless more is said, it keeps no
    others, and reads an entry again before it denies what the kept one does not allow.

    absent          it keeps entries that are absent as well: what is new there is to be flushed
    denials         it denies an access by a right that what it kept lacks: one that is given is to
                    be flushed
    faults          it keeps what else makes an access fault: malformed entries are to be flushed,
                    and an accessed or dirty bit that is given
    leaves_alone    a flush of an address reaches the leaf, and none of the pointers to it
    lasting_tables  what a pointer with the bit `Format.lasting` leads to is lasting as well
    breaks          what must be absent, and flushed, before it is there again; None where an entry
                    may become any other at once
    """

    absent: bool = False
    denials: bool = False
    faults: bool = False
    leaves_alone: bool = False
    lasting_tables: bool = False
    breaks: Breaking | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Format:
    """A complete format.  Equality is identity: the makers of formats cache them.

    name         for people
    entry_bytes  width of an entry
    levels       from level 0 up; level 0 has no pointers
    rights       names of rights to the bit of each in a word of rights, which is set where the
                 right is given: the bit that it lives in, in entries of shapes that keep all
                 rights where they belong
    denied       those bits of `rights` that in such entries take the right away when set
    accessed     the bit set in every entry used by an access, if its shape takes notes; 0 where
                 there is none
    dirty        the bit set in the leaf by a write, 0 where there is none
    lasting      the bit of pages that outlive a change of the root, 0 where there is none
    fleeting     the bit by whose lack pages outlive it, 0 where there is none
    exclusive    those bits of `rights` that take from some what they give to others, so that to
                 give them narrows as well
    shadow       the bit of `rights` whose lack makes a dirty leaf a page of its own kind, a shadow
                 stack, so that to give it there narrows as well; 0 where there are none
    byte_order   in which the bytes of an entry lie in memory
    bottom       what the manual counts level 0 as, where it counts from the root down; None where
                 it counts as here, or not at all
    flushing     what a machine may go on using after a change; None where that is not known here,
                 so that no `Space` can be built of such tables; all else is there without
    """

    name: str
    entry_bytes: int
    levels: tuple[Level, ...]
    rights: Mapping[str, int]
    denied: int
    accessed: int
    dirty: int
    lasting: int = 0
    fleeting: int = 0
    exclusive: int = 0
    shadow: int = 0
    byte_order: Order = "little"
    bottom: int | None = None
    flushing: Flushing | None = Flushing()

    def __post_init__(self) -> None:
        if len(self.levels) > self.entry_bytes:
            raise ValueError(f"{self.name}: a level number has no room in a slot's low bits")
        if self.levels[0].pointer is not None:
            raise ValueError(f"{self.name}: level 0 cannot hold pointers")
        for level in self.levels:
            self._check(level)
        for lower, upper in zip(self.levels, self.levels[1:], strict=False):
            if upper.shift != lower.shift + lower.index_bits:
                raise ValueError(f"{self.name}: {upper.name} does not span one {lower.name} table")
            if upper.pointer is None:
                raise ValueError(f"{self.name}: {upper.name} cannot point, so nothing lies below")

    def _check(self, level: Level) -> None:
        where = f"{self.name}: {level.name}"
        if not level.shapes:
            raise ValueError(f"{where} has no shape")
        if sum(shape.points for shape in level.shapes) > 1:
            raise ValueError(f"{where} has more than one shape that points")
        if level.pages and level.leaf is None:
            raise ValueError(f"{where} has no page as large as its slot")
        for shape in level.shapes:
            if any(_overlap(shape.when, absent) for absent in level.absent):
                raise ValueError(f"{where} has a shape that is absent too")
            if shape.reserved_mask & shape.when.mask:
                raise ValueError(f"{where} reserves bits that tell a shape")

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @cached_property
    def rights_mask(self) -> int:
        """Every bit of `granted`."""
        return _union(self.rights.values())

    def number(self, level: int) -> int:
        """What the manual counts a level as, for people; and the level that it counts as that."""
        return level if self.bottom is None else self.bottom - level

    def table_bytes(self, level: int) -> int:
        """Size of a table at `level`."""
        return self.entry_bytes << self.levels[level].index_bits

    @cached_property
    def bounded(self) -> bool:
        """Whether a pointer may say that only a part of its table is there."""
        return any(here.pointer and here.pointer.bounds for here in self.levels)

    def slots_below(self, raw: int, level: int) -> range:
        """The slots that are there of the table that a pointer at `level` leads to."""
        pointer, entries = self.levels[level].pointer, self.levels[level - 1].entries
        assert pointer is not None
        return range(entries) if pointer.bounds is None else pointer.bounds.slots(raw, entries)

    def page_levels(self) -> list[int]:
        """The levels that can hold a leaf, from 0 up."""
        return [number for number, level in enumerate(self.levels) if level.pages]

    def decode(self, raw: int, level: int) -> Entry:
        """What the raw entry says at `level`."""
        # Few tables are reached often, and pages are many.
        return _decode_cached(self, raw, level) if level else self._decode(raw, level)

    def _decode(self, raw: int, level: int) -> Entry:
        here = self.levels[level]
        if here.aside and any(pattern.matches(raw) for pattern in here.aside):
            return Absent()
        for shape in here.shapes:
            mask, value = shape.when
            if raw & mask == value:
                break
        else:
            return Absent() if here.is_absent(raw) else Malformed(here.telling)
        mask, value = shape.clean
        if raw & mask != value or shape.forbidden:
            offending = shape.offending(raw)
            if offending:
                return Malformed(offending)
        if shape.points:
            return Pointer(Table(self, shape.address_of(raw), level - 1))
        return Leaf(shape.address_of(raw), 1 << (shape.size or here.shift))

    def malformed(self, raw: int, level: int) -> list[Reserved]:
        """What is wrong with an entry that is malformed, or reserved though absent, part by part:
        the bits and why."""
        here = self.levels[level]
        shape = here.matching(raw)
        if shape is None:
            odd = (one for one in here.reserved if one.pattern.matches(raw))
            unlike = Forbidden(Pattern(here.telling, 0), f"no {here.name} looks so")
            pattern, reason = next(odd, unlike)
            return [Reserved(pattern.mask, reason)]
        parts = [
            Reserved(wrong, part.reason, part.value & wrong)
            for part in shape.reserved
            if (wrong := (raw ^ part.value) & part.mask)
        ]
        odd = (one for one in shape.forbidden if one.pattern.matches(raw))
        return parts + [Reserved(one.pattern.mask, one.reason) for one in odd]

    def granted(self, raw: int, level: int) -> int:
        """The rights that one entry gives; those in which it takes no part among them."""
        here = self.levels[level]
        shape = here.matching(raw) or here.shapes[-1]
        if shape.grants is None:
            return (raw ^ self.denied) & self.rights_mask
        withheld = (self.rights[name] for name, one in shape.grants.items() if not one.gives(raw))
        return self.rights_mask & ~_union(withheld)

    def granting(self, *names: str) -> int:
        """The bits of a leaf at level 0 that give just the rights named.

        Raises ValueError for a name that is unknown, and where these cannot be given alone.
        """
        leaf = self.levels[0].leaf
        assert leaf is not None
        return self.granting_in(leaf, *names)

    def granting_in(self, shape: Shape, *names: str) -> int:
        """The same of entries of any shape, as far as they take part."""
        for name in names:
            if name not in self.rights:
                known = ", ".join(self.rights)
                raise ValueError(f"{self.name} has no right {name!r}; it has {known}")
        if shape.grants is None:
            return _union(self.rights[name] for name in names) ^ self.denied
        withheld = [one for name, one in shape.grants.items() if name not in names]
        raw = _union(one.inverted for one in shape.grants.values())
        raw ^= _union(shape.grants[name].mask for name in names if name in shape.grants) & ~_union(
            one.mask for one in withheld
        )
        for name, one in shape.grants.items():
            if one.gives(raw) != (name in names):
                raise ValueError(f"{self.name} cannot give {' and '.join(names)} alone")
        return raw

    def rights_of(self, granted: int) -> tuple[str, ...]:
        """The names of the rights in a `granted` word."""
        return tuple(name for name, bit in self.rights.items() if granted & bit)

    def pointer(self, address: int, level: int, bits: int) -> int:
        """The raw entry at `level` for the table at `address`, all of it, with `bits` besides.

        Raises ValueError where no entry can say that.
        """
        pointer = self.levels[level].pointer
        whole = pointer.bounds.last if pointer and pointer.bounds else 0
        return self._encode(pointer, "pointer", address, level, bits | whole)

    def open_pointer(self, level: int) -> int:
        """What a pointer at `level` holds besides the address to withhold no right."""
        pointer = self.levels[level].pointer
        return self.granting_in(pointer, *self.rights) if pointer else 0

    def leaf(self, address: int, level: int, bits: int, size: int | None = None) -> int:
        """The raw entry at `level` for the page at `address`, with `bits` besides.

        size  bytes of the page, where it is larger than its slot

        Raises ValueError where no entry can say that: a size the level lacks, an address
        misaligned or too wide, a bit that is reserved or the address's own.
        """
        here = self.levels[level]
        shape = here.leaf if size is None else here.page(size)
        return self._encode(shape, "leaf", address, level, bits)

    def check_free(self, shape: Shape, level: int, bits: int) -> None:
        """ValueError for a bit that entries of a shape at `level` may not have besides the address
        and what makes it one."""
        wrong = bits & shape.taken | bits >> 8 * self.entry_bytes
        if wrong:
            what = f"{self.levels[level].name} {'pointer' if shape.points else 'leaf'}"
            raise ValueError(f"bits {wrong:#x} are not free in a {what} of {self.name}")

    def _encode(self, shape: Shape | None, kind: str, address: int, level: int, bits: int) -> int:
        here = self.levels[level]
        if shape is None:
            raise ValueError(f"{self.name} has no {kind} at level {level} ({here.name})")
        raw = shape.encode(address) | shape.clean.value | bits
        if bits & shape.taken or bits >> 8 * self.entry_bytes:
            self.check_free(shape, level, bits)
        if here.matching(raw) is not shape:
            raise ValueError(f"with bits {bits:#x} a {here.name} of {self.name} is no {kind}")
        for pattern, reason in shape.forbidden:
            if pattern.matches(raw):
                raise ValueError(
                    f"a {here.name} {kind} of {self.name} cannot have bits {bits:#x}: {reason}"
                )
        return raw

    def without_reserved(self) -> Format:
        """The same format to a reader that checks no reserved bits."""
        levels = (
            level.changed(lambda shape: replace(shape, reserved=(), forbidden=()))
            for level in self.levels
        )
        return replace(self, name=f"{self.name}, reserved bits unchecked", levels=tuple(levels))


@lru_cache(maxsize=1 << 16)
def _decode_cached(format: Format, raw: int, level: int) -> Entry:
    return format._decode(raw, level)


def _overlap(one: Pattern, other: Pattern) -> bool:
    """Whether an entry can match both."""
    return not (one.value ^ other.value) & one.mask & other.mask


def _named(shapes: Iterable[Shape]) -> Mapping[str, int]:
    """The names of the bits of entries, each as the first of the shapes has it that does."""
    found: dict[str, int] = {}
    for shape in shapes:
        for name, mask in shape.bits.items():
            found.setdefault(name, mask)
    return found


def _number(mask: int, raw: int) -> int:
    """The number under a mask."""
    return (raw & mask) // (mask & -mask)


def _union(masks: Iterable[int]) -> int:
    return reduce(or_, masks, 0)
