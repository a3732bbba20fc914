"""Whose answers differ, with guests that follow the rules as they are written a second time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from typing import Any, Final

import pytest

from harness.check.compare import PROBE, Answer, Disagreement
from harness.check.layouts import Layout, find, load
from harness.check.replay import Host
from harness.check.validation import SpaceReport
from harness.check.x86 import replay, witnesses
from harness.check.x86.matrix import case as matrix_case
from harness.check.x86.matrix.case import MatrixCase
from harness.check.x86.matrix.run import tried_on
from harness.check.x86.replay import Case
from harness.check.x86.witnesses import ask_every, this_host
from harness.machine.errors import MachineError, Misuse
from harness.machine.machine import Processor
from harness.machine.ram import MIB
from harness.machine.x86.engines import Present
from harness.paging.x86.access import Access, Kind
from tests.check.x86.by_rules import BOCHS, DEPARTS, TCG, ByRules, info_of
from tests.check.x86.test_by_rules import few, opposite

PRESENT: Final = {
    name: Present(f"/usr/{name}", (name, version), info_of(Processor()), None)
    for name, version in (TCG, BOCHS)
}
HERE: Final = Host(PRESENT, {"kvm": "there is no /dev/kvm"})


@cache
def failure() -> MatrixCase:
    """A case in which a guest said the opposite of the rules."""
    part = next(part for part in few("32", BOCHS) if part.family.name == "rights")
    [report] = tried_on(opposite(part.family.model, BOCHS), [part])
    found = report.failures[0]
    assert isinstance(found, MatrixCase)
    return found


LAYOUT: Final = load(find("smallest"))
ASKED: Final = Case(
    *(LAYOUT.name, LAYOUT.text, 4, "tcg", "7.2.22", PROBE),
    *(0x5000_0000, Access(Kind.READ, True), False, "", ""),
)


class Started:
    """Guests that are started in place of those of engines.

    all      the engine, and what the guest had to be
    running  how many do now
    fails    the engines that do not start
    lost     how many jobs until a guest is lost
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.all, self.running = list[tuple[str, Any]](), 0
        self.fails, self.lost = set[str](), 1 << 30
        patch.setattr(witnesses, "guest_of", self.guest_of)
        patch.setattr(witnesses, "guest_for", self.guest_for)
        patch.setattr(witnesses, "Guest", ByRules)

    @contextmanager
    def _guest(self, engine: str, wanted: Any, program: str | None) -> Iterator[ByRules]:
        self.all.append((engine, wanted))
        assert program == PRESENT[engine].program and not self.running
        if engine in self.fails:
            raise MachineError(f"{engine} does not start")
        key = (engine, PRESENT[engine].executor[1])
        guest = ByRules(*key, DEPARTS[key], ram_bytes=64 * MIB)

        def asked(how: Callable[..., Any], *given: Any) -> Any:
            self.lost -= 1
            if self.lost < 0:
                raise MachineError(f"{engine} is lost")
            return how(*given)

        guest.run = partial(asked, guest.run)  # type: ignore[method-assign]
        guest.start = partial(asked, guest.start)  # type: ignore[method-assign]
        self.running += 1
        yield guest
        self.running -= 1

    def guest_of(self, engine: str, wanted: Any, program: str | None = None) -> Any:
        return self._guest(engine, wanted, program)

    def guest_for(self, layout: Layout, engine: str, program: str | None) -> Any:
        return self._guest(engine, layout.name, program)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    return Started(monkeypatch)


def of(found: list[tuple[int, Answer]], engine: str) -> list[Answer]:
    """What an engine says of each case, in their order."""
    return [one for _, one in sorted(found, key=lambda one: one[0]) if one.engine == engine]


def test_each_engine_answers_each_case_and_the_others_say_why_not(started: Started) -> None:
    found = list(ask_every([failure(), ASKED], HERE))
    assert [one.engine for _, one in found] == ["tcg"] * 2 + ["bochs"] * 2 + ["kvm"] * 2
    for engine in PRESENT:
        for one in of(found, engine):
            assert one == Answer(engine, PRESENT[engine].called, True, "as expected")
    for one in of(found, "kvm"):
        assert one == Answer("kvm", "kvm", None, "it cannot run here: there is no /dev/kvm")
    assert not started.running


