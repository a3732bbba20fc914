"""Memory as it lies in files: with holes, captured, compressed, flattened, in a core of Linux."""

from __future__ import annotations

import io
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import cramjam
import lzallright
import numpy as np
import numpy.typing as npt
import pytest

from harness.cli.source import Source
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import capture, kdump
from harness.inspect.sources.content import Content
from harness.inspect.sources.pieces import Pieces
from harness.machine.errors import Misuse
from harness.paging.address import Physical, Span
from harness.paging.x86.cpu import Mode
from tests.cli.commands import run
from tests.inspect.sources.machines import STUB, running
from tests.inspect.sources.test_core import CR0, entries, note, written
from tests.inspect.spaces import listed, same

HIGH = 1 << 32
PAGE = 4096
ROOT = 0x1000
LEAF = HIGH + 0x5000
ADDRESS = 1 << 39 | 1 << 30 | 1 << 21 | 1 << 12

LOW_MEMORY = entries() + entries(i1=0x2003) + entries(i1=HIGH | 3)
"""From 0 on: nothing, a root at 0x1000, and the table of it, which leads above a hole."""

HIGH_MEMORY = entries(i1=HIGH + 0x1003) + entries(i1=LEAF | 3)
"""From 4G on: the two tables below."""

MEMORY = {0: LOW_MEMORY, HIGH: HIGH_MEMORY}


def opened(text: str) -> Snapshot:
    with Source.named(text).opened() as snapshot:
        return snapshot


def leads(snapshot: Snapshot) -> list[tuple[int, int]]:
    leaves = listed(snapshot)
    return list(zip(leaves.virtual.tolist(), leaves.physical.tolist(), strict=True))


# Files of memory, each at an address


