"""The machine that boots the Linux image: one QEMU that others can ask through a QMP socket.

Its RAM is a file in memory that any process of the same user may open by the path that QEMU was
given, as long as the process that started QEMU lives; nothing is left behind but that QEMU ends
with the process, and with it the socket.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pexpect
from pexpect.fdpexpect import fdspawn

from harness.machine.arm64.processor import RAM_BASE as ARM64_RAM_BASE
from harness.machine.arm64.qemu import TCG as ARM64_TCG
from harness.machine.arm64.registers import program_counter
from harness.machine.arm64.registers import registers_of as arm64_registers_of
from harness.machine.descriptors import anonymous_file, said, what_is_said
from harness.machine.errors import Evidence, GuestLost, Misuse
from harness.machine.foreign import ForeignMonitor, conversation
from harness.machine.machine import PATIENCE, Engine, bound_to
from harness.machine.patience import Clock
from harness.machine.qemu import control_monitor
from harness.machine.ram import MIB
from harness.machine.riscv.processor import RAM_BASE
from harness.machine.riscv.qemu import TCG as RISCV_TCG
from harness.machine.riscv.registers import registers_in as riscv_registers_in
from harness.machine.x86.qemu import TCG
from images.linux.build import Image
from images.linux.facts import FAILED, READY, Facts, Process, parse

RAM_BYTES: Final = 640 * MIB
"""The patterns take 290 MiB, and below 512 MiB Linux makes no large pages on its own."""

GLANCE: Final = 1.0
"""Seconds between two looks at how long QEMU has worked."""

CPU: Final = "max,-erms,-fsrm"
"""TCG executes byte by byte what Linux clears and copies memory with where there is ERMS.  With
FSRM and no ERMS Linux 6.1 hangs before it runs init, as on QEMU 10.0.13, whose `max` has both."""

CPUS: Final = 2
"""One for each process of init.c."""


@dataclass(frozen=True)
class Board:
    """What QEMU emulates.

    engine     the QEMU that executes it
    target     as query-cpus-fast has it
    words      what QEMU is told
    ram_base   the physical address of the first byte of RAM
    registers  of a processor
    at         the address of the instruction that comes next in the program of a processor
    """

    engine: Engine
    target: str
    words: tuple[str, ...]
    ram_base: int
    registers: Callable[[ForeignMonitor, int], dict[str, int]]
    at: Callable[[ForeignMonitor, int], int]

    @property
    def qemu(self) -> str:
        """The usual program."""
        return self.engine.program

    @property
    def environment(self) -> str:
        """The variable that names another."""
        return self.engine.environment


PC: Final = Board(
    TCG,
    "x86_64",
    ("-machine", "q35,memory-backend=ram", "-cpu", CPU),
    0,
    lambda monitor, cpu: monitor.registers(cpu),
    lambda monitor, cpu: monitor.registers(cpu)["RIP"],
)


def _registers_on_riscv(monitor: ForeignMonitor, cpu: int) -> dict[str, int]:
    return riscv_registers_in(monitor.state(cpu))


def _at_on_riscv(monitor: ForeignMonitor, cpu: int) -> int:
    """QEMU takes an interrupt that is due before it stops, and is then at the first instruction of
    its handler."""
    held = _registers_on_riscv(monitor, cpu)
    return held["sepc" if held["pc"] == held["stvec"] else "pc"]


VIRT: Final = Board(
    RISCV_TCG[64],
    "riscv64",
    # The firmware is QEMU's own, OpenSBI.
    ("-machine", "virt,memory-backend=ram", "-cpu", "rv64,svnapot=on,svpbmt=on"),
    RAM_BASE,
    _registers_on_riscv,
    _at_on_riscv,
)


def _registers_on_arm64(monitor: ForeignMonitor, cpu: int) -> dict[str, int]:
    return arm64_registers_of(monitor, cpu)


_IRQ: Final = 0x480
"""Where the handler of interrupts of EL0 is in a table of vectors, which is at a multiple of 2K."""


def _at_on_arm64(monitor: ForeignMonitor, cpu: int) -> int:
    """As on RISC-V."""
    at = program_counter(monitor.state(cpu)) or 0
    return _registers_on_arm64(monitor, cpu)["ELR_EL1"] if at % (2 << 10) == _IRQ else at


def _arm64(cpu: str) -> Board:
    return Board(
        ARM64_TCG,
        "aarch64",
        ("-machine", "virt,gic-version=2,memory-backend=ram", "-cpu", cpu),
        ARM64_RAM_BASE,
        _registers_on_arm64,
        _at_on_arm64,
    )


A72: Final = _arm64("cortex-a72")
"""A processor without LPA2, and without hardware that keeps the access flag and the dirty state."""

MAX: Final = _arm64("max,pauth-impdef=on")
"""With them.  TCG takes three times as long for the whole where pointers are authenticated by the
architecture's own algorithm."""

