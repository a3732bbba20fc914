"""RISC-V's matrix on the machine: no disagreement, each quirk where it is expected, and a library
that is wrong is found out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from harness.check.quirk import expected_of
from harness.check.riscv import quirks
from harness.check.riscv.matrix import judged, run
from harness.check.riscv.matrix.chain import ACCESSES
from harness.check.riscv.matrix.hart import MODES
from harness.check.riscv.matrix.run import Plan
from harness.check.riscv.matrix.run import planned as plan
from harness.machine.errors import Misuse
from harness.machine.riscv.guest import Guest
from harness.paging.address import signed_halves
from harness.paging.bulk import Bytes, End
from harness.paging.format import Shape
from harness.paging.memory import Words
from harness.paging.riscv import access as scalar
from harness.paging.riscv import bulk as arrays
from harness.paging.riscv.access import Access, Kind, Reason
from harness.paging.riscv.cpu import Cpu
from harness.paging.riscv.formats import A, D, R, U, W, X
from tests.check.riscv.guests import found_out, found_out_in, guest, planned, sampled, tried
from tests.check.tampered import Seen, entries, looked_at, noted
from tests.machine.riscv.present import QEMU, why_absent
from tests.paging.riscv.test_planted_faults import (
    DENIED,
    UNMARKED,
    accepts,
    address_one_bit_short,
    arrays_end,
    arrays_exchange_pmm,
    arrays_mask_fetches,
    denied_otherwise,
    execute_only_with_mxr_for_writes,
    halves,
    napot_size_of_a_slot,
    reserves,
    sum_changes_fetches,
    unmarked_otherwise,
    with_levels,
    with_shapes,
)

pytestmark = pytest.mark.hw

Plant = Callable[[pytest.MonkeyPatch], None]


@pytest.mark.parametrize("mode", MODES)
def test_accesses_come_to_what_the_rules_say(mode: str) -> None:
    report = tried(sampled(planned(mode), 31))
    assert report.failures == [] and report.disagreed.total() == 0
    assert report.comparison.compared > 1000 and not report.comparison.news
    # AMOs, a fifth of the accesses, to what they may only read, and what has no memory.
    assert 0 < report.masked[run.MASKED] < report.comparison.compared / 50
    shown = {reason for _, reason in report.by_rule}
    missing = {Reason.NOT_ACCESSED, Reason.NOT_DIRTY} if not _faults_on_marks() else set()
    missing |= {Reason.NOT_CANONICAL} if mode == "sv32" else set()
    assert shown == {None, *Reason} - missing


def _faults_on_marks() -> bool:
    return any(part.family.hart.svade for part in planned("sv39").work)


def test_every_quirk_of_the_version_shows(version: tuple[int, ...]) -> None:
    shown = set[str]()
    for mode in ("sv32", "sv39"):
        shown |= set(tried(sampled(planned(mode), 7)).comparison.quirks)
    assert shown == {one.name for one in quirks.judged_of("tcg", version)}


@pytest.fixture(scope="module")
def running() -> Iterator[Guest]:
    with guest(64) as one:
        yield one


@pytest.fixture(scope="module")
def version(running: Guest) -> tuple[int, ...]:
    return running.version


@pytest.fixture(scope="module")
def few(running: Guest) -> Plan:
    """A small part of the matrix, which any of the faults below must disturb."""
    return sampled(planned("sv39"), 59)


def flag(**changed: bool) -> Plant:
    """Plants a library that takes a control bit for another."""

    def always(value: bool) -> property:
        return property(lambda cpu: value)

    def plant(patch: pytest.MonkeyPatch) -> None:
        for name, value in changed.items():
            patch.setattr(Cpu, name, always(value))

    return plant


def without_speculation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(judged, "_speculated", lambda asked, *_: np.zeros(len(asked.lanes), np.uint64))


def stores_that_are_loads(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(arrays, "page_fault", lambda kind: scalar.page_fault(Kind.READ))
    table = arrays._CAUSE.copy()
    table[table == scalar.Cause.STORE_PAGE] = scalar.Cause.LOAD_PAGE
    patch.setattr(arrays, "_CAUSE", table)


def fetches_that_are_loads(patch: pytest.MonkeyPatch) -> None:
    table = arrays._CAUSE.copy()
    table[table == scalar.Cause.FETCH_PAGE] = scalar.Cause.LOAD_PAGE
    patch.setattr(arrays, "_CAUSE", table)


def tables_without_memory_are_absent(patch: pytest.MonkeyPatch) -> None:
    table = arrays._CAUSE.copy()
    for access, page in ((1, 12), (5, 13), (7, 15)):
        table[table == access] = page
    patch.setattr(arrays, "_CAUSE", table)


def marks(change: Callable[[Words], Words]) -> Plant:
    """Plants other bits that are set in leaves."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = arrays._answers.__wrapped__

        @cache
        def answers(sets_marks: bool) -> tuple[Bytes, Words]:
            reasons, found = original(sets_marks)
            return reasons, change(found)

        patch.setattr(arrays, "_answers", answers)

    return plant


