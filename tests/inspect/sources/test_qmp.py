"""A running QEMU as a source: what is read, and that its guest is left as it was."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check import layouts
from harness.check.held import HeldMemory, Octets
from harness.check.x86.layouts import build
from harness.inspect.held import hold_tables, refuse
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import qmp
from harness.inspect.translation import translate
from harness.inspect.x86.doubt import doubt
from harness.inspect.x86.live import _control, _model, hold_beside
from harness.machine.errors import MachineError, Misuse, ProtocolError
from harness.machine.foreign import ForeignMonitor, conversation
from harness.machine.monitor import ANSWER_LIMIT
from harness.machine.openfile import OpenFile
from harness.machine.patience import Clock
from harness.machine.physical import PhysicalMemory, Reader, Region
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.memory import BufferMemory, Mask, Words
from harness.paging.x86.cpu import Cpu, Mode
from tests.cli.commands import ROOT, children, run
from tests.inspect.sources.machines import RAM, STUB, Machine, running
from tests.inspect.spaces import listed, same


@pytest.fixture(scope="module")
def ram() -> Iterator[int]:
    """An anonymous file that is a guest's memory."""
    fd = os.memfd_create("ram")
    os.ftruncate(fd, RAM)
    yield fd
    os.close(fd)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, ram: int) -> Iterator[Machine]:
    """A guest whose RAM can be shared."""
    backend = f"memory-backend-file,id=ram,size={RAM},mem-path=/proc/self/fd/{ram},share=on"
    shared = ("-object", backend, "-machine", "memory-backend=ram")
    directory = tmp_path_factory.mktemp("machine")
    with running(directory, *STUB, *shared, pass_fds=(ram,)) as machine:
        yield machine


@pytest.fixture(scope="module")
def built(machine: Machine, ram: int) -> Cpu:
    """The state in which a layout translates, whose tables are in the guest's memory."""
    memory = BufferMemory(np.frombuffer(mmap.mmap(ram, RAM), np.uint8))
    return build(layouts.load(layouts.find("linux-5")), 5, memory, 40, page1gb=True).cpu


