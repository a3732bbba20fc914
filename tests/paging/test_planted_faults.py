"""The tests are tested: a library that reads tables wrongly must disagree with the rules.

Each fault is planted where a maintainer would make it.  Formats are made anew for each, since a
decoder remembers what it has decoded.
"""

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.paging import bulk
from harness.paging.address import Span, Virtual
from harness.paging.format import Field, Format, Level, Reserved, Shape
from harness.paging.memory import Words
from harness.paging.table import Root
from harness.paging.walk import Walk
from harness.paging.x86 import access as accesses
from harness.paging.x86 import bulk as arrays
from harness.paging.x86 import cpu as cpus
from harness.paging.x86 import formats
from harness.paging.x86 import load as loads
from harness.paging.x86.access import Access, Allowed, Error, Fault, Kind, Outcome, Reason, Vector
from harness.paging.x86.cpu import Cpu
from tests.paging import machines, test_bulk, test_walk
from tests.paging.machines import disagreements, random_machine
from tests.paging.plants import without_absence, without_pages
from tests.paging.rules import Machine

Plant = Callable[[pytest.MonkeyPatch], None]


def replanted(change: Callable[[Format], Format], mode: str = "long_mode") -> Plant:
    """Plants a change of every format that a mode is read in."""
    original = getattr(formats, mode)

    def fresh(*arguments: object) -> Format:
        return change(replace(original(*arguments)))

    return lambda patch: patch.setattr(formats, mode, fresh)


def with_levels(change: Callable[[Level], Level], mode: str = "long_mode") -> Plant:
    return replanted(lambda format: replace(format, levels=tuple(map(change, format.levels))), mode)


def with_leaves(change: Callable[[Level, Shape], Shape], mode: str = "long_mode") -> Plant:
    return with_levels(
        lambda here: here.changed(lambda shape: shape if shape.points else change(here, shape)),
        mode,
    )


def with_pointers(change: Callable[[Shape], Shape]) -> Plant:
    return with_levels(
        lambda here: here.changed(lambda shape: change(shape) if shape.points else shape)
    )


def address_mask_one_bit_short(here: Level, leaf: Shape) -> Shape:
    (field,) = leaf.address
    return replace(leaf, address=(Field(field.mask >> 1 & field.mask),))


def offset_bits_in_the_address(here: Level, leaf: Shape) -> Shape:
    (field,) = leaf.address
    return replace(leaf, address=(Field(field.mask | 1 << 12),))


def levels_swapped(format: Format) -> Format:
    first, second, third, *rest = format.levels
    swapped = (first, replace(third, shift=second.shift), replace(second, shift=third.shift), *rest)
    return replace(format, levels=swapped)


def indexes_swapped(format: Format) -> Format:
    first, second, third, *rest = format.levels
    wrong = (first, replace(second, shift=third.shift), replace(third, shift=second.shift), *rest)
    object.__setattr__(format, "levels", wrong)
    return format


def leaf_rights_alone(patch: pytest.MonkeyPatch) -> None:
    def granted(self: Walk) -> int:
        last = self.steps[-1] if self.steps else None
        return self.root.table.format.granted(last.raw, last.slot.level) if last else 0

    patch.setattr(Walk, "granted", property(granted))


def offset_of_the_smallest_page(patch: pytest.MonkeyPatch) -> None:
    replanted(lambda format: format)(patch)
    patch.setattr(Level, "size", property(lambda here: 4096))


def offset_of_the_level_above(patch: pytest.MonkeyPatch) -> None:
    replanted(lambda format: format)(patch)
    patch.setattr(Level, "size", property(lambda here: 1 << here.shift + here.index_bits))


