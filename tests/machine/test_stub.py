"""The stub as a file. Layouts are those of the C structures, computed here by hand."""

from __future__ import annotations

import io
import random
import struct
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from harness.machine.errors import Misuse
from harness.machine.ram import ARENA, ARENA_UNIT, JOB_ARENA, STUB, TABLE_ARENA
from harness.machine.stub import LARGEST_FILE, StubImage
from harness.machine.x86.stub import BUILD

PAGE = 4096
WHOLE = BUILD.path.read_bytes() if BUILD.path.exists() else b""


@pytest.fixture(scope="module")
def image() -> StubImage:
    return StubImage.load(BUILD)


def test_the_layouts_are_those_of_c(image: StubImage) -> None:
    job = {
        "address": 0,
        "value": 8,
        "access": 16,
        "size": 19,
        "watched": 22,
        "where": 24,
        "word": 72,
    }
    result = {
        "data": 0,
        "cr2": 8,
        "rip": 16,
        "error": 24,
        "vector": 28,
        "completed": 29,
        "after": 32,
    }
    for dtype, offsets, size in (
        (image.job_dtype, job, 120),
        (image.result_dtype, result, 80),
    ):
        assert dtype.itemsize == size
        assert dtype.fields is not None
        assert {name: dtype.fields[name][1] for name in offsets} == offsets
    assert image.job_dtype["where"].shape == image.result_dtype["after"].shape == (6,)
    assert image.batch_dtype.itemsize == 20 * 8


def test_the_enumerators_are_those_of_the_protocol(image: StubImage) -> None:
    assert image.enums["PROTOCOL_VERSION"] == 4
    assert image.enums["VECTOR_NONE"] == 0xFF
    assert image.enums["CR2_UNTOUCHED"] == 0x5A5A_5A5A_5A5A_5A5A
    accesses = [image.enums[f"ACCESS_{name}"] for name in ("NONE", "READ", "WRITE", "FETCH")]
    assert accesses == [0, 1, 2, 3]


def test_code_and_data_share_no_page(image: StubImage) -> None:
    parts = [image.text, image.user, image.data]
    assert all(part.start % PAGE == 0 == part.stop % PAGE for part in parts)
    assert all(part.start >= STUB.start and part.stop <= STUB.stop for part in parts)
    assert image.text.stop <= image.user.start
    assert image.user.stop <= image.data.start
    assert image.batch in image.data


def test_a_stub_is_moved_with_all_its_addresses(image: StubImage) -> None:
    """As a linker that was told another base would have it: of two bases no file differs in more
    than the addresses that move, and the way back leads to the same file."""
    by = 2 * ARENA_UNIT
    moved = image.moved(by)
    assert (moved.base, moved.arena) == (by, range(by, by + len(ARENA)))
    assert moved.table_arena.start == TABLE_ARENA.start + by
    assert moved.job_arena.stop == JOB_ARENA.stop + by
    for name in ("text", "user", "data"):
        assert getattr(moved, name).start == getattr(image, name).start + by
    assert (moved.batch, moved.machine_info) == (image.batch + by, image.machine_info + by)
    assert moved.moved(0).content == image.content != moved.content
    read = StubImage.load(BUILD, image.path)
    assert read.content == image.content  # the file is as it was
    elf = ELFFile(io.BytesIO(moved.content))
    assert elf["e_entry"] in moved.text
    places = [(one["p_paddr"], one["p_vaddr"]) for one in elf.iter_segments("PT_LOAD")]
    assert [place - by for place, _ in places] == [
        one.start for one in (image.text, image.user, image.data)
    ]
    assert all(physical == virtual for physical, virtual in places)


@pytest.mark.parametrize("base", [-ARENA_UNIT, 1 << 20, ARENA_UNIT + 4096, 1 << 32])
def test_a_base_that_no_arena_has_is_refused(image: StubImage, base: int) -> None:
    with pytest.raises(Misuse, match="no arena begins at"):
        image.moved(base)