@pytest.mark.hw
@pytest.mark.parametrize("way", ["shared", "files", "printed"])
def test_every_way_to_the_memory_shows_the_same_tables(
    machine: Machine, ram: int, built: Cpu, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextlib.contextmanager
    def refused(_: ForeignMonitor) -> Iterator[bool]:
        yield False

    asked: list[str] = []
    ask = ForeignMonitor.ask

    def watched(
        self: ForeignMonitor, command: str, arguments: Mapping[str, object], *bounds: Any
    ) -> object:
        asked.append(str(arguments.get("command-line", command)).split()[0])
        return ask(self, command, arguments, *bounds)

    monkeypatch.setattr(ForeignMonitor, "ask", watched)
    if way == "printed":
        monkeypatch.setattr(ForeignMonitor, "with_scratch", refused)
    registers = {"cr3": built.cr3, "cr4": built.cr4}
    found = qmp.snapshot(machine.path, 0, False, registers, shared=way == "shared")
    memory = BufferMemory(np.frombuffer(os.pread(ram, RAM, 0), np.uint8))
    assert same(listed(found), bulk.leaves(memory, built.roots))
    assert listed(found).total > 1000
    reads = {"shared": 1, "files": 30, "printed": 0}  # one finds out whether files work
    assert asked.count("pmemsave") <= reads[way]
    assert ("xp" in asked) == (way == "printed")


@pytest.mark.hw
def test_the_state_is_that_of_the_processor_asked_about(machine: Machine) -> None:
    snapshot = qmp.snapshot(machine.path, 0, False, {})
    assert snapshot.cpu.mode is Mode.LEVEL_4
    assert snapshot.cpu.maxphyaddr == 40
    assert snapshot.backed is not None
    assert snapshot.backed[0].first == 0
    assert listed(snapshot).total > 0
    with pytest.raises(SourceError, match="paging is off"):  # it waits to be started
        qmp.snapshot(machine.path, 1, False, {})
    with pytest.raises(Misuse, match="no processor 2: it has 0, 1"):
        qmp.snapshot(machine.path, 2, False, {})


@pytest.mark.hw
def test_where_there_is_no_ram_there_is_no_memory(machine: Machine) -> None:
    snapshot = qmp.snapshot(machine.path, 0, False, {"cr3": 0xB000_0000})
    leaves = listed(snapshot)
    assert leaves.end.tolist() == [bulk.End.UNBACKED] * 2
    with pytest.raises(SourceError, match="was not read"):
        snapshot.memory.gather(np.array([0x10_0000], np.uint64), 8)


@pytest.mark.hw
def test_the_guest_stands_still_meanwhile_and_runs_afterwards(machine: Machine) -> None:
    assert machine.witness.status() == "running"
    machine.witness.events.clear()
    qmp.snapshot(machine.path, 0, False, {})
    assert machine.witness.status() == "running"
    assert machine.witness.events == ["STOP", "RESUME"]
    assert listed(qmp.snapshot(machine.path, 0, True, {})).total > 0
    assert machine.witness.status() == "running"
    assert machine.witness.events == ["STOP", "RESUME"]


@pytest.mark.hw
def test_a_guest_that_was_stopped_stays_so(machine: Machine) -> None:
    machine.witness.ask("stop")
    machine.witness.events.clear()
    try:
        assert listed(qmp.snapshot(machine.path, 0, False, {})).total > 0
        assert machine.witness.status() == "paused"
        assert machine.witness.events == []
    finally:
        machine.witness.ask("cont")


HOLDING = """
import sys, time
from pathlib import Path
from harness.inspect.sources import qmp
path = Path(sys.argv[1])
with qmp.connected(path, 0, holds=True) as connection, connection.monitor.paused():
    print("paused", flush=True)
    while sys.argv[2] == "sleep":
        time.sleep(0.05)  # a signal that comes just before a long one would not end that
    1 / 0
"""


@pytest.mark.hw
@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, None])
def test_the_guest_runs_again_however_who_stopped_it_ends(
    machine: Machine, ending: signal.Signals | None
) -> None:
    command = [sys.executable, "-c", HOLDING, str(machine.path), "sleep" if ending else "fail"]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, cwd=ROOT)
    assert process.stdout is not None
    with process.stdout as lines:
        assert lines.readline() == b"paused\n"
        try:
            if ending:
                assert machine.witness.status() == "paused"
                process.send_signal(ending)
            process.wait(20)
        finally:
            process.kill()  # what outlived this would hold the guest of the tests that follow
    assert machine.witness.becomes("running")
    assert listed(qmp.snapshot(machine.path, 0, False, {})).total > 0


