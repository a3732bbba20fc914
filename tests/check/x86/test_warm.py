"""The sequences are those that the matrix promises, and in them changes what they say, no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.check.quirk import Quirk
from harness.check.x86.matrix import chain as chains
from harness.check.x86.matrix import families as declared
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix import sequence
from harness.check.x86.matrix.chain import FLUSHES, Lanes
from harness.check.x86.matrix.families import Family
from harness.check.x86.matrix.rig import Rig, guest_of
from harness.check.x86.matrix.run import Plan
from harness.check.x86.matrix.stage import MODES, Change, Control, Model
from harness.check.x86.matrix.warm import KEY_CHANGES, KEY_NOT_KEPT, PVM_KEEPS_XD, sequences
from harness.check.x86.quirks import PVM_KEEPS_XD_PAGE, known_of
from harness.check.x86.second_reading import Reading, Stop, by_tables
from harness.machine.x86.engines import executor, why_absent
from harness.machine.x86.guest import Guest
from harness.paging.x86.access import Kind
from harness.paging.x86.bulk import ALLOWED
from tests.check.x86.test_families import EVERY_MODE, MODELS, chain
from tests.check.x86.test_matrix import QEMU, processor, tried

PAGE_SIZES = {"32": [12, 22], "pae": [12, 21], "4": [12, 21, 30], "5": [12, 21, 30]}
NONE, PAGE = FLUSHES.index("none"), FLUSHES.index("page")


def some(model: Model, name: str) -> list[Family]:
    return [one for one in sequences("quick", [model]) if one.name == name]


def lanes_of(one: Family) -> list[Lanes]:
    """All legal cases, step by step."""
    numbers = np.flatnonzero(one.product.legal())
    return [
        declared.lanes(one, chain(one.model), numbers, step, again=number > 0)
        for number, step in enumerate(one.steps)
    ]


def changes(model: Model) -> Iterator[tuple[Family, Change, str, bool, bool]]:
    """Each control bit that changes, what it was, and whether that goes without a flush."""
    for one in some(model, "change"):
        flushes = {axis.name: axis.values for axis in one.product.axes}["flush"]
        for control in one.controls:
            assert isinstance(control, Change)
            first, then = control.first.values(), control.then.values()
            (name,) = (name for name in first if first[name] != then[name])
            yield one, control, name, bool(first[name]), "none" in flushes


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_every_control_bit_is_set_and_cleared_between_accesses(model: Model) -> None:
    seen = {(name, was) for _, _, name, was, _ in changes(model)}
    bits = {"WP", "NXE", "SMEP", "SMAP", *(("PKE", "PKS") if model.long else ())}
    assert {(bit, was) for bit in bits for was in (False, True)} <= seen
    if model.long:
        assert {"PKRU", "PKRS"} <= {name for name, _ in seen}


def test_full_changes_every_bit_under_more_states_than_quick() -> None:
    states = {
        (preset, name): {
            frozenset(control.first.values().items())
            for one in sequences(preset, MODELS[:1])
            if one.name == "change"
            for control in one.controls
            if isinstance(control, Change)
            and control.first.values()[name] != control.then.values()[name]
        }
        for preset in ("quick", "full")
        for name in ("WP", "SMEP", "SMAP", "NXE")
    }
    for name in ("WP", "SMEP", "SMAP", "NXE"):
        assert states["quick", name] < states["full", name], name


IN_PRESET = {
    ("quick", "alias"): (set[str](), {Control(), Control(wp=False)}),
    ("full", "alias"): ({"here.XD", "there.set"}, set(declared.ONE_OFF)),
    ("quick", "twice"): (set[str](), {Control(), declared.ALL_OFF}),
    ("full", "twice"): (set[str](), set(declared.ONE_OFF)),
}
"""The axes that are of one preset alone, and the control states."""


@pytest.mark.parametrize(("preset", "name"), IN_PRESET)
def test_full_varies_more_than_quick(preset: str, name: str) -> None:
    more, states = IN_PRESET[preset, name]
    some = [one for one in sequences(preset, MODELS[:1]) if one.name == name]
    for one in some:
        axes = {axis.name for axis in one.product.axes}
        assert axes & {"here.XD", "there.set"} == more and set(one.controls) == states
    if name == "alias":
        axes_of = [{axis.name: axis.array for axis in one.product.axes} for one in some]
        parted = {int(axes["parting"][0]) - int(axes["page"][0]) for axes in axes_of}
        assert parted == ({0, 1, 2, 3} if preset == "full" else {0, 1})


@pytest.mark.parametrize(
    ("preset", "keys", "acs"),
    [("quick", (0, 4, 5, 6, 7), (0,)), ("full", tuple(range(16)), (0, 1))],
)
def test_keys_are_tried_with_every_right(
    preset: str, keys: tuple[int, ...], acs: tuple[int, ...]
) -> None:
    """All keys in full, with EFLAGS.AC, and in quick those that have all rights."""
    some = 0
    for one in sequences(preset, MODELS[:1]):
        axes = {axis.name: axis.values for axis in one.product.axes}
        if "key" in axes:
            some += 1
            assert (axes["key"], axes["ac"], axes["first.ac"]) == (keys, acs, acs)
    assert some == 3 * 3  # what changes, is heeded, and no longer is; in each size of page


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_the_state_is_another_at_the_third_access_and_that_before_at_the_fourth(
    model: Model,
) -> None:
    """Which goes back where nothing needs a flush; the first access is another than the rest."""
    for one in some(model, "change"):
        changed, accesses = zip(*((step.then, step.access) for step in one.steps), strict=True)
        assert changed == (False, False, True, False)[: len(changed)] and len(changed) > 2
        assert accesses == ("first.", *[""] * (len(accesses) - 1))
    for name in ("twice", "alias"):
        assert not any(step.then for one in some(model, name) for step in one.steps)


@pytest.mark.parametrize("name", ["twice", "alias"])
def test_the_first_access_is_made_whosever_the_page_is(name: str) -> None:
    """With SMAP too, so that a translation is there at the next."""
    made = 0
    for one in some(MODELS[0], name):
        first = lanes_of(one)[0]
        reading = Reading(by_tables(one.model.cpu(Control()), first.cases, first.words))
        page = (reading.walked.stop == Stop.PAGE) & (first.kind == Kind.READ)
        assert reading.allowed[page].all()
        made += int((page & reading.user_page).sum())
    assert made > 100


@pytest.mark.parametrize("known", [(), (PVM_KEEPS_XD_PAGE,)], ids=["others", "pvm"])
def test_pvm_alone_is_spared_what_it_keeps_without_nxe(known: tuple[Quirk, ...]) -> None:
    spared = set[bool]()
    for one in sequences("quick", MODELS[:1], known):
        cleared = any(control.first.nxe > control.then.nxe for control in one.controls)
        assert (PVM_KEEPS_XD in one.product.rules) == (cleared and bool(known))
        spared.add(cleared)
    assert spared == {False, True}


def test_keys_change_in_one_register_at_a_time_and_always_withhold_something() -> None:
    changed = set[tuple[str, ...]]()
    for one in KEY_CHANGES:
        first, then = one.first.values(), one.then.values()
        assert all(keys[name] for keys in (first, then) for name in ("PKE", "PKS", "PKRU", "PKRS"))
        changed.add(tuple(name for name in first if first[name] != then[name]))
        assert Change(one.then, one.first) in KEY_CHANGES
    assert changed == {("PKRU",), ("PKRS",), ("WP",)}


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_each_size_of_page_is_there_when_the_state_changes(model: Model) -> None:
    format = model.format
    sizes = {format.levels[level].shift for one in some(model, "change") for level in one.varied}
    assert sorted(sizes) == (PAGE_SIZES[model.mode] if model.pse else [12])


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_between_accesses_nothing_is_flushed_but_where_a_rule_asks_for_it(model: Model) -> None:
    for one in sequences("quick", [model]):
        if not one.product.legal().any():
            continue
        first, *later = lanes_of(one)
        assert (first.flush == PAGE).all()
        flushes = np.concatenate([lanes.flush for lanes in later])
        assert set(flushes.tolist()) <= {NONE, PAGE}
        needy = any(rule.reason.startswith("a translation made") for rule in one.product.rules)
        assert (flushes == PAGE).any() == needy


def test_xd_needs_a_flush_once_nxe_is_cleared_and_keys_once_they_are_heeded() -> None:
    for one, _, name, was, _ in changes(MODELS[0]):
        again, (level,) = lanes_of(one)[1], one.varied
        flush, xd = again.flush, again.words[level] >> np.uint64(63) == 1
        if (name, was) == ("NXE", True):
            assert set(flush[xd].tolist()) == {PAGE}
            assert set(flush[~xd].tolist()) == {NONE, PAGE}
        elif (name, was) in (("PKE", False), ("PKS", False)):
            assert set(flush.tolist()) == {PAGE}
        else:
            assert set(flush.tolist()) == {NONE}


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_data_and_code_are_in_one_frame_at_different_addresses(model: Model) -> None:
    for one in sequences("quick", [model]):
        steps = lanes_of(one)
        for here in (False, True):
            mine = [s for s, step in zip(steps, one.steps, strict=True) if step.there == here]
            assert all(np.array_equal(s.words, mine[0].words) for s in mine)
        base = declared.home(model) - 0x400 ^ 0x4000
        upper = (1 << 64) - (1 << {"4": 47, "5": 56}.get(model.mode, 64))
        bases = {base, upper | base} if one.model.lass else {base}
        for lanes, step in zip(steps, one.steps, strict=True):
            if not step.there:
                fetch = lanes.kind == 2
                assert set(lanes.address[fetch].tolist()) <= {first + 16 for first in bases}
                assert set(lanes.address[~fetch].tolist()) == bases


@pytest.mark.parametrize("model", EVERY_MODE, ids=str)
def test_the_other_address_is_the_neighbour_at_the_entry_where_the_paths_part(model: Model) -> None:
    parted = set()
    for one in some(model, "alias"):
        steps = lanes_of(one)
        here = next(s for s, step in zip(steps, one.steps, strict=True) if not step.there)
        there = next(s for s, step in zip(steps, one.steps, strict=True) if step.there)
        (parting,) = {axis.name: axis.values for axis in one.product.axes}["parting"]
        (page,) = {axis.name: axis.values for axis in one.product.axes}["page"]
        distance = (here.address ^ there.address) & ~np.uint64(16)
        assert set(distance.tolist()) == {1 << model.format.levels[int(parting)].shift}
        for level in range(model.levels):
            if level != parting:
                assert np.array_equal(here.words[level], there.words[level])
        assert (here.page == page).all()
        parted.add((parting, page))
    pages = [n for n, level in enumerate(model.format.levels) if level.leaf]
    wanted = {(part, page) for page in pages for part in (page, page + 1) if part < model.levels}
    assert parted == wanted


ACCESS_C = {
    "corrupt_hugepage_trigger": "family=alias and parting=1 and page=1 and accesses=4 and WP=1"
    " and here.RW=0 and there.RW=1 and here.US=0 and there.US=0 and first.access=read"
    " and access=write and by=supervisor and there.P=1 and there.XD=0",
    "check_pfec_on_prefetch_pte": "family=alias and parting=0 and page=0 and first.access=read"
    " and here.RW=0 and here.US=0 and there.RW=0 and there.US=0 and there.XD=1 and access=read",
    "check_large_pte_dirty_for_nowp": "family=alias and parting=1 and page=1 and WP=0"
    " and here.RW=0 and there.RW=0 and first.access=read and access=write and by=supervisor",
    "check_smep_andnot_wp": "family=change and WP=0 and SMEP=1 and RW=0 and US=1"
    " and first.access=write and first.by=supervisor and first.ac=1 and access=fetch"
    " and by=supervisor",
    "check_toggle_cr0_wp": "family=change and WP!=1 and then.WP=1 and RW=0 and access=write"
    " and by=supervisor and flush=none",
    "check_effective_sp_permissions": "family=alias and parting=2 and page=1 and here.RW=1"
    " and there.RW=0 and access=write and by=user",
    "TWICE": "family=twice and level=0 and A=0 and D=0 and access=write and by=user",
    "write_cr4_safe(LA57)": "family=load and changed in (12, 4+12)",
}
"""The sequences of kvm-unit-tests' x86/access.c, by its functions."""


