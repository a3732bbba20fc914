"""What Linux's tables on arm64 have that those on x86 have not.

Where the kernel maps things is said by Linux, Documentation/arch/arm64/memory.rst: in the lower
half of its addresses all memory, at one distance, which differs from boot to boot.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from harness.machine.foreign import conversation
from harness.paging.arm64.cpu import NORMAL, Tcr, is_device
from harness.paging.arm64.formats import AF, ATTR, CONTIGUOUS, DBM, NG, PXN_TABLE, UXN_TABLE
from harness.paging.bulk import End, Leaves
from harness.paging.linux.entries import Swap
from harness.paging.memory import Mask
from images.linux.machine import Booted
from tests.linux.spaces import LinuxSpace
from tests.linux.test_guest import GROUP, SMALL, granted
from tests.linux.variants import ISOLATED_ARM64, on_arm64

pytestmark = pytest.mark.hw

KERNEL_HALF = np.uint64(1 << 63)

ASKED_ONCE = 10, 0, 99
"""The last version that was run whose gva2gpa asks as the processor alone."""

EL, PAN = 3 << 2, 1 << 22
"""Fields of PSTATE."""


@pytest.fixture(params=["parent", "child"])
def space(request: pytest.FixtureRequest, spaces: dict[str, LinuxSpace]) -> LinuxSpace:
    return spaces[request.param]


def kernels(space: LinuxSpace) -> Leaves:
    return space.leaves.take(space.leaves.virtual >= KERNEL_HALF)


def of_all_memory(space: LinuxSpace) -> Leaves:
    """The pages by which the kernel maps all memory."""
    high = space.processor.high
    assert high is not None
    return kernels(space).take(
        kernels(space).virtual < np.uint64((1 << 64) - (1 << high.address_bits - 1))
    )


def types(space: LinuxSpace, leaves: Leaves) -> set[int]:
    """The bytes of MAIR_EL1 that pages choose."""
    entries = np.unique(leaves.raw & np.uint64(ATTR)).tolist()
    return {space.processor.memory_type(entry) for entry in entries}


def holds(leaves: Leaves, bit: int) -> Mask:
    return np.asarray(leaves.raw & np.uint64(bit), np.bool_)


@on_arm64
def test_linux_pages_as_it_was_asked_to(linux: Booted, spaces: dict[str, LinuxSpace]) -> None:
    bits = {4: 48, 5: 52}[linux.variant.levels]
    for space in spaces.values():
        cpu = space.processor
        for half in (cpu.low, cpu.high):
            assert half is not None
            assert (half.granule, half.address_bits) == ("4K", bits)
        assert len(space.format.levels) == linux.variant.levels
        hardware = bits == 52
        for bit in (Tcr.DS, Tcr.HA, Tcr.HD):
            assert bool(cpu.tcr & bit) == hardware
        assert cpu.tcr & Tcr.AS and cpu.tcr & Tcr.A1
    assert len({space.processor.asid for space in spaces.values()} - {0}) == 2


@on_arm64
def test_a_root_of_52_bits_is_shorter_than_a_page(linux: Booted, space: LinuxSpace) -> None:
    low, high = (root.table for root in space.processor.roots)
    entries = {4: 512, 5: 16}[linux.variant.levels]
    assert low.format.table_bytes(low.level) == 8 * entries
    assert low.address != high.address


@on_arm64
def test_pages_of_64k_are_sixteen_contiguous_entries(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    for name in ("contiguous", "hugetlb-64k"):
        found = parent.walks(parent.map(name).addresses)
        assert (found.raw & np.uint64(CONTIGUOUS) != 0).all(), name
        frames = found.physical.reshape(-1, GROUP)
        assert (frames[:, 0] % np.uint64(GROUP * SMALL) == 0).all(), name
        assert (np.diff(frames, axis=1) == SMALL).all(), name


@on_arm64
def test_a_page_of_64k_that_is_split_is_contiguous_no_more(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    parts = parent.guest.facts.of("parent", "contiguous-split")
    assert [told.rights for told in parts] == ["rw-", "r--", "rw-"]
    for told in parts:
        assert not (parent.walks(told.addresses).raw & np.uint64(CONTIGUOUS)).any()


@on_arm64
def test_pages_in_swap_are_where_pagemap_says(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    told = parent.map("swapped")
    assert sorted(told.swap) == told.addresses.tolist()
    found = parent.walks(told.addresses)
    for address, raw, level in zip(told.swap, found.raw, found.level, strict=True):
        area, offset = told.swap[address]
        assert parent.dialect.decode(int(raw), int(level)) == Swap(area, offset)


@on_arm64
def test_all_memory_is_mapped_at_one_distance(space: LinuxSpace) -> None:
    rows = of_all_memory(space)
    (distance,) = set((rows.virtual - rows.physical).tolist())
    for told in space.maps:
        frames = told.frames[told.present]
        found = space.walks(frames + np.uint64(distance))
        assert (found.end == End.LEAF).all(), told
        assert (found.physical == frames).all(), told
    for right in ("user", "execute"):
        assert not granted(space, rows.granted, right).any()
    assert not (rows.granted & np.uint64(space.format.rights["supervisor execute"])).any()


@on_arm64
def test_the_kernel_executes_nothing_that_it_can_write(space: LinuxSpace) -> None:
    rows = kernels(space)
    executes = np.uint64(space.format.rights["supervisor execute"])
    executed = rows.granted & executes != 0
    assert executed.any()
    assert not (executed & granted(space, rows.granted, "write")).any()
    assert not granted(space, rows.granted, "user").any()


@on_arm64
def test_the_kernels_pages_are_global_where_the_hardware_hides_them(
    linux: Booted, space: LinuxSpace
) -> None:
    """Without E0PD Linux chooses so early, by whether its addresses are random, not by kpti=off."""
    assert set(holds(kernels(space), NG).tolist()) == {linux.variant.levels == 4}


@on_arm64
def test_tables_keep_the_kernel_from_the_users_code_and_the_user_from_the_kernels(
    space: LinuxSpace,
) -> None:
    user = space.leaves.take(space.leaves.virtual < KERNEL_HALF)
    executes = np.uint64(space.format.rights["supervisor execute"])
    assert not (user.granted & executes).any()
    assert granted(space, user.granted, "execute").any()
    low, high = (root.table for root in space.processor.roots)
    for table, bit in ((low, PXN_TABLE), (high, UXN_TABLE)):
        size = table.format.table_bytes(table.level)
        words = space.words(np.arange(table.address, table.address + size, 8, dtype=np.uint64))
        withheld = words[words != 0] & np.uint64(bit) != 0
        assert withheld.all() if table is low else withheld.any()


@on_arm64
def test_what_is_no_memory_is_of_a_devices_type(linux: Booted, space: LinuxSpace) -> None:
    leaves = space.leaves
    device = leaves.take(leaves.physical < np.uint64(linux.board.ram_base))
    assert all(is_device(kind) for kind in types(space, device))
    for right in ("user", "execute"):
        assert not granted(space, device.granted, right).any()


@on_arm64
def test_memory_is_cached_where_it_is_not_shared_with_devices(space: LinuxSpace) -> None:
    users = space.leaves.take(space.leaves.virtual < KERNEL_HALF)
    assert types(space, users) == types(space, of_all_memory(space)) == {NORMAL}


@on_arm64
def test_pages_that_may_be_written_are_marked_for_the_hardware(
    spaces: dict[str, LinuxSpace],
) -> None:
    """Of what was written the hardware, or Linux in its place, has taken AP[2] away."""
    parent = spaces["parent"]
    for name in ("small", "many", "large", "contiguous"):
        found = parent.walks(parent.map(name).addresses)
        assert (found.raw & np.uint64(DBM) != 0).all(), name
        assert (found.raw & np.uint64(AF) != 0).all(), name
        assert granted(parent, found.granted, "write").all(), name
    for name in ("read-only", "code", "zero"):
        found = parent.walks(parent.map(name).addresses)
        assert not (found.raw & np.uint64(DBM)).any(), name


@pytest.mark.parametrize("linux", [ISOLATED_ARM64], indirect=True, scope="session", ids=str)
def test_isolation_leaves_the_user_a_few_pages_of_the_kernel(space: LinuxSpace) -> None:
    """The user's root has the trampoline and what it reads; the kernel's is two pages above it
    (TRAMP_SWAPPER_OFFSET in Linux, arch/arm64/include/asm/memory.h)."""
    users = kernels(space)
    assert 0 < len(users.virtual) < 16
    assert not granted(space, users.granted, "user").any()
    assert not granted(space, users.granted, "write").any()
    cpu = space.processor
    other = replace(space, state=replace(cpu, ttbr1=cpu.ttbr1 + 2 * SMALL))
    assert len(kernels(other).virtual) > 100_000
    (distance,) = set((of_all_memory(other).virtual - of_all_memory(other).physical).tolist())
    shared = space.map("shared").frames + np.uint64(distance)
    assert (other.walks(shared).physical == space.map("shared").frames).all()
    assert (space.walks(shared).end == End.ABSENT).all()


@on_arm64
def test_qemu_translates_addresses_of_both_halves_alike(space: LinuxSpace) -> None:
    """As a read of the processor would be translated: at EL0 it has no access to the kernel's half
    (E0PD), or sees that it has none, and at EL1 with PAN none to the user's.  QEMU 11.1 then asks
    again as EL1 without PAN, but opens no half that E0PDx closes."""
    users = [told.addresses[told.present & ("r" in told.rights)][:8] for told in space.maps]
    rows = kernels(space)
    some = rows.virtual[:: max(1, len(rows.virtual) // 64)]
    with conversation(space.guest.qmp, space.process.cpu, 60, targets=None) as monitor:
        state = space.guest.registers(monitor, space.process)["cpsr"]
        halves = [(np.concatenate(users), not state & EL or not state & PAN)]
        halves += [(some, bool(state & EL))]
        for addresses, reached in halves:
            frames = space.walks(addresses).physical.tolist()
            found = monitor.translations(addresses.tolist())
            half = space.processor.high if addresses is some else space.processor.low
            assert half is not None
            shut = half.e0pd and not state & EL
            again = monitor.version > ASKED_ONCE and not shut
            assert found == (frames if reached or again else [None] * len(frames))
