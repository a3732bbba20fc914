"""Layouts: written descriptions of spaces, and the tables that are built from them.

A layout is a TOML file.  This one uses every key there is::

    title = "Every key of a layout"
    arch = "x86"                     # the architecture it is written for, x86 by default
    levels = [4, 5]                  # the numbers of levels it is written for
    ram = "128M"                     # of the guest: a multiple of 2M, at most 3G; by default,
                                     # so much that the pages of all maps have room
    tables = "8M"                    # for the tables, "16M" by default

    [cpu]                            # optional, as is every key of it
    wp = true                        # CR0.WP, true by default
    nxe = true                       # EFER.NXE, true by default
    smep = false                     # CR4.SMEP, false by default
    smap = false                     # CR4.SMAP, false by default
    lass = false                     # CR4.LASS, false by default
    maxphyaddr = 40                  # width of physical addresses; the engine's own by default

    [[map]]                          # pages of one size
    virtual = 0xffff_8000_0000_0000  # the first address
    size = "4K"                      # of a page: 4K, 2M or 1G
    count = 16                       # how many pages, 1 by default
    step = "2M"                      # from each page to the next, the size by default
    physical = 0x300_0000            # the first frame; or "any", the default; or "random"
    physical_step = 0                # from each frame to the next, the size by default
    rights = "wx"                    # write, user, execute; all by default
    bits = ["G", "PCD", "KEY=5"]     # further bits of the entries, by the format's names; of a
                                     # field its value, or all of its bits
    table_rights = "wux"             # of the tables that this map adds; all by default

    [[map]]
    virtual = 0xff00_0000_0000_0000
    size = "4K"
    count = 1000
    physical = "random"
    seed = 7                         # of the frames' order, 0 by default
    levels = [5]                     # left out at other numbers of levels

    [[share]]                        # leads to a table that another address uses
    virtual = 0xffff_8100_0000_0000  # the first address that the slot spans
    level = 2                        # of the slot: it leads to a level-1 table,
    like = 0xffff_8000_0000_0000     # the one on the walk of this address
    count = 4                        # how many slots, one after the other; 1 by default
    rights = "w"                     # of the slot; all by default

    [[share]]
    virtual = 0xffff_f680_0000_0000
    root = true                      # in place of level and like: the root table, in itself
    levels = [4]

    [[entry]]                        # a raw entry, for odd cases
    virtual = 0xffff_8000_4000_0000  # the first address that the slot spans
    level = 1
    value = 0x8000_0000_0400_2083

Sizes are numbers of bytes, or strings with K, M, G or T.  A value of a field is a number as above:
of RISC-V "PBMT=1", of arm64 "AttrIndx=4".  On x86 reading is a right that each page
has; on RISC-V it has a letter, "r", and `table_rights` and the rights of a share say nothing:
pointers give none.  A layout for RISC-V has 2 to 5 levels, those of Sv32, Sv39, Sv48 and Sv57, and
no `cpu`; RAM begins at 2G.

On arm64 "x" is for the user's execution and "k" for the kernel's; both halves have a root of their
own, and the same size; RAM begins at 1G.  `level` counts from the pages' table, 0, as everywhere in
this file: L3 of the manual is 0.  A contiguous group is a map with `bits = ["Contiguous"]` of as
many pages as a group has, 16 of 4K or of 2M, its `virtual` and `physical` both aligned to all of
them::

    [[map]]
    virtual = 0x20_0000
    size = "4K"
    count = 16
    physical = 0x4400_0000
    bits = ["Contiguous"]

A page has AF where its `bits` say so.  With `ha = false` nothing sets it, and every access to a
page without it faults: there each map needs `bits = ["AF"]`.  `bits = ["AttrIndx=4"]` is the byte
of MAIR_EL1 that says the memory type: byte 0 is Normal memory, write-back, and all others are 0,
Device-nGnRnE; "ATTR", in older files, is AttrIndx=7, and "CONT" Contiguous.  `cpu` has these keys::

    granule = "4K"                   # 4K, 16K or 64K: sizes of pages follow
    high_granule = "64K"             # that of the upper half, by default the same; it has as many
                                     # levels as its pages need, and `levels` are the lower half's
    wide = false                     # addresses of 52 bits: TCR_EL1.DS with 4K and 16K
    ha = true                        # TCR_EL1.HA: hardware sets AF
    hd = true                        # TCR_EL1.HD: hardware keeps the dirty state of what has DBM
    hpd = false                      # TCR_EL1.HPD0 and HPD1: tables withhold nothing
    wxn = false                      # SCTLR_EL1.WXN

On POWER there is the letter "r", and "w" needs it; addresses from 0 on are those of the process,
those from 0xc000_0000_0000_0000 on those of process 0.  R and C are `bits`, and an access may fail
for want of them.  Its `cpu` has one key::

    pages = "4K"                     # the smallest pages: 4K or 64K

On s390 `levels` are 2 to 5: walks begin at a segment, region-third, region-second or region-first
table.  Letters are "w" and "x", for nothing in entries withholds reading, or is about problem
state; without IEP nothing withholds execution, either, and each page has it.  Pages have 4K, and
with the enhanced-DAT facilities 1M, and 2G too: commands that read tables take a layout of such,
and `validate` refuses it on an engine that lacks them, as QEMU does.  RAM begins at 0.  `cpu` has
these keys::

    private = false                  # the ASCE has P: no segment and no region is common
    quarters = 4                     # how many of the root's table are there, 1 to 4 (TL)
    iep = true                       # CR0.IEP: pages can withhold execution
    edat = true                      # CR0.EDAT, of a processor that has the facilities
    low_address_protection = false   # CR0.low-address-protection

A frame that is "any" or "random" is one that nothing in the file names: the lowest that
is free, or one that the seed picks, always the same; large pages choose first.  Maps are built
first, then shares, then entries, each in the order of the file, and nothing may be put where
something is.  A map, a share and an entry may each have `levels`.

RAM is divided from the bottom up: what belongs to the machine, then the tables, then frames
for pages.  Pages may lie beyond RAM, as devices do, but not in the first two parts.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from harness.architectures import NAMES, USUAL, module_of
from harness.check import bounds, written
from harness.check.keys import Reader, in_units, instead, names_in, rights_in, values_of
from harness.machine.ram import ARENA, LARGEST_RAM, RAM_UNIT
from harness.paging.address import Span, Virtual, aligned
from harness.paging.entry import Leaf, Pointer
from harness.paging.errors import Taken
from harness.paging.format import Format
from harness.paging.memory import BY_ORDER, Mask, Words, WritableMemory, distinct
from harness.paging.space import Space, TableAllocator
from harness.paging.table import Root, Table
from harness.paging.walk import walk


@dataclass(frozen=True, kw_only=True)
class Described:
    """What layouts of an architecture are about.

    folder    where in images/ its layouts are
    ram_base  where RAM begins
    modes     what its modes are called, by how many levels they have
    rights    the letters of rights
    cpu       how to read the keys of `cpu`
    control   the control state that these ask for, given by their names; ValueError where no
              processor has it
    former    names of bits that files had before, with those of today
    thorough  whether a monitor can be asked about all mappings, and is about a sample alone
    """

    folder: str
    ram_base: int
    modes: Mapping[int, str]
    rights: Mapping[str, str]
    cpu: Mapping[str, Reader]
    control: Callable[..., object]
    former: Mapping[str, str] = field(default_factory=dict)
    thorough: bool = False


def described(arch: str) -> Described:
    """What layouts of an architecture are about: `DESCRIBED` of its module `layouts`."""
    found: Described = module_of(arch, "check", "layouts").DESCRIBED
    return found


class LayoutError(ValueError):
    """A layout that cannot be read or built: a sentence that says where and why."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """Pages of one size.  The fields are the keys of the file; sizes are in bytes.

    `where` is the place in the file, for people; no `levels` stands for all, and None for all
    rights.
    """

    where: str
    virtual: int
    size: int
    count: int = 1
    step: int | None = None
    physical: int | Literal["any", "random"] = "any"
    physical_step: int | None = None
    seed: int | None = None
    rights: tuple[str, ...] | None = None
    bits: tuple[str, ...] = ()
    table_rights: tuple[str, ...] | None = None
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.physical_step is not None and isinstance(self.physical, str):
            raise ValueError("physical_step needs a number for physical to step from")
        if self.seed is not None and self.physical != "random":
            raise ValueError('seed is of use with physical = "random" alone')


@dataclass(frozen=True, kw_only=True)
class Share:
    """Slots that lead to a table that another address uses, or to the root itself."""

    where: str
    virtual: int
    level: int | None = None
    like: int | None = None
    root: bool = False
    count: int = 1
    rights: tuple[str, ...] | None = None
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if [self.level is None, self.like is None] != [self.root, self.root]:
            raise ValueError("a share needs both level and like, or root = true alone")
        if self.level == 0:
            raise ValueError("level is 0, whose entries lead to no table")


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A raw entry."""

    where: str
    virtual: int
    level: int
    value: int
    levels: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A description of a space, read from a file.

    name         the file's, without its ending
    text         of the file, so that a report can carry the layout along
    control      the control state that it is written for, as its architecture has that
    ram, tables  bytes
    """

    name: str
    text: str = field(repr=False)
    title: str
    arch: str = USUAL
    levels: tuple[int, ...]
    control: Any
    ram: int
    tables: int = 16 << 20
    maps: tuple[Map, ...] = ()
    shares: tuple[Share, ...] = ()
    entries: tuple[Entry, ...] = ()

    def __post_init__(self) -> None:
        modes = described(self.arch).modes
        for levels in self.levels:
            if levels not in modes:
                raise ValueError(f"tables of {self.arch} have {either(modes)} levels, not {levels}")
        for key, size in (("ram", self.ram), ("tables", self.tables)):
            if size % RAM_UNIT:
                raise ValueError(f"{key} is {in_units(size)}, no multiple of {in_units(RAM_UNIT)}")
        if self.ram > LARGEST_RAM:
            raise ValueError(
                f"ram is {in_units(self.ram)}; a guest has at most {in_units(LARGEST_RAM)}"
            )
        if self.ram <= ARENA.stop + self.tables:
            raise ValueError(
                f"ram is {in_units(self.ram)}, too little: the machine takes"
                f" {in_units(ARENA.stop)} of it, tables {in_units(self.tables)}, pages the rest"
            )
        parts: tuple[Map | Share | Entry, ...] = (*self.maps, *self.shares, *self.entries)
        for part in parts:
            if not set(part.levels) <= set(self.levels):
                raise LayoutError(
                    f"{part.where}: levels is {list(part.levels)},"
                    f" and the layout is for {list(self.levels)}"
                )

    @property
    def written_for(self) -> str:
        """Its numbers of levels, for people."""
        *first, last = map(str, self.levels)
        return f"{', '.join(first)} and {last}" if first else last

    def mode(self, levels: int) -> str:
        """What the mode with so many levels is called."""
        return described(self.arch).modes[levels]

    def page_sizes(self, levels: int) -> frozenset[str]:
        """The sizes of the pages that are mapped at this number of levels: 4K, 2M, 1G."""
        return frozenset(in_units(part.size) for part in _at(levels, self.maps))


def shipped(arch: str = USUAL) -> list[Path]:
    """The layouts for an architecture that come with the harness, in a checkout and as installed.

    Raises LayoutError where there are none.
    """
    here, folder = Path(__file__), described(arch).folder
    for directory in (here.parents[1] / "images", here.parents[2] / "images"):
        if found := sorted((directory / folder).glob("*.toml")):
            return found
    raise LayoutError(f"{here.parents[1]} comes without layouts: install the harness anew")


def find(name: str, arch: str | None = None) -> Path:
    """The shipped layout of this name, or else the file at this path.

    arch  whose it is, unless the name has another before it, riscv/smallest; None is the usual one

    Raises LayoutError where there is neither: with the names that there are, of the architecture
    that is named, or of all.
    """
    before, slash, _ = name.partition("/")
    if slash and before in NAMES and not Path(name).exists():
        paths = {f"{before}/{path.stem}": path for path in shipped(before)}
    else:
        paths = {path.stem: path for path in shipped(arch or USUAL)}
    path = paths.get(name) or Path(name)
    if path.suffix == ".toml" or path.exists():
        return path
    known = [*paths]
    if arch is None and before not in NAMES:
        rest = (one for one in NAMES if one != USUAL)
        known += (f"{other}/{path.stem}" for other in rest for path in shipped(other))
    same = [one for one in known if one.endswith(f"/{name}")]
    meant = f"did you mean {' or '.join(same)}?" if same else instead(name, known)
    raise LayoutError(f"no layout is called {name!r}: {meant}")


def load(path: str | Path) -> Layout:
    """Reads a layout; LayoutError where the file cannot be read or is none."""
    try:
        text = written.text(path)
    except ValueError as error:
        raise LayoutError(str(error)) from None
    return parse(text, str(path))


def parse(text: str, origin: str) -> Layout:
    """Reads a layout from the text of a file; `origin` is the file's path, for messages."""
    try:
        top = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{origin} is not TOML: {error}") from None
    with _blaming(origin):
        arch = top.get("arch", USUAL)
        if not isinstance(arch, str) or arch not in NAMES:
            raise ValueError(f"arch is {arch!r}: {instead(arch, NAMES)}")
    about = described(arch)
    with _blaming(f"{origin}, cpu"):
        control = about.control(**values_of(top.pop("cpu", {}), about.cpu, (), about.cpu))
    readers = dict.fromkeys(("rights", "table_rights"), rights_in(about.rights))
    named = {**readers, "bits": names_in(about.former)}
    maps = _parts(Map, top.pop("map", []), f"{origin}, map", named)
    shares = _parts(Share, top.pop("share", []), f"{origin}, share", readers)
    entries = _parts(Entry, top.pop("entry", []), f"{origin}, entry", readers)
    with _blaming(origin):
        required = ("title", "levels")
        known = (*required, "arch", "ram", "tables", "cpu", "map", "share", "entry")
        head = values_of(top, known, required)
        tables = head.get("tables", Layout.tables)
        head.setdefault("ram", _ram_for(maps, tables, about.ram_base))
        return Layout(
            name=Path(origin).stem,
            text=text,
            maps=maps,
            shares=shares,
            entries=entries,
            control=control,
            **head,
        )


