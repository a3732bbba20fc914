"""The matrix on the machine, and what is refused before it comes there."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pytest import MonkeyPatch
from typer.testing import CliRunner

from harness.check.matrix import Report
from harness.check.quirk import Version
from harness.check.replay import CaseError
from harness.check.x86 import quirks, verdicts
from harness.check.x86.matrix import case as matrix_case
from harness.check.x86.matrix import families as declared
from harness.check.x86.matrix import rig
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.case import AskedAccess, MatrixCase
from harness.check.x86.matrix.run import Plan
from harness.check.x86.matrix.sequence import jobs_of
from harness.check.x86.matrix.stage import MODES, Control, Model
from harness.cli import application
from harness.machine.errors import GuestLost, Misuse
from harness.machine.machine import Processor
from harness.machine.x86.engines import Present, executor, why_absent
from harness.machine.x86.guest import FEATURES, Guest, MachineInfo
from harness.paging.x86 import bulk as x86
from harness.paging.x86.access import Access, Kind, Reason
from harness.paging.x86.cpu import Cpu, Cr4
from tests.check.x86.by_rules import info_of
from tests.check.x86.plants import all_loaded, dirty_once_read, kept, left_to_its_path, mended

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
LEAVES = {0, 0x8000_0000, 0x8000_0008} | {leaf for leaf, _, _ in FEATURES.values()}


def processor(*lacking: str, physical_bits: int = 40) -> MachineInfo:
    """A processor with every feature but some, and but those that TCG's lacks."""
    registers = {leaf: [0xFFFF_FFFF] * 4 for leaf in LEAVES}
    registers[0x8000_0008][0] = physical_bits
    registers[0][1:] = (int.from_bytes(part) for part in (b"uneG", b"letn", b"Ieni"))
    for feature in ("pcid", "invpcid", "cet_ss", "lass", *lacking):
        leaf, register, bit = FEATURES[feature]
        registers[leaf]["abcd".index(register)] &= ~(1 << bit)
    return MachineInfo({leaf: (a, b, c, d) for leaf, (a, b, c, d) in registers.items()})


def tried(plan: Plan, jobs: int = 2) -> Report:
    report = Report(plan.engine)
    for part in matrix.run(plan, jobs=jobs, program=QEMU):
        report.add(part)
    return report


# ---- planning ----


def test_what_a_processor_lacks_is_told_as_a_reason() -> None:
    plain = processor("nx", "pks")
    assert Control().lacks(plain) == "the engine's processor has no NX"
    assert Control(pks=True).lacks(plain) == "the engine's processor has no NX, PKS"
    assert Control(nxe=False).lacks(plain) is None


def test_quick_and_full_are_as_large_as_they_promise() -> None:
    assert len(matrix.plan("quick", MODES, "tcg", processor())) >= 5_000_000
    assert len(matrix.plan("full", MODES, "tcg", processor())) >= 40_000_000


def test_what_a_condition_selects_is_all_that_is_planned() -> None:
    expression = "family=entry and level=3 and WP=0 and access=fetch"
    plan = matrix.plan("quick", ["4"], "tcg", processor(), expression)
    assert {control.first.wp for part in plan.work for control in part.controls} == {False}
    assert {tuple(part.family.varied) for part in plan.work} == {(3,)}
    kinds = [part.family.product.places(part.numbers)["access"] for part in plan.work]
    assert set(np.concatenate(kinds).tolist()) == {2}


def test_a_condition_that_selects_under_one_control_state_alone_is_followed() -> None:
    expression = "family=entry and level=0 and (WP=0 and P=0 or WP=1 and P=1)"
    plan = matrix.plan("quick", ["4"], "tcg", processor(), expression)
    for part in plan.work:
        present = part.family.product.places(part.numbers)["P"]
        assert {control.first.wp for control in part.controls} == {bool(present[0])}
        assert len(set(present.tolist())) == 1


def test_what_a_condition_does_not_select_is_no_reason_why_something_is_skipped() -> None:
    """A processor without XD lacks nothing where NXE is clear."""
    for states, lacking in ("NXE=0", []), ("NXE>=0", ["the engine's processor has no NX"]):
        expression = f"family=entry and level=0 and {states}"
        plan = matrix.plan("quick", ["4"], "tcg", processor("nx"), expression)
        assert [*plan.skipped] == lacking


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("level=3 and", "is not a condition"),
        ("depth=3", "there is no axis 'depth'"),
        ("family=place and P=0", "no case satisfies 'family=place and P=0'"),
    ],
)
def test_a_condition_that_is_none_or_selects_nothing_is_refused(
    expression: str, problem: str
) -> None:
    with pytest.raises(Misuse, match=problem):
        matrix.plan("quick", MODES, "tcg", processor(), expression)


def test_what_leaves_out_nothing_is_no_reason_why_nothing_is_left() -> None:
    with pytest.raises(Misuse) as refused:
        matrix.plan(
            "quick", ["4"], "tcg", processor(), "family=place and access=fetch and offset=last-word"
        )
    assert "the code that a fetch executes has no room" in str(refused.value)
    assert "a push or a descriptor" not in str(refused.value)


def test_no_batch_has_more_jobs_than_it_may_and_none_is_needless(monkeypatch: MonkeyPatch) -> None:
    """In all of them is each case once; one of a sequence takes several jobs."""
    where = "family=alias and page=1 and parting=2 or family=rights and level0.US=1"
    whole = matrix.plan("quick", ["4"], "tcg", processor(), where)
    monkeypatch.setattr(matrix, "BATCH", 1000)
    parted = matrix.plan("quick", ["4"], "tcg", processor(), where)

    kinds = set[int]()
    for _, some in groupby(parted.work, lambda part: (id(part.family), part.controls)):
        parts = list(some)
        jobs, count = jobs_of(parts[0].family.steps), sum(len(part.numbers) for part in parts)
        kinds.add(jobs)
        assert all(len(part.numbers) * jobs <= 1000 for part in parts)
        assert (len(parts) - 1) * (1000 // jobs) < count
    assert kinds == {1, 4, 5}
    assert len(parted) == len(whole) and len(parted.work) > len(whole.work)


def test_what_a_host_has_decides_what_is_planned(monkeypatch: MonkeyPatch) -> None:
    here = Present("there", ("tcg", (7, 2, 22)), processor("la57"), "it knows long mode only")
    asked = list[tuple[str, str]]()

    def present(engine: str, program: str) -> Present:
        asked.append((engine, program))
        return here

    monkeypatch.setattr(matrix, "present", present)
    some = "family in (rights, place)"
    found = matrix.planned("quick", MODES, "tcg", "there", some)
    assert asked == [("tcg", "there")]
    assert {part.family.model.mode for part in found.work} == {"4"}
    assert [*found.skipped][:2] == [f"mode {mode}: it knows long mode only" for mode in MODES[:2]]
    assert "QEMU ends itself (SIGABRT) at an instruction in the last byte" in str(found.left_out)


USUAL = (40, True, True, False, True)
WIDE = {(width, *USUAL[1:]) for width in (36, 39, 46, 52)}
NO_1G, AS_AMD = (40, False, *USUAL[2:]), (40, True, True, True, True)
NO_PSE36, NO_PSE = (40, True, False, False, True), (40, True, True, False, False)
TRIED: dict[tuple[str, str, Version | None], set[tuple[int, bool, bool, bool, bool]]] = {
    ("tcg", "4", None): {USUAL, *WIDE, NO_1G, AS_AMD, NO_PSE},
    ("tcg", "pae", (7, 2, 22)): {USUAL, *WIDE, NO_PSE},
    ("tcg", "32", (7, 2, 22)): {USUAL, *WIDE, NO_PSE36, NO_PSE},
    ("bochs", "4", None): {USUAL, NO_1G, AS_AMD, NO_PSE},
    ("bochs", "4", (3, 0)): {USUAL, NO_1G, AS_AMD, NO_PSE},
    ("bochs", "5", (3, 0)): {USUAL, NO_1G, NO_PSE},
    ("bochs", "4", (2, 7)): {USUAL, AS_AMD, NO_PSE},  # which has 1-GByte pages
    ("bochs", "32", (2, 7)): {USUAL, NO_PSE},
}
"""The processors of a mode that an engine can be: MAXPHYADDR, 1-GByte pages, PSE-36, AMD, PSE."""


@pytest.mark.parametrize(("engine", "mode", "version"), TRIED, ids=str)
def test_every_processor_is_tried_that_an_engine_can_be(
    engine: str, mode: str, version: Version | None
) -> None:
    executor = None if version is None else (engine, version)
    plan = matrix.plan("quick", [mode], engine, processor(), "family=bits", executor=executor)
    models = [part.family.model for part in plan.work]
    found = {(one.maxphyaddr, one.page1gb, one.pse36, one.amd, one.pse) for one in models}
    assert found == TRIED[engine, mode, version]


def test_a_family_is_skipped_in_a_version_that_lacks_what_it_needs() -> None:
    info = info_of(Processor(shadow_stacks=True, lass=True))
    plan = matrix.plan("quick", ["4"], "bochs", info, "family=halves", executor=("bochs", (3, 0)))
    assert len(plan) > 10_000 and not plan.skipped
    with pytest.raises(Misuse, match=r"bochs 2\.7 cannot tell apart"):
        matrix.plan("quick", ["4"], "bochs", info, "family=halves", executor=("bochs", (2, 7)))


def test_a_mode_that_the_engine_lacks_is_skipped_and_alone_refused() -> None:
    plan = matrix.plan("quick", MODES, "tcg", processor("la57"))
    assert any("LA57" in reason for reason in plan.skipped)
    assert {part.family.model.mode for part in plan.work} == {"32", "pae", "4"}
    with pytest.raises(Misuse, match=r"^tcg can try nothing of it: mode 5: .*five-level paging"):
        matrix.plan("quick", ["5"], "tcg", processor("la57"))


@pytest.mark.parametrize("feature", ["nx", "smep", "smap"])
def test_a_control_state_that_the_processor_lacks_never_reaches_it(feature: str) -> None:
    plan = matrix.plan("quick", ["4"], "tcg", processor(feature))
    field = {"nx": "nxe"}.get(feature, feature)
    used = [control for part in plan.work for control in part.controls]
    assert not any(getattr(state, field) for c in used for state in (c.first, c.then))
    assert plan.skipped[f"the engine's processor has no {feature.upper()}"] > 0


def test_kvm_executes_a_sample_on_its_own_processor() -> None:
    info = processor("gigabyte_pages", physical_bits=46)
    plan = matrix.plan("quick", ["4"], "kvm", info)
    assert 100_000 <= len(plan) <= 150_000
    models = {part.family.model for part in plan.work}
    assert {(model.maxphyaddr, model.page1gb) for model in models} == {(46, False)}
    assert plan.skipped["kvm executes a sample"] > 0
    assert all((np.diff(part.numbers) > 0).all() for part in plan.work), "no case is tried twice"


LACKED = {
    Model("5", pse=False): ("la57", "five-level paging"),
    Model("pae", pse=False): ("pae", "PAE paging"),
    Model("32"): ("pse", "PSE"),
    Model("4", pse=False, shadow_stacks=True): ("cet_ss", "shadow stacks"),
    Model("4", pse=False, lass=True): ("lass", "LASS"),
}


@pytest.mark.parametrize("model", LACKED, ids=str)
def test_a_processor_is_what_it_is_tried_as_or_says_what_it_lacks(model: Model) -> None:
    feature, said = LACKED[model]
    every = Processor(shadow_stacks=True, lass=True)
    assert model.lacks(info_of(every)) is None
    assert said in str(model.lacks(info_of(every, feature)))
    assert model.lacks(info_of(every, *({one for one, _ in LACKED.values()} - {feature}))) is None


def test_what_a_sample_leaves_out_is_counted() -> None:
    work = matrix.plan("quick", ["32"], "tcg", processor(), "family=pair").work
    skipped, whole = Counter[str](), sum(map(len, work))
    assert matrix._sample(work, whole, skipped, "kvm") == work and not skipped
    few = sum(map(len, matrix._sample(work, whole // 10, skipped, "kvm")))
    assert whole // 10 <= few < whole // 5
    assert skipped == {"kvm executes a sample": whole - few}


LAST_BYTE = "family=place and access=fetch and offset=last-byte and address=0xfffffffffffff000"
LAST_BYTE_RULE = declared._NOT_SURVIVED[quirks.ENDS_AT_LAST_BYTE]
LAST_BYTES = 2 * 3 * 4 * 4 * 2
"""In two modes: by size of page, rights, who accesses with AC, and control state."""


@pytest.mark.parametrize("version", [None, (7, 2, 22), (11, 1, 3), (11, 9, 9)])
def test_what_a_version_of_the_engine_does_not_survive_is_left_out(
    version: Version | None, monkeypatch: MonkeyPatch
) -> None:
    ended = replace(quirks.ENDS_AT_LAST_BYTE, until=(12,))
    monkeypatch.setattr(quirks, "KNOWN", {ended.name: ended})
    monkeypatch.setattr(declared, "_NOT_SURVIVED", {ended: LAST_BYTE_RULE})
    with pytest.raises(Misuse, match=r"QEMU ends itself \(SIGABRT\) at an instruction in the last"):
        matrix.plan("quick", ["4", "5"], "tcg", processor(), LAST_BYTE, executor=("tcg", version))
    plan = matrix.plan(
        "quick", ["4", "5"], "tcg", processor(), LAST_BYTE, executor=("tcg", (12, 0, 0))
    )
    assert len(plan) == LAST_BYTES


def test_no_other_engine_is_spared_what_it_survives() -> None:
    plan = matrix.plan(
        "quick", ["4", "5"], "kvm", processor(), LAST_BYTE, executor=("kvm", (7, 2, 22))
    )
    assert len(plan) == LAST_BYTES


def test_states_that_bochs_does_not_survive_are_left_out_and_counted() -> None:
    """Those in which it keeps the supervisor from writing to the stub's own stack, by key 0."""

    def deadly(plan: Plan) -> bool:
        controls = [one for part in plan.work for one in part.controls]
        states = [state for one in controls for state in (one.first, one.then)]
        return any(state.pke and state.wp and state.pkru & 0b10 for state in states)

    bochs, tcg = (
        matrix.plan("quick", ["4"], engine, processor(), "family=key", executor=(engine, version))
        for engine, version in (("bochs", (2, 7)), ("tcg", (7, 2, 22)))
    )
    assert deadly(tcg) and not deadly(bochs)
    assert len(bochs) + sum(bochs.left_out.values()) == len(tcg) + sum(tcg.left_out.values())


# ---- the machine ----


@pytest.mark.hw
def test_tcg_does_not_survive_what_it_is_spared() -> None:
    plan = matrix.plan("quick", ["4"], "tcg", processor(), LAST_BYTE, executor=("tcg", (1,)))
    with pytest.raises(GuestLost, match="ended by SIGABRT"):
        tried(plan, 1)


@pytest.mark.hw
def test_kvm_executes_what_tcg_does_not_survive() -> None:
    absent = why_absent("kvm", program=QEMU)
    if absent:
        pytest.skip(absent)
    with Guest("kvm", program=QEMU) as guest:
        info = guest.info
    report = tried(matrix.plan("quick", ["4"], "kvm", info, LAST_BYTE))
    assert report.comparison.disagreed == 0, report.failures
    assert not report.comparison.news
    assert report.by_rule["4", None] > 0


EVERYWHERE = {
    None,
    Reason.NOT_PRESENT,
    Reason.RESERVED,
    Reason.USER_DENIED,
    Reason.WRITE_DENIED,
    Reason.SMEP,
    Reason.SMAP,
}
LONG_MODE = {
    Reason.EXECUTE_DENIED,
    Reason.NOT_CANONICAL,
    Reason.PKU,
    Reason.PKS,
    Reason.LA57_CHANGED,
}
REASONS = {
    "32": EVERYWHERE,
    "pae": EVERYWHERE | {Reason.EXECUTE_DENIED, Reason.NO_PDPTE, Reason.PDPTE_RESERVED},
    "4": EVERYWHERE | LONG_MODE,
    "5": EVERYWHERE | LONG_MODE,
}
ANYWHERE = {quirks.RESERVED_WITHOUT_PRESENT.name, quirks.IMPLICIT_HEEDS_AC.name}
IN_LONG_MODE = {
    quirks.GIGABYTE_PAGE_ACCESSED.name,
    quirks.GIGABYTE_PAGE_WITHOUT_CPUID.name,
    quirks.PML4E_BIT_8_IGNORED.name,
    quirks.PUSH_IS_A_WRITE.name,
}
DEPARTURES = {
    "32": ANYWHERE | {quirks.LARGE_PAGE_ADDRESS.name},
    "pae": ANYWHERE | {quirks.PDPTES_ARE_ENTRIES.name},
    "4": ANYWHERE | IN_LONG_MODE,
    "5": ANYWHERE | IN_LONG_MODE,
}


@pytest.mark.hw
@pytest.mark.parametrize("mode", MODES)
def test_the_machine_agrees_with_the_reference_on_every_access_of_quick(mode: str) -> None:
    report = tried(matrix.plan("quick", [mode], "tcg", processor()))
    assert report.comparison.disagreed == 0, report.failures
    assert not report.comparison.news
    assert {reason for _, reason in report.by_rule} == REASONS[mode]
    assert report.by_rule.total() == report.comparison.compared
    assert set(report.comparison.quirks) == DEPARTURES[mode]


@pytest.mark.hw
def test_kvm_agrees_on_a_quarter_of_its_sample_of_four_levels() -> None:
    """Of 92 faults that are planted in the reference, so many cases show as many as four times as
    many do."""
    absent = why_absent("kvm", program=QEMU)
    if absent:
        pytest.skip(absent)
    with Guest("kvm", program=QEMU) as guest:
        plan = matrix.plan("quick", ["4"], "kvm", guest.info, executor=executor(guest))
    few = tuple(replace(part, numbers=part.numbers[::4]) for part in plan.work)
    report = tried(replace(plan, work=few))
    assert report.comparison.compared == sum(map(len, few)) >= 25_000
    assert report.comparison.disagreed == 0, report.failures


WHERE = {
    quirks.GIGABYTE_PAGE_WITHOUT_CPUID: ("4", "page1gb=0 and level=2 and set=11"),
    quirks.PML4E_BIT_8_IGNORED: ("5", "amd=1 and level=4 and set=11"),
    quirks.PUSH_IS_A_WRITE: ("4", "family=place and access=push and offset=first and level=1"),
    quirks.IMPLICIT_HEEDS_AC: ("32", "family=rights and access=descriptor"),
    quirks.LARGE_PAGE_ADDRESS: ("32", "pse36=0 and level=1 and set=13"),
    quirks.PDPTES_ARE_ENTRIES: ("pae", "maxphyaddr=36 and register=2 and access=read"),
}


def selected(quirk: quirks.BasisQuirk) -> Plan:
    """A few cases in which it shows, on one processor."""
    mode, where = WHERE[quirk]
    return matrix.plan("quick", [mode], "tcg", processor(), where)


@pytest.mark.hw
@pytest.mark.parametrize("quirk", WHERE, ids=lambda quirk: quirk.name)
def test_a_departure_is_a_disagreement_where_its_quirk_does_not_name_the_version(
    quirk: quirks.BasisQuirk, monkeypatch: MonkeyPatch
) -> None:
    others = tuple(one for one in quirks.FAULT_QUIRKS if one is not quirk)
    stranger = replace(quirk, since=(99,))
    monkeypatch.setattr(quirks, "FAULT_QUIRKS", (*others, stranger))
    monkeypatch.setattr(verdicts, "FAULT_QUIRKS", (*others, stranger))
    report = tried(selected(quirk), 1)
    assert report.comparison.disagreed > 0
    news = f"{quirk.name} shows on tcg {report.qemu}, which it does not name"
    assert report.comparison.news[news] == report.comparison.disagreed


MENDED = {
    quirks.RESERVED_WITHOUT_PRESENT: ("4", "family=bits and maxphyaddr=40 and set=51"),
    quirks.PUSH_IS_A_WRITE: ("4", "family=place and access=push and level=0"),
    quirks.PML4E_BIT_8_IGNORED: ("4", "family=bits and level=3 and amd=1 and G=1"),
}
"""Of a quirk, where it shows."""


@pytest.mark.hw
@pytest.mark.parametrize("quirk", MENDED, ids=lambda quirk: quirk.name)
def test_a_quirk_that_does_not_show_is_news(
    quirk: quirks.FaultQuirk, monkeypatch: MonkeyPatch
) -> None:
    mode, where = MENDED[quirk]
    plan = matrix.plan("quick", [mode], "tcg", processor(), where)
    shown = tried(plan, 1).comparison.quirks[quirk.name]
    mended(quirk)(monkeypatch)
    report = tried(plan, 1)
    assert report.comparison.disagreed == 0
    assert quirk.name not in +report.comparison.quirks
    assert report.comparison.news[f"{quirk.name} did not show"] == shown > 0


@pytest.mark.hw
def test_guests_side_by_side_try_what_one_would() -> None:
    plan = matrix.plan("quick", ["4"], "tcg", processor(), "family=entry and level=1")
    alone, together = tried(plan, 1), tried(plan, 2)
    assert alone.by_rule == together.by_rule
    assert alone.comparison.quirks == together.comparison.quirks


ONE_OF_EACH = {
    "push": ("32", "family=place and access=push and offset=last-word and by=user"),
    "descriptor": ("32", "family=place and access=descriptor and offset=last-word"),
    "PS ignored": ("32", "family=entry and level=1 and PS=1 and PSE=0 and access=write"),
    "4M page": ("32", "family=place and level=1 and access=fetch and offset=last-byte"),
    "PDPTE": ("pae", "family=pdpte and register=2 and pdpte.P=1 and pdpte.set=3"),
    "CR4.PGE": ("pae", "family=flush and flush=global and PGE=0"),
    "keys": ("4", "family=key and access=read and key=5 and PKE=1 and by=user"),
    "last byte": ("5", "family=place and access=write and offset=last-byte and level=2"),
}


@pytest.mark.hw
@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_a_failure_of_any_kind_is_replayed_from_its_file(
    name: str, monkeypatch: MonkeyPatch, tmp_path: Path
) -> None:
    mode, where = ONE_OF_EACH[name]
    plan = matrix.plan("quick", [mode], "tcg", processor(), where)
    with monkeypatch.context() as patch:
        all_denied = replace_reason(Reason.NOT_PRESENT)
        patch.setattr(rig, "judge", all_denied)
        report = tried(Plan("tcg", plan.work[:1], Counter(), Counter()), 1)
    (failure,) = report.failures[:1]
    assert isinstance(failure, MatrixCase)
    assert matrix_case.saved(failure.save(tmp_path)) == failure
    comparison = matrix_case.replay(failure, program=QEMU)
    assert (comparison.compared, comparison.disagreed) == (1, 0)
    with monkeypatch.context() as patch:
        patch.setattr(rig, "judge", all_denied)
        again = matrix_case.replay(failure, program=QEMU)
    assert again.disagreed == 1
    assert again.disagreements[0].observed == failure.observed


@pytest.mark.hw
def test_a_change_of_la57_that_is_refused_is_replayed_from_its_file(
    monkeypatch: MonkeyPatch, tmp_path: Path
) -> None:
    plan = matrix.plan("quick", ["4"], "tcg", processor(), "family=load and changed=4+12")
    with monkeypatch.context() as patch:
        all_loaded()(patch)
        report = tried(plan, 1)
    assert report.comparison.disagreed == len(plan)
    (failure,) = report.failures[:1]
    assert isinstance(failure, MatrixCase)
    assert failure.observed.startswith("#GP(0x0)")
    saved = matrix_case.saved(failure.save(tmp_path))
    assert saved == failure
    assert matrix_case.replay(saved, program=QEMU).disagreed == 0


SEQUENCES = {
    "WP": ("4", "family=change and WP=0 and then.WP=1 and access=write", kept("cr0")),
    "NXE": ("pae", "family=change and NXE=1 and then.NXE=0 and flush=page and XD=1", kept("efer")),
    "SMAP": ("32", "family=change and SMAP=0 and then.SMAP=1 and access=read", kept("cr4")),
    "PKRU": ("5", "family=change and PKRU=0x39393939 and then.PKRU=0x4e4e4e4e", kept("pkru")),
    "twice": ("4", "family=twice and level=1 and access=read", dirty_once_read()),
    "alias": ("5", "family=alias and page=2 and parting=3 and access=read", left_to_its_path()),
}


@pytest.mark.hw
@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_is_replayed_as_a_whole_from_its_file(
    name: str, monkeypatch: MonkeyPatch, tmp_path: Path
) -> None:
    mode, where, plant = SEQUENCES[name]
    plan = matrix.plan("quick", [mode], "tcg", processor(), where)
    with monkeypatch.context() as patch:
        plant(patch)
        report = tried(Plan("tcg", plan.work[:1], Counter(), Counter()), 1)
        failure = report.failures[-1]
        assert isinstance(failure, MatrixCase)
        saved = matrix_case.saved(failure.save(tmp_path))
        assert saved == failure
        assert saved.values.endswith(f" step={len(saved.steps)}")
        again = matrix_case.replay(saved, program=QEMU)
    assert again.disagreed >= 1
    assert failure.observed in {found.observed for found in again.disagreements}
    now = matrix_case.replay(saved, program=QEMU)
    assert (now.compared, now.disagreed) == (len(saved.steps), 0)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ({"flush": "none", "earlier": []}, "nothing is flushed before the first"),
        ({"flush": "la75"}, "flush 'la75'"),
        ({"slots": ["0x400008", "0x401000"]}, "two paths at most"),
        ({"control": {"wp": False, "smap": False}}, "two control states at most"),
        ({"earlier": [{"flush": "none"}]}, r"earlier\[0\]: object missing required field"),
    ],
    ids=str,
)
def test_a_file_that_holds_no_sequence_is_refused(
    tmp_path: Path, harm: dict[str, Any], problem: str
) -> None:
    asked = AskedAccess(
        control=Control(),
        words=(7, 7),
        slots=(0x40_0000, 0x40_1000),
        address=0x8000_0000,
        access=Access(Kind.READ, False),
        user=False,
        ac=False,
        width=4,
        page=0,
        backed=True,
        flush="page",
        pdpte=None,
        register=0,
        wruss=False,
        branch=False,
        changed=0,
    )
    other = replace(asked, control=Control(wp=False), slots=(0x40_0004, 0x40_1000), flush="none")
    case = MatrixCase(
        **vars(asked),
        engine="tcg",
        qemu="7.2.22",
        values="",
        model=Model("32"),
        expected="",
        observed="",
        earlier=(asked, other),
    )
    path = case.save(tmp_path)
    assert matrix_case.saved(path) == case
    path.write_text(json.dumps({**json.loads(path.read_text()), **harm}))
    with pytest.raises(CaseError, match=problem):
        matrix_case.saved(path)


def replace_reason(reason: Reason) -> Callable[..., x86.Outcomes]:
    """A reference by which everything that is allowed faults for one reason."""

    def judged(*given: Any) -> x86.Outcomes:
        found = x86.judge(*given)
        allowed = found.reason == 0
        return replace(
            found,
            vector=np.where(allowed, np.uint8(14), found.vector),
            sets_cr2=found.sets_cr2 | allowed,
            reason=np.where(allowed, np.uint8(x86.REASONS.index(reason)), found.reason),
        )

    return judged


@pytest.fixture(scope="module")
def failure() -> MatrixCase:
    """A case that disagrees while the reference knows no SMEP; afterwards it knows it again."""

    def without_smep(cpu: Cpu, *rest: Any) -> x86.Outcomes:
        return x86.judge(replace(cpu, cr4=cpu.cr4 & ~Cr4.SMEP), *rest)

    condition = "family=rights and access=fetch and SMEP=1 and by=supervisor"
    plan = matrix.plan("quick", ["5"], "tcg", processor(), condition)
    with MonkeyPatch.context() as patch:
        patch.setattr(rig, "judge", without_smep)
        report = tried(plan, 1)
    assert report.comparison.disagreed > 0
    (failure,) = report.failures[:1]
    assert isinstance(failure, MatrixCase)
    return failure


@pytest.mark.hw
def test_a_failure_is_replayed_from_its_file(failure: MatrixCase, tmp_path: Path) -> None:
    assert failure.expected.startswith("reaches")
    assert failure.observed.startswith("#PF(0x11)")
    path = failure.save(tmp_path)
    assert matrix_case.saved(path) == failure
    comparison = matrix_case.replay(failure, program=QEMU)
    assert (comparison.compared, comparison.disagreed) == (1, 0)
    result = CliRunner().invoke(application("replay"), ["replay", str(path), "--qemu", QEMU])
    assert result.exit_code == 0
    assert "They agree now." in result.output


@pytest.mark.hw
@pytest.mark.parametrize(
    "harm",
    [
        {"words": ["0x1"]},
        {"address": "-1"},
        {"slots": ["0x0"] * 5},
        {"model": {"mode": "6"}},
        {"access": {"kind": "jump", "user": False}},
        {"width": 2},
        {"flush": "never"},
        {"pdpte": "0x1"},
        {"control": {"pks": True, "pkrs": 1}},
        {"control": {"pke": True, "pkru": 1 << 32}},
    ],
    ids=str,
)
def test_a_file_that_holds_no_case_is_refused(
    failure: MatrixCase, tmp_path: Path, harm: dict[str, object]
) -> None:
    path = failure.save(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **harm}))
    with pytest.raises(CaseError, match="holds no case: "):
        matrix_case.saved(path)


