"""One QEMU process, from its start to its certain end.

QEMU gets nothing but what the guest needs, and everything by inheritance: RAM, the stub, the
monitor's and the console's socket, a scratch file for memory reads. So there are no paths, no
ports, and nothing to clean up but the process; and the kernel ends that when this process ends,
however it does.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final

from harness.machine.descriptors import anonymous_file, socket_above_standard, what_is_said
from harness.machine.machine import Emulator, Engine, Processor, bound_to, installed
from harness.machine.monitor import Monitor
from harness.machine.patience import Clock
from harness.machine.ram import LARGEST_RAM, MIB, Ram
from harness.machine.stub import StubImage

PATIENCE: Final = 2.0
"""Seconds that QEMU may take to say what its objects can be."""

LONGEST_ANSWER: Final = 16384
"""Bytes of that which are read."""

KVM_DEVICE: Final = Path("/dev/kvm")


class Qemu(Emulator):
    """A QEMU that runs `kernel`, the bytes of an ELF file with a PVH note, in `ram`, once the
    monitor says so.

    `monitor` and `console` are this process's ends of the sockets, `scratch` is a file that QEMU
    writes memory reads to, `scratch_path` its name there.
    The process must be started from a thread that outlives it: the kernel ends it with the thread.

    Raises `Misuse` if `program` or a tool it needs is not installed.
    """

    def __init__(
        self, program: str, engine: Engine, ram: Ram, kernel: bytes, accelerator: str, cpu: str
    ) -> None:
        super().__init__()
        self.maker = engine.maker
        path = installed(program)  # of what is missing, QEMU is named first
        with contextlib.ExitStack() as stack:
            self.monitor, monitor = _socket_pair(stack)
            self.console, console = _socket_pair(stack)
            self.scratch = anonymous_file("monitor-scratch")
            stack.callback(os.close, self.scratch)
            stub = anonymous_file("stub")
            stack.callback(os.close, stub)
            os.pwrite(stub, kernel, 0)
            self._stderr = what_is_said("qemu-stderr")
            stack.callback(os.close, self._stderr)
            self.scratch_path = f"/proc/self/fd/{self.scratch}"
            self.command = (
                *bound_to(os.getpid()),
                path,
                *_machine(accelerator, cpu, ram, stub),
                *("-chardev", f"socket,id=monitor,fd={monitor.fileno()}"),
                *control_monitor(program, "monitor"),
                *("-chardev", f"socket,id=console,fd={console.fileno()}"),
                *("-serial", "chardev:console"),
            )
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                pass_fds=(ram.fd, monitor.fileno(), console.fileno(), self.scratch, stub),
                process_group=0,  # a Ctrl-C is for this process, which then ends QEMU in order
            )
            # Only QEMU holds these from now on, so that its end is seen as the end of the stream.
            monitor.close()
            console.close()
            self._resources = stack.pop_all()

    @property
    def version(self) -> tuple[int, int, int]:
        """QEMU's, by its monitor."""
        return self._monitor.version

    def begin(self, deadline: float) -> Monitor:
        """Connect to the monitor, and let the guest run."""
        self._monitor = Monitor(self, deadline)
        self._resources.callback(self._monitor.close)
        self._monitor.cont()
        return self._monitor

    def come_up(self) -> str:
        """The accelerator that QEMU says it uses."""
        return self._monitor.engine_in_use()

    def attend(self, line: str) -> bool:
        """QEMU says nothing on the console."""
        del line
        return False

    def before_work(self) -> None:
        """The guest wakes by itself."""

    def after_work(self) -> None:
        """The guest sleeps until it is interrupted."""

    def trouble(self) -> str | None:
        """Why no answer can come, by QEMU's run state."""
        status = self._monitor.status()
        if status == "shutdown":
            return "it reset, as after a triple fault"
        return None if status == "running" else f"QEMU is in the state {status}"

    def registers(self) -> Mapping[str, int]:
        """Those that the monitor shows."""
        return self._monitor.registers()


def control_monitor(program: str, chardev: str) -> tuple[str, str]:
    """The arguments that have a QEMU speak QMP on a character device: -mon, which 11.1 warns of,
    and where QEMU says that it has it the object that takes its place."""
    with contextlib.suppress(TimeoutError):
        if "monitor-qmp" in _object_types(installed(program)):
            return "-object", f"monitor-qmp,id=qmp,chardev={chardev}"
    return "-mon", f"chardev={chardev},mode=control"


