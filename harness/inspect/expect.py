"""What tables are meant to say, and where they say something else.

A proof on a machine shows that it reads tables by the rules, not that they say what was meant.
That is said here: what each address must grant and to whom, where it must lead, and that nothing
else is mapped.  In Python by addresses or spans, and what is expected of each::

    {
        Span.of(0x40_0000, 64 << 10): ("ur-x", 0x500_0000),  # rights, and where it leads
        Span.of(0x7FFF_FFFF_0000, 32 << 10): "urw-",
        0xFFFF_8000_0000_0000: {"user": "", "supervisor": "rw", "page": "2M"},  # keys of the file
        0x1000: None,                                        # nothing is mapped there
    }

or in a TOML file, in the words of layouts (`harness.check.layouts`).  This one uses every key::

    title = "What the kernel maps"   # for people
    strict = true                    # nothing else is mapped; false by default
    pat = 0x407050600070106          # x86: IA32_PAT; that after a reset by default

    [[expect]]
    virtual = 0x40_0000              # the first address
    size = "4K"                      # of a page; the smallest by default
    count = 16                       # how many pages, 1 by default
    rights = "ur-x"                  # the effective ones, as `pagetable dump` has them
    physical = 0x500_0000            # where the first address leads, and the others behind it
    page = "4K"                      # in pages of this size
    type = "WB"                      # of this memory type
    bits = ["G"]                     # with these bits in the page's entry, and none of the other
                                     # named ones: rights, A, D, and those of the type aside; of
                                     # RISC-V's pages G counts in any entry on the way
    levels = [4, 5]                  # left out at other numbers of levels

    [[expect]]
    virtual = 0xffff_8000_0000_0000
    size = "64M"
    user = ""                        # by who makes an access: all that the user can do,
    supervisor = "rw"                # and the supervisor

    [[expect]]
    virtual = 0x0
    absent = true                    # nothing is mapped there

Every key but `virtual` is optional, and what is not said is not asked.  With `user` and
`supervisor` it is whether an access faults in this state of the processor.  `rights` asks about
both: the user can do what its letters say, and the supervisor what the rules then leave it, with
SMEP, SMAP, LASS and WP as they are, or on RISC-V SUM and MXR.  Letters, types, bits and numbers of
levels are those of the architecture whose tables they are about.
"""

from __future__ import annotations

import re
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.architectures import USUAL
from harness.check import written
from harness.check.compare import Access
from harness.check.keys import READERS, Reader, flag, in_units, names_in, values_of
from harness.check.layouts import described
from harness.inspect import architecture, graph, select, translation
from harness.inspect.architecture import Types
from harness.inspect.graph import with_lasting
from harness.inspect.lacking import lacking
from harness.inspect.remedy import Missing
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.bits import withheld
from harness.paging.bulk import Bytes, Counts, End, Leaves, Walks
from harness.paging.entry import Leaf
from harness.paging.memory import Mask, Memory, Words, within
from harness.paging.processor import Cpu

LETTERS: Final = {"r": "read", "w": "write", "x": "fetch"}
"""What the letters of `user` and `supervisor` stand for."""

MOST: Final = 1 << 24
"""Entries of a space, each counted at all its addresses, that can be compared: 64 GiB of 4K
pages."""


@cache
def accesses_of(arch: str) -> Mapping[Access, tuple[bool, str]]:
    """The accesses that are asked about, in the order in which they are shown, and of each whether
    the user makes it and what it does, as LETTERS has it."""
    asked = architecture.named(arch)
    return {
        access: (user, kind)
        for user in (True, False)
        for kind in LETTERS.values()
        for access in asked.accesses(kind, user, False)
    }


Kinds = frozenset[str]
What = str | tuple[str, int] | Mapping[str, object] | None
Where = int | Span
Wanted = Mapping[Any, What] | str | Path
"""Expectations as they are written: in Python by Where, or the path of a file."""


# ---- as they are written ----


_KINDS: Final = re.compile(r"r?w?x?|[r-][w-][x-]")


def _letters(arch: str) -> str:
    """The letters of rights, in the order in which `pagetable dump` prints them."""
    return "".join(dict.fromkeys(("u", "r", "w", "x", *described(arch).rights)))


def _rights_of(arch: str) -> Reader:
    """Reads rights as `pagetable dump` prints them, or as layouts have them: as the former."""
    known, letters = described(arch).rights, _letters(arch)
    short, full = ("".join(part.format(one) for one in letters) for part in ("{}?", "[{}-]"))
    pattern = re.compile(f"{short}|{full}")

    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value):
            urx = "".join(one if one in "urx" else "-" for one in letters)
            raise ValueError(
                f"no rights: write {', '.join(letters[:-1])} and {letters[-1]} in this order, like"
                f" urx, or with - for what is missing, like {urx}"
            )
        if not set(value) - {"-"}:
            raise ValueError(
                "and every page can be read: where nothing is mapped, say so with absent"
                if "r" not in known
                else "and every page has some: where nothing is mapped, say so with absent"
            )
        # What no entry can withhold is there whether or not it is named.
        kept = {*value, *(() if "r" in known else "r")}
        return "".join(one if one in kept else "-" for one in letters)

    return read


