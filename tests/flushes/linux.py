"""Debian's Linux under a stress of its tables: as it is, and with a flush taken out of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.check.flushes import Flushes, flushes
from harness.inspect.symbols import Symbols, symbols
from harness.machine.plugin import watched
from images.linux.build import LOADED, NoKernel, build_stress
from images.linux.machine import CPU, VIRT, RiscvVariant, Variant

INVLPG: Final = re.compile(rb"\x0f\x01\x3f(?=\xe9)")
"""INVLPG (%rdi) at the end of a function, in native_flush_tlb_one_user."""

NOP: Final = b"\x0f\x1f\x00"

SHOOTDOWN: Final = "native_flush_tlb_multi"
"""What has other processors flush their users' pages."""

RET: Final = b"\xc3"

RISCV_NOP: Final = 0x13.to_bytes(4, "little")

ARCH_CODE: Final = 1 << 20
"""Bytes from the begin of a RISC-V kernel's image on, in which the code of arch/riscv is."""

START_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
"""Where Linux has physical address 0 for its own code (Documentation/arch/x86/x86_64/mm.rst)."""

DONE: Final = 33
"""QEMU's exit code where stress.c has come to its end, on x86."""

END: Final = "@ done"
"""What it says then, elsewhere, where QEMU ends as after a panic."""

LIMIT: Final = 1200
"""Seconds after which a guest is ended that does not end itself."""


PC_BOARD: Final = (
    *("-machine", "q35", "-cpu", CPU, "-device", "isa-debug-exit,iobase=0xf4"),
    *("-device", "isa-debugcon,iobase=0xe9,chardev=names"),
)
RISCV_BOARD: Final = (
    *(word.replace(",memory-backend=ram", "") for word in VIRT.words),
    *("-device", "virtio-serial-pci", "-device", "virtserialport,chardev=names"),
)


@dataclass(frozen=True)
class Stressed:
    """A run: what came of it, the functions of the kernel, and the lines of its console."""

    flushes: Flushes
    symbols: Symbols
    console: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the stress has done all that it should."""
        if self.flushes.arch == "x86":
            return self.flushes.watched.exit_code == DONE
        return END in self.console

    def late(self) -> dict[str, int]:
        """Late uses, by the function that made the change."""
        found: dict[str, int] = {}
        for cause in self.flushes.causes:
            if cause.late:
                pc = cause.change.pc
                name = (self.symbols.name(pc) or hex(pc)) if pc is not None else "unknown"
                name = name.partition("+")[0]
                found[name] = found.get(name, 0) + cause.late
        return found


def without_invlpg(kernel: bytes) -> bytes:
    """The kernel with the one INVLPG that flushes its users' pages overwritten."""
    places = [match.start() for match in INVLPG.finditer(kernel)]
    if len(places) != 1:
        raise NoKernel(f"this kernel has {len(places)} places with INVLPG (%rdi), not one")
    return INVLPG.sub(NOP, kernel)


def without_shootdown(image: bytes, names: Symbols) -> bytes:
    """The kernel with the function that has other processors flush returning at once; `names` are
    those of the same kernel, which is where it was linked to be."""
    [address] = [begin for begin, _, name in names if name == SHOOTDOWN]
    setup = (image[0x1F1] + 1) * 512
    place = setup + (address - START_KERNEL_MAP) - LOADED
    if not setup <= place < len(image):
        raise NoKernel(f"{SHOOTDOWN} at {address:#x} is nowhere in this kernel")
    return image[:place] + RET + image[place + len(RET) :]


def without_range_fences(image: bytes) -> bytes:
    """A kernel of RISC-V with each SFENCE.VMA for an address of an ASID overwritten: those by which
    a hart flushes ranges of its users' pages, where no other hart has used them."""
    changed, places = bytearray(image), [*_range_fences(image)]
    if not places:
        raise NoKernel("this kernel has no SFENCE.VMA with an address and an ASID")
    for place in places:
        changed[place : place + len(RISCV_NOP)] = RISCV_NOP
    return bytes(changed)


def _range_fences(image: bytes) -> Iterator[int]:
    for place in range(0, min(len(image), ARCH_CODE) - 3, 2):
        word = int.from_bytes(image[place : place + 4], "little")
        if word & 0xFE00_7FFF == 0x1200_0073 and word >> 15 & 31 and word >> 20 & 31:
            yield place


def stressed(
    qemu: str,
    variant: Variant | RiscvVariant,
    *,
    operations: int,
    processors: int = 2,
    change: Callable[[bytes], bytes] | None = None,
) -> Stressed:
    """Linux booted, stressed and ended, under the plugin, once `change` has changed it; raises
    `CanNotBuild`."""
    riscv = isinstance(variant, RiscvVariant)
    image = build_stress(riscv=riscv)
    assert image.initramfs is not None
    with tempfile.TemporaryDirectory() as folder:
        kernel, names = image.kernel, Path(folder, "kallsyms")
        if change is not None:
            kernel = Path(folder, "vmlinux")
            kernel.write_bytes(change(image.kernel.read_bytes()))
        append = (*variant.kernel_arguments, f"operations={operations}")
        command = [
            *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"),
            *("-no-reboot", "-accel", "tcg", "-smp", str(processors), "-m", "512M"),
            *("-kernel", str(kernel), "-initrd", str(image.initramfs), "-serial", "stdio"),
            *("-append", " ".join(append), "-chardev", f"file,id=names,path={names}"),
            *(RISCV_BOARD if riscv else PC_BOARD),
        ]
        with tempfile.TemporaryFile() as console:
            arch = "riscv" if riscv else "x86"
            seen = flushes(arch, watched(command, limit=LIMIT, arch=arch, stdout=console))
            console.seek(0)
            lines = console.read().decode("ascii", "replace").splitlines()
        return Stressed(seen, symbols(names), tuple(line for line in lines if line[:1] == "@"))
