"""What is asked of guests, and made of their answers, with a guest that follows the rules as they
are written a second time, or departs from them as some engine does.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.compare import EXAMPLES
from harness.check.matrix import Report
from harness.check.product import Values
from harness.check.x86 import flushes, quirks, verdicts
from harness.check.x86.cases import AC
from harness.check.x86.matrix import case as matrix_case
from harness.check.x86.matrix import run, sequence
from harness.check.x86.matrix.case import MatrixCase
from harness.check.x86.matrix.families import Family, families
from harness.check.x86.matrix.rig import Batch, Rig
from harness.check.x86.matrix.run import Work, tried_on
from harness.check.x86.matrix.stage import MODES, Model
from harness.check.x86.matrix.warm import sequences
from harness.paging.bulk import End
from harness.paging.memory import Mask
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.bulk import ALLOWED
from tests.check import tampered
from tests.check.by_rules import has_room_for_two
from tests.check.samples import total
from tests.check.x86 import by_rules
from tests.check.x86.by_rules import (
    BOCHS,
    DEPARTS,
    OLD_TCG,
    PVM,
    TCG,
    ByRules,
    Engine,
    info_of,
)
from tests.check.x86.test_saved_cases import asked
from tests.paging.rules import GP, PF, SS, field

Numbers = npt.NDArray[np.int64]
Results = npt.NDArray[np.void]

QUIRKS: Final[dict[str, quirks.FaultQuirk]] = {
    by_rules.LACKS_P: quirks.RESERVED_WITHOUT_PRESENT,
    by_rules.GIGABYTE_A: quirks.GIGABYTE_PAGE_ACCESSED,
    by_rules.GIGABYTE: quirks.GIGABYTE_PAGE_WITHOUT_CPUID,
    by_rules.PAGE_4M: quirks.LARGE_PAGE_ADDRESS,
    by_rules.BIT_8: quirks.PML4E_BIT_8_IGNORED,
    by_rules.PUSH: quirks.PUSH_IS_A_WRITE,
    by_rules.IMPLICIT: quirks.IMPLICIT_HEEDS_AC,
    by_rules.PDPTES: quirks.PDPTES_ARE_ENTRIES,
    by_rules.CR2: quirks.NON_CANONICAL_SETS_CR2,
    by_rules.UNCHECKED: quirks.USER_ADDRESS_UNCHECKED,
    by_rules.AC: quirks.BOCHS_IMPLICIT_HEEDS_AC,
    by_rules.KEYS: quirks.BOCHS_KEYS_BY_ACCESS,
    by_rules.KEY_OF_SUPERVISOR: quirks.BOCHS_KEY_OF_SUPERVISOR_PAGE,
    by_rules.SLOT: quirks.PVM_KEEPS_A_SLOT,
    by_rules.SMAP_CODE: quirks.PVM_EMULATES_UNDER_SMAP,
}
"""Who departs so; bit 8 is ignored by Bochs too."""


def guest_for(model: Model, engine: Engine, departs: Collection[str] | None = None) -> Any:
    """A guest whose processor is that of a model, and which departs as the engine does unless
    given.  With TCG it has the memory for pages of 1 GiB."""
    usual = DEPARTS[engine] if departs is None else departs
    ram = model.ram_bytes if engine[0] == "tcg" else Model("32").ram_bytes
    return ByRules(*engine, usual, info_of(model.processor), ram)


# ---- the matrix ----


@cache
def every_family(mode: str, engine: Engine) -> tuple[Family, ...]:
    """Those of the preset quick that an engine can be asked, on the usual processors and on one of
    each kind of others."""
    usual = [Model(mode), *([Model(mode, pse=False)] if mode == "32" else [])]
    others = [Model(mode, 36), Model(mode, 52), Model(mode, page1gb=False), Model(mode, amd=True)]
    if mode == "32":
        others = [Model(mode, 36), Model(mode, pse36=False)]
    name = "kvm" if engine is PVM else engine[0]
    return tuple(
        one
        for one in (*families("quick", usual, others), *sequences("quick", usual))
        if one.unasked is None and one.lacks(name, info_of(one.model.processor), engine[1]) is None
    )


def legal(one: Family, numbers: Numbers, *where: Callable[[Values], Mask]) -> Numbers:
    """Those of some cases that no rule leaves out, and that satisfy conditions."""
    places = one.product.places(numbers)
    values = {axis.name: axis.array[places[axis.name]] for axis in one.product.axes}
    chosen = np.ones(len(numbers), np.bool_)
    for rule in one.product.rules:
        chosen &= ~rule.leaves_out(values)
    for condition in where:
        chosen &= condition(values)
    return numbers[chosen]


def drawn(one: Family, source: np.random.Generator, count: int) -> Numbers:
    """Some of its cases."""
    some = source.permutation(np.unique(source.integers(prod(one.product.shape), size=4 * count)))
    return np.sort(legal(one, some)[:count])


def work(mode: str, engine: Engine, seed: int = 5, count: int = 8) -> list[Work]:
    """Some cases of every family, under two of its control states; what control registers take and
    refuse, under all."""
    source, found = np.random.default_rng(seed), list[Work]()
    for one in every_family(mode, engine):
        states = source.permutation(len(one.controls))[: None if one.name == "load" else 2]
        numbers = drawn(one, source, count)
        if len(numbers):
            found.append(Work(one, tuple(one.controls[n] for n in states.tolist()), numbers))
    return found


def few(mode: str, engine: Engine, count: int = 16) -> list[Work]:
    """The same of two families of each name, under one state."""
    every = work(mode, engine, 7, count)
    some = [{part.family.name: part for part in each} for each in (every, reversed(every))]
    chosen = [*some[0].values(), *some[1].values()]
    return [replace(part, controls=part.controls[:1]) for part in chosen]


def rigs(some: list[Work], *which: Any) -> Iterator[tuple[Rig, list[Work]]]:
    """A guest for each processor of some work, with what is asked of it."""

    def model(part: Work) -> Model:
        return part.family.model

    for one, parts in groupby(sorted(some, key=model), model):
        yield Rig(guest_for(one, *which)), list(parts)


def tried(some: list[Work], *which: Any) -> Report:
    return total(report for rig, parts in rigs(some, *which) for report in tried_on(rig, parts))


IN_MODES: Final = [
    (mode, engine) for mode in MODES for engine in DEPARTS if engine != PVM or mode in ("4", "5")
]
"""PVM knows long mode only."""


@pytest.mark.parametrize(("mode", "engine"), IN_MODES, ids=str)
def test_the_matrix_agrees_with_a_guest_that_does_as_an_engine_does(
    mode: str, engine: Engine
) -> None:
    third = [*DEPARTS].index(engine) % 3
    found = tried(work(mode, engine)[third::3], engine)
    assert not found.failures, found.failures[:3]
    assert not found.comparison.news
    assert found.comparison.compared == found.by_rule.total() > 200
    assert set(found.comparison.quirks) <= {one.name for one in quirks.fault_quirks(*engine)}


def test_work_is_tried_on_a_guest_for_each_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    some = [part for part in work("32", TCG) if part.family.name in ("bits", "rights")]
    assert len({part.family.model for part in some}) == 4
    started = list[Any]()

    @contextmanager
    def guest_of(engine: str, wanted: Any, program: str, **named: Any) -> Iterator[Any]:
        assert (engine, program, named["deadline"]) == ("tcg", "there", 5.0)
        assert named["image"].path.exists()
        started.append(wanted)
        processor, ram_bytes = wanted
        yield ByRules(*TCG, DEPARTS[TCG], info_of(processor), ram_bytes)
        started.append(None)

    monkeypatch.setattr(run, "guest_of", guest_of)
    plan = run.Plan("tcg", tuple(some), Counter(), Counter())
    found = total(run.run(plan, program="there", deadline=5.0))
    assert found.comparison.compared == sum(map(len, some)) and not found.failures
    # PSE is not the processor's.
    models = {part.family.model.guest for part in some}
    assert len(models) == 3 and set(started[::2]) == models and started[1::2] == [None] * 3


@pytest.mark.parametrize("mode", MODES)
def test_code_runs_in_the_last_byte_of_all_addresses(mode: str) -> None:
    """Outside long mode the instruction pointer is 0 then."""
    last = (1 << 64 if mode in ("4", "5") else 1 << 32) - 0x1000
    where = among(address=last, offset="last-byte", access="fetch", by="supervisor")
    (one, *_) = filter(named("place", level=0), every_family(mode, BOCHS))
    found = legal(one, np.arange(prod(one.product.shape)), where)
    assert len(found) == 8
    report = tried([Work(one, one.controls, found)], BOCHS, ())
    assert report.comparison.compared == 16 and not report.failures


def test_shadow_stacks_are_accessed_in_every_way_at_once() -> None:
    """What CALL stores is an address of the stub's, and what WRSS and WRUSS store is not."""
    stacks = {"lower__P": 1, "lower__RW": 0, "lower__D": 1, "lower__set": "none", "upper__RW": 1}
    shadow = [one for one in every_family("4", BOCHS) if named("shadow", upper=3, lower=0)(one)]
    one = next(one for one in shadow if "lower.key" not in one.axes)
    numbers = legal(one, np.arange(prod(one.product.shape)), among(**stacks))
    made = set[str]()

    class Noting(ByRules):
        def _make(self, state: Any, job: Any, name: str, result: Any) -> None:
            super()._make(state, job, name, result)
            if self.last.vector is None:
                made.add(name)

    rig = Rig(guest_for(one.model, BOCHS, ()))
    rig.quirks, guest = (), cast(Any, rig.guest)
    guest.__class__ = Noting
    assert not total(tried_on(rig, [Work(one, one.controls, numbers)])).failures
    stored = {"SHADOW_WRITE", "USER_SHADOW_WRITE", "CALL"}
    assert made == {"SHADOW_READ", "RETURN", "READ", "FETCH", *stored}


