"""A QEMU at its gdb stub as a source, and those that are none."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.cli.source import Source
from harness.inspect.snapshot import SourceError
from harness.inspect.sources import qmp
from harness.machine.errors import MachineError, Misuse
from tests.cli.commands import ROOT as TOP
from tests.cli.commands import run
from tests.inspect.sources.machines import STUB, Machine, running
from tests.inspect.sources.test_places import free_port
from tests.inspect.spaces import listed, same

SAYS_A_STOP = 8, 1
"""Before this version, QEMU says at once when it stops the guest for a debugger."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("machine")
    stub = ("-gdb", f"unix:{directory / 'gdb'},server=on,wait=off")
    with running(directory, *STUB, *stub) as machine:
        yield machine


def stub_of(machine: Machine) -> Path:
    return machine.path.with_name("gdb")


@pytest.mark.hw
def test_a_stub_has_what_the_monitor_has(machine: Machine) -> None:
    with Source.named(f"gdb:{stub_of(machine)}").opened() as found:
        seen = qmp.snapshot(machine.path, 0, False, {})
        assert same(listed(found), listed(seen))
        assert (found.cpu, found.backed) == (seen.cpu, seen.backed)
        assert (found.assumed, found.notes) == (seen.assumed, seen.notes)
    assert machine.witness.becomes("running")
    alone = qmp.debugged(stub_of(machine), 0)
    with alone as connection:
        read = connection.through_monitor()
        for address in (0, 0x10_0000, 0x10_5000):
            octets = connection.monitor.read_physical(address, 0x1000)
            assert octets == b"".join(
                (read.load(address + at, 8) or 0).to_bytes(8, "little")  # type: ignore[arg-type]
                for at in range(0, 0x1000, 8)
            )
    assert machine.witness.becomes("running")


@pytest.mark.hw
def test_a_stub_is_reached_over_the_network_too(tmp_path: Path) -> None:
    port = free_port()
    with running(tmp_path, *STUB, "-gdb", f"tcp:127.0.0.1:{port}") as machine:
        for where in (f"127.0.0.1:{port}", f"localhost:{port}"):
            code, out, errors = run("dump", "--gdb", where, cwd=tmp_path)
            assert (code, errors) == (0, "")
            assert "0x0..0xffffffff" in out
            assert machine.witness.becomes("running")


@pytest.mark.hw
def test_processors_that_page_not_or_are_none_are_a_sentence(machine: Machine) -> None:
    for number, kind, said in (
        (1, SourceError, "paging is off"),
        (2, Misuse, "the guest has no processor 2: it has 0, 1"),
    ):
        with pytest.raises(kind, match=said):
            qmp.snapshot_of_stub(stub_of(machine), number, {})
        assert machine.witness.becomes("running")


@pytest.mark.hw
def test_a_guest_that_stood_stands_afterwards(machine: Machine, tmp_path: Path) -> None:
    witness = machine.witness
    witness.ask("stop")
    try:
        version = witness.ask("query-version")["qemu"]
        held = (version["major"], version["minor"]) >= SAYS_A_STOP
        seen = len(witness.events)
        qmp.snapshot_of_stub(stub_of(machine), 0, {}, held=held)
        assert witness.status() == "paused"
        assert "RESUME" not in witness.events[seen:]
    finally:
        witness.ask("cont")


@pytest.mark.hw
def test_a_guest_that_has_not_begun_does_not_begin(tmp_path: Path) -> None:
    stub = tmp_path / "gdb"
    with running(tmp_path, "-S", "-gdb", f"unix:{stub},server=on,wait=off") as machine:
        with pytest.raises(SourceError, match="paging is off"):
            qmp.snapshot_of_stub(stub, 0, {})
        assert machine.witness.status() == "prelaunch"
        child = holding(stub)
        child.kill()
        child.wait()
        time.sleep(0.5)
        assert machine.witness.status() == "prelaunch"


HOLDING = """
import sys, time
from pathlib import Path
from harness.inspect.sources import qmp
with qmp.debugged(Path(sys.argv[1]), 0):
    print("held", flush=True)
    time.sleep(60)
"""


def holding(stub: Path) -> subprocess.Popen[str]:
    """A process that stands in the middle of a conversation."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(stub)], stdout=subprocess.PIPE, text=True, cwd=TOP
    )
    assert child.stdout is not None
    with child.stdout:
        assert child.stdout.readline() == "held\n"
    return child


@pytest.mark.hw
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_guest_runs_on_whatever_ends_who_stopped_it(
    machine: Machine, how: signal.Signals
) -> None:
    child = holding(stub_of(machine))
    assert machine.witness.status() == "paused"
    os.kill(child.pid, how)
    child.wait()
    assert machine.witness.becomes("running")
    # And virtual memory is what the stub reads again.
    with talking(stub_of(machine)) as connection:
        assert asked(connection, b"qqemu.PhyMemMode") == b"0"


@contextlib.contextmanager
def talking(stub: Path) -> Iterator[socket.socket]:
    """A debugger, which detaches."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(10)
        connection.connect(str(stub))
        yield connection
        connection.sendall(b"+$D#44")
        connection.recv(100)


def asked(connection: socket.socket, content: bytes) -> bytes:
    connection.sendall(packet(content))
    said = b""
    while not said.endswith(packet(b"0")) and not said.endswith(packet(b"1")):
        said += connection.recv(100)
    return said[-4:-3]


