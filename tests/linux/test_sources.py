"""Every way to the tables of a running Linux shows the same, and its machine agrees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.check.arm64 import foreign
from harness.inspect.arm64.live import PIE
from harness.inspect.check import check
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import core, qmp, ram
from harness.machine.foreign import conversation
from harness.paging.bulk import Leaves
from harness.paging.riscv.formats import A
from images.linux.machine import Booted
from tests.inspect.spaces import listed, same
from tests.linux.spaces import USER_ROOT, LinuxSpace
from tests.linux.variants import ARM64, RISCV, on_arm64, on_riscv, on_x86

pytestmark = pytest.mark.hw

EL1 = 1 << 2
"""PSTATE.EL."""


@pytest.fixture(params=["parent", "child"])
def space(request: pytest.FixtureRequest, spaces: dict[str, LinuxSpace]) -> LinuxSpace:
    return spaces[request.param]


def shows(snapshot: Snapshot, space: LinuxSpace) -> bool:
    """Whether it lists what the space does, row by row."""
    return same(listed(snapshot), space.leaves)


def indirect(linux: Booted, space: LinuxSpace) -> bool:
    """Whether Linux has rights by permission indirection, as on QEMU 11.1's `max`."""
    if linux.variant not in ARM64:
        return False
    with conversation(linux.qmp, 0, 60, targets=None) as monitor:
        return bool(linux.registers(monitor, space.process).get("TCR2_EL1", 0) & PIE)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "alone"])
def test_the_socket_shows_the_tables_of_a_processor(
    linux: Booted, space: LinuxSpace, shared: bool
) -> None:
    if indirect(linux, space):
        with pytest.raises(SourceError, match="PIE=1: rights are those that PIR_EL1 and PIRE0_EL1"):
            qmp.snapshot(linux.qmp, space.process.cpu, False, {}, shared=shared)
        return
    snapshot = qmp.snapshot(linux.qmp, space.process.cpu, False, {}, shared=shared)
    assert snapshot.cpu.base == space.state.roots[0].table.address
    assert shows(snapshot, space)


@on_x86
def test_another_root_is_looked_at_by_name(linux: Booted, space: LinuxSpace) -> None:
    other = space.under(space.cpu.cr3 & ~USER_ROOT)
    snapshot = qmp.snapshot(linux.qmp, space.process.cpu, False, {"cr3": other.cpu.cr3})
    assert shows(snapshot, other)
    assert other.leaves.total > 70_000


@on_x86
def test_a_core_shows_the_tables_of_every_processor(
    linux: Booted, spaces: dict[str, LinuxSpace], tmp_path: Path
) -> None:
    if str(linux.variant) != "5-level-shared":
        pytest.skip("a core takes seconds and a gigabyte: one variant has one")
    path = tmp_path / "core"
    with conversation(linux.qmp, 0, 60) as monitor:
        monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}")
    for space in spaces.values():
        width = {"maxphyaddr": space.cpu.maxphyaddr}
        assert shows(core.snapshot(path, space.process.cpu, width), space)
    path.unlink()


@on_x86
def test_the_machine_agrees_with_all_that_linux_maps(linux: Booted, space: LinuxSpace) -> None:
    checked = check(linux.qmp, space.process.cpu, thorough=False)
    asked = {one.oracle: one for one in checked.comparisons}
    assert list(asked) == ["walk of monitor memory", "info tlb", "gva2gpa"]
    assert [one.disagreed for one in checked.comparisons] == [0, 0, 0]
    assert asked["info tlb"].compared == space.leaves.total
    assert asked["gva2gpa"].compared > 512


@on_arm64
def test_qemu_agrees_where_addresses_of_arm64_lead(linux: Booted, space: LinuxSpace) -> None:
    if indirect(linux, space):
        pytest.skip("Linux has rights by permission indirection, which is not known here")
    checked = check(linux.qmp, space.process.cpu, thorough=False)
    asked = {one.oracle: one for one in checked.comparisons}
    assert list(asked) == ["walk of monitor memory", "gva2gpa"]
    assert [one.disagreed for one in checked.comparisons] == [0, 0]
    assert asked["walk of monitor memory"].compared == space.leaves.total
    assert asked["gva2gpa"].compared > 400
    assert not asked["gva2gpa"].not_comparable


