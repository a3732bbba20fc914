"""A running QEMU and its core as sources: what they say is what the guest was given."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from harness.check import layouts
from harness.check.power.layouts import build
from harness.check.power.validate import state_of
from harness.check.power.window import entries
from harness.check.validation import Built, built_in
from harness.inspect.power.live import _state as state
from harness.inspect.snapshot import SourceError
from harness.machine.errors import ProtocolError
from harness.machine.monitor import Monitor
from harness.machine.power.guest import Guest
from harness.machine.power.registers import described, registers_in
from harness.paging import bulk
from harness.paging.power.access import Kind
from tests.cli.commands import run
from tests.machine.power.present import QEMU, why_absent

SHOWN = """CPU#0
NIP 0000000000000010   LR 0000000000000000 CTR 0000000000000000 XER 0000000000000000 CPU#0
MSR 9000000000001000 HID0 0000000000000000  HF fc000006 iidx 7 didx 7
 SRR0 0000000000000000  SRR1 0000000000000000    PVR 00000000004e1200 VRSAVE 0000000000000000
 LPCR 0000000000508000
 PTCR 0000000000051000   DAR 00000000c0001234  DSISR 0000000042000000
"""


def test_registers_are_those_that_qemu_prints() -> None:
    found = registers_in(SHOWN)
    assert found["MSR"] == 0x9000_0000_0000_1000
    assert (found["LPCR"], found["PTCR"]) == (0x50_8000, 0x5_1000)
    assert (found["DAR"], found["DSISR"]) == (0xC000_1234, 0x4200_0000)


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"MSR": 1 << 63}, SourceError, "runs in a partition (MSR is 0x8000000000000000)"),
        ({"LPCR": 0x10_0000}, SourceError, "uses no radix trees (LPCR is 0x100000"),
        ({"LPCR": 0x40_0000}, SourceError, "uses no radix trees"),
        ({"PTCR": None}, SourceError, "runs in a partition"),
        ({"LPCR": None}, ProtocolError, "info registers does not show LPCR"),
    ],
)
def test_what_is_translated_otherwise_is_refused(
    changed: dict[str, int | None], error: type[Exception], said: str
) -> None:
    shown = {**registers_in(SHOWN), **changed}
    with pytest.raises(error) as raised:
        list(state({name: value for name, value in shown.items() if value is not None}))
    assert said in str(raised.value)


def test_a_processor_that_translates_nothing_at_the_moment_is_noted() -> None:
    shown = registers_in(SHOWN)
    assert list(state(shown)) == [
        "At this moment MSR.IR=0 and MSR.DR=0: the trees are not used for that"
    ]
    assert list(state({**shown, "MSR": shown["MSR"] | 0x30})) == []


class Stub:
    """A monitor whose gdb stub shows these, in the order of bytes that it is asked in."""

    def described_registers(
        self, wanted: object, vcpu: int | None = None, order: str = "little"
    ) -> dict[str, int]:
        return {"pidr": 1, "amr": 2, "iamr": 3} if order == "big" else {"pid": 4}


def test_the_order_of_bytes_is_that_of_the_guest() -> None:
    assert described(Stub(), {"MSR": 1 << 60}) == {"pid": 1, "amr": 2, "iamr": 3}
    assert described(Stub(), {"MSR": 1 << 60 | 1}) == {"pid": 4}


@contextmanager
def parked(directory: Path, name: str) -> Iterator[tuple[Guest, Built, Monitor, Path]]:  # type: ignore[type-arg]
    """A guest with the trees of a layout loaded, which listens at a socket besides."""
    if reason := why_absent():
        pytest.skip(reason)
    qemu, path = directory / "qemu", directory / "qmp"
    qemu.write_text(f'#!/bin/sh\nexec {QEMU} "$@" -qmp unix:{path},server=on,wait=off\n')
    qemu.chmod(0o755)
    layout = layouts.load(layouts.find(name, "power"))
    with (
        Guest(ram_bytes=1 << 30, program=str(qemu)) as guest,
        built_in(guest, layout, 4, build, entries) as built,
        guest.parked(state_of(built.cpu, built.window)) as monitor,
    ):
        yield guest, built, monitor, path


def rows(output: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith("0x") and ".." in line]


@pytest.mark.hw
@pytest.mark.parametrize("name", ["page-sizes", "rights-64k", "malformed"])
def test_a_guest_and_its_core_say_what_was_built(name: str, tmp_path: Path) -> None:
    core = tmp_path / "core"
    with parked(tmp_path, name) as (_, built, monitor, path):
        # What holds tables, and no more: all of it is a gigabyte.
        what = {"begin": 0, "length": 256 << 20}
        monitor.execute("dump-guest-memory", paging=False, protocol=f"file:{core}", **what)
        cpu = built.cpu
        assert cpu.quadrant0 is not None
        given = ("--quadrant0", hex(cpu.quadrant0), "--quadrant3", hex(cpu.quadrant3))
        live = run("dump", "--qmp", path, cwd=tmp_path)
        ptcr = hex(registers_in(monitor.human("info registers"))["PTCR"])
    assert (live[0], live[2]) == (0, "")
    of_core = run("dump", "--core", core, *given, cwd=tmp_path)
    chained = run("dump", "--core", core, "--ptcr", ptcr, "--pid", 1, cwd=tmp_path)
    assert rows(of_core[1]) == rows(chained[1]) == rows(live[1])
    expected = run("dump", "--layout", f"power/{name}", cwd=tmp_path)
    # The window of the stub is there besides.
    beside = [row for row in rows(live[1]) if row.split()[0] != str(built.window)]
    assert [row.split() for row in beside] == [row.split() for row in rows(expected[1])]


@pytest.mark.hw
def test_a_fault_that_the_guest_sees_is_what_fault_says_of_its_tables(tmp_path: Path) -> None:
    with parked(tmp_path, "rights") as (guest, built, _, path):
        leaves = bulk.leaves(built.memory, built.cpu.roots)
        addresses = leaves.virtual[:: max(1, len(leaves.virtual) // 12)].tolist()
        said = {
            (address, kind): run("fault", hex(address), "--access", kind.name.lower(), "--user",
                                 "--qmp", path, "--json", cwd=tmp_path)
            for address in addresses
            for kind in (Kind.READ, Kind.WRITE)
        }  # fmt: skip
    with Guest(ram_bytes=1 << 30, program=QEMU) as guest:
        layout = layouts.load(layouts.find("rights", "power"))
        with built_in(guest, layout, 4, build, entries) as built:
            enums, jobs = guest.image.enums, guest.image.new_jobs(len(said))
            jobs["address"] = [address for address, _ in said]
            jobs["access"] = [enums[f"ACCESS_{kind.name}"] for _, kind in said]
            jobs["size"], jobs["user"], jobs["flush"] = 8, True, enums["FLUSH_ALL"]
            results = guest.run(state_of(built.cpu, built.window), jobs)
    for (key, (code, output, errors)), result in zip(said.items(), np.array(results), strict=True):
        assert (code, errors) == (0, ""), key
        [found] = json.loads(output)["outcomes"]
        vector = int(result["vector"])
        assert found["vector"] == (hex(vector) if vector else None), key
        assert int(found["status"] or "0", 16) == int(result["dsisr"]), key
