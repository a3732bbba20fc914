"""POWER's matrix on the machine: no disagreement, the quirk where it is expected, and a library
that is wrong is found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.check.power import quirks
from harness.check.power.matrix import judged, run
from harness.check.power.matrix.run import MODES, Plan
from harness.check.power.matrix.run import planned as plan
from harness.machine.errors import Misuse
from harness.machine.power.guest import Guest
from harness.paging.power import bulk as arrays
from harness.paging.power.access import Kind, Reason
from harness.paging.power.bulk import Outcomes
from harness.paging.power.cpu import Cpu
from tests.check.power.samples import found_out_in, planned, sampled, tried, tried_in
from tests.check.tampered import Seen, entries, looked_at, noted
from tests.machine.power.present import QEMU, why_absent
from tests.paging.power.test_planted_faults import FAULTS

pytestmark = pytest.mark.hw

Plant = Callable[[pytest.MonkeyPatch], None]


def test_the_quick_preset_has_hundreds_of_thousands_of_accesses() -> None:
    assert sum(len(planned(mode)) for mode in MODES) > 300_000


@pytest.mark.parametrize("mode", MODES)
def test_accesses_come_to_what_the_rules_say(mode: str) -> None:
    report = tried(sampled(planned(mode), 31))
    assert report.failures == [] and report.disagreed.total() == 0
    assert report.comparison.compared > 5000 and not report.comparison.news
    assert set(report.comparison.quirks) == {quirks.ROOT_LEAF.name}
    unmarked = {Reason.NOT_REFERENCED, Reason.NOT_CHANGED}
    sets_marks = tuple(map(int, report.qemu.split("."))) < (8,)
    assert {reason for _, reason in report.by_rule} == {None, *Reason} - (
        unmarked if sets_marks else set()
    )


@pytest.fixture(scope="module")
def running() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as one:
        yield one


@pytest.fixture(scope="module")
def few(running: Guest) -> Plan:
    """A small part of the matrix, which any of the faults below must disturb."""
    both = [sampled(planned(mode), 31) for mode in MODES]
    return replace(both[0], work=tuple(part for one in both for part in one.work))


def changed(change: Callable[[Outcomes], Outcomes]) -> Plant:
    """Plants other answers of the arrays."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = arrays.judge
        patch.setattr(arrays, "judge", lambda *asked: change(original(*asked)))

    return plant


def statuses(before: int, after: int) -> Plant:
    return changed(
        lambda found: replace(
            found, status=np.where(found.status == before, after, found.status).astype(np.uint32)
        )
    )


def interrupts(before: int, after: int) -> Plant:
    return changed(
        lambda found: replace(
            found,
            interrupt=np.where(found.interrupt == before, after, found.interrupt).astype(np.uint16),
        )
    )


def marks(change: Callable[[Outcomes], object]) -> Plant:
    return changed(lambda found: replace(found, sets=change(found)))  # type: ignore[arg-type]


IN_THE_LIBRARY = (
    "tables of any size accepted",
    "a directory accepted at the lowest level",
    "software's bit of leaves reserved",
    "low bits of leaves reserved",
    "bits 7:5 of directories reserved",
    "the address of a page one bit short",
    "what is not valid is there",
    "one size of page tables alone",
    "a tree of any size accepted",
    "RTS not looked at",
    "RPDS not looked at",
    "key 0 holds for the user",
    "key 0 holds for privileged pages",
    "the user may use privileged pages",
    "others may not use the user's pages",
    "RW does not imply R",
    "X implies R",
    "a fetch needs R",
    "guarded storage may be executed",
    "tolerant I/O may not be executed",
    "arrays: what is absent is malformed",
    "arrays: what is malformed is absent",
)
"""Those of the library's planted faults that show in what is tried: no address of a table and of
the root is varied, and where the processor leaves R and C to software none of theirs does."""