@pytest.mark.parametrize("function", ACCESS_C)
def test_what_access_c_tries_in_sequence_is_there(function: str) -> None:
    assert len(matrix.plan("quick", ["4"], "tcg", processor(), ACCESS_C[function])) > 0


def test_a_change_is_selected_by_what_was_and_what_comes() -> None:
    where = "family=change and SMEP=1 and then.SMEP=0"
    plan = matrix.plan("quick", ["5"], "tcg", processor(), where)
    controls = {control for part in plan.work for control in part.controls}
    assert controls == {Change(Control(), Control(smep=False))}
    assert len(plan) == sum(4 * len(part.numbers) for part in plan.work)


def test_a_case_shows_what_changes() -> None:
    one = next(one for one, _, name, _, _ in changes(MODELS[0]) if name == "WP")
    case = one.case(Change(Control(), Control(wp=False)), 0)
    assert " PGE=1 then.WP=0 level=0 RW=0 US=0 XD=0 PS=0 flush=none " in case
    keyed = declared.keyed(8, 2)
    assert " PKRU=0x8 PKRS=0 then.PKRU=0x4 " in one.case(Change(keyed, replace(keyed, pkru=4)), 0)


# ---- the machine ----


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    model = Model("4")
    with guest_of("tcg", model.guest, QEMU) as guest:
        yield Rig(guest)


