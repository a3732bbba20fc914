"""Layouts, cases and memory files as sources."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from harness.check import layouts
from harness.check.x86.matrix.case import MatrixCase
from harness.check.x86.matrix.stage import Control, Model
from harness.check.x86.replay import Case
from harness.cli.source import Source
from harness.inspect.snapshot import Snapshot, SourceError
from harness.inspect.sources import content
from harness.machine.openfile import OpenFile
from harness.paging import bulk
from harness.paging.address import Physical, Virtual
from harness.paging.memory import BufferMemory
from harness.paging.processor import root_for
from harness.paging.walk import walk
from harness.paging.x86 import formats
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Mode
from tests.check.power.test_saved_cases import of_layout


def opened(text: str) -> Snapshot:
    with Source.named(text).opened() as snapshot:
        return snapshot


def physical(snapshot: Snapshot, address: int) -> int | None:
    """Where an address leads."""
    root = root_for(snapshot.cpu, Virtual(address))
    assert root is not None
    return walk(snapshot.memory, root, Virtual(address)).physical


def test_a_case_about_a_layout_has_that_layout_s_tables(tmp_path: Path) -> None:
    text = layouts.load(layouts.find("smallest")).text
    case = Case("smallest", text, 4, "tcg", "7.2.22", "gva2gpa", 0, None, False, "", "")
    there, here = opened("layout:smallest@4"), opened(f"case:{case.save(tmp_path)}")
    assert here.cpu == there.cpu
    rows = [bulk.leaves(one.memory, one.cpu.roots) for one in (here, there)]
    assert rows[0].total > 0
    assert np.array_equal(rows[0].raw, rows[1].raw)


@pytest.mark.parametrize(("wrong", "hint"), [(51, "51"), (47, "47"), (40, "40"), (59, None)])
def test_a_bit_of_cr3_that_can_mark_encrypted_memory_is_no_dead_end(
    tmp_path: Path, wrong: int, hint: str | None
) -> None:
    (tmp_path / "ram").write_bytes(bytes([7, *bytes(0xFFF)]))
    with pytest.raises(SourceError, match="since MAXPHYADDR is 40") as refused:
        opened(f"ram:{tmp_path / 'ram'},cr3={1 << wrong:#x}")
    said = str(refused.value).partition("; ")[2]
    assert said == (f"if it marks encrypted memory (SME, SEV), give --c-bit {hint}" if hint else "")
    with pytest.raises(SourceError) as refused:
        opened(f"ram:{tmp_path / 'ram'},cr3={3 << 50:#x}")
    assert "--c-bit" not in str(refused.value)


@pytest.mark.parametrize("bit", [32, 36, 47, 51])
def test_a_bit_that_cr3_and_all_its_entries_have_marks_encrypted_memory(
    tmp_path: Path, bit: int
) -> None:
    mark, ram = 1 << bit, tmp_path / "ram"
    words = {0x1000: mark | 0x2067, 0x1008: 0x66, 0x1FF8: mark | 0x3067}

    def file(more: dict[int, int]) -> str:
        octets = bytearray(0x4000)
        for at, word in (words | more).items():
            octets[at : at + 8] = word.to_bytes(8, "little")
        ram.write_bytes(octets)
        return f"ram:{ram},cr3={mark | 0x1000:#x}"

    found = opened(file({}))
    assert (found.cpu.c_bit, found.cpu.base) == (bit, 0x1000)
    said = f"bit {bit} marks encrypted memory: CR3 and every entry of its table have it (--c-bit)"
    assert said in found.assumed
    plain = opened(f"{file({})},cr4=0")  # outside long mode CR3 has 32 bits
    assert plain.cpu.c_bit is None
    assert opened(f"{file({})},cr4=0x20,efer=0").cpu.c_bit is None
    one_without = file({0x1008: 0x3067})
    if bit >= 40:
        with pytest.raises(SourceError, match=f"give --c-bit {bit}"):
            opened(one_without)
    else:
        assert opened(one_without).cpu.c_bit is None


def matrix_case(
    model: Model,
    control: Control,
    words: tuple[int, ...],
    slots: tuple[int, ...],
    address: int,
    pdpte: int | None = None,
) -> MatrixCase:
    """A read by the user with EFLAGS.AC set."""
    return MatrixCase(
        engine="tcg",
        qemu="7.2.22",
        values="A=1",
        model=model,
        control=control,
        words=words,
        slots=slots,
        address=address,
        access=Access(Kind.READ, True),
        user=True,
        ac=True,
        width=4,
        page=0,
        backed=True,
        flush="page",
        pdpte=pdpte,
        register=2,
        wruss=False,
        branch=False,
        changed=0,
        expected="",
        observed="",
    )


def test_bits_of_cr3_that_some_processor_has_a_use_for_are_taken(tmp_path: Path) -> None:
    """LAM (62:61) and, with CR4.PCIDE, bit 63, whether or not the source knows of them; outside
    long mode CR3 has 32 bits."""
    (tmp_path / "ram").write_bytes(bytes([7, *bytes(0xFFF)]))
    for bit in (61, 62, 63):
        assert opened(f"ram:{tmp_path / 'ram'},cr3={1 << bit:#x}").cpu.cr3 == 1 << bit
    with pytest.raises(SourceError, match=r"is reserved, since MAXPHYADDR is \d+$"):
        opened(f"ram:{tmp_path / 'ram'},cr3={1 << 60:#x}")
    short = opened(f"ram:{tmp_path / 'ram'},cr3=0x1000000000000000,cr4=0")
    assert (short.cpu.mode, short.cpu.base) == (Mode.BITS_32, 0)


def test_a_case_of_the_matrix_has_the_path_that_it_carries(tmp_path: Path) -> None:
    model, control = Model("4"), Control(nxe=False)
    slots = (0x40_0008, 0x40_1010, 0x40_2018, 0x40_3020)
    words = (0x1234_5007, 0x40_0007, 0x40_1007, 0x40_2007)
    case = matrix_case(model, control, words, slots, 0x20_1880_1000)
    snapshot = opened(f"case:{case.save(tmp_path)}")
    assert snapshot.cpu.ac
    assert not snapshot.cpu.nxe
    assert physical(snapshot, 4 << 39 | 3 << 30 | 2 << 21 | 1 << 12 | 5) == 0x1234_5005
    assert bulk.leaves(snapshot.memory, snapshot.cpu.roots).total == 1


def test_a_case_of_the_matrix_has_the_pdpte_that_it_loads(tmp_path: Path) -> None:
    slots, words = (0x40_0008, 0x40_1010), (0x1234_5007, 0x40_0007)
    address = 2 << 30 | 2 << 21 | 1 << 12
    for pdpte, found in ((None, 0x1234_5000), (0x40_1001, 0x1234_5000), (0, None)):
        case = matrix_case(Model("pae"), Control(), words, slots, address, pdpte)
        snapshot = opened(f"case:{case.save(tmp_path)}")
        if found is None:
            assert root_for(snapshot.cpu, Virtual(address)) is None
        else:
            assert physical(snapshot, address) == found
    case = matrix_case(Model("pae"), Control(), words, slots, address, 0x40_1003)
    refused = opened(f"case:{case.save(tmp_path)}")
    assert physical(refused, address) is None
    assert "for PDPTE 2 0x401003 (0x2 is reserved)" in refused.notes[0]
    with pytest.raises(SourceError, match="is of x86, where --satp means nothing"):
        opened(f"case:{case.save(tmp_path)},satp=0x1")


def test_a_file_of_memory_is_read_by_the_registers_given(tmp_path: Path) -> None:
    path = tmp_path / "ram"
    memory = BufferMemory(np.zeros(0x6000, np.uint8))
    words = memory.octets.view(np.uint64)
    for table in range(4):
        words[table * 512 + 1] = (table + 1) * 0x1000 | 3
    words[0x5000 // 8] = 0x5000 | formats.P  # a PDPTE, and a PDE of 32-bit paging
    path.write_bytes(memory.octets.tobytes())
    long = opened(f"ram:{path},cr3=0x0")
    assert physical(long, 1 << 39 | 1 << 30 | 1 << 21 | 1 << 12) == 0x4000
    assert len(long.assumed) == 5
    assert "1G pages" in long.assumed[-1]
    told = opened(f"ram:{path},cr3=0x0,page1gb=0")
    assert (len(told.assumed), told.cpu.page1gb, long.cpu.page1gb) == (4, False, True)
    pae = opened(f"ram:{path},cr3=0x5000,cr4=0x20,efer=0x800,cr0=0x80010001,maxphyaddr=36")
    assert (pae.cpu.mode, pae.cpu.pdptes[0], pae.assumed) == (Mode.PAE, 0x5001, ())
    assert opened(f"ram:{path},cr3=0x5000,cr4=0").cpu.mode is Mode.BITS_32


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("cr0=1", r"paging is off \(CR0 is 0x1\)"),
        ("cr4=0,efer=0x500", "long mode without PAE"),
        ("maxphyaddr=64", "maxphyaddr is 64: physical addresses have 32 to 52 bits"),
        ("cr3=0x8000,cr4=0x20,efer=0", "the PDPTEs at 0x8000 cannot be read: there is no memory"),
        ("cr3=0x18000000000", "CR3 0x18000000000 cannot be loaded: 0x10000000000 is reserved"),
    ],
)
def test_a_state_that_translates_nothing_is_a_sentence(
    tmp_path: Path, options: str, said: str
) -> None:
    (tmp_path / "ram").write_bytes(bytes([7, *bytes(0xFFF)]))
    with pytest.raises(SourceError, match=said):
        opened(f"ram:{tmp_path / 'ram'},{options}{'' if 'cr3' in options else ',cr3=0'}")


NONE = "no entry of the root's table is present"


@pytest.mark.parametrize(
    ("options", "doubt"),
    [
        ("cr3=0", None),
        ("cr3=0x1000", f"{NONE}; the table before it, at 0x0, would map 1"),
        ("cr3=0x1000,cr4=0x20,efer=0", NONE),
        ("cr3=0x1000,cr4=0", f"{NONE}; the table before it, at 0x0, would map 1"),
        ("cr3=0x2000", "there is no memory where the root's table would be"),
    ],
)
def test_a_root_that_leads_nowhere_is_doubted(
    tmp_path: Path, options: str, doubt: str | None
) -> None:
    (tmp_path / "ram").write_bytes(bytes([7, *bytes(0x1FFF)]))
    with Source.named(f"ram:{tmp_path / 'ram'},{options}").opened() as snapshot:
        doubts = [one for one in snapshot.assumed if "belongs to this memory" in one]
    right = f"CR3 {snapshot.cpu.cr3:#x} belongs to this memory, though "
    assert doubts == ([f"{right}{doubt}"] if doubt else [])


@pytest.mark.parametrize("kind", ["layout", "case"])
def test_what_has_no_end_is_no_layout_and_no_case(tmp_path: Path, kind: str) -> None:
    sparse = tmp_path / "sparse"
    sparse.touch()
    os.truncate(sparse, 1 << 40)
    for path in ("/dev/zero", sparse):
        with pytest.raises(ValueError, match="cannot be read: File too large"):
            opened(f"{kind}:{path}")


@pytest.mark.parametrize("trouble", [MemoryError, OverflowError])
def test_a_file_for_which_there_is_no_room_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: type[Exception]
) -> None:
    def no_room(size: int) -> None:
        raise trouble

    path = tmp_path / "ram"
    path.write_bytes(bytes(0x1000))
    monkeypatch.setattr(content, "_zeros", no_room)
    with pytest.raises(SourceError, match="cannot be read: File too large"):
        opened(f"ram:{path},cr3=0")


def test_a_file_that_can_no_longer_be_read_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes([7, *bytes(0x3FFF)]))
    memory = opened(f"ram:{path},cr3=0").memory

    def lost(self: OpenFile, octets: object, first: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(OpenFile, "fill", lost)
    with pytest.raises(SourceError, match="cannot be read: Input/output error"):
        memory.load(Physical(0x3000), 8)


@pytest.mark.parametrize("how", ["gather", "load"])
def test_a_file_of_memory_that_is_cut_short_meanwhile_is_a_sentence(
    tmp_path: Path, how: str
) -> None:
    path = tmp_path / "ram"
    path.write_bytes(np.full(0x4000 // 8, 7, np.uint64).tobytes())
    memory = opened(f"ram:{path},cr3=0").memory
    os.truncate(path, 0x1008)
    whole = np.array([0, 0x4000], np.uint64)
    assert memory.gather(whole, 8)[0].tolist() == [7, 0]
    with pytest.raises(SourceError, match="cut short while it was read: it had 16,384 bytes"):
        if how == "gather":
            memory.gather(np.array([0x3000, 0], np.uint64), 8)
        else:
            memory.load(Physical(0x1010), 8)


def test_what_is_no_file_of_memory_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "short").write_bytes(b"1234567")
    os.mkfifo(tmp_path / "pipe")
    for name, said in {
        "empty": "is empty",
        "short": "has 7 bytes",
        "absent": "No such file",
        "pipe": "cannot be read: it is no file that has an end",
        "/dev/zero": "cannot be read: it is no file that has an end",
        ".": "Is a directory",
    }.items():
        with pytest.raises(SourceError, match=said):
            opened(f"ram:{tmp_path / name},cr3=0")


def test_what_is_no_case_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "case").write_text(json.dumps({"case": "matrix"}))
    with pytest.raises(ValueError, match="holds no case: object missing required field"):
        opened(f"case:{tmp_path / 'case'}")


def test_a_case_whose_tables_cannot_be_shown_is_for_replay(tmp_path: Path) -> None:
    path = of_layout().save(tmp_path)
    with pytest.raises(ValueError, match="is a case of power: replay asks it, --case cannot show"):
        opened(f"case:{path}")


@pytest.mark.parametrize(
    ("first", "theirs"),
    [(0x8000_0000, "RISC-V's machines have theirs (--satp)"), (0x9000_0000, None)],
    ids=["RISC-V's", "no one's"],
)
def test_memory_that_begins_where_another_architecture_has_its_own_is_noted(
    tmp_path: Path, first: int, theirs: str | None
) -> None:
    path = tmp_path / "ram"
    path.write_bytes(bytes(0x1000))
    assumed = opened(f"ram:{path}@{first:#x},cr3={first:#x}").assumed
    said = [one for one in assumed if "(--cr3)" in one]
    if theirs is None:
        assert said == []
    else:
        (one,) = said
        assert one.startswith("this is memory of x86 (--cr3), though it begins at 0x80000000")
        assert one.endswith(theirs)
