"""What VMCOREINFO says of a kernel's own tables, and nothing where it does not."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from harness.inspect.sources.content import Content
from harness.inspect.sources.vmcoreinfo import left_in
from harness.inspect.sources.vmcoreinfo import told as numbers
from harness.inspect.x86.vmcoreinfo import registers

PAE, PSE, LA57 = 1 << 5, 1 << 4, 1 << 12
"""Bits of CR4 (SDM 2.5)."""

ROOT_64 = b"SYMBOL(swapper_pg_dir)=ffffffff82a0a000\nNUMBER(phys_base)=16777216\n"
ROOT_32 = b"SYMBOL(swapper_pg_dir)=c1a0a000\n"


@pytest.mark.parametrize(
    ("text", "x86_64", "told"),
    [
        (ROOT_64, True, {"cr3": 0x3A0_A000}),
        (ROOT_64.replace(b"swapper_pg_dir", b"init_top_pgt"), True, {"cr3": 0x3A0_A000}),
        (ROOT_64 + b"NUMBER(pgtable_l5_enabled)=0\n", True, {"cr3": 0x3A0_A000, "cr4": PAE}),
        (ROOT_64 + b"NUMBER(pgtable_l5_enabled)=1\n", True, {"cr3": 0x3A0_A000, "cr4": PAE | LA57}),
        (b"NUMBER(pgtable_l5_enabled)=1\n", True, {"cr4": PAE | LA57}),
        (ROOT_32, False, {"cr3": 0x1A0_A000, "cr4": PSE}),
        (ROOT_32 + b"CONFIG_X86_PAE=y\n", False, {"cr3": 0x1A0_A000, "cr4": PSE | PAE}),
        (b"CONFIG_X86_PAE=y\n", False, {}),
        (b"", True, {}),
    ],
)
def test_the_tables_are_found_as_far_as_they_are_told(
    text: bytes, x86_64: bool, told: dict[str, int]
) -> None:
    assert registers(text, x86_64) == told


@pytest.mark.parametrize(
    ("line", "number"),
    [
        (b"NUMBER(x)=16", 16),
        (b"NUMBER(x)=-16", (1 << 64) - 16),
        (b"NUMBER(x)=0x10", 16),
        (b"SYMBOL(x)=10", 16),
        (b"SYMBOL(x)=0x10", 16),
        (b"NUMBER(x)=1f", None),  # in tens
        (b"LENGTH(x)=16", None),
    ],
)
def test_numbers_are_in_tens_and_symbols_in_sixteens_unless_marked(
    line: bytes, number: int | None
) -> None:
    found = numbers(b"OSRELEASE=6.12\n" + line + b"\nNUMBER(y)=1\n")
    assert found.pop(b"NUMBER(y)") == 1
    assert [*found.values()] == ([] if number is None else [number])


@pytest.mark.parametrize("begin", [0, (1 << 20) - 4], ids=["in one part", "across parts"])
@pytest.mark.parametrize(("size", "is_note"), [(64 << 10, True), ((64 << 10) + 1, False)])
def test_a_note_has_64_kib_at_most(tmp_path: Path, begin: int, size: int, is_note: bool) -> None:
    head = struct.pack("<III", 11, size - 24, 0) + b"VMCOREINFO\0\0"
    text = b"OSRELEASE=6.12\n".ljust(size - len(head), b"\n")
    (tmp_path / "memory").write_bytes(bytes(begin) + head + text + bytes(1 << 20))
    found = list(left_in(Content.of_file(tmp_path / "memory")))
    assert found == ([text] if is_note else [])


@pytest.mark.parametrize(("name", "is_note"), [(10, False), (11, True), (12, False)])
def test_a_note_says_the_size_of_its_name(tmp_path: Path, name: int, is_note: bool) -> None:
    text = b"OSRELEASE=6.12\n"
    head = struct.pack("<III", name, len(text), 0) + b"VMCOREINFO\0\0"
    (tmp_path / "memory").write_bytes(head + text)
    assert list(left_in(Content.of_file(tmp_path / "memory"))) == [text] * is_note
