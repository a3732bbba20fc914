"""A real kernel forgets no flush, until its INVLPG is overwritten."""

from __future__ import annotations

import os

import pytest

from images.linux.build import NoKernel, build_stress
from images.linux.machine import Variant
from tests.flushes.linux import NOP, stressed, without_invlpg

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")


@pytest.fixture(scope="module", autouse=True)
def _image() -> None:
    try:
        without_invlpg(build_stress().kernel.read_bytes())
    except NoKernel as reason:
        pytest.skip(f"there is no Linux to boot: {reason}")


# The kernel as it is runs in `make flushes`: a boot takes ten seconds of CPU time.
@pytest.mark.hw
def test_linux_without_its_invlpg_is_found_out() -> None:
    run = stressed(QEMU, Variant(4, isolated=False), operations=64, patched=True)
    assert run.passed
    assert run.late().keys() & {"zap_pte_range", "unmap_page_range", "change_protection_range"}


def test_one_place_is_overwritten() -> None:
    assert without_invlpg(b"\x90\x0f\x01\x3f\xe9\x90") == b"\x90" + NOP + b"\xe9\x90"
    with pytest.raises(NoKernel, match="has 0 places"):
        without_invlpg(b"\x90\x0f\x01\x3f\x90")
