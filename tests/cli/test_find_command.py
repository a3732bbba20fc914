"""`pagetable find`, as people and programs run it."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import run


def found(tmp_path: Path, *arguments: object) -> str:
    code, out, errors = run("find", *arguments, cwd=tmp_path)
    assert (code, errors) == (0, "")
    return out


def test_all_addresses_are_counted_and_the_first_shown(tmp_path: Path) -> None:
    out = found(tmp_path, "0x3000000", "--layout", "aliases", "--limit", 3)
    assert "65,536 addresses of 0x3000000; the first 3 are shown (--limit)." in out
    assert sum(line.startswith("0xffffff00000") for line in out.splitlines()) == 3


def test_a_table_is_told_from_a_page_and_who_leads_to_it(tmp_path: Path) -> None:
    arguments = ("--layout", "self-map", "--levels", 4)
    place = json.loads(found(tmp_path, "0x2004008", *arguments, "--json"))["places"][0]
    assert [one["virtual"] for one in place["addresses"]] == ["0xfffff6fb7dbff008"]
    assert {table["level"] for table in place["tables"]} == {0, 1, 2}
    told = json.loads(found(tmp_path, "--tables", *arguments, "--json"))
    there = [table for table in told["tables"] if table["address"] == "0x2004000"]
    assert there == place["tables"]
    limited = json.loads(found(tmp_path, "--tables", *arguments, "--limit", 2, "--json"))
    assert limited["tables"] == told["tables"][:2]
    assert limited["total"] == told["total"] == len(told["tables"])


def test_memory_that_is_mapped_twice_is_listed(tmp_path: Path) -> None:
    out = found(tmp_path, "--aliases", "--layout", "aliases")
    assert [line.split() for line in out.splitlines()[3:5]] == [
        ["0x3000000..0x3000fff", "4K", "65,536"],
        ["0x3001000..0x3004fff", "16K", "3"],
    ]
    assert "No frame is mapped more than once." in found(
        tmp_path, "--aliases", "--layout", "smallest"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "choose one: physical addresses, --tables or --aliases"),
        (["0", "--tables"], "choose one"),
        (["there"], "the physical address is 'there', no number"),
        (["0", "--limit", "0"], "shows nothing"),
    ],
)
def test_what_cannot_be_found_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("find", *arguments, "--layout", "smallest", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors
