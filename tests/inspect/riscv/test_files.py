"""Cores and files of memory of RISC-V: satp is given, or told by VMCOREINFO."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.inspect.riscv.vmcoreinfo import satp
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import core, ram, vmcoreinfo
from harness.inspect.sources.content import Content
from harness.inspect.sources.vmcoreinfo import left_in
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, R, V, W

RAM = 0x8000_0000
ROOT = RAM + 0x1000
PAGE = RAM >> 12 << 10 | V | R | W | A | D
SATP = 8 << 60 | ROOT >> 12

TEXT = b"""OSRELEASE=6.12.117+deb13-riscv64
SYMBOL(swapper_pg_dir)=ffffffff81dcb000
NUMBER(VA_BITS)=57
NUMBER(va_kernel_pa_offset)=0xfffffffeffe00000
"""
"""As Debian 13's kernel says it."""

OF_SV39 = TEXT.replace(b"57", b"39").replace(b"ffffffff81dcb000", b"ffffffff7fe01000")


def memory(*texts: bytes) -> bytes:
    """16K: a root of Sv39 that maps the first gigabyte of RAM at 0, and what a kernel left."""
    content = bytearray(16 << 10)
    struct.pack_into("<Q", content, ROOT - RAM, PAGE)
    at = 8 << 10
    for text in texts:
        note = struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text
        content[at : at + len(note)] = note
        at += 1024
    return bytes(content)


def core_of(
    path: Path, content: bytes, machine: int = 243, notes: bytes = b"", virtual: int = RAM
) -> Path:
    """An ELF core of 64 bits with its notes, and one segment at RAM."""
    head = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1", 4, machine, 1, 0, 64, 0, 0, 64,
                       56, 2, 64, 0, 0)  # fmt: skip
    at = 64 + 2 * 56
    program = struct.pack("<IIQQQQQQ", 4, 0, at, 0, 0, len(notes), len(notes), 4)
    first = at + len(notes)
    program += struct.pack("<IIQQQQQQ", 1, 7, first, virtual, RAM, len(content), len(content), 8)
    path.write_bytes(head + program + notes + content)
    return path


def reaches(found: Snapshot) -> bool:
    """Whether it has the root's table."""
    assert isinstance(found.cpu, Cpu)
    return found.cpu.satp == SATP and found.memory.load(found.cpu.base, 8) == PAGE


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (TEXT, 10 << 60 | 0x81FCB),
        (TEXT.replace(b"57", b"48"), 9 << 60 | 0x81FCB),
        (OF_SV39, SATP),
        (OF_SV39.replace(b"0xfffffffeffe00000", b"%d" % -0x1_0020_0000), SATP),
        (TEXT.replace(b"57", b"32"), None),
        (TEXT.replace(b"SYMBOL(swapper", b"SYMBOL(other"), None),
        (TEXT.replace(b"NUMBER(va_kernel", b"NUMBER(kernel"), None),
        (TEXT.replace(b"81dcb000", b"81dcb008"), None),
        (TEXT.replace(b"ffffffff81dcb000", b"0").replace(b"0xfffffffeffe00000", b"0x1000"), None),
        (b"", None),
    ],
)
def test_satp_is_told_by_the_kernels_image_and_the_width_of_addresses(
    text: bytes, found: int | None
) -> None:
    assert satp(text) == found


def test_a_core_without_satp_asks_for_it(tmp_path: Path) -> None:
    path = core_of(tmp_path / "core", memory())
    with pytest.raises(SourceError, match=r"core of RISC-V, does not record satp, .* add --satp$"):
        core.snapshot(path, 0, {})
    assert reaches(core.snapshot(path, 0, {"satp": SATP}))


def test_the_note_of_a_core_tells_satp_before_its_memory(tmp_path: Path) -> None:
    note = struct.pack("<III", 11, len(OF_SV39), 0) + b"VMCOREINFO\0\0" + OF_SV39 + b"\0"
    notes = note + bytes(-len(note) % 4)
    for number, texts in enumerate(((), (TEXT,))):
        path = core_of(tmp_path / f"core{number}", memory(*texts), notes=notes)
        assert reaches(core.snapshot(path, 0, {}))


def test_a_hart_that_a_core_does_not_have_is_refused(tmp_path: Path) -> None:
    """QEMU writes a note CORE of each (target/riscv/arch_dump.c)."""
    of_hart = struct.pack("<III", 5, 4, 1) + b"CORE\0\0\0\0" + bytes(4)
    for harts in (0, 1, 2):
        path = core_of(tmp_path / f"core{harts}", memory(), notes=harts * of_hart)
        last = max(harts, 1) - 1
        assert core.snapshot(path, last, {"satp": SATP}).title.endswith(f"processor {last}")
        with pytest.raises(SourceError, match=f"has no processor {last + 1}: it has 0 to {last}$"):
            core.snapshot(path, last + 1, {"satp": SATP})


def test_a_core_that_has_what_the_guest_maps_alone_says_so(tmp_path: Path) -> None:
    for virtual in (RAM, 0xFFFF_FFFF_8000_0000):
        found = core.snapshot(
            core_of(tmp_path / "core", memory(), virtual=virtual), 0, {"satp": SATP}
        )
        said = [one for one in found.assumed if "written with -p" in one]
        assert len(said) == (virtual != RAM) and reaches(found)


@pytest.mark.parametrize("form", ["core", "ram"])
def test_the_linux_that_left_its_text_in_memory_tells_satp(tmp_path: Path, form: str) -> None:
    def read(*texts: bytes) -> Snapshot:
        if form == "core":
            return core.snapshot(core_of(tmp_path / "file", memory(*texts)), 0, {})
        (tmp_path / "file").write_bytes(memory(*texts))
        return ram.snapshot([ram.Placed(tmp_path / "file", RAM)], {})

    found = read(OF_SV39)
    assert reaches(found)
    of_it = {"core": "a core", "ram": "a file of memory"}[form]
    assert found.assumed[:3] == (
        f"the tables are those of Linux itself, by its VMCOREINFO (--satp {SATP:#x})",
        f"mstatus.SUM=0 and MXR=0, since {of_it} does not record them (--mstatus)",
        f"entries have Svnapot and Svpbmt, since {of_it} does not record menvcfg; and the hart"
        " sets neither A nor D (--menvcfg)",
    )
    with pytest.raises(SourceError, match=r"several kernels: choose one, --satp 0x80.* or --satp"):
        read(OF_SV39, TEXT)


def test_memory_is_looked_through_once_whatever_it_is_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = list[Content]()

    def counted(content: Content) -> Iterator[bytes]:
        looked.append(content)
        return left_in(content)

    monkeypatch.setattr(ram, "left_in", counted)
    (tmp_path / "file").write_bytes(memory(OF_SV39))
    assert reaches(ram.snapshot([ram.Placed(tmp_path / "file", RAM)], {}))
    assert len(looked) == 1


@pytest.mark.parametrize("before", [0, 4, 12, 16, 30, 100])
def test_a_text_is_found_wherever_it_begins(tmp_path: Path, before: int) -> None:
    """Bytes before the end of a part of memory that is looked through at once; a longer name is
    another note's."""
    path, part = tmp_path / "file", vmcoreinfo._PART
    note = struct.pack("<III", 11, len(TEXT), 0) + b"VMCOREINFO\0\0" + TEXT
    with path.open("wb") as file:
        file.write(note.replace(b"INFO\0\0", b"INFO_2").replace(TEXT, OF_SV39))
        file.seek(part - before)
        file.write(note)
        file.truncate(3 * part)
    assert list(left_in(Content.of_file(path))) == [TEXT]


def test_a_file_of_ram_without_where_its_tables_are_asks_for_satp(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(memory(TEXT.replace(b"57", b"32")))
    with pytest.raises(SourceError, match=r"add --satp$"):
        ram.snapshot([ram.Placed(tmp_path / "file", RAM)], {})


@pytest.mark.parametrize(("name", "value"), [("cr3", 0x1000), ("cr4", 0x20)])
def test_registers_of_x86_mean_nothing_there(tmp_path: Path, name: str, value: int) -> None:
    path = core_of(tmp_path / "core", memory())
    with pytest.raises(SourceError, match=f"is of RISC-V, where --{name} means nothing"):
        core.snapshot(path, 0, {"satp": SATP, name: value})


def test_a_satp_that_translates_nothing_is_refused(tmp_path: Path) -> None:
    path = core_of(tmp_path / "core", memory())
    for wrong, said in ((0, "paging is off"), (3 << 60, "reserved MODE 3")):
        with pytest.raises(SourceError, match=said):
            core.snapshot(path, 0, {"satp": wrong})


def test_cores_of_machines_that_nobody_reads_are_named(tmp_path: Path) -> None:
    path = core_of(tmp_path / "core", memory(), machine=8)
    with pytest.raises(SourceError, match=r"another machine than .*: EM_MIPS"):
        core.snapshot(path, 0, {"satp": SATP})


def test_the_mode_is_that_of_satp(tmp_path: Path) -> None:
    path = core_of(tmp_path / "core", memory())
    for number, mode in ((8, Mode.SV39), (9, Mode.SV48), (10, Mode.SV57)):
        assert core.snapshot(path, 0, {"satp": number << 60 | ROOT >> 12}).cpu.mode is mode