@pytest.mark.hw
def test_another_debugger_is_named_and_the_guest_left_to_it(
    machine: Machine, tmp_path: Path
) -> None:
    with talking(stub_of(machine)):
        code, out, errors = run("dump", "--gdb", stub_of(machine), cwd=tmp_path)
        assert (code, out) == (3, "")
        assert "a gdb stub serves one debugger at a time" in errors
    # QEMU takes the connection that waited when the other ends: it must not stop the guest.
    time.sleep(0.3)
    assert machine.witness.becomes("running")


@pytest.mark.hw
@pytest.mark.parametrize("command", ["walk 0x1000", "fault", "find 0x1000", "lint"])
def test_each_command_takes_a_stub(machine: Machine, tmp_path: Path, command: str) -> None:
    stub = run(*command.split(), "--gdb", stub_of(machine), cwd=tmp_path)
    monitor = run(*command.split(), "--qmp", machine.path, cwd=tmp_path)
    assert stub[0] == monitor[0]
    assert stub[1].replace(f"the gdb stub {stub_of(machine)}", f"{machine.path}") == monitor[1]
    assert machine.witness.becomes("running")


def test_what_is_no_stub_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for where, said in (
        ("absent", "no gdb stub listens at .*absent: QEMU's does with -gdb unix:"),
        ("file", "no gdb stub listens at"),
        ("127.0.0.1:1", "QEMU's does with -gdb tcp:127.0.0.1:1"),
        ("no.such.host.:1", "cannot be connected to"),
        ("localhost:70000", "ports are 1 to 65535"),
    ):
        path = where if ":" in where else str(tmp_path / where)
        with pytest.raises(Misuse, match=said):
            qmp.snapshot_of_stub(Path(path), 0, {})
    code, out, errors = run("dump", "--gdb", tmp_path / "absent", "--live", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "--live is for --qmp" in errors


# Stubs that no one should talk to


def packet(content: bytes) -> bytes:
    return b"$%b#%02x" % (content, sum(content) & 0xFF)


def printed(text: bytes) -> bytes:
    """What the monitor prints, and the end of it."""
    return packet(b"O" + text.hex().encode()) + packet(b"OK")


STATUS = printed(b"VM status: paused\r\n")
VERSION = printed(b"10.0.13 (Debian)\r\n")
BEGIN = [STATUS, VERSION, packet(b"OK")]
MEMORY = printed(
    b'FlatView #0\r\n AS "memory", root: system\r\n Root memory region: system\r\n'
    b"  0000000000000000-0000000003ffffff (prio 0, ram): ram\r\n\r\n"
)
NO_PROPERTY = printed(b"Error: Property not found\r\n")


@contextlib.contextmanager
def served(tmp_path: Path, answers: list[bytes], *, forever: bytes = b"") -> Iterator[Path]:
    """A stub that answers each packet, and then is silent, or says something for ever."""
    path, connections = tmp_path / "stub", list[socket.socket]()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                connection, _ = server.accept()
                connections.append(connection)
                left = list(answers)
                with connection:
                    while part := connection.recv(1 << 16):
                        for _ in range(part.count(b"$")):
                            if left:
                                connection.sendall(left.pop(0))
                        while forever and not left:
                            connection.sendall(forever)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield path
        for connection in connections:
            with contextlib.suppress(OSError):  # it has ended
                connection.shutdown(socket.SHUT_RDWR)  # a guard may still wait for an answer
    thread.join(10)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([], "says nothing for 2 s"),
        ([packet(b"")], "has no monitor: QEMU's does"),
        ([packet(b"E01")], "answered info status with b'E01'"),
        ([packet(b"Oxyz")], "answered info status with b'xyz'"),
        ([b"$OK#00"], "sent a packet that is damaged"),
        ([b"SSH-2.0-OpenSSH\r\n" * 10_000], "is not a gdb stub: it sent"),
        ([STATUS, printed(b"what?")], "info version says"),
        ([STATUS, printed(b"2.0.0\r\n")], "is too old"),
        ([STATUS, VERSION, packet(b"")], "cannot read physical memory"),
        ([*BEGIN, printed(b"nothing\r\n")], "shows no address space"),
        (
            [*BEGIN, MEMORY, *[NO_PROPERTY] * 9, printed(b"CPU#0\r\n")],
            "no processor 0: it has",
        ),
        ([b"$T02thread:01;#04" * 2], "says nothing for 2 s"),
    ],
    ids=range(12),
)
def test_a_stub_that_answers_amiss_is_a_sentence(
    tmp_path: Path, answers: list[bytes], said: str
) -> None:
    began = time.process_time()
    with served(tmp_path, answers) as path, pytest.raises((Misuse, MachineError), match=said):
        qmp.snapshot_of_stub(path, 0, {})
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "forever",
    [b"$O6161#", packet(b"O" + b"61" * 2000), b"+" * 4096, packet(b"T05"), b"$" * 4096],
    ids=["unfinished", "output", "acknowledged", "stops", "beginnings"],
)
def test_a_stub_without_end_is_a_sentence_that_costs_little(tmp_path: Path, forever: bytes) -> None:
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with (
        served(tmp_path, [], forever=forever) as path,
        pytest.raises((Misuse, MachineError)) as error,
    ):
        qmp.snapshot_of_stub(path, 0, {})
    assert len(str(error.value).splitlines()) == 1
    assert time.process_time() - began < 10  # of two threads
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
