"""The fault that a hart raised last, by the registers that traps write."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from harness.inspect.last import raised
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.paging.memory import BufferMemory
from harness.paging.riscv.access import Access, Kind
from harness.paging.riscv.cpu import Cpu
from tests.cli.commands import run
from tests.inspect.riscv.test_fault import SV39, tables
from tests.inspect.sources.machines import running
from tests.machine.riscv.present import program

SPP, MPP_S, MPP_M, MPRV = 1 << 8, 1 << 11, 3 << 11, 1 << 17

TRAPS = {"scause": 0, "stval": 0, "sepc": 0, "mcause": 0, "mtval": 0, "mepc": 0}

READS = (Access(Kind.READ, True), Access(Kind.READ, False))


def stopped(mstatus: int = 0, **registers: int) -> Snapshot:
    cpu = Cpu(SV39.satp, mstatus)
    memory: BufferMemory = tables(cpu)
    return Snapshot("test", cpu, memory, None, registers={**TRAPS, **registers})


@pytest.mark.parametrize(
    ("mstatus", "registers", "code", "accesses"),
    [
        (SPP, {"scause": 13}, 13, READS[1:]),
        # Returning from the handler clears SPP, so that it tells less than it seems.
        (0, {"scause": 13}, 13, READS),
        (SPP, {"scause": 12}, 12, (Access(Kind.FETCH, False),)),
        (SPP, {"scause": 15, "mcause": 13}, 15, (Access(Kind.WRITE, False),)),
        (MPP_S | SPP, {"mcause": 13, "scause": 9}, 13, READS[1:]),
        (0, {"mcause": 5, "scause": 1 << 63 | 5}, 5, READS),
        (MPP_M | MPRV, {"mcause": 13}, 13, READS),
    ],
)
def test_the_last_fault_is_that_of_the_mode_that_took_one(
    mstatus: int, registers: dict[str, int], code: int, accesses: tuple[Access, ...]
) -> None:
    places = {"stval": 0x1000, "sepc": 0x2000, "mtval": 0x3000, "mepc": 0x4000}
    found = raised(stopped(mstatus, **places, **registers), 3)
    mode = "s" if registers.get("scause") == code else "m"
    assert (found.address, found.instruction) == (places[f"{mode}tval"], places[f"{mode}epc"])
    assert (found.code, found.accesses) == (code, accesses)
    assert found.said.startswith(f"From processor 3: {mode}cause {code}, {mode}tval ")


@pytest.mark.parametrize(
    ("mstatus", "registers", "sentence"),
    [
        (0, {"scause": 8}, "(scause is 8 and mcause is 0)"),
        (0, {"scause": 1 << 63 | 5, "mcause": 9}, "(scause is that of interrupt 5 and mcause is"),
        (MPP_M, {"mcause": 7, "mtval": 0x123}, "mcause 7 at 0x123, is of M-mode"),
        (MPP_M | MPRV, {"mcause": 1}, "mcause 1 at 0x0, is of M-mode"),
    ],
)
def test_another_trap_is_no_fault(mstatus: int, registers: dict[str, int], sentence: str) -> None:
    with pytest.raises(QuestionError, match=re.escape(sentence)):
        raised(stopped(mstatus, **registers), 0)


def test_a_source_without_these_registers_does_not_tell() -> None:
    with pytest.raises(QuestionError, match="does not record scause and stval"):
        raised(Snapshot("test", SV39, tables(SV39), None), 0)


SOURCE = Path(__file__).with_name("faulting.S")
GCC = "riscv64-linux-gnu-gcc"


def kernel(directory: Path, xlen: int, defined: tuple[str, ...]) -> Path:
    """The kernel of faulting.S, linked."""
    if shutil.which(GCC) is None:
        pytest.skip(f"there is no {GCC} in PATH")
    if shutil.which(program(xlen)) is None:
        pytest.skip(f"there is no {program(xlen)} in PATH")
    made = directory / "faulting.elf"
    abi = {64: ("lp64", "elf64lriscv"), 32: ("ilp32", "elf32lriscv")}[xlen]
    subprocess.run(
        (
            *(GCC, f"-march=rv{xlen}ima_zicsr", f"-mabi={abi[0]}", "-nostdlib", "-static"),
            *("-no-pie", f"-Wl,-m{abi[1]},-Ttext=0x80000000,--build-id=none,--no-relax"),
            *("-o", str(made), str(SOURCE), *(f"-D{name}" for name in defined)),
        ),
        check=True,
    )
    return made


@pytest.mark.hw
@pytest.mark.parametrize("xlen", [64, 32])
@pytest.mark.parametrize(
    ("defined", "mode", "by"),
    [
        ((), "s", "supervisor write"),
        (("USER",), "s", "user write"),
        (("M",), "m", "supervisor write"),
        (("M", "USER"), "m", "user write"),
    ],
    ids=["of-S-mode", "of-U-mode", "to-M-mode", "of-U-mode-to-M-mode"],
)
def test_the_last_fault_of_a_guest_is_explained(
    tmp_path: Path, xlen: int, defined: tuple[str, ...], mode: str, by: str
) -> None:
    made = kernel(tmp_path, xlen, defined)
    log = ("-d", "int", "-D", str(tmp_path / "log"))
    arguments = ("-M", "virt", "-bios", "none", "-m", "64M", "-kernel", str(made), *log)
    with running(tmp_path, *arguments, qemu=program(xlen)) as machine:
        # QEMU 11.1 sets the columns wider.
        machine.witness.waits_for(re.compile(rf"\b{mode}cause +{15:0{xlen // 4}x}\b"))
        code, out, errors = run("fault", "--qmp", machine.path, cwd=tmp_path)
        told = run("fault", "--oops", "log", "--qmp", machine.path, cwd=tmp_path)[1]
        registers = machine.witness.registers()
    assert (code, errors) == (0, "")
    assert told.splitlines()[1] == "Note: A fault in QEMU's log, in log"
    assert f"{by} at 0x50001234: store/AMO page fault (cause 15), stval 0x50001234" in told
    (tmp_path / "registers").write_text(registers)
    told = run("fault", "--oops", "registers", cwd=tmp_path)[1]
    assert told.startswith("Registers as QEMU shows them\n\nstore/AMO page fault (cause 15), stval")
    whose = {"supervisor write": "S", "user write": "U"}[by]
    assert f"Note: It came from {whose}-mode, by mstatus.{mode.upper()}PP=" in told
    assert f"From processor 0: {mode}cause 15, {mode}tval 0x50001234 and {mode}epc " in out
    assert f"{by} at 0x50001234: store/AMO page fault (cause 15), stval 0x50001234" in out
    assert "The tables as they are give this fault." in out and "the entry has V=0 (step 3)" in out
