"""`pagetable diff`, as people and programs run it."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.commands import run


def ram(path: Path, page: int) -> str:
    """A file of memory with four tables in a row and a page; the word that names it."""
    words = np.zeros(512 * 5, np.uint64)
    words[512], words[1024], words[1536], words[2048 + 3] = 0x2007, 0x3007, 0x4007, page
    path.write_bytes(words.tobytes())
    return f"ram:{path},cr3=0x1000"


def test_what_is_the_same_ends_with_0(tmp_path: Path) -> None:
    code, out, errors = run("diff", "layout:aliases@4", "layout:aliases@4", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert out.splitlines() == [
        "- layout aliases at 4 levels, CR3 0x2000000",
        "+ layout aliases at 4 levels, CR3 0x2000000",
        "",
        "The spaces are the same.",
    ]


def test_what_changed_is_shown_as_it_was_and_as_it_is(tmp_path: Path) -> None:
    before, after = ram(tmp_path / "a", 0x9007), ram(tmp_path / "b", 0xA065)
    code, out, _ = run("diff", before, after, cwd=tmp_path)
    assert code == 1
    lines = [" ".join(line.split()) for line in out.splitlines()[3:6]]
    assert lines == [
        "moved, rights, A/D 0x3000..0x3fff - 1 x 4K urwx WB - - 0x9000",
        "+ 1 x 4K ur-x WB all all 0xa000",
        "1 range; entries, at all addresses: moved 1, rights 1, A/D 1.",
    ]


def test_json_holds_both_sides(tmp_path: Path) -> None:
    before, after = ram(tmp_path / "a", 0), ram(tmp_path / "b", 0xA067)
    code, out, _ = run("diff", before, after, "--json", cwd=tmp_path)
    found = json.loads(out)
    assert (code, found["version"], found["command"], found["same"]) == (1, 2, "diff", False)
    (change,) = found["changes"]
    assert (change["change"], change["first"], change["before"]) == (["mapped"], "0x3000", None)
    assert (change["after"]["physical"], change["after"]["page_size"]) == ("0xa000", 4096)
    assert found["counts"] == {"mapped": 1}


def test_two_spaces_of_one_memory_are_told_apart_by_cr3(tmp_path: Path) -> None:
    first = ram(tmp_path / "a", 0x9007)
    second = first.replace("cr3=0x1000", "cr3=0x2000")
    _, out, _ = run("diff", first, second, cwd=tmp_path)
    ends = [line.split(", ")[-1] for line in out.splitlines()[:2]]
    assert ends == ["CR3 0x1000", "CR3 0x2000"]


def test_a_self_map_and_a_table_without_memory_are_told_as_a_dump_tells_them(
    tmp_path: Path,
) -> None:
    plain = ram(tmp_path / "a", 0x9007)
    odd = ram(tmp_path / "b", 0x9007)
    words = np.fromfile(tmp_path / "b", np.uint64)
    words[512 + 256], words[512 + 511] = 0xDEAD007, 0x1003
    (tmp_path / "b").write_bytes(words.tobytes())
    _, out, _ = run("diff", plain, odd, "--json", cwd=tmp_path)
    told = [change["after"] for change in json.loads(out)["changes"]]
    for side in told:
        del side["page_size"]
    source = ("--ram", tmp_path / "b", "--cr3", "0x1000")
    _, out, _ = run("dump", *source, "--json", cwd=tmp_path)
    dumped = [one for one in json.loads(out)["ranges"] if one["kind"] != "page"]
    assert told == dumped
    # By way of the self-map: an entry of the page table, the lost table at level 1, and then
    # an entry of another table, the lost one at level 0, and the root's three.
    facts = [(one["kind"], one["physical"], one["pieces"], one["below"]) for one in told]
    assert facts == [("unbacked", "0xdead000", 1, 0), ("self-map", "0x1000", 1, 7)]
    _, out, _ = run("diff", plain, odd, cwd=tmp_path)
    assert "what the level-2 table at 0xdead000 has here lies outside memory" in out
    assert "self-map to 0x1000, the root: 7 entries through it" in out


def test_a_source_is_compared_with_itself_later(tmp_path: Path) -> None:
    code, out, _ = run("diff", ram(tmp_path / "a", 0x9007), "--after", 0.01, cwd=tmp_path)
    assert (code, out.splitlines()[3]) == (0, "The spaces are the same.")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["layout:rights@4"], "one source, and one moment"),
        (["layout:rights@4", "layout:rights@5"], "compare two spaces of one mode"),
        (["rights", "layout:rights@5"], "'rights' names no source"),
        (["layout:rights@4", "--after", "-1"], "--after -1 is no time to wait"),
        (["layout:rights@4", "--after", "nan"], "--after nan is no time to wait"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("diff", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors
