"""A file that holds physical memory from address 0 on, and the registers that go with it."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from harness.inspect.snapshot import Snapshot, SourceError
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu

WORD = 8
"""A file's length is cut to a multiple of this many bytes, so that it holds whole entries."""


def snapshot(path: Path, cpu: Cpu) -> Snapshot:
    """The memory in a file, which is mapped and not read, in the state of `cpu`.

    Raises SourceError where the file cannot be read or holds nothing.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise SourceError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError:
        raise SourceError(f"{path} is empty: it holds no memory") from None
    if len(content) < WORD:
        raise SourceError(f"{path} has {len(content)} bytes: it holds no entry")
    memory = BufferMemory(np.frombuffer(content, np.uint8, len(content) // WORD * WORD))
    return Snapshot(str(path), cpu, memory, (memory.span,))
