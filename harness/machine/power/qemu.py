"""QEMU as it runs POWER's stub: its machine `powernv9`, which begins as hypervisor, on TCG."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.machine.errors import LaunchFailure
from harness.machine.machine import Engine
from harness.machine.qemu import Qemu
from harness.machine.ram import LARGEST_RAM, MIB, Ram
from harness.machine.stub import Build, StubImage

PROGRAM: Final = "qemu-system-ppc64"

MACHINE: Final = ("-machine", "powernv9,memory-backend=ram", "-accel", "tcg")

SMALLEST_RAM: Final = 1024 * MIB
"""Bytes: the machine has no less.  Only what is written to takes memory."""

OTHERS: Final = ("unsupported machine type", "invalid CPU", "unable to find CPU model")
"""What a QEMU says that is for another architecture, or has no such processor."""

BUILD: Final = Build(
    called="POWER",
    path=Path(__file__).parents[1] / "stub-power.elf",
    machine=("EM_PPC64", 64),
    base=0,
    stub=range(1 * MIB),
    text=(".text",),
    user=(".accesses",),
    data=(".data", ".bss"),
    compiler="powerpc64le-linux-gnu-gcc (Debian's gcc-powerpc64le-linux-gnu)",
)


class PowerQemu(Qemu):
    """A QEMU for POWER of 64 bits, which loads the stub as firmware, at 0."""

    def __init__(
        self, program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None
    ) -> None:
        self._meant = f"{program} is no QEMU for POWER that has {f'a {cpu}' if cpu else 'powernv9'}"
        processor = () if cpu is None else ("-cpu", cpu)
        super().__init__(program, engine, ram, image.flat(), (*MACHINE, *processor), "-bios")

    def launch_failure(self, reason: str) -> LaunchFailure:
        """The same, with the reason that QEMU's words stand for."""
        if any(words in self.stderr() for words in OTHERS):
            reason = self._meant
        return super().launch_failure(reason)


TCG: Final = Engine(
    name="tcg",
    maker="QEMU",
    program=PROGRAM,
    package="qemu-system-ppc",
    environment="QEMU_POWER",
    start=PowerQemu,
    processor=lambda wanted: None,
    largest_ram=LARGEST_RAM,
    high=False,
    any_width=False,
)
