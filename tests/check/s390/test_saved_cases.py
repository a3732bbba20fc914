"""Disagreements about s390: saved as files, held against their form, and asked again."""

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
from harness.check.s390 import validate, witnesses
from harness.check.s390.matrix.chain import Control
from harness.check.s390.matrix.verdicts import Expected, expected
from harness.check.s390.replay import MatrixCase, saved
from harness.check.tables import TABLE_BYTES
from harness.check.validation import SpaceReport
from harness.machine.errors import Misuse
from harness.paging.s390.access import Access, Kind
from harness.paging.s390.bulk import Outcomes, outcomes
from harness.paging.s390.cpu import AddressSpace
from tests.check.s390.samples import planned, sampled, tried
from tests.check.saved_cases import (
    agrees_now,
    agrees_on_every_engine,
    changed,
    kept,
    no_engine_answers,
    refused,
    refuses_other_types,
)
from tests.machine.s390.present import QEMU, why_absent

SMALLEST = load(next(path for path in shipped("s390") if path.stem == "smallest"))

ASKED = Access(Kind.WRITE, True, AddressSpace.SECONDARY)


def of_layout(**different: Any) -> LayoutCase:
    made = LayoutCase(
        arch="s390",
        layout=SMALLEST.name,
        text=SMALLEST.text,
        levels=3,
        engine="tcg",
        qemu="7.2.22",
        oracle="probe",
        address=0x40_0000,
        access=ASKED,
        expected="reaches 0x3000000",
        observed="not made",
    )
    return replace(made, **different)


def of_matrix(**different: Any) -> MatrixCase:
    made = MatrixCase(
        mode="segment",
        control=Control(private=True, quarters=2),
        values="family=entry mode=segment",
        words=(0x280_0200, 0x200_0000),
        address=0x4520_1000,
        access="write",
        user=True,
        engine="tcg",
        qemu="7.2.22",
        expected="code 0x4",
        observed="made",
    )
    return replace(made, **different)


FETCH = Access(Kind.FETCH, False, AddressSpace.HOME)


@pytest.mark.parametrize(
    "case",
    [
        of_layout(),
        of_layout(oracle=TABLE_BYTES, access=None, address=0x200_0000),
        of_layout(access=FETCH, address=0x1002),
        of_matrix(),
        of_matrix(access="fetch", address=0x1012),
    ],
    ids=["probe", "table bytes", "fetch", "matrix", "matrix, a fetch"],
)
def test_a_case_is_read_as_it_was_saved(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    path = case.save(tmp_path)
    assert saved(path) == case
    assert (files.arch_in(path), files.saved(path)) == ("s390", case)


@pytest.mark.parametrize("case", [of_layout(), of_matrix()], ids=["layout", "matrix"])
def test_a_value_of_another_type_is_refused(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    refuses_other_types(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "place", "value", "sentence"),
    [
        (of_layout(), ("levels",), 1, "levels is 1, and no mode has so many"),
        (of_layout(), ("oracle",), "memsave", "oracle is 'memsave': it is probe or table bytes"),
        (of_layout(), ("access",), None, "an access goes with the oracle probe"),
        (of_layout(), ("access", "kind"), "lr", "access.kind is 'lr'; it is one of read, write"),
        (of_layout(), ("access", "space"), 3, "access.space is 3; of a write it is 2"),
        (of_layout(), ("address",), "0x1004", "which this access cannot have"),
        (of_layout(), ("address",), "0x10000000000000000", "which this access cannot have"),
        (of_matrix(), ("mode",), "page", "mode is 'page'; it is one of segment, region-third"),
        (of_matrix(), ("mode",), "region-third", "words are 2, and region-third has 3"),
        (of_matrix(), ("words", 0), "-1", "words: what is there is no number of 64 bits"),
        (of_matrix(), ("address",), "0x1001", "which this access cannot have"),
        (of_matrix(), ("access",), "jump", "access is 'jump'; it is one of read, write"),
        (of_matrix(), ("control", "quarters"), 5, "control.quarters is 5; it is 1 to 4"),
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


def all_reads(*asked: Any) -> Outcomes:
    """The rules of a reference that takes every access for a read."""
    cpu, memory, address, kind, space = asked
    return outcomes(cpu, memory, address, np.zeros_like(kind), space)


def without_changes(*asked: Any) -> Expected:
    """What a reference expects that notes no change."""
    made = expected(*asked)
    found = replace(made.found, changes=np.zeros_like(made.found.changes))
    return replace(made, found=found)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_a_disagreement_about_a_layout_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.s390.probes.outcomes", all_reads)
        space = validate.validate(SMALLEST, 3, program=QEMU)
        case = witnesses.case_of(space, space.disagreements[0])
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
    root = Disagreement(TABLE_BYTES, 0x200_3FF8, None, "0x20, as it was written", "0x1")
    assert witnesses.replayed(witnesses.case_of(space, root), QEMU).compared == 1
    nowhere = replace(witnesses.case_of(space, root), address=0x280_0000)
    with pytest.raises(Misuse, match="cannot be replayed: the layout has nothing there"):
        witnesses.replayed(nowhere, QEMU)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_a_disagreement_of_the_matrix_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.s390.matrix.run.expected", without_changes)
        case = tried(sampled(planned("segment"), 997)).failures[0]
        assert isinstance(case, MatrixCase)
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.s390.replay.expected", without_changes)
        found = witnesses.replayed(case, QEMU)
        assert found.disagreed == 1 and found.disagreements[0].expected == case.expected
    agrees_now(case, QEMU, tmp_path)


@pytest.mark.hw
@pytest.mark.usefixtures("machine")
def test_a_case_that_the_processor_cannot_be_asked_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Control, "lacks", lambda *_: "the processor has no such thing")
    with pytest.raises(Misuse, match="cannot be replayed: the processor has no such thing"):
        witnesses.replayed(of_matrix(), QEMU)


def test_without_an_emulator_no_engine_answers() -> None:
    no_engine_answers(witnesses, of_matrix())