def pages(change: Callable[[Shape], Shape]) -> Plant:
    return with_shapes(lambda shape: shape if shape.points else change(shape))


ANY = (7, 2)
TEN = (10, 0)
"""The series from which on QEMU's answers tell a fault from what is right: QEMU 7.2 departs itself
where a fault is of a later one, or has not what the fault is about."""

FAULTS: dict[str, tuple[tuple[int, int], Plant]] = {
    "W without R accepted": (ANY, accepts("W without R")),
    "a misaligned superpage accepted": (ANY, accepts("below a superpage")),
    "NAPOT pages of all sizes accepted": (ANY, accepts("of another size")),
    "bits 60:54 of pointers accepted": (TEN, accepts("54", leaves=False)),
    "bits 60:54 of leaves accepted": (TEN, accepts("54", pointers=False)),
    "U, A or D in pointers accepted": (ANY, accepts("in a pointer")),
    "PBMT in pointers accepted": (ANY, accepts("PBMT where", leaves=False)),
    "PBMT=3 accepted": (TEN, accepts("PBMT=3")),
    "N in pointers accepted": (ANY, accepts("N where", leaves=False)),
    "G of pointers reserved": (ANY, reserves(1 << 5, pointers=True)),
    "G of leaves reserved": (ANY, reserves(1 << 5, pointers=False)),
    "the address of a page one bit short": (ANY, pages(address_one_bit_short)),
    "a NAPOT page's offset that of its slot": (ANY, with_levels(napot_size_of_a_slot)),
    "A and D always set": (TEN, flag(sets_marks=True)),
    "A and D never set": (ANY, flag(sets_marks=False)),
    "U-mode may use pages of S-mode": (
        ANY,
        denied_otherwise(
            lambda access, leaf, sum, mxr: DENIED(
                access, leaf | (U if access.user else 0), sum, mxr
            )
        ),
    ),
    "SUM ignored": (
        ANY,
        denied_otherwise(lambda access, leaf, sum, mxr: DENIED(access, leaf, False, mxr)),
    ),
    "MXR ignored": (
        ANY,
        denied_otherwise(lambda access, leaf, sum, mxr: DENIED(access, leaf, sum, False)),
    ),
    "SUM lets S-mode execute": (ANY, denied_otherwise(sum_changes_fetches)),
    "MXR lets writes through": (ANY, denied_otherwise(execute_only_with_mxr_for_writes)),
    "a fetch needs R": (
        ANY,
        denied_otherwise(
            lambda access, leaf, sum, mxr: DENIED(
                access, leaf if leaf & R or access.kind is not Kind.FETCH else leaf & ~X, sum, mxr
            )
        ),
    ),
    "every page can be written": (
        ANY,
        denied_otherwise(lambda access, leaf, sum, mxr: DENIED(access, leaf | W, sum, mxr)),
    ),
    "D=0 never faults": (
        TEN,
        unmarked_otherwise(lambda access, leaf, sets: UNMARKED(access, leaf | D, sets)),
    ),
    "A=0 never faults": (
        TEN,
        unmarked_otherwise(lambda access, leaf, sets: UNMARKED(access, leaf | A, sets)),
    ),
    "D=0 faults in reads": (
        TEN,
        unmarked_otherwise(
            lambda access, leaf, sets: UNMARKED(Access(Kind.WRITE, access.user), leaf, sets)
        ),
    ),
    "stores set no D": (ANY, marks(lambda found: found & ~np.uint64(D))),
    "reads set D": (ANY, marks(lambda found: found | np.uint64(D))),
    "nothing is set": (ANY, marks(np.zeros_like)),
    "stores are reported as loads": (ANY, stores_that_are_loads),
    "fetches are reported as loads": (ANY, fetches_that_are_loads),
    "a table without memory is a page fault": (TEN, tables_without_memory_are_absent),
    "what is malformed has no memory": (ANY, arrays_end(End.MALFORMED, Reason.NO_MEMORY)),
    "fetches have tags": (TEN, arrays_mask_fetches),
    "tags masked by the other mode's PMM": (TEN, arrays_exchange_pmm),
    "no upper half": (ANY, halves(lambda width: signed_halves(width)[:1])),  # type: ignore[arg-type, return-value]
    "A of an AMO that is denied never set": (ANY, without_speculation),
}


