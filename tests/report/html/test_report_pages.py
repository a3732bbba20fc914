"""The pages of dump, validate and matrix, as a browser shows them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser

from harness.check import layouts
from harness.check.compare import Comparison, Disagreement
from harness.check.matrix import Report
from harness.check.validation import SpaceReport
from harness.check.x86.cases import AC
from harness.check.x86.matrix.run import Plan
from harness.check.x86.quirks import RESERVED_WITHOUT_PRESENT
from harness.inspect import ranges
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import layout
from harness.inspect.x86.memory_type import types
from harness.paging.address import Physical, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.riscv import cpu as riscv
from harness.paging.walk import walk
from harness.paging.x86.access import Access, Kind, Reason
from harness.paging.x86.cpu import Cpu
from harness.report.html import space_map
from harness.report.html.run import matrix_page, run_page
from harness.report.html.space import space_page
from harness.report.matrix import Result
from harness.report.run import Finding, Run
from tests.report.html.browser import CONTRAST, chromium, opened

HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"
QUIRK = RESERVED_WITHOUT_PRESENT


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


def space(path: Path, snapshot: Snapshot, limit: int = 1000) -> Path:
    cpu = snapshot.cpu
    found = ranges.dump(snapshot.memory, cpu.format, cpu.roots)
    file = path / "space.html"
    file.write_text(space_page(snapshot, types(None), found, limit))
    return file


def disagreement() -> Disagreement:
    """One about a page of the layout linux-4, with its walk."""
    snapshot = layout.snapshot("linux-4", None, {})
    address = Virtual(0x5555_5555_4000)
    found = walk(snapshot.memory, snapshot.cpu.roots[0], address)
    access = Access(Kind.WRITE, user=True)
    return Disagreement("probe", address, access, HOSTILE, f"saw {HOSTILE}", found, flags=AC)


def validation(name: str = "linux-4", failure: str | None = None) -> Run:
    """A run with one space that disagrees and one that was skipped."""
    read = replace(layouts.load(layouts.find("linux-4")), name=name, title=HOSTILE)
    compared = Comparison(
        "probe",
        compared=1234,
        disagreed=2,
        disagreements=[disagreement()],
        quirks=Counter({QUIRK.name: 1500}),
        not_comparable=Counter({f"because {HOSTILE}": 3}),
        news=Counter({"it did not show": 4}),
    )
    spaces = (
        SpaceReport(read, 4, "tcg", "9.9.9", None, (compared,), 1.25),
        SpaceReport(read, 5, "tcg", "9.9.9", "no LA57", (), 0.0),
    )
    finding = Finding(spaces[0], compared.disagreements[0], Path("build/cases/one.json"))
    return Run("tcg", spaces, (finding,), 2.5, failure)


def test_the_version_of_a_run_is_that_of_a_space_for_which_an_emulator_was_started() -> None:
    run = validation()
    skipped = replace(run.spaces[1], qemu="")
    assert replace(run, spaces=(skipped, run.spaces[0])).qemu == "9.9.9"
    assert replace(run, spaces=(skipped,)).qemu == replace(run, spaces=()).qemu == ""


def test_without_scripts_a_space_is_listed_range_by_range(browser: Browser, tmp_path: Path) -> None:
    snapshot = layout.snapshot("linux-5", None, {})
    cpu = snapshot.cpu
    found = ranges.dump(snapshot.memory, cpu.format, cpu.roots)
    with opened(browser, space(tmp_path, snapshot), scripts=False) as page:
        rows = page.locator("table tbody tr")
        assert rows.count() == len(found.ranges) > 30
        firsts = [one.split("..")[0] for one in rows.locator("td:first-child").all_inner_texts()]
        assert firsts == [f"{one.first:#x}" for one in found.ranges]


def test_many_ranges_are_folded_by_the_slots_of_the_root(browser: Browser, tmp_path: Path) -> None:
    snapshot = layout.snapshot("sparse", None, {})
    cpu = snapshot.cpu
    found = ranges.dump(snapshot.memory, cpu.format, cpu.roots)
    with opened(browser, space(tmp_path, snapshot)) as page:
        parts = page.locator("details.part")
        slots = {one.first >> 48 for one in found.ranges}
        assert parts.count() == len(slots) > 10
        assert page.locator("details.part tbody tr").count() == len(found.ranges)
        assert not page.locator("details.part tbody tr").first.is_visible()
        parts.first.locator("summary").click()
        assert page.locator("details.part tbody tr").first.is_visible()


def test_ranges_beyond_the_limit_are_left_out_with_a_note(browser: Browser, tmp_path: Path) -> None:
    snapshot = layout.snapshot("linux-5", None, {})
    with opened(browser, space(tmp_path, snapshot, limit=7)) as page:
        assert page.locator("table tbody tr").count() == 7
        assert "Only the first 7 of" in page.inner_text("header")


def test_a_space_of_noise_has_a_map_of_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_map, "RUNS", 3000)
    noise = np.random.default_rng(5).integers(0, 1 << 19, 1 << 16, np.uint64)
    memory = BufferMemory((noise | np.uint64(1)).view(np.uint8))
    drawn = space_map.as_object(Snapshot("noise", Cpu.long_mode(5, 0), memory, (memory.span,)))
    assert drawn is not None
    runs = [run for table in drawn["tables"] for run in table[8].split(";") if run]
    assert 1500 < len(runs) <= space_map.RUNS
    lost = [run for run in runs if drawn["kinds"][int(run.split(",")[2])][0] == "table"]
    assert drawn["unread"] == sum(int(run.split(",")[1]) for run in lost if run.endswith(",-1")) > 0


def test_runs_tell_every_entry() -> None:
    """Frames that repeat, follow each other, and turn from one to the other at every place."""
    steps = np.random.default_rng(7).integers(0, 3, 512)
    pages = (np.cumsum(steps) << 12 | 0x40_0001).astype(np.uint64)
    memory = BufferMemory(np.zeros(0x5000, np.uint8))
    for table in range(3):
        memory.store(Physical(table << 12), 8, (table + 1) << 12 | 1)
    memory.scatter(np.arange(0x3000, 0x4000, 8, dtype=np.uint64), 8, pages)
    drawn = space_map.as_object(Snapshot("runs", Cpu.long_mode(4, 0), memory, None))
    assert drawn is not None
    told: list[int] = []
    for run in drawn["tables"][-1][8].split(";"):
        index, count, kind, first = run.split(",")
        assert int(index) == len(told)
        step = int(drawn["kinds"][int(kind)][3], 16)
        told += [int(first, 16) + number * step for number in range(int(count))]
    assert told == (pages & ~np.uint64(1)).tolist()
    assert drawn["tables"][-1][8].count(";") < 400


FRAMES = (*range(0x9000_0000, 0x9000_3000, 0x1000), *range(0x9010_0000, 0x9010_C000, 0x4000))
NAPOT = 0xA000_0000


@pytest.fixture
def napot() -> Snapshot:
    """Pages of RISC-V, whose entries hold an address two bits lower: at FRAMES, and from the slot
    16 on two of 64K beside each other (Svnapot), the second of which lacks its last slot."""
    words = dict(enumerate(frame >> 2 | 0x57 for frame in FRAMES))
    for slot in range(31):
        words[16 + slot] = 1 << 63 | (NAPOT + slot // 16 * 0x1_0000 | 0x8000) >> 2 | 0x57
    memory = BufferMemory(np.zeros(0x4000, np.uint8))
    for table in range(2):
        memory.store(Physical(table << 12), 8, table + 1 << 10 | 1)
    for slot, word in words.items():
        memory.store(Physical(0x2000 + 8 * slot), 8, word)
    return Snapshot("napot", riscv.Cpu.in_mode(riscv.Mode.SV39, 0, svnapot=True), memory, None)


def test_runs_tell_where_each_slot_of_a_larger_page_leads(napot: Snapshot) -> None:
    drawn = space_map.as_object(napot)
    assert drawn is not None
    told = dict[int, tuple[str, int]]()
    runs = drawn["tables"][-1][8].split(";")
    for run in runs:
        index, count, kind, first = run.split(",")
        size, _, _, step = drawn["kinds"][int(kind)]
        for number in range(int(count)):
            told[int(index) + number] = size, int(first, 16) + number * int(step, 16)
    wanted = {slot: ("4K", frame) for slot, frame in enumerate(FRAMES)}
    wanted |= {16 + slot: ("64K", NAPOT + 4096 * slot) for slot in range(31)}
    assert told == wanted
    assert [int(run.split(",")[1]) for run in runs] == [3, 1, 1, 1, 31]


def test_the_map_of_a_space_of_riscv_finds_both_ways(
    browser: Browser, tmp_path: Path, napot: Snapshot
) -> None:
    with opened(browser, space(tmp_path, napot)) as page:
        assert "satp" in page.inner_text("#tree")
        assert "CR3" not in page.inner_text("body")
        for address, physical in ((0x10005, NAPOT + 5), (0x2E123, NAPOT + 0x1_E123)):
            page.fill("#query", hex(address))
            page.keyboard.press("Enter")
            said = f"{address:#x} is {physical:#x} in physical memory: a 64K page, urw-"
            assert page.inner_text("#answer").startswith(said)
        assert "31 slots of 64K pages 0xa0000000" in page.inner_text("#tree")
        page.fill("#query", "0x2f000")
        page.keyboard.press("Enter")
        assert "is not present" in page.inner_text("#answer")


@pytest.mark.parametrize(
    ("name", "levels", "samples"),
    [
        ("smallest", 4, ["ur--", "urw-", "ur-x", "urwx", "-rw-"]),
        ("riscv/smallest", 3, ["ur--", "urw-", "ur-x", "urwx", "-rw-"]),
        ("arm64/smallest", 4, ["ur---", "urw--", "ur-x-", "urwx-", "-rw--"]),
        ("s390/smallest", 5, ["-r--", "-rw-", "-r-x", "-rwx"]),
    ],
)
def test_the_legend_of_a_map_has_the_rights_of_its_format(
    browser: Browser, tmp_path: Path, name: str, levels: int, samples: list[str]
) -> None:
    with opened(browser, space(tmp_path, layout.snapshot(name, levels, {}))) as page:
        legend = page.locator("#legend")
        assert legend.locator(".rights").all_inner_texts() == samples
        said = legend.locator("dd").all_inner_texts()
        assert any("supervisor" in one for one in said) == any("u" in one for one in samples)
        for text, what in zip(samples, said, strict=True):
            if "supervisor" not in what:
                assert ("writable" in what, "executable" in what) == ("w" in text, "x" in text)


def test_rights_of_every_kind_stay_beside_what_a_row_holds(
    browser: Browser, tmp_path: Path
) -> None:
    """RISC-V has ten sets of rights, which one table can have all."""
    with opened(browser, space(tmp_path, layout.snapshot("riscv/rights", 3, {}))) as page:
        row = page.locator("summary.row").first
        chips = row.locator(".rights")
        assert chips.count() == 10
        beside = row.locator(".holds").bounding_box()
        assert beside is not None
        for chip in chips.all():
            box = chip.bounding_box()
            assert box is not None and box["x"] + box["width"] <= beside["x"]


def test_a_validation_shows_counts_quirks_and_each_disagreement_in_full(
    browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "run.html"
    file.write_text(run_page(validation()))
    with opened(browser, file) as page:
        assert page.inner_text("h1").startswith("2 of 1,234 answers disagree on tcg, QEMU 9.9.9")
        cells = page.locator("tbody tr").first.locator("td").all_inner_texts()
        assert cells[:7] == ["linux-4", "4", "1,234", "2", "1,500", "3", "1.2"]
        assert "skipped" in page.locator("tbody tr").nth(1).inner_text()
        text = page.inner_text("main")
        for said in (QUIRK.rule, QUIRK.departs, QUIRK.evidence, "1,500 times", "no LA57"):
            assert said in text
        assert "it did not show" in text
        finding = page.locator(".finding")
        assert finding.locator("h3").inner_text() == (
            "linux-4, 4 levels, probe: user write at 0x555555554000 with AC set"
        )
        assert finding.locator("code").inner_text() == "pagetable replay build/cases/one.json"
        assert finding.locator("svg.walk").is_visible()
        finding.locator("summary").click()
        assert finding.locator("tbody tr").count() == 4


def test_what_a_layout_or_a_machine_says_is_text(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "run.html"
    file.write_text(run_page(validation(name=HOSTILE, failure=HOSTILE)))
    with opened(browser, file) as page:
        assert page.title().startswith("validate: 2 of")
        assert page.locator("img").count() == 0
        assert page.inner_text("header .failure") == HOSTILE
        assert page.locator("tbody tr").first.locator("td").first.inner_text() == HOSTILE
        assert page.locator(".finding dd").first.inner_text() == HOSTILE


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_text_of_a_report_stands_out(browser: Browser, tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "run.html"
    file.write_text(run_page(validation(failure="It is gone.")))
    with opened(browser, file, dark=dark) as page:
        page.evaluate("document.querySelectorAll('details').forEach((one) => one.open = true)")
        found = page.evaluate(CONTRAST)
        assert found["seen"] > 50
        assert found["least"] >= 4.5, found["of"]


def test_a_run_of_the_matrix_shows_outcomes_and_what_was_left_out(
    browser: Browser, tmp_path: Path
) -> None:
    report = Report("tcg", "9.9.9", Comparison("matrix", compared=30), masked=Counter(A=5))
    report.by_rule.update({("4", None): 10, ("4", Reason.SMEP): 20})
    plan = Plan("tcg", (), Counter({"mode 5: no LA57": 7}), Counter({"a rule": 8}))
    file = tmp_path / "matrix.html"
    file.write_text(matrix_page(Result(plan, report, (), 2.0)))
    with opened(browser, file) as page:
        assert page.inner_text("h1") == "All 30 accesses agree on tcg, QEMU 9.9.9; 15 a second."
        rows = page.locator("table").first.locator("tbody tr").all_inner_texts()
        assert [row.split("\t") for row in rows] == [
            ["4", "allowed", "10"],
            ["4", Reason.SMEP.value, "20"],
        ]
        text = page.inner_text("main")
        for said in ("7\tmode 5: no LA57", "8\ta rule", "5\tA"):
            assert said in text
