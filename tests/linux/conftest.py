"""The Linux guest of images/linux, in each way that it sets up paging."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from images.linux.build import Image, NoKernel, build, build_arm64, build_riscv
from images.linux.machine import PC, VIRT, Booted, booted
from tests.linux.spaces import LinuxSpace, spaces_of
from tests.linux.variants import VARIANTS
from tests.machine.arm64 import present as arm64
from tests.machine.riscv.present import why_absent


@pytest.fixture(scope="session")
def linux_image() -> Image:
    try:
        return build()
    except NoKernel as reason:
        pytest.skip(f"there is no Linux to boot: {reason}")


@pytest.fixture(scope="session")
def riscv_image() -> Image:
    if reason := why_absent(64):
        pytest.skip(reason)
    try:
        return build_riscv()
    except NoKernel as reason:
        pytest.skip(f"there is no Linux for RISC-V to boot: {reason}")


@pytest.fixture(scope="session")
def arm64_image() -> Image:
    if reason := arm64.why_absent():
        pytest.skip(reason)
    try:
        return build_arm64()
    except NoKernel as reason:
        pytest.skip(f"there is no Linux for arm64 to boot: {reason}")


# A boot takes five seconds of CPU time.  Pytest has all tests of one variant follow each other,
# and ends its guest before the next one's.
@pytest.fixture(scope="session", params=VARIANTS, ids=str)
def linux(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Booted]:
    """A Linux that has told all, stopped while both its processes spin; leave it so."""
    board = request.param.board
    names = {PC.target: "linux_image", VIRT.target: "riscv_image"}
    image = request.getfixturevalue(names.get(board.target, "arm64_image"))
    qemu = os.environ.get(board.environment, board.qemu)
    socket = tmp_path_factory.mktemp("linux") / "qmp"
    with booted(image, request.param, socket, qemu=qemu, deadline=120) as guest:
        yield guest


@pytest.fixture(scope="session")
def spaces(linux: Booted) -> dict[str, LinuxSpace]:
    """The address spaces of the parent and of the child, by name."""
    return spaces_of(linux)
