"""What arm64's Linux says of itself to those who read its memory: where its own tables are.

Source: Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst, "ARM64", and swapper_pg_dir;
arch_crash_save_vmcoreinfo in arch/arm64/kernel/vmcore_info.c.  The size of the linear map's
addresses is TCR_EL1_T1SZ, and what is else in TCR_EL1 follows from PAGESIZE and VA_BITS.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from harness.inspect.snapshot import SourceError
from harness.inspect.sources.vmcoreinfo import told
from harness.paging.arm64.cpu import Cpu, Half
from harness.paging.arm64.formats import GRANULES, LARGEST_OUTPUT

_PAGE_SIZE: Final = re.compile(rb"^PAGESIZE=([0-9]{1,9})$", re.MULTILINE)


def of_linux(title: str, texts: Iterable[bytes]) -> dict[str, int]:
    """TTBR1_EL1 and TCR_EL1 for the tables of the one Linux that left its VMCOREINFO in memory.

    Raises SourceError where none did, or several.
    """
    found = {tuple(said.items()) for text in texts if (said := registers(text))}
    if len(found) == 1:
        return dict(found.pop())
    if found:
        roots = " or ".join(f"--ttbr1 {dict(one)['ttbr1']:#x}" for one in sorted(found))
        raise SourceError(
            f"{title} has VMCOREINFO of several kernels: choose one, {roots}, and add --tcr"
        )
    raise SourceError(
        f"{title} does not record TCR_EL1 and TTBR1_EL1, and has no VMCOREINFO of a Linux that says"
        " where its tables are: add --tcr, and --ttbr0 or --ttbr1"
    )


def registers(text: bytes) -> dict[str, int]:
    """TTBR1_EL1 and TCR_EL1 of a processor that uses the kernel's own tables; empty where that is
    not said.

    The kernel's image is mapped `kimage_voffset` above where it is.
    """
    said = told(text)
    root, offset = said.get(b"SYMBOL(swapper_pg_dir)"), said.get(b"NUMBER(kimage_voffset)")
    size = said.get(b"NUMBER(TCR_EL1_T1SZ)")
    granule = _granule(text)
    if root is None or offset is None or size is None or granule is None:
        return {}
    width = 64 - size
    wide = width == LARGEST_OUTPUT
    try:
        half = Half(granule, width, root - offset)
        found = Cpu.of(None, half, output_bits=52 if wide else 48, ds=wide and granule != "64K")
    except ValueError:
        return {}
    return {"ttbr1": found.ttbr1, "tcr": found.tcr}


def _granule(text: bytes) -> str | None:
    """The granule by the size of a page."""
    found = _PAGE_SIZE.search(text)
    size = int(found[1]) if found else 0
    return next((name for name, one in GRANULES.items() if 1 << one.page == size), None)
