"""Boots the Linux image and shows what it tells.

    python -m images.linux --levels 5 --pti on --qmp build/linux.sock
    python -m images.linux --arch riscv --levels 3 --qmp build/linux.sock
    python -m images.linux --arch arm64 --levels 4 --qmp build/linux.sock

makes the image if need be, prints the lines that the head of init.c describes, and has the guest
run, its two processes spinning, until Ctrl-C.  Meanwhile any program may ask QEMU through the
socket.  The Python of the clone's .venv finds this from everywhere.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

from harness.machine.errors import Misuse
from images.linux.build import PLACE, CanNotBuild, build, build_arm64, build_riscv
from images.linux.machine import AnyVariant, Arm64Variant, RiscvVariant, Variant, started

MISUSE, MACHINE_FAILURE, INTERRUPTED = 2, 3, 130


def main() -> int:
    """The exit code; Ctrl-C, or the signal that `kill` sends, is the usual end."""
    words = argparse.ArgumentParser(prog="python -m images.linux", description=__doc__)
    words.formatter_class = argparse.RawDescriptionHelpFormatter
    archs = ("x86", "riscv", "arm64")
    words.add_argument("--arch", choices=archs, default="x86", help="(%(default)s)")
    words.add_argument(
        "--levels", type=int, choices=(3, 4, 5), default=5, help="of page tables; 3 on RISC-V alone"
    )
    words.add_argument(
        "--pti", choices=("on", "off"), help="page-table isolation of x86 (on by default)"
    )
    words.add_argument(
        "--qmp", type=Path, default=PLACE / "qmp", help="the socket of QEMU's monitor (%(default)s)"
    )
    words.add_argument(
        "--qemu", help="the environment's QEMU, QEMU_RISCV or QEMU_ARM64, or the usual one"
    )
    asked = words.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not asked.qmp.absolute().parent.is_dir():
            raise Misuse(f"there is no directory {asked.qmp.parent} for the socket")
        variant = _variant(asked)
        image = _BUILT[asked.arch]()
        arguments, board = variant.kernel_arguments, variant.board
        qemu = asked.qemu or os.environ.get(board.environment, board.qemu)
        with started(image, arguments, asked.qmp, qemu=qemu, board=board) as machine:
            for line in machine.console:
                print(line.decode("ascii", "replace").rstrip(), flush=True)
            print(f"QEMU ended. {machine.stderr().strip()}", file=sys.stderr)
            return MACHINE_FAILURE
    except (CanNotBuild, Misuse) as reason:
        print(f"images.linux: {reason}", file=sys.stderr)
        return MISUSE
    except KeyboardInterrupt:
        return INTERRUPTED


_BUILT = {"x86": build, "riscv": build_riscv, "arm64": build_arm64}


def _variant(asked: argparse.Namespace) -> AnyVariant:
    """The Linux that was asked for; raises `Misuse` where there is none."""
    if asked.arch != "x86" and asked.pti is not None:
        raise Misuse(f"--pti is for x86: that for {asked.arch} does not isolate its page tables")
    if asked.arch == "riscv":
        return RiscvVariant(asked.levels)
    if asked.levels == 3:
        raise Misuse(f"--levels is 4 or 5 on {asked.arch}: 3 are for --arch riscv")
    if asked.arch == "arm64":
        return Arm64Variant(asked.levels)
    return Variant(asked.levels, asked.pti != "off")


if __name__ == "__main__":
    sys.exit(main())
