"""Disagreements about arm64: saved as files, held against their form, and asked again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.check import replay as files
from harness.check.arm64 import validate, witnesses
from harness.check.arm64.at import AT
from harness.check.arm64.cases import Stated
from harness.check.arm64.matrix.chain import Chain
from harness.check.arm64.matrix.families import lanes
from harness.check.arm64.matrix.judged import Expected, expected
from harness.check.arm64.matrix.setting import Control
from harness.check.arm64.quirks import judged_of
from harness.check.arm64.replay import MatrixCase, saved
from harness.check.compare import Disagreement
from harness.check.layouts import load, shipped
from harness.check.replay import LayoutCase
from harness.check.tables import TABLE_BYTES
from harness.check.translations import GVA2GPA
from harness.check.validation import SpaceReport
from harness.machine.arm64.guest import Guest
from harness.machine.errors import Misuse
from harness.paging.arm64.access import Kind
from harness.paging.arm64.bulk import Outcomes, outcomes
from tests.check.arm64.samples import planned, sampled, tried
from tests.check.saved_cases import (
    agrees_now,
    agrees_on_every_engine,
    changed,
    kept,
    no_engine_answers,
    refused,
    refuses_other_types,
)
from tests.cli.commands import run
from tests.machine.arm64.present import QEMU, why_absent

SMALLEST = load(next(path for path in shipped("arm64") if path.stem == "smallest"))

ASKED = Stated(Kind.LDTR, el0=False, pan=True, uao=True)


def of_layout(**different: Any) -> LayoutCase:
    made = LayoutCase(
        arch="arm64",
        layout=SMALLEST.name,
        text=SMALLEST.text,
        levels=3,
        engine="tcg",
        qemu="7.2.22",
        oracle="probe",
        address=0x1000,
        access=ASKED,
        expected="ESR 0x9600000f",
        observed="made",
    )
    return replace(made, **different)


def of_matrix(**different: Any) -> MatrixCase:
    made = MatrixCase(
        mode="64k",
        bits=42,
        control=Control(wxn=True),
        values="family=leaf mode=64k",
        words=(0x4500_0443, 0x4400_0003),
        address=0x200_4500_0000,
        access="swap",
        el0=True,
        pan=False,
        uao=False,
        engine="tcg",
        qemu="7.2.22",
        expected="ESR 0x92000004",
        observed="made",
    )
    return replace(made, **different)


READ = Stated(Kind.READ, el0=True)


@pytest.mark.parametrize(
    "case",
    [
        of_layout(),
        of_layout(oracle=AT, access=READ),
        of_layout(oracle=TABLE_BYTES, access=None, address=0x4200_0000),
        of_layout(oracle=GVA2GPA, access=None, address=0x1008),
        of_layout(access=replace(ASKED, kind=Kind.FETCH), address=0x1004),
        of_matrix(),
        of_matrix(access="fetch", control=Control(beyond=47, high=True, ips=32)),
        of_matrix(words=(0, (1 << 64) - 1), address=(1 << 64) - 8),
        of_matrix(words=(1, 0), address=0, size=4),
        of_matrix(address=4, size=4),
        of_matrix(access="fetch", address=12, size=4),
    ],
    ids=[
        *("probe", "AT", "table bytes", "gva2gpa", "fetch", "matrix", "matrix, a root beyond"),
        *("matrix, the last word", "matrix, the first half word", "matrix, the second half word"),
        "matrix, a fetch says no size",
    ],
)
def test_a_case_is_read_as_it_was_saved(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    path = case.save(tmp_path)
    assert saved(path) == case
    assert (files.arch_in(path), files.saved(path)) == ("arm64", case)


@pytest.mark.parametrize("case", [of_layout(), of_matrix()], ids=["layout", "matrix"])
def test_a_value_of_another_type_is_refused(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    refuses_other_types(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "place", "value", "sentence"),
    [
        (of_layout(), ("arch",), "riscv", "object contains unknown field el0"),
        (of_layout(), ("levels",), 1, "levels is 1, and no mode has so many"),
        (of_layout(), ("oracle",), "memsave", "oracle is 'memsave': it is probe, AT in the guest"),
        (of_layout(), ("access",), None, "an access goes with the oracle probe or AT in the guest"),
        (of_layout(), ("access", "kind"), "lr", "access.kind is 'lr'; it is one of read, write"),
        (of_layout(), ("address",), "0x1004", "which this access cannot have"),
        (of_layout(), ("address",), "0x10000000000000000", "which this access cannot have"),
        (of_layout(), ("oracle",), AT, "AT is not asked about ldtr"),
        (
            of_layout(oracle=AT, access=READ),
            ("access", "pan"),
            True,
            "AT has no PAN for EL0",
        ),
        (of_matrix(), ("mode",), "8k", "mode is '8k'; it is one of 4k, 4k-52"),
        (of_matrix(), ("bits",), 53, "bits is 53; 64k has 17 to 52"),
        (of_matrix(), ("bits",), 43, "words are 2, and 43 bits have 3"),
        (of_matrix(), ("words", 0), "-1", "words: what is there is no number of 64 bits"),
        (of_matrix(), ("address",), "0x10000000000000000", "address: what is there is no number"),
        (of_matrix(), ("address",), "0x1001", "which this access cannot have"),
        (of_matrix(size=4), ("address",), "0x1005", "0x1005, whose data is in two words"),
        (of_matrix(size=4), ("address",), "0x10000000000000000", "address: what is there is no"),
        (of_matrix(), ("size",), 2, "size is 2; data has 4 or 8 bytes"),
        (of_matrix(access="fetch"), ("address",), "0x1002", "which this access cannot have"),
        (
            of_matrix(access="fetch", size=4),
            ("address",),
            "0x1002",
            "which this access cannot have",
        ),
        (of_matrix(), ("address",), "-0x8", "address: what is there is no number"),
        (of_layout(), ("address",), "-0x8", "which this access cannot have"),
        (of_matrix(), ("words", 1), "0x10000000000000000", "words: what is there is no number"),
        (of_matrix(), ("bits",), 16, "bits is 16; 64k has 17 to 52"),
        (of_matrix(), ("control", "beyond"), 52, "control.beyond is 52, and memory may be there"),
        (of_matrix(), ("access",), "jump", "access is 'jump'; it is one of read, write"),
        (of_matrix(), ("control", "ips"), 47, "control.ips is 47, which IPS cannot say"),
        (of_matrix(), ("control", "beyond"), 38, "control.beyond is 38, and memory may be there"),
        (of_matrix(), ("control", "beside"), "8K", "control.beside is '8K': choose one of 4K"),
        (of_matrix(), ("version",), 2, "a later pagetable wrote it"),
    ],
)
def test_what_no_processor_can_be_asked_is_a_sentence(
    case: LayoutCase | MatrixCase, place: tuple[Any, ...], value: Any, sentence: str, tmp_path: Path
) -> None:
    assert sentence in refused(changed(kept(case, tmp_path), place, value), tmp_path)


# ---- on the machine ----


@pytest.fixture
def machine() -> None:
    if reason := why_absent():
        pytest.skip(reason)


def as_el0(*asked: Any, **flags: Any) -> Outcomes:
    """The rules of a reference that takes every access for one of EL0."""
    cpu, memory, address, kind, el0 = asked
    return outcomes(cpu, memory, address, kind, np.ones_like(el0), **flags)


def without_marks(*asked: Any, **named: Any) -> Expected:
    """What a reference expects that changes no descriptor."""
    made = expected(*asked, **named)
    found = replace(made.found, changes=np.zeros_like(made.found.changes))
    return replace(made, found=found)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("oracle", ["probe", AT])
def test_a_disagreement_about_a_layout_is_asked_again(
    oracle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.arm64.probes.outcomes", as_el0)
        space = validate.validate(SMALLEST, 3, program=QEMU)
        case = witnesses.case_of(
            space, next(one for one in space.disagreements if one.oracle == oracle)
        )
        found = witnesses.replayed(case, QEMU)
        assert found.disagreed == 1
        assert found.disagreements[0].access == case.access
        assert found.disagreements[0].expected == case.expected
    assert str(case.access) in agrees_now(case, QEMU, tmp_path)
    agrees_on_every_engine(case, QEMU, tmp_path)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_tables_that_are_not_as_they_were_written_are_asked_again() -> None:
    space = SpaceReport(SMALLEST, 3, "tcg", "7.2.22", None, (), 0.0)
    root = Disagreement(TABLE_BYTES, 0x4200_0008, None, "0x0, as it was written", "0x1")
    assert witnesses.replayed(witnesses.case_of(space, root), QEMU).compared == 1
    nowhere = replace(witnesses.case_of(space, root), address=0x4300_0000)
    with pytest.raises(Misuse, match="cannot be replayed: the layout has nothing there"):
        witnesses.replayed(nowhere, QEMU)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_a_translation_of_the_monitor_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.arm64.debugger.TRANSLATED", [])
        space = validate.validate(SMALLEST, 3, program=QEMU)
        case = witnesses.case_of(space, space.disagreements[0])
        assert (case.oracle, case.expected) == (GVA2GPA, "unmapped")
        [found] = witnesses.replayed(case, QEMU).disagreements
        assert (found.expected, found.observed) == (case.expected, case.observed)
    now = witnesses.replayed(case, QEMU)
    assert (now.compared, now.disagreed) == (1, 0)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_a_disagreement_of_the_matrix_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.arm64.matrix.run.expected", without_marks)
        case = tried(sampled(planned("4k"), 997)).failures[0]
        assert isinstance(case, MatrixCase)
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.arm64.replay.expected", without_marks)
        found = witnesses.replayed(case, QEMU)
        assert found.disagreed == 1 and found.disagreements[0].expected == case.expected
    agrees_now(case, QEMU, tmp_path)
    agrees_on_every_engine(case, QEMU, tmp_path)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_a_quirk_that_shows_is_said_and_agrees() -> None:
    with Guest(program=QEMU) as running:
        version = running.version
        for work in sampled(planned("4k"), 31, ("leaf",)).work:
            setting, control = work.family.setting, work.control
            chain = Chain(running, setting)
            cpu, made = chain.cpu(control), lanes(work.family, chain, control, work.numbers)
            rules = expected(setting, control, cpu, made)
            for quirk in judged_of("tcg", version):
                departs = rules.differs(expected(setting, control, cpu, made, [quirk]))
                if departs.any():
                    said = {"engine": "tcg", "qemu": "", "expected": "", "observed": ""}
                    lane = int(np.flatnonzero(departs)[0])
                    case = MatrixCase.of(setting, control, made, lane, values="", **said)
                    found = witnesses.replayed(case, QEMU)
                    assert (found.disagreed, found.compared) == (0, 1)
                    assert quirk.name in found.quirks
                    return
    pytest.fail("no quirk shows")


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_a_case_that_the_processor_cannot_be_asked_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Control, "lacks", lambda *_: "the processor has no such thing")
    with pytest.raises(Misuse, match="cannot be replayed: the processor has no such thing"):
        witnesses.replayed(of_matrix(), QEMU)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--engine", "bochs"), "bochs runs no arm64: choose tcg"),
        (("--bochs", "bochs"), "--bochs has no use: QEMU alone runs arm64"),
        (("--qemu", "no-qemu"), "no-qemu"),
    ],
)
def test_an_engine_that_runs_no_arm64_is_a_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    code, output, errors = run("replay", of_layout().save(tmp_path), *arguments, cwd=tmp_path)
    assert (code, output) == (2, "") and sentence in errors and errors.count("\n") == 1


def test_without_an_emulator_no_engine_answers() -> None:
    no_engine_answers(witnesses, of_matrix())
