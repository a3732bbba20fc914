"""What Linux says of its address spaces is what the walker finds in its tables.

Linux tells what it asked for and which frame is where (/proc/self/maps and pagemap); the walker
reads the registers and the memory of the machine.  Neither knows of the other.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from harness.machine.foreign import conversation
from harness.machine.qemu import control_monitor
from harness.paging.address import Physical, Virtual
from harness.paging.arm64.formats import CONTIGUOUS
from harness.paging.bulk import End
from harness.paging.entry import Absent, Leaf
from harness.paging.linux.entries import ProtNone
from harness.paging.memory import Mask, Words
from harness.paging.walk import walk
from harness.paging.x86.cpu import Mode
from harness.paging.x86.formats import key_of
from images.linux.machine import PC, Booted
from tests.linux.spaces import USER_ROOT, LinuxSpace
from tests.linux.variants import on_x86

pytestmark = pytest.mark.hw

SMALL, NAPOT, LARGE = 4 << 10, 64 << 10, 2 << 20
KERNEL_HALF = np.uint64(1 << 63)
GROUP = 16
"""Entries of 4K that are contiguous on arm64."""

SPLIT = ("large-split", "copied-large")
"""Patterns whose large page Linux splits."""

ESPFIX = range(0xFFFF_FF00_0000_0000, 0xFFFF_FF80_0000_0000)
"""Where Linux maps the pages that an IRET to a 16-bit stack needs, at both level counts
(Documentation/arch/x86/x86_64/mm.rst)."""


@pytest.fixture(params=["parent", "child"])
def space(request: pytest.FixtureRequest, spaces: dict[str, LinuxSpace]) -> LinuxSpace:
    return spaces[request.param]


def granted(space: LinuxSpace, rights: Words, name: str) -> Mask:
    """Which of some granted rights have the one of that name."""
    there = space.format.rights
    bits = there[name] if name in there else there[f"user {name}"]
    return np.asarray(rights & np.uint64(bits), np.bool_)


def is_arm64(space: LinuxSpace) -> bool:
    return space.guest.board.target == "aarch64"


def is_contiguous(space: LinuxSpace, raw: int) -> bool:
    """Whether an entry says that it is one of a group, each with its own address."""
    return is_arm64(space) and bool(raw & CONTIGUOUS)


@on_x86
def test_qemu_has_its_monitor_as_it_says_it_can(linux: Booted) -> None:
    command = Path(f"/proc/{linux.pid}/cmdline").read_text().split("\0")
    qemu = os.environ.get("QEMU", "qemu-system-x86_64")
    assert set(control_monitor(qemu, "monitor")) <= set(command)


@on_x86
def test_linux_pages_as_it_was_asked_to(linux: Booted, space: LinuxSpace) -> None:
    levels = {4: Mode.LEVEL_4, 5: Mode.LEVEL_5}
    assert space.cpu.mode is levels[linux.variant.levels]
    assert bool(space.cpu.cr3 & USER_ROOT) == linux.variant.isolated


def test_every_frame_of_pagemap_is_where_the_walk_leads(space: LinuxSpace) -> None:
    for told in space.maps:
        found = space.walks(told.addresses)
        leaf = found.end == End.LEAF
        reachable = told.present & (told.rights != "---")
        known = told.present | told.absent
        assert (leaf == reachable)[known].all(), told
        assert (found.physical[reachable] == told.frames[reachable]).all(), told


@on_x86
def test_of_the_vsyscall_page_pagemap_says_nothing(space: LinuxSpace) -> None:
    """It lies above all that pagemap covers, and a table maps it (vsyscall=emulate)."""
    told = space.map("[vsyscall]")
    assert not (told.present | told.absent).any()
    assert (space.walks(told.addresses).end == End.LEAF).all()


def test_the_scalar_walk_leads_to_the_same_frame(space: LinuxSpace) -> None:
    for told in (m for m in space.maps if (m.present | m.absent).all()):
        for at in (0, len(told.frames) - 1):
            address = Virtual(int(told.addresses[at]))
            root = space.root_for(address)
            assert root is not None
            found = walk(space.memory, root, address)
            expected = int(told.frames[at]) if told.present[at] else None
            assert found.physical == (expected if told.rights != "---" else None), told


def test_pages_are_as_large_as_told(linux: Booted, space: LinuxSpace) -> None:
    sizes = set()
    for told in space.maps:
        found = space.walks(told.addresses[told.present & (told.rights != "---")])
        for raw, level in {(int(r), int(n)) for r, n in zip(found.raw, found.level, strict=True)}:
            entry = space.format.decode(raw, level)
            assert isinstance(entry, Leaf), told
            size = entry.size * (GROUP if is_contiguous(space, raw) else 1)
            sizes.add(told.page)
            # What is left of a large page that Linux splits may be contiguous.
            assert size == told.page or (size == NAPOT and told.name in SPLIT), told
    groups = linux.board is not PC and space.name == "parent"
    assert sizes == ({SMALL, NAPOT, LARGE} if groups else {SMALL, LARGE})


def test_pages_without_rights_are_absent_to_the_machine_and_prot_none_to_linux(
    spaces: dict[str, LinuxSpace],
) -> None:
    parent = spaces["parent"]
    withheld = [m for m in parent.maps if m.rights == "---" and m.present.any()]
    assert {m.name for m in withheld} == {"none", "mixed", "large-none"}
    for told in withheld:
        found = parent.walks(told.addresses)
        for raw, level, frame in zip(found.raw, found.level, told.frames, strict=True):
            assert isinstance(parent.format.decode(int(raw), int(level)), Absent)
            meaning = parent.dialect.decode(int(raw), int(level))
            first = Physical(int(frame) & ~(told.page - 1))
            assert meaning == ProtNone(first, told.page), told


def test_where_there_is_no_frame_there_is_nothing_to_linux_either(space: LinuxSpace) -> None:
    for told in space.maps:
        found = space.walks(told.addresses[told.absent & (not told.swap)])
        for raw, level in {(int(r), int(n)) for r, n in zip(found.raw, found.level, strict=True)}:
            assert space.dialect.decode(raw, level) == Absent(), told


def test_the_user_half_holds_no_page_that_was_not_told(space: LinuxSpace) -> None:
    leaves = space.leaves.take(space.leaves.virtual < KERNEL_HALF)
    sizes = np.array([level.size for level in space.format.levels])[leaves.level]
    told = [m.addresses[m.present] for m in space.maps if m.rights != "---"]
    found = [
        np.arange(first, first + size, SMALL, dtype=np.uint64)
        for first, size in zip(leaves.virtual.tolist(), sizes.tolist(), strict=True)
    ]
    assert np.setxor1d(np.concatenate(found), np.concatenate(told)).tolist() == []


def test_the_tables_grant_no_more_than_was_asked_for(space: LinuxSpace) -> None:
    for told in space.maps:
        found = space.walks(told.addresses[told.present])
        there = found.granted[found.end == End.LEAF]
        if told.rights != "--x":  # of which arm64 keeps EL0 out, but for the fetches
            assert granted(space, there, "user").all(), told
        if "r" not in told.rights and "read" in space.format.rights:
            # Where a page has a right not to be read, it can still not be writable alone.
            read, write = (granted(space, there, right) for right in ("read", "write"))
            assert not (read & ("w" not in told.rights)).any(), told
            assert not (write & ~read).any(), told
        assert not ("w" not in told.rights and granted(space, there, "write").any()), told
        assert not ("x" not in told.rights and granted(space, there, "execute").any()), told


def test_what_only_the_parent_has_is_granted_in_full(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    common = {m.name for m in spaces["child"].maps}
    rights = set()
    for told in (m for m in parent.maps if m.stamped and m.name not in common):
        found = parent.walks(told.addresses)
        there = found.granted[found.end == End.LEAF]
        assert (granted(parent, there, "write") == ("w" in told.rights)).all(), told
        assert (granted(parent, there, "execute") == ("x" in told.rights)).all(), told
        rights.add(told.rights)
    assert rights == {"---", "r--", "-w-", "rw-", "--x", "r-x", "-wx", "rwx"}


@on_x86
def test_execute_only_pages_have_a_protection_key(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    keys: dict[str, set[int]] = {"--x": set(), "r-x": set()}
    for told in parent.maps:
        if told.rights in keys and told.stamped:
            keys[told.rights] |= {key_of(int(raw)) for raw in parent.walks(told.addresses).raw}
    assert keys["r-x"] == {0}
    assert len(keys["--x"]) == 1
    assert keys["--x"] != {0}


def test_every_stamped_frame_holds_its_virtual_address(space: LinuxSpace) -> None:
    stamped = 0
    pids = {process.pid for process in space.guest.facts.processes.values()}
    for told in (m for m in space.maps if m.stamped):
        frames = told.frames[told.present]
        assert (space.words(frames) == told.addresses[told.present]).all(), told
        assert set(space.words(frames + np.uint64(8)).tolist()) <= pids, told
        stamped += len(frames)
    assert stamped > 1000


def test_forked_pages_share_read_only_frames_until_they_are_written(
    spaces: dict[str, LinuxSpace],
) -> None:
    parent, child = spaces["parent"], spaces["child"]
    ours, theirs = (s.walks(s.map("forked").addresses) for s in (parent, child))
    same = ours.physical == theirs.physical
    assert same.tolist() == [True] * 4 + [False] * 4
    assert not granted(parent, ours.granted, "write").any()
    assert granted(child, theirs.granted, "write").tolist() == [False] * 4 + [True] * 4
    writers = child.words(theirs.physical + np.uint64(8)).tolist()
    assert writers == [parent.process.pid] * 4 + [child.process.pid] * 4


def test_forked_large_pages_stay_large_and_shared(spaces: dict[str, LinuxSpace]) -> None:
    ours, theirs = (s.walks(s.map("forked-large").addresses) for s in spaces.values())
    assert (ours.physical == theirs.physical).all()
    for space, found in zip(spaces.values(), (ours, theirs), strict=True):
        assert not granted(space, found.granted, "write").any()
        assert set(found.level.tolist()) == {1}


def test_a_write_to_a_forked_large_page_splits_the_writers_mapping_alone(
    spaces: dict[str, LinuxSpace],
) -> None:
    parent, child = spaces["parent"], spaces["child"]
    ours, theirs = (s.walks(s.map("copied-large").addresses) for s in (parent, child))
    assert set(ours.level.tolist()) == {1}
    assert set(theirs.level.tolist()) == {0}
    assert np.flatnonzero(ours.physical != theirs.physical).tolist() == [0]
    assert np.flatnonzero(granted(child, theirs.granted, "write")).tolist() == [0]


def test_shared_memory_is_in_the_same_frames_at_three_addresses(
    spaces: dict[str, LinuxSpace],
) -> None:
    parent, child = spaces["parent"], spaces["child"]
    frames = parent.walks(parent.map("shared").addresses).physical
    assert (parent.walks(parent.map("alias").addresses).physical == frames).all()
    assert (child.walks(child.map("shared").addresses).physical == frames).all()


def test_what_was_only_read_is_the_same_zero_page(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    (frame,) = set(parent.walks(parent.map("zero").addresses).physical.tolist())
    assert not parent.words(np.arange(frame, frame + SMALL, 8, dtype=np.uint64)).any()


def test_only_five_levels_reach_the_high_page(linux: Booted, spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    if linux.variant.levels < 5:
        assert "high" not in {m.name for m in parent.maps}
        return
    top = parent.format.levels[4]
    assert top.index(parent.map("high").span.first) == (0xF if is_arm64(parent) else 0xF0)
    assert (parent.walks(parent.map("high").addresses).end == End.LEAF).all()


@on_x86
def test_the_kernel_executes_no_user_page_under_isolation(linux: Booted, space: LinuxSpace) -> None:
    kernel = space.under(space.cpu.cr3 & ~USER_ROOT)
    views = []
    for one in (space, kernel):
        user = one.leaves.virtual < KERNEL_HALF
        rows = one.leaves.take(user)
        views.append((rows, granted(one, rows.granted, "execute")))
    (users, as_user), (kernels, as_kernel) = views
    assert (users.raw == kernels.raw).all()
    assert as_user.any()
    assert as_kernel.any() == (not linux.variant.isolated)


@on_x86
def test_isolation_hides_the_kernels_view_of_memory(linux: Booted, space: LinuxSpace) -> None:
    told = space.map("shared")
    kernel = space.leaves.take(space.leaves.virtual >= KERNEL_HALF)
    sizes = np.array([level.size for level in space.cpu.format.levels], np.uint64)[kernel.level]
    reached = (kernel.physical <= told.frames[0]) & (told.frames[0] - kernel.physical < sizes)
    assert reached.any() == (not linux.variant.isolated)


@on_x86
def test_the_espfix_page_is_mapped_65536_times(space: LinuxSpace) -> None:
    leaves = space.leaves
    there = (leaves.virtual >= np.uint64(ESPFIX.start)) & (leaves.virtual < np.uint64(ESPFIX.stop))
    assert int(there.sum()) == 65536
    assert len(set(leaves.physical[there].tolist())) == 1


def test_the_monitor_reads_the_same_memory(space: LinuxSpace, tmp_path: Path) -> None:
    root = space.state.roots[0].table
    size = root.format.table_bytes(root.level)
    copy = tmp_path / "table"
    with conversation(space.guest.qmp, 0, 20, targets=(space.guest.board.target,)) as monitor:
        monitor.execute("pmemsave", val=root.address, size=size, filename=str(copy))
    words = space.words(np.arange(root.address, root.address + size, 8, dtype=np.uint64))
    assert copy.read_bytes() == words.tobytes()


def test_the_guest_runs_on_and_is_held_again(linux: Booted) -> None:
    targets = (linux.board.target,)
    with conversation(linux.qmp, 0, 20, targets=targets) as monitor:
        monitor.cont()
    linux.hold()
    with conversation(linux.qmp, 0, 20, targets=targets) as monitor:
        for process in linux.facts.processes.values():
            assert linux.at(monitor, process) == process.spins
