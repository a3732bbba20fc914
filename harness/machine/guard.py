"""Sees to it that a guest which was stopped goes on, even when who stopped it is killed.

This is a program, not a module: a process of its own with a pipe as its standard input.  It holds
the connection to QEMU's monitor, or its gdb stub, too, which QEMU keeps open for it, so that no
other client that waits for the monitor comes in between.  When the pipe ends while the guest is
said to be held, it lets the guest run on, if that stands as it was left.  It imports nothing of the
package, and says that it is there before it imports what takes longer than all else.
"""

from __future__ import annotations

import os
import sys
import time

TYPE_CHECKING = False  # that of `typing` takes as long as Python's own start
if TYPE_CHECKING:
    import socket

READY, HELD, RELEASED, STUB, NO_STUB = b"r", b"h", b"g", b"s", b"n"
"""What it says at its start, and what it is told: that the guest is about to be stopped, and that
it runs again or is another's to let run; that the monitor is about to open a gdb stub, and has
closed it."""

PATIENCE = 60.0
"""Seconds that QEMU may take to answer: it may be in the middle of what it was asked last."""

LONGEST = 1 << 16
"""Bytes of a line that are kept: the answers to what is asked here are short."""

QMP, GDB = "qmp", "gdb"
"""What it is connected to: the monitor, or the gdb stub."""

STATE, RUN, CLOSE = "guard-state", "guard-run", "guard-close"
"""The ids of the questions."""


def main(kind: str, descriptor: int) -> None:
    """Waits for the end of the pipe, and acts where the last word was that the guest is held."""
    os.write(1, READY)
    for name in ("json", "socket"):  # all that is needed is there before a guest is long held
        __import__(name)
    import socket

    held, stub = b"", b""
    while told := os.read(0, 1):
        if told in (STUB, NO_STUB):
            stub = told
        else:
            held = told
    if held == HELD or stub == STUB:
        with socket.socket(fileno=descriptor) as connection:
            if stub == STUB:
                close_stub(connection)
            if held == HELD:
                (resume if kind == QMP else detach)(connection)


def close_stub(monitor: socket.socket) -> None:
    """Closes the gdb stub, as the guest stands: it does not move by that."""
    answered(monitor, "human-monitor-command", CLOSE, {"command-line": "gdbserver none"})


def resume(monitor: socket.socket) -> None:
    """Lets the guest run on if it stands paused, and no one else has let it run since."""
    if answered(monitor, "query-status", STATE).get("status") == "paused":
        answered(monitor, "cont", RUN)


def detach(stub: socket.socket) -> None:
    """Leaves a gdb stub so that the guest runs on, unless something else than we made it stand.

    Nothing is said after the last packet: each byte stops a guest that runs (QEMU, gdb_read_byte).
    """
    try:
        stub.settimeout(PATIENCE)
        # An unfinished packet ends at its checksum, which is wrong.
        stub.sendall(b"#00+" + packet(b"qRcmd," + b"info status".hex().encode()))
        said = b""
        while len(said) < LONGEST and not said.endswith((b"$OK#9a", b"$#00")):
            part = stub.recv(LONGEST)
            if not part:
                return
            said += part
        printed = [part.split(b"#")[0] for part in said.split(b"$O")[1:]]  # of $OK, K
        digits = b"".join(part for part in printed if part != b"K")
        if b"(" not in bytes.fromhex(digits.decode("ascii")):
            stub.sendall(b"+" + packet(b"Qqemu.PhyMemMode:0") + b"+" + packet(b"D"))
            stub.recv(LONGEST)
    except (OSError, ValueError):
        pass  # QEMU is gone, and its guest with it, or it was none


def packet(content: bytes) -> bytes:
    """What a gdb stub is told, in its frame."""
    return b"$%b#%02x" % (content, sum(content) & 0xFF)


def answered(
    monitor: socket.socket, command: str, id: str, arguments: dict[str, str] | None = None
) -> dict[str, object]:
    """What the command returns; nothing where it fails, and where the guest was let run."""
    import json

    end = time.monotonic() + PATIENCE
    line = b""
    try:
        monitor.settimeout(PATIENCE)
        asked = {"execute": command, "id": id, "arguments": arguments or {}}
        # What was half said is dropped at a byte that no JSON text has (QEMU,
        # docs/interop/qmp-spec).
        monitor.sendall(b"\xff" + json.dumps(asked).encode() + b"\n")
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
    import json

    try:
        said = json.loads(line) if len(line) < LONGEST else None
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