@pytest.mark.parametrize("model", [*map(Model, MODES), Model("4", lass=True)], ids=str)
def test_the_window_is_where_no_case_is(model: Model) -> None:
    """Every other entry of the top table leads on."""
    rig = Rig(guest_for(model, BOCHS, ()))
    chain = rig.chain(model)
    assert len(chain.window.spans) == len(model.windows)
    for span, outside in zip(reversed(chain.window.spans), model.windows, strict=True):
        assert outside.first <= span.first and span.last <= outside.last
    for root in chain.cpu.roots:
        for first, slot in root.slots():
            led = chain.memory.load(slot.address, slot.table.format.entry_bytes)
            hidden = any(first in outside for outside in model.windows)
            assert hidden or (led or 0) & ~0xFFF == chain.tables[-2].address


@pytest.mark.parametrize("mode", MODES)
def test_what_cannot_be_compared_is_counted(mode: str) -> None:
    """A above the entry at which a fault is found, and data where there is no memory."""
    counted, told = Counter[str](), Counter[str]()

    class Counting(ByRules):
        def _make(self, state: Any, job: Any, name: str, result: Any) -> None:
            super()._make(state, job, name, result)
            if self.last.vector == PF and self.walked.level is not None:
                tables = 2 if mode == "pae" else self.machine(state).levels
                counted[run.UPPER_ACCESSED] += self.walked.level < tables - 1
            elif self.last.vector is None:
                counted[run.NO_MEMORY] += (self.last.physical or 0) >= self.ram.size

    named_so = ("bits", "twice", "place", "load", "pdpte")
    some = [part for part in work(mode, BOCHS, 8, 24) if part.family.name in named_so]
    for rig, parts in rigs(some, BOCHS, ()):
        rig.quirks = ()
        guest: Any = rig.guest
        guest.__class__ = Counting
        for report in tried_on(rig, parts):
            assert all(report.masked.values())
            told += report.masked
    assert told == counted and min(counted.values()) > 0


