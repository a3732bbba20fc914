"""What people and programs read of accesses: every explanation there is can be told, and tells all
that a change touches."""

from __future__ import annotations

import json
import random

import pytest
from jsonschema import Draft202012Validator

from harness.inspect.fault import Explanation, explain
from harness.inspect.remedy import Remedy
from harness.inspect.snapshot import Snapshot
from harness.inspect.x86.fault import compare, read_code
from harness.paging.address import Span, Virtual
from harness.paging.x86.access import Access, Fault, Kind, Vector
from harness.paging.x86.cpu import Cpu, Cr4, Mode
from harness.report import fault as reports
from harness.report.schema import schema
from tests.paging.x86 import drawn
from tests.paging.x86.made import path

OUTCOME = Draft202012Validator({"$ref": "#/$defs/outcome", "$defs": schema()["$defs"]})


def words(cpu: Cpu, one: Explanation) -> list[str]:
    return [" ".join(line.split()) for line in reports.explanation_lines(cpu, one)]


@pytest.mark.parametrize("mode", Mode)
def test_whatever_comes_of_an_access_is_told_in_lines_and_as_an_object(mode: Mode) -> None:
    for seed in range(5):
        source = random.Random(seed)
        cpu, memory = drawn.cpu(source, mode), drawn.memory(source, mode)
        snapshot = Snapshot("made", cpu, memory, None)
        for _ in range(20):
            address, access = Virtual(drawn.address(source, mode)), drawn.access(source)
            one = explain(snapshot, address, access)
            told, held = words(cpu, one), reports.as_object(cpu, one)
            OUTCOME.validate(held)
            assert json.loads(json.dumps(held)) == held
            assert told[0].startswith(f"{access} at {address:#x}: ")
            assert not [line for line in told if "{" in line or "None" in line]
            if isinstance(one.outcome, Fault):
                assert f"rule {one.outcome.reason.value}" in " ".join(told)
                for remedy in one.remedies[: reports.ALTERNATIVES]:
                    tells_all(cpu, one, remedy)
                if one.outcome.vector is Vector.PF:
                    seen = read_code(one.outcome.error, cpu)
                    found = compare(snapshot, seen, address)
                    assert list(reports.comparison_lines(cpu, found))


def tells_all(cpu: Cpu, one: Explanation, remedy: Remedy) -> None:
    """The lines of a remedy name every place it changes, with both values, and say what each
    change does."""
    lines = reports.remedy_lines(cpu, one.translation, remedy)
    told = [line.removeprefix("and ") for line in lines]
    for entry in remedy.entries:
        place = f"{entry.name} at {entry.slot.address:#x}: "
        (at,) = (number for number, line in enumerate(told) if line.startswith(place))
        assert f"{entry.old:x} -> " in told[at] and told[at].endswith(f"{entry.new:x}")
        assert told[at + 1].startswith(("  sets ", "  clears ", "  gives "))
        assert (
            told[at + 1].endswith(
                ("user", "(SMEP)", "(SMAP)", "writes", "fetches", "reachable", "stack")
            )
            or "key" in (told[at + 1])
            or "the entry leads to the" in told[at + 1]
        )
    doubts = ("is suspect", "where it was meant to lead")
    assert any(doubt in line for line in told for doubt in doubts) == remedy.suspect
    for setting in remedy.settings:
        assert any(line.startswith(f"{setting.name}: ") for line in told)
    if remedy.missing is not None:
        assert any(line.endswith("| the address of a page") for line in told)


CPU = Cpu.in_mode(Mode.LEVEL_4, 0)


def told(cpu: Cpu, access: Access, *flags: int, address: int = 0) -> list[str]:
    state, memory = path(cpu, *flags)
    snapshot = Snapshot("made", state, memory, (memory.span,))
    return words(state, explain(snapshot, Virtual(address), access))


def test_a_change_of_an_upper_entry_says_how_far_it_reaches() -> None:
    out = told(CPU, Access(Kind.READ, user=True), 3, 7, 7, 7)
    assert "change PML4E at 0x1000: 0x0000000000002003 -> 0x0000000000002007" in out
    assert (
        "sets U: opens all 512G of 0x0..0x7fffffffff, as far as lower entries allow, to the user"
        in out
    )


