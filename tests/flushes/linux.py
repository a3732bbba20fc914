"""Debian's Linux under a stress of its tables: as it is, and with a flush taken out of it."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.check.flushes import Flushes, flushes
from harness.inspect.symbols import Symbols, symbols
from harness.machine.plugin import watched
from images.linux.build import LOADED, NoKernel, build_stress
from images.linux.machine import CPU, Variant

INVLPG: Final = re.compile(rb"\x0f\x01\x3f(?=\xe9)")
"""INVLPG (%rdi) at the end of a function, in native_flush_tlb_one_user."""

NOP: Final = b"\x0f\x1f\x00"

SHOOTDOWN: Final = "native_flush_tlb_multi"
"""What has other processors flush their users' pages."""

RET: Final = b"\xc3"

START_KERNEL_MAP: Final = 0xFFFF_FFFF_8000_0000
"""Where Linux has physical address 0 for its own code (Documentation/arch/x86/x86_64/mm.rst)."""

DONE: Final = 33
"""QEMU's exit code where stress.c has come to its end."""

LIMIT: Final = 1200
"""Seconds after which a guest is ended that does not end itself."""


@dataclass(frozen=True)
class Stressed:
    """A run: what came of it, the functions of the kernel, and the lines of its console."""

    flushes: Flushes
    symbols: Symbols
    console: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the stress has done all that it should."""
        return self.flushes.watched.exit_code == DONE

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


def stressed(
    qemu: str,
    variant: Variant,
    *,
    operations: int,
    processors: int = 2,
    change: Callable[[bytes], bytes] | None = None,
) -> Stressed:
    """Linux booted, stressed and ended, under the plugin, once `change` has changed it; raises
    `CanNotBuild`."""
    image = build_stress()
    assert image.initramfs is not None
    with tempfile.TemporaryDirectory() as folder:
        kernel, names = image.kernel, Path(folder, "kallsyms")
        if change is not None:
            kernel = Path(folder, "vmlinux")
            kernel.write_bytes(change(image.kernel.read_bytes()))
        append = (*variant.kernel_arguments, f"operations={operations}")
        command = [
            *(qemu, "-nodefaults", "-no-user-config", "-display", "none", "-nic", "none"),
            *("-no-reboot", "-accel", "tcg", "-cpu", CPU, "-smp", str(processors)),
            *("-machine", "q35", "-m", "512M", "-kernel", str(kernel)),
            *("-initrd", str(image.initramfs), "-append", " ".join(append)),
            *("-chardev", f"file,id=names,path={names}"),
            *("-device", "isa-debugcon,iobase=0xe9,chardev=names", "-serial", "stdio"),
            *("-device", "isa-debug-exit,iobase=0xf4"),
        ]
        with tempfile.TemporaryFile() as console:
            seen = flushes("x86", watched(command, limit=LIMIT, stdout=console))
            console.seek(0)
            lines = console.read().decode("ascii", "replace").splitlines()
        return Stressed(seen, symbols(names), tuple(line for line in lines if line[:1] == "@"))