def test_a_guest_is_kept_for_what_needs_the_same_and_ended_before_the_next(
    started: Started,
) -> None:
    """Bochs has one processor for these, TCG is another for each."""
    case = failure()
    wide = replace(case, model=replace(case.model, maxphyaddr=46))
    levels, other = replace(ASKED, levels=5), replace(ASKED, layout="another")
    cases: list[Case | MatrixCase] = [case, wide, ASKED, case, levels, wide, ASKED, other]
    found = list(ask_every(cases, HERE))
    assert Counter(engine for engine, _ in started.all) == {"tcg": 2 + 4, "bochs": 1 + 4}
    assert [one.agrees for one in of(found, "tcg")] == [True] * len(cases)
    said = [one.said for one in of(found, "bochs")]
    refused = "the case cannot be replayed: bochs cannot be the case's processor (mode=32"
    assert [one.startswith(refused) for one in said] == [one is wide for one in cases]
    wanted = {what for engine, what in started.all if engine == "tcg"}
    assert wanted == {case.model.guest, wide.model.guest, LAYOUT.name, "another"}
    assert not started.running


def test_what_does_not_start_is_tried_once_and_said_of_each_case(started: Started) -> None:
    started.fails = {"tcg"}
    found = list(ask_every([failure(), failure(), ASKED, ASKED], HERE))
    assert [one.said for one in of(found, "tcg")] == ["tcg does not start"] * 4
    assert {one.agrees for one in of(found, "tcg")} == {None}
    assert {one.agrees for one in of(found, "bochs")} == {True}
    assert Counter(engine for engine, _ in started.all) == {"tcg": 2, "bochs": 2}


def test_a_guest_that_is_lost_is_started_anew_for_the_next_case(started: Started) -> None:
    started.lost = 1
    found = []
    for number, answer in ask_every([failure()] * 3, HERE):
        found.append((number, answer))
        if answer.agrees is None:
            started.lost = 1 << 30
    assert [one.said for one in of(found, "tcg")] == ["as expected", "tcg is lost", "as expected"]
    assert Counter(engine for engine, _ in started.all) == {"tcg": 2, "bochs": 1}


def test_one_that_only_knows_long_mode_is_not_started_for_another(started: Started) -> None:
    """And a case is asked of the processor that an engine has, where that is the only one."""
    lone = replace(PRESENT["bochs"], long_mode_only="it knows long mode only")
    here = Host({"kvm": lone}, {})
    found = list(ask_every([failure()], here))
    assert [(n, one.engine, one.agrees) for n, one in found] == [(0, "kvm", None)]
    assert found[0][1].said == "the case cannot be replayed: it knows long mode only"
    assert not started.all
    info = info_of(Processor(maxphyaddr=46))
    asked = witnesses._on("kvm", info, failure())
    assert isinstance(asked, MatrixCase)
    assert (asked.engine, asked.model) == ("kvm", failure().model.on(info))
    assert asked.model.maxphyaddr == 46 and asked == replace(
        failure(), engine="kvm", model=asked.model
    )
    for engine in PRESENT:
        assert witnesses._on(engine, info, failure()) == replace(failure(), engine=engine)
    assert witnesses._on("kvm", info, ASKED) == replace(ASKED, engine="kvm")


def test_what_an_engine_can_be_is_not_asked_of_its_usual_processor(started: Started) -> None:
    plain = info_of(Processor(), "nx", "smep", "smap", "pge")
    here = Host({name: replace(one, info=plain) for name, one in PRESENT.items()}, {})
    found = list(ask_every([failure()], here))
    assert [one.said for _, one in found] == ["as expected"] * len(PRESENT)


def test_the_same_question_is_that_of_another_engine_or_of_a_disagreement() -> None:
    for case in (failure(), ASKED):
        assert witnesses.on(case, "bochs") == replace(case, engine="bochs")
    found = Disagreement(PROBE, ASKED.address, ASKED.access, "", "")
    space = SpaceReport(LAYOUT, 4, "tcg", "7.2.22", None, (), 0.0)
    assert witnesses.case_of(space, found) == ASKED


def test_a_case_is_replayed_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[tuple[Any, ...]]()
    for name, module in (("matrix", matrix_case), ("layout", replay)):
        monkeypatch.setattr(
            module,
            "replay",
            lambda case, *, program, name=name: asked.append((name, case, program)),
        )
    witnesses.replayed(failure(), "there")
    witnesses.replayed(ASKED, "here")
    assert asked == [("matrix", failure(), "there"), ("layout", ASKED, "here")]


def test_a_host_has_what_starts_and_says_why_the_rest_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    programs = {"QEMU": "qemu", "Bochs": "bochs"}
    asked = list[tuple[str, str]]()

    def present(name: str, program: str) -> Present:
        asked.append((name, program))
        if name == "bochs":
            raise Misuse("it does not come up")
        return PRESENT[name]

    why = {"kvm": "there is no /dev/kvm"}
    monkeypatch.setattr(witnesses, "why_not_started", lambda name, program: why.get(name))
    monkeypatch.setattr(witnesses, "present", present)
    assert this_host(programs) == Host(
        {"tcg": PRESENT["tcg"]}, {**why, "bochs": "it does not come up"}
    )
    assert asked == [("tcg", "qemu"), ("bochs", "bochs")]
