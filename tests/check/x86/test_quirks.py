"""What each quirk excuses, by expectations written out, and what engines do where it opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.compare import Comparison
from harness.check.layouts import find, load
from harness.check.quirk import Quirk, Version, expected_of
from harness.check.riscv import quirks as riscv
from harness.check.tables import TableImage
from harness.check.x86 import probes
from harness.check.x86.cases import Cases
from harness.check.x86.marks import CODE
from harness.check.x86.quirks import (
    BOCHS_IMPLICIT_HEEDS_AC,
    BOCHS_KEY_OF_SUPERVISOR_PAGE,
    BOCHS_KEYS_BY_ACCESS,
    DEBUG_WALKER,
    ENDS_AT_LAST_BYTE,
    FAULT_QUIRKS,
    GIGABYTE_PAGE_ACCESSED,
    IMPLICIT_HEEDS_AC,
    KEPT_CODE,
    KNOWN,
    NON_CANONICAL_SETS_CR2,
    PVM_EMULATES_UNDER_SMAP,
    PVM_KEEPS_A_SLOT,
    PVM_KEEPS_XD_PAGE,
    RESERVED_WITHOUT_PRESENT,
    TLB_PRINTS_ENTRIES,
    USER_ADDRESS_UNCHECKED,
    Basis,
    BasisQuirk,
    FaultQuirk,
    fault_quirks,
    known_of,
    lapses,
    not_run_on,
)
from harness.check.x86.second_reading import NO_LAPSE, Lapse, Reading, by_tables
from harness.check.x86.validate import validate
from harness.check.x86.window import open_window
from harness.machine.ram import ARENA, MIB, TABLE_ARENA
from harness.machine.x86.engines import executor, why_absent
from harness.machine.x86.guest import Guest
from harness.paging.address import Span, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.space import Space, TableAllocator
from harness.paging.x86.access import Kind
from harness.paging.x86.bulk import ALLOWED
from harness.paging.x86.cpu import Cpu, Mode

PAGE_FAULT, PROTECTION = 14, 13
P, PS, NX = 1 << 0, 1 << 7, 1 << 63
READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH
SLOT = 0xFFFF_8000_0000_0000


def case(address: int, kind: Kind, user: bool) -> Cases:
    return Cases(
        np.array([address], np.uint64),
        np.array([kind], np.uint8),
        np.array([user]),
        np.zeros(1, np.bool_),
    )


# ---- which quirks an engine has ----


def test_every_quirk_has_a_name_of_its_own() -> None:
    others = (DEBUG_WALKER, TLB_PRINTS_ENTRIES, KEPT_CODE, ENDS_AT_LAST_BYTE)
    names = [quirk.name for quirk in (*FAULT_QUIRKS, *others)]
    assert len(set(names)) == len(names)


BOUNDS: dict[str, tuple[str, tuple[int, ...], list[tuple[int, ...]]]] = {
    quirk.name: ("tcg", (7, 1, 99), [(7, 2), (7, 2, 22), (10, 0, 13), (11, 1, 3), (99, 0)])
    for quirk in (*FAULT_QUIRKS[:8], KEPT_CODE, ENDS_AT_LAST_BYTE)
}
"""Of each quirk: who departs, a version before it begins, and versions in which it is expected."""
BOUNDS |= {
    quirk.name: ("kvm_pvm", (6, 18, 43), [(6, 18, 44), (6, 19), (99, 0)])
    for quirk in (PVM_KEEPS_A_SLOT, PVM_EMULATES_UNDER_SMAP, PVM_KEEPS_XD_PAGE)
}
BOUNDS |= {
    quirk.name: ("bochs", (2, 6, 11), [(2, 7), (3, 0), (99, 0)])
    for quirk in KNOWN.values()
    if quirk.name.startswith("bochs-")
}
BOUNDS |= {
    quirk.name: ("monitor", *BOUNDS[RESERVED_WITHOUT_PRESENT.name][1:])
    for quirk in (DEBUG_WALKER, TLB_PRINTS_ENTRIES)
}


SPANS: dict[str, tuple[list[Version], list[Version]]] = {
    NON_CANONICAL_SETS_CR2.name: (
        [(7, 2), (7, 2, 21), (8, 0), (8, 2, 2), (9, 2, 4), (10, 0, 5), (10, 1), (10, 1, 1)],
        [(7, 1, 99), (7, 2, 22), (7, 2, 99), (10, 0, 6), (10, 0, 13), (10, 1, 2), (10, 2), (11, 1)],
    ),
    USER_ADDRESS_UNCHECKED.name: (
        [(7, 2, 10), (8, 2, 2)],
        [(7, 2, 9), (7, 2, 11), (7, 2, 22), (8, 0), (8, 2, 1), (8, 2, 3), (9, 0), (10, 0, 13)],
    ),
}
"""Of each quirk of QEMU's TCG that came and went in stable series: the versions in which it is
expected, and those in which it is not."""


def test_every_quirk_has_bounds_of_its_own() -> None:
    assert {*BOUNDS, *SPANS} == set(KNOWN)
    assert not set(BOUNDS) & set(SPANS)


@pytest.mark.parametrize("name", SPANS)
def test_a_quirk_of_some_stable_releases_is_expected_of_them_and_no_others(name: str) -> None:
    there, gone = SPANS[name]
    assert all(expected_of(KNOWN[name], "tcg", version) for version in there)
    assert not any(expected_of(KNOWN[name], "tcg", version) for version in gone)
    assert not any(expected_of(KNOWN[name], "bochs", version) for version in there)


def test_the_spans_of_a_quirk_follow_one_another() -> None:
    for quirk in KNOWN.values():
        bounds = [quirk.since, *([] if quirk.until is None else [quirk.until])]
        for since, until in quirk.again:
            bounds += [since, until]
        assert bounds == sorted(set(bounds)), quirk.name
        assert not quirk.again or quirk.until is not None, quirk.name


@pytest.mark.parametrize("name", BOUNDS)
def test_a_quirk_is_expected_from_where_it_begins_on_as_long_as_no_end_was_seen(
    name: str,
) -> None:
    quirk, (engine, before, since) = KNOWN[name], BOUNDS[name]
    assert not expected_of(quirk, engine, before)
    assert all(expected_of(quirk, engine, version) for version in since)
    assert quirk.until is None and not quirk.again
    others = {"tcg", "kvm", "kvm_pvm", "kvm_amd", "kvm_intel", "monitor", "bochs"} - {engine}
    assert not any(expected_of(quirk, other, version) for other in others for version in since)


@pytest.mark.parametrize("quirk", KNOWN.values(), ids=lambda quirk: quirk.name)
def test_a_quirk_was_run_on_versions_of_which_it_is_expected(quirk: Quirk) -> None:
    assert quirk.runs
    assert list(quirk.runs) == sorted(set(quirk.runs))
    assert all(expected_of(quirk, quirk.engine, version) for version in quirk.runs)


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((11, 1, 3), True),
        ((11, 9, 99), True),
        ((12,), False),
        ((12, 0, 0), False),
        ((13, 1), False),
    ],
    ids=str,
)
def test_a_quirk_whose_end_was_seen_is_expected_before_it_alone(
    version: tuple[int, ...], expected: bool
) -> None:
    ended = replace(RESERVED_WITHOUT_PRESENT, until=(12,))
    assert expected_of(ended, "tcg", version) is expected


@pytest.mark.parametrize(
    ("engine", "version"),
    [
        ("tcg", (7, 2, 22)),
        ("tcg", (8, 2, 2)),
        ("tcg", (11, 1, 3)),
        ("kvm_pvm", (6, 18, 44)),
        ("bochs", (3, 0)),
    ],
)
def test_the_departures_of_an_engine_are_all_that_is_expected_of_it(
    engine: str, version: tuple[int, ...]
) -> None:
    known = known_of(engine, version)
    assert set(fault_quirks(engine, version)) == {one for one in known if one in FAULT_QUIRKS}
    assert (ENDS_AT_LAST_BYTE in known) is (engine == "tcg")


def test_where_the_version_is_unknown_an_engine_may_have_any_departure() -> None:
    assert set(known_of("tcg", None)) == {one for one in KNOWN.values() if one.engine == "tcg"}


RUNS = "not yet run on this version; runs of: 7.2.22, 8.2.2, 10.0.13, 11.1.3"


@pytest.mark.parametrize(
    ("engine", "version", "qemu", "said"),
    [
        ("tcg", (7, 2, 22), (7, 2, 22), ()),
        ("tcg", (10, 0, 13), (10, 0, 13), ()),
        ("tcg", (11, 1, 3), (11, 1, 3), ()),
        ("tcg", (11, 1, 4), (11, 1, 4), (f"tcg 11.1.4: {RUNS}",)),
        ("tcg", (8, 2, 2), (8, 2, 2), ()),
        ("tcg", (8, 2, 3), (8, 2, 3), (f"tcg 8.2.3: {RUNS}",)),
        ("tcg", (7, 2, 0), (7, 2, 0), (f"tcg 7.2.0: {RUNS}",)),
        ("kvm_pvm", (6, 18, 44), (7, 2, 22), ()),
        ("bochs", (2, 7), (2, 7), ()),
        ("bochs", (3, 0), (3, 0), ()),
        ("bochs", (3, 1), (3, 1), ("bochs 3.1: not yet run on this version; runs of: 2.7, 3.0",)),
        (
            "kvm_pvm",
            (7, 0),
            (7, 2, 22),
            ("kvm_pvm 7.0: not yet run on this version; runs of: 6.18.44",),
        ),
        ("kvm_amd", (7, 0), (7, 2, 22), ()),
        ("kvm_amd", (7, 0), (12, 0, 0), (f"QEMU 12.0.0: {RUNS}",)),
        ("kvm", (7, 2, 22), (7, 2, 22), ()),
    ],
    ids=str,
)
def test_a_version_that_was_not_run_is_named_with_those_that_were(
    engine: str, version: tuple[int, ...], qemu: tuple[int, ...], said: tuple[str, ...]
) -> None:
    assert not_run_on(engine, version, qemu) == said


def test_an_architecture_has_runs_of_its_own() -> None:
    sentence = "tcg 8.2.2: not yet run on this version; runs of: 7.2.22, 10.0.13, 11.1.3"
    assert riscv.not_run_on((8, 2, 2)) == (sentence,)
    assert riscv.not_run_on((7, 2, 22)) == ()


@pytest.mark.parametrize("module", ["kvm_intel", "kvm_amd", "kvm"])
def test_a_kvm_that_is_not_known_to_be_pvm_is_excused_nothing(module: str) -> None:
    assert fault_quirks(module, (6, 18, 44)) == ()


# ---- what each departs in ----


RW_US = 0b110
TABLES = P | RW_US
"""An entry that permits everything."""


def read(
    entries: dict[int, int] | None = None,
    lapses: Lapse = NO_LAPSE,
    *,
    mode: Mode = Mode.LEVEL_4,
    address: int = 0x1000,
    kind: Kind = READ,
    user: bool = False,
    ac: bool = False,
    implicit: bool = False,
    pdpte: tuple[int, int] | None = None,
    cr0: int = 1 << 16,
    cr4: int = 0,
    nxe: bool = True,
    **processor: Any,
) -> Reading:
    """The reading of one access through entries of which all permit everything but those given.

    pdpte  one that is loaded, and its register
    """
    words = np.full((WORDS[mode], 1), TABLES, np.uint64)
    for level, raw in (entries or {}).items():
        words[level] = raw
    cpu = Cpu.in_mode(mode, 0, cr0=cr0, cr4=cr4, efer=nxe << 11)
    cases = replace(case(address, kind, user), ac=np.array([ac]), implicit=np.array([implicit]))
    asked = by_tables(replace(cpu, **processor), cases, words)
    if pdpte is not None:
        raw, register = pdpte
        asked = replace(
            asked,
            pdpte=np.array([[raw]], np.uint64),
            register=np.array([[register]], np.uint8),
        )
    return Reading(asked, lapses)


WORDS = {Mode.BITS_32: 2, Mode.PAE: 2, Mode.LEVEL_4: 4, Mode.LEVEL_5: 5}
MCE, SMEP, SMAP, PKE, PKS = (1 << bit for bit in (6, 20, 21, 22, 24))


@pytest.mark.parametrize(
    ("rule", "tcg"),
    [(0x09, 0x08), (0x0B, 0x0A), (0x0D, 0x0C), (0x0F, 0x0E), (0x19, 0x18), (0x1D, 0x1C)],
)
def test_on_tcg_a_reserved_bit_fault_lacks_p(rule: int, tcg: int) -> None:
    error = RESERVED_WITHOUT_PRESENT.error(np.array([rule], np.uint32))
    assert error.tolist() == [tcg]


@pytest.mark.parametrize(
    ("entries", "departs"),
    [
        *(({level: TABLES | 1 << bit}, True) for level in range(4) for bit in (40, 51)),
        *(({level: TABLES | 1 << bit}, False) for level in range(4) for bit in (9, 39, 52, 62)),
        ({3: TABLES | PS}, True),
        ({2: TABLES | PS | 1 << 29}, True),
        ({1: TABLES | PS | 1 << 13}, True),
        ({1: TABLES | PS | 1 << 12}, False),
        ({0: TABLES | PS}, False),
        ({2: TABLES & ~P | 1 << 51}, False),
        ({2: 0, 1: TABLES | 1 << 51}, False),
        ({}, False),
    ],
    ids=str,
)
def test_on_tcg_it_is_a_fault_for_a_reserved_bit_that_lacks_p(
    entries: dict[int, int], departs: bool
) -> None:
    assert RESERVED_WITHOUT_PRESENT.lanes(read(entries)).tolist() == [departs]


GIGABYTE = TABLES | PS


@pytest.mark.parametrize(
    ("entries", "asked", "departs"),
    [
        pytest.param({2: GIGABYTE & ~4}, {"user": True}, True, id="denied to the user"),
        pytest.param({2: GIGABYTE & ~2}, {"kind": WRITE}, True, id="read-only"),
        pytest.param({2: GIGABYTE & ~2}, {"kind": WRITE, "cr0": 0}, False, id="without WP"),
        pytest.param({2: GIGABYTE | NX}, {"kind": FETCH}, True, id="execute-disabled"),
        pytest.param({2: GIGABYTE}, {"kind": FETCH, "cr4": SMEP}, True, id="SMEP"),
        pytest.param({2: GIGABYTE}, {"cr4": SMAP}, True, id="SMAP"),
        pytest.param({2: GIGABYTE}, {"cr4": SMAP, "ac": True}, False, id="AC"),
        pytest.param({2: GIGABYTE, 3: P}, {"user": True}, True, id="denied by the entry above"),
        pytest.param(
            {2: GIGABYTE | 5 << 59}, {"cr4": PKE, "pkru": 1 << 10}, True, id="denied by its key"
        ),
        pytest.param({2: GIGABYTE | 1 << 13}, {}, True, id="misaligned at 13"),
        pytest.param({2: GIGABYTE | 1 << 29}, {}, True, id="misaligned at 29"),
        pytest.param({2: GIGABYTE | 1 << 40}, {}, False, id="beyond MAXPHYADDR"),
        pytest.param({2: GIGABYTE | NX}, {"nxe": False}, False, id="NX without NXE"),
        pytest.param({2: PS | RW_US}, {}, False, id="absent"),
        pytest.param({2: TABLES | 1 << 40}, {}, False, id="pointer"),
        pytest.param({3: 0, 2: GIGABYTE & ~4}, {"user": True}, False, id="not reached"),
        pytest.param({1: GIGABYTE & ~4}, {"user": True}, False, id="2M page"),
        pytest.param({0: GIGABYTE & ~4}, {"user": True}, False, id="PAT of a 4K page"),
        pytest.param({2: GIGABYTE}, {"user": True}, False, id="allowed"),
    ],
)
def test_on_tcg_a_fault_at_a_1g_page_sets_its_a(
    entries: dict[int, int], asked: dict[str, Any], departs: bool
) -> None:
    assert GIGABYTE_PAGE_ACCESSED.lanes(read(entries, **asked)).tolist() == [departs]


LACKING_1G: dict[str, Any] = {"page1gb": False}
AMD: dict[str, Any] = {"amd": True}
NARROW: dict[str, Any] = {"mode": Mode.BITS_32, "cr4": 1 << 4, "maxphyaddr": 36}
WITHOUT_PSE36: dict[str, Any] = {**NARROW, "pse36": False, "maxphyaddr": 40}
USER_DATA: dict[str, Any] = {"cr4": SMAP, "implicit": True, "ac": True}
BEYOND = 0x0000_8000_0000_0000


KEYED = TABLES | 5 << 59
LOCKED: dict[str, Any] = {"cr4": PKE, "pkru": 0b11 << 10}


@pytest.mark.parametrize(
    ("raw", "asked", "departs"),
    [
        (KEYED & ~4, {}, True),
        (KEYED & ~4, {"mode": Mode.LEVEL_5}, True),
        (KEYED & ~4, {"pkru": 0b10 << 10, "kind": WRITE}, True),
        (KEYED & ~4, {"pkru": 0b10 << 10}, False),
        (KEYED & ~4, {"user": False}, False),
        (KEYED & ~4, {"implicit": True}, False),
        (KEYED & ~4, {"kind": FETCH}, False),
        (KEYED & ~4, {"cr4": 0}, False),
        (KEYED & ~5, {}, False),
        (KEYED & ~4 | 1 << 51, {}, False),
        (KEYED & ~4 ^ 1 << 59, {}, False),
        (KEYED, {}, False),
        (TABLES & ~4, {}, False),
    ],
)
def test_on_bochs_pkru_is_asked_about_data_of_the_supervisor_that_the_user_accesses(
    raw: int, asked: dict[str, Any], departs: bool
) -> None:
    reading = read({0: raw}, **{**LOCKED, "user": True, **asked})
    assert BOCHS_KEY_OF_SUPERVISOR_PAGE.lanes(reading).tolist() == [departs]


@pytest.mark.parametrize(("mode", "bits"), [(Mode.LEVEL_4, 48), (Mode.LEVEL_5, 57)])
def test_on_qemu_8_2_2_an_address_of_the_users_is_what_its_translated_bits_say(
    mode: Mode, bits: int
) -> None:
    """Canonical is an address whose upper bits repeat the highest translated one (SDM volume 1,
    3.3.7.1)."""
    address = [0x1000, 1 << 47, 1 << 56, 1 << 63, 2**64 - 1, 0xFF7F << 48, 0x1234_9ABC << 32]
    cases = Cases(
        np.array(address * 3, np.uint64),
        np.full(3 * len(address), READ, np.uint8),
        np.repeat([True, False, True], len(address)),
        np.zeros(3 * len(address), np.bool_),
        np.repeat([False, False, True], len(address)),
    )
    basis = USER_ADDRESS_UNCHECKED.as_if(Basis(Cpu.in_mode(mode, 0), cases))
    low = [one % (1 << bits) for one in address]
    canonical = [one | ((1 << 64) - (1 << bits) if one >> bits - 1 else 0) for one in low]
    assert basis.cases.address.tolist() == canonical + address * 2


@pytest.mark.parametrize("quirk", [IMPLICIT_HEEDS_AC, BOCHS_IMPLICIT_HEEDS_AC])
def test_where_implicit_accesses_heed_ac_they_are_the_supervisor_s_explicit_ones(
    quirk: BasisQuirk,
) -> None:
    user, implicit = np.array([True, False, True, False]), np.array([False, False, True, True])
    cases = Cases(np.arange(4, dtype=np.uint64), np.full(4, READ, np.uint8), user, ~user, implicit)
    found = quirk.as_if(Basis(Cpu.long_mode(4, 0), cases)).cases
    assert found.implicit is None and found.user.tolist() == [True, False, False, False]
    assert found.ac.tolist() == cases.ac.tolist() and found.address.tolist() == [0, 1, 2, 3]
    same = quirk.as_if(Basis(Cpu.long_mode(4, 0), replace(cases, implicit=None))).cases
    assert same.user.tolist() == user.tolist()


@pytest.mark.parametrize(
    ("cr4", "rights"),
    [
        (PKE, 0x8000_0008),  # the bits of PKRU that deny writes
        (PKS, 0x1234_5670),
        (PKE | PKS, 0x9234_5678),
        (0, 0),
    ],
)
def test_on_bochs_the_supervisor_has_the_rights_of_both_registers(cr4: int, rights: int) -> None:
    """Of PKRU those to writes; as far as CR4 has each."""
    cpu = replace(Cpu.in_mode(Mode.LEVEL_4, 0, cr4=cr4), pkru=0xD555_5559, pkrs=0x1234_5670)
    found = BOCHS_KEYS_BY_ACCESS.as_if(Basis(cpu, case(0, READ, user=False))).cpu
    assert (found.pkru, found.pkrs) == (rights, rights)
    assert found.cr4 & (PKE | PKS) == PKE | PKS


def in_pae(raw: int, register: int = 0) -> dict[str, Any]:
    return {"mode": Mode.PAE, "pdpte": (raw, register)}


@pytest.mark.parametrize(
    ("raw", "register", "manual", "tcg", "marked"),
    [
        (P, 0, (ALLOWED, 0), (ALLOWED, 0), True),
        (P, 1, (ALLOWED, 0), (ALLOWED, 0), False),
        (0, 0, (14, 0), (14, 0), False),
        (0, 1, (ALLOWED, 0), (ALLOWED, 0), False),
        (1 << 40, 0, (14, 0), (14, 0), False),
        *((P | 1 << n, 0, (13, 0), (ALLOWED, 0), True) for n in (1, 2, 5, 8)),
        *((P | 1 << n, 0, (13, 0), (14, 9), False) for n in (40, 63)),
        *((P | 1 << n, 1, (13, 0), (ALLOWED, 0), False) for n in (1, 2, 5, 8, 40, 63)),
    ],
)
def test_on_tcg_a_pdpte_counts_where_it_is_the_address_s(
    raw: int, register: int, manual: tuple[int, int], tcg: tuple[int, int], marked: bool
) -> None:
    """Where it is loaded, each counts (SDM volume 3A, 4.4.1)."""
    for lapse, expected, sets in (NO_LAPSE, manual, False), (Lapse.PDPTES, tcg, marked):
        reading = read({}, lapse, **in_pae(raw, register))
        vector, error = reading.exceptions()
        assert (vector.tolist(), error.tolist()) == ([expected[0]], [expected[1]])
        assert reading.walked.marked.tolist() == [sets]


@pytest.mark.parametrize(
    ("lapse", "entries", "asked", "departs"),
    [
        # PS of a PDPTE, where that maps a page.
        (Lapse.GIGABYTE, {2: GIGABYTE}, LACKING_1G, True),
        (Lapse.GIGABYTE, {2: GIGABYTE | 1 << 11}, LACKING_1G, True),
        (Lapse.GIGABYTE, {2: P | PS}, {**LACKING_1G, "user": True}, True),
        (Lapse.GIGABYTE, {2: GIGABYTE}, {}, False),
        (Lapse.GIGABYTE, {2: TABLES | 1 << 11}, LACKING_1G, False),
        (Lapse.GIGABYTE, {2: GIGABYTE | 1 << 51}, LACKING_1G, False),
        (Lapse.GIGABYTE, {2: GIGABYTE | 1 << 13}, LACKING_1G, False),
        (Lapse.GIGABYTE, {2: GIGABYTE | NX}, {**LACKING_1G, "nxe": False}, False),
        (Lapse.GIGABYTE, {3: 0, 2: GIGABYTE}, LACKING_1G, False),
        (Lapse.GIGABYTE, {3: TABLES | PS, 2: GIGABYTE}, LACKING_1G, False),
        (Lapse.GIGABYTE, {1: GIGABYTE}, LACKING_1G, False),
        # EFLAGS.AC of implicit accesses, whoever's they are.
        (Lapse.IMPLICIT, {}, USER_DATA, True),
        (Lapse.IMPLICIT, {}, {**USER_DATA, "user": True}, False),
        (Lapse.AC, {}, USER_DATA, True),
        (Lapse.AC, {}, {**USER_DATA, "user": True}, True),
        (Lapse.AC, {}, {**USER_DATA, "ac": False}, False),
        (Lapse.AC, {}, {**USER_DATA, "implicit": False}, False),
        (Lapse.AC, {}, {**USER_DATA, "cr4": 0}, False),
        (Lapse.AC, {0: TABLES & ~4}, USER_DATA, False),
        (Lapse.AC, {0: 0}, USER_DATA, False),
        # Which register is asked about the key of a page: 5, to which PKRU denies all.
        (Lapse.KEYS, {0: KEYED}, LOCKED, True),
        (Lapse.KEYS, {0: KEYED}, {**LOCKED, "kind": FETCH}, False),
        (Lapse.KEYS, {0: KEYED}, {**LOCKED, "user": True}, False),
        (Lapse.KEYS, {0: KEYED}, {**LOCKED, "kind": WRITE}, False),
        (Lapse.KEYS, {0: KEYED & ~4}, LOCKED, False),
        (Lapse.KEYS, {0: KEYED & ~4}, {**LOCKED, "kind": WRITE}, True),
        (Lapse.KEYS, {0: KEYED & ~4}, {**LOCKED, "kind": WRITE, "cr0": 0}, False),
        (Lapse.KEYS, {0: KEYED & ~4}, {**LOCKED, "kind": WRITE, "user": True}, False),
        (Lapse.KEYS, {0: KEYED}, {**LOCKED, "cr4": 0}, False),
        (Lapse.KEYS, {0: KEYED ^ 1 << 59}, LOCKED, False),
        # Bit 8 of a PML4E or PML5E.
        (Lapse.BIT_8, {3: TABLES | 1 << 8}, AMD, True),
        (Lapse.BIT_8, {4: TABLES | 1 << 8}, {**AMD, "mode": Mode.LEVEL_5}, True),
        (Lapse.BIT_8, {3: TABLES | 1 << 8}, {**AMD, "mode": Mode.LEVEL_5}, True),
        (Lapse.BIT_8, {4: TABLES | 1 << 8, 3: TABLES | PS}, {**AMD, "mode": Mode.LEVEL_5}, True),
        (Lapse.BIT_8, {3: TABLES | 1 << 8, 0: 0}, AMD, True),
        (Lapse.BIT_8, {3: TABLES | 1 << 8}, {}, False),
        (Lapse.BIT_8, {3: TABLES | 1 << 8 | 1 << 51}, AMD, False),
        (Lapse.BIT_8, {3: 1 << 8 | RW_US}, AMD, False),
        (Lapse.BIT_8, {2: TABLES | 1 << 8}, AMD, False),
        # Bits 21:13 of a 4M page's entry.
        *((Lapse.PAGE_4M, {1: GIGABYTE | 1 << n}, WITHOUT_PSE36, n < 21) for n in range(13, 22)),
        *((Lapse.PAGE_4M, {1: GIGABYTE | 1 << n}, NARROW, 17 <= n < 21) for n in range(13, 22)),
        (Lapse.PAGE_4M, {1: GIGABYTE | 1 << 20 | 1 << 21}, NARROW, False),
        (Lapse.PAGE_4M, {1: GIGABYTE | 1 << 20}, {**NARROW, "maxphyaddr": 40}, False),
        (Lapse.PAGE_4M, {1: GIGABYTE | 1 << 20}, {**NARROW, "cr4": 0}, False),
        (Lapse.PAGE_4M, {1: GIGABYTE | 1 << 20}, {**NARROW, "cr4": 1 << 4 | MCE}, True),
        (Lapse.PAGE_4M, {1: TABLES | 1 << 20}, NARROW, False),
        (Lapse.PAGE_4M, {1: GIGABYTE & ~P | 1 << 20}, NARROW, False),
        (Lapse.PAGE_4M, {0: GIGABYTE | 1 << 20}, NARROW, False),
        # A PDPTE that is present: A, and what is reserved in it.
        (Lapse.PDPTES, {}, in_pae(P), True),
        (Lapse.PDPTES, {1: 0}, in_pae(P | 1 << 9), True),
        (Lapse.PDPTES, {}, in_pae(0), False),
        (Lapse.PDPTES, {}, in_pae(P, register=1), False),
        (Lapse.PDPTES, {}, in_pae(P | 1 << 9, register=1), False),
        *((Lapse.PDPTES, {}, in_pae(P | 1 << n, 1), True) for n in (1, 2, 5, 8, 40, 63)),
        *((Lapse.PDPTES, {}, in_pae(P | 1 << n, 1), False) for n in (3, 4, 9, 11, 39)),
        *((Lapse.PDPTES, {}, in_pae(1 << n, 1), False) for n in (1, 2, 5, 8, 40, 63)),
        # A push to an address that is not canonical.
        (Lapse.STACK, {}, {"kind": Kind.PUSH, "address": BEYOND}, True),
        (Lapse.STACK, {}, {"kind": WRITE, "address": BEYOND}, False),
        (Lapse.STACK, {}, {"kind": Kind.PUSH, "address": BEYOND - 8}, False),
        (Lapse.STACK, {}, {"kind": Kind.PUSH, "address": BEYOND, "mode": Mode.LEVEL_5}, False),
        # An access of the user's to one, whatever it comes to.
        *(
            (Lapse.UNCHECKED, entries, {"kind": kind, "user": True, "address": BEYOND}, True)
            for kind in (READ, WRITE, FETCH, Kind.PUSH)
            for entries in ({}, {3: 0}, {0: P}, {1: TABLES | 1 << 51})
        ),
        (Lapse.UNCHECKED, {}, {"user": True, "address": 1 << 63}, True),
        (Lapse.UNCHECKED, {}, {"address": BEYOND}, False),
        (Lapse.UNCHECKED, {}, {"user": True, "implicit": True, "address": BEYOND}, False),
        (Lapse.UNCHECKED, {}, {"user": True, "address": BEYOND - 8}, False),
        (Lapse.UNCHECKED, {}, {"user": True, "address": -BEYOND % (1 << 64)}, False),
        (Lapse.UNCHECKED, {}, {"user": True, "address": BEYOND, "mode": Mode.LEVEL_5}, False),
        (Lapse.UNCHECKED, {}, {"user": True, "address": 1 << 56, "mode": Mode.LEVEL_5}, True),
        # A supervisor's implicit access to a user page, with AC and SMAP.
        (Lapse.IMPLICIT, {}, USER_DATA, True),
        (Lapse.IMPLICIT, {}, {**USER_DATA, "user": True}, False),
        (Lapse.IMPLICIT, {}, {**USER_DATA, "ac": False}, False),
        (Lapse.IMPLICIT, {}, {**USER_DATA, "cr4": 0}, False),
        (Lapse.IMPLICIT, {}, {**USER_DATA, "implicit": False}, False),
        (Lapse.IMPLICIT, {0: P}, USER_DATA, False),
        (Lapse.IMPLICIT, {0: 0}, USER_DATA, False),
        (Lapse.IMPLICIT, {}, {**USER_DATA, "cr4": SMAP | PKE, "pkru": 1}, False),
        (Lapse.IMPLICIT, {}, {**USER_DATA, "cr4": SMAP | PKE, "pkru": 2}, True),
    ],
    ids=str,
)  # fmt: skip
def test_a_quirk_names_the_lanes_whose_only_cause_is_its_own(
    lapse: Lapse, entries: dict[int, int], asked: dict[str, Any], departs: bool
) -> None:
    engines = ("tcg", (7, 2, 22)), ("bochs", (3, 0)), ("tcg", (8, 2, 2))
    found = (lapses(fault_quirks(*engine)) for engine in engines)
    every = next(one for one in found if lapse in one)
    assert read(entries, every, **asked).departs(lapse).tolist() == [departs]


def test_two_quirks_name_a_lane_together_where_both_play_a_part() -> None:
    both = Lapse.GIGABYTE | Lapse.IMPLICIT
    reading = read({2: GIGABYTE}, both, **LACKING_1G, **USER_DATA)
    assert all(reading.departs(lapse).all() for lapse in both)
    assert not reading.without(Lapse.GIGABYTE).departs(Lapse.IMPLICIT).any()


@pytest.mark.parametrize(
    ("asked", "departs"),
    [
        ({"address": BEYOND}, True),
        ({"address": BEYOND, "kind": Kind.PUSH}, True),
        ({"address": BEYOND, "user": True, "implicit": True}, True),
        ({"address": BEYOND, "user": True}, False),
        ({"address": BEYOND - 8}, False),
        ({"address": BEYOND, "mode": Mode.LEVEL_5}, False),
        ({"address": 1 << 56, "mode": Mode.LEVEL_5}, True),
    ],
    ids=str,
)
def test_on_qemu_8_2_2_what_faults_for_its_address_alone_is_in_cr2(
    asked: dict[str, Any], departs: bool
) -> None:
    reading = read({3: 0}, lapses(fault_quirks("tcg", (8, 2, 2))), **asked)
    assert NON_CANONICAL_SETS_CR2.lanes(reading).tolist() == [departs]


@pytest.mark.parametrize(
    ("kind", "absent", "present"), [(READ, 0x04, 0x0D), (WRITE, 0x06, 0x0F), (FETCH, 0x14, 0x1D)]
)
@pytest.mark.parametrize(
    ("offset", "area"),
    [
        (0, True),
        (0x5FF8, True),
        (0x6000, False),
        (0x1F_FFF8, False),
        (0x20_0000, True),
        (0x20_5FF8, True),
        (0x20_6000, False),
        (0x7F_FFFF_FFF8, False),
    ],
)
def test_pvm_denies_user_mode_its_slot_as_a_processor_of_the_host_would(
    offset: int, area: bool, kind: Kind, absent: int, present: int
) -> None:
    reading = read(address=SLOT + offset, kind=kind, user=True)
    assert PVM_KEEPS_A_SLOT.lanes(reading).tolist() == [True]
    codes = PVM_KEEPS_A_SLOT.errors(reading.asked.cases)
    assert set(codes[:, 0].tolist()) == ({absent, present} if area else {absent})


@pytest.mark.parametrize("kind", (READ, WRITE, FETCH))
@pytest.mark.parametrize(
    ("address", "asked"),
    [
        (SLOT, {}),
        (SLOT, {"user": True, "implicit": True}),
        (SLOT + 0x7F_FFFF_FFF8, {}),
        (SLOT - 8, {"user": True}),
        (SLOT + (1 << 39), {"user": True}),
        (0xFFFF_FFFF_FFFF_FFF8, {"user": True}),
        (0x7FFF_FFFF_FFF8, {"user": True}),
        (0, {"user": True}),
    ],
    ids=str,
)
def test_pvm_follows_the_rules_elsewhere_and_for_the_supervisor(
    address: int, asked: dict[str, Any], kind: Kind
) -> None:
    reading = read(address=address, kind=kind, **asked)
    assert PVM_KEEPS_A_SLOT.lanes(reading).tolist() == [False]


FETCHED: dict[str, Any] = {"kind": FETCH, "cr4": SMAP}


@pytest.mark.parametrize(
    ("entries", "asked", "departs"),
    [
        ({}, {}, True),
        ({}, {"nxe": False}, True),
        ({}, {"cr0": 0}, True),
        ({2: GIGABYTE}, {}, True),
        ({}, {"kind": READ}, False),
        ({}, {"kind": WRITE}, False),
        ({}, {"user": True}, False),
        ({}, {"ac": True}, False),
        ({}, {"cr4": 0}, False),
        ({}, {"cr4": SMAP | SMEP}, False),
        ({}, {"address": (1 << 64) - 1}, False),
        ({}, {"address": (1 << 64) - 4096}, True),
        ({0: P | 2}, {}, False),
        ({3: P | 2}, {}, False),
        ({0: TABLES | NX}, {}, False),
        ({0: 0}, {}, False),
        ({0: TABLES | 1 << 51}, {}, False),
        ({}, {"address": BEYOND}, False),
    ],
    ids=str,
)
def test_pvm_emulates_what_the_supervisor_fetches_from_a_user_page_under_smap(
    entries: dict[int, int], asked: dict[str, Any], departs: bool
) -> None:
    reading = read(entries, **{**FETCHED, **asked})
    assert PVM_EMULATES_UNDER_SMAP.lanes(reading).tolist() == [departs]


@pytest.mark.parametrize(("nxe", "error"), [(True, 0x11), (False, 0x01)])
def test_pvm_tells_there_that_it_was_a_fetch_if_nxe_is_set(nxe: bool, error: int) -> None:
    assert PVM_EMULATES_UNDER_SMAP.error(read(nxe=nxe).asked.cpu) == error


# ---- what engines do ----

FRAME = 64 * MIB
USER_PAGE, SUPERVISOR_PAGE, ABSENT_PAGE = (SLOT + (n << 30) + MIB for n in (1, 2, 3))
NEXT_SLOT = SLOT + (1 << 39)
"""A user page there, too."""

PROCESSOR = min(os.sched_getaffinity(0))
AREA, OTHER_AREA = (SLOT + cpu * 2 * MIB for cpu in (PROCESSOR, PROCESSOR + 1))
"""Nothing is mapped there; the first belongs to the host's processor that runs the guest."""


