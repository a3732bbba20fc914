"""One Bochs process, from its start to its certain end.

Bochs boots a ROM of the harness's own (guest/x86/rom.S), which enters the stub: there is no BIOS,
no VGA and no network, and so there are no ports and no files. All it gets is inherited: its
settings, the ROM, its log and the guest's memory as anonymous files, the console as a terminal.
The memory is the harness's by a library that is loaded into Bochs before all others
(guest/x86/shim.c); a Bochs that allocates it in another way keeps its own, which is then copied
both ways (`copied`).

Bochs emulates a waiting processor by spinning, so it is stopped whenever the stub has nothing to
do. It has no monitor.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import logging
import os
import re
import secrets
import signal
import struct
import subprocess
import tty
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from elftools.elf.elffile import ELFFile

from harness.machine.copied import CopiedMemory, last_words
from harness.machine.descriptors import above_standard, anonymous_file, what_is_said
from harness.machine.errors import LaunchFailure, Misuse, ProtocolError
from harness.machine.machine import (
    Ability,
    Emulator,
    Engine,
    Processor,
    bound_to,
    dotted,
)
from harness.machine.patience import Clock
from harness.machine.ram import DEVICES, MIB, RAM_UNIT, Ram
from harness.machine.stub import StubImage

HERE: Final = Path(__file__).parents[1]
ROM: Final = HERE / "bochs-rom.bin"
SHIM: Final = HERE / "bochs-shim.so"

OLDEST_BOCHS: Final = (2, 7)
"""The oldest version that was run; older ones are refused."""

PATIENCE: Final = 10.0
"""Seconds that Bochs may take to say its version."""

LONGEST_ANSWER: Final = 1 << 16
"""Bytes of that which are read."""

INSTRUCTIONS: Final = 10_000_000
"""A second of the guest's time, in instructions. The console's bit times are counted in these, and
so is how often Bochs looks after its devices: between 5 and 50 million, a batch of one job takes
0.5 to 1.4 ms of CPU time; at 10 million, a CPU second brings 410,000 accesses, at 1 million half as
many."""

LARGEST_RAM: Final = 2 << 30
"""Bytes that Bochs 3.0 keeps in memory at most."""

LAST_LINES: Final = 40
"""Lines of its log that are kept as evidence."""

ROM_PARAMETERS: Final = struct.Struct("<4I")
ROM_PARAMETERS_AT: Final = 0xFFE0
"""Where rom.S has its parameters: the stub's entry, the number of blocks, bytes of one, the key."""

VGA_ROM_BYTES: Final = 512
"""Without a ROM for the VGA, which no one executes, Bochs does not start."""

SETTINGS: Final = """\
memory: guest={megabytes}, host={megabytes}{blocks}
romimage: file={rom}
vgaromimage: file={vga_rom}
plugin_ctrl: speaker=0, parallel=0, gameport=0, iodebug=0, extfpuirq=0, biosdev=0
cpu: {cpu}, count=1, ips={instructions}, reset_on_triple_fault=0, ignore_bad_msrs=1
display_library: term
vga: extension=none
boot: floppy
panic: action=fatal
error: action=ignore
info: action=ignore
debug: action=ignore
log: {log}
clock: sync=none, time0=0
sound: driver=dummy
speaker: enabled=0
com1: enabled=1, mode=term, dev={console}
"""
"""Without a driver for sound no thread mixes any: where the host has no sound card, that of Bochs
2.7 may clear more than its buffer, by a length that nobody has set, and SIGABRT ends it."""


@dataclass(frozen=True)
class Release:
    """What a version of Bochs needs.

    since           the first version of which it holds
    block_bytes     the blocks in which it gives out memory: RAM is a multiple, or Bochs has a block
                    too few and keeps one of them in a file
    blocks          the setting that makes them so, "" where they cannot be chosen
    debugger        whether it starts at the prompt of its debugger
    added           the setting for features that its models lack
    """

    since: tuple[int, ...]
    block_bytes: int
    blocks: str
    debugger: bool
    added: str


RELEASES: Final = (
    Release((3, 0), RAM_UNIT, f", block_size={RAM_UNIT >> 10}", False, ', add_features="la57 pks"'),
    Release((2, 7), 128 << 10, "", True, ""),
)
"""From the newest on."""


USUAL: Final = "model=corei7_icelake_u"
"""The newest model without shadow stacks: with these, 3.0 panics where CR0.WP=0."""