@pytest.mark.hw
def test_the_jobs_of_a_case_write_its_entries_once_and_name_their_states(rig: Rig) -> None:
    one = next(one for one in some(MODELS[0], "alias") if len(one.steps) == 4)
    there = rig.chain(one.model)
    numbers = np.flatnonzero(one.product.legal())[:3]
    lanes = [
        declared.lanes(one, there, numbers, step, again=number > 0)
        for number, step in enumerate(one.steps)
    ]
    steps = [replace(step, then=number == 2) for number, step in enumerate(one.steps)]
    asked = sequence.ask(rig.guest, there, steps, lanes)
    jobs, enums = asked.jobs.reshape(3, 5), rig.guest.image.enums
    assert jobs["patched"][0].tolist() == [4, 5, 1, 1, 1]
    assert jobs["watched"][0].tolist() == [0, 5, 5, 5, 5]
    control = [enums[f"CONTROL_{name}"] for name in ("FIRST", "FIRST", "THEN", "FIRST")]
    assert jobs["control"][0].tolist() == [0, *control]
    flushes = [enums[f"FLUSH_{name}"] for name in ("PAGE", "PAGE", "NONE", "NONE", "NONE")]
    assert jobs["flush"][0].tolist() == flushes
    entries = there.tables[0].address, there.tables[-1].address + 4096
    data = jobs["where"][:, 2:, 0]
    assert not ((data >= entries[0]) & (data < entries[1])).any()


