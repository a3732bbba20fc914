"""Where POWER's tables come from: layouts, files of memory, cores, and the registers given."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from harness.check import layouts
from harness.inspect import architecture
from harness.paging.memory import BigEndianMemory
from harness.paging.power.cpu import Cpu
from harness.report.schema import schema
from tests.cli.commands import run
from tests.inspect.power.handmade import RAM, ROOT, TREE, L, V, mixed

LAYOUTS = ["page-sizes", "rights-64k", "malformed"]
PARTITIONS, PROCESSES, HOST, BELOW = 0x10_0000, 0x10_2000, 0x20_0000, 0x10_4000
"""Where the tables are that lead to the trees, in memory of a layout that has nothing there."""


def built(
    name: str, path: Path, head: Callable[[int], bytes] = lambda size: b""
) -> tuple[np.ndarray, Cpu]:
    """The memory of a layout, which is what a file holds after a head that tells its size; of a
    gigabyte and more only the tables' blocks take room."""
    layout = layouts.load(layouts.find(name, "power"))
    first = path.write_bytes(head(layout.ram))
    os.truncate(path, first + layout.ram)
    octets = np.memmap(path, np.uint8, "r+", first, (layout.ram,))
    cpu = architecture.named("power").build(layout, 4, BigEndianMemory(octets), {})
    return octets, cpu


def chained(octets: np.ndarray, cpu: Cpu, pid: int) -> None:
    """Writes the tables that lead to the trees of a state, which is that of a process."""
    memory = BigEndianMemory(octets)
    words = {
        PARTITIONS: 1 << 63 | TREE | HOST,
        PARTITIONS + 8: PROCESSES,
        PROCESSES: cpu.quadrant3,
        PROCESSES + 16 * pid: cpu.quadrant0,
        HOST: V | BELOW | 9,
        BELOW: V | L | 0x187,  # the first GiB, as it is
    }
    for address, word in words.items():
        assert word is not None
        memory.store(address, 8, word)  # type: ignore[arg-type]


def options(cpu: Cpu) -> tuple[str, ...]:
    assert cpu.quadrant0 is not None
    return ("--quadrant0", hex(cpu.quadrant0), "--quadrant3", hex(cpu.quadrant3))


@pytest.mark.parametrize("name", LAYOUTS)
def test_files_and_cores_say_what_their_layout_says(name: str, tmp_path: Path) -> None:
    for file, head in (("ram", lambda size: b""), ("core", head_of_core)):
        octets, cpu = built(name, tmp_path / file, head)
        chained(octets, cpu, 7)
    as_built = run("dump", "--layout", f"power/{name}", "--csv", cwd=tmp_path)
    assert as_built[0] == 0, as_built
    chain = ("--ptcr", hex(PARTITIONS), "--pid", "7")
    for source in ("--ram", "--core"):
        for given in (chain, options(cpu)):
            read = run("dump", source, source[2:], *given, "--csv", cwd=tmp_path)
            assert read[:2] == as_built[:2], read


def test_process_0_is_that_of_both_quadrants_unless_another_is_named(tmp_path: Path) -> None:
    octets, cpu = built("page-sizes", tmp_path / "ram")
    chained(octets, cpu, 7)
    code, output, _ = run("dump", "--ram", "ram", "--ptcr", hex(PARTITIONS), cwd=tmp_path)
    assert code == 0
    assert f"quadrant 0 {cpu.quadrant3:#x}" in output
    assert "PIDR=0, since a file of memory does not record it (--pid)" in output


