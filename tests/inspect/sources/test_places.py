"""A running guest whose tables lie where they cannot, and one that is asked over TCP."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import ROOT as TOP
from tests.cli.commands import run
from tests.inspect.sources.kernel import ROOT, arguments
from tests.inspect.sources.machines import Machine, running
from tests.inspect.sources.test_qmp import HOLDING, served

WORDS = {
    ROOT: 0x20_1003,
    ROOT + 4 * 978: 0xD_2103,  # what SeaBIOS leaves of the ROM area is write-protected
    ROOT + 4 * 979: 0xFEE0_0003,  # the local APIC
    0x20_1000 + 4 * 0x100: 0x10_0003,
}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("machine")
    guest = arguments(directory, 0, ROOT, WORDS, machine="pc")
    network = ("-qmp", f"tcp:127.0.0.1:{port},server=on,wait=off")
    with running(directory, *guest, *network) as machine:
        machine.witness.waits_for("CR3=00200000", 60)
        yield machine


@pytest.mark.hw
@pytest.mark.parametrize("way", ["path", "network"])
def test_tables_in_rom_and_in_a_device_are_noted(
    machine: Machine, port: int, tmp_path: Path, way: str
) -> None:
    where = machine.path if way == "path" else f"127.0.0.1:{port}"
    for command in ("lint", "walk 0xf4953000", "fault 0xf4953000 --access write --supervisor"):
        _, out, errors = run(*command.split(), "--qmp", where, cwd=tmp_path)
        assert errors == ""
        rom, device = (line for line in out.splitlines() if line.startswith("Note: In "))
        assert "pc.ram in info mtree -f), where stores vanish: the level-0 table at 0xd2000" in rom
        assert (
            "apic-msi in info mtree -f), whose answers are no entries: the level-0 table" in device
        )
        assert device.endswith("at 0xfee00000")
        if command.startswith("fault"):
            assert "it lies in ROM, where the store vanishes" in out
    assert machine.witness.status() == "running"


@pytest.mark.hw
def test_a_guest_that_is_held_over_tcp_runs_again_when_who_held_it_is_killed(
    machine: Machine, port: int
) -> None:
    command = [sys.executable, "-c", HOLDING, f"127.0.0.1:{port}", "sleep"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=TOP)
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == b"paused\n"
        assert machine.witness.status() == "paused"
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert machine.witness.becomes("running")


@pytest.mark.hw
def test_a_guest_is_checked_over_tcp(machine: Machine, port: int, tmp_path: Path) -> None:
    machine.witness.events.clear()
    code, out, errors = run("check", "--qmp", f"localhost:{port}", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "answers agree about QEMU at localhost:" in out
    assert machine.witness.status() == "running"
    assert machine.witness.events == ["STOP", "RESUME"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_port_at_which_nothing_listens_is_a_sentence(tmp_path: Path, host: str) -> None:
    where = f"{host}:{free_port()}"
    code, out, errors = run("walk", "0", "--qmp", where, cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert f"nothing listens at {where}: QEMU does with -qmp tcp:{where},server=on" in errors


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("no-such-host.invalid:1", "no-such-host.invalid:1 cannot be connected to: "),
        ("localhost:65536", "names port 65536: ports are 1 to 65535"),
        ("localhost:0", "names port 0: ports are 1 to 65535"),
        ("./localhost:4444x", "there is no socket localhost:4444x"),
        ("folder/localhost:4444", "there is no socket folder/localhost:4444"),
    ],
)
def test_what_is_no_port_is_a_sentence(tmp_path: Path, where: str, said: str) -> None:
    code, out, errors = run("walk", "0", "--qmp", where, cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert said in errors


def test_a_socket_whose_name_looks_like_a_port_is_a_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with served(Path("localhost:4444"), b"HTTP/1.1 200\r\n"):
        _, _, errors = run("walk", "0", "--qmp", "localhost:4444", cwd=tmp_path)
    assert "is not a QMP socket: it begins with b'HTTP/1'" in errors


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_ipv6_is_connected_to(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as server:
        try:
            server.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 here: {error}")
        server.listen()
        where = f"[::1]:{server.getsockname()[1]}"
        code, _, errors = run("walk", "0", "--qmp", where, cwd=tmp_path)
    assert (code, f"{where} says nothing for 2 s" in errors) == (2, True)