def test_without_a_fault_nothing_is_found(running: Guest, few: Plan) -> None:
    assert found_out_in(running, few).failures == []


def test_every_field_of_a_result_is_looked_at(few: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    batches, lanes = noted(monkeypatch, run, "agreeing"), Counter[str]()
    assert not tried(replace(few, work=few.work[::8])).failures
    for one in batches:
        _, made, jobs, _, wanted = one.asked
        fails, fetch = wanted.cause != arrays.ALLOWED, made.access == ACCESSES.index("fetch")
        levels, every = len(made.words), (0, 17, 63)
        # A store shows, be it of all bytes or of any.
        was, stored = jobs["word"][:, levels][~fetch], jobs["value"][~fetch]
        assert all(((was ^ stored) >> np.uint64(8 * at) & np.uint64(0xFF)).any() for at in range(8))
        assert (was != stored).all()
        seen: Seen = {
            **entries(levels, fails),
            f"after {levels}": (~fetch, every),
            "completed": (fails | ~fails, (0,)),
            "cause": (fails | ~fails, (0, 3)),
            "data": (fails | ~fails, every),
            "tval": (fails, every),
            "epc": (fetch, every),
        }
        lanes.update(looked_at(one, seen))
    assert min(lanes.values()) > 20


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_is_wrong_disagrees_with_the_machine(
    fault: str,
    running: Guest,
    few: Plan,
    version: tuple[int, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    since, plant = FAULTS[fault]
    if version < since:
        pytest.skip(f"QEMU {version[0]}.{version[1]} departs in the same way, or has no such bit")
    plant(monkeypatch)
    assert found_out_in(running, few).disagreed.total() > 0


@pytest.mark.parametrize("one", quirks.JUDGED, ids=lambda one: one.name)
def test_a_quirk_that_is_not_known_is_a_disagreement(
    one: judged.RiscvQuirk, version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not expected_of(one, "tcg", version):
        pytest.skip(f"{one.name} is not of QEMU {'.'.join(map(str, version))}")
    others = tuple(other for other in quirks.JUDGED if other is not one)
    monkeypatch.setattr(quirks, "JUDGED", others)
    few = sampled(planned("sv32" if "riscv32" in one.name else "sv39"), 17)
    assert found_out(few).disagreed.total() > 0


def test_a_quirk_that_is_gone_is_news_and_no_disagreement(
    version: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if version < TEN:
        pytest.skip(f"QEMU {version[0]}.{version[1]} has all of the quirks that 10.0 has lost")
    gone = {one.name for one in quirks.JUDGED if one.until and one.until <= version}
    known = tuple(replace(one, until=None) for one in quirks.JUDGED)
    monkeypatch.setattr(quirks, "JUDGED", known)
    news = set[str]()
    for mode in ("sv32", "sv39"):
        few = sampled(planned(mode), 17)
        report = tried(few)
        assert report.failures == [] and report.disagreed.total() == 0
        assert report.comparison.compared == len(few)
        news |= set(report.comparison.news)
    assert news >= {f"{name} did not show" for name in gone}


def test_what_cannot_be_tried_is_one_sentence() -> None:
    if reason := why_absent(64):
        pytest.skip(reason)
    with pytest.raises(Misuse, match="there is no axis 'nothing'"):
        plan("quick", ["sv39"], "tcg", QEMU, "nothing=1")
    with pytest.raises(Misuse, match="no case satisfies 'level=2 and family=span'"):
        plan("quick", ["sv39"], "tcg", QEMU, "level=2 and family=span")
