"""Debian's kernel for 32-bit processors, which pages by PAE.  No init runs there: its tables stand
as they are when it panics for want of one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from harness.inspect.snapshot import Snapshot
from harness.inspect.sources import core, qmp
from harness.machine.foreign import conversation
from harness.paging import bulk
from harness.paging.bulk import End
from harness.paging.x86.cpu import Mode
from images.linux.build import NoKernel, build_pae
from images.linux.machine import Started, printed, started
from tests.cli.commands import run
from tests.inspect.spaces import listed, same

pytestmark = pytest.mark.hw

ARGUMENTS = ("console=ttyS0", "panic=0", "no_timer_check", "cryptomgr.notests")
PANIC = r"Kernel panic - not syncing: VFS: Unable to mount root fs"
PAGE_OFFSET = 0xC000_0000
"""Where the kernel maps the memory from 0 on (arch/x86/include/asm/page_32_types.h)."""


@pytest.fixture(scope="module")
def panicked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Started, str]]:
    """A Linux that has set up all its tables, and what it printed."""
    try:
        image = build_pae()
    except NoKernel as reason:
        pytest.skip(f"there is no 32-bit Linux to boot: {reason}")
    socket = tmp_path_factory.mktemp("pae") / "qmp"
    qemu = os.environ.get("QEMU", "qemu-system-x86_64")
    with started(image, ARGUMENTS, socket, qemu=qemu) as machine:
        yield machine, printed(machine, PANIC, 120)


def test_every_row_of_the_monitor_is_a_page_of_the_walker(panicked: tuple[Started, str]) -> None:
    machine, _ = panicked
    code, out, errors = run("check", "--qmp", machine.qmp, "--json", cwd=Path())
    assert (code, errors) == (0, ""), out
    oracles = {one["oracle"]: one for one in json.loads(out)["oracles"]}
    assert {name: one["disagreements"] for name, one in oracles.items()} == dict.fromkeys(
        oracles, 0
    )
    assert oracles["info tlb"]["compared"] > 1000
    assert oracles["gva2gpa"]["compared"] > 100


def snapshot_of(machine: Started) -> Snapshot:
    return qmp.snapshot(machine.qmp, 0, False, {})


def test_the_kernels_own_map_of_memory_is_what_it_says(panicked: tuple[Started, str]) -> None:
    machine, told = panicked
    mapped = re.search(r"mapped low ram: 0 - ([0-9a-f]{8})", told)
    assert mapped is not None, told[:4000]
    first, end = PAGE_OFFSET, PAGE_OFFSET + int(mapped[1], 16)
    space = snapshot_of(machine)
    assert space.cpu.mode is Mode.PAE
    addresses = np.arange(first, end, 4096, dtype=np.uint64)
    walks = bulk.walk(space.memory, space.cpu.roots, addresses)
    assert (walks.end == End.LEAF).all()
    assert (walks.physical == addresses - np.uint64(PAGE_OFFSET)).all()


def test_a_core_of_what_the_guest_maps_shows_its_tables(
    panicked: tuple[Started, str], tmp_path: Path
) -> None:
    """Here, and not of the Linux of 64 bits, of whose 260,000 pages QEMU makes a list in eight
    seconds."""
    machine, _ = panicked
    path = tmp_path / "core"
    with conversation(machine.qmp, 0, 60) as monitor:
        monitor.execute("dump-guest-memory", paging=True, protocol=f"file:{path}")
    found = core.snapshot(path, 0, {})
    path.unlink()
    assert any("-p" in one for one in found.assumed)
    assert same(listed(found), listed(snapshot_of(machine)))


def test_the_pdptes_that_the_guest_runs_on_are_shown_though_no_processor_loads_them(
    panicked: tuple[Started, str],
) -> None:
    machine, _ = panicked
    code, out, errors = run("dump", "--qmp", machine.qmp, "--limit", 1, cwd=Path())
    assert (code, errors) == (0, "")
    assert "tcg-pdptes-are-entries" in out
