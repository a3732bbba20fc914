"""What RISC-V's Linux says of itself to those who read its memory: where its own tables are.

Source: Linux, Documentation/admin-guide/kdump/vmcoreinfo.rst, "RISCV64", and swapper_pg_dir.
"""

from __future__ import annotations

from collections.abc import Iterable

from harness.inspect.snapshot import SourceError
from harness.inspect.sources.vmcoreinfo import told
from harness.paging.riscv.cpu import Mode, Satp
from harness.paging.riscv.formats import PAGE_BITS

_MODES = {39: Mode.SV39, 48: Mode.SV48, 57: Mode.SV57}


def of_linux(title: str, texts: Iterable[bytes]) -> int:
    """Satp for the tables of the one Linux that left its VMCOREINFO in memory.

    Raises SourceError where none did, or several.
    """
    found = {told for text in texts if (told := satp(text)) is not None}
    if len(found) == 1:
        return found.pop()
    if found:
        roots = " or ".join(f"--satp {told:#x}" for told in sorted(found))
        raise SourceError(f"{title} has VMCOREINFO of several kernels: choose one, {roots}")
    raise SourceError(
        f"{title} does not record satp, and has no VMCOREINFO of a Linux that says where its tables"
        " are: add --satp"
    )


def satp(text: bytes) -> int | None:
    """Satp of a hart that uses the kernel's own tables; None where that is not said.

    The kernel's image is mapped `va_kernel_pa_offset` above where it is.
    """
    said = told(text)
    root = said.get(b"SYMBOL(swapper_pg_dir)")
    offset = said.get(b"NUMBER(va_kernel_pa_offset)")
    mode = _MODES.get(said.get(b"NUMBER(VA_BITS)", 0))
    if root is None or offset is None or mode is None:
        return None
    page, rest = divmod(root - offset, 1 << PAGE_BITS)
    try:
        return None if rest else Satp(mode, page).raw
    except ValueError:
        return None
