"""The memory types that entries select, on every architecture, by the places of the manuals."""

from __future__ import annotations

import random
from typing import Any, Final

import numpy as np
import pytest

from harness.inspect import architecture
from harness.inspect.snapshot import QuestionError

PLACES: Final[dict[tuple[str, str], tuple[list[int], list[int]]]] = {
    ("x86", "4"): ([3, 4, 7], [3, 4, 12]),
    ("x86", "pae"): ([3, 4, 7], [3, 4, 12]),
    ("x86", "32"): ([3, 4, 7], [3, 4, 12]),
    ("riscv", "sv48"): ([61, 62], [61, 62]),
    ("arm64", "4k"): ([2, 3, 4], [2, 3, 4]),
    ("arm64", "64k-52"): ([2, 3, 4], [2, 3, 4]),
    ("power", "radix-4k"): ([4, 5], [4, 5]),
    ("s390", "region-first"): ([], []),
}
"""The bits that choose one, from the lowest up, in pages of the lowest level and in larger ones:
PWT, PCD and PAT (SDM table 12-11); PBMT (Svpbmt); AttrIndx; ATT, whose bits the Power ISA numbers
58 and 59."""


def selected(raw: int, places: list[int], name: str) -> int:
    number = sum((raw >> place & 1) << at for at, place in enumerate(places))
    return 0 if name == "riscv" and number == 3 else number  # reserved, and no type


@pytest.mark.parametrize(("named", "places"), PLACES.items(), ids=map(" ".join, PLACES))
def test_a_page_selects_the_type_that_its_bits_say(
    named: tuple[str, str], places: tuple[list[int], list[int]]
) -> None:
    name, mode = named
    asked, source = architecture.named(name), random.Random(mode)
    cpu, types = asked.in_mode(mode, {}), asked.memory_types
    for number, level in enumerate(cpu.format.levels):
        if not level.pages:
            every = np.array([(1 << 8 * cpu.format.entry_bytes) - 1], np.uint64)
            assert name == "x86" or not types.index(level, every).any()
            continue
        own = places[number > 0]
        raws = [source.getrandbits(8 * cpu.format.entry_bytes) for _ in range(40)]
        expected = [selected(raw, own, name) for raw in raws]
        assert types.index(level, np.array(raws, np.uint64)).tolist() == expected
        assert [types.index_of(level.page_bits, raw) for raw in raws] == expected
        assert len(set(expected)) == len(types.AT_RESET)
        for index in range(len(types.AT_RESET)):
            chosen = types.selecting(level.page_bits, index)
            assert chosen == sum((index >> at & 1) << place for at, place in enumerate(own))


@pytest.mark.parametrize("name", ["x86", "riscv", "arm64", "power", "s390"])
def test_an_entry_without_such_bits_has_the_first_type_alone(name: str) -> None:
    types: Any = architecture.named(name).memory_types
    assert types.index_of({}, (1 << 64) - 1) == 0
    if name not in {"arm64", "power"}:  # all of whose pages have them
        assert types.selecting({}, 0) == 0
        with pytest.raises(ValueError):
            types.selecting({}, 1)


@pytest.mark.parametrize("name", ["riscv", "arm64", "power", "s390"])
def test_no_register_but_their_own_has_the_types(name: str) -> None:
    types = architecture.named(name).memory_types
    assert types.types(None, None) == types.AT_RESET
    with pytest.raises(QuestionError, match="no PAT"):
        types.types(0, None)