WITH_SHADOW_STACKS: Final = "model=tigerlake"

EXCLUDED: Final = ", exclude_features="
"""What is left out of a model follows."""

EXCLUDING_BOCHS: Final = (3, 0)
"""The oldest version that leaves something out; it is the oldest with the model of LASS, too."""

WITH_LASS: Final = f"model=arrow_lake{EXCLUDED}cet"
"""`USUAL` shows no leaf 7.1 in CPUID, where LASS is."""

AMD: Final = "model=ryzen"

MAXPHYADDR: Final = 40
"""Of every model."""


class Bochs(Emulator):
    """A Bochs that runs the stub in `ram`.

    `console` is this process's end of the stub's terminal. The process must be started from a
    thread that outlives it: the kernel ends it with the thread.

    Raises `Misuse` if `program` or a tool it needs is not installed, or the version was never run,
    or it cannot be the processor.
    """

    def __init__(
        self, program: str, engine: Engine, ram: Ram, image: StubImage, cpu: str | None
    ) -> None:
        super().__init__()
        self.maker = engine.maker
        self._ram = ram
        path = engine.installed(program)
        self.version: tuple[int, ...] = version_of(path)
        if self.version < EXCLUDING_BOCHS and EXCLUDED in (cpu or ""):
            raise Misuse(
                f"Bochs {dotted(self.version)} cannot be the processor {cpu}:"
                f" {dotted(EXCLUDING_BOCHS)} can"
            )
        self._release = next(one for one in RELEASES if one.since <= self.version)
        self._key = secrets.randbits(31)
        self._copied: CopiedMemory | None = None
        with contextlib.ExitStack() as stack:
            self._stderr = what_is_said("bochs-stderr")
            stack.callback(os.close, self._stderr)
            self._log = anonymous_file("bochs-log")
            stack.callback(os.close, self._log)
            self.console, console = _terminal(stack)
            self._number_blocks()
            files = contextlib.ExitStack()
            with files:
                files.callback(os.close, console)
                rom = _file(files, "bochs-rom", self._rom(_load(image, ram)))
                vga_rom = _file(files, "bochs-vga-rom", bytes(VGA_ROM_BYTES))
                text = self._settings(cpu, rom, vga_rom, console)
                settings = _file(files, "bochs-settings", text)
                self.command = (
                    *bound_to(os.getpid()),
                    path,
                    *("-q", "-f", _path(settings)),
                )
                inherited = [ram.fd, self._log, console, rom, vga_rom, settings]
                if self._release.debugger:
                    go = _file(files, "bochs-commands", b"c\n")
                    self.command += ("-rc", _path(go))
                    inherited.append(go)
                self._process = subprocess.Popen(
                    self.command,
                    # Every HLT waits 1 ms for a key, and here there is always an answer.
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=self._stderr,
                    pass_fds=inherited,
                    process_group=0,  # a Ctrl-C is for this process, which then ends Bochs
                    env=os.environ | self._environment(),
                )
            self._resources = stack.pop_all()

    def _environment(self) -> dict[str, str]:
        """What the shim goes by, and the terminal that the display takes its output to be."""
        return {
            "LD_PRELOAD": str(SHIM),
            "HARNESS_RAM_FILE": str(self._ram.fd),
            "HARNESS_RAM_BYTES": str(self._ram.size),
            "HARNESS_RAM_HOLE": str(int(self._release.block_bytes < len(DEVICES))),
            "TERM": "xterm",
        }

    def _settings(self, cpu: str | None, rom: int, vga_rom: int, console: int) -> bytes:
        return SETTINGS.format(
            megabytes=self._ram.size // MIB,
            blocks=self._release.blocks,
            rom=_path(rom),
            vga_rom=_path(vga_rom),
            cpu=(cpu or USUAL) + self._release.added,
            instructions=INSTRUCTIONS,
            log=_path(self._log),
            console=_path(console),
        ).encode()

    def _rom(self, entry: int) -> bytes:
        """The ROM with its parameters."""
        try:
            rom = bytearray(ROM.read_bytes())
        except OSError as error:
            raise Misuse(
                f"{ROM} cannot be read ({error.strerror}): build it, `make guest`"
            ) from None
        values = entry, len(self._blocks()), self._release.block_bytes, self._key
        ROM_PARAMETERS.pack_into(rom, ROM_PARAMETERS_AT, *values)
        return bytes(rom)

    # ---- memory ----

    def _blocks(self) -> range:
        """The last word of each block."""
        size = self._release.block_bytes
        return range(size - 4, self._ram.size, size)

    def _marks(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        """Where the blocks that Bochs gives to memory have their last words, and what is put
        there: the key plus the number of the block."""
        places = np.array(self._blocks())
        marks = (np.arange(len(places)) + self._key).astype(np.uint32)
        given = (places < DEVICES.start) | (places >= DEVICES.stop)
        return places[given] // 4, marks[given]

    def _number_blocks(self) -> None:
        places, marks = self._marks()
        self._ram.buffer.view(np.uint32)[places] = marks

    def _memory_is_shared(self) -> bool:
        """Whether the ROM has seen, and complemented, the marks of all blocks; takes them away."""
        places, marks = self._marks()
        words = self._ram.buffer.view(np.uint32)
        shared = bool((words[places] == ~marks).all())
        words[places] = 0
        return shared

    def _copy(self) -> None:
        """Have the memory copied that Bochs keeps to itself: it is where the ROM left its marks."""
        places, _ = self._marks()
        self._ram.buffer.view(np.uint32)[places] = 0
        blocks = places * 4 // self._release.block_bytes
        found = np.full(len(self._blocks()), -1)
        for ends, words in last_words(self.pid):
            numbers = (~words - np.uint32(self._key)).astype(np.int64)
            ours = np.isin(numbers, blocks)
            found[numbers[ours]] = ends[ours] - self._release.block_bytes
        if (found[blocks] < 0).any():
            raise ProtocolError(_APART, _OWN_MEMORY)
        self._copied = CopiedMemory(self.pid, self._ram, found, self._release.block_bytes)
        self._resources.callback(self._copied.close)
        for block in blocks.tolist():
            self._copied.poke(self._blocks()[block], 0)
        self._copied.give()
        self._copied.poke(self._blocks()[0], self._key)

    # ---- what a machine is asked ----

    def begin(self, deadline: float) -> None:
        """It has begun already, and has no monitor."""

    def come_up(self) -> str:
        """See that the stub's memory is this process's, or a copy of it."""
        if self._copied is not None:
            self._copied.poke(self._blocks()[0], 0)
            _log.warning(_COPIED)
        elif not self._memory_is_shared():
            raise ProtocolError(_APART, "ready")
        return BOCHS.name

    def attend(self, line: str) -> bool:
        """Take the line by which the ROM says that it has another memory."""
        if line != _OWN_MEMORY:
            return False
        try:
            self._copy()
        except OSError as error:
            raise ProtocolError(f"{_APART} ({error.strerror})", line) from None
        return True

    def before_work(self) -> None:
        """Let Bochs go on."""
        if self._copied is not None:
            with self._while_it_runs():
                self._copied.give()
        self._signal(signal.SIGCONT)

    def after_work(self) -> None:
        """Stop Bochs, which would spin."""
        self._signal(signal.SIGSTOP)
        if self._copied is not None:
            with self._while_it_runs():
                self._copied.take()

    @contextlib.contextmanager
    def _while_it_runs(self) -> Iterator[None]:
        """Memory that is gone with its process is no error of its own: the console tells."""
        try:
            yield
        except OSError as error:
            if self._settled_exit_code() is None:
                raise ProtocolError(f"{_APART} ({error.strerror})", "memory") from None

    def _signal(self, number: signal.Signals) -> None:
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def trouble(self) -> str | None:
        """Why no answer can come: a panic of Bochs ends it."""
        return "Bochs ended" if self._process.poll() is not None else None

    def registers(self) -> Mapping[str, int]:
        """None: there is no monitor."""
        return {}

    def stderr(self) -> str:
        """The end of what Bochs has said; a panic last of all."""
        log = os.pread(self._log, os.fstat(self._log).st_size, 0).decode("utf-8", "replace")
        lines = (super().stderr() + log).splitlines()
        panics = [line for line in lines if ">>PANIC<<" in line]
        return "\n".join([*lines[-LAST_LINES:], *panics[:1]])

    def launch_failure(self, reason: str) -> LaunchFailure:
        """End the process, and answer the exception that says why it never came up."""
        if "display library" in self.stderr():
            reason += "; it lacks the display library term, which is in Debian's bochs-term"
        return super().launch_failure(reason)

    def end(self) -> None:
        """End the process, if it still runs, and reap it: it has nothing to put in order, and may
        be stopped."""
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()


_APART: Final = (
    "Bochs keeps the guest's memory where the harness does not see it: it was built to allocate"
    " that in another way than the versions that were run"
)

_COPIED: Final = (
    "Bochs keeps the guest's memory to itself: it was built to allocate that in another way than"
    " the versions that were run, so it is copied both ways, which takes time"
)

_log: Final = logging.getLogger(__name__)

_OWN_MEMORY: Final = "memory is not shared"
"""The line by which the ROM says that it has another memory."""


def version_of(program: str) -> tuple[int, ...]:
    """A Bochs's version; raises `Misuse` where it is too old, or says none."""
    said = _help(program)
    found = re.search(r"Bochs x86 Emulator (\d+(?:\.\d+)*)", said)
    if found is None:
        last = (said.strip().splitlines() or ["nothing"])[-1].strip()
        raise Misuse(f"{program} says no version of Bochs: it says {last[:80]}; name another one")
    version = tuple(map(int, found[1].split(".")))
    if version < OLDEST_BOCHS:
        raise Misuse(f"Bochs {found[1]} is too old: install 2.7 or newer, or name another one")
    return version


@cache
def _help(program: str) -> str:
    """What `--help` prints; asked once. Raises `Misuse` where it does not come to its end."""
    output = what_is_said("bochs-help")
    try:
        with subprocess.Popen(
            (*bound_to(os.getpid()), program, "--help"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,
        ) as process:
            clock = Clock(process.pid)
            try:
                while process.poll() is None and clock.now() < PATIENCE:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(0.1)
                if process.poll() is None:
                    raise Misuse(f"{program} did not say its version in {PATIENCE:g} s")
            finally:
                process.kill()
        return os.pread(output, LONGEST_ANSWER, 0).rstrip(b"\0").decode("utf-8", "replace")
    finally:
        os.close(output)


def _load(image: StubImage, ram: Ram) -> int:
    """Puts the stub into memory; answers where it begins."""
    elf = ELFFile(io.BytesIO(image.content))
    for segment in elf.iter_segments("PT_LOAD"):
        first, content = segment["p_paddr"], segment.data()
        ram.buffer[first : first + len(content)] = np.frombuffer(content, np.uint8)
    return int(elf["e_entry"])


def _terminal(stack: contextlib.ExitStack) -> tuple[int, int]:
    """Both ends of a new terminal, which passes on every byte as it is; ours is closed by the
    stack."""
    try:
        ours, theirs = (above_standard(end) for end in os.openpty())
    except OSError as error:
        raise OSError(f"{error.strerror} (no terminal can be opened in /dev/pts)") from error
    fcntl.fcntl(ours, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    stack.callback(os.close, ours)
    tty.setraw(theirs)
    return ours, theirs


def _file(stack: contextlib.ExitStack, name: str, content: bytes) -> int:
    """A new file in memory with this content, which the stack closes."""
    file = anonymous_file(name)
    stack.callback(os.close, file)
    os.pwrite(file, content, 0)
    return file


def _path(descriptor: int) -> str:
    """The path of an open file in the process that inherits it."""
    return f"/proc/self/fd/{descriptor}"


def _processor(wanted: Processor) -> str | None:
    """The setting `cpu` for a processor, of those that Bochs can be."""
    if wanted.maxphyaddr != MAXPHYADDR or not wanted.pse36:
        return None
    if wanted.amd and (wanted.la57 or wanted.shadow_stacks or wanted.lass):
        return None
    if wanted.lass:
        return None if wanted.shadow_stacks or not wanted.page1gb else WITH_LASS
    excluded = "" if wanted.page1gb else f"{EXCLUDED}1g_pages"
    model = WITH_SHADOW_STACKS if wanted.shadow_stacks else USUAL
    return (AMD if wanted.amd else model) + excluded


BOCHS: Final = Engine(
    name="bochs",
    maker="Bochs",
    program="bochs",
    package="bochs, with bochs-term",
    environment="BOCHS",
    start=Bochs,
    processor=_processor,
    since=lambda wanted: OLDEST_BOCHS if wanted.page1gb and not wanted.lass else EXCLUDING_BOCHS,
    largest_ram=LARGEST_RAM,
    high=False,
    any_width=False,
    can=frozenset({Ability.SHADOW_STACKS, Ability.SEPARATED_HALVES, Ability.REFUSED_LOADS}),
    by_default=False,
)
