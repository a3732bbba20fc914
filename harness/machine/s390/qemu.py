"""QEMU as it runs s390's stub: its machine `s390-ccw-virtio` without firmware, on TCG."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from harness.machine.machine import Engine
from harness.machine.qemu import Qemu
from harness.machine.ram import LARGEST_RAM, STUB, Ram
from harness.machine.s390.processor import RAM_BASE
from harness.machine.stub import Build, StubImage

PROGRAM: Final = "qemu-system-s390x"

MACHINE: Final = ("-machine", "s390-ccw-virtio,memory-backend=ram", "-accel", "tcg")

BUILD: Final = Build(
    called="s390x",
    path=Path(__file__).parents[1] / "stub-s390.elf",
    machine=("EM_S390", 64),
    base=RAM_BASE,
    stub=STUB,
    text=(".text",),
    user=(".accesses",),
    data=(".data", ".bss"),
    compiler="s390x-linux-gnu-gcc (Debian's gcc-s390x-linux-gnu)",
)


class S390Qemu(Qemu):
    """A QEMU for s390x."""

    OTHERS = ("unsupported machine type", "unable to find CPU model")

    def __init__(
        self, program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None
    ) -> None:
        cpu = cpu or "max"
        self._meant = f"{program} is no QEMU for s390x that has the processor {cpu}"
        super().__init__(program, engine, ram, image.content, (*MACHINE, "-cpu", cpu))


TCG: Final = Engine(
    name="tcg",
    maker="QEMU",
    program=PROGRAM,
    package="qemu-system-misc",
    environment="QEMU_S390",
    start=S390Qemu,
    processor=lambda wanted: None,
    largest_ram=LARGEST_RAM,
    high=False,
    any_width=False,
)
