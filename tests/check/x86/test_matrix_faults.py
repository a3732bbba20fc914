"""The matrix is tested: each rule broken in the reference, it must disagree with the machine.

The faults are planted in what the reference consists of: formats (which bits mean what), walks,
and rights.  Each is looked for in as much of the quick preset as its condition selects; that the
reference unharmed agrees there is what the tests of that preset hold.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from pytest import MonkeyPatch

from harness.check.x86.matrix import families
from harness.check.x86.matrix import run as matrix
from harness.check.x86.matrix.families import Family
from harness.check.x86.matrix.rig import Rig, guest_of
from harness.check.x86.matrix.stage import MODES, Model
from harness.machine.machine import Processor
from harness.machine.x86.engines import why_absent
from harness.machine.x86.guest import Guest
from harness.paging.bulk import End
from harness.paging.x86.access import Kind, Reason, Vector
from harness.paging.x86.bulk import ALLOWED, REASONS
from tests.check.x86.plants import (
    I_ERROR,
    PK_ERROR,
    PKE,
    PKS,
    PS,
    RSVD_ERROR,
    RW,
    SMAP,
    SMEP,
    U_ERROR,
    US,
    W_ERROR,
    WP,
    XD,
    A,
    D,
    G,
    P,
    Plant,
    all_granted,
    all_loaded,
    all_pointers,
    also_reserved,
    as_of_width,
    clean_below_accessed,
    dirty_once_read,
    ends_bottom_up,
    error_bits,
    granted,
    in_answer,
    in_cpu,
    in_ends,
    in_formats,
    in_keys,
    in_levels,
    in_marks,
    in_push,
    in_question,
    in_shift,
    in_vector,
    in_walks,
    kept,
    left_to_its_path,
    moved,
    not_reserved,
    of_another_cpu,
    of_one_path,
    of_the_other_vendor,
    raised_in,
    reserved_leaf,
    rights_before_presence,
    user_where_keyed,
    with_,
    with_pse,
    without,
    without_in,
)
from tests.paging.plants import without_absence

pytestmark = pytest.mark.hw

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
LONG = "maxphyaddr=40 and page1gb=1 and amd=0 and PSE=1"
PLACES = {
    "32": "maxphyaddr=40 and pse36=1",
    "pae": "maxphyaddr=40 and PSE=1",
    "4": LONG,
    "5": LONG,
}

ENTRY = "family=entry and level={} and G=0 and A=0 and D=0"
IN_LONG_MODE: dict[str, tuple[str, str, Plant]] = {
    # ---- bits of entries ----
    **{
        f"bit 40 is not reserved at level {level}": (
            "5",
            f"{ENTRY.format(level)} and set=40",
            not_reserved(1 << 40, level),
        )
        for level in range(5)
    },
    **{
        f"bit 51 is not reserved at level {level}": (
            "5",
            f"{ENTRY.format(level)} and set=51",
            not_reserved(1 << 51, level),
        )
        for level in range(5)
    },
    **{
        f"bit {bit} of a large page is not reserved": (
            "4",
            f"{ENTRY.format(level)} and PS=1 and set={bit}",
            not_reserved(1 << bit, level),
        )
        for level, bit in ((1, 13), (1, 20), (2, 13), (2, 29))
    },
    **{
        f"PS is not reserved at level {level}": (
            "5",
            f"{ENTRY.format(level)} and PS=1 and set=none",
            not_reserved(PS, level),
        )
        for level in (3, 4)
    },
    "bits above the address are reserved": (
        "4",
        f"{ENTRY.format(0)} and set in (52, 58)",
        also_reserved((1 << 62) - (1 << 52)),
    ),
    "PS is ignored in a PDPTE": (
        "4",
        f"{ENTRY.format(2)} and PS=1 and set=none",
        all_pointers(2),
    ),
    # ---- walks ----
    "a page of level 2 is elsewhere": (
        "4",
        "family=place and level=2 and US=1 and access=read",
        moved(1 << 12, 2),
    ),
    "the offset in a large page is that in a small one": (
        "4",
        "family=place and level=1 and US=1 and access=write",
        in_walks(
            lambda walks, _: replace(
                walks,
                physical=np.where(
                    walks.level == 1,
                    walks.physical & ~np.uint64(0x1FF000),
                    walks.physical,
                ),
            )
        ),
    ),
    "addresses of five levels are canonical by 48 bits": (
        "5",
        "family=place and level=0",
        as_of_width(48),
    ),
    "addresses of four levels are canonical by 57 bits": (
        "4",
        "family=place and level=0",
        as_of_width(57),
    ),
    "an entry below that is not present comes first": (
        "4",
        "family=pair and upper=2 and lower=1 and lower.P=0",
        in_walks(ends_bottom_up),
    ),
    "a level between is left out of the rights": (
        "5",
        "family=rights and WP=1 and by=user",
        granted(lambda given: np.bitwise_and.reduce(np.delete(given, 2, axis=0))),
    ),
    # ---- rights ----
    "a fetch is a read": (
        "4",
        f"{ENTRY.format(0)} and XD=1",
        in_question(kind=lambda kind: np.where(kind == Kind.FETCH, Kind.READ, kind)),
    ),
    # ---- what a fault reports ----
    "RSVD is never set": ("4", f"{ENTRY.format(1)} and set=51", error_bits(RSVD_ERROR)),
    "CR2 is set by a protection fault": (
        "4",
        "family=place and level=0",
        in_answer(lambda out, _: replace(out, sets_cr2=out.vector != ALLOWED)),
    ),
    "a non-canonical address is a page fault": (
        "4",
        "family=place and level=0",
        in_answer(
            lambda out, _: replace(
                out,
                vector=np.where(out.vector == Vector.GP, Vector.PF, out.vector).astype(np.uint8),
            )
        ),
    ),
    # ---- A and D ----
}

EVERYWHERE: dict[str, tuple[str, Plant]] = {
    # ---- bits of entries ----
    "P is ignored": (
        f"{ENTRY.format(1)} and P=0",
        in_levels(lambda _, level: without_absence(level)),
    ),
    "R/W and U/S are swapped": (
        f"{ENTRY.format(0)} and set=none",
        in_formats(lambda f: replace(f, rights={**f.rights, "write": US, "user": RW})),
    ),
    "G is reserved": ("family=entry and level=0 and G=1 and set=none", also_reserved(G)),
    "A is reserved": ("family=entry and level=0 and A=1 and set=none", also_reserved(A)),
    "D is reserved in pointers": (
        "family=entry and level=1 and D=1 and set=none",
        also_reserved(D),
    ),
    "the software's bits are reserved": (
        f"{ENTRY.format(0)} and set=11",
        also_reserved(1 << 11),
    ),
    "PAT of a small page is reserved": (
        f"{ENTRY.format(0)} and PAT=1",
        in_levels(lambda n, level: level if n else reserved_leaf(level, PS)),
    ),
    "PAT of a large page is reserved": (
        f"{ENTRY.format(1)} and PAT=1 and PS=1 and PSE=1",
        also_reserved(1 << 12, pointers=False),
    ),
    "PS is ignored": (f"{ENTRY.format(1)} and PS=1 and set=none and PSE=1", all_pointers(1)),
    # ---- walks ----
    "levels are swapped": (
        "family=pair and upper=1 and lower=0",
        in_walks(lambda walks, _: replace(walks, level=walks.level ^ np.uint8(1))),
    ),
    **{
        f"a page of level {level} is elsewhere": (
            f"family=place and level={level} and US=1 and access=read and offset=middle",
            moved(1 << 12 if level else 1 << 13, level),
        )
        for level in (0, 1)
    },
    "rights come before presence": (
        "family=pair and upper=1 and lower=0 and lower.P=0 and upper.US=0",
        in_walks(rights_before_presence),
    ),
    "the leaf alone gives rights": ("family=rights and WP=1", granted(lambda given: given[0])),
    "the root's entry alone gives rights": (
        "family=rights and WP=1",
        granted(lambda given: given[-1]),
    ),
    "any entry gives rights": ("family=rights and WP=1", granted(np.bitwise_or.reduce)),
    # ---- rights ----
    "the user may access all pages": (f"{ENTRY.format(1)} and by=user", all_granted(US)),
    "all pages can be written": (f"{ENTRY.format(1)} and access=write", all_granted(RW)),
    "WP is ignored": (f"{ENTRY.format(0)} and access=write", without("cr0", WP)),
    "WP always holds": (f"{ENTRY.format(0)} and access=write", with_("cr0", WP)),
    "SMEP is ignored": (f"{ENTRY.format(0)} and access=fetch", without("cr4", SMEP)),
    "SMEP always holds": (f"{ENTRY.format(0)} and access=fetch", with_("cr4", SMEP)),
    "SMAP is ignored": (f"{ENTRY.format(0)} and access=read", without("cr4", SMAP)),
    "SMAP always holds": (f"{ENTRY.format(0)} and access=read", with_("cr4", SMAP)),
    "EFLAGS.AC is ignored": (f"{ENTRY.format(0)} and access=push", in_question(ac=np.zeros_like)),
    "EFLAGS.AC always holds": (
        f"{ENTRY.format(0)} and access=write",
        in_question(ac=np.ones_like),
    ),
    "all accesses are the user's": (ENTRY.format(0), in_question(user=np.ones_like)),
    "all accesses are the supervisor's": (ENTRY.format(0), in_question(user=np.zeros_like)),
    "a write is a read": (
        f"{ENTRY.format(0)} and RW=0",
        in_question(kind=lambda kind: np.where(kind == Kind.WRITE, Kind.READ, kind)),
    ),
    "a push is a read": (
        f"{ENTRY.format(0)} and access=push",
        in_question(kind=lambda kind: np.where(kind == Kind.PUSH, Kind.READ, kind)),
    ),
    "an implicit access is the user's": (
        f"{ENTRY.format(0)} and access=descriptor and by=user",
        in_question(implicit=np.zeros_like, user=np.ones_like),
    ),
    "an implicit access heeds AC": (
        f"{ENTRY.format(0)} and access=descriptor and by=user",
        in_question(implicit=np.zeros_like),
    ),
    # ---- sequences ----
    **{
        f"a change of {name} counts after a flush alone": (
            f"family=change and {name}={old} and then.{name}={1 - old} and flush=none",
            kept(register),
        )
        for name, register in (("WP", "cr0"), ("SMEP", "cr4"), ("SMAP", "cr4"))
        for old in (0, 1)
    },
    "D is set in what was read": ("family=twice and level=0 and access=read", dirty_once_read()),
    "rights of one address hold at the other": ("family=alias and page=1", of_one_path()),
    "A and D are those of one address": ("family=alias and page=0", left_to_its_path()),
    # ---- what a fault reports ----
    "P is clear for a right that is missing": (f"{ENTRY.format(0)} and P=1", error_bits(P)),
    "P is set for an entry that is absent": (
        f"{ENTRY.format(0)} and P=0",
        error_bits(raised=P),
    ),
    "W is never set": (f"{ENTRY.format(1)} and P=0", error_bits(W_ERROR)),
    "U is never set": (f"{ENTRY.format(1)} and P=0", error_bits(U_ERROR)),
    "I is never set": (f"{ENTRY.format(1)} and P=0", error_bits(I_ERROR)),
    "I is set without NXE and SMEP": (
        "family=entry and level=1 and P=0 and access=fetch and NXE=0 and SMEP=0",
        error_bits(raised=I_ERROR),
    ),
    "CR2 is not set by a page fault": (
        f"{ENTRY.format(1)} and P=0",
        in_answer(lambda out, _: replace(out, sets_cr2=np.zeros_like(out.sets_cr2))),
    ),
    # ---- A and D ----
    "A is not set in the leaf": (
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda sets: without_in(sets, 0, A)),
    ),
    "A is not set in the root's entry": (
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda sets: without_in(sets, len(sets) - 1, A)),
    ),
    "D is not set by a write": (
        f"{ENTRY.format(0)} and set=none and access=write",
        in_marks(lambda sets: sets & ~np.uint64(D)),
    ),
    "D is not set by a push": (
        f"{ENTRY.format(0)} and set=none and access=push",
        in_marks(lambda sets: sets & ~np.uint64(D)),
    ),
    "D is not set where A was set in two entries": (
        "family=accessed and upper=1 and lower=0 and access=write",
        in_marks(clean_below_accessed),
    ),
    "D is set by every access": (
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda sets: raised_in(sets, 0)),
    ),
    "D is set in pointers": (
        f"{ENTRY.format(0)} and set=none",
        in_marks(lambda sets: raised_in(sets, 1)),
    ),
}

IN_EIGHT_BYTES: dict[str, tuple[str, Plant]] = {
    "the highest address bit is reserved": (
        f"{ENTRY.format(0)} and set=39",
        also_reserved(1 << 39),
    ),
    "XD is not reserved without NXE": (
        f"{ENTRY.format(0)} and NXE=0 and XD=1",
        not_reserved(XD),
    ),
    "NXE counts after a flush alone": (
        "family=change and NXE=0 and then.NXE=1 and flush=none",
        kept("efer"),
    ),
    "XD is not reserved after NXE is cleared": (
        "family=change and NXE=1 and then.NXE=0 and flush=page and XD=1",
        kept("efer"),
    ),
    "XD is reserved with NXE": (f"{ENTRY.format(1)} and XD=1", also_reserved(XD)),
    "XD grants execution": (
        f"{ENTRY.format(0)} and set=none and access=fetch",
        in_formats(lambda format: replace(format, denied=0)),
    ),
    "all pages can be executed": (f"{ENTRY.format(1)} and access=fetch", all_granted(XD)),
}
"""In entries that have bits for wide addresses and XD."""

IN_32: dict[str, tuple[str, Plant]] = {
    "PS is heeded without PSE": (f"{ENTRY.format(1)} and PS=1 and PSE=0", with_pse(True)),
    "PS is ignored with PSE": (f"{ENTRY.format(1)} and PS=1 and PSE=1", with_pse(False)),
    "bit 21 of a 4M page is not reserved": (
        f"{ENTRY.format(1)} and PS=1 and PSE=1 and set=21",
        not_reserved(1 << 21, 1),
    ),
    **{
        f"bit {bit} of a 4M page is reserved": (
            f"{ENTRY.format(1)} and PS=1 and PSE=1 and set={bit}",
            of_another_cpu(pse36=False),
        )
        for bit in (13, 20)
    },
    "the address bits of a 4M page above 31 are ignored": (
        f"{ENTRY.format(1)} and PS=1 and PSE=1 and set=20 and access=read",
        in_levels(
            lambda _, level: level.changed(lambda shape: replace(shape, address=shape.address[:1]))
        ),
    ),
    "RSVD is never set": (
        f"{ENTRY.format(1)} and PS=1 and PSE=1 and set=21",
        error_bits(RSVD_ERROR),
    ),
    "I is set by NXE": (
        f"{ENTRY.format(1)} and P=0 and access=fetch and SMEP=0",
        in_cpu("reports_fetches", lambda cpu: cpu.smep or cpu.nxe),
    ),
    "keys count": (
        "family=rights and PKE=1 and access=read",
        in_cpu("user_keys", lambda cpu: cpu.pkru if cpu.cr4 & PKE else 0),
    ),
}

IN_PAE: dict[str, tuple[str, Plant]] = {
    **{
        f"bit {bit} is not reserved at level {level}": (
            f"{ENTRY.format(level)} and set={bit}",
            not_reserved(1 << bit, level),
        )
        for bit in (40, 62)
        for level in (0, 1)
    },
    **{
        f"bit {bit} of a 2M page is not reserved": (
            f"{ENTRY.format(1)} and PS=1 and set={bit}",
            not_reserved(1 << bit, 1),
        )
        for bit in (13, 20)
    },
    "the bits above the address are ignored": (
        "family=bits and level=0 and P=1 and set=52",
        not_reserved((1 << 63) - (1 << 52)),
    ),
    "RSVD is never set": (f"{ENTRY.format(1)} and set=62", error_bits(RSVD_ERROR)),
    "an entry below that is not present comes first": (
        "family=pair and upper=1 and lower=0 and lower.P=0",
        in_walks(ends_bottom_up),
    ),
    "an absent PDPTE is a protection fault": (
        "family=pdpte and pdpte.P=0 and register=2",
        in_vector(Reason.NO_PDPTE, Vector.GP),
    ),
    "an absent PDPTE is served": (
        "family=pdpte and pdpte.P=0 and register=2",
        in_ends(End.NO_ROOT, End.LEAF),
    ),
}

KEYS: dict[str, tuple[str, Plant]] = {
    "LA57 is changed in long mode": ("family=load and by=user", all_loaded()),
    "PKRU is ignored": ("family=key and level=0", without("cr4", PKE)),
    "PKRS is ignored": ("family=key and level=0", without("cr4", PKS)),
    "PKRU counts without PKE": (
        "family=key and level=0 and PKE=0",
        in_cpu("user_keys", lambda cpu: cpu.pkru),
    ),
    "PKRS counts without PKS": (
        "family=key and level=0 and PKS=0",
        in_cpu("supervisor_keys", lambda cpu: cpu.pkrs),
    ),
    "PKRU is asked about supervisor pages": (
        "family=key and level=0 and US=0",
        in_cpu("supervisor_keys", lambda cpu: cpu.user_keys),
    ),
    "PKRS is asked about user pages": (
        "family=key and level=0 and US=1",
        in_cpu("user_keys", lambda cpu: cpu.supervisor_keys),
    ),
    "a key is a bit lower": ("family=key and level=0 and access=read", in_shift(-1)),
    "a key is a bit higher": ("family=key and level=1 and access=read", in_shift(1)),
    "keys deny fetches": (
        "family=key and level=0 and access=fetch",
        in_keys(lambda rule, cpu, access, *page: rule(cpu, replace(access, kind=Kind.READ), *page)),
    ),
    "keys deny no descriptor": (
        "family=key and level=0 and access=descriptor",
        in_keys(
            lambda rule, cpu, access, *page: None if access.implicit else rule(cpu, access, *page)
        ),
    ),
    "keys deny writes by the supervisor without WP": (
        "family=key and level=0 and access=write and WP=0",
        in_keys(
            lambda rule, cpu, *rest: rule(replace(cpu, cr0=cpu.cr0 | WP), *rest),
        ),
    ),
    "keys deny no writes alone": (
        "family=key and level=0 and access=push",
        in_keys(lambda rule, cpu, access, *page: rule(cpu, replace(access, kind=Kind.POP), *page)),
    ),
    "a page with a key is the user's whatever is above": (
        "family=locked and upper=1 and lower=0 and access=read",
        in_walks(user_where_keyed),
    ),
    **{
        f"a change of {name} counts after a flush alone": (
            f"family=change and {name}!=0 and {where} and flush=none",
            kept(register),
        )
        for name, register, where in (
            ("PKRU", "pkru", "PKRU=0x39393939 and then.PKRU=0x4e4e4e4e"),
            ("PKRS", "pkrs", "PKRS=0x4e4e4e4c and then.PKRS=0x93939390"),
            ("PKE", "cr4", "then.PKE=0 and PKE=1"),
            ("PKS", "cr4", "then.PKS=0 and PKS=1"),
        )
    },
    "PK is never set": ("family=key and level=0 and access=read", error_bits(PK_ERROR)),
    "PK is not set where R/W denies": (
        "family=key and level=0 and access=write and RW=0",
        in_answer(
            lambda out, _: replace(
                out,
                error=np.where(
                    out.reason == REASONS.index(Reason.WRITE_DENIED),
                    out.error & ~np.uint32(PK_ERROR),
                    out.error,
                ),
            )
        ),
    ),
}

ON_OTHERS: dict[str, tuple[str, str, Plant]] = {
    "bits from 40 on are reserved, whatever MAXPHYADDR": (
        "4",
        "family=bits and maxphyaddr=36 and level=1 and set=39 and P=1",
        of_another_cpu(maxphyaddr=40),
    ),
    "no bit is beyond 52 bits of address": (
        "5",
        "family=bits and maxphyaddr=52 and level=0 and set=51 and P=1",
        of_another_cpu(maxphyaddr=46),
    ),
    **{
        f"PSE is heeded in mode {mode}": (
            mode,
            "family=bits and level=1 and P=1 and PS=1 and PSE=0 and set=11",
            all_pointers(1),
        )
        for mode in ("pae", "4", "5")
    },
}

ON_KVM: dict[str, tuple[str, Plant]] = {
    "a push to no canonical address is a protection fault": (
        "family=place and access=push and level=0 and offset=first and RW=1 and US=1",
        in_push(Vector.GP),
    ),
    "an implicit access of the supervisor's heeds AC": (
        "family=pair and upper=1 and lower=0 and access=descriptor and by=supervisor and SMAP=1"
        " and upper.P=1 and lower.P=1",
        in_question(implicit=np.zeros_like),
    ),
    "bit 8 of a PML4E is what the other vendor makes of it": (
        "family=bits and level=3 and G=1 and P=1 and set=none and XD=0",
        of_the_other_vendor(),
    ),
    "1G pages are there without CPUID": (
        "family=bits and level=2 and set=11 and PS=1 and P=1",
        of_another_cpu(page1gb=True),
    ),
}
"""What TCG does not follow: its quirks would excuse the reference as well."""

FAULTS: dict[str, tuple[str, str, Plant]] = {
    **{f"{fault[0]}: {name}": fault for name, fault in IN_LONG_MODE.items()},
    **{
        f"{mode}: {name}": (mode, *fault)
        for mode, faults in (
            ("32", EVERYWHERE | IN_32),
            ("pae", EVERYWHERE | IN_EIGHT_BYTES | IN_PAE),
            ("4", EVERYWHERE | IN_EIGHT_BYTES | KEYS),
            ("5", EVERYWHERE | IN_EIGHT_BYTES | KEYS),
        )
        for name, fault in faults.items()
    },
}


# ---- and found ----

Bench = Callable[[Model], Rig]


@cache
def families_of(*asked: Hashable) -> tuple[Family, ...]:
    return tuple(families.families(*asked))  # type: ignore[arg-type]


@contextmanager
def families_made_once() -> Iterator[None]:
    """Those of a mode are the same for every fault, which is planted after them; but for what a
    model works out by the reference when it is asked."""

    def made(preset: str, *models: Iterable[Hashable]) -> Iterator[Family]:
        for family in families_of(preset, *map(tuple, models)):
            yield replace(family, model=replace(family.model))

    with MonkeyPatch.context() as patch:
        patch.setattr(matrix, "families", made)
        yield


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """For each processor a guest with the chains of all its modes, made while the reference is
    unharmed."""
    with ExitStack() as stack, families_made_once():
        made: dict[tuple[Processor, int], Rig] = {}

        def rig(model: Model) -> Rig:
            key = model.guest
            if key not in made:
                made[key] = Rig(stack.enter_context(guest_of("tcg", key, QEMU)))
                for mode in MODES:
                    if replace(model, mode=mode).long == model.long:
                        made[key].chain(replace(model, mode=mode))
            return made[key]

        yield rig


def disagrees(rig: Rig, plan: matrix.Plan) -> bool:
    """Whether there is a disagreement; no more is tried than it takes to find one."""
    return any(
        report.comparison.disagreed
        for part in plan.work
        for control in part.controls
        for report in matrix.tried_on(rig, [replace(part, controls=(control,))])
    )


def found(bench: Bench, monkeypatch: MonkeyPatch, mode: str, where: str, plant: Plant) -> bool:
    info = bench(Model(mode)).guest.info
    plan = matrix.plan("quick", [mode], "tcg", info, where)
    (model,) = {replace(part.family.model, pse=True) for part in plan.work}
    there = bench(model)
    plant(monkeypatch)
    return disagrees(there, plan)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_reference_is_found(
    bench: Bench, monkeypatch: MonkeyPatch, fault: str
) -> None:
    mode, where, plant = FAULTS[fault]
    assert found(bench, monkeypatch, mode, f"{where} and {PLACES[mode]}", plant)


@pytest.mark.parametrize("fault", ON_OTHERS)
def test_a_fault_that_shows_on_another_processor_is_found(
    bench: Bench, monkeypatch: MonkeyPatch, fault: str
) -> None:
    assert found(bench, monkeypatch, *ON_OTHERS[fault])


@pytest.fixture(scope="module")
def kvm() -> Iterator[Rig]:
    absent = why_absent("kvm", program=QEMU)
    if absent:
        pytest.skip(absent)
    with Guest("kvm", ram_bytes=Model("4").ram_bytes, program=QEMU) as guest:
        yield Rig(guest)


@pytest.mark.parametrize("fault", ON_KVM)
def test_a_fault_in_what_tcg_does_not_follow_is_found_on_kvm(
    kvm: Rig, monkeypatch: MonkeyPatch, fault: str
) -> None:
    where, plant = ON_KVM[fault]
    plan = matrix.plan("quick", ["4"], "kvm", kvm.guest.info, where)
    kvm.chain(plan.work[0].family.model)
    plant(monkeypatch)
    assert disagrees(kvm, plan)