def head_of_core(ram: int, processors: int = 1, order: str = ">") -> bytes:
    """What QEMU writes before so much memory, in notes of which there are none of the registers
    that lead to trees."""
    notes = b""
    for _ in range(processors):
        for size, kind in ((504, 1), (264, 2), (544, 0x100), (256, 0x102), (140, 0x101)):
            notes += struct.pack(f"{order}III", 5, size, kind) + b"CORE\0\0\0\0" + bytes(size)
    ident = b"\x7fELF\x02" + (b"\x02" if order == ">" else b"\x01") + b"\x01" + bytes(9)
    head = struct.pack(f"{order}HHIQQQIHHHHHH", 4, 21, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    first = 64 + 2 * 56
    program = f"{order}IIQQQQQQ"
    programs = struct.pack(program, 4, 0, first, 0, 0, len(notes), len(notes), 0)
    at = first + len(notes)
    programs += struct.pack(program, 1, 0, at, 0, 0, ram, ram, 0)
    return ident + head + programs + notes


@pytest.mark.parametrize("order", ["<", ">"])
def test_tables_are_big_endian_in_a_core_of_either_byte_order(tmp_path: Path, order: str) -> None:
    """A guest that takes interrupts little-endian, as Linux on ppc64le, has such a core."""
    head = partial(head_of_core, processors=2, order=order)
    _, cpu = built("page-sizes", tmp_path / "core", head)
    given = ("--core", "core", *options(cpu))
    code, output, errors = run("walk", "0x40000000", *given, "--vcpu", "1", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "0x40000000: 0x3000000, in a 2M page" in output
    code, output, errors = run("dump", *given, "--vcpu", "2", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert "core has no processor 2: it has 0 to 1" in errors


NOWHERE = "describes a tree that is not supported, of 52 bits with a root of 12"


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({}, "is of x86"),
        ({"amr": 0}, "is of x86, where --amr means nothing"),
        ({"pid": 1, "quadrant0": TREE | ROOT}, "--pid chooses an entry of the process table, to"),
        ({"ptcr": 0}, "the partition table's entry for LPID 0 is 0x0, without HR"),
        ({"ptcr": 1 << 40}, "no memory is at 0x10000000000, where the partition table's entry"),
        ({"quadrant0": TREE ^ 1 | ROOT}, NOWHERE),
        ({"quadrant0": 0}, "no process has a tree"),
        ({"quadrant0": 1 << 64}, "quadrant0 is 0x10000000000000000, which is no number of 64 bits"),
        ({"quadrant0": TREE | ROOT, "satp": 1}, "is of "),
    ],
)
def test_bad_input_ends_in_a_sentence(given: dict[str, int], sentence: str, tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(mixed(1).octets.tobytes())
    words = [word for name, value in given.items() for word in (f"--{name}", f"{value:#x}")]
    for command in (("walk", "0"), ("dump",), ("lint",)):
        code, out, err = run(*command, "--ram", "ram", *words, cwd=tmp_path)
        assert (code, out) == (2, ""), err
        assert err.count("\n") == 1
        if given:
            assert sentence in err


def test_a_core_that_says_nothing_of_its_trees_asks_for_them(tmp_path: Path) -> None:
    (tmp_path / "core").write_bytes(head_of_core(RAM) + mixed(1).octets.tobytes())
    code, out, err = run("dump", "--core", "core", cwd=tmp_path)
    assert (code, out) == (2, "")
    assert "core, a core of POWER, does not record PTCR: add --ptcr, and --pid" in err


def test_what_is_not_recorded_is_assumed_and_said(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(mixed(1).octets.tobytes())
    given = ("--ram", "ram", "--quadrant0", hex(TREE | ROOT))
    _, output, _ = run("lint", *given, cwd=tmp_path)
    assert "nothing of quadrant 3 (--quadrant3, or --ptcr)" in output
    assert "AMR=0 and IAMR=0 (--amr, --iamr)" in output
    _, output, _ = run("lint", *given, "--amr", "0x8000000000000000", cwd=tmp_path)
    assert "IAMR=0 (--iamr)" in output and "AMR=0 and" not in output
    assert "Key 0 of AMR is 2, so that privileged code writes nothing of the pages of" in output


def test_a_root_that_leads_nowhere_is_doubted(tmp_path: Path) -> None:
    (tmp_path / "ram").write_bytes(bytes(1 << 20))
    _, output, _ = run("dump", "--ram", "ram", "--quadrant0", hex(TREE | ROOT), cwd=tmp_path)
    assert "though no entry of the roots' tables is valid" in output
    _, output, _ = run("dump", "--ram", "ram", "--quadrant0", hex(TREE | 1 << 30), cwd=tmp_path)
    assert "though there is no memory where the roots' tables would be" in output


def test_what_an_entry_probably_is_that_makes_no_sense(tmp_path: Path) -> None:
    made = mixed(1)
    given = ("--ram", "ram", "--quadrant0", hex(TREE | ROOT))
    for word, said in (
        # 0x8000000000ff0009 as a little-endian machine stores it.
        (int.from_bytes((V | 0xFF_0009).to_bytes(8, "big"), "little"), "its bytes in the other"),
        (0xFFFF_FFFF_FFFF_FFFF, "all ones: memory that is not there reads so"),
        (5, None),
    ):
        made.put(ROOT, word)
        (tmp_path / "ram").write_bytes(made.octets.tobytes())
        _, output, _ = run("walk", "0", *given, cwd=tmp_path)
        assert said in output if said else "likely" not in output


@pytest.mark.parametrize("command", ["walk", "dump", "lint", "fault"])
def test_objects_are_of_the_schema(command: str, tmp_path: Path) -> None:
    words = (command, *(("0x400000",) if command in ("walk", "fault") else ()))
    for layout in LAYOUTS:
        code, output, _ = run(*words, "--layout", f"power/{layout}", "--json", cwd=tmp_path)
        assert code in (0, 1)
        Draft202012Validator(schema(command)).validate(json.loads(output))