def either(some: Iterable[object]) -> str:
    """What there is a choice among, for people."""
    *first, last = map(str, some)
    return f"{', '.join(first)} or {last}" if first else last


def _ram_for(maps: Iterable[Map], tables: int, base: int) -> int:
    """RAM in which all pages have room: those whose frames are named, as far as a guest can have
    RAM there, and after them those whose frames are chosen."""
    chosen = [part for part in maps if isinstance(part.physical, str)]
    end = ARENA.stop + tables
    for part in maps:
        if isinstance(part.physical, int):
            step = part.size if part.physical_step is None else part.physical_step
            first = part.physical - base
            past = first + (part.count - 1) * step + part.size
            end = max(end, min(past, LARGEST_RAM) if first < LARGEST_RAM else 0)
    for part in sorted(chosen, key=lambda part: -part.size):
        end = -(-end // part.size) * part.size + part.count * part.size
    least = ARENA.stop + tables + RAM_UNIT
    return min(max(-(-end // RAM_UNIT) * RAM_UNIT, least), LARGEST_RAM)


_Part = TypeVar("_Part", Map, Share, Entry)


def _parts(
    kind: type[_Part], tables: object, where: str, readers: Mapping[str, Reader]
) -> tuple[_Part, ...]:
    """The tables of one name, in order; their numbers begin with 1."""
    if not isinstance(tables, list):
        raise LayoutError(f"{where} is not a list of tables: write its name in double brackets")
    known = [field for field in fields(kind) if field.name != "where"]
    names = [field.name for field in known]
    required = [field.name for field in known if field.default is MISSING]
    parts = []
    for number, table in enumerate(tables, 1):
        with _blaming(f"{where} {number}"):
            values = values_of(table, names, required, readers)
            parts.append(kind(where=f"{where} {number}", **values))
    return tuple(parts)


@contextmanager
def _blaming(where: str) -> Iterator[None]:
    """Puts the place in front of what went wrong."""
    try:
        yield
    except LayoutError:
        raise
    except ValueError as error:
        raise LayoutError(f"{where}: {error}") from None


def check_levels(layout: Layout, arch: str, levels: int) -> None:
    """Raises LayoutError for a layout of another architecture, or not for so many levels."""
    if layout.arch != arch:
        raise LayoutError(f"{layout.name} is written for {layout.arch}, not for {arch}")
    if levels not in layout.levels:
        there = layout.written_for
        raise LayoutError(f"{layout.name} is written for {there} levels, not {levels}")


def divided(layout: Layout) -> tuple[Span, Span]:
    """What of the RAM is for the tables of a layout, and what for frames."""
    base = described(layout.arch).ram_base
    tables = Span.of(base + ARENA.stop, layout.tables)
    return tables, Span(tables.last + 1, base + layout.ram - 1)


def construct(
    layout: Layout, roots: tuple[Root, ...], physical_bits: int, memory: WritableMemory
) -> tuple[Space, ...]:
    """Builds the tables of a layout, in memory that has at least its RAM: a space for each table
    in which walks begin.

    roots          where walks begin: in the first of the tables that it has room for.  The layout
                   is built at as many levels as the first has
    physical_bits  the width of physical addresses

    Raises LayoutError where the layout cannot be built; the memory is then as it was.
    """
    tables, frames = divided(layout)
    try:
        bounds.refuse(layout.name, _runs(layout, roots), layout.tables)
    except LayoutError:
        raise
    except ValueError as error:
        raise LayoutError(str(error)) from None
    pages = _choose_frames(layout, roots, physical_bits, tables, frames)
    # A trial goes first, so that a layout that is refused leaves the memory alone.
    trial = BY_ORDER[roots[0].table.format.byte_order](
        np.zeros(tables.size, np.uint8), tables.first
    )
    _construct(layout, roots, trial, tables, pages)
    return _construct(layout, roots, memory, tables, pages)


def _at(levels: int, parts: Iterable[_Part]) -> list[_Part]:
    """The parts of a layout that count at this number of levels."""
    return [part for part in parts if not part.levels or levels in part.levels]


def _levels(roots: tuple[Root, ...]) -> int:
    """At how many levels a layout is built with these roots."""
    return len(roots[0].table.format.levels)


def _format_at(roots: tuple[Root, ...], address: int) -> Format:
    """The format of the tables of an address, or of the first where it has none."""
    here = (root for root in roots if address in root.span)
    return next(here, roots[0]).table.format


def _runs(layout: Layout, roots: tuple[Root, ...]) -> Iterator[bounds.Run]:
    """What the parts of a layout put into tables."""
    levels = _levels(roots)
    for part in _at(levels, layout.maps):
        format = _format_at(roots, part.virtual)
        with _blaming(part.where):
            level, step = _page_level(format, part.size), part.step or part.size
        together = step == part.size
        yield bounds.Run(part.where, format, part.virtual, level, part.count, step, together)
    for share in _at(levels, layout.shares):
        format, virtual = _format_at(roots, share.virtual), share.virtual
        level = len(format.levels) - 1 if share.level is None else share.level
        with _blaming(share.where):
            _check_level(format, level)
        step = format.levels[level].size
        yield bounds.Run(share.where, format, virtual, level, share.count, step, together=False)
    for entry in _at(levels, layout.entries):
        format = _format_at(roots, entry.virtual)
        with _blaming(entry.where):
            _check_level(format, entry.level)
        yield bounds.Run(entry.where, format, entry.virtual, entry.level, 1, 0, together=False)


class _Frames:
    """Which frames of RAM are free, counted in the smallest pages."""

    def __init__(self, span: Span, granule: int) -> None:
        self.granule = granule
        self.free: Mask = np.zeros((span.last + 1) // granule, np.bool_)
        self.free[span.first // granule :] = True

    def take(self, addresses: Words, size: int) -> None:
        """Takes the frames that pages at these addresses reach, as far as they are in RAM."""
        within = min(size // self.granule, len(self.free))  # a page can be larger than RAM
        first = distinct(addresses) // np.uint64(self.granule)
        first = first[first < len(self.free)].astype(np.int64)
        frames = (first[:, None] + np.arange(within)).ravel()
        self.free[frames[frames < len(self.free)]] = False

    def choose(self, part: Map) -> Words:
        """Takes free frames, each aligned to the size of the map's pages."""
        within = part.size // self.granule
        whole = self.free[: len(self.free) // within * within].reshape(-1, within)
        found = np.flatnonzero(whole.all(axis=1))
        if len(found) < part.count:
            raise ValueError(
                f"ram has {len(found)} free frames of {in_units(part.size)},"
                f" of which count asks {part.count}"
            )
        if part.physical == "random":
            # This generator's numbers never change, so a layout means the same for ever.
            found = np.random.RandomState(part.seed or 0).permutation(found)
        found = found[: part.count]
        whole[found] = False
        return found.astype(np.uint64) * np.uint64(part.size)


def _choose_frames(
    layout: Layout, roots: tuple[Root, ...], physical_bits: int, tables: Span, frames: Span
) -> dict[str, Words]:
    """The physical address of every page of each map, by the place of the map in the file.

    What the layout names is taken before anything is chosen.
    """
    levels = _levels(roots)
    maps, entries = _at(levels, layout.maps), _at(levels, layout.entries)
    free = _Frames(frames, min(root.table.format.levels[0].size for root in roots))
    pages = dict[str, Words]()
    for part in maps:
        with _blaming(part.where):
            if isinstance(part.physical, int):
                pages[part.where] = _named_frames(part, part.physical, physical_bits, frames)
                free.take(pages[part.where], part.size)
    for entry in entries:
        with _blaming(entry.where):
            leaf = _leaf_of(entry, _format_at(roots, entry.virtual), tables, frames)
            if leaf is not None:
                free.take(np.array([leaf.address], np.uint64), leaf.size)
    # The larger the page, the fewer frames will do.
    for part in sorted(maps, key=lambda part: -part.size):
        if part.where not in pages:
            with _blaming(part.where):
                pages[part.where] = free.choose(part)
    return pages


def _named_frames(part: Map, first: int, physical_bits: int, frames: Span) -> Words:
    """The frames that a map names."""
    step = part.size if part.physical_step is None else part.physical_step
    last = first + (part.count - 1) * step
    if last >> physical_bits:
        raise ValueError(f"physical reaches {last:#x}, beyond MAXPHYADDR {physical_bits}")
    _refuse_below(frames, "physical", first)
    return np.uint64(first) + np.arange(part.count, dtype=np.uint64) * np.uint64(step)


def _leaf_of(entry: Entry, format: Format, tables: Span, frames: Span) -> Leaf | None:
    """The page that a raw entry maps, if it does; ValueError if it leads out of the tables."""
    if entry.value >> 8 * format.entry_bytes:
        raise ValueError(f"value is {entry.value:#x}, wider than {format.entry_bytes} bytes")
    decoded = format.decode(entry.value, entry.level)
    if isinstance(decoded, Pointer) and not tables.covers(
        Span.of(decoded.table.address, decoded.table.size)
    ):
        raise ValueError(f"value leads to {decoded.table}, outside of the tables in {tables}")
    if not isinstance(decoded, Leaf):
        return None
    _refuse_below(frames, "value", decoded.address)
    return decoded


def _refuse_below(frames: Span, key: str, address: int) -> None:
    if address < frames.first:
        raise ValueError(
            f"{key} has a page at {address:#x}; below {frames.first:#x} lie the machine's own"
            " memory and the tables"
        )


def _construct(
    layout: Layout,
    roots: tuple[Root, ...],
    memory: WritableMemory,
    tables: Span,
    pages: Mapping[str, Words],
) -> tuple[Space, ...]:
    """Builds everything; the roots are the first tables."""
    levels = _levels(roots)
    allocator = TableAllocator(memory, tables)
    served = [tuple(group) for _, group in groupby(roots, key=lambda root: root.table)]
    for first, *_ in served:
        allocator.allocate(first.table.format, first.table.level)
    spaces = tuple(Space(memory, group, allocator) for group in served)
    runs = list(_runs(layout, roots))
    for part in _at(levels, layout.maps):
        with _placing(part.where, runs):
            _map(_space_of(spaces, part.virtual), part, pages[part.where])
    for share in _at(levels, layout.shares):
        with _placing(share.where, runs):
            _share(_space_of(spaces, share.virtual), share)
    for entry in _at(levels, layout.entries):
        with _placing(entry.where, runs):
            _fill(_space_of(spaces, entry.virtual), entry.virtual, entry.level, entry.value)
    return spaces


def _space_of(spaces: tuple[Space, ...], address: int) -> Space:
    """The space in which an address has a place, or the first, which says that it has none."""
    here = (space for space in spaces if any(address in root.span for root in space.roots))
    return next(here, spaces[0])


@contextmanager
def _placing(where: str, runs: Sequence[bounds.Run]) -> Iterator[None]:
    """As `_blaming`, and names the part that has put something there before."""
    with _blaming(where):
        try:
            yield
        except Taken as error:
            number = [run.where for run in runs].index(where)
            met = [run.where for run in runs[:number] if run.meets(runs[number])]
            raise ValueError(f"{error}, put there by {met[0]}" if met else str(error)) from None


def _map(space: Space, part: Map, frames: Words) -> None:
    format = space.format
    level = _page_level(format, part.size)
    rights = format.rights if part.rights is None else part.rights
    bits = format.granting(*rights) | _named_bits(format, level, part.bits)
    table_bits = _table_bits(format, 1, part.table_rights)
    step = part.step or part.size
    together = part.count if step == part.size else 1
    for page in range(0, part.count, together):
        first = Virtual(part.virtual + page * step)
        # No processor has seen these tables.
        space.map(first, frames[page : page + together], level, bits, table_bits).done()


def _share(space: Space, share: Share) -> None:
    format = space.format
    level, table = len(format.levels) - 1, space.roots[0].table
    if share.level is not None and share.like is not None:
        level, table = share.level, _table_for(space, share.like, share.level - 1)
    pointer = format.pointer(table.address, level, _table_bits(format, level, share.rights))
    for slot in range(share.count):
        _fill(space, share.virtual + slot * format.levels[level].size, level, pointer)


def _table_bits(format: Format, level: int, rights: Iterable[str] | None) -> int:
    """The bits of a pointer that gives these rights, all unless given, as far as pointers take
    part."""
    shape = format.levels[level].pointer
    given = format.rights if rights is None else rights
    return 0 if shape is None else format.granting_in(shape, *given)


def _table_for(space: Space, address: int, level: int) -> Table:
    """The table at `level` that the walk of an address uses."""
    for root in space.roots:
        if address in root.span:
            for step in walk(space.memory, root, Virtual(address)).steps:
                if step.slot.level == level:
                    return step.slot.table
    raise ValueError(f"like is {address:#x}, whose walk uses no table at level {level}")


def _fill(space: Space, address: int, level: int, raw: int) -> None:
    """Puts a raw entry where nothing is yet."""
    size = space.format.levels[level].size
    if not aligned(address, size):
        raise ValueError(
            f"virtual is {address:#x}; a slot at level {level} begins at a multiple of {size:#x}"
        )
    slot = space.slot(Virtual(address), level)
    if (there := space.read(slot)) != space.format.levels[level].empty:
        raise Taken(f"virtual {address:#x} is taken: its level-{level} entry is {there:#x}")
    space.write(slot, raw)


def _page_level(format: Format, size: int) -> int:
    """The level whose leaves are pages of `size` bytes."""
    sizes = {format.levels[level].size: level for level in format.page_levels()}
    if size not in sizes:
        known = ", ".join(map(in_units, sizes))
        raise ValueError(f"size is {in_units(size)}; pages of {format.name} have {known}")
    return sizes[size]


def _check_level(format: Format, level: int) -> None:
    if level >= len(format.levels):
        raise ValueError(f"level is {level}; {format.name} has 0 to {len(format.levels) - 1}")


def _named_bits(format: Format, level: int, names: Iterable[str]) -> int:
    """The bits of an entry by their names, those of fields by NAME=VALUE as well; rights are not
    among them."""
    here = format.levels[level]
    known = {name: mask for name, mask in here.bits.items() if not mask & format.rights_mask}
    bits = named = 0
    for one in names:
        name, given, value = (part.strip() for part in one.partition("="))
        if name not in known:
            raise ValueError(
                f"bits has {one!r}; a {here.name} has {', '.join(known)}, and rights say the rest"
            )
        mask = known[name]
        raw = _value(one, value, mask) if given else mask
        if named & mask and bits & mask != raw:
            raise ValueError(f"bits has {one!r}, and another value of {name}")
        bits, named = bits | raw, named | mask
    return bits


def _value(one: str, value: str, mask: int) -> int:
    """The bits of a field that has a value."""
    lowest = mask & -mask
    try:
        number = int(value, 0)
    except ValueError:
        number = -1
    if not 0 <= number <= mask // lowest:
        raise ValueError(f"bits has {one!r}, which is no value from 0 to {mask // lowest}")
    return number * lowest