def test_a_change_in_several_parts_joins_them() -> None:
    smap = Cpu.in_mode(Mode.LEVEL_4, 0, cr4=Cr4.SMAP)
    out = told(smap, Access(Kind.WRITE, user=False), 7, 7, 7, 5)
    at = out.index("or PTE at 0x4000: 0x0000000000008005 -> 0x0000000000008007")
    assert out[at + 2 : at + 5 : 2] == [
        "and EFLAGS.AC: 0 -> 1",
        "or CR0.WP: 1 -> 0 (0x80010001 -> 0x80000001)",
    ]


def test_a_register_is_told_by_the_name_of_its_bit_and_both_values() -> None:
    smap = Cpu.in_mode(Mode.LEVEL_4, 0, cr4=Cr4.SMAP)
    out = told(smap, Access(Kind.READ, user=False), 7, 7, 7, 7)
    assert "change EFLAGS.AC: 0 -> 1" in out
    assert "or CR4.SMAP: 1 -> 0 (0x200020 -> 0x20)" in out


def test_what_is_missing_is_told_entry_by_entry() -> None:
    out = told(CPU, Access(Kind.WRITE, user=True), 7, 7, 0, 7, address=0x3000)
    assert "change PDE at 0x3000, now 0x4000: 0x87 | the address of a page" in out
    assert "or PDE at 0x3000, now 0x4000: 0x7 | the address of a new table" in out
    assert "in that table, entry 3 (PTE): 0x7 | the address of a page" in out


def test_an_address_that_is_not_canonical_is_told_to_be_the_fault() -> None:
    out = told(CPU, Access(Kind.PUSH, user=True), 7, 7, 7, 7, address=1 << 47 | 0x1234)
    assert out[0] == "user push at 0x800000001234: #SS, error code 0x0, CR2 stays"
    assert any("must be another, 0xffff800000001234 by its lower bits" in line for line in out)
    assert any("canonical with five levels" in line for line in out)


@pytest.mark.parametrize(
    ("cr4", "taken"),
    [
        (0, "to the user"),
        (Cr4.SMEP, "to the user, and closes it to the supervisor's fetches (SMEP)"),
        (
            Cr4.SMAP,
            "to the user, and closes it to the supervisor's data accesses with EFLAGS.AC=0 (SMAP)",
        ),
        (
            Cr4.SMEP | Cr4.SMAP,
            "to the user, and closes it to the supervisor's fetches (SMEP) and data accesses with"
            " EFLAGS.AC=0 (SMAP)",
        ),
    ],
)
def test_what_the_supervisor_loses_by_a_page_that_is_given_to_the_user_is_said(
    cr4: int, taken: str
) -> None:
    cpu = Cpu.in_mode(Mode.LEVEL_4, 0, cr4=cr4)
    out = told(cpu, Access(Kind.READ, user=True), 3, 7, 7, 7)
    [line] = [line for line in out if "sets U" in line]
    assert line.endswith(f", {taken}")
    out = told(cpu, Access(Kind.WRITE, user=True), 5, 7, 7, 7)
    assert not any("supervisor's" in line for line in out)


@pytest.mark.parametrize(("flags", "at"), [((3, 7, 7, 7), 0), ((7, 7, 0, 7), 0x3000)])
@pytest.mark.parametrize("in_rom", [False, True])
def test_a_change_in_rom_is_said_to_vanish(flags: tuple[int, ...], at: int, in_rom: bool) -> None:
    state, memory = path(CPU, *flags)
    changed = state.base if not at else 0x3000
    rom = Span.of(changed if in_rom else 0x10_0000, 0x1000)
    snapshot = Snapshot("made", state, memory, (memory.span,), rom=(rom,))
    out = words(state, explain(snapshot, Virtual(at), Access(Kind.READ, user=True)))
    assert any("it lies in ROM, where the store vanishes" in line for line in out) is in_rom