@pytest.mark.hw
def test_translations_are_kept_between_the_accesses_of_a_case(rig: Rig) -> None:
    """Where TCG may keep one without its key, which a rule leaves out, it does so: PKE is set, and
    what was read before is read again."""
    for one, control, name, was, _ in changes(MODELS[0]):
        if (name, was) == ("PKE", False):
            assert KEY_NOT_KEPT in one.product.rules
            rules = tuple(rule for rule in one.product.rules if rule is not KEY_NOT_KEPT)
            bold = replace(one, product=replace(one.product, rules=rules), controls=(control,))
            part = matrix.Work(bold, (control,), np.flatnonzero(bold.product.legal()))
            (report,) = matrix.tried_on(rig, [part])
            assert report.comparison.disagreed > 0
            assert all(" flush=none " in case.values for case in report.failures)
            assert all(case.values.endswith(" step=3") for case in report.failures)
            return
    raise AssertionError("no family sets PKE")


@pytest.mark.hw
def test_pvm_keeps_what_it_is_spared() -> None:
    if reason := why_absent("kvm", program=QEMU):
        pytest.skip(reason)
    model = Model("4")
    with Guest("kvm", ram_bytes=model.ram_bytes, program=QEMU) as guest:
        if PVM_KEEPS_XD_PAGE not in known_of(*executor(guest)):
            pytest.skip(f"KVM is {executor(guest)} here, which has not this quirk")
        where = (
            "family=change and NXE=1 and then.NXE=0 and flush=page and XD=1 and US=1 and by=user"
        )
        expected = f"{where} and level=0 and access=read"
        spared = matrix.plan("quick", ["4"], "kvm", guest.info, where, executor=executor(guest))
        assert {part.family.name for part in spared.work} == {"change"}
        assert PVM_KEEPS_XD.reason in spared.left_out
        plan = matrix.plan("quick", ["4"], "kvm", guest.info, expected)
        (report,) = matrix.tried_on(Rig(guest), plan.work)
        cases = len(plan) // 3
        assert report.comparison.disagreed == cases
        assert all(case.values.endswith(" step=3") for case in report.failures)


