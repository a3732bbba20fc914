"""Cores as a source: those that QEMU writes, and those that no one should."""

from __future__ import annotations

import os
import resource
import struct
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from harness.cli.source import Source
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import core, qmp
from harness.inspect.sources.content import Content
from harness.inspect.sources.segments import SegmentMemory
from harness.paging import bulk
from harness.paging.address import Physical, Span
from harness.paging.x86.cpu import Cr4, Efer, Mode
from tests.inspect.sources.machines import STUB, running
from tests.inspect.spaces import listed, same

HEAD, PROGRAM, SECTION = struct.Struct("<16sHHIQQQIHHHHHH"), struct.Struct("<IIQQQQQQ"), 64
MANY = 0xFFFF
CR0, CR4 = 0x8001_0033, 0x20
ROOT = 0x20_1000


def note(
    cr3: int = ROOT,
    cr4: int = CR4,
    cr0: int = CR0,
    *,
    cr2: int = 0,
    rip: int = 0,
    rsp: int = 0,
    cs: int = 8,
) -> bytes:
    """QEMU's note of a processor."""
    state = bytearray(440)
    struct.pack_into("<Q", state, 56, rsp)
    struct.pack_into("<QQI", state, 136, rip, 2, cs)
    struct.pack_into("<5Q", state, 392, cr0, 0, cr2, cr3, cr4)
    return struct.pack("<III", 5, len(state), 0) + b"QEMU\0\0\0\0" + bytes(state)


def written(
    path: Path,
    memory: Sequence[tuple[int, bytes]],
    notes: bytes = note(),
    head: Mapping[str, int] = MappingProxyType({}),
) -> Path:
    """A core with pieces of memory, one segment each, whose place in the file is aligned to 4."""
    values = {
        **{"kind": 4, "machine": 62, "phoff": 64 + SECTION, "shoff": 64, "phentsize": 56},
        **{"phnum": min(len(memory) + 1, MANY), "count": len(memory) + 1},
        **head,
    }
    place = values["phoff"] + 56 * (len(memory) + 1)
    programs, content = [PROGRAM.pack(4, 0, place, 0, 0, len(notes), len(notes), 0)], [notes]
    for physical, octets in memory:
        offset = place + sum(map(len, content)) if len(memory) < 100 else place + len(notes)
        programs.append(PROGRAM.pack(1, 0, offset, physical, physical, len(octets), len(octets), 0))
        if len(memory) < 100 or len(content) == 1:
            content.append(octets)
    sizes = values["phentsize"], values["phnum"], 64, 1, 0
    start = HEAD.pack(
        b"\x7fELF\x02\x01\x01" + bytes(9),
        *(values["kind"], values["machine"], 1, 0, values["phoff"], values["shoff"], 0, 64),
        *sizes,
    )
    section = bytearray(SECTION)
    struct.pack_into("<I", section, 44, values["count"])
    path.write_bytes(start + section + b"".join(programs) + b"".join(content))
    return path


def entries(**words: int) -> bytes:
    """A table with these entries, by index."""
    table = np.zeros(512, np.uint64)
    for index, word in words.items():
        table[int(index[1:])] = word
    return table.tobytes()


def opened(path: Path, options: str = "") -> Snapshot:
    with Source.named(f"core:{path}{options}").opened() as snapshot:
        return snapshot


@pytest.mark.hw
def test_a_core_shows_the_guest_s_own_tables(tmp_path: Path) -> None:
    with running(tmp_path, *STUB) as machine:
        machine.witness.ask("stop")
        alive = qmp.snapshot(machine.path, 0, False, {})
        path = tmp_path / "core"
        machine.witness.ask("dump-guest-memory", paging=False, protocol=f"file:{path}")
        dead = opened(path, ",maxphyaddr=40")
        assert same(listed(dead), listed(alive))
        assert (dead.cpu.cr3, dead.cpu.mode) == (alive.cpu.cr3, Mode.LEVEL_4)
        assert any("EFER" in one for one in dead.assumed)
        with pytest.raises(SourceError, match="paging is off"):
            opened(path, ",vcpu=1")
        with pytest.raises(SourceError, match="has no processor 2: it has 0 to 1"):
            opened(path, ",vcpu=2")