_UNUSED: Final = (
    *("jent_mod_init", "load_system_certificate_list"),
    *("crypto_kdf108_init", "init_encrypted"),
)
"""What of the boot is no one's here: random numbers, certificates and keys; with the tests of the
kernel's cryptography a fifth of what it takes."""

_KERNEL_ARGUMENTS: Final = (
    *("console=ttyS0", "quiet", "panic=-1"),
    *("cryptomgr.notests", f"initcall_blacklist={','.join(_UNUSED)}"),
    # Only where init asks for it, so that no page grows on its own; and two of 2M for hugetlb.
    *("transparent_hugepage=madvise", "hugepages=2"),
)


@dataclass(frozen=True)
class Variant:
    """How Linux sets up paging: the number of levels, and whether it isolates its page tables."""

    levels: int
    isolated: bool

    board = PC

    def __str__(self) -> str:
        return f"{self.levels}-level-{'isolated' if self.isolated else 'shared'}"

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        fewer = () if self.levels == 5 else ("no5lvl",)
        # On a loaded host the timer's interrupts come late, and Linux would take it for broken.
        # [vsyscall] is the one page that a process reaches and /proc/self/pagemap does not cover.
        others = ("no_timer_check", "vsyscall=emulate", f"pti={'on' if self.isolated else 'off'}")
        return *_KERNEL_ARGUMENTS, *fewer, *others


@dataclass(frozen=True)
class RiscvVariant:
    """How Linux sets up paging on RISC-V: by three, four or five levels."""

    levels: int

    board = VIRT
    isolated = False  # there is no such thing

    def __str__(self) -> str:
        return {3: "sv39", 4: "sv48", 5: "sv57"}[self.levels]

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        fewer = {3: ("no4lvl",), 4: ("no5lvl",), 5: ()}[self.levels]
        return *_KERNEL_ARGUMENTS, *fewer, "hugepagesz=64K", "hugepages=4"


@dataclass(frozen=True)
class Arm64Variant:
    """How Linux sets up paging on arm64: by four levels, or by five and 52 bits (LPA2); and whether
    it isolates its page tables, which is of no use where there is E0PD."""

    levels: int
    isolated: bool = False

    def __str__(self) -> str:
        name = {4: "arm64-48", 5: "arm64-52"}[self.levels]
        return f"{name}-isolated" if self.isolated else name

    @property
    def board(self) -> Board:
        return {4: A72, 5: MAX}[self.levels]

    @property
    def kernel_arguments(self) -> tuple[str, ...]:
        groups = ("hugepagesz=64K", "hugepages=4", "thp_anon=64K,2M:madvise")
        isolates = f"kpti={'on' if self.isolated else 'off'}"
        return *_KERNEL_ARGUMENTS, "console=ttyAMA0", isolates, *groups


AnyVariant = Variant | RiscvVariant | Arm64Variant


@dataclass(frozen=True)
class Started:
    """A QEMU whose Linux boots.  `console` ends when QEMU does; `ram` is the path of its RAM."""

    process: subprocess.Popen[bytes]
    qmp: Path
    ram: Path
    errors: int

    @property
    def console(self) -> IO[bytes]:
        assert self.process.stdout is not None
        return self.process.stdout

    def stderr(self) -> str:
        """What QEMU had to say so far."""
        return said(self.errors)


