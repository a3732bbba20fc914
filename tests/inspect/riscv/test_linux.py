"""What Linux keeps in an entry of RISC-V covers just what the machine ignores, and says what was
written."""

from __future__ import annotations

import random
from functools import reduce
from operator import or_

import pytest

from harness.inspect import decode
from harness.inspect.decode import Bits, Role
from harness.inspect.riscv import linux
from harness.inspect.snapshot import QuestionError
from harness.paging.linux.entries import Marker, Migration, ProtNone, Swap, Unknown
from harness.paging.riscv.cpu import Cpu, Mode
from harness.paging.riscv.formats import A, D, G, R, U, V, W

CPU = Cpu.in_mode(Mode.SV39, 0, pbmte=True, svnapot=True)
PAGE = 0x80123 << 10 | V | R | W | U | A | D


def said(raw: int, level: int = 0) -> str:
    return linux.read(CPU, decode.read(CPU, raw, level)).said


def parts(raw: int, level: int = 0) -> dict[str, Bits]:
    return {part.name: part for part in linux.read(CPU, decode.read(CPU, raw, level)).parts}


@pytest.mark.parametrize("mode", [Mode.SV39, Mode.SV48, Mode.SV57])
def test_linux_has_what_the_machine_ignores_and_no_more(mode: Mode) -> None:
    cpu = Cpu.in_mode(mode, 0, pbmte=True, svnapot=True)
    source = random.Random(1)
    for _ in range(400):
        level, raw = source.randrange(cpu.levels), source.getrandbits(64)
        reading = decode.read(cpu, raw, level)
        ignored = sum(part.mask for part in reading.parts if part.role is Role.IGNORED)
        found = [part.mask for part in linux.read(cpu, reading).parts]
        assert reduce(or_, found, 0) == sum(found) == ignored


@pytest.mark.parametrize(
    ("raw", "level", "meaning", "words"),
    [
        (0, 0, None, "nothing"),
        (PAGE, 0, None, "a page"),
        (PAGE | 1 << 8, 0, None, "a page; special"),
        (PAGE | 1 << 9, 0, None, "a page; devmap"),
        (0x80123 << 10 | V, 1, None, "a table"),
        (0x5080, 0, Swap, "a page in swap: number 0x5 of area 1"),
        (0x50C0, 0, Swap, "a page in swap: number 0x5 of area 1; exclusive"),
        (0x1E80, 0, Migration, "the page at 0x1000 is being moved, comes back read-only, of one"),
        (0x2F80, 0, Marker, "no page, a marker: POISONED"),
        (PAGE & ~V | G, 0, ProtNone, "the page at 0x80123000, which nobody may access (PROT_N"),
        (0x80, 0, Unknown, "nothing that Linux writes: in swap it would be page 0x0 of area 1"),
        (0x5080, 2, Unknown, "nothing that Linux writes at this level"),
    ],
)
def test_what_is_written_is_said(raw: int, level: int, meaning: type | None, words: str) -> None:
    found = linux.read(CPU, decode.read(CPU, raw, level))
    assert found.said.startswith(words) or found.said == words
    assert found.memory_type is None
    if meaning is not None:
        assert isinstance(found.meaning, meaning)


def test_the_bits_of_a_page_in_swap_are_named() -> None:
    found = parts(0x50C0)
    values = {name: part.value for name, part in found.items()}
    assert values == {"offset": 5, "type": 1, "exclusive": 1, "unused": 0}
    assert found["type"].meaning == "swap area 1"
    assert parts(0x1E80)["type"].meaning == "migration read exclusive"


def test_a_page_without_rights_has_none_to_give_back() -> None:
    found = parts(PAGE & ~(V | W | U) | G)
    assert found["PROT_NONE"].meaning == "the page is there, and nobody may access it"
    address = found["address"]
    assert (address.value, address.high, address.low) == (0x8012_3000, 53, 10)
    assert found["R"].meaning == "the rights that come back are those of the mapping"
    assert found["D"].meaning == "as it will be when the page is present again"
    split = parts(0x80200 << 10 | R | W | U | A | D, level=1)
    assert split["PROT_NONE"].meaning == "not used: a large page that is being split"
    assert split["W"].meaning == "as it will be when the page is present again"


def test_of_sv32_nothing_is_known() -> None:
    cpu = Cpu.in_mode(Mode.SV32, 0)
    with pytest.raises(QuestionError, match="Sv32 is not known here"):
        linux.read(cpu, decode.read(cpu, 0x5080, 0))