@pytest.mark.parametrize("mode", MODES)
def test_between_the_accesses_of_a_case_nothing_is_dropped_but_where_it_says_so(mode: str) -> None:
    """What lays the other path makes no access, and looks at nothing."""
    jobs, some = list[Results](), work(mode, BOCHS, 9, 3)

    class Keeping(ByRules):
        def start(self, state: Any, given: Results) -> None:
            jobs.append(given)
            super().start(state, given)

    for rig, parts in rigs([part for part in some if len(part.family.steps) > 1], BOCHS, ()):
        guest: Any = rig.guest
        guest.__class__ = Keeping
        enums = guest.image.enums
        none, page = enums["FLUSH_NONE"], enums["FLUSH_PAGE"]
        for part in parts:
            jobs.clear()
            assert not total(tried_on(rig, [part])).failures
            steps, n = part.family.steps, len(part.numbers)
            laid = any(step.there for step in steps)
            assert len(jobs) == len(part.controls)
            for each in jobs:
                asked = each.reshape(n, -1)
                assert asked.shape[1] == len(steps) + laid == sequence.jobs_of(steps)
                first, *later = asked.T[int(laid) :]
                assert (first["flush"] == page).all()
                axes = {axis.name: axis for axis in part.family.product.axes}
                needs = np.full(n, none)
                if "flush" in axes:
                    places = part.family.product.places(part.numbers)["flush"]
                    said = axes["flush"].array[places]
                    needs = np.where(said == "page", page, none)
                assert all((step["flush"] == needs).all() for step in later)
                for step in asked.T[: int(laid)]:
                    assert (step["access"] == enums["ACCESS_NONE"]).all()
                    assert (step["flush"] == page).all() and not step["watched"].any()
                    assert (step["patched"] == len(rig.chain(part.family.model).tables)).all()


