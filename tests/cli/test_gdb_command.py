"""The commands for gdb, in gdb, on a guest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import ROOT, run
from tests.inspect.sources.kernel import PAE, arguments
from tests.inspect.sources.machines import STUB, Machine, running

needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None, reason="gdb is not installed")

TABLES = 0x20_0000
PAGES = {0x20_1000 + 4 * page: page << 12 | 1 for page in range(0x200)}
MODES = {
    "32-bit": (
        0,
        TABLES,
        {TABLES: 0x20_1003, **{0x20_1000 + 4 * n: n << 12 | 1 for n in range(0x200)}},
    ),
    "PAE": (
        PAE,
        TABLES,
        {TABLES: 0x20_1001, 0x20_1000: 0x83, 0x20_1008: 0x20_0083},
    ),
}

LONG = {TABLES: 0x20_1003, 0x20_1000: 0x20_2003, 0x20_2000: 0x83}


def in_gdb(machine: Machine, *commands: str) -> str:
    """What gdb prints, connected to a guest."""
    source = run("gdb", cwd=machine.path.parent)[1].strip()
    every = (source, f"target remote {machine.path.with_name('gdb')}", *commands, "detach")
    words = [word for command in every for word in ("-ex", command)]
    environment = {**os.environ, "PAGETABLE": str(Path(sys.executable).with_name("pagetable"))}
    done = subprocess.run(
        ["gdb", "-nx", "-batch", *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=environment,
    )
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    directory = tmp_path_factory.mktemp("gdb")
    stub = ("-gdb", f"unix:{directory / 'gdb'},server=on,wait=off")
    with running(directory, *STUB, *stub) as machine:
        yield machine


@needs_gdb
@pytest.mark.hw
def test_a_session_has_the_answers_of_walk_and_fault(machine: Machine) -> None:
    said = in_gdb(machine, "ptwalk $rip", "ptfault 0x7fffffffffff --access write --user", "ptfault")
    assert "in a 2M page" in said
    assert "user write at 0x7fffffffffff: #PF, error code 0x6 (W U)" in said
    assert "Traceback" not in said
    assert machine.witness.becomes("running")


FRAMES = {
    "32-bit": (0x10_2F04, "int", (0x2, 0x10_1000, 0x8, 0x1_0202)),
    "4-level": (0x10_2F00, "long", (0x2, 0x10_1000, 0x8, 0x1_0202, 0x10_3000, 0x10)),
}


@needs_gdb
@pytest.mark.hw
@pytest.mark.parametrize("mode", FRAMES)
def test_the_last_fault_has_its_error_code_from_the_stack(tmp_path: Path, mode: str) -> None:
    """CR2, the stack pointer and the stack are set by gdb, in a guest that maps 2 MiB."""
    place, kind, words = FRAMES[mode]
    cr4, efer, tables = (0, 0, MODES["32-bit"][2]) if mode == "32-bit" else (PAE, 0x100, LONG)
    stub = ("-gdb", f"unix:{tmp_path / 'gdb'},server=on,wait=off")
    guest = arguments(tmp_path, cr4, TABLES, tables, efer=efer)
    with running(tmp_path, *guest, *stub) as machine:
        machine.witness.waits_for("CR0=8001", 60)
        width = 4 if kind == "int" else 8
        stack = [
            f"set *(unsigned {kind} *){place + width * number:#x} = {word:#x}"
            for number, word in enumerate(words)
        ]
        fault = ("set $cr2 = 0x5eadb000", f"set $sp = {place - 0x100:#x}")
        said = in_gdb(machine, *fault, "ptfault", *stack, "ptfault", "ptfault --code 6")
    assert "CR2 0x5eadb000, and no frame of a page fault on the stack: the error code is" in said
    assert (
        f"CR2 0x5eadb000, and from the frame of a page fault on the stack, at {place:#x}, the error"
        " code 0x2 and RIP 0x101000"
    ) in said
    assert said.count("These entries give this fault.") == 2
    assert said.count("supervisor write at 0x5eadb000: #PF, error code 0x2 (W)") == 1
    assert said.count("user write at 0x5eadb000: #PF, error code 0x6 (W U)") == 1
    assert "Traceback" not in said


@needs_gdb
@pytest.mark.hw
@pytest.mark.parametrize("mode", MODES)
def test_other_modes_are_walked_too(tmp_path: Path, mode: str) -> None:
    cr4, cr3, words = MODES[mode]
    stub = ("-gdb", f"unix:{tmp_path / 'gdb'},server=on,wait=off")
    with running(tmp_path, *arguments(tmp_path, cr4, cr3, words), *stub) as machine:
        machine.witness.waits_for("CR3=00200000", 60)
        said = in_gdb(machine, "ptwalk 0x101000")
        assert "0x101000: 0x101000" in said


@needs_gdb
@pytest.mark.hw
@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("ptwalk", "name an ADDRESS"),
        ("ptwalk nothing", "has no value: No symbol"),
        ("ptwalk 0x1000 --nonsense", "--nonsense"),
    ],
)
def test_what_cannot_be_asked_is_a_sentence(machine: Machine, command: str, said: str) -> None:
    answer = in_gdb(machine, command)
    assert said in answer
    assert "Traceback" not in answer


@needs_gdb
def test_without_a_guest_the_commands_say_so(tmp_path: Path) -> None:
    source = run("gdb", cwd=tmp_path)[1].strip()
    done = subprocess.run(
        ["gdb", "-nx", "-batch", "-ex", source, "-ex", "ptwalk 0x1000"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "is a guest of QEMU's connected?" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
