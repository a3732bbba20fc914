"""The letters of a page are its effective rights: what accesses come to, but for the rules that are
named as not applied."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from harness.inspect import architecture
from harness.inspect.expect import expectations, unmet
from harness.inspect.graph import RowKind
from harness.inspect.ranges import dump
from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import layout
from harness.paging.address import Virtual
from harness.paging.arm64.cpu import Sctlr
from harness.paging.riscv.cpu import Mstatus
from harness.paging.x86.cpu import Cr0, Cr4
from harness.report import expect
from harness.report.html import space_map
from harness.report.ranges import as_objects, cells
from harness.report.schema import schema
from harness.report.text import letters as rights_letters
from tests.cli.commands import run
from tests.inspect.spaces import GUARDED

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


def shown_and_passing(whole: Snapshot) -> list[tuple[str, str]]:
    """The letters of every page: as shown, and by accesses to it."""
    found = []
    for snapshot in architecture.parts(whole):
        cpu = snapshot.cpu
        types = architecture.of(cpu).memory_types.types(None, cpu)
        for one in dump(snapshot.memory, cpu.format, cpu.roots).ranges:
            if one.kind != RowKind.PAGE:
                continue
            shown = cells(cpu, types, one)[3].lower()
            expected = passing(whole, one.first)
            if "user" not in cpu.format.rights:  # nothing in entries is about problem state
                expected = f"-{expected[1:]}"
            if set(expected[1:]) == {"-"}:  # whose page it is says u, whatever it grants
                expected = f"{shown[0]}{expected[1:]}"
            found.append((shown, expected))
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_letters_are_what_accesses_come_to(name: str) -> None:
    found = shown_and_passing(made(name))
    assert found
    for shown, expected in found:
        assert shown == expected


def x86(cpu: Any, cr4: int = 0, wp: bool = True, **more: Any) -> Any:
    cr0 = cpu.cr0 | Cr0.WP if wp else cpu.cr0 & ~Cr0.WP
    return replace(cpu, cr0=cr0, cr4=cpu.cr4 | cr4, **more)


def arm64(cpu: Any, sctlr: int = 0, tcr: int = 0, **more: Any) -> Any:
    return replace(cpu, sctlr=cpu.sctlr | sctlr, tcr=cpu.tcr | tcr, **more)


def riscv(cpu: Any, mstatus: int) -> Any:
    return replace(cpu, mstatus=cpu.mstatus | mstatus)


def subsets(*bits: int) -> list[int]:
    return [sum(some) for n in range(len(bits) + 1) for some in combinations(bits, n)]


APPLIED: dict[str, list[Callable[[Any], Any]]] = {
    "rights": [
        *(partial(x86, cr4=cr4) for cr4 in subsets(Cr4.SMEP, Cr4.SMAP)),
        *(partial(x86, cr4=cr4, wp=False) for cr4 in subsets(Cr4.SMEP)),
        partial(x86, cr4=Cr4.SMAP, wp=False, ac=True),
    ],
    "arm64/rights": [
        partial(arm64, sctlr=sctlr, pan=pan and not sctlr & Sctlr.EPAN, uao=uao)
        for sctlr in subsets(Sctlr.WXN, Sctlr.EPAN)
        for pan in (False, True)
        for uao in (False, True)
    ],
    "riscv/rights": [partial(riscv, mstatus=Mstatus.SUM)],
}
"""States in which what decides is applied."""


@pytest.mark.parametrize(
    ("name", "state"), [(name, state) for name, states in APPLIED.items() for state in states]
)
def test_letters_are_what_accesses_come_to_in_other_states(
    name: str, state: Callable[[Any], Any]
) -> None:
    whole = made(name)
    found = shown_and_passing(replace(whole, cpu=state(whole.cpu)))
    assert found
    for shown, expected in found:
        assert shown == expected


ALL_DENIED = 0x5555_5555
"""PKRU, or PKRS, that denies every key."""

E0PD0, E0PD1 = 1 << 55, 1 << 56

NOT_APPLIED: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "accessed and dirty bits": ("power/rights", lambda cpu: replace(cpu, sets_marks=False)),
    "protection keys": ("rights", partial(x86, cr4=Cr4.PKE, pkru=ALL_DENIED)),
    "SMAP": ("rights", partial(x86, cr4=Cr4.SMAP, wp=False)),
    "LASS": ("rights", partial(x86, cr4=Cr4.LASS | Cr4.SMEP)),
    "PAN": ("arm64/rights", partial(arm64, sctlr=Sctlr.EPAN, pan=True)),
    "E0PD": ("arm64/rights", partial(arm64, tcr=E0PD0 | E0PD1)),
    "MXR": ("riscv/rights", partial(riscv, mstatus=Mstatus.MXR)),
}
"""By the name with which it is said not to be applied: where it decides."""


@pytest.mark.parametrize("rule", NOT_APPLIED)
def test_what_is_not_applied_is_said_and_changes_no_letter(rule: str) -> None:
    name, state = NOT_APPLIED[rule]
    whole = made(name)
    before = shown_and_passing(
        replace(whole, cpu=x86(whole.cpu, wp=False)) if rule == "SMAP" else whole
    )
    after = shown_and_passing(replace(whole, cpu=state(whole.cpu)))
    assert [shown for shown, _ in after] == [shown for shown, _ in before]
    assert any(shown != expected for shown, expected in after)


SAID = {
    "schema": schema("dump"),
    "docstring": architecture.effective.__doc__,
    "README": (Path(architecture.__file__).parent / "README.md").read_text(),
}


@pytest.mark.parametrize("where", SAID)
def test_every_rule_that_is_not_applied_is_named(where: str) -> None:
    words = " ".join(str(SAID[where]).split())
    (said,) = set(re.findall("[Aa]ccesses can come to something else[^.|]*", words))
    for rule in NOT_APPLIED:
        assert rule in said
    named = re.split(", | and (?!dirty)", said.partition(": ")[2].strip())
    assert sorted(named) == sorted(NOT_APPLIED)


def test_conditions_objects_and_maps_go_by_effective_rights_too(tmp_path: Path) -> None:
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
        assert f"{right} has no effect: " in told
        walked = json.loads(run("walk", lost[0]["first"], *source[:3], cwd=tmp_path)[1])
        assert right not in walked["walks"][0]["effective_rights"]


def test_each_rule_by_which_rights_have_no_effect_is_said_where_it_is_so_and_once() -> None:
    """By all the rights that entries can grant together."""
    of_el0, of_wxn = (
        "EL1 executes nothing that EL0 may write",
        "with WXN=1 nothing is executed that may be written",
    )
    for name, wxn in (("arm64/rights", False), ("arm64/wxn", True), ("rights", False)):
        cpu = made(name).cpu
        of_arm64 = name != "rights"
        for given in combinations_of(cpu.format.rights):
            granted = sum(cpu.format.rights[right] for right in given)
            expected = [of_el0] * (of_arm64 and given >= {"user", "write", "supervisor execute"})
            forbidden = {"write", "supervisor execute"}, {"user", "write", "user execute"}
            expected += [of_wxn] * (wxn and any(given >= one for one in forbidden))
            assert architecture.why_ineffective(cpu, granted, 0) == "; ".join(expected)
    cpu = made("power/rights").cpu
    for given in combinations_of(cpu.format.rights):
        granted = sum(cpu.format.rights[right] for right in given)
        for storage in 0, 0x10, 0x20, 0x30:  # ATT
            is_lost = storage == 0x20 and "execute" in given
            expected = ["nothing is fetched from guarded storage (ATT=2)"] * is_lost
            assert architecture.why_ineffective(cpu, granted, storage) == "".join(expected)


def combinations_of(names: Iterable[str]) -> list[set[str]]:
    known = tuple(names)
    return [set(some) for n in range(len(known) + 1) for some in combinations(known, n)]


def test_pages_that_no_expectation_names_have_the_letters_of_dump(tmp_path: Path) -> None:
    (tmp_path / "guarded.toml").write_text(GUARDED)
    for name in (str(tmp_path / "guarded.toml"), "arm64/rights", "without-wp"):
        whole = layout.snapshot(name, None, {})
        compared = 0
        meant = expectations({}, True, whole.cpu.architecture)
        for one in unmet(whole, meant):
            cpu = architecture.of(whole.cpu).part(whole.cpu, one.address)
            types = architecture.of(cpu).memory_types.types(None, cpu)
            pages = list(dump(whole.memory, cpu.format, cpu.roots).ranges)
            lines = "\n".join(expect.unmet_lines(whole, [one]))
            listed = expect.as_object(whole, one)["ranges"]
            for place, found in enumerate(listed):
                first = int(found["first"], 0)
                page = next(page for page in pages if page.first <= first <= page.last)
                letters = cells(cpu, types, page)[3]
                objects = as_objects(cpu, types, [page])
                assert found["effective_rights"] == next(iter(objects))["effective_rights"]
                if place < expect.SHOWN:
                    assert re.search(rf"{found['first']}\.\..* {letters} ", lines)
                compared += letters != rights_letters(cpu.format, page.granted)
        assert compared


def test_the_map_of_a_space_has_the_effective_rights_of_every_way(tmp_path: Path) -> None:
    u, w, x, k = 0b1, 0b100, 0b1000, 0b10000

    def drawn(snapshot: Snapshot) -> dict[str, Any]:
        found = space_map.as_object(snapshot)
        assert found is not None
        return found

    def less(given: int, *rules: tuple[int, int]) -> int:
        lost = [right for held, right in rules if given & held == held]
        return (given | 0b10) & ~sum(set(lost))  # arm64's pages can all be read

    found = drawn(made("arm64/rights"))
    assert found["rights"] == "urwxk"
    assert found["effective"] == [less(given, (u | w, k)) for given in range(32)]
    found = drawn(made("arm64/wxn"))
    assert found["effective"] == [less(given, (w, k), (u | w, x)) for given in range(32)]
    found = drawn(made("rights"))
    assert found["effective"] == [given | 0b10 for given in range(16)]
    (tmp_path / "guarded.toml").write_text(GUARDED)
    found = drawn(layout.snapshot(str(tmp_path / "guarded.toml"), None, {}))
    assert found["effective"] == list(range(16))
    assert {kind[1] for kind in found["kinds"] if kind[0] == "4K"} == {0b0111, 0b1111}