def _kinds(value: object) -> Kinds:
    if not isinstance(value, str) or not _KINDS.fullmatch(value):
        raise ValueError(
            "no accesses: write r, w and x in this order, like rx, or with - for what is missing,"
            " like r-x"
        )
    return frozenset(kind for letter, kind in LETTERS.items() if letter in value)


def _type_of(arch: str) -> Reader:
    names = architecture.named(arch).memory_types.NAMES

    def read(value: object) -> str:
        if value not in names:
            raise ValueError(f"no memory type: there are {', '.join(names)}")
        return str(value)

    return read


def _address(value: object) -> object:
    found = READERS["value"](value)
    if isinstance(found, int) and found >> 64:
        raise ValueError("wider than 64 bits")
    return found


@cache
def _readers(arch: str) -> Mapping[str, Reader]:
    """How to read the value of each key, where that is not as in layouts."""
    return {
        **dict.fromkeys(("virtual", "physical", "pat"), _address),
        "rights": _rights_of(arch),
        **dict.fromkeys(("user", "supervisor"), _kinds),
        "bits": names_in(described(arch).former),
        "page": READERS["size"],
        "type": _type_of(arch),
        **dict.fromkeys(("absent", "strict"), flag),
    }


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What is expected of some addresses.  The fields are the keys of the file; sizes are in bytes,
    and None is not asked.

    where   the place in the file, for people
    rights  as `pagetable dump` prints them
    """

    where: str = ""
    virtual: int
    size: int | None = None
    count: int = 1
    rights: str | None = None
    user: Kinds | None = None
    supervisor: Kinds | None = None
    physical: int | None = None
    page: int | None = None
    type: str | None = None
    bits: tuple[str, ...] | None = None
    absent: bool = False
    levels: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        said = [name for name in SAYING if getattr(self, name) is not None]
        if self.absent and said:
            raise ValueError(f"absent is true, and so {said[0]} can be nothing")
        if not self.absent and not said:
            raise ValueError(f"this asks nothing: say absent = true, or {' or '.join(SAYING)}")
        if self.rights is not None and not (self.user is None and self.supervisor is None):
            raise ValueError("rights say what user and supervisor can do: write it once")
        if self.virtual + (self.size or 1) * self.count > 1 << 64:
            raise ValueError("the addresses go beyond 64 bits")

    def part(self, cpu: Cpu) -> Cpu:
        """The state whose tables translate its addresses, which have one format."""
        found: Cpu = architecture.of(cpu).part(cpu, self.virtual)
        return found

    def applies(self, cpu: Cpu) -> bool:
        """Whether tables of so many levels as these are to meet it."""
        return not self.levels or self.part(cpu).levels in self.levels

    def span(self, cpu: Cpu) -> Span:
        """The addresses."""
        smallest = self.part(cpu).format.levels[0].size
        return Span.of(self.virtual, (self.size or smallest) * self.count)

    def allows(self, cpu: Cpu) -> dict[Access, bool]:
        """Which accesses are to be allowed, and which denied; those that are not asked are left
        out."""
        known = accesses_of(cpu.architecture)
        if self.rights is None:
            by = {True: self.user, False: self.supervisor}
            return {
                one: kind in kinds
                for one, (user, kind) in known.items()
                if (kinds := by[user]) is not None
            }
        denied, granted = architecture.of(cpu).denied, self.granted(cpu)
        there, at = cpu.format.rights, Virtual(self.virtual)
        # A right for which entries have no bit is given all the same: by the rules it is no one's.
        given = {
            kind
            for letter, kind in LETTERS.items()
            if letter in self.rights or described(cpu.architecture).rights.get(letter) in there
        }
        return {
            one: kind in given and denied(cpu, one, granted, None) is None
            if user
            else denied(cpu, one, granted, at) is None
            for one, (user, kind) in known.items()
        }

    def denial(self, cpu: Cpu, accesses: Iterable[Access]) -> str:
        """That accesses are to be denied, and what of the processor's state takes the rights of a
        user's page from the supervisor."""
        if self.rights is None:
            return "denied"
        asked, granted = architecture.of(cpu), self.granted(cpu)
        rules = {asked.denied(cpu, one, granted, None) for one in accesses}
        by = [name for rule, name in asked.bars.items() if rule in rules]
        return " by ".join(filter(None, ("denied", " and ".join(by))))

    def granted(self, cpu: Cpu) -> int:
        """The rights, as bits of the format."""
        assert self.rights is not None
        known, names = cpu.format.rights, described(cpu.architecture).rights
        given = {names[letter] for letter in self.rights if letter in names}
        return sum(known[name] for name in given if name in known)

    def __str__(self) -> str:
        if self.absent:
            return "nothing mapped"
        said = []
        if self.rights is not None:
            said.append(self.rights)
        for who, kinds in (("user", self.user), ("supervisor", self.supervisor)):
            if kinds is not None:
                letters = (one if kind in kinds else "-" for one, kind in LETTERS.items())
                said.append(f"{who} {''.join(letters)}")
        if self.physical is not None:
            said.append(f"physical {self.physical:#x}")
        if self.page is not None:
            said.append(f"pages of {in_units(self.page)}")
        if self.type is not None:
            said.append(f"type {self.type}")
        if self.bits is not None:
            said.append(f"bits {' '.join(self.bits) or 'none'}")
        return ", ".join(said)


