"""A file that holds physical memory from address 0 on, and the registers that go with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from harness.inspect import engine
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import signature
from harness.inspect.sources.content import Content
from harness.inspect.sources.registers import cpu_with, unseen_model
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory, Mask, Memory, Words
from harness.paging.x86.cpu import Cpu, Cr4, Efer

WORD = 8
"""A file's length is cut to a multiple of this many bytes, so that it holds whole entries."""


def snapshot(path: Path, registers: Mapping[str, int], flat: bool = False) -> Snapshot:
    """The memory in a file, and a CPU with these registers.

    What they leave open is as usual: 4-level paging, NXE and WP set.

    flat  whether it is memory even if it begins as files of another kind do

    Raises SourceError where the file cannot be read, holds nothing or is of another kind.
    """
    content = Content(path)
    if not flat:
        signature.as_memory(path, content)
    if len(content) < WORD:
        raise SourceError(f"{path} has {len(content)} bytes: it holds no entry")
    memory = FileMemory(content)
    usual = {"efer": Cpu.long_mode(4, 0).efer}
    if not registers.get("cr4", Cr4.PAE) & Cr4.PAE:
        usual["efer"] = Efer.NXE
    cpu = cpu_with(Cpu.long_mode(4, 0), {**usual, **registers}, memory)
    cpu, notes = engine.as_marked(cpu)
    assumed = tuple(_assumed(cpu, registers))
    return Snapshot(str(path), cpu, memory, (memory.span,), assumed, notes)


class FileMemory:
    """Physical memory from address 0 on, as far as the content of a file holds whole words."""

    def __init__(self, content: Content):
        self._content = content
        self._memory = BufferMemory(content.octets[: len(content) // WORD * WORD])
        self.span = self._memory.span

    def load(self, address: Physical, size: int) -> int | None:
        """The word at an address, None where the file has ended."""
        if address in self.span:
            self._content.part(address, size)
        return self._memory.load(address, size)

    def gather(self, addresses: Words, size: int) -> tuple[Words, Mask | None]:
        """The words at many addresses, and at which of them there are some."""
        last = self.span.last
        beyond = len(addresses) and int(addresses.max()) > last
        self._content.ask(addresses[addresses <= last] if beyond else addresses)
        return self._memory.gather(addresses, size)


_: type[Memory] = FileMemory


def _assumed(cpu: Cpu, registers: Mapping[str, int]) -> Iterator[str]:
    for name in ("cr0", "cr4", "efer"):
        if name not in registers:
            yield f"{name.upper()} is not given, and taken to be {getattr(cpu, name):#x}"
    if "maxphyaddr" not in registers:
        yield f"the width of physical addresses is not given, and taken to be {cpu.maxphyaddr} bits"
    yield from unseen_model(cpu, registers, "a file of memory")
