"""A core of an s390 guest: its notes have the PSW, the control registers and the prefix of each
processor (QEMU, target/s390x/arch_dump.c; Linux, include/uapi/linux/elf.h)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from harness.inspect.architecture import Seen
from harness.inspect.s390.processor import of_controls
from harness.inspect.snapshot import SourceError
from harness.inspect.sources.core import Dump

_CONTROLS = struct.Struct(">16Q")
_PREFIX = struct.Struct(">I")
_PSW = struct.Struct(">Q")

_PSW_PLACE = 112
"""Where the PSW is in a note of NT_PRSTATUS: pr_reg of struct elf_prstatus begins with it."""

_STATUS_BYTES = 336
"""That note's length.  The types of notes are not kept: after it the first of LINUX that is as long
as a prefix is that, and the first as long as the control registers is those."""


def seen(dump: Dump, vcpu: int, registers: Mapping[str, int]) -> Seen:
    """A processor of a core, with the registers that are given.

    Raises SourceError where there is no such processor, the core has no control registers, or they
    tell no tables.
    """
    processors = list(_processors(dump))
    if not processors:
        raise SourceError(f"{dump.path} has no notes of control registers: it is no core of QEMU's")
    if not vcpu < len(processors):
        raise SourceError(f"{dump.path} has no processor {vcpu}: it has 0 to {len(processors) - 1}")
    psw, controls, prefix = processors[vcpu]
    return of_controls(str(dump.path), controls, psw, {}, registers, prefix)


def _processors(dump: Dump) -> Iterator[tuple[int, dict[int, int], int]]:
    """PSW, control registers and prefix of each processor, whose notes follow each other."""
    psw = prefix = None
    for name, content in dump.notes:
        if name == b"CORE" and len(content) == _STATUS_BYTES:
            (psw,), prefix = _PSW.unpack_from(content, _PSW_PLACE), None
        elif name == b"LINUX" and len(content) == _PREFIX.size and prefix is None:
            (prefix,) = _PREFIX.unpack(content)
        elif name == b"LINUX" and len(content) == _CONTROLS.size and psw is not None:
            yield psw, dict(enumerate(_CONTROLS.unpack(content))), prefix or 0
            psw = None
