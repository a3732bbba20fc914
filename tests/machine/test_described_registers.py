"""Registers that only the gdb stub shows are read through the monitor, and QEMU is left as it was.

The guest is that of x86, of which `info registers` shows the same registers.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.machine import packets
from harness.machine.errors import Misuse, ProtocolError
from harness.machine.foreign import ForeignMonitor, conversation
from harness.machine.packets import Packets, packet
from harness.machine.patience import Clock
from tests.cli.commands import ROOT
from tests.inspect.sources import machines
from tests.inspect.sources.machines import STUB, Machine

WANTED = ("rip", "cr0", "cr3", "cr4", "efer", "no-such-register")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machines.running(tmp_path_factory.mktemp("machine"), *STUB) as machine:
        yield machine


def chardevs(machine: Machine) -> dict[str, Any]:
    """The devices of characters, but for the command line that a stub has, which stays."""
    found = machine.witness.ask("query-chardev")
    return {one["label"]: one["filename"] for one in found if one["filename"] != "gdb"}


@contextlib.contextmanager
def held(machine: Machine) -> Iterator[ForeignMonitor]:
    with conversation(machine.path, 0, 20, holds=True) as monitor, monitor.paused():
        yield monitor


@pytest.mark.hw
@pytest.mark.parametrize("vcpu", [None, 0, 1])
def test_they_are_those_that_the_monitor_shows(machine: Machine, vcpu: int | None) -> None:
    before = chardevs(machine)
    with held(machine) as monitor:
        found = monitor.described_registers(WANTED, vcpu)
        shown = monitor.registers(vcpu)
        shown.setdefault("RIP", shown.get("EIP", -1))  # of a processor that was not yet started
        assert machine.witness.status() == "paused"
    names = {"rip": "RIP", "cr0": "CR0", "cr3": "CR3", "cr4": "CR4", "efer": "EFER"}
    assert found == {ours: shown[theirs] for ours, theirs in names.items()}
    assert machine.witness.becomes("running")
    assert chardevs(machine) == before


@pytest.mark.hw
def test_a_processor_that_there_is_not_is_a_sentence(machine: Machine) -> None:
    before = chardevs(machine)
    with pytest.raises(Misuse, match="shows no processor 7"), held(machine) as monitor:
        monitor.described_registers(WANTED, 7)
    assert machine.witness.becomes("running")
    assert chardevs(machine) == before


@pytest.mark.hw
def test_a_guest_that_runs_is_not_stopped_for_them(machine: Machine) -> None:
    machine.witness.events.clear()
    with (
        conversation(machine.path, 0, 20) as monitor,
        pytest.raises(Misuse, match="of a guest that stands"),
    ):
        monitor.described_registers(WANTED)
    assert machine.witness.status() == "running"
    assert machine.witness.events == []


@pytest.mark.hw
def test_a_guest_that_has_not_begun_does_not_begin(tmp_path: Path) -> None:
    with machines.running(tmp_path, "-S") as machine:
        with conversation(machine.path, 0, 20) as monitor:
            assert monitor.described_registers(["cr0", "rip"])["rip"] == 0xFFF0
        assert machine.witness.status() == "prelaunch"
        assert machine.witness.events == []


@pytest.mark.hw
@pytest.mark.parametrize(
    "stub",
    [
        ("-gdb", "unix:{}/gdb,server=on,wait=off"),
        ("-chardev", "socket,id=mine,path={}/gdb,server=on,wait=off", "-gdb", "chardev:mine"),
    ],
    ids=["own", "named"],
)
def test_a_stub_that_is_there_is_left_alone(tmp_path: Path, stub: tuple[str, ...]) -> None:
    with machines.running(tmp_path, "-S", *(word.format(tmp_path) for word in stub)) as machine:
        before = chardevs(machine)
        with (
            conversation(machine.path, 0, 20) as monitor,
            pytest.raises(Misuse, match=r"has a gdb stub already \(.*\), which is left alone"),
        ):
            monitor.described_registers(WANTED)
        assert chardevs(machine) == before
        with socket.socket(socket.AF_UNIX) as debugger:
            debugger.settimeout(20)
            debugger.connect(str(tmp_path / "gdb"))
            debugger.sendall(packet("?"))
            said = b""
            while b"#" not in said:
                said += debugger.recv(100)
            assert said.startswith(b"+$T")


@pytest.mark.hw
def test_a_socket_over_the_network_is_a_sentence(tmp_path: Path) -> None:
    with machines.running(tmp_path, "-S", "-qmp", "tcp:127.0.0.1:0,server=on,wait=off") as machine:
        (place,) = (one for one in chardevs(machine).values() if "tcp:127" in one)
        port = place.removeprefix("disconnected:").split(",")[0].removeprefix("tcp:")
        with (
            conversation(Path(port), 0, 20) as monitor,
            pytest.raises(Misuse, match="passes no files on"),
        ):
            monitor.described_registers(WANTED)


ASKING = """
import sys, time
from pathlib import Path
from harness.machine import packets
from harness.machine.foreign import conversation
def registers(self, vcpu, wanted, order):
    print("open", flush=True)
    time.sleep(60)
