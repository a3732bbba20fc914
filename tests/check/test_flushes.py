"""What the plugin reports, put into the library's words: made-up reports, without a guest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from harness.check.flushes import (
    KINDS,
    UNKNOWN,
    Cached,
    Cause,
    FailOn,
    Flushes,
    Lost,
    architecture_of,
    flushes,
    rules_of,
)
from harness.check.riscv import flushes as of_riscv
from harness.check.x86 import flushes as of_x86
from harness.machine.errors import Misuse
from harness.machine.plugin import WATCHING, Ending, Report, Watched

ROOT, TABLE, LEAF, FRAME = 0x1000, 0x2000, 0x3000, 0x70_0000
ADDRESS = 5 << 12 | 0x123

RAW: dict[str, int] = {
    "cr0": 0x8001_0001,
    "cr3": ROOT,
    "cr4": 0x20,
    "efer": 0xD00,
    "entry": 0x4028,
    "level": 0,
    "lost": 0,
    "before": FRAME | 7,
    "after": 0,
    "author": 1,
    "author_pc": 0xFFFF_8000,
    "cached": 0,
    "physical": FRAME | 0x123,
    "denied_kind": 0,
    "access": 0,
    "user": 0,
    "address": ADDRESS,
    "pc": 0x1234,
    "processor": 0,
    "uses": 7,
    "late": 3,
    "entries": 4,
    "by_invlpg": 2,
    "by_mov_cr3": 1,
    "old_steps": 4,
    "new_steps": 4,
}


def steps(which: str, *words: tuple[int, int]) -> dict[str, int]:
    return {
        f"{which}_{name}{number}": value
        for number, word in enumerate(words)
        for name, value in zip(("at", "raw"), word, strict=True)
    }


PATH = ((ROOT, TABLE | 7), (TABLE, LEAF | 7), (LEAF, 0x4007))
RAW |= steps("old", *PATH, (0x4028, FRAME | 7)) | steps("new", *PATH, (0x4028, 0))

TOTALS = {
    **{"major": 7, "minor": 2, "micro": 22, "processors": 1, "paged": 1, "unfollowed": 0},
    **{"state": WATCHING, "late": 3, "uses": 7},
}


def run(*causes: Mapping[str, int], arch: str = "x86", **totals: int) -> Flushes:
    """A run that ended by itself."""
    return ended(Ending.ITSELF, 0, *causes, arch=arch, totals=totals)


def ended(
    ending: Ending,
    code: int,
    *causes: Mapping[str, int],
    totals: Mapping[str, int],
    arch: str = "x86",
) -> Flushes:
    report = Report("", {**TOTALS, **totals}, tuple(causes))
    return flushes(arch, Watched(report, ending, code, 1.0))


def cause(**other: int) -> Cause:
    [found] = run({**RAW, **other}).causes
    return found


def test_a_cause_is_told_in_the_library_s_words() -> None:
    found = cause()
    change = found.change
    assert (change.address, change.level, change.lost) == (0x4028, 0, Lost.PRESENT)
    assert (change.before, change.after) == (FRAME | 7, 0)
    assert (change.author, change.pc) == (1, 0xFFFF_8000)
    assert (found.cached, found.kind, found.user, found.denied) == (
        Cached.TRANSLATION,
        "read",
        False,
        False,
    )
    assert (found.leads, found.address, found.pc, found.processor) == (
        FRAME | 0x123,
        ADDRESS,
        0x1234,
        0,
    )
    assert (found.uses, found.late, found.entries) == (7, 3, 4)
    assert found.flushed == {"invlpg": 2, "mov_cr3": 1} and found.unflushed == 1
    assert found.was is not None and found.was.physical == FRAME | 0x123
    assert found.now is not None and found.now.physical is None
    assert [step.raw for step in found.now.steps] == [*(raw for _, raw in PATH), 0]
    assert (found.cpu.cr3, found.cpu.maxphyaddr) == (ROOT, 52)  # type: ignore[attr-defined]


def test_each_number_stands_for_its_word() -> None:
    assert [cause(lost=number).change.lost for number in range(len(Lost))] == list(Lost)
    assert [cause(cached=number).cached for number in range(3)] == list(Cached)
    assert [cause(access=number).kind for number in range(3)] == list(KINDS)
    assert cause(user=1).user and cause(denied_kind=2).denied
    assert cause(entries=2).unflushed == 0


@pytest.mark.parametrize("name", ["entry", "author", "author_pc"])
def test_what_no_one_was_seen_to_do_is_none(name: str) -> None:
    assert UNKNOWN == 2**64 - 1
    field = {"entry": "address", "author": "author", "author_pc": "pc"}[name]
    assert getattr(cause(**{name: UNKNOWN}).change, field) is None
    others = {"address", "author", "pc"} - {field}
    assert all(getattr(cause(**{name: UNKNOWN}).change, one) is not None for one in others)
    for one in (0, 1, UNKNOWN - 1):
        assert getattr(cause(**{name: one}).change, field) == one


def test_of_a_root_that_changed_the_walk_before_it_begins_at_that_root() -> None:
    old = 0x8000
    moved = {"lost": list(Lost).index(Lost.ROOT), "before": old, "after": ROOT, "entry": UNKNOWN}
    before = steps("old", (old, TABLE | 7), *PATH[1:], (0x4028, FRAME | 7))
    found = cause(**moved, **before)
    assert found.was is not None and found.was.steps[0].slot.address == old
    assert found.now is not None and found.now.steps[0].slot.address == ROOT
    assert found.was.physical == FRAME | 0x123
    # Any other change has no other root.
    assert cause(before=old, **before).was is None


@pytest.mark.parametrize("which", ["old", "new"])
def test_where_the_entries_make_no_walk_there_is_none(which: str) -> None:
    field = {"old": "was", "new": "now"}[which]
    assert getattr(cause(), field) is not None
    for wrong in (
        {f"{which}_steps": 5, f"{which}_at4": 0x9000, f"{which}_raw4": 7},
        {f"{which}_at0": 0x9000},
        {f"{which}_at2": 0x9000},
        {"address": 1 << 47},
    ):
        assert getattr(cause(**wrong), field) is None, wrong


def test_of_a_structure_that_was_cached_there_are_the_entries_above_alone() -> None:
    found = cause(old_steps=3)
    assert found.was is not None and len(found.was.steps) == 3 and found.was.unbacked


def test_the_worst_cause_is_the_first() -> None:
    """By how many uses are late, then by all, then by the address."""
    rows = [(1, 9, 3), (2, 5, 1), (2, 7, 9), (2, 7, 4)]
    raws = [{**RAW, "late": late, "uses": uses, "address": page << 12} for late, uses, page in rows]
    found = run(*raws).causes
    assert [(one.late, one.uses, one.address >> 12) for one in found] == [
        (2, 7, 4),
        (2, 7, 9),
        (2, 5, 1),
        (1, 9, 3),
    ]


def test_uses_without_an_author_are_counted_apart() -> None:
    nobody = {**RAW, "author_pc": UNKNOWN}
    assert run(RAW).without_author == 0
    assert run(RAW, {**nobody, "uses": 2}, {**nobody, "uses": 11}).without_author == 13


def test_late_uses_make_a_run_fail_or_all_stale_ones() -> None:
    found = run(RAW)
    assert (found.failing(FailOn.LATE), found.failing(FailOn.STALE)) == (3, 7)
    assert found.rules.FLUSHES == of_x86.FLUSHES != rules_of("riscv").FLUSHES


@pytest.mark.parametrize(
    ("version", "said"), [((7, 2, 22), False), ((11, 1, 3), False), ((7, 2, 21), True)]
)
def test_a_version_that_was_not_run_is_named(version: tuple[int, int, int], said: bool) -> None:
    totals = dict(zip(("major", "minor", "micro"), version, strict=True))
    found = ended(Ending.ITSELF, 0, totals=totals)
    assert found.qemu == version
    sentences = [one.split(":")[0] for one in found.not_run_on]
    assert sentences == ["QEMU 7.2.21"] * said
    assert all(one.endswith("runs of: 7.2.22, 8.2.2, 10.0.13, 11.1.3") for one in found.not_run_on)


ITSELF, LIMIT = Ending.ITSELF, Ending.LIMIT


@pytest.mark.parametrize(
    ("ending", "code", "processors", "said"),
    [
        (ITSELF, 0, 1, None),
        (ITSELF, 0, 0, None),
        (ITSELF, 3, 1, None),  # as guests may have it end
        (ITSELF, 1, 0, "QEMU ended with exit code 1 before the guest executed anything."),
        (ITSELF, -11, 1, "QEMU was ended by signal 11, before its guest had ended."),
        (ITSELF, -6, 0, "QEMU was ended by signal 6, before its guest had ended."),
        (LIMIT, -15, 1, None),
        (LIMIT, 1, 0, None),
        (Ending.INTERRUPT, -15, 0, None),
    ],
)
def test_how_qemu_failed_is_a_sentence(
    ending: Ending, code: int, processors: int, said: str | None
) -> None:
    assert ended(ending, code, totals={"processors": processors}).failed == said


@pytest.mark.parametrize(
    ("totals", "begins"),
    [
        ({}, None),
        ({"processors": 0}, "QEMU executed nothing under TCG"),
        ({"paged": 0}, "The guest never had paging on"),
        ({"unfollowed": 1}, of_x86.UNFOLLOWED),
        ({"state": WATCHING + 1}, "The plugin could not check itself"),
        ({"state": WATCHING - 1}, "The plugin could not check itself"),
        ({"processors": 0, "paged": 0, "unfollowed": 1}, "QEMU executed nothing under TCG"),
        ({"paged": 0, "unfollowed": 1, "state": 0}, "The guest never had paging on"),
        ({"unfollowed": 1, "state": 0}, of_x86.UNFOLLOWED),
    ],
)
def test_why_nothing_was_watched_is_a_sentence(totals: dict[str, int], begins: str | None) -> None:
    found = ended(Ending.ITSELF, 0, totals=totals).unwatched
    assert found is None if begins is None else str(found).startswith(begins)
    assert (
        begins != of_x86.UNFOLLOWED or run(arch="riscv", **totals).unwatched == of_riscv.UNFOLLOWED
    )


@pytest.mark.parametrize(
    ("command", "arch"),
    [
        ([], "x86"),
        (["qemu-system-x86_64", "-m", "1G"], "x86"),
        (["/opt/qemu-system-riscv64"], "riscv"),
        (["qemu-system-riscv32"], "riscv"),
        (["/opt/qemu-10-riscv64"], "riscv"),
        (["my-qemu"], "x86"),
    ],
)
def test_a_program_s_name_tells_the_architecture(command: list[str], arch: str) -> None:
    assert architecture_of(command) == arch


@pytest.mark.parametrize(
    ("program", "arch"), [("qemu-system-aarch64", "arm64"), ("/opt/qemu-11-s390x", "s390")]
)
def test_an_architecture_that_is_not_followed_is_refused(program: str, arch: str) -> None:
    with pytest.raises(Misuse, match=f"runs a guest of {arch}, whose flushes are not watched: the"):
        architecture_of([program])


def test_the_state_of_a_hart_is_read_as_with_the_extensions_that_there_may_be() -> None:
    for xlen in 32, 64:
        raw = {"satp": 1 << 31, "mstatus": 1 << 18, "xlen": xlen}
        cpu: Any = of_riscv.state(raw if xlen == 32 else {**raw, "satp": 8 << 60})
        assert (cpu.xlen, cpu.svnapot, cpu.mstatus) == (xlen, xlen == 64, 1 << 18)
        assert bool(cpu.menvcfg) is (xlen == 64)
    assert replace(of_x86.state(RAW), cr3=0).cr3 == 0
