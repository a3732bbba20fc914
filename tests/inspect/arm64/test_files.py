"""Where arm64's tables come from: files of memory, cores, layouts, and the registers given."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from harness.check import layouts
from harness.check.layouts import described
from harness.inspect import architecture
from harness.inspect.arm64.vmcoreinfo import of_linux, registers
from harness.inspect.snapshot import SourceError
from harness.paging.memory import BufferMemory
from tests.cli.commands import run

BASE = 1 << 30
LAYOUTS = ["rights", "page-sizes-16k", "malformed", "hpd"]
TCR = 5 << 32 | 2 << 30 | 16 << 16 | 16
"""4K, 48 bits in both halves."""


def in_file(directory: Path, name: str, levels: int) -> tuple[object, ...]:
    """The options that name the tables of a layout as a file of memory, in which only they take
    room."""
    layout = layouts.load(layouts.find(name, "arm64"))
    octets = np.memmap(directory / "ram", np.uint8, "w+", shape=(layout.ram,))
    memory = BufferMemory(octets, described("arm64").ram_base)
    cpu = architecture.named("arm64").build(layout, levels, memory, {})
    given = {one: f"{getattr(cpu, one):#x}" for one in ("ttbr0", "ttbr1", "tcr", "mair", "sctlr")}
    options = [word for name, value in given.items() for word in (f"--{name}", value)]
    return ("--ram", f"ram@{BASE:#x}", *options)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_file_of_memory_says_what_its_layout_says(name: str, tmp_path: Path) -> None:
    for levels in layouts.load(layouts.find(name, "arm64")).levels:
        file = in_file(tmp_path, name, levels)
        built = run("dump", "--layout", f"arm64/{name}", "--levels", levels, "--csv", cwd=tmp_path)
        read = run("dump", *file, "--csv", cwd=tmp_path)
        assert built[0] == read[0] == 0, read
        assert built[1] == read[1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"ttbr1": 0x1000}, "nothing says how addresses are translated: add --tcr"),
        ({"tcr": TCR}, "nothing says where the tables are: add --ttbr0 or --ttbr1, or both"),
        (
            {"tcr": TCR | 1 << 23, "ttbr1": 0},
            "TCR_EL1 0x580900010 has EPD1=1, so that the half of TTBR1_EL1 is not translated: add"
            " --ttbr0, where the other half's tables are",
        ),
        (
            {"tcr": (TCR | 1 << 7) & ~(1 << 23), "ttbr0": 0},
            "TCR_EL1 0x580100090 has EPD0=1, so that the half of TTBR0_EL1 is not translated: add"
            " --ttbr1, where the other half's tables are",
        ),
        (
            {"tcr": TCR | 1 << 7 | 1 << 23, "ttbr0": 0},
            "paging is off: TCR_EL1 0x580900090 has EPD0=1 and EPD1=1",
        ),
        ({"tcr": TCR, "ttbr0": 0, "sctlr": 0}, "paging is off: SCTLR_EL1 is 0x0, M=0"),
        (
            {"tcr": TCR, "ttbr0": 0, "sctlr": 1 | 1 << 25},
            "SCTLR_EL1 0x2000001 has EE=1: big-endian tables are not looked at here",
        ),
        ({"tcr": TCR | 3 << 14, "ttbr0": 0}, "has the reserved TG0 3; EPD0=1 turns that half off"),
        ({"tcr": TCR & ~(3 << 30), "ttbr1": 0}, "has the reserved TG1 0; EPD1=1 turns"),
        ({"tcr": TCR | 7 << 32, "ttbr0": 0}, "has the reserved IPS 7"),
        (
            {"tcr": TCR & ~63 | 11, "ttbr0": 0},
            "has T0SZ 11, by which every access to that half faults: a granule of 4K takes 16",
        ),
        (
            {"tcr": TCR | 63 << 16, "ttbr1": 0},
            "has T1SZ 63, which faults or is taken for 48: a granule of 4K takes 16 to 48 here",
        ),
        (
            {"tcr": TCR, "ttbr0": 0x1010},
            "TTBR0_EL1 0x1010 is not aligned: its root table must be at a multiple of 0x1000",
        ),
        (
            {"tcr": TCR | 2 << 14, "ttbr0": 0, "mmfr0": 0x1122},
            "has a granule of 16K in TG0, which the processor lacks; EPD0=1 turns that half off",
        ),
        (
            {"tcr": TCR, "ttbr0": 1 << 64},
            "ttbr0 is 0x10000000000000000, which is no number of 64 bits",
        ),
        (
            {"tcr": TCR, "ttbr0": 0, "cr3": 0x1000},
            "is of x86, where --tcr and --ttbr0 mean nothing",
        ),
        ({"mair": 0xFF}, "ram does not record TCR_EL1 and TTBR1_EL1, and has no VMCOREINFO"),
        (
            {"tcr": TCR, "ttbr0": 0, "pstate": 1 << 22, "mmfr1": 0},
            "PSTATE.PAN is set on a processor without FEAT_PAN",
        ),
    ],
)
def test_bad_input_ends_in_a_sentence(
    options: dict[str, int], sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "ram").write_bytes(bytes(0x2000))
    words = [word for name, value in options.items() for word in (f"--{name}", f"{value:#x}")]
    for command in (("walk", "0"), ("dump",)):
        code, out, err = run(*command, "--ram", "ram", *words, cwd=tmp_path)
        assert (code, out) == (2, "")
        assert sentence in err and err.count("\n") == 1


def test_a_granule_that_the_processor_lacks_is_refused_of_a_layout(tmp_path: Path) -> None:
    where = ("--layout", "arm64/page-sizes-16k", "--mmfr0", "0x1122")
    code, _, err = run("dump", *where, cwd=tmp_path)
    assert code == 2 and "has a granule of 16K in TG0, which the processor lacks" in err


def test_tables_outside_memory_are_named(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes((0x9999_9000 | 3).to_bytes(8, "little") + bytes(0xFF8))
    where = ("--ram", "ram", "--ttbr0", "0", "--tcr", f"{TCR:#x}")
    code, out, _ = run("walk", "0x1000", *where, cwd=tmp_path)
    assert code == 0
    assert "no translation at level 1: the level-1 table at 0x99999000 lies outside memory" in out
    _, out, _ = run("walk", "0x1000", *where[:2], "--ttbr0", "0x5000", *where[4:], cwd=tmp_path)
    assert "though there is no memory where the roots' tables would be" in out


def test_what_files_do_not_record_is_said_to_be_assumed(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(0x2000))
    where = ("--ram", "ram", "--ttbr1", "0x1000", "--tcr", f"{TCR:#x}")
    _, out, _ = run("walk", "0x0", *where, cwd=tmp_path)
    assert "nothing of the lower half, since a file of memory does not record TTBR0_EL1" in out
    assert "MAIR_EL1=0x40044ffff, as Linux has it (--mair)" in out
    assert "PSTATE.PAN=0 and UAO=0 (--pstate)" in out
    assert "EPD0=1 turns off" in out


# ---- what Linux says of itself ----

VMCOREINFO = b"""OSRELEASE=6.12.0-arm64
PAGESIZE=4096
SYMBOL(swapper_pg_dir)=ffff800080003000
NUMBER(VA_BITS)=48
NUMBER(kimage_voffset)=0xffff800040000000
NUMBER(PHYS_OFFSET)=0x40000000
NUMBER(TCR_EL1_T1SZ)=0x10
KERNELOFFSET=0
"""


def note(text: bytes) -> bytes:
    return struct.pack("<III", 11, len(text), 0) + b"VMCOREINFO\0\0" + text


def test_the_tables_of_linux_are_those_of_its_vmcoreinfo() -> None:
    found = registers(VMCOREINFO)
    assert found["ttbr1"] == 0x4000_3000
    assert found["tcr"] >> 16 & 63 == 16 and found["tcr"] >> 30 & 3 == 2
    wide = registers(VMCOREINFO.replace(b"SZ)=0x10", b"SZ)=0xc"))
    assert wide["tcr"] >> 59 & 1 == 1 and wide["tcr"] >> 32 & 7 == 6
    assert found["tcr"] >> 59 & 1 == 0 and found["tcr"] >> 32 & 7 == 5
    for size, granule in ((16384, 1), (65536, 3)):
        for width, ips in ((47, 5), (52, 6)):
            text = VMCOREINFO.replace(b"=4096", b"=%d" % size).replace(b"3000\n", b"0000\n")
            said = registers(text.replace(b"SZ)=0x10", b"SZ)=0x%x" % (64 - width)))
            assert said["tcr"] >> 30 & 3 == granule and said["tcr"] >> 32 & 7 == ips
            assert said["tcr"] >> 59 & 1 == (width == 52 and size == 16384)
            assert said["tcr"] >> 16 & 63 == 64 - width and said["tcr"] >> 7 & 1  # EPD0
    for line in (b"SYMBOL(swapper", b"NUMBER(kimage", b"NUMBER(TCR", b"PAGESIZE"):
        assert registers(VMCOREINFO.replace(line, b"X" + line)) == {}
    signed = VMCOREINFO.replace(b"0xffff800040000000", b"%d" % (0xFFFF_8000_4000_0000 - (1 << 64)))
    assert registers(signed) == found
    beyond = VMCOREINFO.replace(b"0xffff800040000000", b"0xffff8000c0000000")
    assert registers(beyond) == {}  # its root would be below address 0


def test_of_several_kernels_in_memory_one_is_to_be_chosen() -> None:
    other = VMCOREINFO.replace(b"0xffff800040000000", b"0xffff800040001000")
    assert of_linux("it", [VMCOREINFO, b"", VMCOREINFO]) == registers(VMCOREINFO)
    several = "it has VMCOREINFO of several kernels: choose one, --ttbr1 0x40002000 or --ttbr1 0x4"
    with pytest.raises(SourceError, match=several):
        of_linux("it", [VMCOREINFO, other])
    with pytest.raises(SourceError, match="it does not record TCR_EL1 and TTBR1_EL1, and has no"):
        of_linux("it", [b""])


def test_memory_in_which_linux_left_it_needs_no_options(tmp_path: Path) -> None:
    octets = bytearray(0x10000)
    text = note(VMCOREINFO)
    octets[0x1000 : 0x1000 + len(text)] = text
    octets[0x2A51000:0x2A51008] = (0x4200_0001).to_bytes(8, "little")
    (tmp_path / "ram").write_bytes(octets)
    code, out, err = run("walk", "0xffff000000000000", "--ram", f"ram@{BASE:#x}", cwd=tmp_path)
    assert (code, err) == (0, "")
    assert (
        "the tables are those of Linux itself, by its VMCOREINFO (--ttbr1 0x40003000 --tcr" in out
    )


# ---- cores ----


def core(
    machine: int, text: bytes = b"", width: int = 64, order: str = "<", virtual: int = BASE
) -> bytes:
    """A core with a page of memory at BASE that holds a note."""
    notes = note(text) if text else b""
    size = 64 + 2 * 56
    memory = bytearray(0x10000)
    order_byte = 1 if order == "<" else 2
    ident = b"\x7fELF" + bytes([2 if width == 64 else 1, order_byte, 1]) + bytes(9)
    head = ident + struct.pack(
        f"{order}HHIQQQIHHHHHH", 4, machine, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0
    )
    segments = struct.pack(f"{order}IIQQQQQQ", 4, 0, size, 0, 0, len(notes), len(notes), 0)
    at = size + len(notes)
    segments += struct.pack(
        f"{order}IIQQQQQQ", 1, 0, at, virtual, BASE, len(memory), len(memory), 0
    )
    return head + segments + notes + bytes(memory)


def test_a_core_takes_registers_from_options_or_its_vmcoreinfo(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(core(183))
    code, _, err = run("dump", "--core", "core", cwd=tmp_path)
    assert code == 2 and "a core of arm64, does not record TCR_EL1 and TTBR1_EL1" in err
    given = ("--ttbr1", f"{BASE:#x}", "--tcr", f"{TCR:#x}")
    code, out, _ = run("dump", "--core", "core", *given, cwd=tmp_path)
    assert code == 0 and "Nothing is mapped; the space has 1 table." in out
    said = "the core was written with -p, so that memory which the guest does not map is missing"
    assert said not in out
    (tmp_path / "core").write_bytes(core(183, virtual=BASE + 0x1000))
    code, out, _ = run("dump", "--core", "core", *given, cwd=tmp_path)
    assert code == 0 and said in out
    (tmp_path / "core").write_bytes(core(183, VMCOREINFO))
    code, out, _ = run("dump", "--core", "core", cwd=tmp_path)
    assert code == 0 and "by its VMCOREINFO (--ttbr1 0x40003000" in out
    code, _, err = run("dump", "--core", "core", "--vcpu", 7, cwd=tmp_path)
    assert code == 2 and "has no processor 7: it has 0 to 0" in err
    code, _, err = run("dump", "--core", "core", "--cr3", "0", cwd=tmp_path)
    assert code == 2 and "is of arm64, where --cr3 means nothing" in err


def test_cores_of_other_arms_are_named(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(core(183, order=">"))
    code, _, err = run("dump", "--core", "big", cwd=tmp_path)
    assert code == 2 and "is a core of a big-endian machine, whose tables are not looked" in err
    (tmp_path / "small").write_bytes(core(40))
    code, _, err = run("dump", "--core", "small", cwd=tmp_path)
    assert code == 2
    assert "is a core of another machine than x86, RISC-V, arm64" in err and "EM_ARM" in err


def test_a_file_without_an_address_is_said_to_begin_at_0(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(1 << 13))
    asked = ("--ttbr0", "0", "--tcr", f"{TCR:#x}")
    assert (
        "ram begins at 0 (FILE@ADDRESS)"
        in run("walk", "0", "--ram", "ram", *asked, cwd=tmp_path)[1]
    )
    assert "begins at 0" not in run("walk", "0", "--ram", "ram@0", *asked, cwd=tmp_path)[1]
    assert "begins at 0" not in run("walk", "0", "--ram", "ram", "--cr3", 0, cwd=tmp_path)[1]


def test_a_half_without_a_root_is_not_said_to_be_off_alone(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(1 << 13))
    asked = ("--ram", "ram@0", "--ttbr0", "0", "--tcr", f"{TCR:#x}")
    _, out, _ = run("walk", "0xffff800000000000", *asked, cwd=tmp_path)
    assert "or whose root is not given" in out and "TTBR1 not given" in out


def test_a_register_is_quoted_as_it_was_given(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(1 << 13))
    given = ("dump", "--ram", f"ram@{BASE:#x}", "--tcr", "0x0", "--ttbr0", hex(BASE))
    code, output, errors = run(*given, cwd=tmp_path)
    assert (code, output) == (2, "")
    assert "TCR_EL1 0x0 has T0SZ 0, by which" in errors


@pytest.mark.parametrize(("high", "address"), [(1, 0xFFFF_0000_0000_0000), (0, 0x1000)])
def test_nothing_is_said_of_the_half_whose_root_is_not_given(
    high: int, address: int, tmp_path: Path
) -> None:
    (tmp_path / "ram").write_bytes(bytes(1 << 13))
    given = (f"--ttbr{1 - high}", hex(BASE), "--ram", f"ram@{BASE:#x}")
    on, off = ("--tcr", hex(TCR)), ("--tcr", hex(TCR | 1 << 7 + 16 * high))
    lacking = f"the root that serves it is not given (--ttbr{high})"
    seen = ("fault", hex(address), "--esr", "0x92000004", *given)
    code, output, errors = run(*seen, *on, cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "Whether the tables give this fault is not known." in output
    assert f"unknown, for {lacking}" in output and "EPDx" not in output
    code, output, _ = run(*seen, *on, "--esr", "0x92000030", cwd=tmp_path)
    assert "do not give this fault" in output and "held two translations" in output
    code, output, _ = run(*seen, *off, cwd=tmp_path)
    assert "The tables as they are give this fault." in output and "EPDx=1" in output
    _, output, _ = run("walk", hex(address), *given, *on, cwd=tmp_path)
    assert f"{address:#x}: unknown: {lacking}" in output
    _, output, _ = run(*seen, *on, "--json", cwd=tmp_path)
    found = json.loads(output)
    assert found["given"] is None
    assert {one["outcome"] for one in found["outcomes"]} == {"unknown"}
    assert found["outcomes"][0]["translation"]["rule"] is None
