"""`pagetable fault`, as people run it."""

import json
from pathlib import Path

import pytest

from harness.cli.fault import KindName
from harness.paging.x86.access import Kind
from tests.cli.commands import run

WHERE = ("--layout", "page-sizes", "--levels", 4)
GIGABYTE = "0xffff_8000_4000_0000"
SLOT = "PDPTE at 0x2006008: 0x8000000040000083"


def lines(*arguments: object, cwd: Path) -> list[str]:
    code, out, errors = run("fault", *arguments, cwd=cwd)
    assert (code, errors) == (0, "")
    return [" ".join(line.split()) for line in out.splitlines()]


def test_an_access_is_explained_with_the_change_that_would_let_it_pass(tmp_path: Path) -> None:
    out = lines(GIGABYTE, "--access", "fetch", "--user", *WHERE, cwd=tmp_path)
    head = "user fetch at 0xffff800040000000: #PF, error code 0x15 (P U I), CR2 0xffff800040000000"
    assert head in out
    assert "rule a user access to a supervisor page (4.6.1), at level 2" in out
    assert f"change {SLOT} -> 0x0000000040000087" in out
    assert "clears XD: opens this 1G page to fetches; sets U: opens it to the user" in out


def test_an_access_that_is_allowed_tells_where_it_gets_and_what_it_sets(tmp_path: Path) -> None:
    out = lines(GIGABYTE, "--access", "write", "--supervisor", *WHERE, cwd=tmp_path)
    assert "supervisor write at 0xffff800040000000: allowed, reaches 0x40000000" in out
    assert "D in the PDPTE at 0x2006008" in out


def test_without_an_access_the_usual_ones_are_a_table(tmp_path: Path) -> None:
    out = lines(GIGABYTE, *WHERE, cwd=tmp_path)
    assert [line.split()[:2] for line in out if line.startswith(("user", "supervisor"))] == [
        [by, kind] for kind in ("read", "write", "fetch") for by in ("user", "supervisor")
    ]
    assert "supervisor read allowed, reaches 0x40000000" in out


@pytest.mark.parametrize(
    "asked", [("0x0", "--access", "read"), ("0x0",), ("--code", "4", "--cr2", "0x0")]
)
def test_what_linux_keeps_in_the_entries_is_told_where_it_is_asked(
    tmp_path: Path, asked: tuple[str, ...]
) -> None:
    memory = tmp_path / "memory"
    words = (0x1007, 0x2007, 0x3007, 0x1FFF_FFFF_FFDB_9604)  # the last one is of README.md
    memory.write_bytes(b"".join(word.to_bytes(8, "little").ljust(0x1000, b"\0") for word in words))
    tables = ("--ram", memory, "--cr3", "0")
    assert "PTE: a page in swap: number 0x1234 of area 3; uffd-wp" in lines(
        *asked, *tables, "--linux", cwd=tmp_path
    )
    assert not [line for line in lines(*asked, *tables, cwd=tmp_path) if "swap" in line]


def page(directory: Path, table_rights: str) -> tuple[object, ...]:
    """The options for a layout with a user's page at 0x1000."""
    text = (
        'title = "One page"\nlevels = [4]\nram = "64M"\n[[map]]\nvirtual = 0x1000\nsize = "4K"\n'
        f'rights = "wu"\ntable_rights = "{table_rights}"\n'
    )
    (directory / "page.toml").write_text(text)
    return ("0x1000", "--access", "read", "--layout", directory / "page.toml")


def test_an_entry_of_an_upper_level_tells_the_span_it_opens(tmp_path: Path) -> None:
    out = lines(*page(tmp_path, "wx"), "--user", cwd=tmp_path)
    assert (
        "sets U: opens all 2M of 0x0..0x1fffff, as far as lower entries allow, to the user" in out
    )


