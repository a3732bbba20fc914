"""A file that is not what it is said to be is named, and never read as memory."""

from __future__ import annotations

import gzip
import lzma
import os
import struct
from itertools import product
from pathlib import Path

import pytest

from harness.inspect.snapshot import SourceError
from harness.inspect.sources.content import Content
from harness.inspect.sources.signature import KNOWN, as_memory
from tests.cli.commands import run

TABLES = struct.pack("<Q", 0x2067) + bytes(0xFF8)
"""A root that leads somewhere."""


def captured(whose: int, version: int) -> bytes:
    """A capture of the memory from 0x1000 on."""
    return struct.pack("<IIQQ8x", whose, version, 0x1000, 0x5FFF) + TABLES


FILES = {
    "LiME": (captured(0x4C69_4D45, 2), "a memory capture of LiME of another version"),
    "AVML": (captured(0x4C4D_5641, 3), "a memory capture of AVML of another version"),
    "migration": (struct.pack(">II", 0x5145_564D, 3) + TABLES, "a migration stream of QEMU"),
    "virsh": (b"LibvirtQemudSave" + TABLES, "a saved guest of libvirt"),
    "vmss": (struct.pack("<I", 0xBED2_BED0) + TABLES, "a suspended guest of VMware"),
    "vmsn": (struct.pack("<I", 0xBED2_BED2) + TABLES, "a suspended guest of VMware"),
    "sav": (b"\x7fVirtualBox SavedState V2.0\n" + TABLES, "a saved guest of VirtualBox"),
    "dmp": (b"PAGEDU64" + TABLES, "a crash dump of Windows"),
    "dmp32": (b"PAGEDUMP" + TABLES, "a crash dump of Windows"),
    "hiberfil": (b"HIBR" + TABLES, "a hibernation file of Windows"),
    "qcow2": (b"QFI\xfb" + TABLES, "a disk image (qcow2)"),
    "gzip": (gzip.compress(TABLES), "compressed by gzip"),
    "xz": (lzma.compress(TABLES), "compressed by xz"),
    "zstd": (struct.pack("<I", 0xFD2F_B528) + TABLES, "compressed by zstd"),
    "tar": (b"ram".ljust(257, b"\0") + b"ustar" + TABLES, "a tar archive"),
    "info tlb": (b"0000000000001000: 0000000000005000 ----A---W\r\n" * 200, "text"),
    "short text": (b"PGD 2067 P4D 3067\n", "text"),
}


@pytest.mark.parametrize("name", FILES)
def test_what_is_not_memory_is_named_with_the_way_out(tmp_path: Path, name: str) -> None:
    content, what = FILES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    flat = ("--ram", path, "--cr3", "0x0")
    for source in (flat, ("--core", path)):
        code, out, errors = run("walk", "0x1000", *source, cwd=tmp_path)
        assert (code, out, errors.count("\n")) == (2, "", 1)
        assert what in errors
    code, _, errors = run("diff", f"ram:{path},cr3=0", f"ram:{path},cr3=0", cwd=tmp_path)
    assert (code, what in errors) == (2, True)
    code, out, errors = run("walk", "0x1000", *flat, "--flat", cwd=tmp_path)
    assert (code, errors) == (0, "")
    named = f"ram:{path},cr3=0,flat=1"
    assert run("diff", named, named, cwd=tmp_path)[0] == 0


@pytest.mark.parametrize("begin", [b"KDUMP   ", b"makedumpfile".ljust(16, b"\0")], ids=repr)
def test_a_core_of_kdump_is_given_to_the_option_that_reads_it(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "file").write_bytes(begin + TABLES)
    code, out, errors = run("dump", "--ram", "file", "--cr3", "0", cwd=tmp_path)
    assert (code, out, "give it with --core" in errors) == (2, "", True)


def test_an_elf_file_is_given_to_the_option_that_reads_it(tmp_path: Path) -> None:
    kinds = ((4, "an ELF core: give it with --core"), (2, "an ELF program"))
    for (kind, what), order in product(kinds, "<>"):
        known = b"\x7fELF\x02" + bytes(["?<>".index(order), 1]) + bytes(9)
        head = known + struct.pack(f"{order}HHI", kind, 22, 1) + TABLES
        (tmp_path / "file").write_bytes(head)
        code, out, errors = run("dump", "--ram", "file", "--cr3", "0", cwd=tmp_path)
        assert (code, out) == (2, "")
        assert what in errors


