"""Disagreements about RISC-V: saved as files, held against their form, and asked again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.check import replay as files
from harness.check.compare import Disagreement
from harness.check.layouts import load, shipped
from harness.check.replay import LayoutCase
from harness.check.riscv import validate, witnesses
from harness.check.riscv.cases import Stated
from harness.check.riscv.matrix.chain import Chain
from harness.check.riscv.matrix.families import lanes
from harness.check.riscv.matrix.hart import Control
from harness.check.riscv.matrix.judged import Expected, expected
from harness.check.riscv.quirks import judged_of
from harness.check.riscv.replay import MatrixCase, saved
from harness.check.tables import TABLE_BYTES
from harness.check.validation import SpaceReport
from harness.machine.errors import Misuse
from harness.machine.riscv.guest import Guest
from harness.paging.riscv.access import Kind
from harness.paging.riscv.bulk import Outcomes, outcomes
from tests.check.riscv.guests import planned, sampled, tried
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
from tests.machine.riscv.present import QEMU, program, why_absent

SMALLEST = load(next(path for path in shipped("riscv") if path.stem == "smallest"))

ASKED = Stated(Kind.AMO, user=True, sum=False, mxr=True, mprv=True)


def of_layout(**changed: Any) -> LayoutCase:
    made = LayoutCase(
        arch="riscv",
        layout=SMALLEST.name,
        text=SMALLEST.text,
        levels=3,
        engine="tcg",
        qemu="7.2.22",
        oracle="probe",
        address=0x1000,
        access=ASKED,
        expected="cause 15",
        observed="made",
    )
    return replace(made, **changed)


def of_matrix(**changed: Any) -> MatrixCase:
    made = MatrixCase(
        mode="sv39",
        processor="",
        control=Control(adue=False, pbmte=True),
        values="family=rights mode=sv39",
        words=(0x21000CDF, 0x20100401, 0x20100801),
        missing=255,
        address=0x2A_8400_0000,
        access="read",
        user=True,
        sum=False,
        mxr=False,
        mprv=False,
        engine="tcg",
        qemu="7.2.22",
        expected="cause 13",
        observed="made",
    )
    return replace(made, **changed)


@pytest.mark.parametrize(
    "case",
    [
        of_layout(),
        of_layout(oracle=TABLE_BYTES, access=None, address=0x8200_0000),
        of_layout(levels=2, access=replace(ASKED, kind=Kind.FETCH, mprv=False)),
        of_matrix(),
        of_matrix(access="fetch", missing=1, control=Control(pmm_s=2)),
        of_matrix(address=0x2A_8400_0008),
        of_matrix(mode="sv32", words=(0x21000CDF, 0x20100401), address=0x8400_0004),
        of_matrix(access="fetch", address=0x2A_8400_0002),
    ],
    ids=[
        *("probe", "table bytes", "sv32", "matrix", "matrix, a table missing"),
        *("a word of 64 bits", "a word of 32 bits", "compressed code"),
    ],
)
def test_a_case_is_read_as_it_was_saved(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    path = case.save(tmp_path)
    assert saved(path) == case
    assert (files.arch_in(path), files.saved(path)) == ("riscv", case)


@pytest.mark.parametrize("case", [of_layout(), of_matrix()], ids=["layout", "matrix"])
def test_a_value_of_another_type_is_refused(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    refuses_other_types(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "place", "value", "sentence"),
    [
        (of_layout(), ("arch",), "mips", "arch is 'mips', of which none can be asked again"),
        (of_layout(), ("arch",), "x86", "object contains unknown field arch"),
        (of_layout(), ("levels",), 1, "levels is 1, and no mode has so many"),
        (of_layout(), ("oracle",), "gva2gpa", "oracle is 'gva2gpa': it is probe or table bytes"),
        (of_layout(), ("access",), None, "an access goes with the oracle probe"),
        (of_layout(), ("access", "kind"), "lr", "access.kind is 'lr'; it is one of read, write"),
        (of_layout(levels=2), ("address",), "0x100000000", "which the mode does not have"),
        (of_matrix(), ("mode",), "sv64", "mode is 'sv64'; it is one of sv32, sv39"),
        (of_matrix(), ("mode",), "sv48", "words are 3, and sv48 has 4 levels"),
        (of_matrix(), ("words", 0), "-1", "words: what is there is no number of 64 bits"),
        (of_matrix(), ("address",), "0x10000000000000000", "address: what is there is no number"),
        (of_matrix(), ("address",), "0x1004", "which this access cannot have"),
        (of_matrix(), ("missing",), 3, "missing is 3, which is no level, nor 255"),
        (of_matrix(), ("access",), "jump", "access is 'jump'; it is one of read, write"),
        (of_matrix(), ("control", "pmm_u"), 1, "control.pmm_u is 1"),
        (of_layout(), ("access", "kind"), "fetch", "a fetch is not made by MPRV"),
        (of_layout(), ("address",), "0x1004", "which this access cannot have"),
        (
            of_layout(access=replace(ASKED, kind=Kind.FETCH, mprv=False)),
            ("address",),
            "0x1001",
            "which this access cannot have",
        ),
        (of_matrix(), ("processor",), "rv64\0", "processor has a character that no name has"),
        (of_matrix(access="fetch"), ("mprv",), True, "a fetch is not made by MPRV"),
        (of_matrix(), ("version",), 2, "a later pagetable wrote it"),
    ],
)
def test_what_no_hart_can_be_asked_is_a_sentence(
    case: LayoutCase | MatrixCase, place: tuple[Any, ...], value: Any, sentence: str, tmp_path: Path
) -> None:
    assert sentence in refused(changed(kept(case, tmp_path), place, value), tmp_path)


# ---- on the machine ----


def outcomes_without_user(*args: Any, **named: Any) -> Outcomes:
    """The rules of a reference that lets the supervisor do what the user may."""
    cpu, memory, addresses, kind, user, *rest = args
    return outcomes(cpu, memory, addresses, kind, np.ones_like(user), *rest, **named)


def expected_without_marks(*args: Any, **named: Any) -> Expected:
    """What a reference expects that sets neither A nor D."""
    found = expected(*args, **named)
    return replace(found, sets=np.zeros_like(found.sets), free=np.zeros_like(found.free))


@pytest.mark.hw
@pytest.mark.parametrize("levels", [2, 3])
def test_a_disagreement_about_a_layout_is_asked_again(
    levels: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent(32 if levels == 2 else 64):
        pytest.skip(reason)
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.riscv.probes.outcomes", outcomes_without_user)
        space = validate.validate(SMALLEST, levels, program=QEMU)
        case = witnesses.case_of(space, space.disagreements[0])
        found = witnesses.replayed(case, QEMU)
        assert found.disagreed == 1
        assert found.disagreements[0].access == case.access
        assert found.disagreements[0].expected == case.expected
    assert str(case.access) in agrees_now(case, QEMU, tmp_path)
    agrees_on_every_engine(case, QEMU, tmp_path)


@pytest.mark.hw
def test_tables_that_are_not_as_they_were_written_are_asked_again(tmp_path: Path) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    space = SpaceReport(SMALLEST, 3, "tcg", "7.2.22", None, (), 0.0)
    root = Disagreement(TABLE_BYTES, 0x8200_0008, None, "0x0, as it was written", "0x1")
    assert witnesses.replayed(witnesses.case_of(space, root), QEMU).compared == 1
    nowhere = replace(witnesses.case_of(space, root), address=0x8300_0000)
    with pytest.raises(Misuse, match="cannot be replayed: the layout has nothing there"):
        witnesses.replayed(nowhere, QEMU)


@pytest.mark.hw
def test_a_disagreement_of_the_matrix_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.riscv.matrix.run.expected", expected_without_marks)
        case = tried(sampled(planned("sv39"), 997)).failures[0]
        assert isinstance(case, MatrixCase)
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.riscv.replay.expected", expected_without_marks)
        found = witnesses.replayed(case, QEMU)
        assert found.disagreed == 1 and found.disagreements[0].expected == case.expected
    agrees_now(case, QEMU, tmp_path)


@pytest.mark.hw
def test_a_quirk_that_shows_is_said_and_agrees() -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    with Guest(64, program=program(64)) as running:
        version = running.version
        for work in planned("sv39").work:
            hart, chain = work.family.hart, Chain(running, work.family.hart.format)
            cpu, made = hart.cpu(work.control, chain.root), lanes(work.family, chain, work.numbers)
            rules = expected(hart, cpu, made)
            for quirk in judged_of("tcg", version):
                departs = np.flatnonzero(rules.differs(expected(hart, cpu, made, [quirk])))
                if len(departs) and not hart.processor:
                    said = {"engine": "tcg", "qemu": "", "expected": "", "observed": ""}
                    case = MatrixCase.of(
                        hart, work.control, made, int(departs[0]), values="", **said
                    )
                    found = witnesses.replayed(case, QEMU)
                    assert (found.disagreed, found.compared) == (0, 1)
                    assert quirk.name in found.quirks
                    return
    pytest.fail("no quirk shows")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--engine", "bochs"), "bochs runs no RISC-V: choose tcg"),
        (("--bochs", "bochs"), "--bochs has no use: QEMU alone runs riscv"),
        (("--qemu", "no-qemu"), "no-qemu"),
    ],
)
def test_an_engine_that_runs_no_riscv_is_a_sentence(
    arguments: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    code, output, errors = run("replay", of_layout().save(tmp_path), *arguments, cwd=tmp_path)
    assert (code, output) == (2, "") and sentence in errors and errors.count("\n") == 1


def test_without_an_emulator_no_engine_answers() -> None:
    no_engine_answers(witnesses, of_matrix())
