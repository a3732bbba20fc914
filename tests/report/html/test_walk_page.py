"""The page of a walk, as a browser shows it: tables come from shipped layouts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from harness.inspect import architecture
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import layout
from harness.inspect.translation import translate
from harness.paging import bulk
from harness.paging.address import Virtual
from harness.paging.bulk import End
from harness.report.diagram import picture
from harness.report.html.walk import walk_page
from harness.report.text import letters
from tests.inspect.spaces import GUARDED
from tests.report.html.browser import CONTRAST, chromium, opened

PAGE = 0x5555_5555_5234
"""An address of the layouts linux-4 and linux-5: in the second page of the program's code."""


HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=alert(1)>\"'&{{7*7}}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def tables(name: str) -> Snapshot:
    return layout.snapshot(name, None, {})


def saved(path: Path, snapshot: Snapshot, *addresses: int) -> Path:
    """The page of walks in a file."""
    found = [translate(snapshot, Virtual(address)) for address in addresses]
    file = path / "walk.html"
    file.write_text(walk_page(snapshot, found))
    return file


def search(page: Page, address: str, space: str = "virtual") -> str:
    page.fill("#query", address)
    page.select_option("#space", space)
    page.click("#search button")
    return page.inner_text("#answer")


def open_all(page: Page) -> None:
    """Opens tables until all are open."""
    closed = "#tree details:not([open]) > summary"
    while page.locator(closed).count():
        page.evaluate(f"document.querySelectorAll('{closed}').forEach((one) => one.click())")
        page.wait_for_function(
            "[...document.querySelectorAll('#tree details:not(.group)[open]')]"
            ".every((one) => one.querySelector(':scope > .node'))"
        )


UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def shown(page: Page) -> Counter[tuple[int, int, str]]:
    """Every page on the map, once all is open: virtual address, physical address, and rights."""
    found = Counter[tuple[int, int, str]]()
    rows = page.evaluate(
        """[...document.querySelectorAll('#tree div.row')].map((row) => ['from', 'extent', 'rights',
        'holds'].map((kind) => row.querySelector('.' + kind)?.textContent ?? ''))"""
    )
    for start, extent, rights, holds in rows:
        many, _, unit = extent.rpartition(" \N{MULTIPLICATION SIGN} ")
        match = re.match(r"(?:\d+ )?\w+ pages? (0x[0-9a-f]+)(, all the same)?", holds)
        if match:
            size = int(unit[:-1]) * UNITS[unit[-1]]
            for place in range(int(many or 1)):
                step = 0 if match[2] else place * size
                found[int(start, 0) + place * size, int(match[1], 0) + step, rights] += 1
    return found


def test_each_step_tells_the_rights_that_are_left_and_those_that_it_takes(
    browser: Browser, tmp_path: Path
) -> None:
    with opened(browser, saved(tmp_path, tables("linux-5"), PAGE)) as page:
        cells = page.locator("section table").first.locator("tr td:last-child").all_inner_texts()
    assert cells == ["read write user execute"] * 4 + ["read user execute (withholds write)"]


