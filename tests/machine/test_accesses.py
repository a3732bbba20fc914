"""What each access comes to, in every paging mode, with tables that are written word by word.

The expected vectors, error codes and bits are the manual's (SDM 3A, 4.6, 4.7, 4.8), written out.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.machine.x86.guest import Guest
from tests.machine.handmade import (
    ACCESSED,
    CR0_WP,
    CR4_LA57,
    CR4_PKE,
    CR4_PKS,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    DIRTY,
    EFER_NXE,
    MOVED,
    NX,
    PAGE,
    PRESENT,
    USER,
    WRITE,
    HandMade,
    Mode,
)

pytestmark = pytest.mark.hw
only_long = pytest.mark.parametrize("mode", ["4", "5"], indirect=True)

DATA = 0x8877_6655_4433_2211
CONTENT = DATA.to_bytes(8, "little")
INVALID_OPCODE, STACK_FAULT, PROTECTION, PAGE_FAULT, NO_EXCEPTION = 6, 12, 13, 14, 0xFF
UNTOUCHED = 0x5A5A_5A5A_5A5A_5A5A

BASE = 0x1234_5678
SEGMENT = bytes([0xFF, 0xFF, 0x78, 0x56, 0x34, 0xF3, 0xCF, 0x12])
"""The descriptor of a data segment of CPL 3 at BASE (SDM 3A, 3.4.5)."""
LDT_ENTRY = 4
"""How an error code names the first descriptor of the LDT (SDM 3A, 6.13)."""


NOWHERE = 0xB000_0000
"""Where a guest of these tests has neither memory nor a device."""


def test_a_table_outside_memory_reads_as_zeros_and_on_bochs_as_ones(made: HandMade) -> None:
    """So its entries are not present: what `pagetable fault` says of QEMU.  On Bochs they are, with
    every reserved bit that there is; 32-bit paging has none in a PTE."""
    address = made.mode.address
    slot = made.slot(made.root, address, 1)
    made[slot] = NOWHERE | made.mode.link(1)
    result = made.ask(made.job("read", address))
    if made.guest.engine.name != "bochs":
        assert (result["vector"], result["error"], result["cr2"]) == (PAGE_FAULT, 0, address)
    elif made.mode.entry_bytes == 8:
        assert (result["vector"], result["error"], result["cr2"]) == (PAGE_FAULT, 0x09, address)
    else:
        assert result["completed"] == 1


@pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
class TestAllowed:
    def test_a_read_finds_the_data_of_the_frame(self, made: HandMade, user: int) -> None:
        address = made.mode.address
        made.map(made.root, address, made.frame(CONTENT) | USER * user)
        result = made.ask(made.job("read", address, user=user))
        assert (result["vector"], result["completed"]) == (NO_EXCEPTION, 1)
        assert result["data"] == made.mode.cut(DATA)
        assert (result["cr2"], result["error"], result["rip"]) == (UNTOUCHED, 0, 0)

    @pytest.mark.parametrize(("size", "found"), [(1, 0x44), (4, 0x7766_5544)])
    def test_a_part_of_a_word_is_read_alone(
        self, made: HandMade, user: int, size: int, found: int
    ) -> None:
        address = made.mode.address
        made.map(made.root, address, made.frame(CONTENT) | USER * user)
        result = made.ask(made.job("read", address + 3, size=size, user=user))
        assert (result["vector"], result["data"]) == (NO_EXCEPTION, found)

    @pytest.mark.parametrize("access", ["write", "push"])
    def test_what_is_stored_reaches_the_frame(self, made: HandMade, access: str, user: int) -> None:
        address, frame, word = made.mode.address, made.frame(), made.mode.entry_bytes
        made.map(made.root, address, frame | WRITE | USER * user)
        result = made.ask(made.job(access, address + 8, value=DATA, user=user))
        assert (result["vector"], result["completed"], result["data"]) == (NO_EXCEPTION, 1, 0)
        assert (result["cr2"], result["error"], result["rip"]) == (UNTOUCHED, 0, 0)
        stored = made[frame + 8 - word], made[frame + 8], made[frame + 8 + word]
        assert stored == (0, made.mode.cut(DATA), 0)

    def test_a_push_fits_at_the_end_of_a_page(self, made: HandMade, user: int) -> None:
        address, frame = made.mode.address, made.frame()
        made.map(made.root, address, frame | WRITE | USER * user)
        last = PAGE - made.mode.width
        jobs = made.job("push", address + last, value=DATA, user=user)
        assert made.ask(jobs)["vector"] == NO_EXCEPTION
        assert made.content(frame + last, made.mode.width) == CONTENT[: made.mode.width]

    @pytest.mark.parametrize(("size", "stored"), [(1, 0x1100), (4, 0x44_3322_1100)])
    def test_a_part_of_a_word_is_written_alone(
        self, made: HandMade, user: int, size: int, stored: int
    ) -> None:
        address, frame = made.mode.address, made.frame()
        made.map(made.root, address, frame | WRITE | USER * user)
        jobs = made.job("write", address + 1, value=DATA, size=size, user=user)
        assert made.ask(jobs)["vector"] == NO_EXCEPTION
        assert made.content(frame, 8) == stored.to_bytes(8, "little")

    def test_a_fetch_ends_in_the_exception_of_its_code(self, made: HandMade, user: int) -> None:
        address, mode = made.mode.address, made.mode
        made.map(made.root, address, made.frame(mode.code) | USER * user)
        result = made.ask(made.job("fetch", address, user=user))
        assert (result["vector"], result["completed"]) == (INVALID_OPCODE, 1)
        assert (result["data"], result["rip"]) == (mode.cut(MOVED), address + len(mode.code) - 2)

    def test_the_last_byte_of_a_page_is_fetched(self, made: HandMade, user: int) -> None:
        address = made.mode.address
        code, vector, length = made.mode.last_byte
        made.map(made.root, address, made.frame(code.rjust(PAGE)) | USER * user)
        result = made.ask(made.job("fetch", address + PAGE - 1, user=user))
        assert (result["vector"], result["completed"]) == (vector, 1)
        assert result["rip"] == address + PAGE - 1 + length

    @pytest.mark.parametrize("rights", [0, USER], ids=["supervisor's", "user's"])
    def test_a_descriptor_is_read_whoever_owns_its_page(
        self, made: HandMade, rights: int, user: int
    ) -> None:
        address = made.mode.address
        made.map(made.root, address, made.frame(SEGMENT.rjust(PAGE)) | rights)
        result = made.ask(made.job("descriptor", address + PAGE - 8, user=user))
        assert (result["vector"], result["completed"], result["data"]) == (NO_EXCEPTION, 1, BASE)
        assert (result["cr2"], result["error"], result["rip"]) == (UNTOUCHED, 0, 0)

    def test_what_is_no_descriptor_was_read_all_the_same(self, made: HandMade, user: int) -> None:
        address = made.mode.address
        made.map(made.root, address, made.frame())
        result = made.ask(made.job("descriptor", address, user=user))
        assert (result["vector"], result["error"]) == (PROTECTION, LDT_ENTRY)
        assert (result["completed"], result["data"], result["cr2"]) == (1, 0, UNTOUCHED)

    def test_accessed_and_dirty_are_among_the_words_watched(
        self, made: HandMade, user: int
    ) -> None:
        address, frame = made.mode.address, made.frame(SEGMENT)
        leaf = made.map(made.root, address, frame | WRITE | USER * user)
        upper = made.slot(made.root, address, 1)
        names = ["descriptor", "read", "push"]
        jobs = np.concatenate([made.job(name, address, value=DATA, user=user) for name in names])
        jobs["patched"], jobs["watched"] = 1, 3
        jobs["where"][:, :3], jobs["word"][:, 0] = (leaf, upper, frame), made[leaf]
        descriptor, read, push = made.guest.run(made.state, jobs)["after"]
        for after in (descriptor, read):
            assert after[0] & (ACCESSED | DIRTY) == ACCESSED
            assert after[1] & ACCESSED
        assert push[0] & (ACCESSED | DIRTY) == ACCESSED | DIRTY
        assert push[2] & 0xFFFF_FFFF == DATA & 0xFFFF_FFFF


READ_ONLY, SUPERVISOR = PRESENT | USER, PRESENT | WRITE
FAULTS = {
    "supervisor reads what is absent": ("read", 0, 0, 0x00),
    "supervisor writes what is absent": ("write", 0, 0, 0x02),
    "supervisor pushes where nothing is": ("push", 0, 0, 0x02),
    "supervisor fetches what is absent": ("fetch", 0, 0, 0x10),
    "supervisor has no descriptor": ("descriptor", 0, 0, 0x00),
    "user reads what is absent": ("read", 1, 0, 0x04),
    "user writes what is absent": ("write", 1, 0, 0x06),
    "user pushes where nothing is": ("push", 1, 0, 0x06),
    "user fetches what is absent": ("fetch", 1, 0, 0x14),
    "user has no descriptor": ("descriptor", 1, 0, 0x00),
    "supervisor writes what is read-only": ("write", 0, READ_ONLY, 0x03),
    "supervisor pushes on what is read-only": ("push", 0, READ_ONLY, 0x03),
    "user writes what is read-only": ("write", 1, READ_ONLY, 0x07),
    "user pushes on what is read-only": ("push", 1, READ_ONLY, 0x07),
    "user reads what is the supervisor's": ("read", 1, SUPERVISOR, 0x05),
    "user writes what is the supervisor's": ("write", 1, SUPERVISOR, 0x07),
    "user pushes on what is the supervisor's": ("push", 1, SUPERVISOR, 0x07),
    "user fetches what is the supervisor's": ("fetch", 1, SUPERVISOR, 0x15),
}


@pytest.mark.parametrize(("access", "user", "word", "error"), FAULTS.values(), ids=FAULTS.keys())
def test_a_denied_access_reports_error_code_and_address(
    made: HandMade, access: str, user: int, word: int, error: int
) -> None:
    address, frame = made.mode.address + 0x128, made.frame(CONTENT)
    made[made.slot(made.root, address, 0)] = frame | word if word else 0
    result = made.ask(made.job(access, address, value=1, user=user))
    if access == "fetch":
        error = error & ~0x10 | made.mode.fetched
    assert (result["vector"], result["error"]) == (PAGE_FAULT, error)
    assert (result["cr2"], result["data"], result["completed"]) == (address, 0, 0)
    assert made.content(frame, 8) == CONTENT
    assert made.content(frame + 0x128, 8) == bytes(8)


@pytest.mark.parametrize("mode", ["pae", "4", "5"], indirect=True)
@pytest.mark.parametrize(("user", "error"), [(0, 0x11), (1, 0x15)], ids=["supervisor", "user"])
def test_a_fetch_of_what_is_no_code_is_denied(made: HandMade, user: int, error: int) -> None:
    address, rights = made.mode.address, PRESENT | (USER if user else WRITE)
    made.map(made.root, address, made.frame(made.mode.code) | rights | NX)
    result = made.ask(made.job("fetch", address, user=user))
    assert (result["vector"], result["error"]) == (PAGE_FAULT, error)
    assert (result["cr2"], result["data"], result["completed"]) == (address, 0, 0)


@only_long
@pytest.mark.parametrize("access", ["read", "write", "fetch", "push"])
@pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
def test_a_non_canonical_address_raises_no_page_fault_and_leaves_cr2(
    made: HandMade, access: str, user: int
) -> None:
    result = made.ask(made.job(access, 1 << (made.mode.shifts[-1] + 8), user=user))
    # SDM 3A, 6.15: a stack reference raises #SS; QEMU's TCG knows no difference
    stack = access == "push" and made.guest.engine.name != "tcg"
    vector = STACK_FAULT if stack else PROTECTION
    assert (result["vector"], result["error"], result["completed"]) == (vector, 0, 0)
    assert result["cr2"] == UNTOUCHED


@pytest.mark.parametrize("address", [UNTOUCHED % (1 << 32), UNTOUCHED % (1 << 32) ^ 1 << 31])
def test_every_address_is_told_from_an_untouched_cr2(made: HandMade, address: int) -> None:
    result = made.ask(made.job("read", address))
    assert (result["vector"], result["cr2"]) == (PAGE_FAULT, address)


@pytest.mark.parametrize("access", ["write", "push"])
def test_the_supervisor_writes_what_is_read_only_without_wp(made: HandMade, access: str) -> None:
    address, frame = made.mode.address, made.frame()
    made.map(made.root, address, frame)
    jobs = made.job(access, address, value=1)
    assert made.ask(jobs, cr0=made.state.cr0 & ~CR0_WP)["vector"] == NO_EXCEPTION
    assert made[frame] == 1


def test_smep_denies_the_supervisor_the_code_of_the_user(made: HandMade) -> None:
    address = made.mode.address
    made.map(made.root, address, made.frame(made.mode.code) | USER)
    result = made.ask(made.job("fetch", address), cr4=made.state.cr4 | CR4_SMEP)
    assert (result["vector"], result["error"]) == (PAGE_FAULT, 0x11)
    assert made.ask(made.job("fetch", address))["vector"] == INVALID_OPCODE


@pytest.mark.parametrize(("access", "error"), [("read", 0x01), ("write", 0x03), ("push", 0x03)])
def test_smap_denies_the_supervisor_the_data_of_the_user_unless_ac(
    made: HandMade, access: str, error: int
) -> None:
    address = made.mode.address
    made.map(made.root, address, made.frame() | USER | WRITE)
    outcomes = []
    for user, ac in ((0, 0), (0, 1), (1, 0), (1, 1)):
        job = made.job(access, address, user=user, ac=ac)
        result = made.ask(job, cr4=made.state.cr4 | CR4_SMAP)
        outcomes.append((result["vector"], result["error"]))
    done = NO_EXCEPTION, 0
    assert outcomes == [(PAGE_FAULT, error), done, done, done]


@pytest.mark.parametrize("ac", [0, 1])
@pytest.mark.parametrize("user", [0, 1], ids=["supervisor", "user"])
def test_smap_denies_an_implicit_access_the_data_of_the_user(
    made: HandMade, user: int, ac: int
) -> None:
    address = made.mode.address
    made.map(made.root, address, made.frame(SEGMENT) | USER)
    job = made.job("descriptor", address, user=user, ac=ac)
    result = made.ask(job, cr4=made.state.cr4 | CR4_SMAP)
    # against SDM 3A, 4.6.1
    if (made.guest.engine.name, user, ac) in {("tcg", 0, 1), ("bochs", 0, 1), ("bochs", 1, 1)}:
        assert (result["vector"], result["data"]) == (NO_EXCEPTION, BASE)
    else:
        assert (result["vector"], result["error"]) == (PAGE_FAULT, 0x01)
        assert (result["cr2"], result["completed"]) == (address, 0)


def test_without_nxe_a_fetch_is_not_marked_in_the_error_code(
    guest: Guest, mode: Mode, frames: Iterator[int]
) -> None:
    made = HandMade(guest, mode, frames, nx=0)
    result = made.ask(made.job("fetch", mode.address), efer=made.state.efer & ~EFER_NXE)
    assert (result["vector"], result["error"]) == (PAGE_FAULT, 0)


# ---- control state that changes between the jobs of one batch ----

CHANGES = {
    "WP": ("cr0", CR0_WP, "write", PRESENT, 0x03),
    "SMEP": ("cr4", CR4_SMEP, "fetch", PRESENT | USER, 0x11),
    "SMAP": ("cr4", CR4_SMAP, "read", PRESENT | USER | WRITE, 0x01),
}


@pytest.mark.parametrize(
    ("register", "bit", "access", "word", "error"), CHANGES.values(), ids=CHANGES
)
def test_a_control_bit_that_changes_between_jobs_counts_from_the_next_access_on(
    made: HandMade, register: str, bit: int, access: str, word: int, error: int
) -> None:
    """No translation is dropped but at first (SDM 3A, 4.6.1: rights are checked at the access)."""
    content = made.mode.code if access == "fetch" else CONTENT
    address, frame = made.mode.address, made.frame(content)
    made.map(made.root, address, frame | word)
    jobs = np.concatenate([made.job(access, address, value=DATA)] * 4)
    kept, first, then = (
        made.guest.image.enums[f"CONTROL_{name}"] for name in ("KEPT", "FIRST", "THEN")
    )
    jobs["flush"][1:] = made.guest.image.enums["FLUSH_NONE"]
    jobs["control"] = first, then, kept, first
    value = getattr(made.state, register)
    state = replace(made.state, **{register: value & ~bit})
    then_state = replace(made.state, **{register: value | bit})
    results = made.guest.run(replace(state, then=then_state), jobs)
    allowed = INVALID_OPCODE if access == "fetch" else NO_EXCEPTION
    assert results["vector"].tolist() == [allowed, PAGE_FAULT, PAGE_FAULT, allowed]
    assert results["error"][1:3].tolist() == [error, error]


@only_long
def test_rights_of_keys_change_between_jobs(made: HandMade) -> None:
    if not made.guest.info.has("pku"):
        pytest.skip(f"{made.guest.engine.name} shows the guest no pku")
    address = made.mode.address
    made.map(made.root, address, made.frame() | USER | WRITE | KEY << 59)
    jobs = np.concatenate([made.job("read", address, user=1)] * 3)
    jobs["flush"][1:] = made.guest.image.enums["FLUSH_NONE"]
    jobs["control"] = [made.guest.image.enums[f"CONTROL_{n}"] for n in ("FIRST", "THEN", "FIRST")]
    state = replace(made.state, cr4=made.state.cr4 | CR4_PKE)
    denying = replace(state, pkru=ACCESS_DISABLE << 2 * KEY)
    results = made.guest.run(replace(state, then=denying), jobs)
    assert results["error"].tolist() == [0, 0x25, 0]


@only_long
@pytest.mark.parametrize("changed", [CR4_LA57, CR4_LA57 | CR4_PSE], ids=["LA57", "LA57 and PSE"])
def test_long_mode_refuses_another_number_of_levels(made: HandMade, changed: int) -> None:
    """SDM 2, MOV to control registers: #GP(0) where CR4.LA57 is changed in IA-32e mode."""
    if not made.guest.info.has("la57"):
        pytest.skip(f"{made.guest.engine.name} shows the guest no LA57")
    address = made.mode.address
    leaf = made.map(made.root, address, made.frame(CONTENT))
    enums = made.guest.image.enums
    job = made.job("read", address, flush=enums["FLUSH_CR4"], value=changed)
    jobs = np.concatenate([job] * 2)
    jobs["watched"], jobs["where"][:, 0] = 1, leaf
    jobs["flush"][1] = enums["FLUSH_PAGE"]
    refused, read = made.guest.run(made.state, jobs)
    assert (refused["vector"], refused["error"], refused["completed"]) == (PROTECTION, 0, 0)
    assert (refused["cr2"], refused["after"][0] & ACCESSED) == (UNTOUCHED, 0)
    assert (read["vector"], read["data"]) == (NO_EXCEPTION, DATA)


