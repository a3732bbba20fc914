"""The question of one case, asked of every engine that can run here."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from pytest import MonkeyPatch

from harness.check.compare import PROBE, Answer
from harness.check.layouts import Layout, load, shipped
from harness.check.matrix import Report
from harness.check.translations import GVA2GPA
from harness.check.x86 import replay, witnesses
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.case import MatrixCase
from harness.check.x86.matrix.rig import guest_of
from harness.check.x86.matrix.stage import Model
from harness.check.x86.validate import guest_for
from harness.check.x86.witnesses import Host, ask_every, this_host
from harness.cli.matrix import planned
from harness.machine.errors import MachineError
from harness.machine.x86.engines import called, executor
from harness.machine.x86.guest import Guest
from harness.machine.x86.registry import ENGINES
from harness.paging.x86.access import Access, Kind
from tests.check.x86.plants import W_ERROR, error_bits
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
    (failure,) = report.failures[:1]
    assert isinstance(failure, MatrixCase)
    return failure


@pytest.fixture(scope="module")
def here() -> Host[Any]:
    return this_host(PROGRAMS)


@pytest.fixture
def emulated(here: Host[Any], monkeypatch: MonkeyPatch) -> Host[Any]:
    """Without KVM, which takes seconds where it interprets its guests."""
    few = {name: engine for name, engine in ENGINES.items() if not engine.by_kernel}
    monkeypatch.setattr(witnesses, "ENGINES", few)
    present = {name: one for name, one in here.present.items() if name in few}
    return Host(present, {name: why for name, why in here.absent.items() if name in few})


def test_every_engine_is_asked_and_those_that_cannot_run_say_why(
    case: MatrixCase, here: Host[Any]
) -> None:
    found = {one.engine: one for _, one in ask_every([case], here)}
    assert set(found) == set(ENGINES)
    for name, one in here.present.items():
        assert found[name].executor == one.called
        if found[name].agrees is None:
            assert one.called.startswith("kvm")
            assert "runs guests in long mode only" in found[name].said
        else:
            assert (found[name].agrees, found[name].said) == (True, "as expected")
    for name, reason in here.absent.items():
        assert (found[name].agrees, found[name].said) == (None, f"it cannot run here: {reason}")


def test_an_engine_that_has_no_such_processor_says_so(
    case: MatrixCase, emulated: Host[Any]
) -> None:
    other = replace(case, model=replace(case.model, maxphyaddr=46))
    if "bochs" not in emulated.present:
        pytest.skip(f"bochs cannot run here: {emulated.absent['bochs']}")
    (bochs,) = [one for _, one in ask_every([other], emulated) if one.engine == "bochs"]
    assert (bochs.agrees, bochs.said) == (
        None,
        "the case cannot be replayed: bochs cannot be the case's processor (mode=32"
        " maxphyaddr=46 pse36=1 PSE=0)",
    )


def test_an_engine_is_started_once_for_all_cases_of_a_processor(
    case: MatrixCase, emulated: Host[Any], monkeypatch: MonkeyPatch
) -> None:
    started = list[str]()

    def counted(name: str, *given: Any) -> Guest:
        started.append(name)
        return guest_of(name, *given)

    monkeypatch.setattr(witnesses, "guest_of", counted)
    wide = replace(case, model=replace(case.model, maxphyaddr=46))
    found = list(ask_every([case, wide, case, wide, case], emulated))
    names = list(emulated.present)
    assert [one.engine for _, one in found[: 5 * len(names)]] == [
        name for name in names for _ in range(5)
    ]
    expected = {"tcg": 2, "bochs": 1}
    assert Counter(started) == {name: expected[name] for name in names}
    for name in names:
        said = {number: one.said for number, one in found if one.engine == name}
        assert [said[number] for number in (0, 2, 4)] == ["as expected"] * 3
        assert (said[1] == said[3] == "as expected") == (name == "tcg")


def test_a_guest_is_kept_for_the_cases_of_a_layout_and_answers_as_new_ones_do(
    emulated: Host[Any], monkeypatch: MonkeyPatch
) -> None:
    layout = next(load(path) for path in shipped() if path.stem == "rights")
    asked = replay.Case(
        layout.name,
        layout.text,
        4,
        "tcg",
        "",
        PROBE,
        0xFFFF_A000_0020_0000,
        Access(Kind.READ, True),
        False,
        "",
        "",
    )
    fetch, write = (replace(asked, access=Access(kind, False)) for kind in (Kind.FETCH, Kind.WRITE))
    cases = [asked, fetch, write, fetch, replace(asked, levels=5), replace(write, address=0x1000)]
    cases.append(replace(asked, oracle=GVA2GPA, access=None))
    started = list[str]()

    def counted(layout: Layout, name: str, program: str | None) -> AbstractContextManager[Guest]:
        started.append(name)
        return guest_for(layout, name, program)

    monkeypatch.setattr(witnesses, "guest_for", counted)
    together = [one for one in ask_every(cases, emulated) if one[1].executor]
    assert Counter(started) == dict.fromkeys(emulated.present, 3)
    alone = [(n, found) for n, one in enumerate(cases) for _, found in ask_every([one], emulated)]
    assert {(n, one.engine): one for n, one in together} == {
        (n, one.engine): one for n, one in alone if one.executor
    }
    assert {one.said for n, one in together if n == 2} == {"as expected"}


@pytest.mark.parametrize("planted", [False, True], ids=["sound", "planted"])
def test_the_command_asks_all_of_them(
    case: MatrixCase, emulated: Host[Any], planted: bool, tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    if planted:
        error_bits(cleared=W_ERROR)(monkeypatch)
    path = case.save(tmp_path)
    code, out, errors = run("replay", "--engine", "all", path, cwd=tmp_path)
    assert (code, errors) == (int(planted), "")
    for one in emulated.present.values():
        (line,) = [line for line in out.splitlines() if line.startswith(f"  on {one.called} ")]
        assert line.endswith("as expected") != planted
        assert ("#PF" in line) == planted


def test_the_command_asks_the_one_that_is_named(
    case: MatrixCase, emulated: Host[Any], tmp_path: Path
) -> None:
    path = case.save(tmp_path)
    code, _, errors = run("replay", "--engine", "no-such", path, cwd=tmp_path)
    assert (code, "there is no engine 'no-such'" in errors) == (2, True)
    code, out, errors = run("replay", "--engine", "bochs", path, cwd=tmp_path)
    if "bochs" in emulated.present:
        assert (code, "They agree now." in out) == (0, True)
    else:
        assert code == 2


def test_the_matrix_prints_all_of_their_answers(
    emulated: Host[Any], tmp_path: Path, monkeypatch: MonkeyPatch
) -> None:
    error_bits(cleared=W_ERROR)(monkeypatch)
    asked = ("matrix", "--engine", "tcg", "--mode", "32", "--where", WHERE, "--jobs", 1)
    code, out, _ = run(*asked, cwd=tmp_path)
    assert code == 1
    for one in emulated.present.values():
        assert out.count(f"  on {one.called} ") == out.count("  replay    pagetable replay") > 0


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted."),
        (MachineError("planted"), 1, "not every engine was asked about the disagreements: planted"),
        (ValueError("planted"), 1, "not every engine was asked about the disagreements: this is a"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
@pytest.mark.parametrize("command", ["matrix", "matrix --json", "rules", "rules --json"])
def test_a_result_is_kept_and_printed_where_not_every_engine_can_be_asked(
    command: str,
    error: BaseException,
    code: int,
    sentence: str,
    tmp_path: Path,
    monkeypatch: MonkeyPatch,
) -> None:
    kept, report = tmp_path / "kept", "report.json" if command.startswith("matrix") else "*.json"

    def broken(cases: object, host: object) -> Iterator[tuple[int, Answer]]:
        (file,) = kept.glob(report)
        assert json.loads(file.read_text())["disagreements"] > 0
        yield 0, Answer("tcg", "tcg 7.2", True, "as expected")
        raise error

    def few(preset: str, mode: str, engine: str, program: str, *_: object) -> object:
        return planned(preset, mode, engine, program, WHERE)

    error_bits(cleared=W_ERROR)(monkeypatch)
    monkeypatch.setattr(witnesses, "ask_every", broken)
    monkeypatch.setattr(witnesses, "this_host", lambda programs: None)
    monkeypatch.setattr(import_module("harness.cli.rules"), "planned", few)
    name, *more = command.split()
    where = ("--where", WHERE, "--report", kept) if name == "matrix" else ("--results", kept)
    on = ("--engine", "tcg", "--qemu", PROGRAMS["QEMU"], "--mode", "32")
    ended, out, errors = run(name, *more, *on, *where, cwd=tmp_path)
    assert (ended, f"pagetable: {sentence}" in errors) == (code, True)
    if more:
        findings = json.loads(out)["findings" if name == "matrix" else "differing"]
        assert [one["said"] for one in findings[0]["answers"]] == ["as expected"]
    else:
        assert re.search(r"accesses disagree|of .* disagree", out)
        assert re.search("  on tcg 7.2  as expected", out)
    (file,) = kept.glob(report)
    assert len(json.loads(file.read_text())["findings"][0]["answers"]) == 1
