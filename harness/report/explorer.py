"""Tables in the terminal: what `pagetable explore` shows.

Where one is and can go is `harness.inspect.tour`'s; this is the screen and its keys.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

from rich.cells import cell_len
from rich.style import Style
from rich.table import Table as Grid
from rich.text import Text
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.events import Click
from textual.geometry import Size
from textual.message import Message
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Footer, Input, Static

from harness.inspect import architecture, decode, find, graph, tour
from harness.inspect.architecture import effective_of, never_withheld
from harness.inspect.number import read
from harness.inspect.snapshot import QuestionError, Snapshot, SourceError
from harness.inspect.tour import Line, Place
from harness.machine.errors import MachineError
from harness.paging.address import Virtual
from harness.paging.entry import Absent, Leaf, Malformed
from harness.paging.table import Table
from harness.paging.walk import Step
from harness.report.decode import bits_text, raw_text, says
from harness.report.state import roots_text
from harness.report.text import all_digits, counted, letters, meaning, set_bits
from harness.report.visible import visible

COLUMNS = ("slot", "addresses from", "raw", "rights", "meaning", "bits")

HELP = """\
Up, Down, PgUp, PgDn   choose a slot
Enter, Right           follow the pointer in it
Backspace, Left        back to where you were
u                      up to the table that leads here
g                      go to a virtual address
n, p                   next, previous entry that is not absent
t                      next root table (PAE paging has several)
a                      in how many ways this table is reached
l                      also what Linux keeps in the entry
Tab                    between the table and the bits
?                      this
q, Ctrl-C              quit

Rights: u of user, r, w, x; what all entries from the
root to here give together."""


INTERRUPT = Binding("ctrl+c", "app.interrupt", show=False, priority=True)
"""Textual's own Ctrl-C copies, and tells how to quit."""

NARROW, LOW = 130, 16
"""Columns and rows; with fewer there is no room for everything."""

SHOWN = 24
"""Characters that are told of what was meant to be an address."""


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape,question_mark,q,enter", "dismiss", "close"),
        INTERRUPT,
    ]

    def compose(self) -> ComposeResult:
        yield Static(Text(HELP), id="help")


class Row(NamedTuple):
    """What is shown of a slot: a cell for each of COLUMNS, in one style."""

    cells: tuple[str, ...]
    style: str


PADDING = 1
"""Columns of the screen that are left free on both sides of a cell."""


