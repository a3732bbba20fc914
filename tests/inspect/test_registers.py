"""Registers that lead to roots, bit by bit, on every architecture, by the fields of the manuals."""

from __future__ import annotations

import random
from typing import Final

import pytest

from harness.inspect import architecture
from harness.inspect.decode import Role
from harness.inspect.snapshot import QuestionError

EVERY: Final = [
    ("x86", "4", "cr3", 64),
    ("x86", "32", "cr3", 64),
    ("x86", "pae", "cr3", 64),
    ("riscv", "sv32", "satp", 32),
    ("riscv", "sv39", "satp", 64),
    ("arm64", "4k", "ttbr0", 64),
    ("arm64", "64k-52", "ttbr1", 64),
    ("s390", "region-third", "asce", 64),
    ("power", "radix-4k", "ptcr", 64),
    ("power", "radix-4k", "quadrant0", 64),
    ("power", "radix-4k", "quadrant3", 64),
]


@pytest.mark.parametrize(("name", "mode", "register", "width"), EVERY)
def test_every_bit_is_shown_once_with_what_it_holds(
    name: str, mode: str, register: str, width: int
) -> None:
    asked, source, shown = architecture.named(name), random.Random(register), 0
    cpu = asked.in_mode(mode, {})
    for _ in range(60):
        raw = source.getrandbits(width)
        try:
            found = asked.read_root(cpu, register, raw)
        except QuestionError:  # of a value by which nothing is translated
            continue
        shown += 1
        assert found.raw == raw
        masks = [part.mask for part in found.parts]
        assert sum(masks) == (1 << width) - 1 and masks == sorted(masks, reverse=True)
        for part in found.parts:
            assert part.meaning and part.section, part
            if part.role is not Role.ADDRESS:
                assert part.value == (raw & part.mask) >> part.low, part
    assert shown > 3


@pytest.mark.parametrize(
    ("mode", "other", "raw", "root", "asid", "said"),
    [
        ("sv32", "sv32", 1 << 31 | 0x155 << 22 | 0x3A_5A5A, 0x3A5_A5A0_00, 0x155, "Sv32"),
        (
            "sv39",
            "sv48",
            8 << 60 | 0xABCD << 44 | 0xFFF_1234_5678,
            0xFFF123_45678_000,
            0xABCD,
            "39",
        ),
        ("sv48", "sv39", 9 << 60 | 0x80000, 0x8000_0000, 0, "48"),
        ("sv57", "sv39", 10 << 60 | 1 << 59 | 0x80001, 0x8000_1000, 0x8000, "57"),
    ],
)
def test_satp_has_mode_asid_and_ppn(
    mode: str, other: str, raw: int, root: int, asid: int, said: str
) -> None:
    asked = architecture.named("riscv")
    for one in {mode, other}:  # it says the mode itself
        found = asked.read_root(asked.in_mode(one, {}), "satp", raw)
        parts = {part.name: part for part in found.parts}
        assert (found.name, found.leads_to, found.reserved) == ("satp", root, 0)
        assert parts["ASID"].value == asid
        assert said.lower() in parts["MODE"].meaning.lower()
        assert f"{root:#x}" in parts["PPN"].meaning


def test_a_satp_that_is_none_is_a_sentence() -> None:
    asked = architecture.named("riscv")
    for mode, raw in (("sv32", 1 << 32), ("sv32", 5), ("sv39", 1 << 64), ("sv39", 3 << 60)):
        with pytest.raises(QuestionError):
            asked.read_root(asked.in_mode(mode, {}), "satp", raw)