def wrong_canonical_width(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(formats, "address_bits", lambda levels: 48)


def rule_dropped(change: Callable[[Machine], dict[str, bool]]) -> Plant:
    """Plants a CPU whose flags are read wrongly."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = machines.cpu_of
        patch.setattr(
            machines,
            "cpu_of",
            lambda machine, root=None: original(replace(machine, **change(machine)), root),
        )

    return plant


def judged_otherwise(change: Callable[[Cpu, Access, Outcome], Outcome]) -> Plant:
    """Plants a change of what accesses come to, one by one."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = accesses.outcome
        patch.setattr(
            machines,
            "outcome",
            lambda cpu, memory, address, access: change(
                cpu, access, original(cpu, memory, address, access)
            ),
        )

    return plant


def other_error(change: Callable[[Access, Fault], int]) -> Plant:
    """Plants a change of the error codes of page faults."""

    def changed(_: Cpu, access: Access, found: Outcome) -> Outcome:
        if isinstance(found, Fault) and found.vector is Vector.PF:
            return replace(found, error=change(access, found))
        return found

    return judged_otherwise(changed)


def push_leaves_d_clear(_: Cpu, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Allowed) and access.kind is Kind.PUSH:
        return replace(found, dirty=None)
    return found


def push_is_gp(_: Cpu, access: Access, found: Outcome) -> Outcome:
    if isinstance(found, Fault) and found.vector is Vector.SS:
        return replace(found, vector=Vector.GP)
    return found


def cr2_of_a_gp(_: Cpu, access: Access, found: Outcome) -> Outcome:
    return replace(found, cr2=Virtual(0)) if isinstance(found, Fault) else found


def key_of_the_leaf_alone(patch: pytest.MonkeyPatch) -> None:
    denies, judge = accesses.key_denies, accesses.judge

    def judged(cpu: Cpu, found: Walk, access: Access) -> Outcome:
        def by_leaf(cpu: Cpu, access: Access, granted: int, key: int) -> Reason | None:
            leaf = found.steps[-1].raw if found.steps else granted
            return denies(cpu, access, leaf & formats.US, key)

        patch.setattr(accesses, "key_denies", by_leaf)
        return judge(cpu, found, access)

    patch.setattr(accesses, "judge", judged)


def keys_otherwise(change: Callable[[Cpu, Access, int], tuple[Cpu, int]]) -> Plant:
    """Plants keys that are asked about another state or another page."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        denies = accesses.key_denies

        def changed(cpu: Cpu, access: Access, granted: int, key: int) -> Reason | None:
            cpu, granted = change(cpu, access, granted)
            return denies(cpu, access, granted, key)

        patch.setattr(accesses, "key_denies", changed)

    return plant


def wd_of_users_only_with_wp(patch: pytest.MonkeyPatch) -> None:
    denies = accesses.key_denies

    def changed(cpu: Cpu, access: Access, granted: int, key: int) -> Reason | None:
        found = denies(cpu, access, granted, key)
        disabled = cpu.user_keys >> 2 * key & 1
        return found if not access.user or cpu.wp or disabled else None

    patch.setattr(accesses, "key_denies", changed)


def implicit_heeds_ac(patch: pytest.MonkeyPatch) -> None:
    denied = accesses.denied
    patch.setattr(
        accesses,
        "denied",
        lambda cpu, access, *page: denied(cpu, replace(access, implicit=False), *page),
    )


def halves(change: Callable[[Span, Span], tuple[Span, Span]]) -> Plant:
    original = cpus.canonical_halves
    return lambda patch: patch.setattr(
        cpus, "canonical_halves", lambda levels: change(*original(levels))
    )


def page4m(change: Callable[[int, bool], Shape]) -> Plant:
    """Plants another reading of 4M pages."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(formats, "_page4m", change)
        patch.setattr(formats, "paging32", formats.paging32.__wrapped__)

    return plant


_PAGE4M = formats._page4m


def pse36_moved_by_18(maxphyaddr: int, pse36: bool) -> Shape:
    first, *rest = _PAGE4M(maxphyaddr, pse36).address
    moved = (Field(one.mask, one.shift - 1) for one in rest)
    return replace(_PAGE4M(maxphyaddr, pse36), address=(first, *moved))


def pdpte_reserves(change: Callable[[int, int], int]) -> Plant:
    """Plants other reserved bits of a PDPTE, where they are loaded and where they are held."""

    def plant(patch: pytest.MonkeyPatch) -> None:
        original = cpus.reserved_in_pdpte
        for module in (cpus, loads):
            patch.setattr(
                module,
                "reserved_in_pdpte",
                lambda raw, width: change(raw, original(raw, width)) if raw & 1 else 0,
            )

    return plant


def pdptes_at_a_page(patch: pytest.MonkeyPatch) -> None:
    original = loads.read_pdptes
    patch.setattr(loads, "read_pdptes", lambda memory, cr3: original(memory, cr3 >> 12 << 12))


def cr3_one_bit_short(patch: pytest.MonkeyPatch) -> None:
    original = Cpu.roots.func  # type: ignore[attr-defined]

    def roots(cpu: Cpu) -> tuple[Root, ...]:
        highest = 1 << (cpu.maxphyaddr if cpu.long else 32) - 1
        found: tuple[Root, ...] = original(replace(cpu, cr3=cpu.cr3 & ~highest))
        return found

    patch.setattr(Cpu, "roots", property(roots))


def nxe_tells_fetches_without_pae(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Cpu, "reports_fetches", property(lambda cpu: cpu.smep or cpu.nxe))


def bit_11_without_gigabyte_pages(here: Level) -> Level:
    if here.name != "PDPTE" or here.leaf is not None or here.pointer is None:
        return here
    wrong = Reserved(1 << 11, "by mistake")
    return here.changed(lambda shape: replace(shape, reserved=(*shape.reserved, wrong)))


def arrays_know_no_shadow_stack(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(arrays, "_shadow_stacks", lambda cpu, walks: np.zeros(len(walks.raw), np.bool_))


def arrays_mask_fetches(patch: pytest.MonkeyPatch) -> None:
    original = arrays.linear_addresses

    def masked(cpu: Cpu, pointers: Words, kind: bulk.Bytes) -> Words:
        return original(cpu, pointers, np.zeros_like(kind))

    patch.setattr(arrays, "linear_addresses", masked)


def arrays_take_pushes_for_writes(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(arrays, "_STACK", np.zeros(len(Kind), np.bool_))


def lam_u48_wins(patch: pytest.MonkeyPatch) -> None:
    original = cpus.lam_widths

    def widths(cpu: Cpu) -> tuple[int | None, int | None]:
        user, supervisor = original(cpu)
        return (48 if cpu.lam and cpu.long and cpu.cr3 >> 62 & 1 else user), supervisor

    patch.setattr(cpus, "lam_widths", widths)


FAULTS: dict[str, Plant] = {
    "a wrong address mask": with_leaves(address_mask_one_bit_short),
    "address bits taken from below a large page": with_leaves(offset_bits_in_the_address),
    "levels swapped": replanted(levels_swapped),
    "indexes of two levels swapped": replanted(indexes_swapped),
    "XD ignored": replanted(
        lambda format: replace(format, rights={**format.rights, "execute": formats.P}, denied=0)
    ),
    "R/W read from U/S": replanted(
        lambda format: replace(format, rights={**format.rights, "write": formats.US})
    ),
    "the rights of the leaf alone": leaf_rights_alone,
    "reserved bits accepted": replanted(Format.without_reserved),
    "reserved bits of leaves accepted": with_leaves(lambda _, leaf: replace(leaf, reserved=())),
    "reserved bits of pointers accepted": with_pointers(
        lambda pointer: replace(pointer, reserved=())
    ),
    "bits 62:52 of a leaf reserved": with_leaves(
        lambda _, leaf: replace(
            leaf, reserved=(*leaf.reserved, Reserved(formats.bits(62, 52), "by mistake"))
        )
    ),
    "bits below a large page accepted": with_leaves(
        lambda _, leaf: replace(
            leaf, reserved=tuple(part for part in leaf.reserved if "below" not in part.reason)
        )
    ),
    "PS ignored": with_levels(without_pages),
    "presence ignored": with_levels(without_absence),
    "LA57 with addresses of 48 bits": wrong_canonical_width,
    "a large page's offset of the smallest page": offset_of_the_smallest_page,
    "a large page's offset of the level above": offset_of_the_level_above,
    "CR0.WP ignored": rule_dropped(lambda _: {"wp": True}),
    "SMEP ignored": rule_dropped(lambda _: {"smep": False}),
    "SMAP ignored": rule_dropped(lambda _: {"smap": False}),
    "EFLAGS.AC ignored": rule_dropped(lambda _: {"ac": False}),
    "NXE taken as set": rule_dropped(lambda _: {"nxe": True}),
    "1G pages taken as there": rule_dropped(lambda _: {"page1gb": True}),
    "AMD's bit 8 ignored": rule_dropped(lambda _: {"amd": False}),
    "CR4.PSE ignored": rule_dropped(lambda _: {"pse": True}),
    "PSE-36 taken as there": rule_dropped(lambda _: {"pse36": True}),
    "CR4.PKE ignored": rule_dropped(lambda _: {"pke": True}),
    "CR4.PKS ignored": rule_dropped(lambda _: {"pks": True}),
    "PKRU and PKRS exchanged": keys_otherwise(
        lambda cpu, _, granted: (replace(cpu, pkru=cpu.pkrs, pkrs=cpu.pkru), granted)
    ),
    "keys by who accesses": keys_otherwise(
        lambda cpu, access, _: (cpu, formats.US if access.user else 0)
    ),
    "keys by the leaf's U/S alone": key_of_the_leaf_alone,
    "WD of user writes only with WP": wd_of_users_only_with_wp,
    "PK not set where rights deny too": other_error(
        lambda _, found: (
            found.error if found.reason in (Reason.PKU, Reason.PKS) else found.error & ~Error.PK
        )
    ),
    "a reserved-bit fault lacks P": other_error(
        lambda _, found: found.error & ~Error.P if found.error & Error.RSVD else found.error
    ),
    "SS not set": other_error(lambda _, found: found.error & ~Error.SS),
    "I by NXE without PAE": nxe_tells_fetches_without_pae,
    "a push sets no D": judged_otherwise(push_leaves_d_clear),
    "a push that is not canonical is #GP": judged_otherwise(push_is_gp),
    "a #GP writes CR2": judged_otherwise(cr2_of_a_gp),
    "an implicit access heeds EFLAGS.AC": implicit_heeds_ac,
    "the last byte of all addresses is not canonical": halves(
        lambda lower, upper: (lower, Span(upper.first, upper.last - 1))
    ),
    "the lower half is one byte too long": halves(
        lambda lower, upper: (Span(0, lower.last + 1), upper)
    ),
    "CR3's address one bit short": cr3_one_bit_short,
    "PSE-36's bits moved by 18": page4m(pse36_moved_by_18),
    "a 4M page's address always 40 bits wide": page4m(lambda _, __: _PAGE4M(40, True)),
    "PAE: CR3's bits 11:5 ignored": pdptes_at_a_page,
    "PAE: bits 8:5 and 2:1 of a PDPTE accepted": pdpte_reserves(lambda raw, bits: bits & ~0x1E6),
    "PAE: bits 11:9 of a PDPTE reserved": pdpte_reserves(lambda raw, bits: bits | raw & 0xE00),
    "PAE: bits 62:52 accepted": with_leaves(
        lambda _, leaf: replace(
            leaf,
            reserved=tuple(
                part._replace(mask=part.mask & ~(0x7FF << 52)) for part in leaf.reserved
            ),
        ),
        "pae",
    ),
    "without 1G pages, bit 11 of a PDPTE reserved": with_levels(bit_11_without_gigabyte_pages),
    "LAM_U48 wins over LAM_U57": lam_u48_wins,
    "arrays: no page is a shadow stack": arrays_know_no_shadow_stack,
    "arrays: LAM masks fetches": arrays_mask_fetches,
    "arrays: pushes are writes like any": arrays_take_pushes_for_writes,
}


def rights_of_tables_forgotten(patch: pytest.MonkeyPatch) -> None:
    original = bulk._fill

    def fill(rows: bulk._Rows, *arguments: object) -> None:
        original(rows, *arguments)  # type: ignore[arg-type]
        np.bitwise_or(rows.granted, np.uint64(1 << 3), out=rows.granted)

    patch.setattr(bulk, "_fill", fill)


def rows_one_place_early(patch: pytest.MonkeyPatch) -> None:
    original = bulk._runs

    def runs(first: bulk.Counts, counts: bulk.Counts) -> slice | bulk.Counts:
        found = original(first, counts)
        return found if isinstance(found, slice) else np.where(found > found[0], found - 1, found)

    patch.setattr(bulk, "_runs", runs)


LISTING_FAULTS: dict[str, tuple[Plant, Callable[[int], None]]] = {
    "arrays: the rights of tables forgotten": (
        rights_of_tables_forgotten,
        test_walk.test_the_array_of_leaves_is_what_brute_force_finds,
    ),
    "arrays: every slot without memory listed": (
        lambda patch: patch.setattr(bulk, "_first_unbacked_only", np.ones_like),
        test_walk.test_the_array_of_leaves_is_what_brute_force_finds,
    ),
    "arrays: rows one place early": (
        rows_one_place_early,
        test_walk.test_the_array_of_leaves_is_what_brute_force_finds,
    ),
    "arrays: the second root served by the first one's walk": (
        lambda patch: patch.setattr(bulk, "groupby", lambda roots, key: [(roots[0].table, roots)]),
        test_bulk.test_roots_with_tables_of_their_own_each_serve_their_addresses,
    ),
    "leaves: all roots begin at address 0": (
        lambda patch: patch.setattr(
            Root, "first_address", lambda root, index: index << root.table.format.levels[-1].shift
        ),
        test_walk.test_leaves_are_what_brute_force_finds,
    ),
}


@pytest.mark.parametrize("fault", LISTING_FAULTS)
def test_a_listing_that_is_wrong_is_found_by_brute_force(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, check = LISTING_FAULTS[fault]
    check(0)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        for seed in range(20):
            check(seed)


def found_by_the_rules() -> bool:
    """Whether any machine disagrees with the rules; a crash is no finding."""
    source = random.Random(0)
    return any(
        next(disagreements(random_machine(source, 2 + seed % 4), seed, 60), None)
        for seed in range(320)
    )


def test_without_a_fault_nothing_is_found() -> None:
    assert not found_by_the_rules()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_library_that_reads_wrongly_disagrees_with_the_rules(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    FAULTS[fault](monkeypatch)
    assert found_by_the_rules()
