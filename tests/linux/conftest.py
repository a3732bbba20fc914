"""The Linux guest of images/linux, in each way that it sets up paging."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from images.linux.build import Image, NoKernel, build
from images.linux.machine import Booted, Variant, booted
from tests.linux.spaces import LinuxSpace, spaces_of

VARIANTS = [Variant(levels, isolated) for levels in (4, 5) for isolated in (False, True)]


@pytest.fixture(scope="session")
def linux_image() -> Image:
    try:
        return build()
    except NoKernel as reason:
        pytest.skip(f"there is no Linux to boot: {reason}")


# A boot takes five seconds of CPU time.  Pytest has all tests of one variant follow each other,
# and ends its guest before the next one's.
@pytest.fixture(scope="session", params=VARIANTS, ids=str)
def linux(
    request: pytest.FixtureRequest, linux_image: Image, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Booted]:
    """A Linux that has told all, stopped while both its processes spin; leave it so."""
    socket = tmp_path_factory.mktemp("linux") / "qmp"
    qemu = os.environ.get("QEMU", "qemu-system-x86_64")
    with booted(linux_image, request.param, socket, qemu=qemu, deadline=120) as guest:
        yield guest


@pytest.fixture(scope="session")
def spaces(linux: Booted) -> dict[str, LinuxSpace]:
    """The address spaces of the parent and of the child, by name."""
    return spaces_of(linux)
