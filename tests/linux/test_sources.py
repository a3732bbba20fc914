"""Every way to the tables of a running Linux shows the same, and its machine agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import core, qmp
from harness.inspect.x86.check import check
from harness.machine.foreign import conversation
from images.linux.machine import Booted
from tests.inspect.spaces import listed, same
from tests.linux.spaces import USER_ROOT, LinuxSpace
from tests.linux.variants import on_x86

pytestmark = [pytest.mark.hw, on_x86]


@pytest.fixture(params=["parent", "child"])
def space(request: pytest.FixtureRequest, spaces: dict[str, LinuxSpace]) -> LinuxSpace:
    return spaces[request.param]


def shows(snapshot: Snapshot, space: LinuxSpace) -> bool:
    """Whether it lists what the space does, row by row."""
    return same(listed(snapshot), space.leaves)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "alone"])
def test_the_socket_shows_the_tables_of_a_processor(
    linux: Booted, space: LinuxSpace, shared: bool
) -> None:
    snapshot = qmp.snapshot(linux.qmp, space.process.cpu, False, {}, shared=shared)
    assert snapshot.cpu.cr3 == space.cpu.cr3
    assert shows(snapshot, space)


def test_another_root_is_looked_at_by_name(linux: Booted, space: LinuxSpace) -> None:
    other = space.under(space.cpu.cr3 & ~USER_ROOT)
    snapshot = qmp.snapshot(linux.qmp, space.process.cpu, False, {"cr3": other.cpu.cr3})
    assert shows(snapshot, other)
    assert other.leaves.total > 70_000


def test_cores_show_the_tables_of_every_processor(
    linux: Booted, spaces: dict[str, LinuxSpace], tmp_path: Path
) -> None:
    if str(linux.variant) != "5-level-shared":
        pytest.skip("a core takes seconds and a gigabyte: one variant has two")
    for paging in (False, True):
        path = tmp_path / "core"
        with conversation(linux.qmp, 0, 60) as monitor:
            monitor.execute("dump-guest-memory", paging=paging, protocol=f"file:{path}")
        for space in spaces.values():
            width = {"maxphyaddr": space.cpu.maxphyaddr}
            assert shows(core.snapshot(path, space.process.cpu, width), space)
        path.unlink()


def test_the_machine_agrees_with_all_that_linux_maps(linux: Booted, space: LinuxSpace) -> None:
    checked = check(linux.qmp, space.process.cpu, thorough=False)
    asked = {one.oracle: one for one in checked.comparisons}
    assert list(asked) == ["walk of monitor memory", "info tlb", "gva2gpa"]
    assert [one.disagreed for one in checked.comparisons] == [0, 0, 0]
    assert asked["info tlb"].compared == space.leaves.total
    assert asked["gva2gpa"].compared > 512
