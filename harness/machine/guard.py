"""Sees to it that a guest which was stopped goes on, even when who stopped it is killed.

This is a program, not a module: a process of its own with a pipe as its standard input.  Told that
the guest is about to be stopped, it waits for the word that it runs again.  When the pipe ends
without that, it connects to QEMU's monitor at the path given and lets the guest run on.  It
imports nothing of the package, so that it starts in a few milliseconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

READY, STOPPING, RUNNING = b"r", b"s", b"g"
"""What it says once it waits, and what it is told."""

PATIENCE = 60.0
"""Seconds in which the guest is to run again: another client may hold the monitor for a while."""


def main(path: str) -> None:
    """Waits; where it has to act, tries until the guest runs again or QEMU is gone."""
    os.write(1, READY)
    if os.read(0, 1) != STOPPING or os.read(0, 1) == RUNNING:
        return
    end = time.monotonic() + PATIENCE
    while (left := end - time.monotonic()) > 0:
        try:
            resume(path, left)
            return
        except (FileNotFoundError, ConnectionRefusedError):
            return  # QEMU is gone, and its guest with it
        except (OSError, ValueError):
            time.sleep(0.05)


def resume(path: str, within: float) -> None:
    """Lets the guest run on; raises OSError or ValueError where that fails."""
    with socket.socket(socket.AF_UNIX) as monitor:
        monitor.settimeout(within)
        monitor.connect(path)
        lines = monitor.makefile("rb")
        json.loads(lines.readline())
        for command in ("qmp_capabilities", "cont"):
            monitor.sendall(json.dumps({"execute": command}).encode() + b"\n")
            while "return" not in (answer := json.loads(lines.readline())):
                if "error" in answer:
                    raise ValueError(answer)


if __name__ == "__main__":
    main(sys.argv[1])
