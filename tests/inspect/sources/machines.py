"""QEMUs as a foreign program starts them, with a monitor for us and one for the test."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.machine.machine import bound_to
from harness.machine.patience import Clock
from harness.machine.stub import StubImage
from harness.machine.x86.stub import BUILD

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
RAM = 64 << 20
STUB = (
    *("-machine", "microvm,pic=on,pit=off,rtc=off,acpi=off,auto-kernel-cmdline=off"),
    *(
        "-cpu",
        "max",
        "-m",
        f"{RAM >> 20}M",
        "-smp",
        "2",
        "-kernel",
        str(StubImage.load(BUILD).path),
    ),
    *("-serial", "null"),  # without one the stub reads what is not there, and never sleeps
)
"""A guest in long mode, with tables of its own, that runs until it is ended."""


class Witness:
    """A second monitor of a QEMU, by which the test sees what becomes of its guest."""

    def __init__(self, path: Path, process: subprocess.Popen[bytes]) -> None:
        self._pid = process.pid
        self._socket = _listening(path, process)
        self._lines = self._socket.makefile("rb")
        self.events: list[str] = []
        self._next()  # the greeting, which an event can come before (QEMU, monitor_qmp_event)
        self.ask("qmp_capabilities")

    def _next(self) -> Any:
        while "event" in (message := json.loads(self._lines.readline())):
            self.events.append(message["event"])
        return message

    def ask(self, command: str, **arguments: object) -> Any:
        question = {"execute": command, "arguments": arguments}
        self._socket.sendall(json.dumps(question).encode() + b"\n")
        return self._next()["return"]

    def status(self) -> str:
        return str(self.ask("query-status")["status"])

    def becomes(self, status: str, within: float = 10.0) -> bool:
        clock = Clock(self._pid)
        while clock.now() < within:
            if self.status() == status:
                return True
            time.sleep(0.02)
        return False

    def registers(self) -> str:
        """Those of the first processor, as QEMU prints them."""
        return str(self.ask("human-monitor-command", **{"command-line": "info registers"}))

    def waits_for(self, seen: str | re.Pattern[str], within: float = 20.0) -> None:
        """Waits until this is seen among the registers of the first processor."""
        clock = Clock(self._pid)
        pattern = re.compile(re.escape(seen)) if isinstance(seen, str) else seen
        while not pattern.search(self.registers()):
            assert clock.now() < within, f"no {pattern.pattern} within {within:g} s"
            time.sleep(0.01)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def _listening(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    """A connection to a socket of a QEMU that has just been started: the file is there a moment
    before anyone listens."""
    clock = Clock(process.pid)
    while True:
        found = socket.socket(socket.AF_UNIX)
        found.settimeout(20)
        try:
            found.connect(str(path))
            return found
        except (FileNotFoundError, ConnectionRefusedError):
            found.close()
            if process.poll() is not None or clock.now() > 20:
                raise
            time.sleep(0.01)


@dataclass(frozen=True)
class Machine:
    """A running QEMU: the socket for us, the test's own monitor, its process."""

    path: Path
    witness: Witness
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running(
    directory: Path, *arguments: str, pass_fds: tuple[int, ...] = (), qemu: str = QEMU
) -> Iterator[Machine]:
    """A QEMU with these arguments, until the block ends."""
    ours, theirs = directory / "qmp", directory / "witness"
    sockets = [part for one in (ours, theirs) for part in ("-qmp", f"unix:{one},server,wait=off")]
    command = [*bound_to(os.getpid()), qemu, "-nodefaults", "-display", "none", *sockets]
    process = subprocess.Popen([*command, *arguments], pass_fds=pass_fds)
    try:
        witness = Witness(theirs, process)
        try:
            if arguments[: len(STUB)] == STUB:
                witness.waits_for("EFER=0000000000000d00")
            yield Machine(ours, witness, process)
        finally:
            witness.close()
    finally:
        process.kill()
        process.wait()
