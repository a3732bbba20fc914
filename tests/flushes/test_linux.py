"""A real kernel forgets no flush, until its INVLPG is overwritten."""

from __future__ import annotations

import os

import pytest

from harness.inspect.symbols import Symbols
from images.linux.build import NoKernel, build_stress
from images.linux.machine import RiscvVariant, Variant
from tests.flushes.linux import (
    NOP,
    RET,
    SHOOTDOWN,
    stressed,
    without_invlpg,
    without_range_fences,
    without_shootdown,
)
from tests.machine.riscv.present import program, why_absent

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")


@pytest.fixture
def image() -> None:
    """A kernel of x86 that can be changed."""
    try:
        without_invlpg(build_stress().kernel.read_bytes())
    except NoKernel as reason:
        pytest.skip(f"there is no Linux to boot: {reason}")


# The kernel as it is runs in `make flushes`: a boot takes ten seconds of CPU time.
@pytest.mark.hw
@pytest.mark.usefixtures("image")
def test_linux_without_its_invlpg_is_found_out() -> None:
    run = stressed(QEMU, Variant(4, isolated=False), operations=16, change=without_invlpg)
    assert run.passed
    assert run.late().keys() & {"zap_pte_range", "unmap_page_range", "change_protection_range"}


@pytest.fixture
def riscv_image() -> None:
    """A kernel of RISC-V that can be changed."""
    if reason := why_absent(64):
        pytest.skip(reason)
    try:
        without_range_fences(build_stress(riscv=True).kernel.read_bytes())
    except NoKernel as reason:
        pytest.skip(f"there is no Linux for RISC-V to boot: {reason}")


@pytest.mark.hw
@pytest.mark.usefixtures("riscv_image")
def test_linux_of_riscv_without_its_fences_of_ranges_is_found_out() -> None:
    """On one hart: where there are two OpenSBI flushes for both."""
    change, variant = without_range_fences, RiscvVariant(3)
    run = stressed(program(64), variant, operations=16, processors=1, change=change)
    assert run.passed
    assert run.late().keys() & {"zap_pte_range", "unmap_page_range", "change_protection_range"}


def test_fences_of_an_address_and_an_asid_are_overwritten() -> None:
    of_all, of_page, of_range = 0x1200_0073, 0x1207_8073, 0x12C7_8073
    words = (of_all, of_page, of_range, of_all)
    before = b"\1\2" + b"".join(word.to_bytes(4, "little") for word in words)
    after = without_range_fences(before)
    assert after[:10] == before[:10] and after[14:] == before[14:]
    assert int.from_bytes(after[10:14], "little") == 0x13
    with pytest.raises(NoKernel, match="has no SFENCE"):
        without_range_fences(before[:10])


def test_one_place_is_overwritten() -> None:
    assert without_invlpg(b"\x90\x0f\x01\x3f\xe9\x90") == b"\x90" + NOP + b"\xe9\x90"
    with pytest.raises(NoKernel, match="has 0 places"):
        without_invlpg(b"\x90\x0f\x01\x3f\x90")


def test_the_function_of_that_name_returns_at_once() -> None:
    """Behind a setup of two sectors is what is loaded from 1 MiB on."""
    before = bytearray(b"\x90" * 0x3000)
    before[0x1F1] = 1
    names = Symbols([(0xFFFF_FFFF_8010_1230, 0, SHOOTDOWN), (0xFFFF_FFFF_8010_0000, 0, "other")])
    after = without_shootdown(bytes(before), names)
    assert len(after) == len(before)
    changed = [place for place, octet in enumerate(before) if octet != after[place]]
    assert changed == [1024 + 0x1230]
    assert after[changed[0] : changed[0] + 1] == RET
    for away in 0xFFFF_FFFF_8000_0000, 0xFFFF_FFFF_8020_0000:
        with pytest.raises(NoKernel, match="nowhere in this kernel"):
            without_shootdown(bytes(before), Symbols([(away, 0, SHOOTDOWN)]))