@pytest.mark.hw
def test_an_unkind_end_of_the_command_leaves_no_process_and_a_running_guest(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("harness.inspect.x86.live.hold_tables", interrupted)
    code, out, errors = run("walk", "0x1000", "--qmp", machine.path, cwd=tmp_path)
    assert (code, out, errors) == (130, "", "pagetable: interrupted.\n")
    assert machine.witness.status() == "running"
    assert not children(os.getpid()) or machine.process.pid in children(os.getpid())


@pytest.mark.hw
def test_a_qemu_that_dies_in_between_is_a_sentence(tmp_path: Path) -> None:
    lost = pytest.raises(MachineError, match=r"^the guest at .* is lost: QEMU ended while asked")
    with (
        running(tmp_path, *STUB) as machine,
        lost,
        qmp.connected(machine.path, 0, holds=True) as connection,
        connection.monitor.paused(),
    ):
        machine.process.kill()
        connection.snapshot({})


@pytest.mark.hw
def test_a_processor_whose_paging_is_off_is_a_sentence(tmp_path: Path) -> None:
    with running(tmp_path, "-machine", "pc", "-S") as machine:
        code, _, errors = run("walk", "0x1000", "--qmp", machine.path, cwd=tmp_path)
        assert code == 2
        assert "paging is off (CR0 is 0x60000010)" in errors
        assert "run its QEMU with -no-reboot -no-shutdown" in errors
        assert machine.witness.status() == "prelaunch"


@pytest.mark.hw
def test_what_takes_too_long_or_is_refused_is_a_sentence(machine: Machine) -> None:
    slow = qmp.connected(machine.path, 0, shared=False, patience=0)
    with pytest.raises(Misuse, match="take longer than 0 s to read"), slow as connection:
        connection.snapshot({})
    with (
        pytest.raises(MachineError, match="refuses: The command nonsense has not been found"),
        qmp.connected(machine.path, 0) as connection,
    ):
        connection.monitor.execute("nonsense")


@contextlib.contextmanager
def served(
    path: Path,
    said: bytes,
    *then: bytes,
    asked: int | None = None,
    before: float = 0,
    ends: bool = False,
) -> Iterator[None]:
    """A socket that takes one connection, says this, then each of the others when it is asked
    something (the first so many of them, if `asked` is given) and so many seconds later, and then
    nothing, or ends what it says."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        taken = []

        def serve() -> None:
            with contextlib.suppress(OSError):
                taken.append(server.accept()[0])
                taken[0].sendall(said)
                for number, answer in enumerate(then):
                    if asked is None or number < asked:
                        taken[0].recv(1 << 12)
                    time.sleep(before)
                    taken[0].sendall(answer)
                if ends:
                    taken[0].shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_UNIX) as last, contextlib.suppress(OSError):
                last.connect(str(path))
            thread.join()
            for one in taken:
                one.close()


GREETING = (
    b'{"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}}, "capabilities": []}}\n'
)


@pytest.mark.parametrize("command", [("walk", "0x1000"), ("check",)], ids=["walk", "check"])
@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        (b"", "says nothing for 2 s: QMP serves one client at a time"),
        (b"HTTP/1.1 200\r\n\r\n", "is not a QMP socket: it begins with b'HTTP/1'"),
        (b'{"QMP": 3}\n', "did not answer"),
        (b'{"QMP": {"version": {}, "capabilities": []}}\n{"return": {}}\n', "not a QMP socket of"),
        (GREETING + b'{"return": {}}\n', "did not answer query-cpus-fast within 2 s"),
    ],
    ids=["silent", "http", "odd", "no version", "mute"],
)
def test_what_is_no_qmp_socket_is_a_sentence(
    tmp_path: Path, command: tuple[str, ...], said: bytes, sentence: str
) -> None:
    path = tmp_path / "socket"
    with served(path, said):
        clock = Clock(0)
        code, out, errors = run(*command, "--qmp", path, cwd=tmp_path)
        assert code in (2, 3)
        assert out == ""
        assert sentence in errors
        assert errors.count("\n") == 1
        assert clock.now() < 5


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            b'"error": {"class": "CommandNotFound", "desc": "no"}',
            "not a QMP socket of a QEMU with a",
        ),
        (b'"return": "text"', "not a QMP socket of a QEMU with a"),
        (b'"return": []', "the guest has no processor 0: it has none"),
    ],
    ids=["refusal", "text", "none"],
)
def test_a_qmp_server_without_a_guest_is_a_sentence(
    tmp_path: Path, answer: bytes, sentence: str
) -> None:
    path = tmp_path / "socket"
    with served(path, GREETING, b'{"return": {}}\n', b'{"id": "__qmp#00000", %b}\n' % answer):
        code, _, errors = run("walk", "0x1000", "--qmp", path, cwd=tmp_path)
    assert code == 2
    assert sentence in errors
    assert errors.count("\n") == 1


MADE = GREETING, b'{"return": {}}\n'
"""What every QMP server says before it is asked anything."""


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b'{"return": "' + bytes(2 * ANSWER_LIMIT), "an answer of more than 16,777,216 bytes"),
        (b"7" * (ANSWER_LIMIT + (1 << 20)), "an answer of more than 16,777,216 bytes"),
        (b'{"return": ' + b"7" * 5000 + b"}\n", "is no message of QMP"),
        (b'{"return": ' + b"[" * 100_000 + b"\n", "is no message of QMP"),
        (b"\xff\xfe\r\n", "is no message of QMP"),
        (b'{"return": {}, "id": [1]}\n', "is no message of QMP"),
        (b'{"return": {}, "id": {"a": 1}}\n', "is no message of QMP"),
        (b'{"return": {}, "id": 7}\n', "is no message of QMP"),
        (b"[1]\n", "is no message of QMP"),
        (b'{"return": {}, "id": "other"}\n', "did not answer query-cpus-fast within 2 s"),
        (
            b'{"error": 7, "id": "__qmp#00000"}\n',
            "answered query-cpus-fast with neither a result nor",
        ),
    ],
    ids=[
        *("endless text", "endless number", "long number", "nested", "no UTF-8"),
        *("list as id", "object as id", "number as id", "no object", "other id", "odd error"),
    ],
)
def test_a_peer_that_lies_is_one_sentence(tmp_path: Path, answer: bytes, sentence: str) -> None:
    path = tmp_path / "socket"
    with served(path, *MADE, answer):
        code, out, errors = run("walk", "0x1000", "--qmp", path, cwd=tmp_path)
    assert (code, out) == (3, "")
    assert sentence in errors
    assert errors.count("\n") == 1
    assert len(errors) < 400


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b"", "it ended before its monitor answered"),
        (b"\xff\xfe\r\n", "its monitor sent b'\\xff\\xfe\\r\\n', which is no message of QMP"),
    ],
    ids=["end", "no UTF-8"],
)
def test_a_peer_that_breaks_off_as_the_conversation_begins_is_one_sentence(
    tmp_path: Path, answer: bytes, sentence: str
) -> None:
    """A QEMU that is killed then, as it is with who started it."""
    path = tmp_path / "socket"
    with served(path, b"".join((*MADE, answer)), ends=True):
        code, out, errors = run("walk", "0x1000", "--qmp", path, cwd=tmp_path)
    assert (code, out) == (3, "")
    assert errors == f"pagetable: the QEMU at {path} did not answer: {sentence}.\n"


def test_a_flood_of_messages_ends_at_the_deadline_and_is_not_kept(tmp_path: Path) -> None:
    path, flood = tmp_path / "socket", b'{"event": "STOP"}\n{"return": 1, "id": "x"}\n'
    with served(path, *MADE, *[flood * 5000] * 100_000, asked=2):
        clock = Clock(0)
        tracemalloc.start()
        code, _, errors = run("walk", "0x1000", "--qmp", path, cwd=tmp_path)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert code == 3
    assert "did not answer query-cpus-fast within 2 s" in errors
    assert clock.now() < 30
    assert most < 16 << 20


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (b'"return": []', "answered query-status without status"),
        (b'"return": {"status": 7}', "answered query-status without status"),
        (b'"return": "running"', "answered query-status without status"),
    ],
    ids=["list", "number", "text"],
)
def test_an_answer_of_another_type_is_a_sentence(
    tmp_path: Path, answer: bytes, sentence: str
) -> None:
    path = tmp_path / "socket"
    cpus = (
        b'{"id": "__qmp#00000", "return": [{"cpu-index": 0, "target": "x86_64", "qom-path": ""}]}'
    )
    with (
        served(path, *MADE, cpus + b"\n", b'{"id": "__qmp#00001", %b}\n' % answer),
        pytest.raises(ProtocolError, match=sentence),
        conversation(path, 0, holds=True) as monitor,
        monitor.paused(),
    ):
        pytest.fail("it was paused")


def test_what_nobody_asks_for_of_a_broken_conversation_is_not_printed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's futures end with what the connection ended with, at times unasked."""
    path = tmp_path / "socket"
    cpus = b'[{"cpu-index": 0, "target": "x86_64", "qom-path": ""}]'
    with (
        served(path, *MADE, b'{"id": "__qmp#00000", "return": %b}\n' % cpus),
        conversation(path, 0) as monitor,
    ):
        future = monitor._loop.create_future()
        future.set_exception(EOFError())
        del future
        gc.collect()
    assert not caplog.records


def test_a_path_that_leads_nowhere_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "left"))
    datagrams = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    datagrams.bind(str(tmp_path / "datagrams"))
    for name, said in {
        "absent": "there is no socket",
        "file": "file is not a socket",
        "left": "nothing listens at",
        "datagrams": "datagrams is not a QMP socket",
        "x" * 200: "too long",
    }.items():
        code, _, errors = run("walk", "0x1000", "--qmp", tmp_path / name, cwd=tmp_path)
        assert code == 2
        assert said in errors
        assert errors.count("\n") == 1
    datagrams.close()


