"""What a format of page tables is: geometry and masks as data; decode and encode once for all.

A format is constants.  Whatever of it depends on CPU state (the width of physical
addresses, whether execution can be disabled) is settled when the format is made, so that a
decoder sees masks only.  `x86.formats` shows what a complete one looks like.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, reduce
from operator import or_
from typing import NamedTuple

from harness.paging.address import Physical
from harness.paging.entry import Absent, Entry, Leaf, Malformed, Pointer
from harness.paging.table import Table


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
    """Bits that must be clear, and why."""

    mask: int
    reason: str

    def __str__(self) -> str:
        return f"{self.mask:#x} {self.reason}"


@dataclass(frozen=True)
class Shape:
    """One way to read a present entry, as a pointer or as a leaf."""

    address: tuple[Field, ...]
    reserved: tuple[Reserved, ...] = ()

    @cached_property
    def reserved_mask(self) -> int:
        return _union(part.mask for part in self.reserved)

    def address_of(self, raw: int) -> Physical:
        """The physical address that a raw entry holds."""
        address = 0
        for field in self.address:
            address |= (raw & field.mask) << field.shift
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

    name        the format's own word for such an entry
    shift       log2 of the bytes that one entry spans
    index_bits  log2 of the entries in a table
    pointer     how to read a pointer, None where there can be none
    leaf        how to read a leaf, None where there can be none
    points      where both can be: the pattern of a pointer, all else being a leaf
    bits        names of single bits and fields of entries at this level, to their masks
    grants      whether its entries give and withhold rights; those of PAE's PDPTEs have none
    """

    name: str
    shift: int
    index_bits: int
    pointer: Shape | None
    leaf: Shape | None
    points: Pattern
    bits: Mapping[str, int]
    grants: bool = True

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

    def is_pointer(self, raw: int) -> bool:
        """Whether the present entry `raw` is a pointer here, well-formed or not."""
        return self.pointer is not None and (self.leaf is None or self.points.matches(raw))

    def shape(self, raw: int) -> Shape:
        """How the present entry `raw` is to be read here."""
        shape = self.pointer if self.is_pointer(raw) else self.leaf
        assert shape is not None
        return shape


