"""QEMU as it runs RISC-V's stub: its machine `virt` without firmware, on TCG."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

from harness.machine.machine import Engine
from harness.machine.qemu import Qemu, known_to
from harness.machine.ram import LARGEST_RAM, Ram
from harness.machine.riscv.processor import RAM_BASE
from harness.machine.stub import Build, Relocations, StubImage

MACHINE: Final = ("-machine", "virt,memory-backend=ram", "-bios", "none", "-accel", "tcg")

LARGEST_RAM_OF_32: Final = (1 << 32) - RAM_BASE
"""Machine mode of RV32 has addresses of 32 bits, and so has the stub."""

MOVES: Final = Relocations(absolute=((2, 8), (1, 4)), relative=(16, 17, 19, 23, 24, 25))
"""R_RISCV_64 and _32; _BRANCH, _JAL, _CALL_PLT, _PCREL_HI20, _PCREL_LO12_I and _S (RISC-V ELF
psABI, "Relocations").  There must be no R_RISCV_HI20: it holds no address from 2 GiB on."""

BUILDS: Final[Mapping[int, Build]] = {
    xlen: Build(
        called=f"RISC-V of {xlen} bits",
        path=Path(__file__).parents[1] / f"stub-riscv{xlen}.elf",
        machine=("EM_RISCV", xlen),
        base=RAM_BASE,
        stub=range(1 << 20),
        text=(".text",),
        user=(".accesses",),
        data=(".data", ".bss"),
        compiler="riscv64-linux-gnu-gcc (Debian's gcc-riscv64-linux-gnu)",
        moves=MOVES,
    )
    for xlen in (32, 64)
}
"""The stubs by the processor's bits."""


class RiscvQemu(Qemu):
    """A QEMU for RISC-V of `xlen` bits."""

    OTHERS = ("unsupported machine type", "unable to find CPU model", "-bios")

    def __init__(
        self, xlen: int, program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None
    ) -> None:
        cpu = cpu or _most(engine.installed(program), xlen)
        self._meant = f"{program} is no QEMU for RISC-V of {xlen} bits that has the processor {cpu}"
        self._target = f"riscv{xlen}"  # the other has processors of the same name, and loads it
        machine = (*MACHINE, "-cpu", cpu)
        super().__init__(program, engine, ram, image.content, machine)


def program_for(xlen: int, given: str | None) -> str:
    """The QEMU for so many bits: the usual one, or the one beside that which is given, whose name
    ends in the other number."""
    if given is None:
        return f"qemu-system-riscv{xlen}"
    return re.sub("riscv(32|64)$", f"riscv{xlen}", given)


def _most(program: str, xlen: int) -> str:
    """The processor with the most extensions that a QEMU has: not every version has a `max`."""
    with contextlib.suppress(TimeoutError):
        if "max" in known_to(program, "-cpu"):
            return "max"
    return "rv64,svnapot=on,svpbmt=on" if xlen == 64 else "rv32"


def _tcg(xlen: int) -> Engine:
    return Engine(
        name="tcg",
        maker="QEMU",
        program=program_for(xlen, None),
        package="qemu-system-misc, since Debian 13 qemu-system-riscv",
        environment="QEMU_RISCV",
        start=partial(RiscvQemu, xlen),
        processor=lambda wanted: None,
        largest_ram=LARGEST_RAM if xlen == 64 else LARGEST_RAM_OF_32,
        high=False,
        any_width=False,
    )


TCG: Final[Mapping[int, Engine]] = {xlen: _tcg(xlen) for xlen in (32, 64)}
"""TCG by the processor's bits: QEMU 7.2 has a program for each."""
