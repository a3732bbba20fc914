"""`pagetable explore`, its keys pressed by textual's pilot, on shipped layouts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from textual.events import Key, Paste
from textual.geometry import Region
from textual.pilot import Pilot
from textual.widgets import Input, Static
from textual.widgets._footer import FooterKey

from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import layout, ram
from harness.machine.errors import MachineError
from harness.paging.address import Virtual
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.report.explorer import Entries, Explorer, Help

CODE = Virtual(0x5555_5555_4000)
"""Program code in the layouts linux-4 and linux-5."""

Touring = Callable[[Explorer, Pilot[None]], Awaitable[None]]


def tables(name: str) -> Snapshot:
    return layout.snapshot(name, None, {})


def tour(
    snapshot: Snapshot,
    touring: Touring,
    at: Virtual | None = None,
    width: int = 150,
    height: int = 24,
) -> Explorer:
    """Runs the explorer, and what presses its keys."""
    app = Explorer(snapshot, at)

    async def run() -> None:
        async with app.run_test(size=(width, height)) as pilot:
            await pilot.pause()
            press = pilot.press

            async def settled(*keys: str) -> None:
                for key in keys:
                    await press(key)
                    await settle(app)

            pilot.press = settled  # type: ignore[method-assign]
            await touring(app, pilot)

    asyncio.run(run())
    return app


async def settle(app: Explorer) -> None:
    """Waits until all that a key brings about is done.

    Textual's own wait is a second at most, which a loaded machine needs for less. A key goes to the
    widget that has the focus, and what it means there comes back by way of the widget's parents.
    """
    for _ in range(2):
        way = app.focused.ancestors_with_self if app.focused else [app.screen, app]
        for pump in (app, *way):
            handled = asyncio.Event()
            if pump.call_later(handled.set):
                await handled.wait()


def text(app: Explorer, name: str) -> str:
    return str(app.query_one(f"#{name}", Static).render())


def test_enter_follows_pointers_and_backspace_leads_back() -> None:
    snapshot = tables("linux-5")
    root = root_for(snapshot.cpu, CODE)
    assert root is not None
    steps = walk(snapshot.memory, root, CODE).steps

    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        for above, below in pairwise(steps):
            app.query_one(Entries).choose(above.slot.index)
            await pilot.press("enter")
            assert app.place.table == below.slot.table
        assert "PML5E 0 \u203a PML4E 170 \u203a PDPTE 341 \u203a PDE 170 \u203a PTE" in text(
            app, "where"
        )
        assert "0x555555400000..0x5555555fffff" in text(app, "where")
        for step in reversed(steps[:-1]):
            await pilot.press("backspace")
            assert (app.place.table, app.index) == (step.slot.table, step.slot.index)
        await pilot.press("backspace")
        assert app.place.table == root.table

    tour(snapshot, touring)


@pytest.mark.parametrize("levels", [2, 3, 4, 5])
def test_tables_of_riscv_are_toured_as_the_walk_goes(levels: int) -> None:
    snapshot = layout.snapshot("riscv/rights", levels, {})
    address = Virtual(0x40_9123)
    steps = walk(snapshot.memory, snapshot.cpu.roots[0], address).steps
    assert len(steps) == levels

    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        for above, below in pairwise(steps):
            app.query_one(Entries).choose(above.slot.index)
            await pilot.press("enter")
            assert app.place.table == below.slot.table
        await pilot.press("g", *f"{address:x}", "enter")
        assert app.index == steps[-1].slot.index
        told = drawn(app.query_one("#bit-lines", Static))
        assert "7 D 0x0 not written since it was cleared" in told
        every = f"{told} {text(app, 'where')}"
        assert "satp" in every
        assert not any(word in every for word in ("CR3", "PML", "PDPT", "MAXPHYADDR", "XD"))

    tour(snapshot, touring)


def test_g_goes_to_an_address_and_u_up_from_there() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        await pilot.press("g", *f"{CODE:x}", "enter")
        assert (app.place.table.level, app.index) == (0, 340)
        assert app.place.address(app.index) == CODE
        await pilot.press("u")
        assert (app.place.table.level, app.index) == (1, 170)
        await pilot.press("backspace")
        assert (app.place.table.level, app.index) == (0, 340)

    tour(tables("linux-5"), touring)


def test_backspace_leads_to_no_table_where_nobody_was() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        began = app.place, app.index
        await pilot.press("backspace")
        assert (app.place, app.index) == began
        await pilot.press("u", "backspace")
        assert (app.place, app.index) == began

    tour(tables("linux-4"), touring, CODE)


def test_no_line_is_wider_than_a_terminal_of_eighty_columns() -> None:
    """Nothing that is written lies beyond what is on the screen, in a table of any level."""

    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        for keys in ([], ["g", *f"{CODE:x}", "enter"], ["u"], ["g", *"ffffffff85000000", "enter"]):
            await pilot.press(*keys)
            for widget in app.query(Static):
                if widget.display and widget.region.width:
                    assert widget.region.right <= app.size.width
            assert app.query_one(Entries).virtual_size.width <= app.size.width, keys

    tour(tables("linux-4"), touring, width=80, height=24)


def test_the_keys_by_which_one_moves_are_in_the_footer() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        shown = {one.key: one.region.right for one in app.query(FooterKey)}
        assert {"enter", "backspace", "g", "n", "u", "question_mark", "q"} <= shown.keys()
        assert max(shown.values()) <= app.size.width

    tour(tables("linux-4"), touring, width=80, height=24)


def test_an_address_that_is_none_changes_nothing() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        for asked in ("zz", "", "800000000000", "-1", "f" * 5000, "[b]\x1b[31m"):
            await pilot.press("g")
            app.query_one(Input).value = asked
            await pilot.press("enter")
            assert app.place == app.starts[0]
        await pilot.press("g", "escape", "n")
        assert app.index == 170

    tour(tables("linux-4"), touring, width=100)


def test_n_and_p_find_the_entries_that_are_not_absent() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        held = [line.slot.index for line in app.lines if line.raw]
        found = [app.index] if app.lines[0].raw else []
        for _ in held[len(found) :]:
            await pilot.press("n")
            found.append(app.index)
        assert found == held
        await pilot.press("n", "p")
        assert app.index == held[-2]

    tour(tables("linux-4"), touring)


def test_every_bit_of_the_chosen_entry_is_told_with_what_linux_keeps_where_asked() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        shown = app.query_one("#bit-lines", Static)
        assert "beyond MAXPHYADDR 40: any access faults" in drawn(shown)
        assert "Linux" not in drawn(shown)
        await pilot.press("l")
        assert "Linux" in drawn(shown)

    tour(tables("malformed"), touring, at=Virtual(0x40_1000))


def drawn(shown: Static) -> str:
    """The text of a widget that holds a table."""
    strips = shown.render_lines(shown.size.region)
    return " ".join(" ".join(strip.text for strip in strips).split())


def test_a_self_map_is_followed_as_far_as_levels_go() -> None:
    snapshot = tables("self-map")
    own = snapshot.cpu.roots[0].table.address

    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        row = next(
            line.slot.index
            for line in app.lines
            if line.raw and line.raw & ~0xFFF & ~(1 << 63) == own
        )
        for level in (3, 2, 1, 0):
            app.query_one(Entries).choose(row)
            await pilot.press("right")
            assert (app.place.table.address, app.place.table.level) == (own, level)
        app.query_one(Entries).choose(row)
        await pilot.press("right")
        assert app.place.table.level == 0

    tour(snapshot, touring)


def test_aliases_are_counted_when_asked() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        assert "reached in" not in text(app, "where")
        await pilot.press("a")
        assert "reached in 2,048 ways" in text(app, "where")

    tour(tables("aliases"), touring, at=Virtual(0xFFFF_FF00_0000_4000))


def test_help_tells_every_key() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        assert isinstance(app.screen, Help)
        told = str(app.screen.query_one("#help", Static).render())
        for key in ("Enter", "Backspace", "u ", "g ", "n, p", "t ", "a ", "l ", "?", "q, Ctrl-C"):
            assert key in told
        await pilot.press("escape")
        assert not isinstance(app.screen, Help)
        await pilot.press("q")

    tour(tables("smallest"), touring)


def test_memory_that_cannot_be_read_any_more_ends_the_tour() -> None:
    snapshot = tables("smallest")

    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        def lost(*_: object) -> None:
            raise MachineError("the machine is gone")

        app.snapshot.memory.gather = lost  # type: ignore[method-assign, assignment]
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.failure, MachineError)

    tour(snapshot, touring)


@pytest.mark.parametrize("before", [[], ["g"], ["question_mark"]], ids=["table", "goto", "help"])
def test_ctrl_c_ends_it_wherever_one_is(before: list[str]) -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        await pilot.press(*before, "ctrl+c")

    assert isinstance(tour(tables("smallest"), touring).failure, KeyboardInterrupt)


def test_what_is_pasted_is_an_address_or_changes_nothing() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        for pasted in ("zz\nq\n", "f" * 5000, "\n", "\N{BELL}\0"):
            await pilot.press("g")
            app.query_one(Input).post_message(Paste(pasted))
            await pilot.press("enter")
            assert app.place == app.starts[0]
        await pilot.press("g")
        app.query_one(Input).post_message(Paste(f" {CODE:#x}\n"))
        await pilot.press("enter")
        assert app.place.address(app.index) == CODE

    tour(tables("linux-5"), touring)


def test_a_small_terminal_still_shows_the_chosen_slot() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        shown = app.query_one(Entries)
        await pilot.press("n", "n")
        for size in ((20, 5), (300, 80), (1, 1), (20, 5)):
            await pilot.resize_terminal(*size)
            await pilot.press("u", "backspace")
        assert shown.size.height > 1  # the head, and at least one slot
        assert shown.scroll_y <= app.index < shown.scroll_y + shown.size.height - 1

    tour(tables("linux-5"), touring, at=CODE, width=20, height=5)


def test_keys_and_the_mouse_choose_the_slots_that_are_there_and_show_them() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        shown = app.query_one(Entries)
        page = shown.size.height - 1
        for key, chosen in (
            ("up", 0),
            ("down", 1),
            ("pagedown", 1 + page),
            ("end", 511),
            ("down", 511),
            ("pagedown", 511),
            ("pageup", 511 - page),
            ("up", 510 - page),
            ("home", 0),
            ("pageup", 0),
        ):
            await pilot.press(key)
            assert app.index == chosen, key
            assert shown.scroll_y <= chosen < shown.scroll_y + page
            assert f"slot {chosen} at" in drawn(app.query_one("#bit-lines", Static))
        shown.choose(170)
        seen = [strip.text.split() for strip in shown.render_lines(Region(0, 0, 80, page))]
        for row in (3, 0):  # the second is the head
            await pilot.click(Entries, offset=(5, row))
            await settle(app)
            assert app.index == int(seen[3][0])
        shown.choose(170)
        row = 1 + 170 - int(shown.scroll_y)
        await pilot.click(Entries, offset=(5, row))
        await settle(app)
        assert [slot.index for slot in app.place.way] == [170]

    tour(tables("linux-4"), touring)


def test_what_is_typed_ahead_is_the_address() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        for key in ("g", *f"{CODE:x}"):
            app.post_message(Key(key, key))
        await settle(app)
        assert app.query_one(Input).value == f"{CODE:x}"
        await pilot.press("g")  # is no hexadecimal digit, and stays in what is typed
        assert app.query_one(Input).value == f"{CODE:x}g"
        await pilot.press("backspace", "enter")
        assert app.place.address(app.index) == CODE

    tour(tables("linux-5"), touring)


def test_another_width_scrolls_to_the_chosen_slot_only_where_it_is_not_seen() -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        shown = app.query_one(Entries)
        for _ in range(3):
            shown.scroll_down(animate=False, force=True)
        await settle(app)
        assert (scrolled := shown.scroll_y) > 0 and shown.is_seen(app.index)
        await pilot.resize_terminal(149, 24)
        assert shown.scroll_y == scrolled
        await pilot.press("end")
        assert shown.is_seen(511)
        await pilot.resize_terminal(149, 12)
        assert shown.is_seen(511) and not shown.is_seen(490)

    tour(tables("linux-4"), touring, at=CODE)


@pytest.mark.parametrize(("name", "at"), [("linux-5", CODE), ("malformed", Virtual(0x40_1000))])
def test_what_is_cut_in_a_row_ends_in_an_ellipsis(name: str, at: Virtual) -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        for width in (80, 100, 115, 120, 125, 129, 131, 140, 160, 200):
            await pilot.resize_terminal(width, 24)
            await pilot.pause()
            shown = app.query_one(Entries)
            seen = shown.render_lines(Region(0, 0, *shown.scrollable_content_region.size))
            rows = [strip.text for strip in seen][1:]
            first = int(rows[0].split()[0])
            assert first <= app.index < first + len(rows)
            for row, line in zip(rows, app.lines[first:], strict=False):
                assert whole_or_elided(row, list(app._row(line).cells)), (width, row)

    tour(tables(name), touring, at=at, height=24)


def whole_or_elided(row: str, cells: list[str]) -> bool:
    """Whether a row has the cells from the left on, each whole or cut by an ellipsis."""
    for cell in filter(None, cells):
        row = row.lstrip()
        shown = cell if f"{row} ".startswith(f"{cell} ") else row[: row.find(ELLIPSIS) + 1]
        if row and not (shown == cell or (shown and cell.startswith(shown[:-1]))):
            return False
        row = row[len(shown) :]
    return not row.strip()


ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"


def test_garbage_is_toured_like_any_tables(tmp_path: Path) -> None:
    words = np.random.default_rng(1).integers(0, 1 << 21, 1 << 16, np.uint64) | np.uint64(7)
    garbage = tmp_path / "garbage"
    garbage.write_bytes(words.tobytes())

    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        await pilot.press("a", "n", "enter", "n", "enter", "a", "n", "enter", "u", "backspace", "l")
        assert app.place.way
        assert "reached in" in text(app, "where")

    snapshot = ram.snapshot([ram.Placed(garbage)], {"cr3": 0, "cr4": 0x1020})
    assert tour(snapshot, touring).failure is None