@pytest.mark.hw
def test_a_monitor_with_another_client_is_a_sentence(machine: Machine, tmp_path: Path) -> None:
    with qmp.connected(machine.path, 0):
        code, _, errors = run("walk", "0x1000", "--qmp", machine.path, cwd=tmp_path)
    assert code == 2
    assert "another may be connected" in errors


def test_shared_memory_whose_file_is_cut_short_is_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(range(8)) * 0x400)
    region = Region(range(0x1_0000, 0x1_1000), "ram", 0, OpenFile(path), 0x1000)

    def refused(address: int, size: int) -> bytes:
        raise AssertionError

    memory = PhysicalMemory(Reader(refused, False), Clock(0), [region], 0x800, 1.0)
    units, backed = memory.read(np.array([0x1_0000, 0x1_0800, 0x1_1000], np.uint64))
    assert backed.tolist() == [True, True, False]
    assert units[:2].tobytes() == bytes(range(8)) * 0x200
    os.truncate(path, 0x1800)
    memory.read(np.array([0x1_0000], np.uint64))
    with pytest.raises(MachineError, match="its file was cut short, to 6,144 bytes"):
        memory.read(np.array([0x1_0000, 0x1_0800], np.uint64))


FLAT_VIEW = """FlatView #0
 AS "memory", root: system
 Root memory region: system
  0000000000000000-0000000000003fff (prio 0, ram): pc.ram
  0000000000004000-0000000000007fff (prio 0, rom): pc.ram @0000000000004000
  0000000000008000-0000000000008fff (prio 0, i/o): apic-msi
  000000000000a000-000000000000ffff (prio 0, ram): pc.ram @000000000000a000
"""
REGISTERS = """RIP=0000000000000007 RFL=00040002 CPL=0
CR0=80010011 CR2=0000000000000123 CR3=0000000000001000 CR4=00000020
IDT=     0000000000009100 00000fff
EFER=0000000000000d00"""
TABLES = {0x1000: 0x2003, 0x2000: 0x3003} | {0x3000 + 8 * n: 0x4003 + 0x1000 * n for n in range(5)}
"""The level-0 tables are four in ROM, and the device."""