# ---- the commands ----


@pytest.mark.hw
def test_the_command_prints_one_object_with_the_keys_of_validate(tmp_path: Path) -> None:
    page = tmp_path / "matrix.html"
    arguments = ["--where", "family=rights and mode=4", "--json", "--html", str(page)]
    arguments += ["--qemu", QEMU]
    result = CliRunner().invoke(application("matrix"), ["matrix", *arguments])
    assert result.exit_code == 0
    printed = json.loads(result.stdout)
    assert printed["accesses"] == printed["compared"] == 4096 * 20 * 2
    assert printed["disagreements"] == 0
    assert {"engine", "qemu", "quirks", "not_comparable", "seconds", "news"} <= set(printed)
    assert f"All {4096 * 20 * 2:,} accesses agree on " in page.read_text()


@pytest.mark.hw
def test_a_version_that_was_not_yet_run_is_named_in_every_report(
    tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    older = {name: replace(one, runs=((7, 2),)) for name, one in quirks.KNOWN.items()}
    monkeypatch.setattr(quirks, "KNOWN", older)
    page, where = tmp_path / "matrix.html", "family=place and level=2 and access=read"
    arguments = ["--mode=4", "--where", where, "--html", str(page), "--report", str(tmp_path)]
    result = CliRunner().invoke(
        application("matrix"), ["matrix", *arguments, "--engine=tcg", "--qemu", QEMU]
    )
    assert (result.exit_code, result.stderr) == (0, "")
    saved = json.loads((tmp_path / "report.json").read_text())
    sentence = f"tcg {saved['qemu']}: not yet run on this version; runs of: 7.2"
    assert saved["not_run_on"] == [sentence]
    assert f"\nNot yet run\n{sentence}\n" in result.stdout
    assert f'<p class="note">{sentence}</p>' in page.read_text()


@pytest.mark.hw
@pytest.mark.parametrize(
    "arguments",
    [
        ["--where", "level=9"],
        ["--where", "level="],
        ["--mode", "6"],
        ["--preset", "huge"],
        ["--jobs", "0"],
        ["--engine", "abacus"],
    ],
    ids=" ".join,
)
def test_misuse_ends_with_a_sentence_and_code_2(arguments: list[str]) -> None:
    result = CliRunner().invoke(application("matrix"), ["matrix", *arguments, "--qemu", QEMU])
    assert result.exit_code == 2
    assert re.match("pagetable: .", result.stderr)


@pytest.mark.hw
def test_the_rules_tell_from_which_an_engine_departs(tmp_path: Path) -> None:
    where = "family=pdpte and maxphyaddr=36 and access=read"
    arguments = ["--where", where, "--mode", "pae", "--json", "--qemu", QEMU]
    saved = tmp_path / "report.json"
    saved.write_text(CliRunner().invoke(application("matrix"), ["matrix", *arguments]).stdout)
    result = CliRunner().invoke(
        application("rules"), ["rules", "--mode", "pae", "--from", str(saved)]
    )
    lines = {line.strip().split("  ")[0]: line.strip() for line in result.output.splitlines()}
    departs = lines["a PDPTE with reserved bits set is loaded"]
    assert re.search(r"  tcg \d+\.\d+\.\d+ departs$", departs), departs
    follows = lines["the PDPTE of the address is not present"]
    assert re.search(r"  tcg \d+\.\d+\.\d+$", follows), follows


def test_a_mode_without_an_engine_is_refused_with_its_reason() -> None:
    plan = matrix.plan("quick", MODES, "kvm", processor(), long_only="kvm_x knows long mode only")
    assert {part.family.model.mode for part in plan.work} == {"4", "5"}
    assert "mode pae: kvm_x knows long mode only" in plan.skipped
    with pytest.raises(Misuse, match="kvm_x knows long mode only"):
        matrix.plan("quick", ["32"], "kvm", processor(), long_only="kvm_x knows long mode only")


@pytest.mark.hw
def test_the_rules_are_printed_with_their_sections_and_engines(tmp_path: Path) -> None:
    arguments = ["--where", "family=rights", "--mode", "5", "--json", "--qemu", QEMU]
    saved = tmp_path / "report.json"
    saved.write_text(CliRunner().invoke(application("matrix"), ["matrix", *arguments]).stdout)
    result = CliRunner().invoke(
        application("rules"), ["rules", "--mode", "5", "--from", str(saved)]
    )
    assert result.exit_code == 0
    lines = {line.strip().split("  ")[0]: line.split() for line in result.output.splitlines()}
    # Of five levels, U/S (R/W) is set in all 5 entries in one case of 32, and clear in one of
    # them in 31; XD may be anything with NXE=1, and without it must be clear in all of them.
    user_page, read_only, any_xd, any_ac = 1, 31, 32, 2
    by_user = user_page * read_only * any_xd * any_ac
    by_supervisor = 31 * read_only * any_xd * any_ac
    by_supervisor_with_ac = user_page * read_only * any_xd
    by_user_without_nxe = user_page * read_only * any_ac
    denied = by_user + by_supervisor + by_supervisor_with_ac + by_user_without_nxe
    denied *= 2  # writes and pushes
    *_, section, witnesses, accesses, engine, version = lines["a write to a read-only page"]
    assert (section, witnesses, accesses, engine) == ("4.6.1", "one", f"{denied:,}", "tcg")
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert lines["the address is not canonical"][-4:] == ["none", "in", "mode", "5"]