def test_files_of_memory_lie_at_their_addresses(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high@1"
    low.write_bytes(LOW_MEMORY)
    high.write_bytes(HIGH_MEMORY + b"123")
    for text in (
        f"ram:{low}@0,ram={high}@{HIGH:#x},cr3={ROOT:#x}",
        f"ram:{high}@{HIGH:#x},cr3={ROOT:#x},ram={low}",
    ):
        snapshot = opened(text)
        assert leads(snapshot) == [(ADDRESS, LEAF)]
        assert sorted(snapshot.backed or ()) == [Span(0, 0x2FFF), Span(HIGH, HIGH + 0x1FFF)]
    alone = opened(f"ram:{high}@{HIGH:#x},cr3={HIGH:#x}")
    assert alone.backed == (Span(HIGH, HIGH + 0x1FFF),)
    code, out, errors = run(
        *("walk", f"{ADDRESS:#x}", "--ram", f"{low}@0x0", "--ram", f"{high}@{HIGH:#x}"),
        *("--cr3", f"{ROOT:#x}"),
        cwd=tmp_path,
    )
    assert (code, errors) == (0, "")
    assert f"{LEAF:#x}" in out


def test_a_file_whose_name_has_an_at_is_that_file(tmp_path: Path) -> None:
    path = tmp_path / "ram@0x1000"
    path.write_bytes(LOW_MEMORY)
    assert opened(f"ram:{path},cr3={ROOT:#x}").backed == (Span(0, 0x2FFF),)


def test_files_that_overlap_or_lie_at_no_address_are_a_sentence(tmp_path: Path) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    low.write_bytes(LOW_MEMORY)
    high.write_bytes(HIGH_MEMORY)
    with pytest.raises(SourceError, match=r"low and .*high overlap: the first reaches to 0x2fff"):
        opened(f"ram:{high}@0x2000,ram={low},cr3=0x1000")
    with pytest.raises(Misuse, match=r"the address of .*low"):
        opened(f"ram:{low}@here,cr3=0x1000")
    with pytest.raises(SourceError, match="does not begin at a multiple of 8"):
        opened(f"ram:{low}@0x1001,cr3=0x1000")
    with pytest.raises(SourceError, match=r"reaches beyond what 64 bits can say"):
        opened(f"ram:{low}@{(1 << 64) - 0x1000:#x},cr3=0x1000")
    high.write_bytes(lime(MEMORY))
    with pytest.raises(SourceError, match="says itself where that lies"):
        opened(f"ram:{high}@0x5000,cr3=0x1000")
    with pytest.raises(SourceError, match="says itself where that lies"):
        opened(f"ram:{low},ram={high},cr3=0x1000")


# Captures


def head(whose: bytes, first: int, size: int) -> bytes:
    return struct.pack("<8sQQ8x", whose, first, first + size - 1)


def lime(memory: Mapping[int, bytes]) -> bytes:
    return b"".join(
        head(capture.LIME, first, len(octets)) + octets for first, octets in memory.items()
    )


def avml(memory: Mapping[int, bytes]) -> bytes:
    """As AVML writes it; the frames are another's work."""
    whole = b""
    for first, octets in memory.items():
        frames = bytes(cramjam.snappy.compress(octets))
        whole += head(capture.AVML, first, len(octets)) + frames + struct.pack("<Q", len(frames))
    return whole


def both(memory: Mapping[int, bytes]) -> bytes:
    return avml(memory) + lime({1 << 40: bytes(8)})


FORMATS = {"LiME": lime, "AVML": avml, "both": both}


@pytest.mark.parametrize("name", FORMATS)
def test_a_capture_has_its_blocks_where_it_says(tmp_path: Path, name: str) -> None:
    path = tmp_path / "capture"
    path.write_bytes(FORMATS[name](MEMORY))
    snapshot = opened(f"ram:{path},cr3={ROOT:#x}")
    assert leads(snapshot) == [(ADDRESS, LEAF)]
    assert snapshot.backed is not None
    assert snapshot.backed[:2] == (Span(0, 0x2FFF), Span(HIGH, HIGH + 0x1FFF))
    five = opened(f"ram:{path},cr3={ROOT:#x},cr4=0x1020")
    assert five.cpu.mode is Mode.LEVEL_5


def test_a_block_of_many_frames_is_read_anywhere(tmp_path: Path) -> None:
    random = np.random.default_rng(1).integers(0, 1 << 64, 1 << 16, np.uint64)
    words = np.where(np.arange(1 << 16) % 512 < 100, random, np.uint64(0))
    path = tmp_path / "capture"
    path.write_bytes(avml({0x7000: words.tobytes()}))
    memory = opened(f"ram:{path},cr3=0x7000").memory
    for chosen in (np.arange(1 << 16), np.array([8191, 8192, 3, 65535])):
        found, backed = memory.gather(
            chosen.astype(np.uint64) * np.uint64(8) + np.uint64(0x7000), 8
        )
        assert backed is None
        assert np.array_equal(found, words[chosen])


def test_a_frame_says_how_much_it_holds_in_as_many_bytes_as_that_takes(tmp_path: Path) -> None:
    """At both sides of each power of 128 (snappy, format_description.txt, 1)."""
    whole, memory = b"", b""
    for size in (1, 126, 127, 128, 129, 255, 256, (1 << 14) - 1, 1 << 14, 1 << 16):
        octets = bytes([size % 251]) * size
        packed = bytes(4) + bytes(cramjam.snappy.compress_raw(octets))
        whole += struct.pack("<I", len(packed) << 8) + packed
        memory += octets
    path = tmp_path / "capture"
    path.write_bytes(head(capture.AVML, 0, len(memory)) + whole + struct.pack("<Q", len(whole)))
    held = capture.memory(Content.of_file(path))
    assert held.backed == (Span(0, len(memory) - 1),)
    assert held.content.part(0, len(memory)).tobytes() == memory


def test_frames_of_more_than_their_block_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    whole = avml({0x1000: bytes(PAGE)})
    path.write_bytes(head(capture.AVML, 0x1000, PAGE) + whole[32:])
    assert capture.memory(Content.of_file(path)).backed == (Span(0x1000, 0x1FFF),)
    for size in (PAGE - 1, 8):
        path.write_bytes(head(capture.AVML, 0x1000, size) + whole[32:])
        with pytest.raises(SourceError, match=r"the block of 0x1000\.\.\w+ has more memory than"):
            capture.memory(Content.of_file(path))


@pytest.mark.parametrize("begin", [b"\xff" * 8, b"\0" * 8, b"\x81\x80\x04" * 3], ids=bytes.hex)
def test_a_frame_that_says_no_size_or_one_that_no_frame_has_is_damaged(
    tmp_path: Path, begin: bytes
) -> None:
    path = tmp_path / "capture"
    frame = struct.pack("<I", 4 + len(begin) << 8) + bytes(4) + begin
    path.write_bytes(head(capture.AVML, 0, 1 << 17) + frame)
    with pytest.raises(SourceError, match="there is no snappy frame at 0x20"):
        capture.memory(Content.of_file(path))


# Cores in the format of kdump


COMPRESSED: dict[int, Callable[[bytes], bytes]] = {
    0: bytes,
    1: zlib.compress,
    2: lambda page: lzallright.LZOCompressor().compress(page),
    4: lambda page: bytes(cramjam.snappy.compress_raw(page)),
    0x20: lambda page: bytes(cramjam.zstd.compress(page)),
}


def dumped(
    memory: Mapping[int, bytes],
    flag: int = 1,
    *,
    width: int = 64,
    notes: bytes = note(ROOT),
    info: bytes = b"",
    head: Mapping[str, int] = MappingProxyType({}),
    there: tuple[int, ...] = (),
) -> bytes:
    """A core of these pages, all compressed in one way; the pages `there` are not in the file."""
    pages = {
        first // PAGE + number // PAGE: octets[number : number + PAGE]
        for first, octets in memory.items()
        for number in range(0, len(octets), PAGE)
    }
    count = max((*pages, *there)) + 1
    blocks = -(-count // (8 * PAGE))
    values = {"pages": count, "split": 0, "block": PAGE, "flags": flag, **head}
    rest = struct.pack("<10I", values["block"], 1, 2 * blocks, values["pages"], 0, 0, 0, 0, 0, 1)
    first = (b"KDUMP   " + struct.pack("<I", 6)).ljust(428 if width == 64 else 416, b"\0") + rest
    layout = "<QiiQQQQQQQQQQQ" if width == 64 else "<IiiIIQIQIQIQQQ"
    notes_at = PAGE + struct.calcsize(layout)
    second = struct.pack(
        layout,
        *(0, 0, values["split"], 0, 0, notes_at + len(notes), len(info), notes_at, len(notes)),
        *(0, 0, 0, 0, values["pages"]),
    )
    octets = first.ljust(PAGE, b"\0") + (second + notes + info).ljust(PAGE, b"\0")
    for members in ({*pages, *there}, pages):
        bits = np.zeros(blocks * 8 * PAGE, np.uint8)
        bits[list(members)] = 1
        octets += np.packbits(bits, bitorder="little").tobytes()
    place, content = len(octets) + 24 * len(pages), b""
    for number in sorted(pages):
        packed = COMPRESSED[flag](pages[number])
        octets += struct.pack("<QIIQ", place + len(content), len(packed), values["flags"], 0)
        content += packed
    return octets + content


def flattened(octets: bytes, piece: int = 1000) -> bytes:
    """The same in pieces, each after its place: the first as makedumpfile does, which writes a head
    that it corrects at the end."""
    parts = [
        (0, bytes(PAGE)),
        *((at, octets[at : at + piece]) for at in range(0, len(octets), piece)),
    ]
    whole = struct.pack(">16sqq", b"makedumpfile", 1, 1).ljust(PAGE, b"\0")
    for at, part in parts:
        whole += struct.pack(">qq", at, len(part)) + part
    return whole + struct.pack(">qq", -1, -1)


@pytest.mark.parametrize("flag", COMPRESSED)
@pytest.mark.parametrize("width", [64, 32])
@pytest.mark.parametrize("flat", [False, True], ids=["", "flattened"])
def test_a_kdump_has_its_pages_and_registers(
    tmp_path: Path, flag: int, width: int, flat: bool
) -> None:
    path = tmp_path / "core"
    octets = dumped(MEMORY, flag, width=width)
    path.write_bytes(flattened(octets) if flat else octets)
    snapshot = opened(f"core:{path}" + (",efer=0xd00" if width == 32 else ""))
    assert leads(snapshot) == [(ADDRESS, LEAF)]
    assert snapshot.backed == (Span(0, 0x2FFF), Span(HIGH, HIGH + 0x1FFF))
    assert (snapshot.cpu.cr3, snapshot.cpu.cr0) == (ROOT, CR0)


def test_a_kdump_is_not_said_to_hold_what_the_guest_maps_alone(tmp_path: Path) -> None:
    """As an ELF core is that was written with -p."""
    (tmp_path / "core").write_bytes(dumped(MEMORY))
    snapshot = opened(f"core:{tmp_path / 'core'}")
    assert snapshot.assumed and not any("with -p" in one for one in snapshot.assumed)


@pytest.mark.parametrize(
    ("limit", "flat", "most"),
    [
        ("MOST_PAGES", False, (HIGH >> 12) + 2),
        ("MOST_EDGES", False, 3),  # three bytes of the map: that of 0, the next, that of 4G
        ("MOST_PIECES", True, 37),
    ],
)
def test_as_much_of_a_kdump_is_looked_at_as_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, flat: bool, most: int
) -> None:
    octets = dumped(MEMORY)
    piece = -(-len(octets) // (most - 1))  # one more is the head
    path = tmp_path / "core"
    path.write_bytes(flattened(octets, piece) if flat else octets)
    monkeypatch.setattr(kdump, limit, most)
    assert leads(opened(f"core:{path}")) == [(ADDRESS, LEAF)]
    monkeypatch.setattr(kdump, limit, most - 1)
    with pytest.raises(SourceError, match="more than"):
        opened(f"core:{path}")


def test_pages_that_were_left_out_are_no_memory_and_said(tmp_path: Path) -> None:
    path = tmp_path / "core"
    for there, said in (((), False), ((7,), True)):
        path.write_bytes(dumped(MEMORY, there=there))
        snapshot = opened(f"core:{path}")
        assert any("left pages out" in one for one in snapshot.assumed) is said
        assert snapshot.memory.load(7 * PAGE, 8) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("pages", [1, 7, 8, 9, 17, 64, 65])
def test_the_map_of_pages_is_read_to_its_end(pages: int) -> None:
    random = np.random.default_rng(pages)
    for _ in range(50):
        bits = random.integers(0, 2, pages, np.uint8)
        octets = np.packbits(bits, bitorder="little")
        edges = kdump._edges(Path("core"), octets, pages).tolist()
        found = [page for one in range(0, len(edges), 2) for page in range(*edges[one : one + 2])]
        assert found == np.flatnonzero(bits).tolist()


def test_runs_of_pages_that_are_all_there_or_all_left_out_are_one_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(kdump, "MOST_EDGES", 2)
    octets = np.repeat(np.array([0, 0xFF, 0], np.uint8), 64)
    assert kdump._edges(Path("core"), octets, 8 * len(octets)).tolist() == [512, 1024]


@pytest.mark.parametrize("end", [(-1, -1), (-1, 8), (0, -1)], ids=str)
def test_a_negative_number_ends_the_pieces(tmp_path: Path, end: tuple[int, int]) -> None:
    path = tmp_path / "core"
    path.write_bytes(flattened(dumped(MEMORY))[:-16] + struct.pack(">qq", *end))
    assert leads(opened(f"core:{path}")) == [(ADDRESS, LEAF)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"split": 1},
            "one part of a split dump: put them together with makedumpfile --reassemble",
        ),
        ({"block": 65536}, "its head names no pages of 4096 bytes"),
        ({"pages": 0xFFFF_FFFF}, "names 4,294,967,295 pages, more than the 4 TiB that are read"),
        ({"pages": 0}, "names no pages"),
        ({"pages": 1 << 29}, "is cut short"),
        ({"flags": 2}, "is not what lzo writes"),
        ({"flags": 3}, "flags 0x3"),
        ({"flags": 0}, "flags 0x0"),
        ({"flags": 4}, "is not what snappy writes|gives"),
        ({"flags": 0x20}, "is not what zstd writes"),
    ],
    ids=str,
)
def test_a_kdump_that_cannot_be_read_is_a_sentence(
    tmp_path: Path, change: dict[str, int], said: str
) -> None:
    path = tmp_path / "core"
    path.write_bytes(dumped(MEMORY, head=change))
    with pytest.raises(SourceError, match=said):
        listed(opened(f"core:{path}"))