@pytest.fixture(scope="module")
def pvm() -> Iterator[Guest]:
    if reason := why_absent("kvm"):
        pytest.skip(reason)
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {PROCESSOR})
    try:
        with Guest("kvm", ram_bytes=128 * MIB) as guest:
            name, version = executor(guest)
            if PVM_KEEPS_A_SLOT not in fault_quirks(name, version):
                pytest.skip(f"KVM is {name} {version} here, which has not this quirk")
            yield guest
    finally:
        os.sched_setaffinity(0, usual)


class Probed:
    """User accesses to a page of each sort, made by a guest and not yet judged."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        memory = BufferMemory(guest.ram.buffer)
        self.cpu = build_pages(memory, guest.info.physical_bits)
        allocator = TableAllocator(memory, Span(TABLE_ARENA.start, TABLE_ARENA.stop - 1))
        self.window = open_window(memory, self.cpu, guest.image, allocator)
        pages = (USER_PAGE, SUPERVISOR_PAGE, ABSENT_PAGE, AREA, OTHER_AREA, NEXT_SLOT)
        kinds = (READ, WRITE, FETCH)
        lanes = [(page + CODE * (kind is FETCH), kind) for page in pages for kind in kinds]
        cases = Cases(
            np.array([address for address, _ in lanes], np.uint64),
            np.array([kind for _, kind in lanes], np.uint8),
            np.ones(len(lanes), np.bool_),
            np.zeros(len(lanes), np.bool_),
        )
        tables = TableImage.of(memory, self.cpu.roots).address
        self.expected, reasons = probes.expect(self.cpu, memory, tables, cases, self.window)
        assert not reasons
        self.jobs = probes.make_jobs(guest, self.cpu, self.expected)
        self.results = guest.run(self.window.state, self.jobs)

    def judged(self, results: npt.NDArray[np.void], *quirks: FaultQuirk) -> Comparison:
        comparison = Comparison("probe")
        probes.judge(comparison, self.cpu, self.guest, self.expected, self.jobs, results, quirks)
        return comparison


def build_pages(memory: BufferMemory, maxphyaddr: int) -> Cpu:
    """The CPU of a space with the pages above."""
    allocator = TableAllocator(memory, Span(ARENA.stop, FRAME - 1))
    format = Cpu.long_mode(4, 0, maxphyaddr=maxphyaddr).format
    root = allocator.allocate(format, len(format.levels) - 1)
    cpu = Cpu.long_mode(4, root.address, maxphyaddr=maxphyaddr)
    space = Space(memory, cpu.roots, allocator)
    user = format.granting("write", "user", "execute")
    supervisor = format.granting("write", "execute")
    pages = (USER_PAGE, user), (SUPERVISOR_PAGE, supervisor), (NEXT_SLOT, user)
    for number, (page, bits) in enumerate(pages):
        space.map(Virtual(page), np.array([FRAME + number * MIB], np.uint64), 0, bits)
    return cpu


@pytest.fixture(scope="module")
def probed(pvm: Guest) -> Probed:
    return Probed(pvm)


@pytest.mark.hw
def test_no_window_is_where_an_engine_keeps_user_mode_out(probed: Probed) -> None:
    span = Span(SLOT, NEXT_SLOT - 1)  # where the lowest hole of this space is
    assert span.clip(probed.window.span) is None


@pytest.mark.hw
def test_pvm_keeps_user_mode_out_of_the_slot(probed: Probed) -> None:
    fields = probed.results[["completed", "vector", "error"]]
    answers = [tuple(map(int, answer)) for answer in fields.tolist()]
    nothing_there = [(0, PAGE_FAULT, 0x04), (0, PAGE_FAULT, 0x06), (0, PAGE_FAULT, 0x14)]
    the_hosts = [(0, PAGE_FAULT, 0x0D), (0, PAGE_FAULT, 0x0F), (0, PAGE_FAULT, 0x1D)]
    assert answers[:15] == nothing_there * 3 + the_hosts + nothing_there
    assert [completed for completed, _, _ in answers[15:]] == [1, 1, 1]


@pytest.mark.hw
def test_the_quirk_excuses_what_departs_there_and_that_alone(probed: Probed) -> None:
    judged = probed.judged(probed.results, PVM_KEEPS_A_SLOT)
    assert dict(judged.quirks) == {PVM_KEEPS_A_SLOT.name: 9}  # at absent pages 04 is the rule
    assert (judged.disagreed, dict(judged.news)) == (0, {})


@pytest.mark.hw
def test_without_the_quirk_all_that_departs_there_disagrees(probed: Probed) -> None:
    assert probed.judged(probed.results).disagreed == 9


@pytest.mark.hw
@pytest.mark.parametrize(
    ("field", "change"),
    [
        pytest.param("error", 0x01, id="P"),
        pytest.param("error", 0x09, id="P and RSVD"),
        pytest.param("error", 0x04, id="U"),
        pytest.param("cr2", 0x08, id="CR2"),
        pytest.param("vector", PAGE_FAULT ^ PROTECTION, id="vector"),
        pytest.param("completed", 1, id="done"),
        pytest.param("after", 1 << 6, id="D"),
        pytest.param("after", 1 << 12, id="address in the entry"),
    ],
)
def test_the_quirk_excuses_no_other_answer(probed: Probed, field: str, change: int) -> None:
    altered = probed.results.copy()
    altered[field][:3] ^= np.array(change, altered[field].dtype)
    judged = probed.judged(altered, PVM_KEEPS_A_SLOT)
    assert (judged.disagreed, judged.quirks.total(), judged.news.total()) == (3, 6, 0)


@pytest.mark.hw
def test_a_slot_that_follows_the_rules_is_news(probed: Probed) -> None:
    mended = probed.results.copy()
    mended["error"][3:6] |= np.uint32(P)  # the supervisor's page
    judged = probed.judged(mended, PVM_KEEPS_A_SLOT)
    assert dict(judged.news) == {f"{PVM_KEEPS_A_SLOT.name} did not show": 3}
    assert (judged.disagreed, judged.quirks.total()) == (0, 6)


@pytest.mark.hw
@pytest.mark.parametrize("levels", [4, 5])
def test_the_quirks_of_tcg_show_on_malformed_tables_and_nothing_else_departs(levels: int) -> None:
    report = validate(load(find("malformed")), levels, "tcg")
    probe, version = report.comparisons[0], tuple(map(int, report.qemu.split(".")))
    shown = {RESERVED_WITHOUT_PRESENT.name, GIGABYTE_PAGE_ACCESSED.name}
    shown |= {name for name in SPANS if expected_of(KNOWN[name], "tcg", version)}
    assert set(probe.quirks) == shown
    assert (probe.disagreed, dict(probe.news)) == (0, {})