def test_a_path_is_followed_over_segments_that_are_aligned_to_nothing(tmp_path: Path) -> None:
    memory = [
        (ROOT, entries(i1=ROOT + 0x1003) + entries(i1=ROOT + 0x2003)),
        (ROOT + 0x3000, entries(i1=0x8000_0000_0123_4003)),
        (ROOT + 0x2000, entries(i1=ROOT + 0x3003)),
        (ROOT + 0x4000, b"1234"),
        (ROOT + 0x8000, bytes(8)),
    ]
    for pieces, pad in ((memory[:3], b""), (memory[:3], b"1234"), (memory, b"")):
        snapshot = opened(written(tmp_path / "core", pieces, note() + pad))
        leaves = listed(snapshot)
        assert leaves.physical.tolist() == [0x123_4000]
        assert leaves.virtual.tolist() == [1 << 39 | 1 << 30 | 1 << 21 | 1 << 12]
        assert snapshot.backed is not None
        assert snapshot.backed[0].first == ROOT
        assert snapshot.backed[0].last >= ROOT + 0x3FFF


def test_more_segments_than_the_head_can_count_that_overlap(tmp_path: Path) -> None:
    one = entries(i1=0x5003)
    path = written(tmp_path / "core", [(number << 11, one) for number in range(70_000)])
    snapshot = opened(path, ",cr3=0x0")
    assert snapshot.backed == (Span(0, (69_999 << 11) + 4095),)
    # Of overlapping segments the one that begins first has the bytes.
    words, backed = snapshot.memory.gather(np.array([8, 0x808, 70_001 << 11], np.uint64), 8)
    assert words.tolist() == [0x5003, 0, 0]
    assert backed is not None
    assert backed.tolist() == [True, True, False]


def test_what_the_head_and_the_notes_say_decides_the_mode(tmp_path: Path) -> None:
    def mode(options: str = "", **values: int) -> Mode:
        notes = note(**{key: values.pop(key) for key in ("cr0", "cr4") if key in values})
        path = written(tmp_path / "core", [(ROOT, bytes(0x1000))], notes, values)
        found: Mode = opened(path, options).cpu.mode
        return found

    assert mode() is Mode.LEVEL_4
    assert mode(cr4=0x1020) is Mode.LEVEL_5
    assert mode(machine=3) is Mode.PAE
    assert mode(machine=3, cr4=0) is Mode.BITS_32
    assert mode(cr4=0) is Mode.BITS_32  # the head speaks of the first processor, this is another
    assert mode(",efer=0") is Mode.PAE
    told = written(tmp_path / "core", [(ROOT, entries(i1=7))])
    assert opened(told).cpu.efer == Efer.LME | Efer.LMA | Efer.NXE
    assert opened(told, ",efer=0x500,maxphyaddr=36,page1gb=1").assumed == ()


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"kind": 2}, "its ELF type is ET_EXEC"),
        ({"machine": 8}, "another machine than .*: EM_MIPS"),
        ({"phnum": 2000}, "is cut short: .* its 2,000 program headers reach to"),
        ({"phnum": MANY, "count": 1 << 31}, "hardly a core: it names 2,147,483,648 program"),
        ({"phnum": MANY, "count": 1 << 20}, "is cut short"),
        ({"phnum": MANY, "shoff": 1 << 63}, "is not a core"),
        ({"phoff": 1 << 62}, "is cut short"),
        ({"phentsize": 4}, "its program headers have 4 bytes, not 56"),
    ],
    ids=str,
)
def test_a_head_that_cannot_be_is_a_sentence(
    tmp_path: Path, head: dict[str, int], said: str
) -> None:
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000))])
    content = bytearray(path.read_bytes())
    honest = written(tmp_path / "other", [(ROOT, bytes(0x1000))], head=head).read_bytes()
    content[: 64 + SECTION] = honest[: 64 + SECTION]
    path.write_bytes(content)
    with pytest.raises(SourceError, match=said):
        opened(path)