def test_a_kdump_that_holds_no_page_is_not_said_to_be_empty(tmp_path: Path) -> None:
    whole, path = dumped(MEMORY), tmp_path / "core"
    (maps,) = struct.unpack_from("<I", whole, 436)  # in blocks: there, and in the file
    second = (2 + maps // 2) * PAGE
    none = whole[:second] + bytes(maps // 2 * PAGE) + whole[second + maps // 2 * PAGE :]
    for octets in (none, flattened(none)):
        path.write_bytes(octets)
        with pytest.raises(SourceError, match="every page was left out of it"):
            opened(f"core:{path}")
    path.write_bytes(flattened(b""))
    with pytest.raises(SourceError, match="is flattened, but holds no kdump-compressed core"):
        opened(f"core:{path}")
    path.write_bytes(flattened(b"")[:PAGE] + struct.pack(">qq", -1, -1))
    with pytest.raises(SourceError, match="is flattened, but holds no kdump-compressed core"):
        opened(f"core:{path}")


def test_no_pieces_are_no_bytes() -> None:
    none = np.zeros(0, np.uint64)
    assert Pieces(none, none, lambda *_: np.zeros(0, np.uint8)).size == 0


def test_what_a_piece_says_of_its_zeros_is_said_of_the_bytes_that_it_is() -> None:
    """Two pieces, from 0x10 and 0x30 on, with 8 zeros at the beginning of the second."""
    start, size = np.array([0x30, 0x10], np.uint64), np.array([0x10, 0x10], np.uint64)

    def ahead(number: int, place: int) -> int:
        return place if number else max(place, 8)

    pieces = Pieces(start, size, lambda *_: np.zeros(0, np.uint8), ahead)
    alone = Pieces(start[:1], size[:1], lambda *_: np.zeros(0, np.uint8), ahead)
    for place, data in ((0x30, 0x38), (0x37, 0x38), (0x39, 0x39), (0x40, 0x40), (0x12, 0x12)):
        assert (pieces.data(place), alone.data(place)) == (data, data)
    beyond = Pieces(start[:1], size[:1], lambda *_: np.zeros(0, np.uint8), lambda *_: 0x100)
    assert beyond.data(0x30) == 0x40, "of other pieces it says nothing"


def test_of_a_compressed_piece_the_place_in_the_file_says_nothing_of_zeros() -> None:
    blocks = capture._Blocks(place=[0x10, 0x20], packed=[True, False])
    content: Any = SimpleNamespace(data=lambda place: place + 0x100)
    ahead = capture._ahead(content, blocks)
    assert (ahead(0, 5), ahead(1, 5)) == (5, 0x105)


def test_a_capture_has_as_many_frames_as_are_looked_at_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ram"
    path.write_bytes(avml({0: bytes(3 << 16)}))  # of 64 KiB each, behind the head of the stream
    monkeypatch.setattr(capture, "MOST", 4)
    assert capture.memory(Content.of_file(path)).backed == (Span(0, (3 << 16) - 1),)
    monkeypatch.setattr(capture, "MOST", 3)
    with pytest.raises(SourceError, match="has more than 3 blocks: convert it"):
        capture.memory(Content.of_file(path))


def test_a_piece_that_hides_many_costs_no_more_than_those_that_are_read() -> None:
    count = 1 << 19
    small = np.arange(1, count, dtype=np.uint64) * np.uint64(64)
    start = np.concatenate([np.zeros(1, np.uint64), small])
    size = np.full(count, 8, np.uint64)
    size[0] = count * 64
    read: list[int] = []

    def octets(number: int, first: int, length: int) -> npt.NDArray[np.uint8]:
        read.append(number)
        return np.full(length, 1 if number else 2, np.uint8)

    pieces, page = Pieces(start, size, octets), np.zeros(PAGE, np.uint8)
    began = time.process_time()
    for number in range(20):
        pieces.fill(page, (count * 64 // PAGE - 1 - number) * PAGE)
    assert time.process_time() - began < 2  # a walk over all of them took 0.6 s a page
    assert len(read) == 20 * (1 + PAGE // 64)
    assert (page.reshape(-1, 64) == [1] * 8 + [2] * 56).all()


@pytest.mark.parametrize("octets", [lime({0: b"abcd"}), lime({0: b"abcd", 0x1000: bytes(2)})])
def test_a_capture_with_less_than_a_word_has_no_entry_and_is_read(
    tmp_path: Path, octets: bytes
) -> None:
    path = tmp_path / "ram"
    path.write_bytes(octets)
    memory = opened(f"ram:{path},cr3=0x1000").memory
    assert memory.load(Physical(0), 8) is None
    assert memory.load(Physical(0), 4) == 0x6463_6261
    words, backed = memory.gather(np.array([0, 0x1000, 1 << 40], np.uint64), 8)
    assert (words.tolist(), backed is not None and backed.tolist()) == ([0] * 3, [False] * 3)
    core = written(tmp_path / "core", [(0, b"abcd")], note(ROOT))
    assert opened(f"core:{core}").memory.load(Physical(0), 8) is None


@pytest.mark.parametrize("flag", [2, 4, 0x20])
def test_a_package_that_is_missing_is_named(
    tmp_path: Path, flag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("cramjam", "lzallright"):
        monkeypatch.setitem(sys.modules, name, None)
    path = tmp_path / "core"
    path.write_bytes(dumped({0: bytes(PAGE)}, 1))
    opened(f"core:{path}")  # zlib is Python's own
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 4 * PAGE + 12, flag)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"takes the package .*pip install"):
        opened(f"core:{path},cr3=0")


# VMCOREINFO


INFO_64 = b"""OSRELEASE=6.1.0
SYMBOL(swapper_pg_dir)=ffffffff9ea01000
NUMBER(phys_base)=-513802240
NUMBER(pgtable_l5_enabled)=%d
KERNELOFFSET=1d800000
NUMBER(sme_mask)=0
"""
INFO_32 = b"SYMBOL(swapper_pg_dir)=c0001000\nCONFIG_X86_PAE=y\n"


def info_note(text: bytes) -> bytes:
    return (
        struct.pack("<III", 11, len(text), 0)
        + b"VMCOREINFO\0\0"
        + text.ljust(-(-len(text) // 4) * 4)
    )


@pytest.mark.parametrize("form", ["elf", "kdump"])
@pytest.mark.parametrize("five", [0, 1])
def test_linux_s_own_tables_are_found_by_vmcoreinfo(tmp_path: Path, form: str, five: int) -> None:
    text, path = INFO_64 % five, tmp_path / "core"
    if form == "elf":
        written(path, [(0, LOW_MEMORY), (HIGH, HIGH_MEMORY)], info_note(text))
    else:
        path.write_bytes(dumped(MEMORY, notes=b"", info=text))
    snapshot = opened(f"core:{path}")
    # 0x9ea01000 - 0x80000000 + phys_base, by hand
    assert snapshot.cpu.cr3 == 0x1EA0_1000 - 513_802_240 == 0x1000
    assert snapshot.cpu.mode is (Mode.LEVEL_5 if five else Mode.LEVEL_4)
    assert any("those of Linux itself, at 0x1000" in one for one in snapshot.assumed)
    given = opened(f"core:{path},cr3=0x2000")
    assert given.cpu.cr3 == 0x2000
    assert not any("Linux itself" in one for one in given.assumed)


def test_the_bit_of_encrypted_memory_is_that_of_vmcoreinfo(tmp_path: Path) -> None:
    text = (INFO_64 % 0).replace(b"sme_mask)=0", b"sme_mask)=140737488355328")
    path = written(tmp_path / "core", [(0, LOW_MEMORY)], info_note(text))
    snapshot = opened(f"core:{path}")
    assert snapshot.cpu.c_bit == 47
    assert any(one.startswith("bit 47 marks encrypted memory") for one in snapshot.assumed)
    assert opened(f"core:{path},c_bit=51").cpu.c_bit == 51
    plain = written(tmp_path / "plain", [(0, LOW_MEMORY)], info_note(INFO_64 % 0))
    assert opened(f"core:{plain}").cpu.c_bit is None


@pytest.mark.parametrize("mask", [1, 1 << 31, 1 << 52, -(1 << 63), 3 << 46, (1 << 64) - 1])
def test_a_mask_of_encryption_that_cannot_be_is_named_and_not_used(
    tmp_path: Path, mask: int
) -> None:
    text = (INFO_64 % 0).replace(b"sme_mask)=0", b"sme_mask)=%d" % mask)
    path = written(tmp_path / "core", [(0, LOW_MEMORY)], info_note(text))
    snapshot = opened(f"core:{path}")
    assert snapshot.cpu.c_bit is None
    (note,) = snapshot.notes
    assert f"The sme_mask of VMCOREINFO, {mask & (1 << 64) - 1:#x}, is no bit" in note
    assert not any("encrypted" in one for one in snapshot.assumed)
    assert not opened(f"core:{path},c_bit=47").notes


def test_a_32_bit_kernel_s_tables_are_found_too(tmp_path: Path) -> None:
    memory = struct.pack("<4Q", 0x2001, 0, 0, 0).rjust(PAGE + 32, b"\0").ljust(2 * PAGE, b"\0")
    for text, mode in ((INFO_32, Mode.PAE), (INFO_32[:33], Mode.BITS_32)):
        path = written(tmp_path / "core", [(0, memory)], info_note(text), {"machine": 3})
        snapshot = opened(f"core:{path}")
        assert (snapshot.cpu.cr3, snapshot.cpu.mode) == (0x1000, mode)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"SYMBOL(swapper_pg_dir)=ffffffff82a0a000\n",
        b"NUMBER(phys_base)=0\n",
        b"SYMBOL(swapper_pg_dir)=\nNUMBER(phys_base)=0\n",
        b"SYMBOL(swapper_pg_dir)=ffffffff82a0a000\nNUMBER(phys_base)=abc\n",
        b"\xff\0" * 500,
    ],
)
def test_a_vmcoreinfo_that_tells_no_root_asks_for_one(tmp_path: Path, text: bytes) -> None:
    path = written(tmp_path / "core", [(0, LOW_MEMORY)], info_note(text))
    with pytest.raises(SourceError, match="add --cr3"):
        opened(f"core:{path}")
    assert opened(f"core:{path},cr3={ROOT:#x}").cpu.cr3 == ROOT


# VMCOREINFO in memory


def left(text: bytes, at: int = 0x5000) -> bytes:
    """The low memory, and a note of Linux at a place in it."""
    return LOW_MEMORY.ljust(at, b"\0") + info_note(text).ljust(PAGE, b"\0")


def test_linux_s_own_tables_are_found_by_what_it_left_in_its_memory(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    for five, mode in ((0, Mode.LEVEL_4), (1, Mode.LEVEL_5)):
        path.write_bytes(left(INFO_64 % five))
        found = opened(f"ram:{path}")
        assert (found.cpu.cr3, found.cpu.mode) == (0x1000, mode)
        told = "the tables are those of Linux itself, by its VMCOREINFO (--cr3 0x1000)"
        assert told in found.assumed
        assert any(one.startswith("CR4=") for one in found.assumed)
    assert opened(f"ram:{path},cr4=0x20").cpu.mode is Mode.LEVEL_4
    given = opened(f"ram:{path},cr3=0x2000")
    assert (given.cpu.cr3, given.cpu.mode) == (0x2000, Mode.LEVEL_4)
    assert not any("Linux" in one for one in given.assumed)


def test_what_linux_left_is_found_in_captures_and_files_with_holes_between_them(
    tmp_path: Path,
) -> None:
    low, high = tmp_path / "low", tmp_path / "high"
    whole = {0: LOW_MEMORY, HIGH: HIGH_MEMORY + info_note(INFO_64 % 0).ljust(PAGE, b"\0")}
    low.write_bytes(whole[0])
    high.write_bytes(whole[HIGH])
    (tmp_path / "lime").write_bytes(lime(whole))
    (tmp_path / "avml").write_bytes(avml(whole))
    for source in (f"{low}@0,ram={high}@{HIGH:#x}", f"{tmp_path}/lime", f"{tmp_path}/avml"):
        found = opened(f"ram:{source}")
        assert (found.cpu.cr3, leads(found)) == (0x1000, [(ADDRESS, LEAF)])


def test_a_32_bit_kernel_left_its_own(tmp_path: Path) -> None:
    tables = entries() + entries(i0=0x2001) + entries(i0=0xE3) + entries()
    for text, mode in ((INFO_32, Mode.PAE), (INFO_32[:33], Mode.BITS_32)):
        octets = tables + info_note(b"OSRELEASE=6.1.0\n" + text).ljust(PAGE, b"\0")
        (tmp_path / "ram").write_bytes(octets)
        found = opened(f"ram:{tmp_path / 'ram'}")
        assert (found.cpu.cr3, found.cpu.mode, found.cpu.long) == (0x1000, mode, False)


def test_the_bit_of_encrypted_memory_is_in_what_linux_left(tmp_path: Path) -> None:
    text, path = INFO_64 % 0, tmp_path / "ram"
    path.write_bytes(left(text.replace(b"sme_mask)=0", b"sme_mask)=140737488355328")))
    found = opened(f"ram:{path}")
    assert found.cpu.c_bit == 47
    assert "bit 47 marks encrypted memory, as VMCOREINFO has it (--c-bit)" in found.assumed
    assert opened(f"ram:{path},c_bit=51").cpu.c_bit == 51
    path.write_bytes(left(text.replace(b"sme_mask)=0", b"sme_mask)=1")))
    (note,) = opened(f"ram:{path}").notes
    assert "The sme_mask of VMCOREINFO, 0x1, is no bit" in note


@pytest.mark.parametrize("apart", [0, 8, 20, 24, 300])
def test_what_linux_left_is_found_wherever_it_lies(tmp_path: Path, apart: int) -> None:
    """Where one part of what is looked through ends, and far behind a hole."""
    path = tmp_path / "ram"
    for place in ((8 << 20) - apart, (1 << 40) - apart):
        sparse(path, LOW_MEMORY, 1 << 41)
        with path.open("r+b") as file:
            file.seek(place)
            file.write(info_note(INFO_64 % 0))
        began = time.process_time()
        assert opened(f"ram:{path}").cpu.cr3 == 0x1000
        assert time.process_time() - began < 5


NO_NOTES = {
    "nothing": b"",
    "a name alone": b"VMCOREINFO\0\0",
    "a name at the start": b"VMCOREINFO\0\0OSRELEASE=",
    "another name": info_note(INFO_64 % 0).replace(b"\x0b\0\0\0", b"\x0c\0\0\0", 1),
    "another text": info_note((INFO_64 % 0).replace(b"OSRELEASE", b"RELEASEOS")),
    "one that is cut": info_note(INFO_64 % 0)[:-40],
    "no end": struct.pack("<III", 11, 1 << 31, 0) + b"VMCOREINFO\0\0OSRELEASE=6.1\n",
    "no root": info_note(b"OSRELEASE=6.1.0\nNUMBER(phys_base)=0\n"),
    "no memory there": info_note((INFO_64 % 0).replace(b"ea01000", b"eb01000")),
    "no table there": info_note((INFO_64 % 0).replace(b"ea01000", b"ea03000")),
    "no place of a table": info_note((INFO_64 % 0).replace(b"ea01000", b"ea01001")),
    "beyond all memory": info_note((INFO_64 % 0).replace(b"=-5", b"=5" + b"0" * 9)),
}


@pytest.mark.parametrize("name", NO_NOTES)
def test_what_is_no_vmcoreinfo_in_memory_is_not_taken_for_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "ram").write_bytes(LOW_MEMORY + entries() + NO_NOTES[name])
    code, out, errors = run("walk", "0x1000", "--ram", "ram", cwd=tmp_path)
    assert (code, out, errors.count("\n")) == (2, "", 1)
    assert "ram does not record where the root table is, and has no VMCOREINFO of a Linux" in errors
    assert "or of arm64 --tcr with --ttbr0 or --ttbr1, or of s390 --asce, or of POWER" in errors


def test_of_several_kernels_the_one_whose_tables_are_there_is_meant(tmp_path: Path) -> None:
    here, path = info_note(INFO_64 % 0), tmp_path / "ram"
    gone = here.replace(b"ea01000", b"ea03000")
    path.write_bytes(LOW_MEMORY + entries() + gone + here + gone + here)
    assert opened(f"ram:{path}").cpu.cr3 == 0x1000
    path.write_bytes(LOW_MEMORY + LOW_MEMORY[PAGE:] + here + here.replace(b"ea01000", b"ea03000"))
    with pytest.raises(SourceError, match=r"several .*: choose one, --cr3 0x1000 or --cr3 0x3"):
        opened(f"ram:{path}")


def test_a_note_in_memory_that_is_changed_or_cut_is_a_sentence_or_an_answer(tmp_path: Path) -> None:
    path, random = tmp_path / "ram", np.random.default_rng(11)
    text = (INFO_64 % 1).replace(b"sme_mask)=0", b"sme_mask)=140737488355328")
    begin, whole = 0x5000, np.frombuffer(left(text), np.uint8)
    began, refused = time.process_time(), 0
    for number in range(200):
        changed = whole.copy()
        places = begin + random.integers(0, len(text) + 24, 3)
        changed[places] = random.choice([0, 0x0A, 0x28, 0x2D, 0x31, 0x39, 0x46, 0x80, 0xFF], 3)
        size = begin + int(random.integers(0, len(text) + 24)) if number % 4 == 0 else len(changed)
        path.write_bytes(changed[:size].tobytes())
        try:
            assert listed(opened(f"ram:{path}")).complete
        except SourceError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert 20 < refused < 200
    assert time.process_time() - began < 30


# VirtualBox


def box_note(efer: int = 0xD00, flags: int = 0xA09B, base: int = 0x5000) -> bytes:
    """VirtualBox's note of a processor (DBGFCORECPU of include/VBox/dbgfcorefmt.h), by its fields:
    18 registers, 6 segments of 24 bytes, CR0, CR2 to CR4, 8 debug registers, GDTR, IDTR of 16 each,
    LDTR, TR, SYSENTER's three, EFER."""
    registers = [*range(14), 0x10_0000, 0x20_0000, 0, 0x4_0002]  # RIP, RSP, RBP, RFLAGS with AC
    segment = struct.Struct("<QIIHHI")
    state = struct.pack("<18Q", *registers)
    for selector in (0x8, 0x10, 0x10, 0, 0, 0x10):  # CS, DS, ES, FS, GS, SS
        state += segment.pack(base, 0xFFFF_FFFF, flags, selector, 0, 0)
    state += struct.pack("<4Q", CR0, 0xDEAD, ROOT, 0x20) + bytes(64)
    state += struct.pack("<QIIQII", 0x7000, 0x27, 0, 0x8000, 0xFFF, 0)
    state += segment.pack(0, 0, 0, 0, 0, 0) + segment.pack(0x9000, 0x67, 0x8B, 0x28, 0, 0)
    state += bytes(24) + struct.pack("<Q", efer) + bytes(80)
    return struct.pack("<III", 6, len(state), 0xB01) + b"VBCPU\0\0\0" + state


def test_a_core_of_virtualbox_has_its_registers(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(0, LOW_MEMORY), (HIGH, HIGH_MEMORY)], box_note() * 2)
    snapshot = opened(f"core:{path},vcpu=1")
    assert leads(snapshot) == [(ADDRESS, LEAF)]
    assert (snapshot.cpu.cr3, snapshot.cpu.efer, snapshot.cpu.ac) == (ROOT, 0xD00, True)
    assert not any("EFER" in one for one in snapshot.assumed)
    assert snapshot.registers == {
        **{"cr2": 0xDEAD, "rip": 0x10_0000, "rsp": 0x20_0000, "cpl": 0, "cs_base": 0, "ss_base": 0},
        **{"gdt": 0x7000, "gdt_limit": 0x27, "idt": 0x8000, "idt_limit": 0xFFF, "tss": 0x9000},
    }
    with pytest.raises(SourceError, match="has no processor 2: it has 0 to 1"):
        opened(f"core:{path},vcpu=2")
    compatible = box_note(flags=0xC09B)
    bases = opened(f"core:{written(path, [(0, LOW_MEMORY)], compatible)}").registers
    assert (bases["cs_base"], bases["ss_base"]) == (0x5000, 0x5000)
    short = box_note()
    cut = struct.pack("<III", 6, 400, 0xB01) + short[12:420]
    with pytest.raises(SourceError, match="a note of processor 0 of 400 bytes, not 496"):
        opened(f"core:{written(path, [(0, LOW_MEMORY)], cut)}")


# Those that no one should write


def files() -> Iterator[tuple[str, bytes]]:
    yield "ram", lime(MEMORY)
    yield "ram", avml(MEMORY)
    for flag in COMPRESSED:
        yield "core", dumped(MEMORY, flag, info=INFO_64 % 0)
    yield "core", flattened(dumped(MEMORY))


@pytest.mark.parametrize(("kind", "octets"), list(files()), ids=range(8))
def test_what_is_cut_or_damaged_is_a_sentence_or_an_answer(
    tmp_path: Path, kind: str, octets: bytes
) -> None:
    path = tmp_path / "file"
    source = f"{kind}:{path},cr3={ROOT:#x},cr4=0x20"
    random = np.random.default_rng(len(octets))
    cut = {0, 1, 31, 33, *random.integers(0, len(octets), 16).tolist()}
    damaged = np.frombuffer(octets, np.uint8)
    began, refused = time.process_time(), 0
    for size in sorted(cut):
        path.write_bytes(octets[:size])
        with pytest.raises(SourceError):
            listed(opened(source))
    edges = np.flatnonzero(damaged)
    for _ in range(50):
        other = damaged.copy()
        place = random.choice(edges, 3)
        other[place] = random.choice([0, 1, 0x7F, 0x80, 0xFF], 3)
        path.write_bytes(other.tobytes())
        try:
            listed(opened(source))
        except SourceError as error:
            refused += 1
            assert len(str(error).splitlines()) == 1
    assert refused > 3
    assert time.process_time() - began < 60


def sparse(path: Path, octets: bytes, size: int) -> Path:
    path.write_bytes(octets)
    with path.open("r+b") as file:
        file.truncate(size)
    return path


def bomb() -> bytes:
    """A page of zstd that would be a gigabyte."""
    packed = io.BytesIO(bytes(cramjam.zstd.compress(bytes(1 << 24)))).read()
    whole = bytearray(dumped({ROOT: bytes(PAGE)}))
    struct.pack_into("<QII", whole, 4 * PAGE, len(whole), len(packed), 0x20)
    return bytes(whole) + packed


@pytest.mark.parametrize(
    ("kind", "octets", "size", "said"),
    [
        ("core", bomb(), 0, "is not what zstd writes"),
        ("core", dumped(MEMORY, head={"pages": 1 << 29}), 1 << 40, ""),
        ("core", b"makedumpfile".ljust(PAGE, b"\0"), 1 << 40, "more than 524,288 pieces"),
        (
            "core",
            flattened(b"")[:-16] + struct.pack(">4q", 1 << 62, 8, 0, -1) + b"\xff" * 8,
            0,
            "File too",
        ),
        (
            "core",
            flattened(b"")[:-16]
            + struct.pack(">2q", (1 << 63) - 1, 16)
            + b"x" * 16
            + struct.pack(">2q", -1, -1),
            0,
            "File too",
        ),
        ("ram", head(capture.LIME, 0, 1 << 40), 1 << 41, "no block of a capture is at"),
        ("ram", head(capture.AVML, 0, 1 << 40), 1 << 41, "no snappy frame"),
        ("ram", head(capture.AVML, 0, 1 << 40) + b"\xfe\0\0\0" * (1 << 20), 0, "more than|cut"),
        ("ram", head(capture.LIME, 0, 8) + bytes(8) + head(capture.LIME, 9, 0), 0, "no block"),
    ],
    ids=["bomb", "map", "pieces", "place", "beyond", "lime", "avml", "padding", "backwards"],
)
def test_a_hostile_file_costs_little(
    tmp_path: Path, kind: str, octets: bytes, size: int, said: str
) -> None:
    path = sparse(tmp_path / "file", octets, max(size, len(octets)))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    try:
        listed(opened(f"{kind}:{path},cr3={ROOT:#x}"))
        answered = ""
    except SourceError as error:
        answered = str(error)
    assert any(one in answered for one in said.split("|"))
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


# Those that QEMU writes


@pytest.mark.hw
def test_a_kdump_of_qemu_s_has_what_its_elf_core_has(tmp_path: Path) -> None:
    with running(tmp_path, *STUB) as machine:
        machine.witness.ask("stop")
        found = []
        for form in ("elf", "kdump-zlib"):
            path = tmp_path / form
            machine.witness.ask(
                "dump-guest-memory", paging=False, protocol=f"file:{path}", format=form
            )
            found.append(opened(f"core:{path}"))
    elf, packed = found
    assert same(listed(packed), listed(elf))
    assert packed.cpu == elf.cpu
    assert packed.assumed == elf.assumed
    assert packed.backed is not None and elf.backed is not None
    for span in elf.backed:
        pages = np.arange(span.first, span.last, 1 << 18, dtype=np.uint64)
        for one, other in zip(
            elf.memory.gather(pages, 8), packed.memory.gather(pages, 8), strict=True
        ):
            assert np.array_equal(one, other)  # type: ignore[arg-type]
