"""`pagetable walk`, as people run it."""

from pathlib import Path

import pytest

from tests.cli.commands import run


def test_a_walk_shows_every_step(tmp_path: Path) -> None:
    code, out, _ = run("walk", "0x1000", "--layout", "smallest", "--levels", 4, cwd=tmp_path)
    assert code == 0
    assert out.splitlines()[1].split()[:2] == ["3", "PML4E"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["0x1000"], "no source is named"),
        (["0x1000", "--layout", "smallest", "--ram", "x", "--cr3", "0"], "2 sources are named"),
        (["here", "--layout", "smallest"], "the address is 'here', no number"),
        (["-0x1", "--layout", "smallest"], "No such option"),
        (["0x1000", "--layout", "smallest", "--cr3", "x"], "cr3 is 'x', no number"),
        (["0x1000", "--ram", "x"], "add --cr3"),
        (["0x1000", "--ram", "x", "--cr3", "0"], "x cannot be read: No such file"),
        (["0x800000000000", "--layout", "smallest", "--levels", "4"], "is not canonical"),
    ],
)
def test_what_cannot_be_walked_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run("walk", *arguments, cwd=tmp_path)
    assert (code, out) == (2, "")
    assert sentence in errors