_KEYS: Final = tuple(field.name for field in fields(Expect) if field.name != "where")
SAYING: Final = ("rights", "user", "supervisor", "physical", "page", "type", "bits")
"""The keys that say what is expected of pages."""


@dataclass(frozen=True)
class Expectations:
    """What is expected of a space.

    strict  whether nothing else may be mapped
    pat     the register that has the memory types; None for its value after a reset
    """

    expects: tuple[Expect, ...]
    strict: bool = False
    pat: int | None = None

    def at(self, cpu: Cpu) -> tuple[Expect, ...]:
        """Those that tables of so many levels as a state's are to meet."""
        return tuple(one for one in self.expects if one.applies(cpu))


def expectations(
    wanted: Wanted | Expectations, strict: bool = False, arch: str = USUAL
) -> Expectations:
    """Reads expectations of an architecture's tables; with `strict` nothing else may be mapped,
    whatever a file says.

    Raises QuestionError where they cannot be read.
    """
    if isinstance(wanted, Mapping):
        found = Expectations(tuple(_written(where, what, arch) for where, what in wanted.items()))
    elif isinstance(wanted, Expectations):
        found = wanted
    elif isinstance(wanted, str | Path):
        found = load(wanted, arch)
    else:
        raise QuestionError(f"{reprlib.repr(wanted)} is neither a mapping nor the path of a file")
    return replace(found, strict=found.strict or strict)


def _written(where: Where, what: What, arch: str) -> Expect:
    """One expectation that is written in Python."""
    if not isinstance(where, Span | int | np.integer) or isinstance(where, bool):
        raise QuestionError(f"expect {reprlib.repr(where)}: this is neither an address nor a span")
    place = str(where) if isinstance(where, Span) else f"{where:#x}"
    table: dict[str, object] = {"virtual": _plain(where)}
    if isinstance(where, Span):
        table |= {"virtual": where.first, "size": where.size}
    if what is None:
        table["absent"] = True
    elif isinstance(what, str):
        table["rights"] = what
    elif isinstance(what, Mapping):
        table |= {key: _plain(value) for key, value in what.items()}
    elif isinstance(what, tuple) and len(what) == 2:
        table["rights"], table["physical"] = what[0], _plain(what[1])
    else:
        raise QuestionError(
            f"expect {place}: this is {reprlib.repr(what)}: write rights, (rights, physical),"
            " a mapping of keys, or None where nothing is mapped"
        )
    return _of_table(table, f"expect {place}", "", arch, whole=not isinstance(where, Span))


def _plain(value: object) -> object:
    """A number of Python's, where it is one of numpy's."""
    return int(value) if isinstance(value, np.integer) else value


def load(path: str | Path, arch: str = USUAL) -> Expectations:
    """Reads a file of expectations of an architecture's tables; QuestionError where it cannot be
    read or is none."""
    try:
        text = written.text(path)
    except ValueError as error:
        raise QuestionError(str(error)) from None
    return parse(text, str(path), arch)


def parse(text: str, origin: str, arch: str = USUAL) -> Expectations:
    """Reads expectations from the text of a file; `origin` is the file's path, for messages."""
    try:
        top = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise QuestionError(f"{origin} is not TOML: {error}") from None
    tables = top.pop("expect", [])
    try:
        head = values_of(top, ("title", "strict", "pat", "expect"), (), _readers(arch))
        architecture.named(arch).memory_types.types(head.get("pat"), None)
    except ValueError as error:
        raise QuestionError(f"{origin}: {error}") from None
    if not isinstance(tables, list):
        raise QuestionError(f"{origin}: expect is not a list of tables: write [[expect]]")
    found = tuple(
        _of_table(
            table, f"{origin}, expect {number}", f"{Path(origin).name}, expect {number}", arch
        )
        for number, table in enumerate(tables, 1)
    )
    if not found and not head.get("strict"):
        raise QuestionError(f"{origin} expects nothing: write an [[expect]], or strict = true")
    return Expectations(found, head.get("strict", False), head.get("pat"))


def _of_table(table: object, place: str, where: str, arch: str, whole: bool = True) -> Expect:
    """One expectation; `whole` of pages alone, and not of some of their bytes."""
    asked = architecture.named(arch)
    try:
        found = Expect(where=where, **values_of(table, _KEYS, ("virtual",), _readers(arch)))
        if no_mode := sorted(set(found.levels) - asked.levels):
            known = ", ".join(map(str, sorted(asked.levels)))
            raise ValueError(f"levels has {no_mode[0]}: tables have one of {known}")
    except ValueError as error:
        raise QuestionError(f"{place}: {error}") from None
    if whole and (found.size or 0) % asked.smallest_page:
        raise QuestionError(
            f"{place}: size is {in_units(found.size or 0)}, no whole number of"
            f" {in_units(asked.smallest_page)}, the smallest page"
        )
    return found


# ---- and compared ----


@dataclass(frozen=True)
class Unmet:
    """Addresses that are not as expected, all in the same way.

    expect    what was expected of them; None of what no expectation names
    address   the first of them
    access    one that shows it
    wanted    what was expected there, a phrase
    size      how many bytes are so
    also      other accesses that show it at the same addresses
    change    what the page's entry would have to hold; None where one entry cannot mend it
    does      what that does, a phrase
    missing   where nothing is mapped: the entries that must be made, the page's own the last
    instead   another address that leads where this one should, and whose index differs at one level
    ranges    where it is so, for what no expectation names: addresses, effective rights as bits
              of the format, and the first frame
    """

    expect: Expect | None
    address: Virtual
    access: Access
    wanted: str
    size: int
    also: tuple[Access, ...] = ()
    change: int | None = None
    does: str = ""
    instead: str = ""
    missing: Missing | None = None
    ranges: tuple[tuple[Span, int, int], ...] = ()


def unmet(snapshot: Snapshot, meant: Expectations, aside: Sequence[Span] = ()) -> tuple[Unmet, ...]:
    """Where the tables of a snapshot say something else than was meant.

    aside  addresses that are not the program's, such as those of a stub that runs beside it

    Raises QuestionError for addresses that the processor does not translate, for what its format
    has no word for, and for spaces of more than MOST entries.
    """
    cpu = snapshot.cpu
    leaves = bulk.leaves(snapshot.memory, cpu.roots, limit=MOST)
    if not leaves.complete:
        raise QuestionError(
            f"the space has {leaves.total:,} entries, each counted at all its addresses: no more"
            f" than {MOST:,} are compared with what is expected"
        )
    for span in aside:
        leaves = leaves.take(~within(leaves.virtual, span))
    here = meant.at(cpu)
    if not here and meant.expects and not meant.strict:
        raise QuestionError(
            f"every expectation has levels, and none of them {cpu.levels}, which these tables have:"
            " nothing is expected of them"
        )
    spans = architecture.of(cpu).addresses(cpu)
    lost = architecture.not_given(snapshot)
    for expect in here:
        _check(expect.part(cpu), expect, spans, lost)
    found: list[Unmet] = []
    for part in architecture.of(cpu).parts(cpu):
        own = [expect for expect in here if expect.part(cpu) == part]
        _check_together(part, own)
        beside = leaves.take(within(leaves.virtual, *(root.span for root in part.roots)))
        types = architecture.of(part).memory_types.types(meant.pat, part)
        pages = _Pages(part, snapshot.memory, beside, types)
        for expect in own:
            found += pages.unlike(expect)
        if meant.strict:
            found += pages.unnamed(own)
    return tuple(found)


def places(cpu: Cpu, meant: Expectations) -> Words:
    """The first and the last address of each expectation, for a machine to be asked about."""
    here = [one.span(cpu) for one in meant.at(cpu)]
    return np.array([end for span in here for end in (span.first, span.last)], np.uint64)


def _check(cpu: Cpu, expect: Expect, spans: Sequence[Span], lost: Sequence[str]) -> None:
    """Raises QuestionError for what cannot be asked of this processor, which translates `spans`;
    `lost` are the registers of roots that are not given."""
    span, place = expect.span(cpu), expect.where or "expect"
    smallest = cpu.format.levels[0].size
    if not any(one.covers(span) for one in spans):
        there = " and ".join(map(str, spans))
        more = f"; the addresses behind --{' and --'.join(lost)} are unknown" if lost else ""
        raise QuestionError(f"{place}: {span} are no addresses here: those are {there}{more}")
    if span.first % smallest and not span.size % smallest:
        raise QuestionError(
            f"{place}: virtual is {span.first:#x}, inside a page: write"
            f" {span.first - span.first % smallest:#x}, where it begins"
        )
    sizes = {here.page_size(shape) for here in cpu.format.levels for shape in here.pages}
    if expect.page is not None and expect.page not in sizes:
        known = ", ".join(map(in_units, sorted(sizes)))
        raise QuestionError(
            f"{place}: page is {in_units(expect.page)}; pages of {cpu.format.name} have {known}"
        )
    page = expect.page or smallest
    if expect.physical is not None and (expect.physical - span.first) % page:
        raise QuestionError(
            f"{place}: physical is {expect.physical:#x}, and no page of {in_units(page)} leads"
            f" there from {span.first:#x}: both lie at the same place in it"
        )
    if expect.physical is not None and (last := expect.physical + span.size - 1) > _highest(cpu):
        raise QuestionError(
            f"{place}: physical {expect.physical:#x}..{last:#x} is nowhere: pages of"
            f" {cpu.format.name} lead to {_highest(cpu):#x} at most"
        )
    for name in expect.bits or ():
        if not any(name in _single(cpu, level) for level in cpu.format.page_levels()):
            known = ", ".join(_single(cpu, 0))
            raise QuestionError(
                f"{place}: bits has {name!r}; a page of {cpu.format.name} has {known}"
            )


