"""QEMU as it runs x86's stub: its microvm, on TCG or KVM."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from harness.machine.machine import Engine, Processor
from harness.machine.qemu import Qemu
from harness.machine.ram import LARGEST_RAM, Ram
from harness.machine.stub import StubImage

KVM_DEVICE: Final = Path("/dev/kvm")

MACHINE: Final = (
    "-machine",
    "microvm,memory-backend=ram,pic=on,pit=off,rtc=off,acpi=off,auto-kernel-cmdline=off",
)
"""One serial port and its interrupt."""


def _processor(wanted: Processor) -> str | None:
    """QEMU's -cpu for a processor on TCG, which can be any without shadow stacks and LASS."""
    if wanted.shadow_stacks or wanted.lass:
        return None
    features = [f"phys-bits={wanted.maxphyaddr}"]
    features.append(f"vendor={'AuthenticAMD' if wanted.amd else 'GenuineIntel'}")
    features += [] if wanted.page1gb else ["-pdpe1gb"]
    features += [] if wanted.pse36 else ["-pse36"]
    return ",".join(("max", *features))


def _on(accelerator: str, processor: str) -> Callable[..., Qemu]:
    """Starts QEMU with an accelerator, and the processor that it plays unless another is asked
    for."""

    def start(program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None) -> Qemu:
        machine = (*MACHINE, "-accel", accelerator, "-cpu", cpu or processor)
        return Qemu(program, engine, ram, image.content, machine)

    return start


_TCG_PROCESSOR: Final = "max,vendor=GenuineIntel"
"""TCG reads entries as Intel's processors do, and by itself shows AMD's vendor on x86-64."""
_KVM_PROCESSOR: Final = "max,-arch-capabilities"
"""With arch-capabilities QEMU 7.2 aborts on an MSR that nested and software KVM lack."""

TCG: Final = Engine(
    name="tcg",
    maker="QEMU",
    program="qemu-system-x86_64",
    package="qemu-system-x86",
    environment="QEMU",
    start=_on("tcg", _TCG_PROCESSOR),
    processor=_processor,
    largest_ram=LARGEST_RAM,
    high=True,
    any_width=True,
)
KVM: Final = Engine(
    name="kvm",
    maker="QEMU",
    program="qemu-system-x86_64",
    package="qemu-system-x86",
    environment="QEMU",
    start=_on("kvm", _KVM_PROCESSOR),
    processor=lambda wanted: None,
    largest_ram=LARGEST_RAM,
    high=True,
    any_width=False,
    device=KVM_DEVICE,
    by_kernel=True,
    # It follows what the guest stores in its tables.
    keeps_stale=False,
    # Where it is emulated it is a hundred times slower.
    matrix_accesses=102_000,
)
