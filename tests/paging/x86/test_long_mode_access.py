"""What an access comes to: the manual's rules, line by line, and all combinations of them."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from harness.paging.address import Physical, Virtual
from harness.paging.x86 import bulk as arrays
from harness.paging.x86.access import (
    Access,
    Allowed,
    Fault,
    Kind,
    Outcome,
    Reason,
    Unbacked,
    Vector,
    outcome,
)
from tests.paging.machines import (
    STATES,
    asked,
    cpu_of,
    memory_of,
    random_accesses,
    random_addresses,
    random_memory,
)
from tests.paging.rules import Machine

P, W, U, XD = 1, 2, 4, 1 << 63
ALL = P | W | U
MALFORMED = 1 << 51 | P
READ, WRITE, FETCH = Kind.READ, Kind.WRITE, Kind.FETCH
PLAIN = Machine()
OK = None

Entries = tuple[int, int, int, int]
"""Those of a walk, from the top down."""

RULES: dict[str, tuple[Entries, Machine, Access, Fault | None]] = {}
"""Entries, the CPU, the access, and what the manual says: a page fault, or OK."""

ADDRESS = Virtual(0o001_002_003_004_0567)


def rule(
    name: str,
    entries: Entries,
    machine: Machine,
    kind: Kind,
    who: str,
    says: tuple[int, Reason] | None,
    level: int = 0,
) -> None:
    """One line: `says` is the error code and the reason, `level` where the walk ends."""
    assert name not in RULES
    fault = says and Fault(Vector.PF, says[0], ADDRESS, level, says[1])
    RULES[name] = (entries, machine, Access(kind, who == USER, who == IMPLICIT), fault)


def leaf(bits: int) -> Entries:
    return (ALL, ALL, ALL, bits)


SUPERVISOR, USER, IMPLICIT = "supervisor", "user", "implicit"
NO_WP, SMEP, SMAP = replace(PLAIN, wp=False), replace(PLAIN, smep=True), replace(PLAIN, smap=True)
SMAP_AC, NO_NXE = replace(SMAP, ac=True), replace(PLAIN, nxe=False)
SMEP_NO_NXE = replace(SMEP, nxe=False)

# A page that gives everything.
rule("a user reads a user page", leaf(ALL), PLAIN, READ, USER, OK)
rule("a user writes a user page", leaf(ALL), PLAIN, WRITE, USER, OK)
rule("a user fetches from a user page", leaf(ALL), PLAIN, FETCH, USER, OK)
rule("a supervisor reads a user page", leaf(ALL), PLAIN, READ, SUPERVISOR, OK)
rule("a supervisor writes a user page", leaf(ALL), PLAIN, WRITE, SUPERVISOR, OK)
rule("a supervisor fetches from a user page", leaf(ALL), PLAIN, FETCH, SUPERVISOR, OK)

# User pages: the AND of U/S.
NO_USER = Reason.USER_DENIED
rule("a user reads a supervisor page", leaf(P | W), PLAIN, READ, USER, (0x05, NO_USER))
rule("a user writes a supervisor page", leaf(P | W), PLAIN, WRITE, USER, (0x07, NO_USER))
rule("a user fetches from a supervisor page", leaf(P | W), PLAIN, FETCH, USER, (0x15, NO_USER))
rule("U/S denied at the top", (P | W, ALL, ALL, ALL), PLAIN, READ, USER, (0x05, NO_USER))
rule("U/S denied in the middle", (ALL, P | W, ALL, ALL), PLAIN, READ, USER, (0x05, NO_USER))
rule("U/S before XD", leaf(P | XD), PLAIN, FETCH, USER, (0x15, NO_USER))
rule("U/S before R/W", leaf(P), PLAIN, WRITE, USER, (0x07, NO_USER))

# Writing: the AND of R/W, and CR0.WP.
NO_WRITE = Reason.WRITE_DENIED
rule("a user writes a read-only page", leaf(P | U), PLAIN, WRITE, USER, (0x07, NO_WRITE))
rule("R/W denied at the top", (P | U, ALL, ALL, ALL), PLAIN, WRITE, USER, (0x07, NO_WRITE))
rule("a supervisor with WP", leaf(P), PLAIN, WRITE, SUPERVISOR, (0x03, NO_WRITE))
rule("a supervisor without WP", leaf(P), NO_WP, WRITE, SUPERVISOR, OK)
rule("WP off at a user page", leaf(P | U), NO_WP, WRITE, SUPERVISOR, OK)
rule("a user without WP", leaf(P | U), NO_WP, WRITE, USER, (0x07, NO_WRITE))
rule("reading a read-only page", leaf(P | U), PLAIN, READ, USER, OK)
rule("an implicit write with WP", leaf(P), PLAIN, WRITE, IMPLICIT, (0x03, NO_WRITE))

# Fetching: NOT OR of XD, and SMEP.
NO_FETCH = Reason.EXECUTE_DENIED
rule("a user fetches from an XD page", leaf(ALL | XD), PLAIN, FETCH, USER, (0x15, NO_FETCH))
rule(
    "a supervisor fetches from an XD page", leaf(P | XD), PLAIN, FETCH, SUPERVISOR, (0x11, NO_FETCH)
)
rule("XD at the top", (ALL | XD, ALL, ALL, ALL), PLAIN, FETCH, USER, (0x15, NO_FETCH))
rule("XD in the middle", (ALL, ALL, ALL | XD, ALL), PLAIN, FETCH, USER, (0x15, NO_FETCH))
rule("XD says nothing of data", leaf(ALL | XD), PLAIN, WRITE, USER, OK)
rule("SMEP at a user page", leaf(ALL), SMEP, FETCH, SUPERVISOR, (0x11, Reason.SMEP))
rule("SMEP at a user's XD page", leaf(ALL | XD), SMEP, FETCH, SUPERVISOR, (0x11, Reason.SMEP))
rule("SMEP at a supervisor page", leaf(P | W), SMEP, FETCH, SUPERVISOR, OK)
rule("SMEP: any U/S clear is a supervisor page", (P, ALL, ALL, ALL), SMEP, FETCH, SUPERVISOR, OK)
rule("SMEP lets users fetch", leaf(ALL), SMEP, FETCH, USER, OK)
rule("SMEP says nothing of data", leaf(ALL), SMEP, WRITE, SUPERVISOR, OK)

# Data of users: SMAP, and EFLAGS.AC.
rule("SMAP at a read", leaf(ALL), SMAP, READ, SUPERVISOR, (0x01, Reason.SMAP))
rule("SMAP at a write", leaf(ALL), SMAP, WRITE, SUPERVISOR, (0x03, Reason.SMAP))
rule("SMAP without WP", leaf(ALL), replace(SMAP, wp=False), WRITE, SUPERVISOR, (0x03, Reason.SMAP))
rule("SMAP before R/W", leaf(P | U), SMAP, WRITE, SUPERVISOR, (0x03, Reason.SMAP))
rule("SMAP with AC", leaf(ALL), SMAP_AC, WRITE, SUPERVISOR, OK)
rule("SMAP with AC at a read-only page", leaf(P | U), SMAP_AC, WRITE, SUPERVISOR, (0x03, NO_WRITE))
rule("SMAP, implicit", leaf(ALL), SMAP, READ, IMPLICIT, (0x01, Reason.SMAP))
rule("SMAP with AC, implicit", leaf(ALL), SMAP_AC, READ, IMPLICIT, (0x01, Reason.SMAP))
rule("SMAP at a supervisor page", leaf(P | W), SMAP, WRITE, SUPERVISOR, OK)
rule("SMAP says nothing of fetches", leaf(ALL), SMAP, FETCH, SUPERVISOR, OK)
rule("SMAP says nothing of users", leaf(ALL), SMAP, WRITE, USER, OK)
rule("AC without SMAP", leaf(ALL), replace(PLAIN, ac=True), READ, SUPERVISOR, OK)

# What is absent, and what is reserved: from the top down, before any right.
GONE, RESERVED = Reason.NOT_PRESENT, Reason.RESERVED
rule("absent, a read", leaf(0), PLAIN, READ, SUPERVISOR, (0x00, GONE))
rule("absent, a write", leaf(0), PLAIN, WRITE, SUPERVISOR, (0x02, GONE))
rule("absent, a user's read", leaf(0), PLAIN, READ, USER, (0x04, GONE))
rule("absent, a user's write", leaf(0), PLAIN, WRITE, USER, (0x06, GONE))
rule("absent, a fetch", leaf(0), PLAIN, FETCH, SUPERVISOR, (0x10, GONE))
rule("absent, a user's fetch", leaf(0), PLAIN, FETCH, USER, (0x14, GONE))
rule("absent, a fetch without NXE", leaf(0), NO_NXE, FETCH, USER, (0x04, GONE))
rule("absent, a fetch with SMEP alone", leaf(0), SMEP_NO_NXE, FETCH, USER, (0x14, GONE))
rule("reserved, a read", leaf(MALFORMED), PLAIN, READ, SUPERVISOR, (0x09, RESERVED))
rule("reserved, a write", leaf(MALFORMED), PLAIN, WRITE, SUPERVISOR, (0x0B, RESERVED))
rule("reserved, a user's read", leaf(MALFORMED), PLAIN, READ, USER, (0x0D, RESERVED))
rule("reserved, a user's write", leaf(MALFORMED), PLAIN, WRITE, USER, (0x0F, RESERVED))
rule("reserved, a fetch", leaf(MALFORMED), PLAIN, FETCH, SUPERVISOR, (0x19, RESERVED))
rule("reserved, a user's fetch", leaf(MALFORMED), PLAIN, FETCH, USER, (0x1D, RESERVED))
rule("XD without NXE", leaf(ALL | XD), NO_NXE, READ, USER, (0x0D, RESERVED))
rule("XD without NXE, a fetch", leaf(ALL | XD), NO_NXE, FETCH, USER, (0x0D, RESERVED))
rule("a user denied above absence", (P | W, ALL, ALL, 0), PLAIN, READ, USER, (0x04, GONE))
rule("XD above absence", (ALL | XD, ALL, ALL, 0), PLAIN, FETCH, USER, (0x14, GONE))
rule("read-only above absence", (P | U, ALL, ALL, 0), PLAIN, WRITE, USER, (0x06, GONE))
rule(
    "XD above a reserved bit", (ALL | XD, ALL, ALL, MALFORMED), PLAIN, FETCH, USER, (0x1D, RESERVED)
)
rule(
    "a user denied above a reserved bit",
    (P, ALL, MALFORMED, ALL),
    PLAIN,
    READ,
    USER,
    (0x0D, RESERVED),
    1,
)
rule(
    "a reserved bit above absence", (ALL, MALFORMED, ALL, 0), PLAIN, READ, USER, (0x0D, RESERVED), 2
)
rule("absence above a reserved bit", (ALL, 0, ALL, MALFORMED), PLAIN, READ, USER, (0x04, GONE), 2)
rule("reserved bits of what is absent", leaf(MALFORMED & ~P), PLAIN, READ, USER, (0x04, GONE))
rule("SMAP above absence", leaf(U), SMAP, READ, SUPERVISOR, (0x00, GONE))

SLOTS = [0x0008, 0x1010, 0x2018, 0x3020]
FRAME = 0xABC000


def memory_with(entries: Entries) -> list[int]:
    """Four tables one after another, the entries in slots 1 to 4 of them."""
    words = [0] * 512 * 4
    for table, entry in enumerate(entries):
        words[512 * table + table + 1] = entry | (0x1000 * (table + 1) if table < 3 else FRAME)
    return words


@pytest.mark.parametrize("name", RULES)
def test_every_rule_of_access(name: str) -> None:
    entries, machine, access, says = RULES[name]
    found = outcome(cpu_of(machine), memory_of(memory_with(entries)), ADDRESS, access)
    if says is not None:
        assert found == says
        return
    assert isinstance(found, Allowed)
    assert found.physical == FRAME + 0o567
    assert [slot.address for slot in found.accessed] == SLOTS
    assert found.dirty == (found.accessed[-1] if access.kind is WRITE else None)


def came_to(found: Outcome) -> bool:
    assert isinstance(found, Allowed | Fault)
    return isinstance(found, Allowed)


@pytest.mark.parametrize("machine", [m for m in STATES if m.maxphyaddr == 40], ids=str)
def test_every_combination_of_rights_and_access(machine: Machine) -> None:
    accesses = [Access(kind, user) for kind, user in product((READ, WRITE, FETCH), (True, False))]
    accesses += [Access(kind, False, implicit=True) for kind in (READ, WRITE)]
    root = 0x4000 if machine.levels == 5 else 0
    cpu = cpu_of(machine, root)
    names = ("write", "user", "execute")
    for given in product((False, True), repeat=3 if machine.nxe else 2):
        rights = {name for name, gives in zip(names, (*given, True), strict=False) if gives}
        raw = P | (W if "write" in rights else 0) | (U if "user" in rights else 0)
        raw |= 0 if "execute" in rights else XD
        memory = memory_of([*memory_with(leaf(raw)), ALL, *[0] * 511])
        octets, loaded = memory.octets.tobytes(), replace(machine, cr3=root)
        for access in accesses:
            wanted = asked(loaded, octets, ADDRESS, access)
            assert wanted is not None
            came = came_to(outcome(cpu, memory, ADDRESS, access))
            assert came is (wanted.vector is None), (raw, access)


@pytest.mark.parametrize("level", range(4))
@pytest.mark.parametrize("bits", range(8))
def test_rights_are_what_all_levels_give_together(level: int, bits: int) -> None:
    denied = P | (W * (bits & 1)) | (U * (bits >> 1 & 1)) | (XD * (bits >> 2))
    entries = [ALL] * 4
    entries[3 - level] = denied
    a, b, c, d = entries
    memory, cpu = memory_of(memory_with((a, b, c, d))), cpu_of(PLAIN)
    for kind, right in ((READ, True), (WRITE, bits & 1), (FETCH, not bits >> 2)):
        expected = bool(right and bits >> 1 & 1)
        assert came_to(outcome(cpu, memory, ADDRESS, Access(kind, True))) is expected


@pytest.mark.parametrize(
    ("levels", "address"),
    [
        (4, 0x8000_0000_0000),
        (4, 0xFFFF_7FFF_FFFF_FFFF),
        (5, 0x0100_0000_0000_0000),
        (5, 0xFEFF_FFFF_FFFF_FFFF),
    ],
)
@pytest.mark.parametrize("kind", [READ, WRITE, FETCH])
def test_an_address_that_is_not_canonical_is_a_gp_that_leaves_cr2_alone(
    levels: int, address: int, kind: Kind
) -> None:
    memory = memory_of([ALL] * 512)
    found = outcome(cpu_of(Machine(levels)), memory, Virtual(address), Access(kind, True))
    assert found == Fault(Vector.GP, 0, None, None, Reason.NOT_CANONICAL)


def test_the_vectors_are_the_manuals() -> None:
    assert (Vector.GP, Vector.PF) == (13, 14)


@pytest.mark.parametrize(("level", "size"), [(1, 2 << 20), (2, 1 << 30)])
def test_a_large_page_uses_and_notes_the_entries_above_it_only(level: int, size: int) -> None:
    words = memory_with(leaf(ALL))
    words[512 * (3 - level) + 4 - level] = ALL | 0x80 | 3 * size
    found = outcome(cpu_of(PLAIN), memory_of(words), ADDRESS, Access(WRITE, True))
    assert isinstance(found, Allowed)
    assert found.physical == 3 * size + ADDRESS % size
    assert [slot.address for slot in found.accessed] == SLOTS[: 4 - level]
    assert found.dirty == found.accessed[-1]


def test_an_entry_without_memory_leaves_the_outcome_open() -> None:
    words = memory_with(leaf(ALL))
    words[512 + 2] = 0x9007
    found = outcome(cpu_of(PLAIN), memory_of(words), ADDRESS, Access(READ, True))
    assert isinstance(found, Unbacked)
    assert (found.slot.address, found.slot.level) == (Physical(0x9018), 1)


@pytest.mark.parametrize(("kind", "user"), [(READ, True), (FETCH, False)])
def test_an_implicit_access_is_a_supervisors_and_to_data(kind: Kind, user: bool) -> None:
    with pytest.raises(ValueError, match="an implicit access is a supervisor's, and to data"):
        Access(kind, user, implicit=True)


LANES = 80


@pytest.mark.parametrize("machine", [m for m in STATES if not m.ac], ids=str)
def test_array_outcomes_are_the_scalar_ones(machine: Machine) -> None:
    seed = STATES.index(machine)
    memory = random_memory(seed, machine)
    addresses = random_addresses(seed, machine, LANES)
    accesses = random_accesses(seed, LANES)
    ac = np.arange(LANES) % 2 == 1
    found = arrays.outcomes(
        cpu_of(machine),
        memory,
        np.array(addresses, np.uint64),
        np.array([access.kind for access in accesses], np.uint8),
        np.array([access.user for access in accesses]),
        ac,
    )
    cpus = {on: cpu_of(replace(machine, ac=on)) for on in (False, True)}
    for lane, (address, access) in enumerate(zip(addresses, accesses, strict=True)):
        expected = outcome(cpus[bool(ac[lane])], memory, Virtual(address), access)
        assert bool(found.unbacked[lane]) is isinstance(expected, Unbacked)
        if isinstance(expected, Unbacked):
            continue
        reason = arrays.REASONS[found.reason[lane]]
        if isinstance(expected, Fault):
            got = (int(found.vector[lane]), int(found.error[lane]), reason)
            assert got == (expected.vector, expected.error, expected.reason)
            assert bool(found.sets_cr2[lane]) is (expected.cr2 is not None)
        else:
            assert (found.vector[lane], found.error[lane], reason) == (arrays.ALLOWED, 0, None)
            assert found.walks.physical[lane] == expected.physical
            assert not found.sets_cr2[lane]
