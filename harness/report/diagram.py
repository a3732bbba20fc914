"""A walk as a picture: the fields of the address, and the entry that each picks in its table.

It is drawn as in the manuals: a column a level, slot 0 of a table at the bottom beside the
table's address.  Its style is `diagram.css`, which a page that shows many includes once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from string import Template
from textwrap import wrap
from typing import Final
from xml.etree import ElementTree

from harness.check.keys import in_units
from harness.paging.entry import Absent, Leaf, Malformed, Pointer
from harness.paging.format import Format, Level
from harness.paging.table import Slot
from harness.paging.walk import Step, Walk
from harness.report.text import (
    digit_runs,
    letters,
    marked_bits,
    meaning,
    table_name,
    walk_lines,
)
from harness.report.visible import visible

NAMESPACE: Final = "http://www.w3.org/2000/svg"

# All lengths are in the units of the picture, of which a column of text 7 high has 4.3 a letter.
MARGIN = 20
SIGN = 76
"""Width of the bits above those that are translated."""
COLUMN, GUTTER = 172, 38
"""From one column to the next, and what of it is left of the table."""
BOX = COLUMN - GUTTER
HEADING = 40
"""Height of the line with the address."""
FIELD_TOP, FIELD_HEIGHT = 62, 44
TABLE_TOP, TABLE_HEIGHT = 148, 176
FOOT, ROW = 22, 22
"""Heights of the line with a table's address, and of an entry."""
DETAILS_TOP = TABLE_TOP + TABLE_HEIGHT + FOOT + 26
LINE = 15
CHIP = 17
LETTER = 6.05
"""Width of a letter in a chip."""
BINARY_DIGITS = 16
"""Fields of at most this many bits are written out."""

NARROWEST: Final = 32
"""Bits of the shortest addresses: tables that translate fewer begin in several registers."""

BITS: Final = {
    "P": "present",
    "V": "valid",
    "R": "readable",
    "W": "writable",
    "U": "user",
    "PWT": "write-through",
    "PCD": "cache disable",
    "A": "accessed",
    "D": "dirty",
    "PS": "page, not table",
    "PAT": "memory type",
    "G": "global",
    "KEY": "protection key",
    "XD": "execute disable",
    "X": "executable",
    "PBMT": "memory type",
    "RSW": "for software",
    "N": "64K page",
    **{"AP[1]": "EL0 too", "AP[2]": "read-only", "AF": "accessed", "nG": "not global"},
    **{"PXN": "not executed by EL1", "UXN": "not executed by EL0", "DBM": "writable when dirty"},
    **{"EAA0": "privileged", "EAA1": "readable", "EAA2": "writable", "EAA3": "executable"},
    **{"C": "changed", "ATT": "memory type", "IEP": "execute disable"},
}
"""What the bits of entries mean, for the legend."""


def _meaning(format: Format, level: Level, name: str, mask: int) -> str | None:
    """The same of one bit; the names of some are those of others elsewhere."""
    if name == "P" and not mask & level.presence:
        return "no stores"
    if name == "R" and mask == format.accessed:
        return "referenced"
    return BITS.get(name)


LIGHT: Final = {
    "paper": "#ffffff",
    "ink": "#1b2026",
    "quiet": "#566070",
    "rule": "#d5dae1",
    "edge": "#8d97a5",
    "tint": "#e3edfa",
    "strong": "#1c5aa6",
    "wrong": "#a9231c",
    "wrong_tint": "#fbe7e5",
    "page": "#e6f3ea",
}
DARK: Final = {
    "paper": "#15181c",
    "ink": "#e4e7eb",
    "quiet": "#9ca7b5",
    "rule": "#2d343d",
    "edge": "#66717f",
    "tint": "#1e3350",
    "strong": "#86b7f5",
    "wrong": "#ff9d94",
    "wrong_tint": "#4a1f1c",
    "page": "#1b3325",
}
"""Colours of the picture, by what they mark."""


