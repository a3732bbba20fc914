"""The last page fault of a processor is the one that was raised, and no other is made up."""

from __future__ import annotations

import random
import struct
from dataclasses import replace
from typing import Any

import pytest

from harness.inspect.held import UnreadError
from harness.inspect.snapshot import QuestionError, Snapshot
from harness.inspect.x86.frame import last_fault
from harness.inspect.x86.last import raised
from harness.paging.address import Physical
from harness.paging.memory import BufferMemory
from harness.paging.x86.access import Access, Kind
from harness.paging.x86.cpu import Cpu, Mode
from tests.paging.x86.made import PAGE, path

KERNEL, USER, DATA, FLAGS = 0x10, 0x33, 0x2B, 0x1_0202
SP, RIP, CR2 = 0x800, 0x124, 0xDEAD_BEE8


def stopped(
    *words: int, mode: Mode = Mode.LEVEL_4, at: int = SP, **registers: int | None
) -> Snapshot:
    """A processor whose stack lies in the page at 0, which is executable too, with these words."""
    cpu = Cpu.in_mode(mode, 0)
    cpu, memory = path(cpu, *(7,) * (4 if cpu.long else 2))
    size = 8 if cpu.long else 4
    for number, word in enumerate(words):
        octets = word.to_bytes(size, "little")
        place = PAGE + at + size * number
        memory.octets[place : place + size] = bytearray(octets)
    own = {"cr2": CR2, "rip": 0x40, "rsp": SP, "cpl": 0, **registers}
    given = {name: value for name, value in own.items() if value is not None}
    return Snapshot("made", cpu, memory, (memory.span,), registers=given)


LONG = (0x2, RIP, KERNEL, FLAGS, 0x900, 0x18)


@pytest.mark.parametrize(
    ("words", "mode", "at"),
    [
        (LONG, Mode.LEVEL_4, SP),
        (LONG, Mode.LEVEL_4, SP + 8 * 14),  # the handler has saved its registers
        ((0x6, RIP, USER, FLAGS, 0x7FFF_0000, DATA), Mode.LEVEL_4, SP + 16),
        ((0x2, RIP, KERNEL, FLAGS, 0x900, 0), Mode.LEVEL_4, SP),  # SS is null after an interrupt
        ((0x2, RIP, 0xFFF8, FLAGS, 0x900, 0xFFF0), Mode.LEVEL_4, SP),  # the last of a GDT
        ((0x2, RIP, 0x8, FLAGS), Mode.BITS_32, SP),
        ((0x7, RIP, 0x1B, FLAGS), Mode.BITS_32, SP + 4 * 12),
        ((0x2, RIP, 0x8, FLAGS), Mode.BITS_32, SP + 4 * 3),  # which is aligned to a word alone
    ],
)
def test_the_frame_is_found_above_what_the_handler_saved(
    words: tuple[int, ...], mode: Mode, at: int
) -> None:
    frame = last_fault(stopped(*words, mode=mode, at=at))
    assert frame is not None
    assert (frame.place, frame.code, frame.rip) == (at, words[0], RIP)


@pytest.mark.parametrize(
    ("index", "word"),
    [
        (0, 0x100),  # no error code of a page fault
        (0, 0x101),
        (0, 0x22),  # a key without a page
        (0, 0x6),  # the user's, in a frame of the kernel
        (1, 0x5000),  # not mapped
        (2, 0),  # no selector
        (2, 0x11),  # ring 1
        (2, KERNEL | 1 << 16),
        (3, FLAGS & ~2),
        (3, FLAGS | 8),
        (3, FLAGS | 1 << 30),
        (3, FLAGS | 1 << 5),
        (3, FLAGS | 1 << 15),
        (5, DATA),  # of another ring
        (5, 1 << 16),
    ],
)
def test_what_differs_in_one_word_is_no_frame(index: int, word: int) -> None:
    words = [*LONG]
    words[index] = word
    assert last_fault(stopped(*words)) is None


def test_no_frame_is_from_ring_1_or_2() -> None:
    """Its stack's selector is of the ring of its code (SDM volume 3A, 6.14.2), so both are."""
    for ring in 1, 2:
        words = [*LONG]
        words[2], words[5] = words[2] & ~3 | ring, words[5] & ~3 | ring
        assert last_fault(stopped(*words)) is None
    assert last_fault(stopped(*LONG)) is not None


def test_what_ends_where_the_stack_is_mapped_no_more_is_no_frame() -> None:
    """What lies behind it counts as no words, though null would do for the two that are left."""
    assert last_fault(stopped(*LONG[:4], at=0x1000 - 4 * 8)) is None
    assert last_fault(stopped(*LONG[:4], at=0x1000 - 6 * 8)) is not None


