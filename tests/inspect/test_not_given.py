"""Where an architecture has several roots, those that were not given are named by what looks at a
whole space, so that its silence about them is no praise."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.inspect import architecture
from harness.inspect.check import Checked
from harness.inspect.fault import explain
from harness.inspect.sources import layout
from harness.paging.address import Virtual
from harness.paging.memory import BufferMemory
from harness.report import check
from tests.cli.commands import run

HIGH = {"arm64": 0xFFFF_0000_0000_0000, "power": 0xC000_0000_0000_0000}


def source(arch: str, path: Path, *left_out: str) -> tuple[str, ...]:
    """The options that name the tables of a layout in a file, without some registers."""
    made = layout.snapshot(f"{arch}/smallest", 4, {})
    assert isinstance(made.memory, BufferMemory)
    first = min(root.table.address for root in made.cpu.roots)
    path.write_bytes(made.memory.octets[first - made.memory.span.first :][: 1 << 18].tobytes())
    names = {"arm64": ("tcr", "ttbr0", "ttbr1"), "power": ("quadrant0", "quadrant3")}[arch]
    given = [f"--{name}={getattr(made.cpu, name):#x}" for name in names if name not in left_out]
    return ("--ram", f"{path.name}@{first:#x}", *given)


def told(*asked: str, cwd: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(*asked, "--json", cwd=cwd)[1])
    return found


@pytest.mark.parametrize(
    ("arch", "name"),
    [("arm64", "ttbr0"), ("arm64", "ttbr1"), ("power", "quadrant0"), ("power", "quadrant3")],
)
def test_lint_names_the_root_that_was_not_given(arch: str, name: str, tmp_path: Path) -> None:
    line = f"Not given: --{name}. The addresses it serves were not checked."
    for left_out in ((), (name,)):
        options = source(arch, tmp_path / "ram", *left_out)
        lines = run("lint", *options, cwd=tmp_path)[1].splitlines()
        shown = {"arm64": name.upper(), "power": name.replace("quadrant", "quadrant ")}[arch]
        assert (f"{shown} not given" in lines[0]) is bool(left_out)
        assert lines.count(line) == len(left_out)
        for command in ("lint", "dump"):
            found = told(command, *options, cwd=tmp_path)
            assert found["not_given"] == list(left_out)
            assert (found["cpu"][name] is None) is bool(left_out)


def test_tcr_is_as_it_was_given_whatever_roots_were(tmp_path: Path) -> None:
    whole = source("arm64", tmp_path / "ram")
    (tcr,) = (int(one.partition("=")[2], 16) for one in whole if one.startswith("--tcr"))
    for left_out in ((), ("ttbr0",), ("ttbr1",)):
        options = source("arm64", tmp_path / "ram", *left_out)
        found = told("walk", "0x400000", *options, cwd=tmp_path)
        assert (found["cpu"]["tcr"], found["not_given"]) == (hex(tcr), list(left_out))
    run("dump", *options, "--html", "space.html", cwd=tmp_path)
    page = (tmp_path / "space.html").read_text()
    assert f"{tcr:#x}" in page and "not given" in page
    of_entries = ("walk", "0x400000", f"--tcr={tcr:#x}", "--entries", "L3=43000443")
    found = told(*of_entries, cwd=tmp_path)
    assert (found["cpu"]["tcr"], found["not_given"]) == (hex(tcr), ["ttbr1"])
    assert (found["cpu"]["ttbr0"], found["walks"][0]["end"]) == (None, "page")
    off = [one.replace(f"{tcr:#x}", f"{tcr | 1 << 23:#x}") for one in whole if "ttbr1" not in one]
    assert "TTBR1 off" in run("walk", "0x400000", *off, cwd=tmp_path)[1]
    found = told("walk", "0x400000", *off, cwd=tmp_path)  # EPD1 that is given stays
    assert (found["cpu"]["tcr"], found["not_given"]) == (hex(tcr | 1 << 23), [])


@pytest.mark.parametrize(
    ("arch", "name", "address", "said"),
    [
        ("arm64", "ttbr0", 0x10, "a null pointer, with"),
        ("arm64", "ttbr1", (1 << 64) - 12, "an error code in place of a pointer"),
        ("power", "quadrant0", 0x10, "a null pointer, with"),
    ],
)
def test_what_an_address_is_whose_root_is_not_given_is_not_guessed(
    arch: str, name: str, address: int, said: str
) -> None:
    made = layout.snapshot(f"{arch}/smallest", 4, {})
    off = {"ttbr0": {"tcr": 1 << 7}, "ttbr1": {"tcr": 1 << 23}, "quadrant0": {"quadrant0": 0}}[name]
    changed = {key: bits and bits | getattr(made.cpu, key) for key, bits in off.items()}
    cpu = replace(made.cpu, **changed)
    (access,) = architecture.of(cpu).accesses("read", False, False)
    for unsure in (frozenset[str](), frozenset((name,))):
        found = explain(replace(made, cpu=cpu, unsure=unsure), Virtual(address), access)
        assert found.unrooted == (name if unsure else None)
        assert found.unknown is bool(unsure)
        assert (found.pointer or "").startswith("" if unsure else said)
        assert bool(unsure) is (found.pointer is None)


@pytest.mark.parametrize("arch", ["arm64", "power"])
def test_check_and_prove_name_the_root_that_was_not_given(arch: str) -> None:
    """By the sections that both print of what was checked."""
    made = layout.snapshot(f"{arch}/smallest", 4, {})
    name = {"arm64": "ttbr1", "power": "quadrant3"}[arch]
    for unsure in (frozenset[str](), frozenset((name,))):
        checked = Checked(replace(made, unsure=unsure), "7.2.22", "tcg", (), ())
        told = dict(check.sections(checked)).get("Not looked at", ())
        assert [one.split()[2] for one in told] == [f"--{one}." for one in unsure]
        assert check.as_object(checked)["not_given"] == list(unsure)


def test_an_expectation_of_what_a_missing_root_serves_says_so(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(
        f"[[expect]]\nvirtual = {HIGH['arm64']:#x}\nabsent = true\n"
    )
    options = source("arm64", tmp_path / "ram", "ttbr1")
    code, _, errors = run("prove", *options, "--expect", "e.toml", cwd=tmp_path)
    assert code == 2 and errors.endswith("; the addresses behind --ttbr1 are unknown\n")
