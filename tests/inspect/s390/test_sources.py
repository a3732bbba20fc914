"""Where tables of s390 come from: files of memory, cores, and a running QEMU."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.check.layouts import divided, find, load
from harness.check.s390.cases import of_space
from harness.check.s390.layouts import build
from harness.check.s390.probes import ask_guest
from harness.check.s390.validate import state_of
from harness.inspect.snapshot import SourceError
from harness.inspect.sources import core
from harness.machine.s390.guest import Guest
from harness.paging import bulk
from harness.paging.memory import BigEndianMemory
from tests.cli.commands import run
from tests.inspect.s390.spaces import CPU, memory
from tests.inspect.sources.machines import running
from tests.machine.s390.present import QEMU, why_absent

GCC = "s390x-linux-gnu-gcc"
SOURCE = Path(__file__).parent / "translating.S"

RANGES = [
    ("0x0", 5, ["read", "write", "execute"]),
    ("0x5000", 1, ["read", "execute"]),
    ("0x6000", 1, ["read", "write"]),
    ("0x8000", 248, ["read", "write", "execute"]),
]
"""What translating.S maps, each where it is."""


def dumped(*source: object, cwd: Path) -> Any:
    """What dump says of a source: its ranges, as in RANGES, and the whole object."""
    code, out, errors = run("dump", *source, "--json", cwd=cwd)
    assert (code, errors) == (0, "")
    told = json.loads(out)
    assert [one["first"] for one in told["ranges"]] == [one["physical"] for one in told["ranges"]]
    return [(one["first"], one["pages"], one["rights"]) for one in told["ranges"]], told


def test_a_file_of_memory_is_read_with_an_asce(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(memory().octets.tobytes())
    asce = ("--asce", f"{CPU.asce:#x}")
    code, out, errors = run("walk", "0x1000", "--ram", "ram", *asce, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "0x1000: 0xa000, in a 4K page" in out
    assert "since a file of memory does not record CR0 (--cr0)" in out
    told = json.loads(run("dump", "--ram", "ram", *asce, "--json", cwd=tmp_path)[1])
    assert [one["rights"] for one in told["ranges"]] == [
        ["read", "write", "execute"],
        ["read", "execute"],
        ["read", "write"],
    ]
    told = json.loads(run("dump", "--ram", "ram", *asce, "--cr0", 0, "--json", cwd=tmp_path)[1])
    assert not told["cpu"]["iep"]
    for wrong, said in (
        (("--asce", "0x20"), "designates real space"),
        ((*asce, "--mstatus", "0"), "where --mstatus means nothing"),
    ):
        code, out, errors = run("dump", "--ram", "ram", *wrong, cwd=tmp_path)
        assert (code, out) == (2, "") and said in errors


def test_what_a_file_does_not_have_the_machine_may(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(memory(p0=0x9_0000).octets.tobytes())
    given = ("--ram", "ram", "--asce", f"{CPU.asce:#x}")
    out = run("walk", "0x123", *given, cwd=tmp_path)[1]
    assert "0x90123 is not in the file: a device's, nobody's, or memory left out of it" in out


def test_rights_that_one_space_cannot_withhold_are_granted_there(tmp_path: Path) -> None:
    """Without IEP every page can be executed, so that only the one with IEP=1 changes with it."""
    (tmp_path / "ram").write_bytes(memory().octets.tobytes())
    sides = [f"ram:ram,asce={CPU.asce:#x},cr0={cr0:#x}" for cr0 in (0x80_0000, 0x90_0000)]
    for before, after in (sides, sides[::-1]):
        code, out, errors = run("diff", before, after, "--json", cwd=tmp_path)
        told = json.loads(out)
        assert (code, errors) == (1, "")
        (one,) = told["changes"]
        assert (one["change"], one["first"], one["last"]) == (["rights"], "0x2000", "0x2fff")
    assert run("diff", sides[0], sides[0], cwd=tmp_path)[0] == 0


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (0x4008, "malformed, reserved bits set: 0x8 the type of another table"),
        (0x4000, "malformed: the type of another table"),
    ],
)
def test_of_a_wrong_type_the_bits_that_are_set_are_shown(
    tmp_path: Path, raw: int, said: str
) -> None:
    """Of a region-third table are entries with TT=1, bits 0b01 of 3:2."""
    (tmp_path / "ram").write_bytes(memory(r1=raw).octets.tobytes())
    code, out, _ = run("dump", "--ram", "ram", "--asce", f"{CPU.asce:#x}", cwd=tmp_path)
    (line,) = [one for one in out.splitlines() if one.startswith("0x80000000..")]
    assert code == 0 and line.endswith(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("walk", "0x1000", "--entries", "RTTE=4007 PTE=a000", "--asce", "0x7"),
            "of s390 no list of entries is read",
        ),
        (
            ("walk", "0x1000", "--entries", "PTE=a000", "--quadrant0", "0x1"),
            "of POWER no list of entries is read",
        ),
        (("dump", "--layout", "s390/smallest", "--user"), "of s390 --user means nothing"),
        (
            ("dump", "--layout", "s390/smallest", "--user", "--where", "w"),
            "of s390 --user means nothing",
        ),
        (
            ("diff", "layout:s390/smallest@2", "layout:s390/smallest@3"),
            "s390 from STE on and s390 from RTTE on paging split addresses into other indices",
        ),
        (("decode", "ste=0x20"), "; --mode names another mode"),
    ],
)
def test_what_is_not_asked_of_s390_is_a_sentence(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    code, out, errors = run(*words, cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1) and said in errors


def kernel(directory: Path, *defined: str) -> Path:
    """The kernel of translating.S, linked."""
    if shutil.which(GCC) is None:
        pytest.skip(f"there is no {GCC} in PATH")
    if reason := why_absent():
        pytest.skip(reason)
    made = directory / "translating.elf"
    places = "-Wl,-Ttext=0x10000,-Tdata=0x20000,--build-id=none,-znorelro"
    subprocess.run(
        (GCC, "-nostdlib", "-static", "-no-pie", places, "-o", made, SOURCE, *defined), check=True
    )
    return made


def arguments(made: Path) -> tuple[str, ...]:
    machine = ("-machine", "s390-ccw-virtio", "-cpu", "max", "-m", "64M", "-smp", "2")
    return (*machine, "-kernel", str(made))


SPINS = re.compile(r"mask 04[0-9a-f]{14}")
"""The PSW translates addresses."""


@pytest.mark.hw
@pytest.mark.parametrize(
    ("space", "register", "quarters"),
    [("primary", "CR1", 4), ("secondary", "CR7", 3), ("home", "CR13", 1)],
)
def test_the_space_of_the_psw_is_read_of_guests_and_cores(
    tmp_path: Path, space: str, register: str, quarters: int
) -> None:
    control = {"primary": 0, "secondary": 2, "home": 3}[space]
    made = kernel(tmp_path, f"-DSPACE={control}")
    stub = ("-gdb", f"unix:{tmp_path / 'gdb'},server,wait=off")
    with running(tmp_path, *arguments(made), *stub, qemu=QEMU) as machine:
        machine.witness.waits_for(SPINS)
        found, told = dumped("--qmp", machine.path, cwd=tmp_path)
        by_stub, of_stub = dumped("--gdb", "gdb", cwd=tmp_path)
        assert machine.witness.status() == "running"
        dump = {"paging": False, "protocol": f"file:{tmp_path / 'core'}"}
        machine.witness.ask("dump-guest-memory", **dump)
        again, of_core = dumped("--core", "core", cwd=tmp_path)
    assert found == again == by_stub == RANGES
    for one in (told, of_core, of_stub):
        said = f"The {space} space ({register}), by the PSW; --asce 0x"
        assert any(note.startswith(said) for note in one["notes"])
        assert one["cpu"]["quarters"] == quarters
    assert told["assumed"] == of_stub["assumed"] == [] and not told["cpu"]["edat1"]
    code, out, errors = run("walk", "0x5000", "--core", "core", "--vcpu", "2", cwd=tmp_path)
    assert (code, out) == (2, "") and "has no processor 2: it has 0 to 1" in errors


@pytest.mark.hw
def test_a_prefix_is_a_note_of_a_core(tmp_path: Path) -> None:
    """Of the second processor, which was never started, it is 0; its ASCE is one of zeros."""
    made = kernel(tmp_path, "-DPREFIX=0x40000")
    with running(tmp_path, *arguments(made), qemu=QEMU) as machine:
        machine.witness.waits_for(SPINS)
        dump = {"paging": False, "protocol": f"file:{tmp_path / 'core'}"}
        machine.witness.ask("dump-guest-memory", **dump)
    found, told = dumped("--core", "core", cwd=tmp_path)
    assert found == RANGES
    assert any(note.startswith("The prefix is 0x40000: physical") for note in told["notes"])
    out = run("dump", "--core", "core", "--vcpu", "1", cwd=tmp_path)[1]
    assert "ASCE 0x0 (segment table at 0x0)" in out and "prefix" not in out


@pytest.mark.hw
def test_a_space_that_is_real_names_those_that_are_not(tmp_path: Path) -> None:
    """In the primary space, where the kernel goes on: real addresses are the tables' own."""
    made = kernel(tmp_path, "-DREAL")
    with running(tmp_path, *arguments(made), qemu=QEMU) as machine:
        machine.witness.waits_for(SPINS)
        code, out, errors = run("dump", "--qmp", machine.path, cwd=tmp_path)
        assert machine.witness.status() == "running"
        assert (code, out) == (2, "")
        said = r"CR1 of .*, 0x20, designates real space.* choose --asce (0x\w+) of the secondary"
        (asce,) = re.findall(said, errors)
        machine.witness.ask("stop")
        assert dumped("--qmp", machine.path, "--asce", asce, cwd=tmp_path)[0] == RANGES
        assert machine.witness.status() == "paused"