def test_a_fetch_is_where_its_instruction_is() -> None:
    fetch = (0x10, CR2, KERNEL, FLAGS, 0x900, 0x18)
    assert last_fault(stopped(*fetch)) is not None  # RIP is what is not mapped
    assert last_fault(stopped(*fetch, cr2=CR2 + 15)) is None


def test_noise_is_no_frame_and_no_stack_is_none() -> None:
    source = random.Random(1)
    for _ in range(20):
        words = [source.getrandbits(source.choice((12, 16, 32, 64))) for _ in range(256)]
        assert last_fault(stopped(*words)) is None
    for sp in (None, 0x5000_0000, 0xFFF8, (1 << 64) - 8, 0x8000_0000_0000_0000):
        assert last_fault(stopped(*LONG, rsp=sp)) is None


class Cut(BufferMemory):
    """Memory of which the stack was not read."""

    def load(self, address: Physical, size: int) -> int | None:
        if address >= PAGE:
            raise UnreadError("it was not read")
        return super().load(address, size)


def test_a_stack_that_was_not_read_holds_no_frame() -> None:
    made = stopped(*LONG)
    assert last_fault(made) is not None
    assert isinstance(made.memory, BufferMemory)
    assert last_fault(replace(made, memory=Cut(bytes(made.memory.octets)))) is None


@pytest.mark.parametrize(
    ("registers", "accesses"),
    [
        ({"cr2": 0x40}, [Access(Kind.FETCH, False)]),
        ({"cr2": 0x4E}, [Access(Kind.FETCH, False)]),  # the end of a long instruction
        ({"cr2": 0x4F}, [Access(Kind.READ, False), Access(Kind.WRITE, False)]),
        ({"cr2": 0x3F}, [Access(Kind.READ, False), Access(Kind.WRITE, False)]),
        ({"cpl": 3}, [Access(Kind.READ, True), Access(Kind.WRITE, True)]),
        ({"rip": None, "cpl": None}, [Access(Kind.READ, False), Access(Kind.WRITE, False)]),
    ],
)
def test_without_a_frame_the_access_is_one_that_fits_the_registers(
    registers: dict[str, Any], accesses: list[Access]
) -> None:
    found = raised(stopped(**registers), 1)
    assert (found.code, [*found.accesses]) == (None, accesses)
    assert found.address == registers.get("cr2", CR2)
    assert "From processor 1: CR2 0x" in found.said and "--code" in found.said


def test_where_the_fault_is_from_is_said() -> None:
    said = raised(stopped(*LONG), 0).said
    assert f"on its stack, at {SP:#x}, the error code 0x2 and RIP {RIP:#x}" in said
    assert raised(stopped(cr2=0, rip=0x500), 0).said.startswith("Perhaps no page fault was raised")
    assert "erhaps" not in raised(stopped(cr2=1, rip=0x500), 0).said
    with pytest.raises(QuestionError, match="does not record CR2"):
        raised(stopped(cr2=None), 0)


def test_the_width_of_a_word_is_that_of_the_mode() -> None:
    """A 32-bit frame read as 64-bit words is none, and the reverse."""
    octets = struct.pack("<4I", *(0x2, RIP, 0x8, FLAGS))
    words = struct.unpack("<2Q", octets)
    assert last_fault(stopped(*words)) is None


@pytest.mark.parametrize(
    ("registers", "address", "access"),
    [
        ({"rip": 0x40}, CR2, "implicit supervisor read"),
        ({"rip": 0x70_0000}, 0x70_0000, "supervisor fetch"),
        ({"rip": 0x70_0000, "cpl": 3}, 0x70_0000, "user fetch"),
        ({"rip": None}, CR2, "implicit supervisor read"),
    ],
)
def test_a_gate_that_could_not_be_read_is_not_taken_for_what_came_first(
    registers: dict[str, Any], address: int, access: str
) -> None:
    found = raised(stopped(idt=CR2 - 8 * 16, **registers), 0)
    assert (found.address, [str(one) for one in found.accesses]) == (address, [access])
    assert f"CR2 is where the gate of vector 8 is, in the IDT at {CR2 - 8 * 16:#x}" in found.said


def test_the_first_and_the_last_gate_are_known_by_their_vectors() -> None:
    for vector in 0, 255:
        said = raised(stopped(idt=CR2 - vector * 16), 0).said
        assert f"CR2 is where the gate of vector {vector} is" in said


def test_a_gate_that_is_mapped_is_no_reason() -> None:
    found = raised(stopped(idt=0x100, cr2=0x180), 0)
    assert "gate" not in found.said
    assert "gate" not in raised(stopped(idt=CR2 - 256 * 16), 0).said
