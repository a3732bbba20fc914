"""Sees to it that a guest which was stopped goes on, even when who stopped it is killed.

This is a program, not a module: a process of its own with a pipe as its standard input.  It holds
the connection to QEMU's monitor too, which QEMU keeps open for it, so that no other client that
waits for the monitor comes in between.  When the pipe ends while the guest is said to be held, it
lets the guest run on, if that stands as it was left.  It imports nothing of the package, so that it
starts in a few milliseconds.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time

READY, HELD, RELEASED = b"r", b"h", b"g"
"""What it says once it waits, and what it is told: that the guest is about to be stopped, and that
it runs again or is another's to let run."""

PATIENCE = 60.0
"""Seconds that QEMU may take to answer: it may be in the midst of what it was asked last."""

LONGEST = 1 << 16
"""Bytes of a line that are kept: the answers to what is asked here are short."""

STATE, RUN = "guard-state", "guard-run"
"""The ids of the two questions."""


def main(descriptor: int) -> None:
    """Waits for the end of the pipe, and acts where the last word was that the guest is held."""
    os.write(1, READY)
    last = b""
    while told := os.read(0, 1):
        last = told
    if last == HELD:
        with socket.socket(fileno=descriptor) as monitor:
            resume(monitor)


def resume(monitor: socket.socket) -> None:
    """Lets the guest run on if it stands paused, and no one else has let it run since."""
    # What was half said is dropped at a byte that no JSON text has (QEMU, docs/interop/qmp-spec).
    if answered(monitor, b"\xff", "query-status", STATE).get("status") == "paused":
        answered(monitor, b"", "cont", RUN)


def answered(monitor: socket.socket, before: bytes, command: str, id: str) -> dict[str, object]:
    """What the command returns; nothing where it fails, and where the guest was let run."""
    end = time.monotonic() + PATIENCE
    line = b""
    try:
        monitor.settimeout(PATIENCE)
        monitor.sendall(before + json.dumps({"execute": command, "id": id}).encode() + b"\n")
        while (left := end - time.monotonic()) > 0:
            monitor.settimeout(left)
            part = monitor.recv(LONGEST)
            if not part:
                return {}
            *lines, line = (line + part).split(b"\n")
            line = line[:LONGEST]
            for one in lines:
                said = message(one)
                if said.get("event") in ("RESUME", "RESET"):
                    return {}
                if said.get("id") == id:
                    found = said.get("return")
                    return found if isinstance(found, dict) else {}
    except OSError:
        pass  # QEMU is gone, and its guest with it
    return {}


def message(line: bytes) -> dict[str, object]:
    """What a line says; nothing where it is the rest of one, or too long to be of use here."""
    try:
        said = json.loads(line) if len(line) < LONGEST else None
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


if __name__ == "__main__":
    main(int(sys.argv[1]))