@cache
def _object_types(program: str) -> frozenset[str]:
    """What a QEMU says that its -object can be, asked once; none for what is no QEMU.

    Raises `TimeoutError` where it says nothing in time: that is asked again.
    """
    command = (*bound_to(os.getpid()), program, "-object", "help")
    answer = b""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,
    ) as process:
        assert process.stdout is not None
        clock = Clock(process.pid)
        try:
            while part := _read_until(process.stdout.fileno(), clock):
                answer += part
                if len(answer) > LONGEST_ANSWER:
                    return frozenset()  # it may never end
        finally:
            process.kill()
    return frozenset(answer.decode("utf-8", "replace").split())


def _read_until(fd: int, clock: Clock) -> bytes:
    """The next bytes of a stream, none at its end; `TimeoutError` where they come too late."""
    while not select.select([fd], [], [], max(0.0, PATIENCE - clock.now()))[0]:
        if clock.now() >= PATIENCE:
            raise TimeoutError
    return os.read(fd, LONGEST_ANSWER)


def _machine(accelerator: str, cpu: str, ram: Ram, kernel: int) -> Iterator[str]:
    """The arguments that make the machine: a processor, RAM, one serial port and its interrupt."""
    yield from ("-nodefaults", "-no-user-config", "-display", "none", "-nic", "none")
    # Not before the monitor is connected: an event in the midst of that is taken for an answer.
    yield "-S"
    # A reset, and so a triple fault, stops the guest with its registers in place.
    yield from ("-action", "reboot=shutdown,shutdown=pause,panic=pause")
    yield from (
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    )
    yield from (
        "-machine",
        "microvm,memory-backend=ram,pic=on,pit=off,rtc=off,acpi=off,auto-kernel-cmdline=off",
    )
    yield from ("-accel", accelerator, "-cpu", cpu, "-smp", "1")
    yield from ("-m", f"{ram.total // MIB}M")
    yield from (
        "-object",
        f"memory-backend-file,id=ram,size={ram.total},mem-path=/proc/self/fd/{ram.fd},share=on",
    )
    yield from ("-kernel", f"/proc/self/fd/{kernel}")


def _socket_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = map(socket_above_standard, socket.socketpair())
    return stack.enter_context(ours), stack.enter_context(theirs)


def _processor(wanted: Processor) -> str | None:
    """QEMU's -cpu for a processor on TCG, which can be any without shadow stacks."""
    if wanted.shadow_stacks:
        return None
    features = [f"phys-bits={wanted.maxphyaddr}"]
    features.append(f"vendor={'AuthenticAMD' if wanted.amd else 'GenuineIntel'}")
    features += [] if wanted.page1gb else ["-pdpe1gb"]
    features += [] if wanted.pse36 else ["-pse36"]
    return ",".join(("max", *features))


def _on(accelerator: str, processor: str) -> Callable[..., Qemu]:
    """Starts QEMU with an accelerator, and the processor that it plays unless another is asked
    for."""

    def start(program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None) -> Qemu:
        return Qemu(program, engine, ram, image.content, accelerator, cpu or processor)

    return start


_TCG_PROCESSOR: Final = "max,vendor=GenuineIntel"
"""TCG reads entries as Intel's processors do, and by itself shows AMD's vendor on x86-64."""
_KVM_PROCESSOR: Final = "max,-arch-capabilities"
"""With arch-capabilities QEMU 7.2 aborts on an MSR that nested and software KVM lack."""

TCG: Final = Engine(
    name="tcg",
    maker="QEMU",
    program="qemu-system-x86_64",
    start=_on("tcg", _TCG_PROCESSOR),
    processor=_processor,
    largest_ram=LARGEST_RAM,
    high=True,
    any_width=True,
)
KVM: Final = Engine(
    name="kvm",
    maker="QEMU",
    program="qemu-system-x86_64",
    start=_on("kvm", _KVM_PROCESSOR),
    processor=lambda wanted: None,
    largest_ram=LARGEST_RAM,
    high=True,
    any_width=False,
    device=KVM_DEVICE,
    by_kernel=True,
    # It follows what the guest stores in its tables.
    keeps_stale=False,
    # Where it is emulated it is a hundred times slower.
    matrix_accesses=102_000,
)