def _check_together(cpu: Cpu, expects: Sequence[Expect]) -> None:
    """Raises QuestionError where two expectations of the same addresses cannot both be met."""
    open_: list[Expect] = []
    for one in sorted(expects, key=lambda each: each.virtual):
        open_ = [other for other in open_ if other.span(cpu).last >= one.virtual]
        for other in open_:
            if not _agree(cpu, one, other):
                both = one.span(cpu).clip(other.span(cpu))
                raise QuestionError(
                    f"{both} are expected to be {_told(cpu, other)}, and {_told(cpu, one)}: both"
                    " cannot be"
                )
        open_.append(one)


def _told(cpu: Cpu, expect: Expect) -> str:
    return f"{expect} ({expect.where or expect.span(cpu)})"


def _agree(cpu: Cpu, one: Expect, other: Expect) -> bool:
    """Whether both can be met at the addresses that they share."""
    if one.absent or other.absent:
        return one.absent and other.absent
    mine, theirs = one.allows(cpu), other.allows(cpu)
    if any(mine[access] != theirs[access] for access in mine.keys() & theirs.keys()):
        return False
    for name in ("rights", "page", "type"):
        values = {getattr(one, name), getattr(other, name)} - {None}
        if len(values) > 1:
            return False
    if one.bits is not None and other.bits is not None and {*one.bits} != {*other.bits}:
        return False
    if one.physical is None or other.physical is None:
        return True
    return one.physical - one.virtual == other.physical - other.virtual


def _highest(cpu: Cpu) -> int:
    """The highest physical address that a page can lead to."""
    shapes = [(here.leaf, here.size) for here in cpu.format.levels if here.leaf is not None]
    return max(shape.address_of(~0) | size - 1 for shape, size in shapes)


def _single(cpu: Cpu, level: int) -> dict[str, int]:
    """The named bits of a page at a level that an expectation can be about."""
    found = select.fields(cpu.format, level)
    return {name: mask for name, mask in found.items() if mask.bit_count() == 1}


