"""The cases of POWER's matrix hold what its rules need, and come to what the rules say."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.power.matrix.chain import (
    CODE_BYTES,
    MODES,
    REGION,
    TREES,
    Chain,
    Control,
    code_in,
    content,
    token,
)
from harness.check.power.matrix.families import Family, families, lanes
from harness.check.power.matrix.judged import expected
from harness.paging.address import Span, Virtual
from harness.paging.memory import BigEndianMemory
from harness.paging.power.access import Access, Allowed, Fault, Kind, Reason, outcome
from harness.paging.power.bulk import REASONS
from tests.paging import power_rules
from tests.paging.power.beside import lane_agrees
from tests.paging.power_rules import KINDS, Machine

ARENA, FREE, SIZE = 0x2_0000, 0x10_0000, 0x10_0000 + (17 << 20)
ROOT_13_OF_52_BITS = 1 << 62 | 5 << 5 | 13
"""RTS, in two parts, and RPDS of a process table entry."""


def chain_of(mode: str, quadrant: int, records: bool) -> Chain:
    """A chain in the memory of a guest that does not run."""
    image = SimpleNamespace(table_arena=range(ARENA, FREE), user=range(0x1_0000, 0x1_1000))
    ram = SimpleNamespace(buffer=np.full(SIZE, 0xFF, np.uint8))
    info = SimpleNamespace(sets_marks=records)
    guest = SimpleNamespace(image=image, ram=ram, free=(range(FREE, SIZE),), info=info)
    return Chain(guest, mode, quadrant)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("records", [False, True])
def test_what_is_expected_of_cases_is_what_the_rules_written_a_second_time_say(
    mode: str, records: bool
) -> None:
    source, shown = np.random.default_rng(1), set[Reason | None]()
    chains = {quadrant: chain_of(mode, quadrant, records) for quadrant in (0, 3)}
    storage = {
        quadrant: bytearray(chain.guest.ram.buffer.tobytes()) for quadrant, chain in chains.items()
    }
    for one in families("full", mode):
        chain, octets = chains[one.quadrant], storage[one.quadrant]
        for control in one.controls:
            few = 16 if one.name == "entry" else 6
            numbers = source.choice(np.prod(one.product.shape), few, replace=False)
            made, cpu = lanes(one, chain, numbers), chain.cpu(control)
            wanted, slots = expected(cpu, made, Span(0, SIZE - 1)), chain.slots(made)
            mine = {0: 0, 3: 1}[one.quadrant]
            trees = [ROOT_13_OF_52_BITS | ARENA + 0x1_0000] * 2
            trees[mine] = ROOT_13_OF_52_BITS | ARENA
            trees[mine] ^= TREES[control.tree]
            user = None if control.tree == "none" else trees[0]
            machine = Machine(user, trees[1], control.amr << 62, control.iamr << 62, True, records)
            for lane in range(len(made)):
                for at, word in zip(slots[:, lane], made.words[:, lane].tolist(), strict=True):
                    octets[int(at) : int(at) + 8] = word.to_bytes(8)
                asked = int(made.address[lane]), KINDS[made.kind[lane]], bool(made.user[lane])
                rules = power_rules.access(machine, octets, *asked)
                case = one.case(control, int(numbers[lane]))
                assert lane_agrees(wanted.found, lane, rules), (case, rules)
                shown.add(REASONS[wanted.found.reason[lane]])
                beyond = rules.vector is None and rules.physical >= SIZE
                assert bool(wanted.backed[lane]) != beyond, case
    unseen = {Reason.NOT_REFERENCED, Reason.NOT_CHANGED} if records else set()
    assert shown == {None, *Reason} - unseen


def named(mode: str, name: str, level: int, quadrant: int = 0) -> list[Family]:
    every = families("full", mode)
    return [one for one in every if (one.name, one.level, one.quadrant) == (name, level, quadrant)]


@pytest.mark.parametrize(("mode", "shift"), [("4k", 12), ("64k", 16)])
def test_every_bit_of_an_entry_is_varied_but_those_of_addresses_that_have_memory(
    mode: str, shift: int
) -> None:
    """V, L, R, C and the lowest six bits in every combination; of the others each one alone."""
    for level, lowest in enumerate((shift, 21, 30, 39)):
        for quadrant in (0, 3):
            [entry] = named(mode, "entry", level, quadrant)
            sizes = {axis.name: len(set(axis.values)) for axis in entry.product.axes}
            expected = {"V": 2, "L": 2, "R": 2, "C": 2, "low": 64, "access": 3, "by": 2}
            assert sizes == expected
            keys = {(control.amr, control.iamr) for control in entry.controls}
            assert keys == {(amr, iamr) for amr in range(4) for iamr in range(2)}
            bits = {
                axis["points"][0]: set(axis["bit"])
                for one in named(mode, "bit", level, quadrant)
                for axis in [{axis.name: axis.values for axis in one.product.axes}]
            }
            combined = {0, 1, 2, 3, 4, 5, 7, 8, 62, 63}
            leading = set(range(max(12, lowest), 30))  # to other memory, which has no marks
            assert bits[0] == set(range(64)) - combined - leading
            assert (1 in bits) == (level > 0)
            # A directory leads on by bits 59 to 12; the lowest are below a table.
            assert not level or bits[1] == set(range(6, 12)) | {60, 61}
    [segment] = named(mode, "segment", 0)
    [axis] = [axis for axis in segment.product.axes if axis.name == "bit"]
    assert axis.values == tuple(range(52, 62))


@pytest.mark.parametrize("mode", MODES)
def test_every_access_is_tried_in_either_state_and_with_every_tree(mode: str) -> None:
    for preset in ("quick", "full"):
        for one in families(preset, mode):
            axes = {axis.name: axis.values for axis in one.product.axes}
            assert axes["access"] == ("read", "write", "fetch")
            assert axes["by"] == ("privileged", "problem")
            assert all(int(at) % 16 == 0 and int(at) < REGION for at in axes.get("offset", ()))
            if one.name in ("place", "segment", "tree"):
                assert axes["R"] == axes["C"] == (0, 1)
            if one.name == "tree":
                trees = {control.tree for control in one.controls}
                assert trees == TREES.keys() - ({"none"} if one.quadrant else set())
        levels = {one.level for one in families(preset, mode) if one.name == "place"}
        assert levels == {0, 1, 2}
    assert TREES["ignored"] and not TREES["ignored"] & (3 << 61 | 7 << 5 | 31)  # RTS and RPDS
    quick = [one for one in families("quick", mode) if one.name == "entry" and one.quadrant == 3]
    assert [one.controls for one in quick] == [(Control(),)] * 4


def test_what_is_found_names_where_it_is() -> None:
    """The code is lis r3 and ori r3, r3, which load the token of their own address; then sc."""
    first = 0x110_0000
    code = code_in(first).view(">u4").reshape(-1, CODE_BYTES // 4)
    places = np.arange(first, first + REGION, CODE_BYTES, dtype=np.uint64)
    tokens = token(places).tolist()
    assert len(set(tokens)) == len(places) == len(code)
    for (lis, ori, sc, rest), named_by in zip(code.tolist(), tokens, strict=True):
        assert (lis >> 16, ori >> 16, sc, rest) == (
            15 << 10 | 3 << 5,
            24 << 10 | 3 << 5 | 3,
            17 << 26 | 2,
            0,
        )
        assert (lis & 0xFFFF) << 16 | ori & 0xFFFF == named_by < 1 << 31
    words = content(np.arange(first, first + REGION, 8, dtype=np.uint64))
    assert len(set(words.tolist())) == len(words)
    assert (words & np.uint64(7) == 7).all(), "a read that loses its lowest bits agrees"
    assert [kind.name.lower() for kind in Kind] == ["read", "write", "fetch"]


SHIFTS = {"4k": (12, 21, 30, 39), "64k": (16, 21, 30, 39)}
PERMITS = 1 << 63 | 1 << 62 | 1 << 8 | 1 << 7 | 7
"""V, L, R, C, and all of the encoded access authority but that of privileged code alone."""


@pytest.mark.parametrize("mode", MODES)
def test_entries_and_addresses_are_what_the_axes_say(mode: str) -> None:
    source, shifts = np.random.default_rng(2), SHIFTS[mode]
    chains = {quadrant: chain_of(mode, quadrant, False) for quadrant in (0, 3)}
    for one in families("full", mode):
        chain, level = chains[one.quadrant], one.level
        numbers = source.choice(np.prod(one.product.shape), 20, replace=False)
        made, places = lanes(one, chain, numbers), one.product.places(numbers)
        sizes = {1: 5 if mode == "64k" else 9, 2: 9, 3: 9}
        pointers = {at: 1 << 63 | chain.tables[at - 1] | sizes[at] for at in (1, 2, 3)}
        for lane in range(len(made)):
            value: dict[str, Any] = {
                axis.name: axis.values[int(places[axis.name][lane])] for axis in one.product.axes
            }
            kind = Kind(int(made.kind[lane]))
            assert kind.name.lower() == value["access"]
            assert bool(made.user[lane]) == (value["by"] == "problem")
            there = chain.code if kind is Kind.FETCH else chain.data
            tops = one.quadrant << 62 | 2 << 39
            words = dict(enumerate(made.words[:, lane].tolist()))
            marks = 0x100 * value.get("R", 1) | 0x80 * value.get("C", 1) | PERMITS & ~0x180
            pages = {at: there & -(1 << shift) for at, shift in enumerate(shifts)}
            moved = value.get("offset", 0)
            flip = 1 << value["bit"] if "bit" in value else 0
            word = pages[level] | marks
            if one.name == "entry":
                points = level and not value["L"]
                word = chain.tables[level - 1] if points else pages[level]
                word |= value["low"] | sum(
                    value[name] << bit for name, bit in {"V": 63, "L": 62, "R": 8, "C": 7}.items()
                )
                assert not level or words[0] == PERMITS | there
            elif one.name == "bit":
                word = (pointers[level] if value["points"] else word) ^ flip
                assert not value["points"] or words[0] == PERMITS | there
            elif one.name == "place" and not level:
                word += moved & -(1 << shifts[0])
            assert words[level] == word, (one.name, value)
            assert all(words[at] == pointers[at] for at in range(level + 1, 4))
            tops ^= flip if one.name == "segment" else 0
            assert int(made.address[lane]) == (there | tops) + moved, (one.name, value)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("quadrant", [0, 3])
def test_the_window_leads_to_the_stubs_page_by_the_other_quadrant(mode: str, quadrant: int) -> None:
    chain = chain_of(mode, quadrant, False)
    memory = BigEndianMemory(chain.guest.ram.buffer)
    assert chain.window >> 62 == 3 - quadrant
    cpu = chain.cpu(Control())
    found = outcome(cpu, memory, Virtual(chain.window), Access(Kind.FETCH, True))
    assert isinstance(found, Allowed) and found.physical == chain.guest.image.user.start
    beside = outcome(cpu, memory, Virtual(chain.window + (1 << 39)), Access(Kind.FETCH, True))
    assert isinstance(beside, Fault) and beside.reason is Reason.NOT_PRESENT
    assert not chain.guest.ram.buffer[ARENA : ARENA + 0x1_0000].any()
