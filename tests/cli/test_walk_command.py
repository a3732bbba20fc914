"""`pagetable walk`, as people run it."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import run

WHERE = ("--layout", "page-sizes", "--levels", 4)
GIGABYTE = "0xffff_8000_4000_1234"


def test_a_walk_shows_the_split_every_step_and_the_page(tmp_path: Path) -> None:
    code, out, _ = run("walk", GIGABYTE, *WHERE, cwd=tmp_path)
    assert code == 0
    words = [line.split() for line in out.splitlines()]
    assert out.startswith("layout page-sizes at 4 levels, CR3 0x2000000\n")
    assert "0xffff800040001234: 0x40001234, in a 1G page" in out
    assert ["form", "canonical:", "bits", "63:47", "are", "all", "1"] in words
    assert ["address", "PML4E", "PDPTE", "offset"] in words
    assert ["256", "1", "0x1234"] in words
    assert ["walk", "level", "entry"] in [line[:3] for line in words]
    assert [line[:2] for line in words[-3:-1]] == [["3", "PML4E"], ["2", "PDPTE"]]
    assert out.rstrip().splitlines()[-2].endswith("read write (withholds user execute)")
    assert "memory type WB: PAT index 0" in out


def test_several_addresses_are_one_object_and_every_end_an_answer(tmp_path: Path) -> None:
    hole, odd = "0x1000", "0x8000_0000_0000"
    code, out, _ = run("walk", GIGABYTE, hole, odd, *WHERE, "--json", cwd=tmp_path)
    assert code == 0
    answer = json.loads(out)
    assert (answer["version"], answer["command"]) == (2, "walk")
    assert answer["source"] == "layout page-sizes at 4 levels"
    page, nothing, never = answer["walks"]
    assert (page["physical"], page["size"], page["end"]) == ("0x40001234", 1 << 30, "page")
    assert page["steps"][1]["taken"] == ["user", "execute"]
    assert page["steps"][1]["parts"][0]["name"] == "XD"
    assert (nothing["end"], nothing["physical"]) == ("absent", None)
    assert nothing["reason"] == "the entry is not present (4.7)"
    assert (never["canonical"], never["end"], never["steps"]) == (False, "no-root", [])


def test_a_page_that_is_not_in_memory_may_have_been_left_out_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "tables").write_bytes((0x80_0083).to_bytes(4, "little") + bytes(0xFFC))
    file = ("--ram", "tables", "--cr3", 0, "--cr4", "0x10", "--efer", 0)
    out = run("walk", "0x1000", *file, cwd=tmp_path)[1]
    assert "is not in the file: a device's, nobody's, or memory left out of it" in out
    (tmp_path / "device.toml").write_text(
        'title = "A device"\nlevels = [4]\nram = "64M"\n[[map]]\nvirtual = 0x1000\n'
        'physical = 0xfec0_0000\nsize = "4K"\nrights = "w"\n'
    )
    out = run("walk", "0x1000", "--layout", "device.toml", cwd=tmp_path)[1]
    assert "there is no memory at 0x" in out and ": it is a device's, or nobody's\n" in out


def test_what_linux_keeps_in_entries_is_told_where_it_is_asked(tmp_path: Path) -> None:
    told = run("walk", GIGABYTE, *WHERE, "--linux", cwd=tmp_path)[1]
    assert "to Linux" in told and "to Linux" not in run("walk", GIGABYTE, *WHERE, cwd=tmp_path)[1]


def test_a_register_and_missing_memory_are_steps_too(tmp_path: Path) -> None:
    memory = tmp_path / "memory"
    memory.write_bytes((0x2001).to_bytes(8, "little") + bytes(0xFF8))
    pae = ("--cr3", 0, "--cr4", "0x20", "--efer", 0)
    code, out, _ = run("walk", "0x1000", "--ram", memory, *pae, cwd=tmp_path)
    assert code == 0
    assert "no translation at level 1: the level-1 table at 0x2000 lies outside memory" in out
    lines = [line.split() for line in out.splitlines()]
    register = ["2", "PDPTE", "register", "0x0000000000002001", "table", "at", "0x2000", "P"]
    assert [*register, "read", "write", "user", "execute"] in [line[-12:] for line in lines]
    assert ["1", "PDE", "0x2000", "no", "memory", "there"] in lines


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["0x1000"], "no source is named"),
        (["here", "--layout", "smallest"], "the address is 'here', no number"),
        (["1000", "--layout", "smallest"], "is 1000: write 0x1000, or 0x3e8 if that is decimal"),
        (["-0x1", "--layout", "smallest"], "No such option"),
        (["0x1_0000_0000_0000_0000", "--layout", "smallest"], "which is no number of 64 bits"),
        (["0x1000", "--layout", "smallest", "--cr3", "x"], "cr3 is 'x', no number"),
        (["0x1000", "--ram", "x"], "x cannot be read: No such file"),
        (["0x1000", "--ram", "x", "--cr3", "0"], "x cannot be read: No such file"),
    ],
)
def test_what_cannot_be_walked_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("walk", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors


def test_a_walk_is_also_written_as_a_page_and_as_a_picture(tmp_path: Path) -> None:
    files = ("--html", "walk.html", "--svg", "walk.svg")
    code, out, _ = run("walk", "0x1000", "--layout", "smallest", *files, cwd=tmp_path)
    assert (code, out) == (0, run("walk", "0x1000", "--layout", "smallest", cwd=tmp_path)[1])
    assert "<h1" in (tmp_path / "walk.html").read_text()
    assert (tmp_path / "walk.svg").read_text().startswith("<svg ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["0x1000", "--html", "none/walk.html"], "there is no directory none"),
        (["0x1000", "--svg", "."], "it is a directory"),
        (["0x1000", "0x2000", "--svg", "walk.svg"], "draws one walk, and 2 addresses are given"),
        (["1 << 63", "--svg", "walk.svg"], "no number"),
        (["0x8000000000000000", "--svg", "walk.svg"], "there is no walk of 0x8000000000000000"),
    ],
)
def test_what_cannot_be_drawn_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("walk", *arguments, "--layout", "smallest", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors
    assert list(tmp_path.iterdir()) == []


ENCRYPTED = (0x8000000002067, 0x8000000003067, 0x8000000004067, 0x8000000005067)
"""Public reports of guests under SEV: bit 51 in every entry and in CR3."""


@pytest.mark.parametrize("option", ["--c-bit", "--shared-bit"])
def test_a_bit_that_marks_memory_is_part_of_no_address(tmp_path: Path, option: str) -> None:
    octets = bytearray(0x6000)
    for place, word in zip((0x1000, 0x2000, 0x3000, 0x4008), ENCRYPTED, strict=True):
        octets[place : place + 8] = word.to_bytes(8, "little")
    (tmp_path / "ram").write_bytes(octets)
    of = ("walk", "0x1000", "--ram", "ram", "--cr3", "0x8000000001000", option, 51)
    code, out, _ = run(*of, cwd=tmp_path)
    assert code == 0 and "0x1000: 0x5000, in a 4K page" in out
    code, out, errors = run(*of[:-2], cwd=tmp_path)
    assert (code, errors) == (0, "") and "0x1000: 0x5000, in a 4K page" in out
    assert "bit 51 marks encrypted memory: CR3 and every entry of its table have it" in out
    entries = ("walk", "0x1000", "--entries", f"PMD=2067 PTE={ENCRYPTED[3]:x}")
    assert "0x1000: 0x5000, in a 4K page" in run(*entries, option, 51, cwd=tmp_path)[1]
    assert "reserved: 0x8000000000000" in run(*entries, cwd=tmp_path)[1]
    for command in (("dump",), ("lint",), ("fault", "0x1000")):
        out = run(*command, *of[2:], cwd=tmp_path)[1]
        assert "reserved" not in out and "outside memory" not in out, out
    code, out, errors = run(*entries, option, 12, cwd=tmp_path)
    assert (code, out) == (2, "") and "one of 32 to 51 in long mode: 12 is not" in errors


def test_an_entry_shows_what_the_bit_says(tmp_path: Path) -> None:
    asked = ("decode", f"{ENCRYPTED[3]:#x}", "--level", "pte")
    out = " ".join(run(*asked, "--c-bit", 51, cwd=tmp_path)[1].split())
    assert "4K page at 0x5000" in out and "51 C 0x1 encrypted (SME, SEV)" in out
    out = " ".join(run(*asked, "--shared-bit", 51, cwd=tmp_path)[1].split())
    assert "51 shared 0x1 shared with the host (TDX)" in out


NAMED = {
    **{"--layout": "smallest", "--case": "none", "--qmp": "none", "--gdb": "none"},
    **{"--core": "none", "--ram": "none", "--entries": "PGD=1"},
}
SERVED: dict[tuple[object, ...], list[str]] = {
    ("--levels", 5): ["--layout"],
    ("--vcpu", 1): ["--qmp", "--gdb", "--core"],
    ("--live",): ["--qmp"],
    ("--held",): ["--gdb"],
    ("--flat",): ["--ram"],
}
"""The sources that an option says something of."""


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize(("option", "served"), SERVED.items(), ids=str)
def test_an_option_that_says_nothing_of_the_source_is_refused(
    option: tuple[object, ...], served: list[str], kind: str, tmp_path: Path
) -> None:
    command = "fault" if kind == "--entries" else "walk"
    code, out, err = run(command, "0x1000", kind, NAMED[kind], *option, cwd=tmp_path)
    refused = f"pagetable: {option[0]} is for {' and '.join(served)}, not for {kind}\n"
    assert (err == refused) == (kind not in served)
    assert (code, out) == (2, "") or kind in served