@pytest.mark.hw
def test_what_a_guest_reaches_is_what_its_core_says(tmp_path: Path) -> None:
    """The stub's own accesses to a layout, and what is read of the tables in its core."""
    if reason := why_absent():
        pytest.skip(reason)
    layout = load(find("s390/three-quarters"))
    with Guest(ram_bytes=layout.ram, program=QEMU) as guest:
        held = BigEndianMemory(guest.ram.buffer, guest.ram.base)
        cpu = build(layout, 4, guest.info, held)
        _, frames = divided(layout)
        cases = of_space(cpu, held, bulk.leaves(held, cpu.roots))
        compared = ask_guest(guest, state_of(cpu), cpu, held, frames, cases)
        assert compared.compared and not compared.disagreements
        with guest.parked(state_of(cpu)) as monitor:
            dump = {"paging": False, "protocol": f"file:{tmp_path / 'core'}"}
            monitor.execute("dump-guest-memory", **dump)
    # The stub's primary space is real, and CR0 has IEP while accesses are made alone.
    with pytest.raises(SourceError, match="designates real space") as refused:
        core.snapshot(tmp_path / "core", 0, {})
    assert f"choose --asce {cpu.asce:#x} of the secondary space" in str(refused.value)
    found = core.snapshot(tmp_path / "core", 0, {"asce": cpu.asce, "cr0": cpu.cr0})
    assert found.cpu.format is cpu.format
    for one, other in zip(
        bulk.walk(found.memory, found.cpu.roots, cases.address).__dict__.values(),
        bulk.walk(held, cpu.roots, cases.address).__dict__.values(),
        strict=True,
    ):
        assert np.array_equal(one, other)