class _Pages:
    """All that a space holds, in order of addresses, beside what was meant.

    A row is a page, or a malformed entry, or a table outside memory.
    """

    def __init__(self, cpu: Cpu, memory: Memory, leaves: Leaves, types: Types) -> None:
        self._cpu, self._memory, self._types = cpu, memory, types
        self._asked = architecture.of(cpu)
        self._accesses = accesses_of(cpu.architecture)
        self._usual = next(one for one, (user, _) in self._accesses.items() if not user)
        self._rows = leaves.take(np.argsort(leaves.virtual, kind="stable"))
        self._last = _last(cpu, self._rows)
        self._is_page: Mask = self._rows.end == End.LEAF
        # What a table outside memory holds is not known: something may be mapped there.
        self._may_map: Mask = self._is_page | (self._rows.end == End.UNBACKED)

    def unlike(self, expect: Expect) -> Iterator[Unmet]:
        """In what the addresses of an expectation are not so."""
        part = self._part(expect.span(self._cpu))
        if expect.absent:
            here = self._may_map[part.rows]
            yield from self._wrong(expect, part, here, "nothing mapped", self._unmapping)
            return
        yield from self._gap(expect, part)
        yield from self._wrongly_judged(expect, part)
        rows, page = self._rows, self._is_page[part.rows]
        if expect.physical is not None:
            reached = rows.physical[part.rows] + (part.first - rows.virtual[part.rows])
            meant = np.uint64(expect.physical) + (part.first - np.uint64(expect.virtual))
            yield from self._wrong(expect, part, page & (reached != meant), "", self._leading)
        if expect.page is not None:
            other = page & (self._page_size(part.rows) != np.uint64(expect.page))
            yield from self._wrong(expect, part, other, f"a {in_units(expect.page)} page", None)
        if expect.type is not None:
            other = page & (self._type(part.rows) != expect.type)
            yield from self._wrong(expect, part, other, f"type {expect.type}", self._of_type)
        if expect.bits is not None:
            other = page & self._other_bits(expect, part.rows)
            bits = f"the bits {' '.join(expect.bits) or '(none)'}"
            if (other & self._lasting[part.rows]).any():
                bits += f" ({self._inherited} of any entry on the way counts)"
            yield from self._wrong(expect, part, other, bits, self._with_bits)

    def unnamed(self, expects: Sequence[Expect]) -> Iterator[Unmet]:
        """What no expectation names."""
        covers = _covers([one.span(self._cpu) for one in expects if not one.absent])
        rows, begins, ends = self._uncovered(np.flatnonzero(self._may_map), *covers)
        if not len(rows):
            return
        ranges = tuple(self._ranges(rows, begins, ends))
        row, address = int(rows[0]), int(begins[0])
        yield Unmet(
            None,
            Virtual(address),
            self._passing(row, address),
            "nothing mapped",
            sum(span.size for span, *_ in ranges),
            (),
            *self._unmapping(None, row, address),
            ranges=ranges,
        )

    # Parts of the space.

    def _part(self, span: Span) -> _Part:
        rows = self._rows
        start = np.searchsorted(self._last, np.uint64(span.first), "left")
        stop = np.searchsorted(rows.virtual, np.uint64(span.last), "right")
        own = slice(int(start), int(stop))
        first = np.maximum(rows.virtual[own], np.uint64(span.first))
        return _Part(span, own, first, np.minimum(self._last[own], np.uint64(span.last)))

    def _uncovered(self, rows: Counts, first: Words, last: Words) -> tuple[Counts, Words, Words]:
        """The parts of rows beside the covers whose first and last addresses these are: the row,
        the first and the last address of each.

        A row with n covers in it has n + 1 places for a part: before, between and behind them.
        """
        own_first, own_last = self._rows.virtual[rows], self._last[rows]
        start = np.searchsorted(last, own_first, "left")
        n = np.searchsorted(first, own_last, "right") - start
        place = np.arange(int((n + 1).sum())) - np.repeat(np.cumsum(n + 1) - (n + 1), n + 1)
        rows, start, own_first, own_last, n = (
            np.repeat(lanes, n + 1) for lanes in (rows, start, own_first, own_last, n)
        )
        # One more at each end, for the place before the first cover and that behind the last.
        before = np.insert(last, 0, 0)[start + place]
        behind = np.append(first, np.uint64(0))[start + place]
        at_first, at_last = place == 0, place == n
        there = (at_first | (before < own_last)) & (at_last | (behind > own_first))
        begins = np.where(at_first, own_first, before + np.uint64(1))
        ends = np.where(at_last, own_last, behind - np.uint64(1))
        return rows[there], begins[there], ends[there]

    def _ranges(self, rows: Counts, begins: Words, ends: Words) -> Iterator[tuple[Span, int, int]]:
        """Some rows as ranges: neighbours with the same effective rights and frames that follow
        each other, with these rights and the first frame."""
        physical = self._rows.physical[rows] + (begins - self._rows.virtual[rows])
        effective = architecture.effective(
            self._cpu, self._rows.granted[rows], self._rows.raw[rows]
        )
        new = np.ones(len(rows), np.bool_)
        size = ends - begins + np.uint64(1)
        new[1:] = (begins[1:] != ends[:-1] + np.uint64(1)) | (effective[1:] != effective[:-1])
        new[1:] |= physical[1:] != physical[:-1] + size[:-1]
        starts = np.flatnonzero(new)
        stops = np.append(starts[1:], len(rows)) - 1
        for one, stop in zip(starts.tolist(), stops.tolist(), strict=True):
            yield Span(int(begins[one]), int(ends[stop])), int(effective[one]), int(physical[one])

    # What is wrong with them.

    def _gap(self, expect: Expect, part: _Part) -> Iterator[Unmet]:
        """What is not mapped and was to be.

        Entries that no access passes map nothing.  Where accesses are wanted they are left to
        `_wrongly_judged`, which has the reason.
        """
        allows = expect.allows(self._cpu)
        wanted = [access for access, allowed in allows.items() if allowed]
        pages = any(getattr(expect, name) is not None for name in _OF_PAGES)
        covering = self._is_page[part.rows] | bool(wanted)
        covered = part.size(covering)
        if covered == part.span.size or not (wanted or pages):
            return
        address, begins, ends = part.span.first, part.first[covering], part.last[covering]
        after = np.flatnonzero(begins[1:] > ends[:-1] + np.uint64(1))
        if len(begins) and int(begins[0]) == address:
            address = int(ends[after[0] if len(after) else -1]) + 1
        first, *also = wanted or [self._usual]
        missing, change = lacking(
            self._cpu, self._memory, expect, Virtual(address), self._types
        ) or (None, None)
        yield Unmet(
            expect,
            Virtual(address),
            first,
            "allowed" if wanted else "a page",
            part.span.size - covered,
            tuple(also),
            change,
            instead=self._instead(expect, address),
            missing=missing,
        )

    def _wrongly_judged(self, expect: Expect, part: _Part) -> Iterator[Unmet]:
        """Accesses that pass and were not to, or the other way round."""
        found: dict[tuple[bool, int, bytes], list[Access]] = {}
        lanes: dict[tuple[bool, int, bytes], Mask] = {}
        for access, allowed in expect.allows(self._cpu).items():
            passes, unknown, reason = self._judged(access, part)
            wrong = unknown | (~passes if allowed else passes)
            if wrong.any():
                key = (allowed, int(reason[wrong.argmax()]), wrong.tobytes())
                found.setdefault(key, []).append(access)
                lanes[key] = wrong
        for key, (access, *also) in found.items():
            allowed, wrong = key[0], lanes[key]
            row, address = part.at(wrong)
            change = None if allowed else self._withholding(access, row)
            yield Unmet(
                expect,
                address,
                access,
                "allowed" if allowed else expect.denial(self._cpu, (access, *also)),
                part.size(wrong),
                tuple(also),
                *(change or (None, "")),
            )

    def _judged(self, access: Access, part: _Part) -> tuple[Mask, Mask, Bytes]:
        """Which rows let an access pass, of which that is not known, and why they deny it."""
        rows, own = self._rows, part.rows
        granted = rows.granted[own]
        walks = Walks(
            address=part.first,
            end=rows.end[own],
            level=rows.level[own],
            raw=rows.raw[own],
            physical=rows.physical[own],
            granted=granted,
            above=granted,
        )
        return self._asked.judged(self._cpu, walks, access)

    def _wrong(
        self, expect: Expect, part: _Part, wrong: Mask, wanted: str, change: _Change | None
    ) -> Iterator[Unmet]:
        if not wrong.any():
            return
        row, address = part.at(wrong)
        made = change(expect, row, address) if change is not None else (None, "")
        instead = ""
        if expect.physical is not None and not wanted:
            wanted = f"to reach {expect.physical + address - expect.virtual:#x}"
            instead = self._instead(expect, address)
        access = self._passing(row, address)
        yield Unmet(expect, address, access, wanted, part.size(wrong), (), *made, instead)

    def _passing(self, row: int, address: int) -> Access:
        """An access that passes at a row; a read by the supervisor where none does."""
        at = np.array([address], np.uint64)
        part = _Part(Span.of(address, 1), slice(row, row + 1), at, at)
        passing = (one for one in self._accesses if self._judged(one, part)[0][0])
        return next(passing, self._usual)

    def _type(self, own: slice) -> npt.NDArray[np.str_]:
        """The memory types of rows."""
        level, raw = self._rows.level[own], self._rows.raw[own]
        index = np.zeros(len(raw), np.uint8)
        for number, here in enumerate(self._cpu.format.levels):
            found = self._asked.memory_types.index(here, raw[level == number])
            index[level == number] = found
        return np.array(self._types)[index]

    def _page_size(self, own: slice) -> Words:
        """The bytes of the pages of rows."""
        level, raw = self._rows.level[own], self._rows.raw[own]
        sizes = np.array([here.size for here in self._cpu.format.levels], np.uint64)[level]
        for number, here in enumerate(self._cpu.format.levels):
            for shape in here.groups:
                group = (level == number) & bulk.matches(shape.when, raw)
                sizes[group] = here.page_size(shape)
        return sizes

    def _other_bits(self, expect: Expect, own: slice) -> Mask:
        """Which rows have other bits than an expectation has."""
        level, raw = self._rows.level[own], self._rows.raw[own]
        raw = with_lasting(self._cpu.format, raw, self._lasting[own])
        other = np.zeros(len(raw), np.bool_)
        for number in self._cpu.format.page_levels():
            mask, value = self._bits(expect, number)
            other |= (level == number) & (raw & np.uint64(mask) != np.uint64(value))
        return other

    @cached_property
    def _lasting(self) -> Mask:
        """Which rows a pointer on the way makes global, whatever their own entries say."""
        found = np.zeros(len(self._rows.virtual), np.bool_)
        if self._inherited:
            tables = graph.read(self._memory, self._cpu.format, self._cpu.roots)
            for rows in graph.rows(tables, each=MOST + 1):
                found |= np.isin(self._rows.virtual, rows.virtual[rows.lasting])
        return found

    @property
    def _inherited(self) -> str:
        """The name of the bit that a page has of any pointer on the way; empty without one."""
        format = self._cpu.format
        if format.flushing is None or not format.flushing.lasting_tables:
            return ""
        return next(name for name, bit in _single(self._cpu, 0).items() if bit == format.lasting)

    def _bits(self, expect: Expect, level: int) -> tuple[int, int]:
        """The bits of a page at a level that an expectation is about, and those to be set."""
        named = _single(self._cpu, level)
        if expect.type is not None:
            other = self._asked.memory_types.BITS
            named = {name: mask for name, mask in named.items() if name not in other}
        wanted = expect.bits or ()
        return sum(named.values()), sum(mask for name, mask in named.items() if name in wanted)

    # What a page's entry would have to hold.

    def _entry(self, row: int) -> tuple[int, int, str]:
        """The entry of a row, its level, and how large the page is."""
        level = int(self._rows.level[row])
        return int(self._rows.raw[row]), level, in_units(self._cpu.format.levels[level].size)

    def _withholding(self, access: Access, row: int) -> tuple[int, str] | None:
        """The entry that denies an access by one bit; None without such a bit, or a page."""
        if not self._is_page[row]:
            return None
        raw, level, size = self._entry(row)
        format, granted = self._cpu.format, int(self._rows.granted[row])
        user, kind = self._accesses[access]
        for name, does in _WITHHOLDS[kind]:
            bit = format.rights.get(name.format("user" if user else "supervisor"), 0)
            if self._asked.denied(self._cpu, access, granted & ~bit, None) is None:
                continue
            changed = withheld(format, level, raw, bit)
            if isinstance(format.decode(changed, level), Leaf):
                return changed, does.format(size)
        return None

    def _unmapping(self, expect: Expect | None, row: int, address: int) -> tuple[int | None, str]:
        return (0, f"unmaps this {self._entry(row)[2]} page") if self._is_page[row] else (None, "")

    def _leading(self, expect: Expect, row: int, address: int) -> tuple[int | None, str]:
        raw, level, _ = self._entry(row)
        shape, base = self._cpu.format.levels[level].leaf, int(self._rows.virtual[row])
        assert shape is not None and expect.physical is not None
        meant = expect.physical + base - expect.virtual
        mask = sum(field.mask for field in shape.address)
        try:
            return raw & ~mask | shape.encode(meant), f"leads to {meant:#x}"
        except ValueError:  # such a page cannot lead there: it must be smaller
            return None, ""

    def _of_type(self, expect: Expect, row: int, address: int) -> tuple[int | None, str]:
        raw, level, _ = self._entry(row)
        bits, types = self._cpu.format.levels[level].bits, self._asked.memory_types
        if expect.type not in self._types:
            return None, ""
        other = sum(mask for name, mask in bits.items() if name in types.BITS)
        try:
            chosen = types.selecting(bits, self._types.index(expect.type))
        except ValueError:  # its entries have no types
            return None, ""
        return raw & ~other | chosen, f"gives it type {expect.type}"

    def _with_bits(self, expect: Expect, row: int, address: int) -> tuple[int | None, str]:
        raw, level, _ = self._entry(row)
        mask, value = self._bits(expect, level)
        if self._lasting[row] and mask & ~value & self._cpu.format.lasting:
            return None, ""  # it is a pointer that has it
        changed = {name: bit for name, bit in _single(self._cpu, level).items() if bit & mask}
        said = [
            f"{'sets' if value & bit else 'clears'} {name}"
            for name, bit in changed.items()
            if (raw ^ value) & bit
        ]
        return raw & ~mask | value, ", ".join(said)

    def _instead(self, expect: Expect, address: int) -> str:
        """Where the frame is that was expected at an address, if it is where an address leads of
        which one index is another: as where it is computed wrongly at one level."""
        if expect.physical is None:
            return ""
        meant = np.uint64(expect.physical + address - expect.virtual)
        rows = self._rows
        size = self._last - rows.virtual
        holds = self._is_page & (meant - rows.physical <= size)  # below, the difference wraps
        own = translation.split(self._cpu, address)
        for row in np.flatnonzero(holds)[:_LOOKED_AT].tolist():
            there = int(rows.virtual[row]) + int(meant) - int(rows.physical[row])
            split = zip(own, translation.split(self._cpu, there), strict=True)
            differing = [(mine, other) for mine, other in split if mine.value != other.value]
            if len(differing) == 1:
                mine, other = differing[0]
                level = "" if mine.level is None else self._cpu.format.number(mine.level)
                return (
                    f"{there:#x} leads to {int(meant):#x}: its {mine.name} index, at level"
                    f" {level}, is {other.value} where this address has {mine.value}"
                )
        return ""


