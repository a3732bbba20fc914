"""What Linux's tables on RISC-V have that those on x86 have not.

Where the kernel maps things is said by Linux, Documentation/arch/riscv/vm-layout.rst.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.riscv.foreign import INFO_MEM
from harness.check.riscv.quirks import INFO_MEM_HIGH_BITS
from harness.inspect.check import check
from harness.machine.foreign import conversation
from harness.paging.bulk import End
from harness.paging.memory import Words
from harness.paging.riscv import Mode, Satp
from harness.paging.riscv.formats import PBMT, A, D, G, N, R, U, W, X
from images.linux.machine import Booted
from tests.linux.spaces import LinuxSpace
from tests.linux.variants import on_riscv

pytestmark = [pytest.mark.hw, on_riscv]

SMALL = 4 << 10

MODES = {3: Mode.SV39, 4: Mode.SV48, 5: Mode.SV57}

DIRECT = {3: 0xFFFF_FFD6_0000_0000, 4: 0xFFFF_AF80_0000_0000, 5: 0xFF60_0000_0000_0000}
"""Where the kernel maps all RAM, by levels."""

KERNEL = 0xFFFF_FFFF_8000_0000
"""Where the kernel's own image is mapped, up to the end."""

NOT_CACHED, IO = 1 << 61, 2 << 61
"""PBMT of memory that devices share, and of devices."""


@pytest.fixture(params=["parent", "child"])
def space(request: pytest.FixtureRequest, spaces: dict[str, LinuxSpace]) -> LinuxSpace:
    return spaces[request.param]


def test_linux_pages_as_it_was_asked_to(linux: Booted, spaces: dict[str, LinuxSpace]) -> None:
    satps = [Satp.of(space.hart.satp) for space in spaces.values()]
    assert {satp.mode for satp in satps} == {MODES[linux.variant.levels]}
    assert len({satp.asid for satp in satps} - {0}) == 2


def test_a_page_to_be_executed_alone_cannot_be_read(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    told = parent.map("execute-only")
    assert {int(raw) & (R | W | X | U) for raw in parent.walks(told.addresses).raw} == {X | U}


def test_pages_of_64k_are_sixteen_entries_alike(spaces: dict[str, LinuxSpace]) -> None:
    parent = spaces["parent"]
    told = parent.map("hugetlb-64k")
    found = parent.walks(told.addresses)
    sixteen = found.raw.reshape(-1, 16)
    assert (sixteen == sixteen[:, :1]).all()
    assert (found.raw & np.uint64(N) != 0).all()
    assert len(set(sixteen[:, 0].tolist())) == 2


def test_every_frame_is_where_the_kernel_maps_all_memory(linux: Booted, space: LinuxSpace) -> None:
    first = np.uint64(DIRECT[linux.variant.levels] - linux.board.ram_base)
    for told in space.maps:
        frames = told.frames[told.present]
        found = space.walks(frames + first)
        assert (found.end == End.LEAF).all(), told
        assert (found.physical == frames).all(), told
        assert (found.raw & np.uint64(R | W | X | U | G) == R | W | G).all(), told


def test_the_kernels_image_is_executed_or_written(space: LinuxSpace) -> None:
    image = space.leaves.take(space.leaves.virtual >= KERNEL)
    rights = set((image.raw & np.uint64(R | W | X | U)).tolist())
    assert {R | X, R | W} <= rights <= {R | X, R | W, R}


def pages(virtual: Words, physical: Words, sizes: Words, rest: Words) -> npt.NDArray[np.uint64]:
    """A row for each 4K of pages or runs of pages, in order: address, frame and the rest."""
    rows = []
    for first, frame, size, other in zip(virtual, physical, sizes, rest, strict=True):
        offset = np.arange(0, int(size), SMALL, dtype=np.uint64)
        rows.append(np.stack([first + offset, frame + offset, np.full(len(offset), other)]))
    found = np.concatenate(rows, axis=1)
    return found[:, np.argsort(found[0], kind="stable")]


def test_every_page_of_info_mem_is_a_leaf_and_no_other(linux: Booted, space: LinuxSpace) -> None:
    """QEMU's own list, for which it translates nothing.  The frame that it shows is PPN as it
    stands, with the size of a NAPOT page in it, and above it the lower bit of PBMT."""
    with conversation(linux.qmp, 0, 60, targets=None) as monitor:
        _, _, *lines = monitor.human("info mem", space.process.cpu).splitlines()
    numbers = np.array([[int(one, 16) for one in line.split()[:3]] for line in lines], np.uint64)
    flags = [sum(1 << "vrwxugad".index(flag) for flag in set(line[-7:]) - {"-"}) for line in lines]
    virtual, physical, size = numbers.T
    shown = pages(virtual, physical, size, np.array(flags, np.uint64))
    leaves = space.leaves
    sizes = np.array([level.size for level in space.format.levels], np.uint64)
    frames = leaves.raw >> np.uint64(10) << np.uint64(12)
    flags_of = leaves.raw & np.uint64(R | W | X | U | G | A | D)
    found = pages(leaves.virtual, frames, sizes[leaves.level], flags_of)
    assert shown.shape == found.shape
    assert (shown == found).all()


def test_what_qemu_makes_of_its_tables_agrees(linux: Booted, space: LinuxSpace) -> None:
    checked = check(linux.qmp, space.process.cpu, thorough=False)
    asked = {one.oracle: one for one in checked.comparisons}
    assert checked.snapshot.cpu.satp == space.hart.satp
    assert [one.disagreed for one in checked.comparisons] == [0] * len(asked)
    assert asked[INFO_MEM].compared == len(space.leaves.virtual)
    types = np.count_nonzero(space.leaves.raw & np.uint64(PBMT | N))
    assert 0 < asked[INFO_MEM].quirks[INFO_MEM_HIGH_BITS.name] <= types


def test_what_is_no_memory_is_of_a_devices_type(linux: Booted, space: LinuxSpace) -> None:
    leaves = space.leaves
    device = leaves.physical < np.uint64(linux.board.ram_base)
    types = leaves.raw & np.uint64(PBMT)
    assert set(types[device].tolist()) == {IO}
    assert set(types[~device].tolist()) <= {0, NOT_CACHED}
    assert (leaves.raw[device] & np.uint64(U | X) == 0).all()