@contextlib.contextmanager
def started(
    image: Image,
    arguments: Sequence[str],
    qmp: Path,
    *,
    qemu: str = PC.qemu,
    board: Board = PC,
) -> Iterator[Started]:
    """A QEMU that boots the image on a board with these arguments of the kernel's, with its monitor
    at the socket `qmp`; it ends with the block.

    The kernel ends it, however this process or the thread that started it ends.  Raises `Misuse`
    if QEMU is not installed or the socket is in use.
    """
    if _answers(qmp):
        raise Misuse(f"a program listens at {qmp}: end it, or name another socket")
    with _open(anonymous_file("linux-ram")) as fd, _open(what_is_said("qemu-stderr")) as errors:
        os.ftruncate(fd, RAM_BYTES)
        ram = Path(f"/proc/{os.getpid()}/fd/{fd}")
        process = subprocess.Popen(
            (
                *bound_to(os.getpid()),
                board.engine.installed(qemu),
                *_arguments(image, arguments, qmp, ram, qemu, board),
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            process_group=0,  # a Ctrl-C is for this process, which then ends QEMU in order
        )
        with process:
            try:
                yield Started(process, qmp, ram, errors)
            finally:
                _end(process)


@contextlib.contextmanager
def _open(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _arguments(
    image: Image, arguments: Sequence[str], qmp: Path, ram: Path, qemu: str, board: Board
) -> Iterator[str]:
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none")
    yield "-no-reboot"  # which is what a panic ends in
    yield from (
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    )
    # The one engine that has five levels on every host.
    yield from ("-accel", "tcg", "-smp", str(CPUS), *board.words, "-m", f"{RAM_BYTES // MIB}M")
    yield from (
        "-object",
        f"memory-backend-file,id=ram,size={RAM_BYTES},mem-path={ram},share=on",
    )
    yield from ("-kernel", str(image.kernel))
    if image.initramfs is not None:
        yield from ("-initrd", str(image.initramfs))
    yield from ("-append", " ".join(arguments))
    yield from ("-serial", "stdio")
    # In QEMU's option syntax a comma is doubled.
    path = str(qmp).replace(",", ",,")
    yield from ("-chardev", f"socket,id=monitor,path={path},server=on,wait=off")
    yield from control_monitor(qemu, "monitor")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Soft, so that QEMU removes its socket; then hard."""
    for step in (process.terminate, process.kill):
        step()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
            return


@dataclass(frozen=True)
class Booted:
    """A Linux that has told all, stopped while both its processes spin in user mode.

    qmp    the socket of QEMU's monitor, which takes one client at a time
    ram    the file of its RAM, from the board's first address on: QEMU maps the same
    facts  what it printed
    pid    QEMU's

    Let it run, and `hold` it again before its registers are those of its processes.
    """

    variant: AnyVariant
    qmp: Path
    ram: Path
    facts: Facts
    pid: int

    @property
    def board(self) -> Board:
        return self.variant.board

    def registers(self, monitor: ForeignMonitor, process: Process) -> dict[str, int]:
        """The registers of the CPU that a process runs on."""
        return self.board.registers(monitor, process.cpu)

    def at(self, monitor: ForeignMonitor, process: Process) -> int:
        """The address of the instruction that comes next on that CPU."""
        return self.board.at(monitor, process.cpu)

    def hold(self, deadline: float = 10.0) -> None:
        """Stop it at a moment when each of its CPUs is in the process that runs there.

        With the instruction that a process ends in under RIP, CR3 is that process's own, and with
        isolation its user tables: no one else is at that address.  It is there but for the
        kernel's ticks.  On RISC-V pc and satp are what RIP and CR3 are here.  Raises `TimeoutError`
        after `deadline` seconds.
        """
        clock = Clock(self.pid)
        with conversation(self.qmp, 0, deadline, targets=(self.board.target,)) as monitor:
            while True:
                monitor.stop()
                if all(
                    self.at(monitor, process) == process.spins
                    for process in self.facts.processes.values()
                ):
                    return
                if clock.now() > deadline:
                    raise TimeoutError(f"no CPU spins in user mode within {deadline:g} s")
                monitor.cont()
                time.sleep(0.01)


@contextlib.contextmanager
def booted(
    image: Image,
    variant: AnyVariant,
    qmp: Path,
    *,
    qemu: str = PC.qemu,
    deadline: float = 60.0,
) -> Iterator[Booted]:
    """The same Linux when it is ready, and held; `deadline` is in seconds.

    Raises `GuestLost`, with what was on the console, if it does not get there.
    """
    arguments = variant.kernel_arguments
    with started(image, arguments, qmp, qemu=qemu, board=variant.board) as machine:
        facts = parse(printed(machine, READY, deadline))
        guest = Booted(variant, qmp, machine.ram, facts, machine.process.pid)
        guest.hold()
        yield guest


def printed(machine: Started, until: str, deadline: float) -> str:
    """What Linux prints before a line; `deadline` is in seconds.

    Raises `GuestLost`, with what was on the console, if it does not get there.
    """
    console = fdspawn(machine.console, encoding="ascii", codec_errors="replace", use_poll=True)
    endings = (until, FAILED, pexpect.EOF, pexpect.TIMEOUT)
    clock = Clock(machine.process.pid)
    ending: object = pexpect.TIMEOUT
    while ending is pexpect.TIMEOUT and (left := deadline - clock.now()) > 0:
        ending = endings[console.expect(list(endings), timeout=min(GLANCE, left))]
    if ending is not until:
        raise _lost(machine, console, ending, deadline)
    return console.before or ""


def _lost(machine: Started, console: fdspawn[str], ending: object, deadline: float) -> GuestLost:
    lines = (console.before or "").splitlines()
    if ending is FAILED:
        assert isinstance(console.match, re.Match)
        seen = f"its init failed: {console.match[1]}"
    elif ending is pexpect.EOF:
        seen = "QEMU ended"
    else:
        seen = f"it is not ready after {deadline:g} s"
    evidence = Evidence(tuple(lines[-10:]), machine.stderr(), machine.process.poll())
    last = f", and printed last: {lines[-1]}" if lines else ""
    return GuestLost(f"Linux is lost: {seen}{last}.", evidence)


def _answers(path: Path) -> bool:
    """Whether someone listens at a socket; one that was left behind is no one's."""
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(str(path))
        except OSError:
            return False
        return True
