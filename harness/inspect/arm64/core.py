"""A core of an arm64 guest: its notes have none of the registers that translate (QEMU,
target/arm/arch_dump.c), so that these are given, or those of the Linux whose VMCOREINFO is there.
"""

from __future__ import annotations

from collections.abc import Mapping

from harness.inspect.architecture import Seen
from harness.inspect.arm64.processor import SystemRegisters, of_kernel
from harness.inspect.snapshot import SourceError
from harness.inspect.sources.core import Dump
from harness.inspect.sources.vmcoreinfo import left_in


def seen(dump: Dump, vcpu: int, registers: Mapping[str, int]) -> Seen:
    """A processor of a core, with the registers that are given; without TCR_EL1 and a root, with
    the tables of the Linux whose VMCOREINFO is a note of it or in its memory.

    Raises SourceError where there is no such processor, nothing tells its registers, or no
    processor can be in that state.
    """
    processors = max(1, sum(name == b"CORE" for name, _ in dump.notes))
    if not vcpu < processors:
        raise SourceError(f"{dump.path} has no processor {vcpu}: it has 0 to {processors - 1}")
    texts = (dump.vmcoreinfo,) if dump.vmcoreinfo else left_in(dump.memory.content)
    given, said = of_kernel(f"{dump.path}, a core of arm64,", texts, registers)
    if dump.virtual:
        said += (
            "the core was written with -p, so that memory which the guest does not map is missing",
        )
    system = SystemRegisters().with_given(given)
    assumed = (*said, *system.assumed("a core"))
    return Seen(system.cpu(), assumed, unsure=system.unsure)
