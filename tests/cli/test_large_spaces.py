"""Spaces as large as firmware makes them are read whole by every command that reads them."""

from pathlib import Path

import pytest

from tests.cli.commands import run

PAGES = 520_000
TEBIBYTE = f"""
title = "Most of 1 TiB, in 2M pages where it is in memory"
levels = [4, 5]
ram = "64M"
tables = "8M"

[[map]]
virtual = 0x1_0000_0000
size = "2M"
count = {PAGES}
physical = 0x1_0000_0000
rights = "w"

[[map]]  # one in RAM, without which nothing is outside
virtual = 0x4000_0000
physical = 0x300_0000
size = "2M"
rights = "w"
"""
LAST = 0x1_0000_0000 + (PAGES << 21) - 1


@pytest.mark.parametrize("levels", [4, 5])
def test_half_a_million_large_pages_are_read_whole(tmp_path: Path, levels: int) -> None:
    (tmp_path / "tebibyte.toml").write_text(TEBIBYTE)
    where = ("--layout", "tebibyte.toml", "--levels", levels)
    code, out, errors = run("lint", *where, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert f"cached-outside-ram, {PAGES:,} times" in out
    assert f"0x100000000..{LAST:#x}" in out
    assert out.splitlines()[-1] == "1 rule broken: 1 note."
    assert "not read" not in out

    side = f"layout:tebibyte.toml@{levels}"
    code, out, errors = run("diff", side, side, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert out.splitlines()[-1] == "The spaces are the same."

    code, out, errors = run("find", "--aliases", *where, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert out.splitlines()[-1] == "No frame is mapped more than once."

    code, out, errors = run("dump", *where, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert f"{PAGES:,} x 2M" in out
