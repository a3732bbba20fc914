"""`pagetable dump`, as people and programs run it."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.cli.commands import run


def dumped(tmp_path: Path, *arguments: object) -> list[str]:
    code, out, errors = run("dump", *arguments, cwd=tmp_path)
    assert (code, errors) == (0, "")
    return out.splitlines()


def test_an_aliased_page_is_one_line_with_its_count(tmp_path: Path) -> None:
    lines = dumped(tmp_path, "--layout", "aliases", "--levels", 4)
    (line,) = [line for line in lines if line.startswith("0xffffff")]
    assert "32 times, every 64K" in line
    assert "65,536 in all" in line


def test_rights_are_those_of_all_levels_and_the_pages_own_are_told(tmp_path: Path) -> None:
    lines = dumped(tmp_path, "--layout", "aliases")
    shown = {line.split()[0]: (line.split()[5], line.partition("own")[2]) for line in lines[3:6]}
    assert shown == {
        "0x100000000..0x100003fff": ("urwx", ""),
        "0x140000000..0x140003fff": ("ur-x", " rights urwx"),
        "0x180000000..0x180003fff": ("-rw-", " rights urwx"),
    }


def test_a_self_map_is_one_line_and_its_pages_are_seen_when_asked_for(tmp_path: Path) -> None:
    lines = dumped(tmp_path, "--layout", "self-map", "--levels", 4)
    (line,) = [line for line in lines if "self-map to" in line]
    assert "the root: 8 entries through it" in line
    expanded = dumped(tmp_path, "--layout", "self-map", "--levels", 4, "--expand")
    assert sum(line.startswith("0xfffff6") for line in expanded) == 8


def test_a_limit_says_what_it_cuts(tmp_path: Path) -> None:
    lines = dumped(tmp_path, "--layout", "rights", "--limit", 3)
    assert "Only the first 3 of 80 ranges are shown (--limit)." in lines
    expanded = dumped(tmp_path, "--layout", "aliases", "--expand", "--limit", 10)
    assert "Only the first 10 rows were looked at, of 65,548." in expanded


def test_json_and_csv_hold_the_same(tmp_path: Path) -> None:
    arguments = ("--layout", "linux-5", "--where", "x or type=UC")
    _, out, _ = run("dump", *arguments, "--json", cwd=tmp_path)
    found = json.loads(out)
    assert (found["version"], found["command"], found["cut"]) == (2, "dump", [])
    assert found["assumed"] == ["IA32_PAT holds what it holds after a reset (--pat)"]
    rows = list(csv.DictReader(io.StringIO("\n".join(dumped(tmp_path, *arguments, "--csv")))))
    ranges = [
        {
            key: "" if value is None else " ".join(value) if isinstance(value, list) else str(value)
            for key, value in one.items()
        }
        for one in found["ranges"]
    ]
    assert rows == ranges
    assert all("execute" in one["rights"] or one["memory_type"] == "UC" for one in ranges)


def test_what_a_limit_cuts_is_said_beside_what_programs_read(tmp_path: Path) -> None:
    limited = ("dump", "--layout", "rights", "--limit", 3)
    code, out, errors = run(*limited, "--csv", cwd=tmp_path)
    assert (code, len(out.splitlines())) == (0, 1 + 3)
    assert errors == "pagetable: Only the first 3 of 80 ranges are shown (--limit).\n"
    found = json.loads(run(*limited, "--json", cwd=tmp_path)[1])
    assert (found["total"], len(found["ranges"]), found["cut"]) == (80, 3, [])


def test_user_and_range_narrow_what_is_shown(tmp_path: Path) -> None:
    lines = dumped(
        tmp_path,
        "--layout",
        "linux-4",
        "--user",
        "--range",
        "0xffff800000000000..0xffffffffffffffff",
    )
    assert [line.split()[0] for line in lines if line.startswith("0x")] == [
        "0xffffffffff600000..0xffffffffff600fff"
    ]


def test_a_root_outside_memory_is_said(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    lines = dumped(tmp_path, "--ram", "ram", "--cr3", "0x5000000")
    said = "the level-3 table at 0x5000000 lies outside memory"
    assert sum(said in line for line in lines) == 2


def test_a_space_is_also_written_as_a_page(tmp_path: Path) -> None:
    plain = dumped(tmp_path, "--layout", "linux-5")
    assert dumped(tmp_path, "--layout", "linux-5", "--html", "space.html") == plain
    assert (tmp_path / "space.html").read_text().count("<tr>") > len(plain) - 6


def test_an_empty_space_is_said(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(4096))
    lines = dumped(tmp_path, "--ram", "ram", "--cr3", 0)
    assert "Nothing is mapped; the space has 1 table." in lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--where", "w and"], "'w and' is not a condition"),
        (["--where", "z"], "there is no axis 'z', but level, kind, size, user, w, x"),
        (["--where", "w) or (x"], "'w) or (x' is not a condition"),
        (["--range", "7"], "'7' is not a range"),
        (["--range", "7..x"], "its last is 'x', no number"),
        (["--range", "7..6"], "a span cannot run from 0x7 to 0x6"),
        (["--json", "--csv"], "both --json and --csv"),
        (["--limit", "0"], "--limit 0 shows nothing"),
        (["--html", "none/space.html"], "there is no directory none"),
        (["--pat", "0x02"], "0x2 as PA0, which is no type"),
    ],
)
def test_what_cannot_be_shown_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("dump", "--layout", "smallest", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors


def test_no_pages_are_counted_in_a_table_that_lies_outside_memory(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(0x2000))
    code, out, _ = run("dump", "--ram", "ram", "--cr3", "0x7000000", cwd=tmp_path)
    assert code == 0
    rows = [line for line in out.splitlines() if "lies outside memory" in line]
    assert len(rows) == 2
    assert not any(" x " in row for row in rows)
    assert "CR3 0x7000000 belongs to this memory, though there is no memory" in out
