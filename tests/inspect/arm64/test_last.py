"""The abort that a processor raised last, by ESR_EL1, FAR_EL1 and ELR_EL1; and the guest that a
command holds to ask for them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from harness.inspect.last import raised
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.memory import BufferMemory
from tests.cli.commands import run
from tests.inspect.sources.machines import running
from tests.machine.arm64.present import QEMU

CPU = Cpu.of(Half("4K", 39, 0x1000), None)
GCC = "aarch64-linux-gnu-gcc"
SOURCE = Path(__file__).with_name("faulting.S")


def stopped(**registers: int) -> Snapshot:
    return Snapshot("test", CPU, BufferMemory(bytearray(0x2000)), None, registers=registers)


def test_the_last_abort_is_that_of_the_registers() -> None:
    found = raised(stopped(esr=0x9600_0046, far=0x1234, elr=0x5678), 3)
    assert (found.address, found.instruction, found.code) == (0x1234, 0x5678, 0x9600_0046)
    assert found.accesses == ()
    assert found.said.startswith("From processor 3: ESR_EL1 0x96000046, FAR_EL1 0x1234 and ELR_EL1")


@pytest.mark.parametrize(
    ("esr", "said"),
    [
        (0x5600_0000, "is no abort, and what was raised before it is lost (ESR 0x56000000 has EC"),
        (0, "is no abort"),
        (0x9600_0410, "FAR_EL1 holds no address (FnV=1)"),
    ],
)
def test_another_exception_is_no_abort(esr: int, said: str) -> None:
    with pytest.raises(QuestionError) as error:
        raised(stopped(esr=esr, far=0, elr=0), 0)
    assert said in str(error.value)


def test_a_source_without_these_registers_does_not_tell() -> None:
    with pytest.raises(QuestionError, match="does not record ESR_EL1 and FAR_EL1"):
        raised(stopped(), 0)


def guest(directory: Path, *defined: str) -> tuple[str, ...]:
    """What QEMU is told to run the kernel of faulting.S, which is linked."""
    for program in (GCC, QEMU):
        if shutil.which(program) is None:
            pytest.skip(f"there is no {program} in PATH")
    made = directory / "faulting.elf"
    subprocess.run(
        (
            *(GCC, "-nostdlib", "-static", "-no-pie", "-Wl,-Ttext=0x40080000,--build-id=none"),
            *("-o", str(made), str(SOURCE), *(f"-D{name}" for name in defined)),
        ),
        check=True,
    )
    return ("-M", "virt", "-cpu", "max", "-m", "64M", "-kernel", str(made))


@pytest.mark.hw
@pytest.mark.parametrize(
    ("defined", "address", "by"),
    [((), 0xC000_1234, "EL1 write"), (("USER",), 0x5000_1234, "EL0 write")],
    ids=["of-EL1", "of-EL0"],
)
@pytest.mark.parametrize("source", ["qmp", "gdb"])
def test_the_last_abort_of_a_guest_is_explained(
    tmp_path: Path, defined: tuple[str, ...], address: int, by: str, source: str
) -> None:
    stub = tmp_path / "gdb"
    own = ("-gdb", f"unix:{stub},server=on,wait=off") if source == "gdb" else ()
    with running(tmp_path, *guest(tmp_path, *defined), *own, qemu=QEMU) as machine:
        machine.witness.waits_for(f"X00={address:016x}")
        path = machine.path if source == "qmp" else stub
        code, out, errors = run("fault", f"--{source}", path, cwd=tmp_path)
        assert machine.witness.becomes("running")
    assert (code, errors) == (0, "")
    assert f"FAR_EL1 {address:#x} and ELR_EL1 " in out
    assert f"{by} at {address:#x}: data abort, " in out
    assert "The tables as they are give this fault." in out


@pytest.mark.hw
def test_a_guest_whose_translation_is_off_is_a_sentence(tmp_path: Path) -> None:
    with running(tmp_path, *guest(tmp_path), "-S", qemu=QEMU) as machine:
        code, out, errors = run("dump", "--qmp", machine.path, cwd=tmp_path)
        assert machine.witness.status() == "prelaunch"
    assert (code, out) == (2, "")
    assert "paging is off: SCTLR_EL1 is" in errors


@pytest.mark.hw
def test_a_guest_that_runs_or_has_a_stub_is_read_by_registers_that_are_given(
    tmp_path: Path,
) -> None:
    stub = ("-gdb", f"unix:{tmp_path / 'gdb'},server=on,wait=off")
    with running(tmp_path, *guest(tmp_path), *stub, qemu=QEMU) as machine:
        machine.witness.waits_for("X00=00000000c0001234")
        code, out, errors = run("dump", "--gdb", tmp_path / "gdb", cwd=tmp_path)
        assert code == 0 and "0x40000000..0x7fffffff" in out
        _, _, shown = out.partition("TTBR0 ")
        root = shown.split()[0]
        given = ("--ttbr0", root, "--ttbr1", root, "--tcr", "0x180190019")
        for option, said in (((), "has a gdb stub already"), (("--live",), "this one runs")):
            code, _, errors = run("dump", "--qmp", machine.path, *option, cwd=tmp_path)
            assert (code, said in errors) == (2, True)
            code, out, errors = run("dump", "--qmp", machine.path, *option, *given, cwd=tmp_path)
            assert code == 0 and "0x40000000..0x7fffffff" in out
        assert machine.witness.becomes("running")