def test_a_core_that_was_cut_or_tells_no_registers_is_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000))])
    whole = path.read_bytes()
    for size in range(1, len(whole), 97):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError, match=r"is cut short|is not a core|hardly"):
            opened(path)
    for notes in (b"", bytes(400), note()[:200], b"\xff" * 400):
        bare = written(path, [(ROOT, bytes(0x1000))], notes)
        with pytest.raises(SourceError, match=r"no notes of QEMU .* add --cr3"):
            opened(bare)
        assert opened(bare, f",cr3={ROOT:#x}").cpu.mode is Mode.LEVEL_4
    wrapped = written(path, [((1 << 64) - 0x800, bytes(0x1000))])
    with pytest.raises(SourceError, match="reach beyond"):
        opened(wrapped)
    for count, said in ((100, "is cut short: it has 800 bytes"), (512, "is not a core of an x86")):
        path.write_bytes(b"KDUMP   " * count)
        with pytest.raises(SourceError, match=said):
            opened(path)


def test_no_damage_to_a_core_ends_in_anything_but_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(ROOT, entries(i1=ROOT | 3)), (0, bytes(64))])
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    random = np.random.default_rng(5)
    refused = 0
    for _ in range(400):
        damaged = whole.copy()
        place = random.integers(0, 400, 3)
        damaged[place] = random.choice([0, 1, 0x7F, 0x80, 0xFF], 3)
        path.write_bytes(damaged.tobytes())
        try:
            opened(path)
        except SourceError:
            refused += 1
    assert refused > 50


def test_what_a_core_does_not_tell_is_assumed_unless_it_is_given(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000))])
    assumed = " ".join(opened(path).assumed)
    assert "MAXPHYADDR" in assumed and "EFER" in assumed and "1G pages" in assumed
    assert "MAXPHYADDR" not in " ".join(opened(path, ",maxphyaddr=40").assumed)
    assert "EFER" not in " ".join(opened(path, ",efer=0x500").assumed)


@pytest.mark.parametrize("name", [1, 2, 4, 5, 8])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 5])
def test_notes_of_any_length_before_a_processor_s_are_passed_over(
    tmp_path: Path, name: int, size: int
) -> None:
    """Names and contents are padded to four bytes each."""
    other = struct.pack("<III", name, size, 7) + b"N" * name + bytes(-name % 4)
    other += b"C" * size + bytes(-size % 4)
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000))], other + note(cr3=ROOT))
    assert opened(path).cpu.cr3 == ROOT


def test_a_segment_of_a_byte_is_memory_and_one_of_none_is_not(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000)), (0x5000, b"x"), (0x6000, b"")])
    backed = opened(path).backed
    assert backed == (Span(0x5000, 0x5000), Span(ROOT, ROOT + 0xFFF))


def test_a_segment_that_ends_where_the_file_does_is_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(ROOT, entries(i1=ROOT | 3))])
    assert opened(path).memory.load(Physical(ROOT + 0xFF8), 8) == 0
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(SourceError, match="is cut short"):
        opened(path)


def test_a_processor_that_a_core_lacks_is_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000))], note() + note(cr3=ROOT + 0x1000))
    assert opened(path, ",vcpu=1").cpu.cr3 == ROOT + 0x1000
    with pytest.raises(SourceError, match="has no processor 2: it has 0 to 1"):
        opened(path, ",vcpu=2")


@pytest.mark.parametrize("trouble", [AttributeError, TypeError])
def test_what_pyelftools_fails_on_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: type[Exception]
) -> None:
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000))])

    def fails(file: object) -> None:
        raise trouble("odd")

    monkeypatch.setattr(core, "ELFFile", fails)
    with pytest.raises(SourceError, match="is not a core that can be read: odd"):
        opened(path)