@dataclass(frozen=True, eq=False, repr=False)
class Format:
    """A complete format.  Equality is identity: the makers of formats cache them.

    name         for people
    entry_bytes  width of an entry
    present      the pattern of entries that hold anything for the hardware
    levels       from level 0 up; level 0 has no pointers
    rights       names of rights to the bit each lives in; the same bit at every level that has them
    denied       those bits of `rights` that take the right away when set
    accessed     the bit set in every entry used by an access, 0 where there is none
    dirty        the bit set in the leaf by a write, 0 where there is none
    lasting      the bit of pages that outlive a change of the root, 0 where there is none
    exclusive    those bits of `rights` that take from some what they give to others, so that to
                 give them narrows as well
    shadow       the bit of `rights` whose lack makes a dirty leaf a page of its own kind, a shadow
                 stack, so that to give it there narrows as well; 0 where there are none
    leaf_only    the bits besides `dirty` and `lasting` that the machine ignores in pointers, though
                 a level that can hold a leaf has a name for them
    """

    name: str
    entry_bytes: int
    present: Pattern
    levels: tuple[Level, ...]
    rights: Mapping[str, int]
    denied: int
    accessed: int
    dirty: int
    lasting: int = 0
    exclusive: int = 0
    shadow: int = 0
    leaf_only: int = 0

    def __post_init__(self) -> None:
        if len(self.levels) > self.entry_bytes:
            raise ValueError(f"{self.name}: a level number has no room in a slot's low bits")
        if self.levels[0].pointer is not None:
            raise ValueError(f"{self.name}: level 0 cannot hold pointers")
        for lower, upper in zip(self.levels, self.levels[1:], strict=False):
            if upper.shift != lower.shift + lower.index_bits:
                raise ValueError(f"{self.name}: {upper.name} does not span one {lower.name} table")
            if upper.pointer is None:
                raise ValueError(f"{self.name}: {upper.name} cannot point, so nothing lies below")

    def __repr__(self) -> str:
        return f"<{self.name}>"

    @cached_property
    def rights_mask(self) -> int:
        """Every bit of `granted`."""
        return _union(self.rights.values())

    def table_bytes(self, level: int) -> int:
        """Size of a table at `level`."""
        return self.entry_bytes << self.levels[level].index_bits

    def page_levels(self) -> list[int]:
        """The levels that can hold a leaf, from 0 up."""
        return [number for number, level in enumerate(self.levels) if level.leaf is not None]

    def decode(self, raw: int, level: int) -> Entry:
        """What the raw entry says at `level`."""
        if self.levels[level].pointer is None:
            return self._decode(raw, level)
        return _decode_cached(self, raw, level)

    def _decode(self, raw: int, level: int) -> Entry:
        if not self.present.matches(raw):
            return Absent()
        here = self.levels[level]
        shape = here.shape(raw)
        offending = raw & shape.reserved_mask
        if offending:
            return Malformed(offending)
        if here.is_pointer(raw):
            return Pointer(Table(self, shape.address_of(raw), level - 1))
        return Leaf(shape.address_of(raw), here.size)

    def malformed(self, raw: int, level: int) -> list[Reserved]:
        """The reserved bits that are set in a present entry, part by part, with the reasons."""
        shape = self.levels[level].shape(raw)
        return [
            Reserved(raw & part.mask, part.reason) for part in shape.reserved if raw & part.mask
        ]

    def granted(self, raw: int, level: int) -> int:
        """The rights that one entry gives."""
        if not self.levels[level].grants:
            return self.rights_mask
        return (raw ^ self.denied) & self.rights_mask

    def granting(self, *names: str) -> int:
        """The entry bits that give just the rights named.  Raises ValueError for an unknown one."""
        granted = 0
        for name in names:
            if name not in self.rights:
                known = ", ".join(self.rights)
                raise ValueError(f"{self.name} has no right {name!r}; it has {known}")
            granted |= self.rights[name]
        return granted ^ self.denied

    def rights_of(self, granted: int) -> tuple[str, ...]:
        """The names of the rights in a `granted` word."""
        return tuple(name for name, bit in self.rights.items() if granted & bit)

    def pointer(self, address: int, level: int, bits: int) -> int:
        """The raw entry at `level` for the table at `address`, with `bits` besides.

        Raises ValueError where no entry can say that.
        """
        return self._encode(self.levels[level].pointer, "pointer", address, level, bits)

    def leaf(self, address: int, level: int, bits: int) -> int:
        """The raw entry at `level` for the page at `address`, with `bits` besides.

        Raises ValueError where no entry can say that: a size the level lacks, an address
        misaligned or too wide, a bit that is reserved or the address's own.
        """
        return self._encode(self.levels[level].leaf, "leaf", address, level, bits)

    def _encode(self, shape: Shape | None, kind: str, address: int, level: int, bits: int) -> int:
        here = self.levels[level]
        if shape is None:
            raise ValueError(f"{self.name} has no {kind} at level {level} ({here.name})")
        raw = shape.encode(address) | self.present.value
        taken = _union(field.mask for field in shape.address) | self.present.mask
        if here.pointer is not None and here.leaf is not None:
            points = here.points
            raw |= points.value if kind == "pointer" else points.mask & ~points.value
            taken |= points.mask
        wrong = bits & (taken | shape.reserved_mask) | bits >> 8 * self.entry_bytes
        if wrong:
            raise ValueError(f"bits {wrong:#x} are not free in a {here.name} {kind} of {self.name}")
        return raw | bits

    def without_reserved(self) -> Format:
        """The same format to a reader that checks no reserved bits."""
        return replace(
            self,
            name=f"{self.name}, reserved bits unchecked",
            levels=tuple(
                replace(
                    level,
                    pointer=level.pointer and replace(level.pointer, reserved=()),
                    leaf=level.leaf and replace(level.leaf, reserved=()),
                )
                for level in self.levels
            ),
        )


@lru_cache(maxsize=1 << 16)
def _decode_cached(format: Format, raw: int, level: int) -> Entry:
    return format._decode(raw, level)


def _union(masks: Iterable[int]) -> int:
    return reduce(or_, masks, 0)