def test_a_stub_that_reaches_no_address_above_2_gib_is_not_moved(image: StubImage) -> None:
    """Of the relocations those that are sign-extended, and all that are not known."""
    content = bytearray(image.content)
    elf = ELFFile(io.BytesIO(image.content))
    section = elf.get_section_by_name(".rela.text")
    assert isinstance(section, RelocationSection)
    assert all(one["r_info_type"] in (2, 4, 10) for one in section.iter_relocations())
    struct.pack_into("<I", content, section["sh_offset"] + 8, 11)
    with pytest.raises(Misuse, match="cannot be moved: it has a relocation of type 11"):
        replace(image, content=bytes(content)).moved(ARENA_UNIT)


def test_a_stub_without_relocations_is_not_moved(image: StubImage, tmp_path: Path) -> None:
    path = tmp_path / "stripped.elf"
    subprocess.run(["strip", "-o", path, image.path], check=True)
    with pytest.raises(Misuse, match=r"linked without its relocations.*make guest"):
        replace(image, content=path.read_bytes()).moved(ARENA_UNIT)


def test_new_jobs_are_zero(image: StubImage) -> None:
    jobs = image.new_jobs(3)
    assert jobs.shape == (3,)
    assert jobs.tobytes() == bytes(360)


def load(content: bytes, directory: Path) -> StubImage:
    path = directory / "broken.elf"
    path.write_bytes(content)
    return StubImage.load(BUILD, path)


def test_a_missing_file_is_told_how_to_build(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"cannot be read .*make guest"):
        StubImage.load(BUILD, tmp_path / "none.elf")


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"#!/bin/sh\n", bytes(1000), b"\xff" * 5000], ids=repr
)
def test_what_is_no_elf_file_is_refused(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match=r"is not a stub: .*make guest"):
        load(content, tmp_path)


def test_a_file_of_absurd_size_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.elf"
    with path.open("wb") as file:
        file.truncate(LARGEST_FILE + 1)
    with pytest.raises(Misuse, match="is not a stub"):
        StubImage.load(BUILD, path)


def test_a_stub_that_was_built_before_the_protocol_changed_is_refused(
    image: StubImage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness.machine.stub.PROTOCOL", 99)
    content = image.path.read_bytes() + b"\0"  # what was read before is not read again
    with pytest.raises(Misuse, match=r"it speaks version 4 of the protocol, and this 99\. .*make"):
        load(content, tmp_path)


def test_another_program_is_refused() -> None:
    with pytest.raises(Misuse, match="is not a stub"):
        StubImage.load(BUILD, Path("/bin/true"))


@pytest.mark.parametrize("part", range(1, 40))
def test_a_truncated_stub_is_refused(part: int, tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="is not a stub"):
        load(WHOLE[: len(WHOLE) * part // 40], tmp_path)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_stub_is_sound_or_refused(seed: int, tmp_path: Path) -> None:
    """Whatever 20 changed bytes do: no other exception, no hang, nothing outside the stub's MiB."""
    chance = random.Random(seed)
    content = bytearray(WHOLE)
    for _ in range(20):
        content[chance.randrange(len(content))] = chance.randrange(256)
    try:
        image = load(bytes(content), tmp_path)
    except Misuse:
        return
    assert all(part.start >= STUB.start for part in (image.text, image.user, image.data))
    assert all(part.stop <= STUB.stop for part in (image.text, image.user, image.data))


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (0x10, 3, "not an executable"),  # e_type: shared object
        (0x12, 0xB7, "not an executable"),  # e_machine: AArch64
        (0x38, 0, "loads nothing"),  # e_phnum
    ],
)
def test_a_header_that_asks_for_another_machine_is_refused(
    offset: int, value: int, reason: str, tmp_path: Path
) -> None:
    content = bytearray(WHOLE)
    content[offset] = value
    with pytest.raises(Misuse, match=reason):
        load(bytes(content), tmp_path)