@pytest.mark.parametrize("shared", [False, True])
def test_what_a_qemu_shows_of_its_memory_is_kept_and_nothing_else_is_read_later(
    shared: bool,
) -> None:
    """The QEMU is this process, which has the guest's memory mapped, as far as `gpa2hva` goes."""
    asked = list[int]()
    file = os.memfd_create("ram")
    os.ftruncate(file, 0x1_0000)
    with mmap.mmap(file, 0x1_0000) as octets:
        for place, word in (TABLES | {0xA000: 0x1234, 0xB000: 0x5678}).items():
            octets[place : place + 8] = word.to_bytes(8, "little")
        view = ctypes.c_char.from_buffer(octets)
        base = ctypes.addressof(view)

        def human(command: str) -> str:
            name, _, where = command.partition(" ")
            if name == "gpa2hva":
                return f"Host virtual address for {where} (pc.ram) is {base + int(where, 16):#x}"
            return FLAT_VIEW if command == "info mtree -f" else ""

        def read(address: int, size: int) -> bytes:
            asked.append(address)
            return octets[address : address + size]

        monitor: Any = SimpleNamespace(
            human=human,
            pid=os.getpid(),
            target="x86_64",
            clock=Clock(0),
            state=lambda: REGISTERS,
            cpu_property={"vendor": "GenuineIntel", "phys-bits": 40, "pdpe1gb": True}.get,
            engine_in_use=lambda: "tcg",
            version=(7, 2, 0),
        )
        reader = Reader(read, at_once=False)
        with qmp._connection(monitor, "QEMU at x", 0, reader, 3.0, shared) as connection:
            on, monitor.state = monitor.state, lambda: REGISTERS.replace("8001", "0001")
            with pytest.raises(SourceError, match=r"paging is off \(CR0 is 0x10011\): addresses"):
                connection.snapshot({})
            assert connection.snapshot({"cr0": 0x8001_0011}).cpu.cr3 == 0x1000
            monitor.state = on
        asked.clear()
        with qmp._connection(monitor, "QEMU at x", 0, reader, 3.0, shared) as connection:
            assert connection.shared is shared
            found = connection.snapshot({})
            assert found.memory.load(Physical(0xA000), 8) == 0x1234
            assert bool(asked) is not shared
            aside = connection.through_monitor()
            assert aside.load(Physical(0xB000), 8) == 0x5678
            assert asked[-1] == 0xB000
        del view
    os.close(file)
    assert (found.title, found.cpu.cr3) == ("QEMU at x, processor 0", 0x1000)
    assert (found.registers["cr2"], found.cpu.ac) == (0x123, True)
    assert (found.registers["idt"], found.registers["idt_limit"]) == (0x9100, 0xFFF)
    assert found.rom == (Span(0x4000, 0x7FFF),)
    assert found.backed == (Span(0, 0x3FFF), Span(0x4000, 0x7FFF), Span(0xA000, 0xFFFF))
    tables = [f"the level-0 table at {address:#x}" for address in range(0x4000, 0x9000, 0x1000)]
    assert found.notes == (
        "In ROM (0x4000..0x7fff, pc.ram in info mtree -f), where stores vanish:"
        f" {', '.join(tables[:3])} and 1 more",
        "In a device (0x8000..0x8fff, apic-msi in info mtree -f), whose answers are no entries:"
        f" {tables[4]}",
    )
    assert found.memory.load(Physical(0x3020), 8) == 0x8003
    assert found.memory.load(Physical(0xA000), 8) == 0x1234
    with pytest.raises(SourceError, match="the memory at 0xb000 was not read"):
        found.memory.load(Physical(0xB000), 8)


