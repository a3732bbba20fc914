"""`pagetable gdb`: the commands for gdb."""

from __future__ import annotations

from pathlib import Path

from harness.cli.ending import sentences
from harness.cli.output import say


def gdb() -> None:
    """Print the gdb command that brings `ptwalk` and `ptfault` into a session.

    They answer as walk and fault do, for the guest that is debugged: QEMU, started with -s or -gdb.
    In gdb, `ptwalk $rip`, `ptfault` at CR2, `ptfault &symbol --access write --supervisor`.

    Example: gdb -ex "$(pagetable gdb)" -ex "target remote localhost:1234"
    """
    with sentences():
        import harness

        say(f"source {Path(harness.__file__).with_name('gdb.py')}")
