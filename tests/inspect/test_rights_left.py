"""The letters of a page say what accesses come to: each is shown where some access passes by it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.inspect import architecture
from harness.inspect.graph import RowKind
from harness.inspect.ranges import dump
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import layout
from harness.paging.address import Virtual
from harness.report.html import space_map
from harness.report.ranges import cells
from tests.cli.commands import run

LAYOUTS = (
    *("rights", "without-wp", "riscv/rights", "s390/rights", "s390/without-iep"),
    *("arm64/rights", "arm64/wxn", "arm64/table-rights", "arm64/hardware", "arm64/hardware-wxn"),
    *("arm64/rights-64k", "power/rights", "power/rights-64k"),
)


def made(name: str) -> Snapshot:
    found = layout.snapshot(name, None, {})
    if name.startswith("power/"):  # so that what decides is neither R nor C
        found = replace(found, cpu=replace(found.cpu, sets_marks=True))
    return found


def passing(snapshot: Snapshot, address: int) -> str:
    """The letters that accesses to an address give it."""
    asked, cpu = architecture.of(snapshot.cpu), snapshot.cpu

    def passes(kind: str, user: bool) -> bool:
        return any(
            isinstance(asked.outcome(cpu, snapshot.memory, Virtual(address), one), asked.allowed)
            for one in asked.accesses(kind, user, False)
        )

    users = {kind: passes(kind, True) for kind in ("read", "write", "fetch")}
    others = {kind: passes(kind, False) for kind in ("read", "write", "fetch")}
    either = {kind: users[kind] or others[kind] for kind in users}
    if "supervisor execute" in asked.part(cpu, address).format.rights:
        shown = [users["read"], either["read"], either["write"], users["fetch"], others["fetch"]]
        return "".join(one if is_so else "-" for one, is_so in zip("urwxk", shown, strict=True))
    shown = [any(users.values()), *either.values()]
    return "".join(one if is_so else "-" for one, is_so in zip("urwx", shown, strict=True))


@pytest.mark.parametrize("name", LAYOUTS)
def test_letters_are_what_accesses_come_to(name: str) -> None:
    whole, compared = made(name), 0
    for snapshot in architecture.parts(whole):
        cpu = snapshot.cpu
        types = architecture.of(cpu).memory_types.types(None, cpu)
        pages = dump(snapshot.memory, cpu.format, cpu.roots).ranges
        has_user = "user" in cpu.format.rights
        for one in pages:
            if one.kind == RowKind.PAGE:
                shown = cells(cpu, types, one)[3].lower()
                expected = passing(whole, one.first)
                if not has_user:  # nothing in entries is about problem state
                    expected = f"-{expected[1:]}"
                if set(expected[1:]) == {"-"}:  # whose page it is says u, whatever it grants
                    expected = f"{shown[0]}{expected[1:]}"
                assert shown == expected, (hex(one.first), hex(one.raw))
                compared += 1
    assert compared


GUARDED = """
title = "Guarded"
arch = "power"
levels = [4]

[[map]]
virtual = 0x1000
size = "4K"
count = 2
rights = "urwx"
bits = ["R", "C", "ATT=2"]

[[map]]
virtual = 0x3000
size = "4K"
rights = "urwx"
bits = ["R", "C"]
"""


def test_conditions_objects_and_maps_go_by_what_is_left_too(tmp_path: Path) -> None:
    (tmp_path / "guarded.toml").write_text(GUARDED)
    asked = {
        "arm64/rights": ("user and w", "k", "supervisor-execute"),
        "guarded.toml": ("w", "x", "execute"),
    }
    for name, (wanted, letter, right) in asked.items():
        source = ("--layout", name, "--json", "--where")

        def found(where: str, source: tuple[str, ...] = source) -> list[dict[str, Any]]:
            ranges: list[dict[str, Any]] = json.loads(run("dump", *source, where, cwd=tmp_path)[1])[
                "ranges"
            ]
            return ranges

        lost = found(f"{wanted} and granted-{letter} and not {letter}")
        assert lost
        for one in lost:
            assert right in one["rights"] and right not in one["effective_rights"]
        if letter == "k":
            assert not found(f"{wanted} and {letter}")
        shown = json.loads(run("find", lost[0]["physical"], *source[:3], cwd=tmp_path)[1])
        places = [one for place in shown["places"] for one in place["addresses"]]
        assert places and all(right not in one["effective_rights"] for one in places)
        told = run("walk", lost[0]["first"], "--layout", name, cwd=tmp_path)[1]
        assert f"{right} comes to nothing: " in told
        walked = json.loads(run("walk", lost[0]["first"], *source[:3], cwd=tmp_path)[1])
        assert right not in walked["walks"][0]["effective_rights"]


def test_the_map_of_a_space_has_what_makes_rights_come_to_nothing(tmp_path: Path) -> None:
    drawn = space_map.as_object(made("arm64/rights"))
    assert drawn is not None and drawn["rights"] == "urwxk"
    assert drawn["lost"] == [[0b101, 0b10000]]  # of u and w, k
    drawn = space_map.as_object(made("arm64/wxn"))
    assert drawn is not None
    assert drawn["lost"] == [[0b101, 0b10000], [0b100, 0b10000], [0b101, 0b1000]]
    drawn = space_map.as_object(made("rights"))
    assert drawn is not None and drawn["lost"] == []
    (tmp_path / "guarded.toml").write_text(GUARDED)
    drawn = space_map.as_object(layout.snapshot(str(tmp_path / "guarded.toml"), None, {}))
    assert drawn is not None
    assert {kind[1] for kind in drawn["kinds"] if kind[0] == "4K"} == {0b0111, 0b1111}