class Entries(ScrollView, can_focus=True):
    """The slots of a table below the names of COLUMNS; they are scrolled up and down alone.

    Columns have the width of what is in them, from the left on while there is room.  The last one
    has what is left, and its cells end in an ellipsis: a number that is cut looks like another.
    Only the rows that are seen are drawn: tables have up to 8192 slots, and Textual's own widget
    for tables lays out all of them.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("enter", "app.follow", "follow"),
        Binding("right", "app.follow", show=False),
        Binding("left", "app.return", show=False),
        Binding("up", "choose(-1)", show=False),
        Binding("down", "choose(1)", show=False),
        Binding("pageup", "choose_page(-1)", show=False),
        Binding("pagedown", "choose_page(1)", show=False),
        Binding("home,ctrl+home", "choose_end(0)", show=False),
        Binding("end,ctrl+end", "choose_end(-1)", show=False),
    ]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"head", "odd", "even", "chosen"}
    DEFAULT_CSS = """
    Entries { background: $surface; color: $foreground; }
    Entries > .head { text-style: bold; background: $panel; }
    Entries > .odd { background: $surface-lighten-1 50%; }
    Entries > .chosen {
        color: $block-cursor-blurred-foreground; background: $block-cursor-blurred-background;
    }
    Entries:focus > .chosen {
        color: $block-cursor-foreground; background: $block-cursor-background;
        text-style: $block-cursor-text-style;
    }
    """

    class Chosen(Message):
        """Another slot is chosen, or another table shown."""

    index: int = 0
    _rows: Sequence[Row] = ()
    _widths: Sequence[int] = ()
    _drawn = False

    def fill(self, rows: Sequence[Row], index: int) -> None:
        """Shows rows of one cell for each of COLUMNS, with one row chosen, in the middle."""
        self._rows = rows
        self._fit()
        self.index = index
        self._centre()
        self.refresh()
        self.post_message(self.Chosen())

    def choose(self, index: int) -> None:
        """Chooses a row, the first or last where there is none of this number, and shows it."""
        self.index = max(0, min(index, len(self._rows) - 1))
        y = max(self.index - self._room + 1, min(self.scroll_offset.y, self.index))
        self.scroll_to(y=y, animate=False, force=True)
        self.refresh()
        self.post_message(self.Chosen())

    @property
    def _room(self) -> int:
        """Rows that are seen below the head."""
        return max(1, self.scrollable_content_region.height - 1)

    def action_choose(self, rows: int) -> None:
        self.choose(self.index + rows)

    def action_choose_page(self, pages: int) -> None:
        self.choose(self.index + pages * self._room)

    def action_choose_end(self, index: int) -> None:
        self.choose(index % len(self._rows) if self._rows else 0)

    def on_click(self, event: Click) -> None:
        row = event.y - 1 + self.scroll_offset.y
        if event.y and row < len(self._rows):
            if row == self.index:
                self.app.action_follow()  # type: ignore[attr-defined]
            else:
                self.choose(row)

    def on_resize(self) -> None:
        begins, self._drawn = not self._drawn, True
        self._fit()
        if begins or not self.is_seen(self.index):
            self._centre()
        self.refresh()

    def is_seen(self, index: int) -> bool:
        return self.scroll_offset.y <= index < self.scroll_offset.y + self._room

    def _centre(self) -> None:
        middle = max(0, self.index - self.size.height // 2)
        self.scroll_to(y=middle, animate=False, force=True)

    def _fit(self) -> None:
        """Finds the widths of as many columns as there is room for, of one at least."""
        room, self._widths = self.scrollable_content_region.width, []
        for name, *column in zip(COLUMNS, *(row.cells for row in self._rows), strict=True):
            room -= 2 * PADDING
            if self._widths and room < 1:
                break
            wanted = max(map(cell_len, (name, *column)))
            self._widths.append(max(1, min(wanted, room)))
            room -= wanted
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._rows) + 1)

    def render_line(self, y: int) -> Strip:
        index = y - 1 + self.scroll_offset.y
        width = self.scrollable_content_region.width
        if y == 0:
            return self._line(COLUMNS, self.get_component_rich_style("head"), width)
        if index >= len(self._rows):
            return Strip.blank(width, self.rich_style)
        row = self._rows[index]
        if index == self.index:
            return self._line(row.cells, self.get_component_rich_style("chosen"), width)
        style = self.get_component_rich_style("odd" if index % 2 else "even")
        return self._line(row.cells, style + Style.parse(row.style), width)

    def _line(self, cells: Sequence[str], style: Style, width: int) -> Strip:
        line = Text(no_wrap=True, end="")
        for cell, room in zip(cells, self._widths, strict=False):
            text = Text(cell)
            text.truncate(room, overflow="ellipsis", pad=True)
            line.append(" " * PADDING).append_text(text).append(" " * PADDING)
        strip = Strip(line.render(self.app.console)).apply_style(style)
        return strip.adjust_cell_length(width, style)


class Explorer(App[None]):
    """One table at a time, and every bit of the entry that is chosen.

    place    the table that is shown
    lines    what it holds
    failure  why it did not end as asked: memory could not be read, or Ctrl-C or SIGTERM came
    """

    TITLE = "pagetable"
    ENABLE_COMMAND_PALETTE = False
    CSS = """
    #where { height: auto; padding: 0 1; background: $surface; }
    #entries { width: 3fr; height: 1fr; overflow-x: hidden; scrollbar-gutter: stable; }
    #bits { width: 2fr; min-width: 40; height: 1fr; padding: 0 1; border-left: solid $primary; }
    #goto { dock: bottom; display: none; }
    #goto.asked { display: block; }
    Help { align: center middle; }
    #help { width: auto; height: auto; max-width: 100%; max-height: 100%; overflow: auto;
        padding: 1 2; border: round $primary; background: $surface; }
    .narrow #bits { width: 100%; height: 40%; border-left: none; border-top: solid $primary; }
    .narrow #entries { width: 100%; }
    .narrow #both { layout: vertical; }
    .low #bits, .low Footer { display: none; }
    .low #where { max-height: 2; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        ("enter", "follow", "follow"),
        ("backspace", "return", "back"),
        Binding("g", "ask", "go to", priority=True),  # before the next key is given to anyone
        ("n", "held(1)", "next entry"),
        Binding("p", "held(-1)", show=False),
        ("u", "up", "table above"),
        Binding("t", "root", show=False),
        Binding("a", "ways", show=False),
        Binding("l", "linux", show=False),
        ("question_mark", "help", "help"),
        ("q", "quit", "quit"),
        INTERRUPT,
    ]

    def __init__(self, snapshot: Snapshot, at: Virtual | None = None) -> None:
        super().__init__()
        self.snapshot = snapshot
        self.starts = tour.starts(snapshot.cpu)
        self.place = self.starts[0]
        self.failure: BaseException | None = None
        self.lines: list[Line] = []
        self._at = at
        self._history: list[tuple[Place, int]] = []
        self._ways: dict[Table, int] | None = None
        self._linux = False

    def compose(self) -> ComposeResult:
        yield Static(id="where")
        with Horizontal(id="both"):
            yield Entries(id="entries")
            with VerticalScroll(id="bits"):
                yield Static(id="bit-lines")
        yield Input(placeholder="a virtual address, like 0xffff800000000000", id="goto")
        yield Footer()

    def on_load(self) -> None:
        """Before the terminal is changed, which SIGTERM would leave so."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._terminate)

    def _terminate(self) -> None:
        self.failure = SystemExit(128 + signal.SIGTERM)
        self.exit()

    def on_mount(self) -> None:
        self.query_one(Entries).focus()
        self._show(self.starts[0], 0)
        if self._at is not None:
            self._go(self._at)
            self._history.clear()  # of the root's table, where nobody was

    def on_resize(self) -> None:
        self.set_class(self.size.width < NARROW, "narrow")
        self.set_class(self.size.height < LOW, "low")
        self._tell()

    @property
    def index(self) -> int:
        """The slot that is chosen."""
        return self.query_one(Entries).index

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Ends the tour where the source fails: its memory may be that of a running machine."""
        try:
            yield
        except (MachineError, SourceError, OSError) as error:
            self.failure = error
            self.exit()

    # ---- what is shown ----

    def _show(self, place: Place, index: int) -> None:
        """Reads a table and shows it, with a slot of it chosen."""
        with self._reading():
            self.lines = tour.lines(self.snapshot.memory, place.table, place.there)
        self.place = place
        self.query_one(Entries).fill([self._row(line) for line in self.lines], index)
        self._tell()

    def _row(self, line: Line) -> Row:
        format, slot = self.place.table.format, line.slot
        address = self.place.address(slot.index)
        place = (str(slot.index), "" if address is None else f"{address:#x}")
        if line.raw is None or line.entry is None:
            why, style = ("no memory there", "red") if line.there else ("not in the table", "dim")
            said = ("", "", why, "")
        else:
            raw = all_digits(line.raw, format.entry_bytes) if line.raw else "0"
            told = meaning(format, Step(slot, line.raw, line.entry))
            if isinstance(line.entry, Absent):
                said, style = (raw, "", told, ""), "dim"
            else:
                granted = self.place.granted & format.granted(line.raw, slot.level)
                if isinstance(line.entry, Leaf):
                    granted = effective_of(self._part(), granted, line.raw)
                rights = letters(format, granted, never_withheld(self.snapshot.cpu))
                bits = " ".join(set_bits(format.levels[slot.level], line.raw))
                said = (raw, rights, told, bits)
                style = "red" if isinstance(line.entry, Malformed) else ""
        return Row((*place, *said), style)

    def _tell(self) -> None:
        """Where one is: the way, the table, its addresses, and the rights so far."""
        place, format = self.place, self.place.table.format
        names = [f"{format.levels[slot.level].name} {slot.index}" for slot in place.way]
        here = format.levels[place.table.level].name
        span = place.span
        told = [
            f"{here} table at {place.table.address:#x}",
            f"level {format.number(place.table.level)}",
        ]
        told.append(str(span) if span else " and ".join(str(root.span) for root in place.roots))
        told.append(
            f"rights so far {letters(format, place.granted, never_withheld(self.snapshot.cpu))}"
        )
        if self._ways is not None and place.way:
            told.append(f"reached in {counted(self._ways.get(place.table, 0), 'way')}")
        way = " \N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK} ".join([*names, here])
        title = f"{visible(self.snapshot.title)}, {roots_text(self.snapshot)}\n"
        text = Text("" if self.has_class("low") else title, "dim")
        text.append(way, "bold")
        text.append("\n" + ", ".join(told), "not dim")
        self.query_one("#where", Static).update(text)

    def _part(self) -> Any:
        """The state by which the entries of the table are read."""
        parts, format = architecture.parts(self.snapshot), self.place.table.format
        return next(one.cpu for one in parts if one.cpu.format is format)

    def _tell_bits(self) -> None:
        """Every bit of the entry that is chosen."""
        shown = self.query_one("#bit-lines", Static)
        if not 0 <= self.index < len(self.lines):
            return
        line = self.lines[self.index]
        if line.raw is None:
            where = f"there is no memory at {line.slot.address:#x}"
            why = where if line.there else "the table does not have it"
            shown.update(Text(f"{line.slot}: {why}"))
            return
        cpu = self._part()
        reading = decode.read(cpu, line.raw, line.slot.level)
        grid = Grid(box=None, pad_edge=False, show_header=False, expand=True)
        for column in ("bits", "name", "value"):
            grid.add_column(column, no_wrap=True)
        grid.add_column("meaning", ratio=1)
        head = Text(f"{reading.name}, slot {line.slot.index} at {line.slot.address:#x}", "bold")
        for part in reversed(reading.parts):
            style = "bold red" if part.wrong else "" if part.value else "dim"
            cells = (bits_text(part), part.name, f"{part.value:#x}", part.meaning)
            grid.add_row(*(Text(cell, style) for cell in cells))
        if self._linux:
            kept = architecture.of(cpu).linux(cpu, reading)
            grid.add_row(Text("Linux", "bold"), Text(""), Text(""), Text(kept.said, "bold"))
            for bits in reversed(kept.parts):
                cells = (bits_text(bits), bits.name, f"{bits.value:#x}", bits.meaning)
                grid.add_row(*(Text(cell, "" if bits.value else "dim") for cell in cells))
        whole = Grid.grid()
        whole.add_row(head)
        whole.add_row(Text(f"{raw_text(reading)}: {says(reading)}"))
        whole.add_row(Text(""))
        whole.add_row(grid)
        shown.update(whole)

    # ---- what keys do ----

    def on_entries_chosen(self) -> None:
        self._tell_bits()

    def action_follow(self) -> None:
        line = self.lines[self.index]
        below = tour.entered(self.place, line)
        if below is not None:
            self._move(below, 0)
        elif isinstance(line.entry, Leaf):
            self.notify(f"a page, at {line.entry.address:#x}: no table is below")
        else:
            self.notify("this leads to no table", severity="warning")

    def _move(self, place: Place, index: int) -> None:
        """Shows another table, and remembers this one."""
        self._history.append((self.place, self.index))
        self._show(place, index)

    def action_return(self) -> None:
        if self._history:
            self._show(*self._history.pop())
        else:
            self.notify("this is where you began; u leads up")

    def action_up(self) -> None:
        above = self.place.above()
        if above is None:
            self.notify("this is a root's table: nothing is above")
        else:
            self._move(above, self.place.way[-1].index)

    def action_root(self) -> None:
        starts = self.starts
        now = next(n for n, start in enumerate(starts) if start.roots == self.place.roots)
        if len(starts) == 1:
            self.notify("there is one root table")
        else:
            self._move(starts[(now + 1) % len(starts)], 0)

    def action_held(self, step: int) -> None:
        found = tour.next_held(self.lines, self.index, step)
        if found is None:
            self.notify(f"no entry {'after' if step > 0 else 'before'} this one in the table")
        else:
            self.query_one(Entries).choose(found)

    def action_ways(self) -> None:
        if self._ways is None:
            with self._reading():
                self._ways = {
                    use.table: use.paths
                    for one in architecture.parts(self.snapshot)
                    for use in find.tables(graph.read(one.memory, one.cpu.format, one.cpu.roots))
                }
        self._tell()

    def action_linux(self) -> None:
        cpu = self._part()
        try:
            architecture.of(cpu).linux(cpu, decode.read(cpu, 0, 0))
        except QuestionError:
            self.notify("what Linux keeps in entries of this mode is not known here")
            return
        self._linux = not self._linux
        self._tell_bits()

    def action_interrupt(self) -> None:
        self.failure = KeyboardInterrupt()
        self.exit()

    def action_help(self) -> None:
        self.push_screen(Help())

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "ask" or not isinstance(self.focused, Input)

    def action_ask(self) -> None:
        asked = self.query_one(Input)
        asked.value = ""
        asked.add_class("asked")
        self.set_focus(asked)  # at once: what is typed next is meant for it

    def on_key(self, event: object) -> None:
        if getattr(event, "key", "") == "escape":
            self._answered()

    def _answered(self) -> None:
        self.query_one(Input).remove_class("asked")
        self.query_one(Entries).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._answered()
        written = event.value.strip()
        try:
            address = read("the address", written, bare=16)
        except ValueError:
            said = written if len(written) <= SHOWN else f"{written[:SHOWN]}..."
            self.notify(f"{said!r} is not a hexadecimal number of 64 bits", severity="error")
        else:
            self._go(Virtual(address))

    def _go(self, address: Virtual) -> None:
        found = None
        with self._reading():
            found = tour.reached(self.snapshot.cpu, self.snapshot.memory, address)
        if found is None:
            self.notify(
                f"{address:#x} is in no root's span: nothing translates it", severity="error"
            )
        else:
            self._move(*found)