_OF_PAGES: Final = ("rights", "physical", "page", "type", "bits")
"""The keys that something mapped is needed for."""

_LOOKED_AT: Final = 64
"""Addresses of a frame that are looked at for the one that was meant."""

_WITHHOLDS: Final = {
    "read": (
        ("user", "keeps this {} page for the supervisor"),
        ("read", "closes this {} page to reads"),
    ),
    "write": (("write", "closes this {} page to writes"),),
    "fetch": (
        ("execute", "closes this {} page to fetches"),
        ("{} execute", "closes this {} page to fetches"),
    ),
}
"""The rights that deny an access when they are withheld, and what that does; {} is by whom."""

_Change = Callable[[Expect, int, int], tuple[int | None, str]]


@dataclass(frozen=True)
class _Part:
    """The rows in a span, with the addresses of each that are in it."""

    span: Span
    rows: slice
    first: Words
    last: Words

    def at(self, chosen: Mask) -> tuple[int, Virtual]:
        """The number of the first row chosen, and its first address."""
        lane = int(chosen.argmax())
        return self.rows.start + lane, Virtual(int(self.first[lane]))

    def size(self, chosen: Mask) -> int:
        """Bytes in the rows chosen."""
        own = self.last[chosen] - self.first[chosen]
        return int(own.sum(dtype=np.uint64)) + len(own)