@on_arm64
def test_a_state_that_is_taken_for_another_is_seen(
    linux: Booted, space: LinuxSpace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where QEMU asks once: at EL0 in place of EL1, and the other way round."""
    with conversation(linux.qmp, space.process.cpu, 60, targets=None) as monitor:
        once = monitor.version <= foreign.ASKED_ONCE
        state = linux.registers(monitor, space.process)["cpsr"]
    if not once:
        pytest.skip("this QEMU asks again as the kernel, so that the state plays no part")
    other = state ^ EL1
    monkeypatch.setattr(foreign, "registers_of", lambda monitor: {"cpsr": other})
    checked = check(linux.qmp, space.process.cpu, thorough=False)
    assert checked.comparisons[1].disagreed > 10


@pytest.mark.parametrize("linux", RISCV[:1], indirect=True, scope="session", ids=str)
def test_a_core_of_riscv_shows_the_tables_of_a_satp_and_those_of_linux(
    linux: Booted, spaces: dict[str, LinuxSpace], tmp_path: Path
) -> None:
    path = tmp_path / "core"
    with conversation(linux.qmp, 0, 60, targets=None) as monitor:
        monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}")
    for space in spaces.values():
        assert shows(core.snapshot(path, 0, {"satp": space.hart.satp}), space)
    kernels = listed(core.snapshot(path, 0, {}))
    path.unlink()
    for space in spaces.values():
        assert same(kernels, upper_half(space))


@on_riscv
def test_the_file_of_ram_shows_the_tables_of_a_satp_and_those_of_linux(
    linux: Booted, spaces: dict[str, LinuxSpace]
) -> None:
    files = [ram.Placed(linux.ram, linux.board.ram_base)]
    for space in spaces.values():
        assert shows(ram.snapshot(files, {"satp": space.hart.satp}), space)
        assert same(listed(ram.snapshot(files, {})), upper_half(space))


@pytest.mark.parametrize("linux", ARM64[:1], indirect=True, scope="session", ids=str)
def test_a_core_of_arm64_shows_the_tables_of_two_roots_and_those_of_linux(
    linux: Booted, spaces: dict[str, LinuxSpace], tmp_path: Path
) -> None:
    path = tmp_path / "core"
    with conversation(linux.qmp, 0, 60, targets=None) as monitor:
        monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{path}")
    for space in spaces.values():
        assert shows(core.snapshot(path, 0, registers_of(space)), space)
    kernels = listed(core.snapshot(path, 0, {}))
    path.unlink()
    for space in spaces.values():
        assert same(kernels, upper_half(space))


@on_arm64
def test_the_file_of_ram_shows_the_tables_of_two_roots_and_those_of_linux(
    linux: Booted, spaces: dict[str, LinuxSpace]
) -> None:
    files = [ram.Placed(linux.ram, linux.board.ram_base)]
    for space in spaces.values():
        assert shows(ram.snapshot(files, registers_of(space)), space)
        assert same(listed(ram.snapshot(files, {})), upper_half(space))


def registers_of(space: LinuxSpace) -> dict[str, int]:
    """The registers that a processor of arm64 cannot be without."""
    cpu = space.processor
    return {"ttbr0": cpu.ttbr0, "ttbr1": cpu.ttbr1, "tcr": cpu.tcr}


def upper_half(space: LinuxSpace) -> Leaves:
    """What the kernel maps, in every space."""
    return space.leaves.take(space.leaves.virtual >> np.uint64(63) != 0)


@on_riscv
def test_what_is_asked_sets_no_bit_in_the_guests_tables(linux: Booted, space: LinuxSpace) -> None:
    """QEMU 7.2 sets A where it is asked to translate: of the child, which never touched what it has
    of the parent's, most pages have A=0."""
    before = listed(ram.snapshot([ram.Placed(linux.ram, linux.board.ram_base)], satp_of(space)))
    assert (before.raw & np.uint64(A) == 0).any() or space.name == "parent"
    for shared in (True, False):
        qmp.snapshot(linux.qmp, space.process.cpu, False, {}, shared=shared)
    after = listed(ram.snapshot([ram.Placed(linux.ram, linux.board.ram_base)], satp_of(space)))
    assert same(before, after)


def satp_of(space: LinuxSpace) -> dict[str, int]:
    return {"satp": space.hart.satp}