IN_THE_ARRAYS: dict[str, Plant] = {
    "SRR1 says protection of fetches": statuses(1 << 28, 1 << 27),
    "DSISR does not say that it was a store": statuses(1 << 27 | 1 << 25, 1 << 27),
    "DSISR says what SRR1 does": statuses(1 << 27, 1 << 28),
    "a tree that is not supported is one that is not there": statuses(1 << 19, 1 << 30),
    "a failed fetch is a data storage interrupt": interrupts(0x400, 0x300),
    "a data segment interrupt is a storage interrupt": interrupts(0x380, 0x300),
    "an instruction segment interrupt is a data segment interrupt": interrupts(0x480, 0x380),
    "R and C are set in what is denied": marks(
        lambda found: np.where(found.reason == 0, found.sets, np.uint64(1 << 11))
    ),
}


def test_without_a_fault_nothing_is_found(running: Guest, few: Plan) -> None:
    assert found_out_in(running, few).failures == []


def test_every_field_of_a_result_is_looked_at(
    running: Guest, few: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of SRR1 are bits 33, 35, 44 and 45, as the manual counts."""
    batches, lanes = noted(monkeypatch, run, "agreeing"), Counter[str]()
    assert not tried_in(running, replace(few, work=few.work[::4])).failures
    for one in batches:
        made, _, _, wanted = one.asked
        fetch, fails, levels = made.kind == Kind.FETCH, ~wanted.allowed, len(made.words)
        told, every = fails | wanted.allowed & wanted.backed, (0, 17, 63)
        seen: Seen = {
            **entries(levels, fetch),
            f"after {levels}": (told & ~fetch, every),
            "completed": (told, (0,)),
            "vector": (told, (7, 8, 9)),
            "data": (told, every),
            "dar": (fails & ~fetch, every),
            "dsisr": (fails & ~fetch, (30, 27, 25, 19)),
            "srr0": (fetch & told, every),
            "srr1": (fails & fetch, (63 - 33, 63 - 35, 63 - 44, 63 - 45)),
        }
        lanes.update(looked_at(one, seen))
    assert min(lanes.values()) > 20


@pytest.mark.parametrize("fault", [*IN_THE_LIBRARY, *IN_THE_ARRAYS])
def test_a_library_that_is_wrong_disagrees_with_the_machine(
    fault: str, running: Guest, few: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    {**FAULTS, **IN_THE_ARRAYS}[fault](monkeypatch)
    assert found_out_in(running, few).disagreed.total() > 0


@pytest.mark.parametrize("sets", [True, False])
def test_r_and_c_that_are_the_other_side_s_are_found(
    sets: bool, running: Guest, few: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = judged.expected
    monkeypatch.setattr(
        "harness.check.power.matrix.run.expected",
        lambda cpu, *asked: original(replace(cpu, sets_marks=sets), *asked),
    )
    assert (found_out_in(running, few).disagreed.total() > 0) == (running.info.sets_marks != sets)


def test_a_quirk_that_is_not_known_is_a_disagreement(
    running: Guest, few: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quirks, "ROOT_LEAF", replace(quirks.ROOT_LEAF, engine="another"))
    assert found_out_in(running, few).disagreed.total() > 0


def test_a_quirk_that_does_not_show_is_news_and_no_disagreement(
    running: Guest, few: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An engine that follows the rules is one whose departure is another: pages of 512G without V.
    def nowhere(cpu: Cpu, engine: str, version: tuple[int, ...]) -> Cpu:
        del engine, version
        return replace(cpu, quadrant0=0, quadrant3=0)

    monkeypatch.setattr("harness.check.power.matrix.run.departing", nowhere)
    some = replace(few, work=tuple(one for one in few.work if one.family.level < 3))
    report = tried_in(running, some)
    assert report.failures == [] and report.disagreed.total() == 0
    assert report.comparison.news[f"{quirks.ROOT_LEAF.name} did not show"] > 1000


def test_what_cannot_be_tried_is_one_sentence() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with pytest.raises(Misuse, match="there is no axis 'nothing'"):
        plan("quick", ["4k"], "tcg", QEMU, "nothing=1")
    with pytest.raises(Misuse, match="no case satisfies 'level=2 and family=tree'"):
        plan("quick", ["4k"], "tcg", QEMU, "level=2 and family=tree")
    with pytest.raises(Misuse, match="not in PATH as no-qemu"):
        plan("quick", ["4k"], "tcg", "no-qemu")