# ---- every field of a result ----

Found = list[tuple[Batch, tampered.Verdicts]]


def judged(patch: pytest.MonkeyPatch, rig: Rig, some: list[Work]) -> tuple[Report, Found]:
    """What comes of some work on a guest, and the batches that were judged."""
    batches, judge = list[tuple[Batch, Results]](), Rig.judge

    def noted(self: Rig, batch: Batch, results: Results) -> Any:
        batches.append((batch, results.copy()))
        return judge(self, batch, results)

    with patch.context() as here:
        here.setattr(Rig, "judge", noted)
        report = total(tried_on(rig, some))
    found = Found()
    for batch, results in batches:

        def again(results: Results, batch: Batch = batch) -> Mask:
            return rig.judge(batch, results).agree

        found.append((batch, tampered.Verdicts((), results, again(results), again)))
    return report, found


def seen_of(batch: Batch) -> tampered.Seen:
    """What of results says whether the rules were followed, whoever departs in what."""
    lanes, levels = batch.question.lanes, len(batch.chain.tables)
    every, fetch = np.ones(len(lanes), np.bool_), lanes.kind == Kind.FETCH
    made, top = batch.outcomes.vector == ALLOWED, 8 * batch.cpu.format.entry_bytes - 1
    calls = lanes.branch & (lanes.kind == Kind.SHADOW_WRITE)
    seen: dict[str, Any] = {
        "vector": (every, (0, 7)),
        "completed": (every, (0,)),
        "error": (every, (1, 2, 3, 15)),
        "cr2": (every, (0, 12, 31)),
        "data": (lanes.backed & ~calls, (0, 31)),
        "rip": (made & fetch, (0, 31)),
    }
    for level in range(levels):
        seen[f"after {level}"] = every, (0, 12, top)
    for word in range(batch.question.parts):
        seen[f"after {levels + word}"] = ~calls, (0, 31)
    if len(lanes.pdpte):
        seen[f"after {batch.question.last}"] = every, (1, 63)
    return seen


