"""Levels as the Arm ARM counts them, wherever a person reads or writes one: L3 holds pages."""

from __future__ import annotations

import json
import re
from pathlib import Path

from harness.inspect import decode
from harness.inspect.arm64.mode import MODES, in_mode
from harness.inspect.names import level_named
from tests.cli.commands import run

SPACE = ("--layout", "arm64/rights", "--levels", 4)


def test_a_level_has_the_number_of_its_name() -> None:
    for mode in MODES:
        cpu = in_mode(mode, {})
        for level in decode.levels_of(cpu):
            found = decode.read(cpu, 0, level)
            assert found.name == f"L{found.counted}"
            assert level_named(cpu, str(found.counted)) == level == level_named(cpu, found.name)


def test_commands_count_as_the_names_do(tmp_path: Path) -> None:
    told = {
        "walk": run("walk", "0x40c000", *SPACE, "--svg", "walk.svg", cwd=tmp_path)[1],
        "fault": run(
            *("fault", "0x40c000", "--access", "fetch", "--supervisor"), *SPACE, cwd=tmp_path
        )[1],
        "decode": run("decode", "0x4800004300c043", "--mode", "4k", cwd=tmp_path)[1],
    }
    for said in told.values():
        rows = re.findall(r"\s(-?\d) +L(-?\d) ", said, flags=re.MULTILINE)
        assert len(rows) == 4 and all(number == name for number, name in rows)
    assert re.findall(r"L(\d) at \w+, level (\d), holds", told["fault"]) == [("3", "3")]
    assert re.findall(r">level (\d)<", (tmp_path / "walk.svg").read_text()) == list("0123")
    tables = run("find", "--tables", *SPACE, cwd=tmp_path)[1]
    assert re.findall(r"^(\d)  .* as a root$", tables, flags=re.MULTILINE) == ["0", "0"]
    small = run("dump", *SPACE, "--where", "level=3", cwd=tmp_path)[1]
    assert " x 4K " in small and " x 2M " not in small
    slots = re.findall(r"level-(\d) table", run("lint", *SPACE, cwd=tmp_path)[1])
    assert slots and "3" in slots and not {"0"} & set(slots)


def test_programs_are_given_the_count_of_the_library(tmp_path: Path) -> None:
    answer = json.loads(run("walk", "0x40c000", *SPACE, "--json", cwd=tmp_path)[1])
    (found,) = answer["walks"]
    assert [one["level"] for one in found["steps"]] == [3, 2, 1, 0]
