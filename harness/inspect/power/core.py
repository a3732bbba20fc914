"""A core of a POWER guest: its notes have none of the registers that lead to trees (QEMU,
target/ppc/arch_dump.c), so that these are given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from harness.inspect.architecture import Seen
from harness.inspect.power.processor import assumed, cpu_of, unsure
from harness.inspect.snapshot import SourceError
from harness.inspect.sources.core import Dump

_STATUS_BYTES: Final = 504
"""Those of the first note of a processor, NT_PRSTATUS; four others follow it."""


def seen(dump: Dump, vcpu: int, registers: Mapping[str, int]) -> Seen:
    """A processor of a core, with the registers that are given.

    Raises SourceError where there is no such processor, nothing tells where its trees are, or these
    lead nowhere.
    """
    processors = max(1, sum(len(content) == _STATUS_BYTES for _, content in dump.notes))
    if not vcpu < processors:
        raise SourceError(f"{dump.path} has no processor {vcpu}: it has 0 to {processors - 1}")
    cpu = cpu_of(f"{dump.path}, a core of POWER,", dump.memory, registers)
    return Seen(cpu, tuple(assumed(registers, "a core")), unsure=unsure(registers))