def style() -> str:
    """The style sheet of the pictures, light unless the reader prefers dark, and on paper."""
    sheet = resources.files(__package__).joinpath("diagram.css").read_text()
    colours = "".join(
        line for line in sheet.splitlines(keepends=True) if "{" in line and "$" in line
    )
    light, dark = (Template(colours).substitute(palette) for palette in (LIGHT, DARK))
    return (
        Template(sheet).safe_substitute(LIGHT)
        + f"@media (prefers-color-scheme: dark) {{\n{dark}}}\n@media print {{\n{light}}}\n"
    )


@dataclass(frozen=True)
class Denial:
    """An access that faults although its walk may lead to a page.

    said   what was tried, and what it comes to
    slots  those of the entries that deny it
    """

    said: str
    slots: frozenset[Slot]


def picture(
    walk: Walk,
    register: str,
    note: str = "",
    denial: Denial | None = None,
    effective: int | None = None,
) -> str:
    """The picture of a walk as a file of its own, in colours that follow the reader's.

    register   what leads to the root's table
    note       what is said of it in a corner, such as the source of the tables
    effective  of its rights, those that have an effect; None where all have, or there is no page
    """
    drawn = _draw(walk, register, note, denial, effective)
    ElementTree.SubElement(drawn, "style").text = style()
    drawn.set("xmlns", NAMESPACE)
    return ElementTree.tostring(drawn, encoding="unicode") + "\n"


def inline(
    walk: Walk, register: str, denial: Denial | None = None, effective: int | None = None
) -> str:
    """The same for a page that has `style()` in it and shows the address itself."""
    drawn = _draw(walk, register, "", denial, effective)
    _, _, width, height = drawn.attrib["viewBox"].split()
    rest = int(height) - HEADING
    drawn.set("viewBox", f"0 {HEADING} {width} {rest}")
    drawn.set("height", str(rest))
    return ElementTree.tostring(drawn, encoding="unicode")


def _draw(
    walk: Walk, register: str, note: str, denial: Denial | None, effective: int | None
) -> ElementTree.Element:
    used = len(walk.steps) + (walk.unbacked is not None)
    width = 2 * MARGIN + SIGN + (used + 1) * COLUMN
    svg = ElementTree.Element("svg", {"class": "walk", "role": "img"})
    _put(svg, "title").text = f"The walk of {walk.address:#x}"
    _put(svg, "desc").text = "\n".join(walk_lines(walk))
    paper = _put(svg, "rect", "paper", x=0, y=0)
    _text(svg, MARGIN, 34, "address", f"{walk.address:#x}")
    if note:
        _text(svg, width - MARGIN, 34, "note end", visible(note))
    _sign(svg, walk)
    _register(svg, walk, register)
    denied = denial.slots if denial else frozenset()
    bottoms = [
        _level(svg, walk, step, number, step.slot in denied)
        for number, step in enumerate(walk.steps)
    ]
    if walk.unbacked is not None:
        bottoms.append(_unbacked(svg, walk, len(walk.steps)))
    bottoms.append(_end(svg, walk, used, denial, effective))
    height = round(_legend(svg, walk, max(bottoms) + 24, width, denial) + MARGIN - LINE + 4)
    for part in (svg, paper):
        part.set("width", str(width))
        part.set("height", str(height))
    svg.set("viewBox", f"0 0 {width} {height}")
    return svg


def _sign(svg: ElementTree.Element, walk: Walk) -> None:
    """The bits of the address above those that the tables translate."""
    span, top = walk.root.span, walk.root.table.format.levels[walk.root.table.level]
    used = top.shift + top.index_bits
    value = f"{walk.address >> used:#x}"
    if span.size << 1 == top.size * top.entries:
        _field(svg, MARGIN, SIGN - 10, f"63:{used}", "", (value, f"as bit {used - 1}"), "sign")
    elif used < NARROWEST:
        bits = f"{NARROWEST - 1}:{used}"
        _field(svg, MARGIN, SIGN - 10, bits, "", (value, "PDPTE"), "sign")


LONGEST_NAME = 8
"""Characters of a register's name that fit into its box in the letters of names."""