packets.Packets.registers = registers
with conversation(Path(sys.argv[1]), 0, 20, holds=sys.argv[2] == "held") as monitor:
    if sys.argv[2] == "held":
        with monitor.paused():
            monitor.described_registers(())
    monitor.described_registers(())
"""
"""A process that stands in the middle of the conversation with the stub."""


def killed_while_asking(machine: Machine, how: str, by: signal.Signals) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", ASKING, str(machine.path), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        assert "gdb" in chardevs(machine)
        os.kill(child.pid, by)
        child.wait()


@pytest.mark.hw
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_stub_is_closed_and_the_guest_runs_whatever_ends_who_asks(
    machine: Machine, by: signal.Signals
) -> None:
    before = chardevs(machine)
    killed_while_asking(machine, "held", by)
    assert machine.witness.becomes("running")
    with conversation(machine.path, 0, 60):  # a guard ends after it has acted
        pass
    assert chardevs(machine) == before


@pytest.mark.hw
def test_a_stub_that_was_left_behind_is_closed(tmp_path: Path) -> None:
    with machines.running(tmp_path, "-S") as machine:
        before = chardevs(machine)
        killed_while_asking(machine, "unguarded", signal.SIGKILL)
        assert "gdb" in chardevs(machine)
        with conversation(machine.path, 0, 20) as monitor:
            assert monitor.described_registers(["rip"]) == {"rip": 0xFFF0}
        assert chardevs(machine) == before


# Stubs that describe their registers in other ways


@contextlib.contextmanager
def stub(documents: dict[str, str], values: dict[int, bytes]) -> Iterator[Packets]:
    """A stub that has these documents, each sent in parts, and answers with these registers."""
    ours, theirs = socket.socketpair()

    def answer(asked: str) -> bytes:
        if asked.startswith("qXfer:features:read:"):
            name, place = asked.removeprefix("qXfer:features:read:").split(":")
            if name not in documents:
                return b"E00"
            first = int(place.split(",")[0], 16)
            part = documents[name][first : first + 40]
            return (b"m" if first + 40 < len(documents[name]) else b"l") + part.encode()
        if asked.startswith("p"):
            return values.get(int(asked[1:], 16), b"E14")
        return b"OK" if asked == "Hg2" else b"E22"

    def serve() -> None:
        with theirs, contextlib.suppress(OSError):
            read = b""
            while part := theirs.recv(4096):
                read += part
                while b"#" in read and len(read.partition(b"#")[2]) >= 2:
                    content, _, rest = read.partition(b"#")
                    read = rest[2:]
                    said = answer(content.rpartition(b"$")[2].decode())
                    theirs.sendall(b"+" + packet(said.decode("latin-1")))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with ours:
        yield Packets(Path("test"), ours, Clock(0), 5)
    thread.join(5)


DESCRIBED = {
    "target.xml": '<target><xi:include href="core.xml"/><xi:include href="more.xml"/></target>',
    "core.xml": '<!--reg name="z"/--><reg name="a"/><!-- <reg name="y"/> --><reg name="b"/>',
    "more.xml": "<feature><reg name='c' bitsize='64' regnum='90'/><reg name='d'/></feature>",
}
VALUES = {0: b"0102000000000000", 1: b"ff000000", 90: b"00" * 8, 91: b"78563412"}


def test_registers_are_numbered_one_by_one_unless_they_have_numbers() -> None:
    with stub(DESCRIBED, VALUES) as connection:
        found = connection.registers(1, ["a", "b", "c", "d", "e"])
        assert found == {"a": 0x201, "b": 0xFF, "c": 0, "d": 0x1234_5678}
        assert connection.registers(1, ["d"]) == {"d": 0x1234_5678}


def test_a_register_that_cannot_be_read_is_none_that_was_found() -> None:
    with stub(DESCRIBED, {1: b"E14", 90: b""}) as connection:
        assert connection.registers(1, ["a", "b", "c"]) == {}


def test_a_stub_that_describes_nothing_has_no_registers() -> None:
    for documents in ({}, {"target.xml": ""}, {"target.xml": DESCRIBED["target.xml"]}):
        with stub(documents, VALUES) as connection:
            assert connection.registers(1, ["a"]) == {}


@pytest.mark.parametrize(
    "documents",
    [
        {"target.xml": '<xi:include href="target.xml"/>'},
        {"target.xml": "x" * 20_000},
        {"target.xml": '<xi:include href="a"/>' * 3, "a": '<xi:include href="a"/>' * 3},
    ],
    ids=["itself", "long", "branches"],
)
def test_a_description_without_end_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, documents: dict[str, str]
) -> None:
    monkeypatch.setattr(packets, "LONGEST_DESCRIPTION", 10_000)
    with (
        stub(documents, VALUES) as connection,
        pytest.raises(ProtocolError, match="describes its registers without end"),
    ):
        connection.registers(1, ["a"])


def test_numbers_and_digits_that_are_none_are_no_traceback() -> None:
    odd = {"target.xml": "<reg name='a' regnum='999999999999'/><reg name='b' regnum='-1'/>"}
    with (
        stub(odd, {0: b"xyz"}) as connection,
        pytest.raises(ProtocolError, match="answered p0 with b'xyz'"),
    ):
        connection.registers(1, ["a"])
