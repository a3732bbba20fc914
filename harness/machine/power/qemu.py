"""QEMU as it runs POWER's stub: its machine `powernv9`, which begins as hypervisor, on TCG."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.machine.machine import Engine
from harness.machine.qemu import Qemu
from harness.machine.ram import LARGEST_RAM, MIB, Ram
from harness.machine.stub import Build, StubImage

PROGRAM: Final = "qemu-system-ppc64"

# The flash chip, which nothing here reads, has 128 MiB, and QEMU writes to all of it at its start.
_SMALL_FLASH: Final = ("-global", f"pnv-pnor.size={64 << 10}")
MACHINE: Final = ("-machine", "powernv9,memory-backend=ram", "-accel", "tcg", *_SMALL_FLASH)

SMALLEST_RAM: Final = 1024 * MIB
"""Bytes: the machine has no less.  Only what is written to takes memory."""

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

    OTHERS = ("unsupported machine type", "invalid CPU", "unable to find CPU model")

    def __init__(
        self, program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None
    ) -> None:
        self._meant = f"{program} is no QEMU for POWER that has {f'a {cpu}' if cpu else 'powernv9'}"
        processor = () if cpu is None else ("-cpu", cpu)
        super().__init__(program, engine, ram, image.flat(), (*MACHINE, *processor), "-bios")

    def stderr(self) -> str:
        """What QEMU has said, but for its warning that the machine has no BMC, which is so in every
        run and the cause of nothing."""
        lines = super().stderr().splitlines(keepends=True)
        return "".join(line for line in lines if "machine has no BMC device" not in line)


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