def _register(svg: ElementTree.Element, walk: Walk, register: str) -> None:
    """Where the walk begins: the register that holds the address of the first table."""
    top, y = walk.root.table.format.levels[walk.root.table.level], TABLE_TOP + TABLE_HEIGHT
    used = top.shift + top.index_bits
    name = register if used >= NARROWEST else f"PDPTE {walk.address >> used}"
    width = SIGN - 10
    _put(svg, "rect", "register", x=MARGIN, y=y, width=width, height=FOOT)
    kind = "name" if len(name) <= LONGEST_NAME else "label"
    _text(svg, MARGIN + width / 2, y + 15, f"{kind} middle", name)
    _put(svg, "path", "line pointer", d=f"M{MARGIN + width} {y + FOOT / 2} H{_x(0) - 6}")
    _put(svg, "path", "tip pointer", d=f"M{_x(0) - 1} {y + FOOT / 2} l-6 -3.5 v7 z")


def _legend(
    svg: ElementTree.Element, walk: Walk, y: float, width: int, denial: Denial | None
) -> float:
    """What was denied, and what names of bits and letters of rights mean; where a line after it
    would be."""
    room = width - 2 * MARGIN
    if denial:
        y = _lines(svg, MARGIN, y, "denial", denial.said, room // 7) + 4
    format = walk.root.table.format
    meant = dict[str, str]()
    for step in walk.steps:
        here = format.levels[step.slot.level]
        marked = [] if isinstance(step.entry, Absent) else marked_bits(format, step)
        names = {name.partition("=")[0] for name, _ in marked}
        for name, mask in here.shape(step.raw).bits.items() if names else ():
            if name in names and (said := _meaning(format, here, name, mask)):
                meant[name] = said
    bits = [f"{name} {meant[name]}" for name in BITS if name in meant]
    execute = "x user execute, k supervisor execute" if "k" in letters(format, ~0) else "x execute"
    said = f"u user, r read, w write, {execute}, - withheld"
    return _lines(svg, MARGIN, y, "small", " \N{MIDDLE DOT} ".join([*bits, said]), room // 6)


def _level(svg: ElementTree.Element, walk: Walk, step: Step, number: int, denies: bool) -> float:
    """One column: a field of the address, its table, and what the entry says; the lower end."""
    format, slot = walk.root.table.format, step.slot
    here = format.levels[slot.level]
    wrong = denies or isinstance(step.entry, Absent | Malformed)
    row = _table(svg, walk, slot.level, slot.index, number, f"{slot.table.address:#x}")
    group = "entry wrong" if wrong else "entry"
    x = _x(number)
    _put(svg, "rect", group, x=x, y=row, width=BOX, height=ROW)
    _raw(svg, x + BOX / 2, row + 15, format, step)
    if isinstance(step.entry, Pointer | Leaf):
        _pointer(svg, number, row)
    if wrong:
        _put(svg, "path", "stop", d=f"M{x + BOX} {row + ROW / 2} h10 m0 -7 v14")
    said = meaning(format, step)
    if isinstance(step.entry, Pointer):
        below = format.levels[step.entry.table.level]
        said = f"{table_name(below)} at {step.entry.table.address:#x}"
    y = _lines(svg, x, DETAILS_TOP, "meaning", said, 24)
    if not isinstance(step.entry, Absent):
        y = _chips(svg, x, y - 4, marked_bits(format, step))
        granted = format.rights_mask
        for before in walk.steps[: number + 1]:
            granted &= format.granted(before.raw, before.slot.level)
        y = _rights(svg, x, y + 16, format, granted)
    if denies:
        _text(svg, x, y + 12, "denial", f"denied by this {here.name}")
        y += 18
    return y


def _raw(svg: ElementTree.Element, x: float, y: float, format: Format, step: Step) -> None:
    """The digits of an entry, those of the address apart from its flags."""
    digits = _put(svg, "text", "raw middle", x=x, y=y)
    if isinstance(step.entry, Absent):
        digits.text = f"{step.raw:0{2 * format.entry_bytes}x}"
        return
    for text, is_address in digit_runs(format, format.levels[step.slot.level], step.raw):
        _put(digits, "tspan", "address-bits" if is_address else "flag-bits").text = text


def _unbacked(svg: ElementTree.Element, walk: Walk, number: int) -> float:
    """The column of a table that has no memory behind it."""
    slot = walk.unbacked
    assert slot is not None
    row = _table(svg, walk, slot.level, slot.index, number, f"{slot.table.address:#x}", "missing")
    x = _x(number)
    _put(svg, "rect", "entry wrong", x=x, y=row, width=BOX, height=ROW)
    _text(svg, x + BOX / 2, row + 15, "raw middle", "no memory")
    return _lines(svg, x, DETAILS_TOP, "meaning", f"no memory at {slot.address:#x}", 23)


def _end(
    svg: ElementTree.Element, walk: Walk, number: int, denial: Denial | None, effective: int | None
) -> float:
    """The last column: the page, or that there is none."""
    format, x, leaf = walk.root.table.format, _x(number), walk.leaf
    granted = walk.granted if effective is None else effective
    ended = format.levels[walk.level]
    rest = walk.address & ended.size - 1
    bits = f"{ended.shift - 1}:0"
    digits = _digits(rest, ended.shift)
    if leaf is None:
        _field(svg, x - GUTTER + 8, COLUMN - 8, bits, "not used", digits, "unused")
        y = _lines(svg, x, DETAILS_TOP, "meaning", "The walk ends here: no page.", 23)
        return y
    _field(svg, x - GUTTER + 8, COLUMN - 8, bits, "offset", digits)
    kind = "page missing" if denial else "page"
    _put(svg, "rect", kind, x=x, y=TABLE_TOP, width=BOX, height=TABLE_HEIGHT)
    _foot(svg, x, f"{leaf.address:#x}")
    _head(svg, x, f"{in_units(leaf.size)} page")
    row = _row(rest / leaf.size)
    _put(svg, "rect", "entry", x=x, y=row, width=BOX, height=ROW)
    _text(svg, x + BOX / 2, row + 15, "raw middle", f"+ {rest:#x}")
    _index(svg, number, row)
    _text(svg, x, DETAILS_TOP, "label", "physical address")
    _text(svg, x, DETAILS_TOP + 20, "physical", f"{walk.physical:#x}")
    return _rights(svg, x, DETAILS_TOP + 44, format, granted, "rights")


def _table(
    svg: ElementTree.Element,
    walk: Walk,
    level: int,
    index: int,
    number: int,
    address: str,
    kind: str = "",
) -> float:
    """A field and the table in which it picks a slot; where that slot is drawn."""
    format = walk.root.table.format
    here = format.levels[level]
    x = _x(number)
    bits = f"{here.shift + here.index_bits - 1}:{here.shift}"
    digits = (f"{index:0{here.index_bits}b}", f"{index}")
    _field(svg, x - GUTTER + 8, COLUMN - 8, bits, f"level {format.number(level)}", digits)
    _put(svg, "rect", f"table {kind}", x=x, y=TABLE_TOP, width=BOX, height=TABLE_HEIGHT)
    for part in range(1, 8):
        y = TABLE_TOP + part * TABLE_HEIGHT / 8
        _put(svg, "path", "rule", d=f"M{x} {y} h{BOX}")
    _head(svg, x, table_name(here))
    _foot(svg, x, address)
    row = _row(index / here.entries)
    below = row - 14 < TABLE_TOP
    _text(svg, x + 5, row + ROW + 12 if below else row - 5, "small", f"{here.name} {index}")
    _index(svg, number, row)
    return row


def _row(part: float) -> float:
    """Where a part of a table or page is drawn, from 0 at its start, which is its lower end."""
    return TABLE_TOP + (1 - part) * (TABLE_HEIGHT - ROW)


def _x(number: int) -> float:
    return MARGIN + SIGN + number * COLUMN + GUTTER


def _field(
    svg: ElementTree.Element,
    x: float,
    width: float,
    bits: str,
    name: str,
    content: Sequence[str],
    kind: str = "",
) -> None:
    _text(svg, x, FIELD_TOP - 7, "small", bits)
    if name:
        _text(svg, x + width, FIELD_TOP - 7, "label end", name)
    _put(svg, "rect", f"field {kind}", x=x, y=FIELD_TOP, width=width, height=FIELD_HEIGHT)
    middle = x + width / 2
    if len(content) == 1:
        _text(svg, middle, FIELD_TOP + 27, f"digits middle {kind}", content[0])
        return
    _text(svg, middle, FIELD_TOP + 18, f"digits middle {kind}", content[0])
    _text(svg, middle, FIELD_TOP + 35, f"small middle {kind}", content[1])


def _digits(value: int, bits: int) -> tuple[str, ...]:
    return (f"{value:0{bits}b}", f"{value:#x}") if bits <= BINARY_DIGITS else (f"{value:#x}",)


def _head(svg: ElementTree.Element, x: float, name: str) -> None:
    _text(svg, x, TABLE_TOP - 8, "name", name)


def _foot(svg: ElementTree.Element, x: float, address: str) -> None:
    y = TABLE_TOP + TABLE_HEIGHT
    _put(svg, "rect", "foot", x=x, y=y, width=BOX, height=FOOT)
    _text(svg, x + BOX / 2, y + 15, "small middle", address)


def _index(svg: ElementTree.Element, number: int, row: float) -> None:
    """From a field down to the slot that it picks."""
    x, y = _x(number), row + ROW / 2
    start = FIELD_TOP + FIELD_HEIGHT
    _put(svg, "path", "line", d=f"M{x - 13} {start} V{y - 5} q0 5 5 5 H{x - 6}")
    _put(svg, "path", "tip", d=f"M{x - 1} {y} l-6 -3.5 v7 z")


def _pointer(svg: ElementTree.Element, number: int, row: float) -> None:
    """From an entry down to the address that it holds."""
    x, y = _x(number) + BOX, row + ROW / 2
    end = TABLE_TOP + TABLE_HEIGHT + FOOT / 2
    d = f"M{x} {y} h7 q5 0 5 5 V{end - 5} q0 5 5 5 H{x + GUTTER - 6}"
    _put(svg, "path", "line pointer", d=d)
    _put(svg, "path", "tip pointer", d=f"M{x + GUTTER - 1} {end} l-6 -3.5 v7 z")


def _chips(
    svg: ElementTree.Element, x: float, y: float, chips: Iterable[tuple[str, bool]]
) -> float:
    """Names of bits, filled where they are set, in as many lines as they need; the lower end."""
    place = x
    for name, is_set in chips:
        width = round(len(name) * LETTER + 8)
        if place + width > x + COLUMN - 14:
            place, y = x, y + CHIP + 3
        kind = "chip set" if is_set else "chip"
        _put(svg, "rect", kind, x=place, y=y, width=width, height=CHIP, rx=3)
        _text(svg, place + width / 2, y + 12.5, f"{kind} middle", name)
        place += width + 3
    return y + CHIP


def _rights(
    svg: ElementTree.Element,
    x: float,
    y: float,
    format: Format,
    granted: int,
    label: str = "rights so far",
) -> float:
    """The rights by their letters, a dash where one is missing; the lower end."""
    _text(svg, x, y, "label", label)
    _text(svg, x + 92, y, "rights", letters(format, granted))
    return y + 6


def _lines(svg: ElementTree.Element, x: float, y: float, kind: str, text: str, most: int) -> float:
    """Text in lines of at most so many characters; where the next line would be."""
    for line in wrap(text, most):
        _text(svg, x, y, kind, line)
        y += LINE
    return y


def _text(svg: ElementTree.Element, x: float, y: float, kind: str, text: str) -> None:
    _put(svg, "text", kind, x=x, y=y).text = text


def _put(
    parent: ElementTree.Element, tag: str, kind: str = "", **attributes: float | str
) -> ElementTree.Element:
    given = {
        name: f"{value:g}" if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    }
    if kind.strip():
        given["class"] = kind.strip()
    return ElementTree.SubElement(parent, tag, given)
