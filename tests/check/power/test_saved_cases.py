"""Disagreements about POWER: saved as files, held against their form, and asked again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.check import replay as files
from harness.check.layouts import load, shipped
from harness.check.power import validate, witnesses
from harness.check.power.matrix.chain import Control
from harness.check.power.matrix.judged import Expected, expected
from harness.check.power.replay import MatrixCase, saved
from harness.check.replay import LayoutCase
from harness.check.tables import TABLE_BYTES
from harness.machine.errors import Misuse
from harness.paging.power.access import Access, Kind
from harness.paging.power.bulk import Outcomes, outcomes
from tests.check.power.samples import planned, sampled, tried
from tests.check.saved_cases import (
    agrees_now,
    agrees_on_every_engine,
    changed,
    kept,
    refused,
    refuses_other_types,
)
from tests.machine.power.present import QEMU, why_absent

TABLES = (0x42_0000, 0x42_1000, 0x42_2000)

SMALLEST = load(next(path for path in shipped("power") if path.stem == "smallest"))


def of_layout(**changed: Any) -> LayoutCase:
    made = LayoutCase(
        arch="power",
        layout=SMALLEST.name,
        text=SMALLEST.text,
        levels=4,
        engine="tcg",
        qemu="7.2.22",
        oracle="probe",
        address=0x40_0000,
        access=Access(Kind.WRITE, user=True),
        expected="reaches 0x3000000",
        observed="not made",
    )
    return replace(made, **changed)


def of_matrix(**changed: Any) -> MatrixCase:
    made = MatrixCase(
        mode="4k",
        quadrant=0,
        control=Control(amr=2, iamr=1),
        values="family=entry mode=4k",
        words=(
            0xC000_0000_0300_0187,
            1 << 63 | 0x42_0009,
            1 << 63 | 0x42_1009,
            1 << 63 | 0x42_2009,
        ),
        address=0x100_0300_0000,
        access="write",
        user=False,
        engine="tcg",
        qemu="7.2.22",
        expected="data storage interrupt",
        observed="made",
    )
    return replace(made, **changed)


@pytest.mark.parametrize(
    "case",
    [
        of_layout(),
        of_layout(oracle=TABLE_BYTES, access=None, address=0x200_0000),
        of_layout(access=Access(Kind.FETCH, user=False), address=0x40_0004),
        of_matrix(),
        of_matrix(access="fetch", user=True, quadrant=3, control=Control(tree="RTS^61")),
    ],
    ids=["probe", "table bytes", "fetch", "matrix", "matrix, another tree"],
)
def test_a_case_is_read_as_it_was_saved(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    path = case.save(tmp_path)
    assert saved(path) == case
    assert (files.arch_in(path), files.saved(path)) == ("power", case)


@pytest.mark.parametrize("case", [of_layout(), of_matrix()], ids=["layout", "matrix"])
def test_a_value_of_another_type_is_refused(case: LayoutCase | MatrixCase, tmp_path: Path) -> None:
    refuses_other_types(case, tmp_path)


@pytest.mark.parametrize(
    ("case", "place", "value", "sentence"),
    [
        (of_layout(), ("levels",), 3, "levels is 3, and no mode has so many"),
        (of_layout(), ("oracle",), "gva2gpa", "oracle is 'gva2gpa': it is probe or table bytes"),
        (of_layout(), ("access",), None, "an access goes with the oracle probe"),
        (of_layout(), ("access", "kind"), "lr", "access.kind is 'lr'; it is one of read, write"),
        (of_layout(), ("address",), "0x400004", "which this access cannot have"),
        (of_layout(), ("address",), "0x4000000000000000", "translated in two stages"),
        (of_matrix(), ("mode",), "16k", "mode is '16k'; it is one of 4k, 64k"),
        (of_matrix(), ("quadrant",), 2, "quadrant is 2; it is one of 0, 3"),
        (of_matrix(), ("words",), ["0x1"], "words are 1, and a path has 4"),
        (of_matrix(), ("words", 0), "-1", "words: what is there is no number of 64 bits"),
        (of_matrix(), ("access",), "jump", "access is 'jump'; it is one of read, write"),
        (of_matrix(), ("control", "amr"), 4, "control.amr is 4"),
        (of_matrix(), ("control", "iamr"), 2, "control.iamr is 2"),
        (of_matrix(), ("control", "tree"), "ash", "control.tree is 'ash'"),
        (of_matrix(quadrant=3), ("control", "tree"), "none", "always has a process 0"),
        (of_matrix(), ("address",), "0x10000000000000000", "which this access cannot have"),
    ],
)
def test_what_no_processor_can_be_asked_is_a_sentence(
    case: LayoutCase | MatrixCase, place: tuple[Any, ...], value: Any, sentence: str, tmp_path: Path
) -> None:
    assert sentence in refused(changed(kept(case, tmp_path), place, value), tmp_path)


# ---- on the machine ----


def without_user(cpu: Any, memory: Any, addresses: Any, kind: Any, user: Any) -> Outcomes:
    """The rules of a reference that takes everybody for the user."""
    return outcomes(cpu, memory, addresses, kind, np.ones_like(user))


def by_nobody(*asked: Any) -> Expected:
    """What a reference expects that lets nobody read what may be written."""
    found = expected(*asked)
    status = np.where(found.found.status == 1 << 27, 1 << 26, found.found.status)
    return replace(found, found=replace(found.found, status=status.astype(np.uint32)))


@pytest.mark.hw
def test_a_disagreement_about_a_layout_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.power.probes.outcomes", without_user)
        space = validate.validate(SMALLEST, 4, program=QEMU)
        case = witnesses.case_of(space, space.disagreements[0])
        found = witnesses.replayed(case, QEMU)
        assert found.disagreed >= 1
        assert found.disagreements[0].access == case.access
    assert str(case.access) in agrees_now(case, QEMU, tmp_path)
    agrees_on_every_engine(case, QEMU, tmp_path)


@pytest.mark.hw
def test_tables_that_are_not_as_they_were_written_are_asked_again() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    case = of_layout(oracle=TABLE_BYTES, access=None, address=0x200_0000)
    assert witnesses.replayed(case, QEMU).compared == 1
    with pytest.raises(Misuse, match="cannot be replayed: the layout has nothing there"):
        witnesses.replayed(replace(case, address=0x2F0_0000), QEMU)


@pytest.mark.hw
def test_a_disagreement_of_the_matrix_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with monkeypatch.context() as wrong:
        wrong.setattr("harness.check.power.matrix.run.expected", by_nobody)
        wrong.setattr("harness.check.power.replay.expected", by_nobody)
        case = tried(sampled(planned("4k"), 331)).failures[0]
        assert isinstance(case, MatrixCase)
        found = witnesses.replayed(case, QEMU)
        assert found.disagreed == 1 and found.disagreements[0].expected == case.expected
    agrees_now(case, QEMU, tmp_path)
