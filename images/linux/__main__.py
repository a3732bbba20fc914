"""Boots the Linux image and shows what it tells.

    python -m images.linux --levels 5 --pti on --qmp build/linux.sock

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
from images.linux.build import PLACE, CanNotBuild, build
from images.linux.machine import Variant, started

MISUSE, MACHINE_FAILURE, INTERRUPTED = 2, 3, 130


def main() -> int:
    """The exit code; Ctrl-C, or the signal that `kill` sends, is the usual end."""
    words = argparse.ArgumentParser(prog="python -m images.linux", description=__doc__)
    words.formatter_class = argparse.RawDescriptionHelpFormatter
    words.add_argument("--levels", type=int, choices=(4, 5), default=5, help="of page tables")
    words.add_argument("--pti", choices=("on", "off"), default="on", help="page-table isolation")
    words.add_argument(
        "--qmp", type=Path, default=PLACE / "qmp", help="the socket of QEMU's monitor (%(default)s)"
    )
    words.add_argument("--qemu", default=os.environ.get("QEMU", "qemu-system-x86_64"))
    asked = words.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if not asked.qmp.absolute().parent.is_dir():
            raise Misuse(f"there is no directory {asked.qmp.parent} for the socket")
        image = build()
        with started(
            image,
            Variant(asked.levels, asked.pti == "on").kernel_arguments,
            asked.qmp,
            qemu=asked.qemu,
        ) as machine:
            for line in machine.console:
                print(line.decode("ascii", "replace").rstrip(), flush=True)
            print(f"QEMU ended. {machine.stderr().strip()}", file=sys.stderr)
            return MACHINE_FAILURE
    except (CanNotBuild, Misuse) as reason:
        print(f"images.linux: {reason}", file=sys.stderr)
        return MISUSE
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