def test_a_core_without_memory_has_none_anywhere(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(ROOT, bytes(0x1000))])
    nothing = np.empty(0, np.uint64)
    memory = SegmentMemory.of(Content.of_file(path), nothing, nothing, nothing)
    assert memory.load(Physical(0), 8) is None
    words, backed = memory.gather(np.array([0, 0x1000], np.uint64), 8)
    assert words.tolist() == [0, 0] and backed is not None and backed.tolist() == [False, False]


def test_the_rights_of_keys_that_a_core_does_not_hold_are_assumed(tmp_path: Path) -> None:
    def keys(cr4: int) -> list[str]:
        path = written(tmp_path / "core", [(ROOT, bytes(0x1000))], note(cr4=CR4 | cr4))
        found = opened(path)
        assert not any("every key" in one for one in found.assumed)
        return [one.split()[-1] for one in found.for_accesses().assumed if "every key" in one]

    assert keys(0) == []
    assert keys(Cr4.PKE) == ["PKRU"]
    assert keys(Cr4.PKE | Cr4.PKS) == ["PKRU", "IA32_PKRS"]


def test_gigabytes_of_zeros_and_loops_of_tables_cost_little(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(0, entries(i0=7, i511=7))])
    content = bytearray(path.read_bytes())
    at = 64 + SECTION + PROGRAM.size
    struct.pack_into("<QQ", content, at + 32, 64 << 30, 64 << 30)
    path.write_bytes(content)
    os.truncate(path, len(content) + (64 << 30))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    snapshot = opened(path, ",cr3=0x0")
    leaves = bulk.leaves(snapshot.memory, snapshot.cpu.roots, limit=1000)
    assert leaves.total == 16
    assert time.process_time() - began < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20
    nothing = np.empty(0, np.uint64)
    memory = SegmentMemory.of(Content.of_file(path), nothing, nothing, nothing)
    assert memory.backed == ()


def test_a_core_that_is_cut_short_meanwhile_is_a_sentence(tmp_path: Path) -> None:
    path = written(tmp_path / "core", [(0, entries(i0=7) * 3)])
    snapshot = opened(path, ",cr3=0x0")
    os.truncate(path, 0x2000)
    assert snapshot.memory.load(Physical(0), 8) == 7
    assert snapshot.memory.load(Physical(0x1000), 8) == 7
    with pytest.raises(SourceError, match="was cut short while it was read"):
        snapshot.memory.load(Physical(0x2000), 8)


@pytest.mark.parametrize(("flags", "ac"), [(2, False), (2 | 1 << 18, True), (2 | 1 << 17, False)])
@pytest.mark.parametrize("cs", [0x8, 0x33, 0x1B])
def test_the_rest_of_a_note_is_read_where_it_stands(
    tmp_path: Path, cs: int, flags: int, ac: bool
) -> None:
    of = bytearray(note(cs=cs, cr2=0x1234, rip=0x5678, rsp=0x9ABC))
    struct.pack_into("<Q", of, 20 + 144, flags)
    snapshot = opened(written(tmp_path / "core", [(ROOT, entries())], bytes(of)))
    assert (snapshot.cpu.ac, snapshot.cpu.maxphyaddr) == (ac, 52)
    told = {name: snapshot.registers[name] for name in ("cr2", "rip", "rsp", "cpl")}
    assert told == {"cr2": 0x1234, "rip": 0x5678, "rsp": 0x9ABC, "cpl": cs & 3}


@pytest.mark.parametrize(("size", "enough"), [(432, True), (428, False)])
def test_a_note_has_to_reach_to_cr4(tmp_path: Path, size: int, enough: bool) -> None:
    """Which is the last that is read of it."""
    whole = note()
    short = struct.pack("<III", 5, size, 0) + whole[12 : 20 + size]
    path = written(tmp_path / "core", [(0, bytes(0x1000))], short)
    if enough:
        assert opened(path).cpu.cr4 == CR4
        return
    with pytest.raises(SourceError, match="a note of processor 0 of 428 bytes, not 432"):
        opened(path)