def _last(cpu: Cpu, rows: Leaves) -> Words:
    """The last address of each row, which are in order.

    The first slot of a table outside memory stands for those behind it, up to where there is
    something of the table that is in memory.
    """
    levels, upto = cpu.format.levels, rows.virtual.copy()
    for number, here in enumerate(levels):
        own, unbacked = rows.level == number, rows.end == End.UNBACKED
        upto[own & ~unbacked] += np.uint64(here.size - 1)
        upto[own & unbacked] |= np.uint64(here.size * here.entries - 1)
    for root in cpu.roots:
        first, last = np.uint64(root.span.first), np.uint64(root.span.last)
        own = (rows.virtual >= first) & (rows.virtual <= last)
        upto[own] = np.minimum(upto[own], last)
    upto[:-1] = np.minimum(upto[:-1], rows.virtual[1:] - np.uint64(1))
    return upto


def _covers(spans: Sequence[Span]) -> tuple[Words, Words]:
    """Spans in order, those joined that overlap or follow each other: first and last addresses."""
    joined: list[Span] = []
    for span in sorted(spans):
        if joined and span.first <= joined[-1].last + 1:
            joined[-1] = Span(joined[-1].first, max(joined[-1].last, span.last))
        else:
            joined.append(span)
    return (
        np.array([one.first for one in joined], np.uint64),
        np.array([one.last for one in joined], np.uint64),
    )
