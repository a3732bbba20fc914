"""Each known departure of TCG, by tables written by hand: it shows where it is expected, and the
rule is followed elsewhere."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from harness.check.arm64.marks import put_code
from harness.check.arm64.quirks import (
    AT_DBM,
    BLOCK_ANYWHERE,
    DBM_FETCH,
    KNOWN,
    RUNS,
    SIZE_64K,
    SIZE_DS,
    TBID_HIT,
)
from harness.check.quirk import Quirk, expected_of
from harness.machine.arm64.guest import Guest
from harness.machine.arm64.qemu import BUILD
from harness.machine.errors import GuestLost
from harness.machine.ram import MIB
from harness.paging.memory import BufferMemory
from tests.machine.arm64.handmade import (
    ADDRESS,
    AF,
    BLOCK,
    DBM,
    DS,
    FORMS,
    HA,
    HD,
    PERMISSION,
    READ_ONLY,
    SIZE,
    TBI0,
    TBID0,
    TRANSLATION,
    USER,
    WXN,
    Form,
    HandMade,
    fault,
)
from tests.machine.arm64.present import QEMU, why_absent

pytestmark = pytest.mark.hw


@pytest.fixture(scope="module")
def guest() -> Iterator[Guest]:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU, ram_bytes=128 * MIB) as one:
        yield one


def made(guest: Guest, form: Form = FORMS["4k"]) -> HandMade:
    return HandMade(guest, form, itertools.count(BUILD.base + 32 * MIB, 64 << 10))


def expected(quirk: Quirk, guest: Guest) -> bool:
    return expected_of(quirk, guest.engine.name, guest.version)


def test_all_have_a_name_and_were_run() -> None:
    for name, quirk in KNOWN.items():
        assert name == quirk.name
        assert set(quirk.runs) <= set(RUNS)
        for version in RUNS:
            assert expected_of(quirk, "tcg", version) is (version in quirk.runs)


@pytest.mark.parametrize(
    ("form", "level"),
    [("4k", 0), ("16k", 1), ("16k-lpa2", 0)],
)
def test_a_block_where_none_can_be(guest: Guest, form: str, level: int) -> None:
    one = made(guest, FORMS[form])
    address = 2 << one.form.shift(level)  # beside that of the window
    if level == one.form.top:
        address = 1 << one.form.shift(level)
    one[one.slot(address, level)] = BLOCK | AF
    result = one.ask("TRANSLATE_READ", address + (BUILD.base & (1 << one.form.shift(level)) - 1))
    if expected(BLOCK_ANYWHERE, guest):
        assert result["data"] & 1 == 0
    else:
        assert result["data"] & 0x7F == (TRANSLATION | level) << 1 | 1


def test_a_block_at_level_minus_1_ends_qemu() -> None:
    if reason := why_absent():
        pytest.skip(reason)
    with Guest(program=QEMU) as guest:
        one = made(guest, FORMS["4k-lpa2"])
        address = 1 << 48
        one[one.slot(address, -1)] = BLOCK
        if expected(BLOCK_ANYWHERE, guest):
            with pytest.raises(GuestLost, match="ended by SIGABRT"):
                one.ask("READ", address)
        else:
            assert fault(one.ask("READ", address))[1] == 0x2B  # translation, level -1


@pytest.mark.parametrize(
    ("quirk", "form", "bit"),
    [
        (SIZE_64K, Form("64K", 16), 12),
        (SIZE_DS, replace(FORMS["4k-lpa2"], size=16), 8),
        (SIZE_DS, replace(FORMS["16k-lpa2"], size=17), 9),
    ],
)
def test_high_bits_of_an_output_address_beyond_ips(
    guest: Guest, quirk: Quirk, form: Form, bit: int
) -> None:
    one = made(guest, form)
    ips = 5 << 32
    one.state = replace(one.state, tcr=one.state.tcr & ~(7 << 32) | ips)
    slot = one.map(ADDRESS, one.frame(), AF)
    assert one.ask("READ")["completed"]
    one[slot] |= 1 << bit
    result = one.ask("READ")
    if expected(quirk, guest):
        assert result["completed"]
    else:
        assert fault(result)[1] == SIZE | 3
    one.state = replace(one.state, tcr=one.state.tcr | 6 << 32 & ~ips)
    assert bool(one.state.tcr & DS) is (quirk is SIZE_DS)


def test_a_fetch_from_what_dbm_makes_writable(guest: Guest) -> None:
    one = made(guest)
    one.under(tcr=HA | HD)
    frame = one.frame()
    slot = one.map(ADDRESS, frame, AF | USER | READ_ONLY)
    assert one.ask("FETCH")["completed"]
    one[slot] |= DBM
    result = one.ask("FETCH")
    assert result["completed"] == expected(DBM_FETCH, guest)
    one[slot] &= ~READ_ONLY
    assert fault(one.ask("FETCH"))[1] == PERMISSION | 3, "EL0 can write it"
    one.under(sctlr=WXN)
    one[slot] |= READ_ONLY
    for user in (0, 1):
        assert one.ask("FETCH", user=user)["completed"] == expected(DBM_FETCH, guest)


def test_at_of_a_write_to_what_dbm_makes_writable(guest: Guest) -> None:
    one = made(guest)
    one.under(tcr=HA | HD)
    slot = one.map(ADDRESS, one.frame(), AF | USER | READ_ONLY | DBM)
    clean = one[slot]
    for user in (0, 1):
        result = one.ask("TRANSLATE_WRITE", user=user)
        assert int(result["data"]) & 1 == expected(AT_DBM, guest)
        assert one.ask("WRITE", user=user)["completed"]
        assert one[slot] == clean & ~READ_ONLY
        assert one.ask("TRANSLATE_WRITE", user=user)["data"] & 1 == 0
        one[slot] = clean


@pytest.mark.parametrize("user", [0, 1])
def test_a_fetch_by_a_tag_by_which_data_was_accessed(guest: Guest, user: int) -> None:
    one, tagged = made(guest), ADDRESS | 0x5A << 56
    one.under(tcr=TBI0 | TBID0)
    frame = one.frame()
    one.map(ADDRESS, frame, AF | USER | READ_ONLY)
    put_code(BufferMemory(guest.ram.buffer, guest.ram.base), np.array([frame], np.uint64))

    def fetched_after(address: int, flush: str) -> bool:
        last = one.job("FETCH", tagged, user=user, flush=guest.image.enums[flush])
        jobs = np.concatenate([one.job("READ", address, user=user), last])
        _, result = guest.run(one.state, jobs)
        if not result["completed"]:
            assert fault(result)[1] == TRANSLATION and result["far"] == tagged
        return bool(result["completed"])

    assert fetched_after(tagged, "FLUSH_NONE") == expected(TBID_HIT, guest)
    assert not fetched_after(ADDRESS, "FLUSH_NONE")
    assert not fetched_after(tagged, "FLUSH_PAGE")
    one.state = replace(one.state, tcr=one.state.tcr & ~TBID0)
    assert fetched_after(tagged, "FLUSH_PAGE")
