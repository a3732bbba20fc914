"""What notes of cores, and QEMU's own words, say of the registers of s390 processors."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.held import HeldMemory
from harness.inspect.s390 import core, live
from harness.inspect.snapshot import SourceError
from harness.machine.errors import ProtocolError
from harness.paging.memory import BigEndianMemory, Mask, Words
from tests.inspect.s390.spaces import CPU, MEMORY, memory

HOME, DAT = 3 << 63 - 17, 1 << 63 - 5
Notes = list[tuple[bytes, bytes]]


def processor(psw: int, home: int, prefix: int | None) -> Notes:
    """Notes as QEMU writes them: of the PSW behind 112 bytes, others, the prefix, and CR0 to CR15;
    others of the same owner are as long as none of these."""
    controls = [0x1000_0000 if number == 0 else 0x20 for number in range(16)]
    controls[13] = home
    status = bytes(112) + struct.pack(">Q", psw) + bytes(216)
    found = [(b"CORE", status), (b"CORE", bytes(128)), (b"LINUX", bytes(8))]
    if prefix is not None:
        found += [(b"LINUX", struct.pack(">I", prefix)), (b"LINUX", b"\xff" * 4)]
    return [*found, (b"LINUX", struct.pack(">16Q", *controls)), (b"LINUX", b"\xff" * 128)]


def seen(notes: Notes, vcpu: int = 0) -> Any:
    dump: Any = SimpleNamespace(path="core", notes=notes)
    return core.seen(dump, vcpu, {})


def test_notes_of_each_processor_are_its_own() -> None:
    notes = [(b"CORE", bytes(4)), *processor(HOME | DAT, 0x4007, None)]
    notes += [*processor(HOME, 0x8003, 0x2_0000), *processor(HOME | DAT, 0xC00B, 0)]
    for vcpu, (asce, more) in enumerate(((0x4007, 0), (0x8003, 1), (0xC00B, 0))):
        found = seen(notes, vcpu)
        assert (found.cpu.asce, found.cpu.cr0) == (asce, 0x1000_0000)
        assert len(found.notes) == 1 + more
        assert ("not translating" in found.notes[0]) == (vcpu == 1)
        assert found.notes[0].startswith("The home space (CR13), by the PSW")
    with pytest.raises(SourceError, match="core has no processor 3: it has 0 to 2"):
        seen(notes, 3)


def test_a_core_without_such_notes_is_none_of_qemu() -> None:
    whole = processor(HOME, 0x4007, 0)
    for notes in ([], whole[:1], [(b"LINUX", bytes(128))], [(b"OTHER", one) for _, one in whole]):
        with pytest.raises(SourceError, match="no notes of control registers"):
            seen(notes)


class Monitor:
    """A monitor that shows these registers, and has a processor without enhanced DAT."""

    def __init__(self, text: str) -> None:
        self.text = text

    def state(self) -> str:
        return self.text

    def cpu_property(self, name: str) -> object:
        return {"edat": False, "edat2": False, "iep": True}[name]


def shown(psw: int, controls: int) -> str:
    values = [
        0x10_0000 if number == 0 else CPU.asce if number == 13 else 0x20 for number in range(16)
    ]
    lines = [f"C{number:02}={value:016x}" for number, value in enumerate(values[:controls])]
    return f"PSW=mask {psw:016x} addr 0000000000010000 cc 0\nR00=1 {' '.join(lines)}"


def held() -> HeldMemory:
    octets = memory().octets.reshape(-1, 0x1000)

    def read(addresses: Words) -> tuple[np.ndarray, Mask]:
        backed = addresses < np.uint64(MEMORY)
        number = np.where(backed, addresses, 0) // np.uint64(0x1000)
        return octets[number.astype(np.int64)], backed

    return HeldMemory(0x1000, read, "big")


def test_a_running_processor_is_as_qemu_shows_it_and_its_tables_are_held() -> None:
    here, monitor = held(), Monitor(shown(HOME | DAT, 16))
    found = live.seen(monitor, {}, here)  # type: ignore[arg-type]
    assert (found.cpu.asce, found.cpu.cr0) == (CPU.asce, 0x10_0000)
    assert (found.cpu.edat1, found.cpu.edat2, found.cpu.iep) == (False, False, True)
    assert found.assumed == () and "by the PSW" in found.notes[0]
    here.read = lambda _: (_ for _ in ()).throw(AssertionError("a table was not held"))
    there = BigEndianMemory(memory().octets)
    for address in (0, 0x4000, 0x8000):
        assert here.load(address, 8) == there.load(address, 8)  # type: ignore[arg-type]
    given = live.seen(monitor, {"asce": 0x3, "cr0": 0}, held())  # type: ignore[arg-type]
    assert (given.cpu.asce, given.cpu.cr0, given.notes) == (0x3, 0, ())


@pytest.mark.parametrize("text", [shown(HOME, 15), shown(HOME, 16).replace("PSW=", "psw ")])
def test_what_does_not_show_all_of_them_is_said(text: str) -> None:
    with pytest.raises(ProtocolError, match="does not show the PSW and C00 to C15"):
        live.seen(Monitor(text), {}, held())  # type: ignore[arg-type]