def holding(words: Mapping[int, int], size: int) -> tuple[HeldMemory, Span]:
    """Memory that is read by pages, with some words, and where it is."""
    whole = BufferMemory(np.zeros(0x2_0000, np.uint8))
    for at, word in words.items():
        whole.store(Physical(at), size, word)

    def read(units: Words) -> tuple[Octets, Mask]:
        there = units <= np.uint64(whole.span.last)
        found = np.zeros((len(units), 0x1000), np.uint8)
        for number in np.flatnonzero(there):
            found[number] = whole.octets[int(units[number]) :][:0x1000]
        return found, there

    return HeldMemory(0x1000, read), whole.span


def test_where_a_table_was_probably_meant_to_be_is_read_while_it_can_be() -> None:
    """A PDE whose table was shifted left by 7 bits: it is named after the guest runs on."""
    memory, backed = holding({0x1000: 0x1_5000 << 7 | 0x23, 0x1_5000: 0x1023}, 4)
    cpu = Cpu.in_mode(Mode.BITS_32, 0x1000)
    hold_tables(memory, cpu.roots)
    hold_beside(Snapshot("guest", cpu, memory, (backed,)), memory, stack=False)
    memory.read = refuse
    found = translate(Snapshot("guest", cpu, memory, (backed,)), Virtual(0x10_0000))
    assert found.stages[0].likely == (
        "the table at 0x15000, whose address was shifted left by 7 bits",
    )