@pytest.mark.hw
def test_what_a_guest_saw_is_compared_in_all_that_it_reports(rig: Rig) -> None:
    """Each number in turn, the words that it watches too, is another than it was."""
    one = next(
        one
        for one in declared.families("quick", [MODELS[0]], ())
        if one.name == "rights" and not one.model.amd
    )
    there = rig.chain(one.model)
    there.put_code(*declared.code_places(one))
    numbers = np.flatnonzero(one.product.legal())[::97]
    question = chains.ask(rig.guest, there, declared.lanes(one, there, numbers))
    batch = rig.batch(there, one.model.cpu(one.controls[0].first, there.cpu), question)
    rig.start(batch)
    results = rig.guest.finish()[: len(question)]
    verdicts = rig.judge(batch, results)
    assert verdicts.agree.all()
    kinds = question.lanes.kind
    allowed, code = verdicts.rules.vector == ALLOWED, kinds == Kind.FETCH
    compared = {
        "vector": ~allowed | code,
        "rip": allowed & code,
        "data": allowed & (code | (kinds == Kind.READ)),
        "error": ~allowed,
        "cr2": ~allowed,
        "completed": np.ones(len(kinds), np.bool_),
    }
    for name, lanes in compared.items():
        other = results.copy()
        other[name] ^= other.dtype[name].type(1)
        assert lanes.any() and not rig.judge(batch, other).agree[lanes].any(), name
    for word in range(question.last + 1):
        other = results.copy()
        other["after"][:, word] ^= np.uint64(1 << 9)
        assert not rig.judge(batch, other).agree.any(), word


@pytest.mark.hw
@pytest.mark.parametrize("mode", MODES)
def test_every_access_of_a_case_is_counted(mode: str) -> None:
    plan = matrix.plan("quick", [mode], "tcg", processor(), "family=alias and accesses=3")
    report = tried(Plan("tcg", plan.work[:1], plan.skipped, plan.left_out), 1)
    assert report.comparison.compared == len(plan.work[0])
    assert len(plan.work[0]) == 3 * len(plan.work[0].numbers) * len(plan.work[0].controls)
    assert report.by_rule.total() == report.comparison.compared
