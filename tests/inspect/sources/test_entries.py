"""The entries of one walk give the same walk as the memory in which they stand, as far as they go,
and what was not given is never made out to be known."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from harness.inspect.fault import explain
from harness.inspect.names import name_of
from harness.inspect.snapshot import QuestionError, Snapshot, SourceError
from harness.inspect.sources.entries import GivenMemory
from harness.inspect.translation import Translation, translate
from harness.inspect.x86 import entries
from harness.paging.address import Physical, Virtual
from harness.paging.bulk import End
from harness.paging.x86.access import Access, outcome
from harness.paging.x86.cpu import Cpu, Mode
from tests.cli.commands import run
from tests.paging.x86 import drawn

ADDRESS = 0xFFFF_8880_58A6_7123
OOPS = "PGD 2a01067 P4D 2a01067 PUD 2a05067 PMD 7fd36067 PTE 800fffffa7598063"


def registers(cpu: Cpu) -> dict[str, int]:
    return {name: int(getattr(cpu, name)) for name in ("cr0", "cr3", "cr4", "efer", "maxphyaddr")}


def steps(found: Translation) -> list[tuple[object, ...]]:
    return [(stage.slot, stage.reading, stage.granted, stage.taken) for stage in found.stages]


@pytest.mark.parametrize("mode", Mode)
def test_all_entries_of_a_walk_are_the_walk_and_its_outcomes(mode: Mode) -> None:
    """Those of random memory, with CR3: all that was read, and so all that there is to know."""
    seen = set()
    for seed in range(60):
        source = random.Random(seed)
        cpu, memory = drawn.cpu(source, mode), drawn.memory(source, mode)
        cpu = replace(cpu, lam=False, pkru=0, pkrs=0, ac=False, amd=False, pse36=True, page1gb=True)
        if mode is Mode.BITS_32:
            cpu = replace(cpu, maxphyaddr=40)
        for _ in range(4):
            address, access = Virtual(drawn.address(source, mode)), drawn.access(source)
            whole = translate(Snapshot("memory", cpu, memory, None), address)
            if not whole.stages or whole.end is End.UNBACKED:
                continue
            pairs = [(one.reading.name, one.reading.raw) for one in whole.stages]
            made = entries.snapshot("given", pairs, address, registers(cpu), mode)
            alone = translate(made, address)
            if made.cpu.pdptes_checked is None:  # others are no registers
                assert steps(alone) == steps(whole)
                assert outcome(made.cpu, made.memory, address, access) == outcome(
                    cpu, memory, address, access
                )
            assert (alone.end, alone.physical) == (whole.end, whole.physical)
            assert all(stage.placed for stage in alone.stages)
            seen.add(alone.end)
    assert {End.LEAF, End.ABSENT} <= seen


@pytest.mark.parametrize("mode", Mode)
def test_what_is_not_given_is_not_shown(mode: Mode) -> None:
    """Every subset of the entries of a walk: no step is shown that was not given, none that was is
    changed, and a table whose place is not known has none."""
    address = 0x123_4567 if mode in (Mode.BITS_32, Mode.PAE) else ADDRESS
    usual = Cpu.in_mode(mode, 0)
    levels = len(usual.format.levels) + (mode is Mode.PAE)
    every = {level: (level + 2) * 0x1000 | (0x67 if level < 2 or usual.long else 1)
             for level in range(levels)}  # fmt: skip
    for chosen in range(1, 1 << levels):
        pairs = [(name_of(usual, n), every[n]) for n in range(levels) if chosen >> n & 1]
        given = {n for n in range(levels) if chosen >> n & 1}
        made = entries.snapshot("given", pairs, address, {}, mode)
        found = translate(made, Virtual(address))
        shown = {stage.reading.level: stage.reading.raw for stage in found.stages}
        lowest = min(given)
        assert shown == {n: every[n] for n in given}
        for stage in found.stages:
            register = mode is Mode.PAE and stage.reading.level == 2
            assert stage.placed == (register or stage.reading.level + 1 in given)
        assert (found.end is End.UNBACKED) == (lowest > 0)
        missing = levels - lowest - len(given)
        assert any("not given" in one for one in made.assumed) == bool(missing)
        for one in (explain(made, Virtual(address), access) for access in drawn_accesses()):
            assert all(stage.reading.level in given for stage in one.to_blame)


def drawn_accesses() -> list[Access]:
    return [drawn.access(random.Random(seed)) for seed in range(5)]


@pytest.mark.parametrize(
    ("pairs", "address", "mode"),
    [
        ([("PGD", 0x1067), ("P4D", 0x1067), ("PTE", 0)], ADDRESS, Mode.LEVEL_4),
        ([("PGD", 0x1067), ("P4D", 0x2067), ("PTE", 0)], ADDRESS, Mode.LEVEL_5),
        ([("PML5E", 0x1067)], ADDRESS, Mode.LEVEL_5),
        ([("PTE", 0x1067)], 0xFF00_8880_58A6_7123, Mode.LEVEL_5),
        ([("PTE", 0x1067)], 0x0F00_8880_58A6_7123, Mode.LEVEL_4),
    ],
)
def test_the_levels_are_found_by_names_and_address(
    pairs: list[tuple[str, int]], address: int, mode: Mode
) -> None:
    assert entries.snapshot("given", pairs, address, {}).cpu.mode is mode


@pytest.mark.parametrize(
    ("pairs", "address", "given", "guessed"),
    [
        ([("PTE", 0x1067)], 0xFF00_8880_58A6_7123, {}, True),
        ([("PTE", 0x1067)], 0xFF00_8880_58A6_7123, {"cr4": 0x1020}, False),
        ([("PTE", 0x1067)], 0xFF00_8880_58A6_7123, {"cr4": 0x20}, False),
        ([("PML5E", 0x1067)], 0xFF00_8880_58A6_7123, {}, False),
        ([("PGD", 0x1067), ("P4D", 0x2067)], 0xFF00_8880_58A6_7123, {}, False),
        ([("PTE", 0x1067)], ADDRESS, {}, False),
        ([("PTE", 0x1067)], 0x0F00_8880_58A6_7123, {}, False),
    ],
)
def test_levels_that_the_address_alone_tells_are_assumed(
    pairs: list[tuple[str, int]], address: int, given: dict[str, int], guessed: bool
) -> None:
    made = entries.snapshot("given", pairs, address, given)
    told = f"5 levels: with 4, {address:#x} is not canonical, and its use is a #GP"
    assert (told in made.assumed) == guessed
    assert (made.cpu.mode is Mode.LEVEL_4) == (address == ADDRESS or address >> 56 == 0x0F
                                               or given == {"cr4": 0x20})  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "pairs"),
    [
        (Mode.BITS_32, [("PDE", 0x1003), ("PTE", 0x5003)]),
        (Mode.PAE, [("PDPTE", 0x1001), ("PDE", 0x1003), ("PTE", 0x5003)]),
        (Mode.LEVEL_4, [("PGD", 0x1003), ("PUD", 0x1003), ("PMD", 0x5003)]),
        (Mode.LEVEL_4, [("PGD", 0x2003), ("PUD", 0x2003), ("PMD", 0x2003), ("PTE", 0x5003)]),
        (Mode.LEVEL_5, [("PML5E", 0x1003), ("PML4E", 0x1003), ("PDPTE", 0x5003)]),
    ],
)
def test_two_entries_of_one_slot_contradict_each_other(
    mode: Mode, pairs: list[tuple[str, int]]
) -> None:
    root = {"cr3": 0x1000} if mode is Mode.BITS_32 else {}
    with pytest.raises(QuestionError, match=r"two entries are given for 0x[12]000.* and 0x5003"):
        entries.snapshot("given", pairs, 0, root, mode)
    first = 1 if mode is Mode.PAE else 0  # a PDPTE is in a register
    repeated = [*pairs[:first], *((name, pairs[first][1]) for name, _ in pairs[first:])]
    entries.snapshot("given", repeated, 0, root, mode)


def test_an_entry_that_is_missing_is_the_one_that_its_slot_has() -> None:
    pairs = [("PGD", 0x1003), ("PUD", 0x1003), ("PTE", 0x1003)]
    made = entries.snapshot("given", pairs, 0, {})
    assert made.memory.load(Physical(0x1000), 8) == 0x1003


def test_the_registers_that_are_given_are_those_of_the_mode() -> None:
    pae = {"cr4": 0x20, "efer": 0x800}
    made = entries.snapshot("x", [("pdpt", 0x2001), ("pde", 0)], 0xC000_0000, pae)
    assert (made.cpu.mode, made.cpu.pdptes) == (Mode.PAE, (0, 0, 0, 0x2001))
    assert not any("is reserved" in note for note in made.notes)
    made = entries.snapshot("x", [("pdpt", 0x2003), ("pde", 0)], 0xC000_0000, pae)
    assert any("PDPTE 3 0x2003 (0x2 is reserved)" in note for note in made.notes)
    made = entries.snapshot("x", [("pde", 0x63)], 0xC000_0000, {"cr4": 0})
    assert made.cpu.mode is Mode.BITS_32


@pytest.mark.parametrize(
    ("pairs", "address", "given", "sentence"),
    [
        ([], 0, {}, "no entry is given"),
        ([("PGD", 1), ("PML4E", 3)], 0, {}, "for level 3, 0x1 and 0x3: with --cr4 0x1020"),
        ([("PTE", 1), ("PTE", 2)], 0, {}, "two entries are given for level 0, 0x1 and 0x2$"),
        ([("PGD", 1), ("pgd", 2)], 0, {}, "two entries are given for level 3, 0x1 and 0x2$"),
        ([("PMD", 1), ("PDE", 2)], 0, {}, "two entries are given for level 1, 0x1 and 0x2$"),
        ([("PML5E", 1), ("PGD", 2)], 0, {}, "two entries are given for level 4, 0x1 and 0x2$"),
        (
            [("PGD", 1), ("PUD", 9)],
            0,
            {"cr4": 0x20, "efer": 0x800},
            "for level 2, 0x1 and 0x9: the names that the mode lacks are those of its highest",
        ),
        ([("foo", 1)], 0, {}, "has no level 'foo'"),
        ([("pte", 1 << 32)], 0, {"cr4": 0}, "pte 0x100000000 is wider than an entry of x86 32"),
        ([("pte", 1)], 1 << 32, {"cr4": 0}, "outside long mode there is no address 0x100000000"),
        ([("pte", 1)], 0, {"maxphyaddr": 10}, "physical addresses have 32 to 52 bits"),
        ([("pte", 1)], 0, {"cr0": 1}, "paging is off"),
    ],
)
def test_what_cannot_be_is_a_sentence(
    pairs: list[tuple[str, int]], address: int, given: dict[str, int], sentence: str
) -> None:
    with pytest.raises((QuestionError, SourceError), match=sentence):
        entries.snapshot("given", pairs, address, given)


def told(*arguments: object, cwd: Path) -> list[str]:
    code, out, errors = run(*arguments, cwd=cwd)
    assert (code, errors) == (0, "")
    return [" ".join(line.split()) for line in out.splitlines()]


def test_a_line_of_an_oops_is_walked(tmp_path: Path) -> None:
    out = told("walk", "ffff888058a67123", "--entries", OOPS, "--linux", cwd=tmp_path)
    assert out[0] == "The entries that were given, CR3 not given"
    assert "3 PML4E not known 0x0000000002a01067 table at 0x2a01000 P W U A" in " ".join(out)
    assert any(line.startswith("0 PTE 0x7fd36338 0x800fffffa7598063 reserved") for line in out)
    assert any(line.startswith("likely the PTE: the 4K page at 0x58a67000") for line in out)
    answer = json.loads(run("walk", "0x1000", "--entries", OOPS, "--json", cwd=tmp_path)[1])
    assert (answer["cpu"]["cr3"], answer["cpu"]["root"]) == (None, None)
    slots = [step["slot"] for step in answer["walks"][0]["steps"]]
    assert slots[0] is None and slots[-1]["table"] == "0x7fd36000"


def test_a_fault_is_compared_with_entries_alone(tmp_path: Path) -> None:
    seen = ("fault", "--code", "000b", "--cr2", "ffff888058a67000")
    out = told(*seen, "--entries", "PMD=7fd36067,PTE=800fffffa7598063", cwd=tmp_path)
    assert "These entries give this fault." in out
    assert any("PML4E and PDPTE lead here and withhold nothing (not given)" in line for line in out)
    out = told("fault", "0x1000", "--access", "write", "--user",
               "--entries", "PGD=1063 PUD=2067", cwd=tmp_path)  # fmt: skip
    assert "user write at 0x1000: unknown, for the PDE is not given" in out
    assert "change none is known without that entry" in out
    assert not [line for line in out if "memory" in line]


def test_what_windows_debugger_prints_is_entries(tmp_path: Path) -> None:
    text = "PXE at 0 contains 2067; PPE at 0 contains 3067\nPDE at 0 PTE at 0\n"
    text += "contains 4067 contains 80000000`00005067"
    pasted = told("walk", "0x1000", "--entries", text, cwd=tmp_path)
    plain = "PXE=2067 PPE=3067 PDE=4067 PTE=8000000000005067"
    assert pasted == told("walk", "0x1000", "--entries", plain, cwd=tmp_path)
    assert "0x1000: 0x5000, in a 4K page" in pasted


def test_an_entry_below_the_end_of_the_walk_is_said_to_play_no_part(tmp_path: Path) -> None:
    out = told("walk", "0x1000", "--entries", "PMD=0 PTE=8000000000003067", cwd=tmp_path)
    assert "Note: The walk ends at the PDE: PTE is given and plays no part" in out
    out = told("walk", "0x1000", "--entries", "PUD=0 PMD=2067 PTE=3067", cwd=tmp_path)
    assert "Note: The walk ends at the PDPTE: PDE, PTE is given and plays no part" in out
    out = told("walk", "0x1000", "--entries", "PGD=1067 PUD=0 PMD=2067", cwd=tmp_path)
    assert "Note: The walk ends at the PDPTE: PDE is given and plays no part" in out
    whole = [("PMD", 0x2067), ("PTE", 0x8000_0000_0000_3067)]
    assert entries.snapshot("given", whole, 0x1000, {}).notes == ()
    assert entries.snapshot("given", [("PMD", 0)], 0x1000, {}).notes == ()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["walk", "0", "0x1000", "--entries", OOPS], "--entries are those of one address, and 2"),
        (["walk", "0", "--entries", OOPS, "--layout", "smallest"], "and --layout are two sources"),
        (["walk", "0", "--entries", OOPS, "--svg", "x"], "a picture needs all of it"),
        (["walk", "0", "--entries", "PGD"], "'PGD' are no entries: write PGD=... PUD=..."),
        (["walk", "0", "--entries", ""], "'' are no entries"),
        (["walk", "0", "--entries", "PGD=xyz"], "the PGD is 'xyz', no number"),
        (["fault", "--entries", OOPS], "--entries are those of one address: name it"),
    ],
)
def test_what_cannot_be_asked_of_entries_is_a_sentence(
    tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    code, out, errors = run(*arguments, cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert sentence in errors


def test_mutated_entries_are_walked_or_refused_by_a_sentence(tmp_path: Path) -> None:
    source, began = random.Random(7), time.monotonic()
    for _ in range(40):
        text = [*OOPS]
        for _ in range(source.randrange(1, 6)):
            place = source.randrange(len(text))
            text[place : place + source.randrange(3)] = source.choice(
                ["", "f", "=", "\0", "é", " "]
            )
        code, out, errors = run(
            "walk", "ffff888058a67123", "--entries", "".join(text), cwd=tmp_path
        )
        assert (code, errors) == (0, "") if out else (code, errors.count("\n")) == (2, 1)
        assert "report it" not in errors
    assert time.monotonic() - began < 60


@pytest.mark.parametrize(
    ("mode", "cr4", "found", "assumed"),
    [
        (None, None, Mode.LEVEL_4, "CR4=0xa0"),
        (None, 0x20, Mode.LEVEL_4, None),
        (None, 0x90, Mode.BITS_32, None),
        (None, 0x50, Mode.BITS_32, None),
        (Mode.BITS_32, None, Mode.BITS_32, "CR4=0x90"),
        (Mode.PAE, None, Mode.PAE, "CR4=0xa0"),
    ],
)
def test_what_is_not_given_of_cr4_is_assumed_as_the_mode_has_it(
    mode: Mode | None, cr4: int | None, found: Mode, assumed: str | None
) -> None:
    """PGE everywhere, and PSE where 4-MByte pages need it (SDM 4.3)."""
    given = {} if cr4 is None else {"cr4": cr4}
    made = entries.snapshot("given", [("PTE", 0x1067)], 0x1000, given, mode)
    assert made.cpu.mode is found
    assert [one for one in made.assumed if one.startswith("CR4")] == ([assumed] if assumed else [])


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("PGD", "PUD", "PTE"), ["PDE leads here and withholds nothing (not given)"]),
        (("PGD", "PTE"), ["PDPTE and PDE lead here and withhold nothing (not given)"]),
        (("PGD", "PUD", "PMD", "PTE"), []),
        (("PGD", "PUD"), []),
    ],
)
def test_entries_between_those_that_are_given_are_assumed_to_lead_to_them(
    names: tuple[str, ...], said: list[str]
) -> None:
    made = entries.snapshot("given", [(name, 0x1067) for name in names], 0x1000, {})
    assert [one for one in made.assumed if "not given" in one] == said


def test_of_given_words_the_others_are_not_known() -> None:
    memory = GivenMemory({0x1000: 7, 0x1008: 0})
    both = np.array([0x1000, 0x1008], np.uint64)
    words, known = memory.gather(both, 8)
    assert words.dtype == np.uint64 and words.tolist() == [7, 0] and known is None
    words, known = memory.gather(np.append(both, np.uint64(0x1010)), 8)
    assert words.tolist() == [7, 0, 0]
    assert known is not None and known.tolist() == [True, True, False]


@pytest.mark.parametrize("mode", Mode)
def test_a_width_of_addresses_is_assumed_where_it_counts_and_is_not_given(mode: Mode) -> None:
    """Without PAE addresses have 32 bits whatever MAXPHYADDR is."""
    for registers, said in (({}, mode is not Mode.BITS_32), ({"maxphyaddr": 40}, False)):
        made = entries.snapshot("", [("PTE", 0x5003)], 0x1000, registers, mode)
        assert ("MAXPHYADDR=40" in made.assumed) is said


def test_pdptes_lie_below_4_gib_whatever_is_above_in_cr3() -> None:
    """SDM 4.4.1: bits 63:32 are ignored."""
    pairs = [("PDPTE", 0x2001), ("PDE", 0x3003), ("PTE", 0x5003)]
    made = entries.snapshot("", pairs, 0x10, {"cr3": 1 << 40 | 0x1000}, Mode.PAE)
    assert made.cpu.base == 0x1000
    assert translate(made, Virtual(0x10)).physical == 0x5010