@pytest.mark.parametrize("mode", MODES)
def test_every_field_of_a_result_is_looked_at(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "FAULT_QUIRKS", ())
    lanes = Counter[str]()
    for rig, parts in rigs(few(mode, BOCHS), BOCHS, ()):
        rig.quirks = ()
        report, found = judged(monkeypatch, rig, parts)
        assert not report.failures and not report.comparison.news
        for batch, one in found:
            lanes.update(tampered.looked_at(one, seen_of(batch)))
    assert min(lanes.values()) > 10


@pytest.mark.parametrize("mode", MODES)
def test_marks_are_looked_at_but_for_a_above_a_fault(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SDM volume 3A, 4.8; nothing is above where there was no walk."""
    monkeypatch.setattr(verdicts, "FAULT_QUIRKS", ())
    looked, left = 0, 0
    for rig, parts in rigs(few(mode, BOCHS), BOCHS, ()):
        rig.quirks = ()
        for batch, one in judged(monkeypatch, rig, parts)[1]:
            outcomes, levels = batch.outcomes, len(batch.chain.tables)
            denied = (outcomes.vector == PF) & (one.results["completed"] == 0)
            in_tables = outcomes.walks.end != End.NO_ROOT
            for level in range(levels):
                column = f"after {levels - 1 - level}"
                above = denied & in_tables & (outcomes.walks.level < level)
                looked += tampered.looked_at(one, {column: (~above, (5,))})[column]
                tampered.looked_at(one, {column: (above | ~above, (6,))})
                free = one.results.copy()
                free["after"][:, levels - 1 - level] |= above * np.uint64(1 << 5)
                assert one.judge(free).all()
                left += int((free != one.results).sum())
    assert looked > 500 and left > 20


# ---- departures ----


class Shown(NamedTuple):
    """Where a departure shows: in which mode, of which families, and in which of their cases."""

    engine: Engine
    mode: str
    family: Callable[[Family], bool]
    where: Callable[[Values], Mask]


def named(name: str, **fixed: Any) -> Callable[[Family], bool]:
    """Families of a name whose model, or one of whose axes, has values."""

    def chosen(one: Family) -> bool:
        axes = {axis.name: axis.values for axis in one.product.axes}
        has = {**{key: (value,) for key, value in vars(one.model).items()}, **axes}
        return one.name == name and all(has[key] == (value,) for key, value in fixed.items())

    return chosen


def among(**values: tuple[Any, ...] | Any) -> Callable[[Values], Mask]:
    """Cases that have one of some values on each of some axes; a dot in a name is written __."""

    def holds(of: Values) -> Mask:
        found = [np.isin(of[name.replace("__", ".")], one) for name, one in values.items()]
        mask: Mask = np.logical_and.reduce(found)
        return mask

    return holds


def of_users(of: Values) -> Mask:
    """Cases whose page is the user's."""
    found: Mask = np.logical_and.reduce([of[name] == 1 for name in of if name.endswith("US")])
    return found


def not_canonical(of: Values) -> Mask:
    address = of["address"]
    found: Mask = (address >= np.uint64(1 << 47)) & (address < np.uint64((1 << 64) - (1 << 47)))
    return found


DATA: Final = ("read", "write")
SHOWN: Final = {
    by_rules.LACKS_P: Shown(TCG, "5", named("bits", level=1), among(P=1, set="51")),
    by_rules.GIGABYTE_A: Shown(
        TCG, "4", named("entry", level=2), among(P=1, PS=1, set="none", US=0, by="user", A=0)
    ),
    by_rules.GIGABYTE: Shown(
        TCG, "4", named("bits", level=2, page1gb=False), among(P=1, PS=1, set=("none", "11"))
    ),
    by_rules.PAGE_4M: Shown(
        TCG, "32", named("bits", level=1, pse36=False), among(P=1, PS=1, set=("13", "20"))
    ),
    by_rules.BIT_8: Shown(TCG, "5", named("bits", level=4, amd=True), among(P=1, G=1, PS=0)),
    by_rules.PUSH: Shown(
        TCG, "4", named("place", level=1), lambda of: not_canonical(of) & among(access="push")(of)
    ),
    by_rules.IMPLICIT: Shown(
        TCG,
        "32",
        named("rights"),
        lambda of: of_users(of) & among(access="descriptor", by="supervisor", ac=1)(of),
    ),
    by_rules.PDPTES: Shown(
        TCG, "pae", named("pdpte", register=2), among(pdpte__P=1, pdpte__set=("1", "8", "none"))
    ),
    by_rules.CR2: Shown(OLD_TCG, "4", named("place", level=0), not_canonical),
    by_rules.UNCHECKED: Shown(
        OLD_TCG, "4", named("place", level=0), lambda of: not_canonical(of) & among(by="user")(of)
    ),
    by_rules.AC: Shown(
        BOCHS,
        "pae",
        named("rights"),
        lambda of: of_users(of) & among(access="descriptor", ac=1)(of),
    ),
    by_rules.KEYS: Shown(
        BOCHS, "4", named("key", level=1), among(by="supervisor", US=1, PS=1, access=DATA, ac=1)
    ),
    by_rules.KEY_OF_SUPERVISOR: Shown(
        BOCHS, "5", named("key", level=0), among(by="user", US=0, access=DATA)
    ),
    by_rules.SLOT: Shown(
        PVM,
        "4",
        named("place", level=0),
        lambda of: (
            (of["address"] >> np.uint64(39) == by_rules.PVM_SLOT)
            & among(by="user", access=("read", "push", "fetch"))(of)
        ),
    ),
    by_rules.SMAP_CODE: Shown(
        PVM,
        "4",
        named("entry", level=0),
        among(P=1, US=1, XD=0, set="none", by="supervisor", access="fetch", ac=0),
    ),
}


def those(shown: Shown, count: int = 30) -> list[Work]:
    """Some of the cases in which a departure shows, under all control states."""
    source, found = np.random.default_rng(6), list[Work]()
    for one in filter(shown.family, every_family(shown.mode, shown.engine)):
        every = np.arange(prod(one.product.shape))
        numbers = source.permutation(legal(one, every, shown.where))[:count]
        if len(numbers):
            found.append(Work(one, one.controls[:4], np.sort(numbers)))
    assert found
    return found


class Kept(ByRules):
    """A guest that keeps its answers."""

    def tampered(self, results: Results) -> Results:
        self.kept = [*getattr(self, "kept", ()), results.copy()]
        return results


@pytest.mark.parametrize("name", SHOWN)
def test_each_departure_is_told_by_its_quirk_alone(name: str) -> None:
    """Where it is expected it shows, and that it is gone is news; where it is not, it disagrees and
    is told whose it is like."""
    shown, quirk = SHOWN[name], QUIRKS[name]
    some, departs = those(shown), DEPARTS[shown.engine]
    for model, parts in groupby(some, lambda part: part.family.model):
        work = list(parts)
        with_it, without = (
            guest_for(model, shown.engine, one) for one in (departs, departs - {name})
        )
        for guest in (with_it, without):
            guest.__class__ = Kept
        rig = Rig(with_it)
        known = rig.quirks
        assert quirk in known
        expected = total(tried_on(rig, work))
        gone = total(tried_on(Rig(without), work))
        differ = sum(
            int((one != other).sum()) for one, other in zip(with_it.kept, without.kept, strict=True)
        )
        assert differ >= 4
        assert not expected.failures and not expected.comparison.news
        assert expected.comparison.quirks[quirk.name] == differ
        ruled = guest_for(model, shown.engine, departs & {by_rules.UPPER})
        ruled.__class__ = Kept
        [*tried_on(Rig(ruled), work)]
        depart = sum(
            int((one != other).sum()) for one, other in zip(with_it.kept, ruled.kept, strict=True)
        )
        assert expected.departed.total() == depart >= differ
        assert not gone.failures
        assert gone.comparison.news == {f"{quirk.name} did not show": differ}
        assert not gone.comparison.quirks[quirk.name]
        rig.quirks = tuple(one for one in known if one is not quirk)
        strange = total(tried_on(rig, work))
        assert strange.comparison.disagreed == differ
        who = f"{shown.engine[0]} {'.'.join(map(str, shown.engine[1]))}"
        news = f"{quirk.name} shows on {who}, which it does not name"
        assert strange.comparison.news[news] == differ


@pytest.mark.parametrize("name", SHOWN)
def test_a_quirk_excuses_nothing_but_what_it_names(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other bit that is wrong disagrees, but for those that lead back to the rule."""
    shown = SHOWN[name]
    monkeypatch.setattr(verdicts, "FAULT_QUIRKS", ())
    # Code that has run is told by where it ends, and of what is denied where the rules have it made
    # the data is not looked at.
    unseen = {by_rules.SLOT: ("rip", "after 4"), by_rules.SMAP_CODE: ("completed", "after 4")}
    for part in alone(those(shown, 10)):
        model = part.family.model
        [(_, ruled)] = judged(monkeypatch, Rig(guest_for(model, shown.engine, ())), [part])[1]
        rig = Rig(guest_for(model, shown.engine, {name}))
        rig.quirks = (QUIRKS[name],)
        report, [(batch, one)] = judged(monkeypatch, rig, [part])
        assert one.agree.all()
        for place, (lanes, bits) in seen_of(batch).items():
            for bit in () if place in unseen.get(name, ()) else bits:
                wrong = tampered.flipped(one.results, place, bit)
                assert not (one.judge(wrong) & lanes & (wrong != ruled.results)).any(), (place, bit)
        if report.comparison.quirks[QUIRKS[name].name]:
            return
    pytest.fail("it shows nowhere")


def alone(some: list[Work]) -> Iterator[Work]:
    """Each state alone."""
    return (replace(part, controls=(control,)) for part in some for control in part.controls)


# ---- cases ----


class Never(ByRules):
    """A guest that says of each access the opposite of what came of it."""

    def tampered(self, results: Results) -> Results:
        results["completed"] ^= 1
        results["data"] ^= np.uint64(0xF0)
        return results


def opposite(model: Model, engine: Engine, departs: Collection[str] | None = None) -> Rig:
    guest = guest_for(model, engine, departs)
    guest.__class__ = Never
    return Rig(guest)


@pytest.mark.parametrize("engine", [TCG, BOCHS], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_no_quirk_excuses_the_opposite(mode: str, engine: Engine) -> None:
    for rig, parts in rigs(few(mode, engine, 3), engine):
        guest: Any = rig.guest
        guest.__class__ = Never
        for part in parts:
            every = [*tried_on(rig, [part])]
            assert not any(one.comparison.news for one in every)
            found = total(every)
            assert found.comparison.disagreed == found.comparison.compared == len(part)
            assert found.disagreed == found.by_rule and not found.departed
            assert not +found.comparison.quirks
            assert len(found.failures) >= min(EXAMPLES, len(part.numbers))


ENDS: Final = {PF: "#PF", GP: "#GP", SS: "#SS"}


@pytest.mark.parametrize("mode", MODES)
def test_cases_are_put_into_words_kept_in_files_and_asked_again(mode: str, tmp_path: Path) -> None:
    """What is expected by the rules, what was seen, and the same of a case that is replayed."""
    said, walks, lengths = set[str](), 0, set[int]()
    for rig, parts in rigs(few(mode, BOCHS, 2), BOCHS, ()):
        rig.quirks = ()
        guest: Any = rig.guest
        never = opposite(parts[0].family.model, BOCHS, ())
        never.quirks = ()
        for part in parts:
            for report in [*tried_on(never, [part])]:  # which is one batch ahead
                for failure in (*report.failures[:2], *report.failures[-1:]):
                    assert isinstance(failure, MatrixCase)
                    saved = matrix_case.saved(failure.save(tmp_path))
                    assert saved == failure
                    assert (saved.engine, saved.qemu, saved.mode) == ("bochs", "3.0", mode)
                    found = matrix_case.replay_in(rig, saved)
                    assert (found.compared, found.disagreed) == (len(saved.steps), 0)
                    by, expected = guest.last, saved.expected
                    if by.vector is None:
                        assert expected == f"reaches {by.physical:#x}"
                    else:
                        assert expected.startswith(f"{ENDS[by.vector]}({by.error:#x})")
                        walked = by.vector == PF and guest.walked.level is not None
                        told = re.search(r" at level (\d): ", expected)
                        level = told and int(told[1])
                        assert level == (guest.walked.level if walked else None)
                    seen, stored = saved.observed, saved.access.kind.writes and saved.backed
                    assert ("; the data " in seen) == (by.vector is None and stored)
                    assert ("was loaded" in seen) == (by.vector is None)
                    assert ("; the PDPTE " in seen) == (saved.pdpte is not None)
                    lengths.add(len(saved.steps))
                    if seen.startswith("done"):  # what was read is nothing, with the wrong bits
                        word = int(seen.split()[5].rstrip(",;"), 16)
                        assert (word == 0xF0) != saved.access.kind.writes
                    again = matrix_case.replay_in(never, saved)
                    assert again.disagreed == len(saved.steps)
                    last = again.disagreements[-1]
                    assert last == saved.disagreement
                    in_turn = len(part.family.steps) > 1
                    step = f" step={len(saved.steps)}" if in_turn else ""
                    assert saved.values.partition(" step=")[1:] == step.partition(" step=")[1:]
                    ways = [(one.address, one.access) for one in saved.steps]
                    assert [(one.address, one.access) for one in again.disagreements] == ways
                    if saved.pdpte is not None and saved.register == saved.address >> 30:
                        loaded = saved.pdpte & 1 and not field(saved.pdpte, 63, 40)
                        assert bool(last.walk) == bool(loaded and not saved.pdpte & 0x1E6)
                    said.add(saved.observed.partition(" ")[0])
                    assert last.flags == (AC if saved.ac else frozenset())
                    if last.walk is not None and by.vector is None:
                        assert last.walk.physical == by.physical
                    walks += last.walk is not None
    assert {"done,"} < said and walks > 10 and lengths >= {1, 3}


def test_a_call_whose_shadow_stack_has_no_memory_can_be_asked_again() -> None:
    """The matrix asks none; a case that someone writes may."""
    machines = ((rig, parts[0].family.model) for rig, parts in rigs(few("4", BOCHS, 1), BOCHS, ()))
    rig, model = next((rig, model) for rig, model in machines if model.shadow_stacks)
    plain = asked("4", access=Access(Kind.SHADOW_WRITE, False), user=False, branch=True)
    call = replace(
        plain,
        backed=False,
        model=model,
        control=replace(plain.control, cet=True),
        # Dirty and not writable, of the supervisor; what is above can be written.
        words=(1 << 35 | 0x61, *(word | 0x22 for word in plain.words[1:])),
    )
    guest: Any = rig.guest
    assert not matrix_case.replay_in(rig, call).disagreed
    assert guest.last.vector is None and guest.last.physical >> 35 == 1


def test_batches_are_as_large_as_a_guest_has_room_for_two() -> None:
    has_room_for_two(ByRules, run.BATCH)
    assert ByRules().capacity < 2 * run.BATCH


def test_the_plugin_notes_the_registers_of_whatever_processor() -> None:
    """The PDPTEs are read as they are found."""
    raw = {"cr0": 0x8001_0001, "cr3": 0xF_FFFF_0000_0000, "cr4": 0xA0, "efer": 0xD00}
    long, pae = flushes.state(raw), flushes.state({**raw, "efer": 0})
    for found, efer, mode in ((long, 0xD00, "4"), (pae, 0, "pae")):
        assert (found.cr0, found.cr3, found.cr4, found.efer) == (*[*raw.values()][:3], efer)
        assert (found.mode.value, found.maxphyaddr, found.malformed_pdpte(~0)) == (mode, 52, 0)
    assert long.base == raw["cr3"]


def test_the_plugin_s_cases_were_run_on_what_the_rest_was() -> None:
    assert flushes.RUNS == quirks.QEMU_RUNS