def test_memory_is_no_core(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(TABLES)
    code, out, errors = run("dump", "--core", "file", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "does not begin as an ELF file; memory as it is goes with --ram and the" in errors


@pytest.mark.parametrize(
    "begin",
    [
        bytes(64),
        struct.pack("<HH", 0xFF53, 0xF000) * 256,
        b"\xff" * 4096,
        b"\xcc" * 4096,
        b"UU" * 2048,
        b"Z" * 4096,
        b"(c) a firmware\n".ljust(4096, b"\0"),
    ],
    ids=["zeros", "vectors", "ones", "int3", "pattern", "letters", "text in zeros"],
)
def test_memory_is_memory_however_it_is_filled(tmp_path: Path, begin: bytes) -> None:
    (tmp_path / "ram").write_bytes(begin + TABLES)
    code, _, errors = run("dump", "--ram", "ram", "--cr3", "0", cwd=tmp_path)
    assert (code, errors) == (0, "")


def test_every_kind_begins_in_a_way_of_its_own() -> None:
    for number, one in enumerate(KNOWN):
        assert not any(other.begins.startswith(one.begins) for other in KNOWN[number + 1 :])
        assert len(one.begins) >= 3
        assert one.what and one.way


def elf(bits: int, ends: int, order: str, last: str) -> bytes:
    """The header of an ELF file with one segment and one section, at the end what is `last`."""
    head = b"\x7fELF" + bytes([bits // 32, "?<>".index(order), 1]) + bytes(9)
    one = 64 if bits == 64 else 40
    where, size = (ends - one, one) if last == "section" else (0x80, 0)
    size = ends - 0x100 - size
    if bits == 64:
        head += struct.pack(order + "HHIQQQI6H", 2, 62, 1, 0, 64, where, 0, 64, 56, 1, one, 1, 0)
        return head + struct.pack(order + "IIQQQQQQ", 1, 7, 0x100, 0, 0, size, 0, 0)
    head += struct.pack(order + "HHIIIII6H", 2, 3, 1, 0, 52, where, 0, 52, 32, 1, one, 1, 0)
    return head + struct.pack(order + "IIIIIIII", 1, 0x100, 0, 0, size, 0, 0, 0)


@pytest.mark.parametrize(("order", "last"), [("<", "section"), (">", "segment")])
@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize(
    ("ends", "size", "memory"),
    [
        (0x3000, 0x4000, True),
        (0x3001, 0x4000, False),
        (0x4000, 0x4000, False),
        (0x8000, 0x4000, False),  # a program that is cut short
        (0x2000, 0x4010, False),  # with something behind it, as archives have
    ],
)
def test_memory_with_a_program_at_its_beginning_goes_on_behind_it(
    tmp_path: Path, bits: int, order: str, last: str, ends: int, size: int, memory: bool
) -> None:
    (tmp_path / "ram").write_bytes(elf(bits, ends, order, last).ljust(size, b"\0"))
    where = ("--ram", "ram", "--cr3", "0x2000")
    code, out, errors = run("dump", *where, cwd=tmp_path)
    assert code == (0 if memory else 2)
    told = "ram is memory, though it begins with an ELF header: what that describes ends"
    assert (f"{told} at {ends:#x}, and the file at {size:#x}" in out) is memory
    assert ("not flat memory but an ELF program" in errors) is not memory
    assert run("dump", *where, "--flat", cwd=tmp_path)[0] == 0


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_elf_header_that_says_nothing_of_its_end_is_no_beginning_of_memory(
    tmp_path: Path, order: str
) -> None:
    """Of no class or byte order that there is, with more segments than are counted, with those of
    another size, with some behind the end of the file, cut short."""
    good, path = elf(64, 0x2000, order, "segment"), tmp_path / "ram"

    def with_segments(at: int, apiece: int, count: int) -> bytes:
        table, counts = struct.pack(f"{order}Q", at), struct.pack(f"{order}2H", apiece, count)
        return good[:32] + table + good[40:54] + counts + good[58:]

    size = 0x40_0000  # with room for more segments than are counted
    for octets, end in (
        (good, 0x2000),
        (with_segments(0, 0, 0), 0xC0),
        (with_segments(size - 0x1038, 56, 1), size - 0x1000),
        (good[:4] + b"\x03" + good[5:], None),
        (good[:5] + b"\x03" + good[6:], None),
        (good[:4] + b"\0\0" + good[6:], None),
        (with_segments(64, 56, 0xFFFF), None),
        (with_segments(64, 64, 1), None),
        (with_segments(64, 0, 1), None),
        (with_segments(size - 0x1037, 56, 1), None),
        (with_segments(size - 55, 56, 1), None),
        (with_segments(1 << 63, 56, 1), None),
    ):
        path.write_bytes(octets)
        os.truncate(path, size)
        if end is None:
            with pytest.raises(SourceError, match="is not flat memory but an ELF program"):
                as_memory(path, Content.of_file(path))
        else:
            assert f"ends at {end:#x}" in (as_memory(path, Content.of_file(path)) or "")
    path.write_bytes(good[:50])
    with pytest.raises(SourceError, match="is not flat memory but an ELF program"):
        as_memory(path, Content.of_file(path))


def test_a_few_letters_may_be_memory(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    path.write_bytes(b"PGD 2067 P4D 6\n")
    assert as_memory(path, Content.of_file(path)) is None
    path.write_bytes(b"PGD 2067 P4D 67\n")
    with pytest.raises(SourceError, match="is not flat memory but text"):
        as_memory(path, Content.of_file(path))


def test_memory_that_ends_in_the_middle_of_a_page_may_be_cut_short(tmp_path: Path) -> None:
    for size, cut in ((0x3000, False), (0x2FF8, True), (0x2801, True)):
        (tmp_path / "ram").write_bytes(bytes(size))
        code, out, _ = run("walk", "0x1000", "--ram", "ram", "--cr3", "0x1000", cwd=tmp_path)
        assert code == 0
        said = "ram was not cut short (its size is not a multiple of 4096)"
        assert (said in " ".join(out.split())) is cut
