"""The question of one case, asked of every engine that can run here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest
from pytest import MonkeyPatch

from harness.check import matrix, witnesses
from harness.check.matrix import Report
from harness.check.matrix_case import MatrixCase
from harness.check.rig import guest_of
from harness.check.stage import Model
from harness.check.witnesses import Engines, answers, engines
from harness.machine.engines import called, executor
from harness.machine.registry import ENGINES
from tests.check.plants import W_ERROR, error_bits
from tests.cli.commands import run

PROGRAMS = {
    "QEMU": os.environ.get("QEMU", "qemu-system-x86_64"),
    "Bochs": os.environ.get("BOCHS", "bochs"),
}
WHERE = "family=rights and access=write and by=user and level1.RW=1"

pytestmark = pytest.mark.hw


@pytest.fixture(scope="module")
def case() -> MatrixCase:
    """A write that is denied, and that the reference with a fault in it takes for a read."""
    with guest_of("tcg", Model("32").guest, PROGRAMS["QEMU"]) as guest:
        some = matrix.plan("quick", ["32"], "tcg", guest.info, WHERE, executor=executor(guest))
        who = called(*executor(guest))
    report = Report("tcg")
    with MonkeyPatch.context() as patch:
        error_bits(cleared=W_ERROR)(patch)
        for part in matrix.run(some, program=PROGRAMS["QEMU"]):
            report.add(part)
    assert report.executor == who
    assert sum(report.disagreed.values()) == report.comparison.disagreed > 0
    return report.failures[0]


@pytest.fixture(scope="module")
def here() -> Engines:
    return engines(PROGRAMS)


@pytest.fixture
def emulated(here: Engines, monkeypatch: MonkeyPatch) -> Engines:
    """Without KVM, which takes seconds where it interprets its guests."""
    few = {name: engine for name, engine in ENGINES.items() if not engine.by_kernel}
    monkeypatch.setattr(witnesses, "ENGINES", few)
    able = {name: one for name, one in here.able.items() if name in few}
    return Engines(able, {name: why for name, why in here.unable.items() if name in few})


def test_every_engine_is_asked_and_those_that_cannot_run_say_why(
    case: MatrixCase, here: Engines
) -> None:
    found = {one.engine: one for one in answers(case, here)}
    assert set(found) == set(ENGINES)
    for name, one in here.able.items():
        assert found[name].executor == one.executor
        if found[name].agrees is None:
            assert one.executor.startswith("kvm")
            assert "runs guests in long mode only" in found[name].said
        else:
            assert (found[name].agrees, found[name].said) == (True, "as expected")
    for name, reason in here.unable.items():
        assert (found[name].agrees, found[name].said) == (None, f"it cannot run here: {reason}")


def test_an_engine_that_has_no_such_processor_says_so(case: MatrixCase, emulated: Engines) -> None:
    other = replace(case, model=replace(case.model, maxphyaddr=46))
    if "bochs" not in emulated.able:
        pytest.skip(f"bochs cannot run here: {emulated.unable['bochs']}")
    (bochs,) = [one for one in answers(other, emulated) if one.engine == "bochs"]
    assert (bochs.agrees, bochs.said) == (
        None,
        "the case cannot be replayed: bochs has no processor as that of the case, mode=32"
        " maxphyaddr=46 pse36=1 PSE=0",
    )


@pytest.mark.parametrize("planted", [False, True], ids=["sound", "planted"])
def test_the_command_asks_all_of_them(
    case: MatrixCase, emulated: Engines, planted: bool, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    if planted:
        error_bits(cleared=W_ERROR)(monkeypatch)
    path = case.save(tmp_path)
    code, out, errors = run("replay", "--engine", "all", path, cwd=tmp_path)
    assert (code, errors) == (int(planted), "")
    for one in emulated.able.values():
        (line,) = [line for line in out.splitlines() if line.startswith(f"  on {one.executor} ")]
        assert line.endswith("as expected") != planted
        assert ("#PF" in line) == planted


def test_the_command_asks_the_one_that_is_named(
    case: MatrixCase, emulated: Engines, tmp_path: Path
) -> None:
    path = case.save(tmp_path)
    code, _, errors = run("replay", "--engine", "no-such", path, cwd=tmp_path)
    assert (code, "there is no engine 'no-such'" in errors) == (2, True)
    code, out, errors = run("replay", "--engine", "bochs", path, cwd=tmp_path)
    if "bochs" in emulated.able:
        assert (code, "They agree now." in out) == (0, True)
    else:
        assert code == 2


def test_the_matrix_prints_all_of_their_answers(
    emulated: Engines, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    error_bits(cleared=W_ERROR)(monkeypatch)
    asked = ("matrix", "--engine", "tcg", "--mode", "32", "--where", WHERE, "--jobs", 1)
    code, out, _ = run(*asked, cwd=tmp_path)
    assert code == 1
    for one in emulated.able.values():
        assert out.count(f"  on {one.executor} ") == out.count("  replay    pagetable replay") > 0
