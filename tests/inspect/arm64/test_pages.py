"""Pages, pictures and tours of arm64's tables, of one format and of two."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from harness.inspect.sources import layout
from harness.paging.address import Virtual
from harness.report.explorer import Explorer
from tests.cli.commands import run
from tests.report.test_explorer import drawn, text, tour

LOW, HIGH = 0x40_0000, 0xFFFF_0000_0001_0000


@pytest.mark.parametrize(("address", "register"), [(LOW, "TTBR0_EL1"), (HIGH, "TTBR1_EL1")])
def test_a_picture_begins_at_the_register_of_its_half(
    address: int, register: str, tmp_path: Path
) -> None:
    where = ("--layout", "arm64/two-granules", "--svg", "x.svg", "--html", "x.html")
    code, _, err = run("walk", hex(address), *where, cwd=tmp_path)
    assert (code, err) == (0, "")
    text = (tmp_path / "x.svg").read_text()
    ElementTree.fromstring(text)
    assert set(re.findall(r"TTBR._EL1", text)) == {register}
    assert "k supervisor execute" in text
    page = (tmp_path / "x.html").read_text()
    assert set(re.findall(r'"(TTBR._EL1)"', page)) == {register}


def test_the_name_of_the_register_is_in_its_box(tmp_path: Path) -> None:
    assert run("walk", hex(LOW), "--layout", "arm64/rights", "--svg", "x.svg", cwd=tmp_path)[0] == 0
    drawing = ElementTree.fromstring((tmp_path / "x.svg").read_text())
    [box] = drawing.iterfind(".//*[@class='register']")
    [name] = [one for one in drawing.iter() if one.text == "TTBR0_EL1"]
    # 5.5 units a character in letters of 10, 7.7 in those of names: as wide as they are drawn.
    wide = 5.5 if "label" in name.attrib["class"] else 7.7
    assert len("TTBR0_EL1") * wide <= float(box.attrib["width"])


def test_a_page_of_a_fault_names_what_denies_it(tmp_path: Path) -> None:
    where = ("--layout", "arm64/rights", "--html", "x.html")
    code, _, err = run("fault", "0x40c000", "--access", "fetch", *where, cwd=tmp_path)
    assert (code, err) == (0, "")
    page = (tmp_path / "x.html").read_text()
    assert "EL1 executes what EL0 may write" in page and "0x004800004300c043" in page


def test_the_map_of_a_space_has_both_halves_and_five_letters(tmp_path: Path) -> None:
    where = ("--layout", "arm64/rights", "--html", "x.html")
    assert run("dump", *where, cwd=tmp_path)[0] == 0
    page = (tmp_path / "x.html").read_text()
    assert '"rights": "urwxk"' in page or '"rights":"urwxk"' in page
    assert set(re.findall(r'"(TTBR._EL1)"', page)) == {"TTBR0_EL1", "TTBR1_EL1"}


@pytest.mark.parametrize(
    ("name", "address", "entry"),
    [("rights", LOW, "L3, slot 0 at 0x42004000"), ("two-granules", HIGH, "L3, slot 1 at ")],
)
def test_a_tour_shows_entries_bit_by_bit_in_both_halves(
    name: str, address: int, entry: str
) -> None:
    async def touring(app: Explorer, pilot: Pilot[None]) -> None:
        await pilot.press("a")
        told, where = drawn(app.query_one("#bit-lines", Static)), text(app, "where")
        assert entry in told and "AttrIndx" in told
        assert "rights so far urwxk" in where and "TTBR1 0x42001000" in where
        assert "reached in 1 way" in where

    tour(layout.snapshot(f"arm64/{name}", None, {}), touring, Virtual(address))