@pytest.mark.parametrize(
    ("options", "answer"),
    [
        ([], "allowed, reaches"),
        (["--cr4", "0x200020", "--no-ac"], "#PF, error code 0x1 (P)"),
        (["--cr4", "0x200020", "--ac"], "allowed, reaches"),
        (["--cr4", "0x400020", "--pkru", "1"], "#PF, error code 0x21 (P PK)"),
        (["--cr4", "0x400020", "--pkru", "4"], "allowed, reaches"),
    ],
)
def test_the_state_on_the_command_line_is_the_one_that_is_judged(
    tmp_path: Path, options: list[str], answer: str
) -> None:
    out = lines(*page(tmp_path, "wux"), "--supervisor", *options, cwd=tmp_path)
    assert any(line.startswith(f"supervisor read at 0x1000: {answer}") for line in out)


def test_the_object_holds_outcomes_remedies_and_the_translation(tmp_path: Path) -> None:
    asked = (GIGABYTE, "--access", "fetch", "--user", *WHERE, "--json")
    answer = json.loads(run("fault", *asked, cwd=tmp_path)[1])
    assert (answer["version"], answer["command"]) == (1, "fault")
    (outcome,) = answer["outcomes"]
    assert (outcome["vector"], outcome["error"], outcome["level"]) == ("PF", "0x15", 2)
    assert outcome["error_bits"] == ["P", "U", "I"]
    (entry,) = outcome["remedies"][0]["entries"]
    assert (entry["slot"]["address"], entry["new"]) == ("0x2006008", "0x40000087")
    assert outcome["translation"]["end"] == "page"


def test_a_fault_that_was_seen_is_put_in_words_without_a_source(tmp_path: Path) -> None:
    out = lines("--code", "0x1d", "--cr2", "0x1000", cwd=tmp_path)
    assert out[0] == "#PF, error code 0x1d (P U RSVD I), CR2 0x1000"
    assert "3 RSVD 1 an entry has reserved bits set" in out and "access user fetch" in out
    assert "tcg-reserved-bit-fault-lacks-p" not in " ".join(out)
    assert "tcg-reserved-bit-fault-lacks-p" in " ".join(lines("--code", "0x1c", cwd=tmp_path))


def test_a_fault_that_was_seen_is_compared_with_the_tables(tmp_path: Path) -> None:
    seen = ("--code", "0x7", "--cr2", GIGABYTE, *WHERE)
    assert "The tables as they are give this fault." in lines(*seen, cwd=tmp_path)
    out = lines("--code", "0x6", "--cr2", GIGABYTE, *WHERE, cwd=tmp_path)
    assert "The tables as they are do not give this fault. It may be that" in out
    answer = json.loads(run("fault", *seen, "--json", cwd=tmp_path)[1])
    assert answer["given"] and answer["seen"]["raised_by"][0] == "user write"


def test_the_accesses_are_those_of_the_library() -> None:
    assert [kind.name for kind in KindName] == [kind.name for kind in Kind]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "no ADDRESS is given"),
        (["0x1000"], "no source is named"),
        (["0x1000", "--cr2", "0x1000"], "add its --code"),
        (["--code", "0x1d", "0x1000"], "--code tells the access"),
        (["--code", "0x1_0000_0000"], "0x100000000 is no error code: those have 32 bits"),
        (["--code", "x"], "the error code is 'x', no number"),
        (["--code", "4", "--linux"], "--linux tells what is in entries: name the source"),
        (["--code", "7", "--layout", "smallest"], "add --cr2"),
        (["0x1000", "--user", "--implicit", "--layout", "smallest"], "an implicit access is a"),
        (["0x1000", "--access", "jump", "--layout", "smallest"], "'jump' is not one of"),
        (["0x1_0000_0000_0000_0000", "--layout", "smallest"], "no number of 64 bits"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("fault", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors


def test_numbers_are_taken_as_tools_print_them(tmp_path: Path) -> None:
    """QEMU's log: e=0003; WinDbg's addresses; Linux's without 0x."""
    plain = lines("--code", "0x3", "--cr2", "0xffffffff85000000", cwd=tmp_path)
    for cr2 in ("ffffffff85000000", "ffffffff`85000000"):
        assert lines("--code", "0003", "--cr2", cr2, cwd=tmp_path) == plain
    asked = ("--access", "read", "--supervisor", "--layout", "linux-4")
    one = lines("ffffffff85000000", *asked, "--cr3", "0000000002000000", cwd=tmp_path)
    assert one == lines("0xffffffff85000000", *asked, cwd=tmp_path)