@pytest.mark.parametrize("name", ["linux-4", "halves", "page-sizes"])
def test_the_map_opened_whole_shows_each_page_once_with_its_effective_rights(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    snapshot = tables(name)
    with opened(browser, saved(tmp_path, snapshot, 0)) as page:
        open_all(page)
        found = shown(page)
    leaves = bulk.leaves(snapshot.memory, snapshot.cpu.roots)
    leaves = leaves.take(leaves.end == End.LEAF)
    rights = snapshot.cpu.format.rights
    expected = Counter(
        (
            virtual,
            physical,
            "".join(
                letter if right is None or granted & rights[right] else "-"
                for letter, right in zip("urwx", ("user", None, "write", "execute"), strict=True)
            ),
        )
        for virtual, physical, granted in zip(
            leaves.virtual.tolist(), leaves.physical.tolist(), leaves.granted.tolist(), strict=True
        )
    )
    assert expected
    assert found == expected


@pytest.mark.parametrize("name", ["arm64/rights", "arm64/wxn", "guarded"])
def test_the_map_has_the_rule_of_effective_rights_that_dump_has(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    if name == "guarded":
        (tmp_path / "guarded.toml").write_text(GUARDED)
        name = str(tmp_path / "guarded.toml")
    snapshot = tables(name)
    with opened(browser, saved(tmp_path, snapshot, 0)) as page:
        open_all(page)
        found = shown(page)
        first = search(page, "0x400000" if name.startswith("arm64") else "0x1000")
    cpu = snapshot.cpu
    leaves = bulk.leaves(snapshot.memory, cpu.roots)
    leaves = leaves.take(leaves.end == End.LEAF)
    effective = architecture.effective(cpu, leaves.granted, leaves.raw)
    assert (effective != leaves.granted).any()
    given = [letters(cpu.format, one) for one in effective.tolist()]
    assert found == Counter(
        zip(leaves.virtual.tolist(), leaves.physical.tolist(), given, strict=True)
    )
    assert first.endswith(f" page, {given[0]}.")


def test_tables_open_one_level_at_a_time(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, saved(tmp_path, tables("linux-5"), PAGE)) as page:
        first = page.locator("#tree > .node").nth(1).locator("> details").first
        assert first.locator(".node").count() == 0
        first.locator("> summary").focus()
        page.keyboard.press("Enter")
        first.locator("> .node").wait_for()
        assert first.locator(".node").count() == 1
        assert first.locator("> .node > .about > .title").inner_text() == "PML4"
        page.keyboard.press("Enter")
        assert not first.evaluate("one => one.open")


def test_a_virtual_address_is_found_with_the_tables_on_its_way(
    browser: Browser, tmp_path: Path
) -> None:
    snapshot = tables("linux-5")
    found = translate(snapshot, Virtual(PAGE))
    with opened(browser, saved(tmp_path, snapshot, 0xFFFF_8880_0000_0000)) as page:
        answer = search(page, "5555_5555_5234")
        assert answer == f"{PAGE:#x} is {found.physical:#x} in physical memory: a 4K page, ur-x."
        assert page.locator(".hit").count() == 1
        assert (
            page.locator("[aria-current]").inner_text().split()[1]
            == f"{PAGE & ~0xFFFF:#x}"[:-4] + "4000"
        )
        opened_tables = page.locator(
            "details[open]:has(.hit) > .node > .about > .title + .mono"
        ).all_inner_texts()
        walked = found.walk
        assert walked is not None
        assert opened_tables == [f"{step.slot.table.address:#x}" for step in walked.steps[1:]]


def test_an_address_without_a_page_is_answered_with_the_reason(
    browser: Browser, tmp_path: Path
) -> None:
    with opened(browser, saved(tmp_path, tables("linux-4"), PAGE)) as page:
        assert "Nothing is at 0x1000: PML4E 0 of the PML4 at" in search(page, "0x1000")
        assert "is in no root's span" in search(page, "0x800000000000")
        assert "This is no address" in search(page, "here")
        assert "This is no address" in search(page, "0x12345678123456789")


def test_a_physical_address_is_found_at_all_of_its_aliases(
    browser: Browser, tmp_path: Path
) -> None:
    snapshot = tables("aliases")
    leaves = bulk.leaves(snapshot.memory, snapshot.cpu.roots)
    frame = int(leaves.physical[leaves.level == 0][0])
    at = leaves.virtual[leaves.physical == frame]
    most = int(leaves.physical[-1])
    many = int((leaves.physical == most).sum())
    with opened(browser, saved(tmp_path, snapshot, 0)) as page:
        assert f"{len(at):,} virtual addresses" in search(page, f"{frame + 8:#x}", "physical")
        places = page.locator("#places button").all_inner_texts()
        assert sorted(places) == sorted(f"{address + 8:#x}" for address in at.tolist())
        page.locator("#places button").first.click()
        assert f"is {frame + 8:#x} in physical memory" in page.inner_text("#answer")
        assert f"{many:,} virtual addresses, of which 32 are listed" in search(
            page, f"{most:#x}", "physical"
        )
        root = snapshot.cpu.roots[0].table.address
        assert "It is in the PML5 at" in search(page, f"{root + 8:#x}", "physical")


def test_another_address_has_its_own_title_and_picture(browser: Browser, tmp_path: Path) -> None:
    snapshot = tables("linux-4")
    with opened(browser, saved(tmp_path, snapshot, 0x5555_5555_4234)) as page:
        came = page.inner_text("header"), page.title()
        assert page.is_visible("svg.walk")
        search(page, "ffffffff85000000")
        assert page.inner_text("h1") == "0xffffffff85000000"
        assert page.title().startswith("0xffffffff85000000 in ")
        assert "0x5000000 in physical memory: a 2M page, -r--." in page.inner_text("header")
        assert not page.is_visible("svg.walk")
        drawn = page.locator("#way .step").all_inner_texts()
        found = translate(snapshot, Virtual(0xFFFF_FFFF_8500_0000)).walk
        assert found is not None
        assert drawn[0] == "CR3"
        names = ["PML4", "PDPT", "page directory"]
        for name, step, shown in zip(names, found.steps, drawn[1:], strict=False):
            assert shown.split("\n")[:2] == [name, f"{step.slot.table.address:#x}"]
            assert shown.split("\n")[2].endswith(f" {step.slot.index}")
        assert drawn[-1].split("\n") == ["2M page", "0x5000000", "-r--"]
        search(page, "1000")
        assert page.locator("#way .step").last.inner_text() == "not present"
        search(page, "555555554234")
        assert (page.inner_text("header"), page.title()) == came
        assert page.is_visible("svg.walk")
        assert not page.is_visible("#way")


def test_columns_stay_columns_at_every_depth(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, saved(tmp_path, tables("linux-5"), PAGE)) as page:
        depths = page.locator("#tree .node:has(.hit)").count()
        assert depths == 5
        for column in ("from", "extent", "given", "holds"):
            left = page.evaluate(
                """(column) => [...document.querySelectorAll(`#tree .row > .${column}`)]
                .map((one) => one.getBoundingClientRect().left)""",
                column,
            )
            assert len(left) > 10
            assert max(left) - min(left) < 1, column


@pytest.mark.parametrize(
    ("rights", "least"), [("#tree .rights", 11), ("table.walk td:last-child", 5)]
)
def test_at_four_hundred_pixels_all_rights_are_on_the_screen(
    browser: Browser, tmp_path: Path, rights: str, least: int
) -> None:
    with opened(browser, saved(tmp_path, tables("linux-5"), PAGE)) as page:
        page.set_viewport_size({"width": 400, "height": 800})
        right = page.evaluate(
            """(rights) => [...document.querySelectorAll(rights)]
            .map((one) => one.getBoundingClientRect().right)""",
            rights,
        )
    assert len(right) >= least
    assert max(right) <= 400


def test_a_self_map_is_named_and_opens_without_end(browser: Browser, tmp_path: Path) -> None:
    with opened(browser, saved(tmp_path, tables("self-map"), 0)) as page:
        row = page.locator("summary", has_text="a self-map").first
        row.click()
        inner = page.locator("summary", has_text="a self-map").nth(1)
        inner.click()
        assert page.locator("summary", has_text="a self-map").count() >= 3


def test_light_and_dark_differ_and_every_text_stands_out(browser: Browser, tmp_path: Path) -> None:
    backgrounds = set()
    for dark in (False, True):
        with opened(browser, saved(tmp_path, tables("malformed"), 0x40_1000), dark=dark) as page:
            page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
            backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
            found = page.evaluate(CONTRAST)
            assert found["seen"] > 100
            assert found["least"] >= 4.5, found["of"]
    assert len(backgrounds) == 2


def test_a_picture_of_its_own_is_in_the_reader_s_colours(browser: Browser, tmp_path: Path) -> None:
    found = translate(tables("linux-5"), Virtual(PAGE)).walk
    assert found is not None
    file = tmp_path / "walk.svg"
    file.write_text(picture(found, "CR3", HOSTILE))
    papers = set()
    for dark in (False, True):
        with opened(browser, file, dark=dark) as page:
            papers.add(page.evaluate("getComputedStyle(document.querySelector('.paper')).fill"))
            assert page.evaluate("document.querySelector('.note').textContent") == HOSTILE
    assert len(papers) == 2


def test_print_is_light_without_the_search_and_on_landscape_pages(
    browser: Browser, tmp_path: Path
) -> None:
    with opened(browser, saved(tmp_path, tables("linux-5"), PAGE), dark=True) as page:
        page.emulate_media(media="print", color_scheme="dark")
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        )
        assert not page.is_visible("#search")
        assert not page.is_visible("details.bits")  # closed: there is no more to see of them
        assert page.evaluate(CONTRAST)["least"] >= 4.5
        pdf = page.pdf(prefer_css_page_size=True)
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert boxes
    assert all(float(width) > float(height) for width, height in boxes)


def test_without_scripts_the_walk_is_there_and_the_map_says_why_it_is_not(
    browser: Browser, tmp_path: Path
) -> None:
    with opened(browser, saved(tmp_path, tables("linux-4"), PAGE), scripts=False) as page:
        assert page.locator("main table").first.locator("tbody tr").count() == 4
        assert page.is_visible("svg.walk")
        assert not page.is_visible("#search")
        assert page.is_visible("noscript")


def test_a_hostile_title_is_text(browser: Browser, tmp_path: Path) -> None:
    snapshot = replace(tables("linux-4"), title=HOSTILE, assumed=(HOSTILE,))
    with opened(browser, saved(tmp_path, snapshot, PAGE)) as page:
        assert page.title() == f"{PAGE:#x} in {HOSTILE}"
        assert page.locator("img").count() == 0
        assert page.inner_text(".source") == HOSTILE
        assert page.inner_text("main li") == HOSTILE


def test_a_script_that_is_not_the_page_s_own_does_not_run(browser: Browser, tmp_path: Path) -> None:
    file = saved(tmp_path, tables("linux-4"), PAGE)
    text = file.read_text()
    file.write_text(text.replace("</main>", "</main><script>document.title = 'owned'</script>"))
    with (
        pytest.raises(AssertionError, match="Content Security Policy"),
        opened(browser, file) as page,
    ):
        assert page.title() != "owned"