def test_the_table_beside_an_empty_root_is_read_while_it_can_be() -> None:
    """Its entries lead to a page at 0x7000."""
    path = {0x3000: 0x4007, 0x4000: 0x5007, 0x5000: 0x6007, 0x6000: 0x7007}
    memory, backed = holding(path, 8)
    cpu = Cpu.long_mode(4, 0x2000)
    hold_tables(memory, cpu.roots)
    hold_beside(Snapshot("guest", cpu, memory, (backed,)), memory, stack=False)
    memory.read = refuse
    assert "the table after it, at 0x3000, would map 1" in (doubt(cpu, memory) or "")


@pytest.mark.parametrize("stack", [False, True])
def test_a_stack_is_read_where_it_is_asked_for(stack: bool) -> None:
    memory, _ = holding({0x3000: 0x4007, 0x4000: 0x7007}, 4)
    cpu = Cpu.in_mode(Mode.BITS_32, 0x3000)
    hold_tables(memory, cpu.roots)
    hold_beside(Snapshot("guest", cpu, memory, None, registers={"rsp": 0}), memory, stack)
    memory.read = refuse
    with contextlib.nullcontext() if stack else pytest.raises(SourceError, match="at 0x7000 was"):
        assert memory.load(Physical(0x7000), 8) == 0


@pytest.mark.parametrize("has", [False, True])
@pytest.mark.parametrize(
    ("field", "name"), [("page1gb", "pdpe1gb"), ("pse36", "pse36"), ("lam", "lam")]
)
def test_what_qemu_shows_of_the_processor_is_not_assumed(field: str, name: str, has: bool) -> None:
    shown = {"vendor": "GenuineIntel", "phys-bits": 46, "pdpe1gb": True}
    monitor: Any = SimpleNamespace(cpu_property={**shown, name: has}.get)
    told, assumed = _model(monitor, {})
    assert (told[field], told["maxphyaddr"], told["amd"], assumed) == (has, 46, False, ())


def test_what_qemu_does_not_show_of_the_processor_is_assumed_unless_it_is_given() -> None:
    for vendor, amd in ("AuthenticAMD", True), ("HygonGenuine", True), ("GenuineIntel", False):
        for bits in None, 0, 31, 53:
            monitor: Any = SimpleNamespace(cpu_property={"vendor": vendor, "phys-bits": bits}.get)
            told, assumed = _model(monitor, {})
            assert told == {"amd": amd, "maxphyaddr": 52}
            assert [one.partition(" ")[0] for one in assumed] == ["the", "MAXPHYADDR=52,"]
            assert _model(monitor, {"page1gb": 0, "maxphyaddr": 40}) == (told, ())


def test_registers_that_qemu_does_not_show_are_named() -> None:
    shown = {"CR0": 0x8000_0001, "CR3": 0x1000, "CR4": 0x20, "EFER": 0xD00, "EFL": 0x4_0000}
    names = ("cr0", "cr3", "cr4", "efer")
    assert _control(shown) == {"ac": True, **{name: shown[name.upper()] for name in names}}
    assert not _control({**shown, "EFL": 0x8_0000, "RFL": 0x2})["ac"]
    for missing, said in ({"CR4"}, "CR4"), ({"CR0", "EFER"}, "CR0 and EFER"):
        rest = {name: value for name, value in shown.items() if name not in missing}
        with pytest.raises(ProtocolError, match=f"info registers does not show {said.lower()}"):
            _control(rest)
