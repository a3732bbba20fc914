"""A file that holds physical memory from address 0 on, and the registers that go with it."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources.registers import cpu_with
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu, Cr4, Efer

WORD = 8
"""A file's length is cut to a multiple of this many bytes, so that it holds whole entries."""


def snapshot(path: Path, registers: Mapping[str, int]) -> Snapshot:
    """The memory in a file, which is mapped and not read, and a CPU with these registers.

    What they leave open is as usual: 4-level paging, NXE and WP set.

    Raises SourceError where the file cannot be read or holds nothing.
    """
    content = mapped(path)
    if len(content) < WORD:
        raise SourceError(f"{path} has {len(content)} bytes: it holds no entry")
    memory = BufferMemory(np.frombuffer(content, np.uint8, len(content) // WORD * WORD))
    usual = {"efer": Cpu.long_mode(4, 0).efer}
    if not registers.get("cr4", Cr4.PAE) & Cr4.PAE:
        usual["efer"] = Efer.NXE
    cpu = cpu_with(Cpu.long_mode(4, 0), {**usual, **registers}, memory)
    return Snapshot(str(path), cpu, memory, (memory.span,), tuple(_assumed(cpu, registers)))


def mapped(path: Path) -> mmap.mmap:
    """A file's content, mapped and not read; SourceError where that cannot be."""
    try:
        # Not blocking, so that a pipe is refused instead of waited for.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SourceError(f"{path} is empty: it holds no memory") from None


def _assumed(cpu: Cpu, registers: Mapping[str, int]) -> Iterator[str]:
    for name in ("cr0", "cr4", "efer"):
        if name not in registers:
            yield f"{name.upper()} is not given, and taken to be {getattr(cpu, name):#x}"
    if "maxphyaddr" not in registers:
        yield f"the width of physical addresses is not given, and taken to be {cpu.maxphyaddr} bits"