KEY = 5
ACCESS_DISABLE, WRITE_DISABLE = 0b01, 0b10
KEYED = {
    "access, read": (ACCESS_DISABLE, "read", 0x21),
    "access, write": (ACCESS_DISABLE, "write", 0x23),
    "access, fetch": (ACCESS_DISABLE, "fetch", None),
    "access, push": (ACCESS_DISABLE, "push", 0x23),
    "access, descriptor": (ACCESS_DISABLE, "descriptor", 0x21),
    "write, read": (WRITE_DISABLE, "read", None),
    "write, write": (WRITE_DISABLE, "write", 0x23),
}


@only_long
@pytest.mark.parametrize(("denial", "access", "error"), KEYED.values(), ids=KEYED.keys())
@pytest.mark.parametrize("keys", ["pku", "pks"])
def test_a_protection_key_denies_the_pages_that_carry_it(
    made: HandMade, keys: str, denial: int, access: str, error: int | None
) -> None:
    """PKRU is about pages of the user, PKRS about those of the supervisor (SDM 3A, 4.6.2)."""
    if not made.guest.info.has(keys):
        pytest.skip(f"{made.guest.engine.name} shows the guest no {keys}")
    user, register, enable = {
        "pku": (1, "pkru", CR4_PKE),
        "pks": (0, "pkrs", CR4_PKS),
    }[keys]
    address, content = made.mode.address, made.mode.code if access == "fetch" else SEGMENT
    made.map(made.root, address, made.frame(content) | USER * user | WRITE | KEY << 59)
    cr4 = made.state.cr4 | enable
    job = made.job(access, address, user=user)
    assert made.ask(job, cr4=cr4, **{register: denial << 2 * (KEY + 1)})["completed"] == 1
    result = made.ask(job, cr4=cr4, **{register: denial << 2 * KEY})
    by_supervisor = access == "descriptor" or not user
    if error is None or (made.guest.engine.name == "bochs" and keys == "pku" and by_supervisor):
        assert result["completed"] == 1
    else:
        of_user = 0x04 if user and access != "descriptor" else 0
        assert (result["vector"], result["error"]) == (PAGE_FAULT, error | of_user)
