"""QEMU as it runs arm64's stub: its machine `virt`, which begins at EL2, on TCG."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.machine.arm64.processor import RAM_BASE
from harness.machine.errors import LaunchFailure
from harness.machine.machine import Engine
from harness.machine.qemu import Qemu
from harness.machine.ram import LARGEST_RAM, STUB, Ram
from harness.machine.stub import Build, Relocations, StubImage

PROGRAM: Final = "qemu-system-aarch64"

MACHINE: Final = (
    *("-machine", "virt,virtualization=on,gic-version=2,memory-backend=ram"),
    *("-accel", "tcg"),
)

MOVES: Final = Relocations(absolute=((257, 8),), relative=(*range(273, 287), 299))
"""R_AARCH64_ABS64; those of literals, ADR, ADRP, ADD, branches, loads and stores (ELF for the Arm
64-bit Architecture, "Static AArch64 relocations"): addresses that count from the instruction, and
the low 12 bits of others, which stay, since a stub moves by whole pages."""

BUILD: Final = Build(
    called="arm64",
    path=Path(__file__).parents[1] / "stub-arm64.elf",
    machine=("EM_AARCH64", 64),
    base=RAM_BASE,
    stub=STUB,
    text=(".text",),
    user=(".accesses",),
    data=(".data", ".bss"),
    compiler="aarch64-linux-gnu-gcc (Debian's gcc-aarch64-linux-gnu)",
    moves=MOVES,
)


class Arm64Qemu(Qemu):
    """A QEMU for arm64."""

    OTHERS = (
        "unsupported machine type",
        "gic-version' not found",
        "unable to find CPU model",
        "incompatible architecture",
    )
    _target = "aarch64"  # that for arm of 32 bits has a `virt` and a `max` too

    def __init__(
        self, program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None
    ) -> None:
        cpu = cpu or "max"
        self._meant = f"{program} is no QEMU for arm64 that has the processor {cpu}"
        super().__init__(program, engine, ram, image.content, (*MACHINE, "-cpu", cpu))

    def launch_failure(self, reason: str) -> LaunchFailure:
        """The same for its silence: 7.2 says nothing of a stub that is not for its processor."""
        if not self.stderr() and self._settled_exit_code() == 1:
            reason = self._meant
        return super().launch_failure(reason)


TCG: Final = Engine(
    name="tcg",
    maker="QEMU",
    program=PROGRAM,
    package="qemu-system-arm",
    environment="QEMU_ARM64",
    start=Arm64Qemu,
    processor=lambda wanted: None,
    largest_ram=LARGEST_RAM,
    high=False,
    any_width=False,
)
