"""Entries of radix trees bit by bit, and the registers that say where trees are."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.inspect import decode
from harness.inspect.decode import Part, Role
from harness.inspect.power import memory_type
from harness.inspect.power.mode import MODES, assumed, in_mode
from harness.inspect.power.registers import read as read_register
from harness.inspect.snapshot import QuestionError
from harness.paging.entry import Leaf, Malformed, Pointer
from tests.cli.commands import run
from tests.inspect.power.handmade import GIVING, TREE, L, V


def raws(count: int) -> Iterator[int]:
    source = random.Random(64)
    tops = (0, V, V | L)
    yield from (1 << bit | top | size for bit in range(64) for top in tops for size in (5, 9))
    for _ in range(count):
        yield source.getrandbits(60) & ~31 | source.choice((5, 9, 3, 13)) | source.choice(tops)


@pytest.mark.parametrize("mode", MODES)
def test_every_bit_is_accounted_for_once_and_the_entry_is_what_the_format_says(mode: str) -> None:
    cpu = in_mode(mode, {})
    for level in decode.levels_of(cpu):
        for raw in raws(300):
            found = decode.read(cpu, raw, level)
            masks = [part.mask for part in found.parts]
            assert sum(masks) == (1 << 64) - 1 and all(masks)
            wrong = sum(part.mask for part in found.parts if part.wrong)
            assert bool(wrong) == isinstance(found.entry, Malformed)
            address = sum(part.value for part in found.parts if part.role is Role.ADDRESS)
            match found.entry:
                case Leaf(there, _):
                    assert address == there
                case Pointer(table):
                    assert address == table.address
                case Malformed(bits):
                    assert bits == sum(
                        part.mask & (raw ^ part.mask // 31 * (part.must_be or 0))
                        if part.name == "NLS"
                        else part.mask
                        for part in found.parts
                        if part.wrong
                    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("size", "entries"), [(5, 32), (9, 512)])
def test_a_page_table_of_either_size_is_led_to(mode: str, size: int, entries: int) -> None:
    """Whatever the smallest pages are said to be: a tree may have both."""
    found = decode.read(in_mode(mode, {}), V | 0x12_3F00 | size, 1)
    assert isinstance(found.entry, Pointer)
    assert found.entry.table.address == (0x12_3F00 if size == 5 else 0x12_3000)
    assert found.entry.table.size == 8 * entries
    [said] = [part.meaning for part in found.parts if part.name == "NLS"]
    assert said == f"{entries} entries in the table"


def parts(raw: int, level: int, mode: str = "radix-4k") -> dict[str, Part]:
    return {part.name: part for part in decode.read(in_mode(mode, {}), raw, level).parts}


def test_a_page_is_told_in_the_manuals_words() -> None:
    found = parts(V | L | 0x12_3000 | GIVING | 1 << 5, 0)
    assert found["RPN"].meaning == "the page is at 0x123000"
    assert found["ATT"].meaning.startswith("non-idempotent I/O")
    assert found["EAA0"].meaning.startswith("for problem state")
    assert found["EAA3"].meaning == "fetches"
    assert found["C"].meaning == "written"
    said = parts(V | L | 0x12_3000, 0)["R"].meaning
    assert said == "not used since it was cleared: an access faults: the processor does not set it"


def test_what_of_a_page_is_ignored_says_why() -> None:
    found = decode.read(in_mode("radix-4k", {}), V | L | 0x1F_F000 | 7 << 9 | 1 << 6, 1)
    why = {(part.high, part.low): part.meaning for part in found.parts if part.value}
    assert why[20, 12] == "below the page: ignored"
    assert why[11, 9] == "free for software"
    assert why[6, 6] == "reserved, and not checked"


def test_ptcr_says_where_the_partition_table_is() -> None:
    found = read_register(in_mode("radix-4k", {}), "ptcr", 0x5_1004)
    assert (found.name, found.leads_to) == ("PTCR", 0x5_1000)
    assert {part.name: part.meaning for part in found.parts}["PATS"] == "it has 0x10000 bytes"
    assert sum(part.mask for part in found.parts) == (1 << 64) - 1


@pytest.mark.parametrize("name", ["quadrant0", "quadrant3"])
def test_a_process_table_entry_says_where_the_root_is(name: str) -> None:
    found = read_register(in_mode("radix-4k", {}), name, TREE | 0x201_0000)
    assert found.leads_to == 0x201_0000
    assert sum(part.mask for part in found.parts) == (1 << 64) - 1
    assert all("alone" not in part.meaning for part in found.parts)
    for odd in (1 << 61, 1 << 5, 2):
        said = [
            part.meaning for part in read_register(in_mode("radix-4k", {}), name, TREE ^ odd).parts
        ]
        assert any("of 52 bits alone" in one or "roots have 1 << 13" in one for one in said)


@pytest.mark.parametrize("name", ["ptcr", "quadrant0", "quadrant3"])
def test_parts_of_a_register_hold_what_it_has_there(name: str) -> None:
    source = random.Random(name)
    for _ in range(20):
        raw = source.getrandbits(64)
        found = read_register(in_mode("radix-4k", {}), name, raw)
        assert sum(part.mask for part in found.parts) == (1 << 64) - 1
        for part in found.parts:
            held = raw & part.mask
            assert part.value == (held if part.role is Role.ADDRESS else held >> part.low)


def test_what_is_assumed_of_a_mode_is_about_pages() -> None:
    cpu = in_mode("radix-4k", {})
    pointer = cpu.format.decode(V | 0x12_3000 | 9, 1)
    page = cpu.format.decode(V | L | 0x12_3000, 0)
    assert isinstance(pointer, Pointer) and isinstance(page, Leaf)
    assert [len([*assumed(cpu, {}, some)]) for some in ((), (pointer,), (pointer, page))] == [
        0,
        0,
        1,
    ]


def test_memory_types_are_fixed() -> None:
    with pytest.raises(QuestionError, match="POWER has no PAT"):
        memory_type.types(0)


def test_the_command_reads_entries_and_registers(tmp_path: Path) -> None:
    words = ("--mode", "radix-64k", "pte=0xc000000008000187", f"quadrant0={TREE | 0x1_0000:#x}")
    code, output, errors = run("decode", *words, "--linux", cwd=tmp_path)
    assert (code, errors) == (0, "")
    assert "64K page at 0x8000000" in output and "the root table is at 0x10000" in output
    code, output, errors = run("decode", "ptcr=0x1000", "--mode", "4", cwd=tmp_path)
    assert (code, output) == (2, "")
    assert "ptcr is no register of x86: name a mode that has it, like --mode radix-4k" in errors
