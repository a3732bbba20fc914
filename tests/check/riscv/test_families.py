"""The cases of RISC-V's matrix hold what its rules need, and come to what the rules say."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.riscv.matrix.chain import ACCESSES, REGION, Chain, code_in, content, token
from harness.check.riscv.matrix.families import Family, families, lanes
from harness.check.riscv.matrix.hart import MODES, Control, Hart
from harness.check.riscv.matrix.judged import expected
from harness.machine.ram import MIB
from harness.paging.riscv.access import Reason
from harness.paging.riscv.bulk import REASONS
from tests.check.riscv.guests import family
from tests.paging import riscv_rules
from tests.paging.riscv_rules import Answer, Machine

RAM = 0x8000_0000


def hart_of(mode: str) -> Hart:
    wide = mode != "sv32"
    return Hart(mode, svnapot=wide, pbmte=wide, masks=wide)


def chain_of(hart: Hart) -> Chain:
    """A chain in the memory of a guest that does not run."""
    arena = range(RAM + 4 * MIB, RAM + 8 * MIB)
    image = SimpleNamespace(table_arena=arena, user=range(RAM + MIB, RAM + MIB + 4096))
    ram = SimpleNamespace(buffer=np.zeros(64 * MIB, np.uint8), base=RAM)
    free = (range(RAM + 32 * MIB, RAM + 64 * MIB),)
    guest = SimpleNamespace(image=image, ram=ram, free=free)
    return Chain(guest, hart.cpu(Control(), 0).format)  # type: ignore[arg-type]


def by_the_rules(machine: Machine, chain: Chain, words: list[int], *asked: object) -> Answer:
    """What the rules, written a second time, say of a path with these entries."""
    memory = bytearray(4096 * len(words))
    address, kind, user = asked
    width = machine.xlen // 8
    seen = riscv_rules.without_tag(machine, address, kind, user)  # type: ignore[arg-type]
    for slot, word in zip(chain.slots(np.array([seen], np.uint64)), words, strict=True):
        at = int(slot[0]) - machine.ram
        memory[at : at + width] = word.to_bytes(width, "little")
    return riscv_rules.access(machine, memory, *asked)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_expected_of_cases_is_what_the_rules_written_a_second_time_say(mode: str) -> None:
    hart = hart_of(mode)
    chain, source = chain_of(hart), np.random.default_rng(1)
    kinds = {"read": "load", "write": "store", "fetch": "fetch", "amo": "AMO", "lr": "load"}
    shown = set[Reason | None]()
    for one in families("quick", hart):
        control = one.controls[int(source.integers(len(one.controls)))]
        numbers = source.choice(np.prod(one.product.shape), 12, replace=False)
        made = lanes(one, chain, numbers)
        cpu = hart.cpu(control, chain.root)
        found = expected(hart, cpu, made)
        for lane in range(len(made)):
            status = int(made.sum[lane]) << 18 | int(made.mxr[lane]) << 19
            machine = Machine(
                cpu.xlen,
                cpu.satp,
                status,
                cpu.menvcfg,
                cpu.senvcfg,
                svnapot=hart.svnapot,
                ram=chain.tables[0],
            )
            wanted = by_the_rules(
                machine,
                chain,
                made.words[:, lane].tolist(),
                int(made.address[lane]),
                kinds[ACCESSES[made.access[lane]]],
                bool(made.user[lane]),
            )
            reason = REASONS[found.reason[lane]]
            shown.add(reason)
            case = one.case(control, int(numbers[lane]))
            assert wanted.cause is None or found.cause[lane] == wanted.cause, case
            assert (reason is None) == (wanted.cause is None), case
            if reason is None:
                assert found.walks.physical[lane] == wanted.physical, case
                before = int(made.words[found.walks.level[lane], lane])
                after = before | int(found.sets[lane])
                if found.backed[lane]:
                    assert after == (wanted.updated[1] if wanted.updated else before), case
            else:
                assert found.sets[lane] == 0, case
                assert wanted.level is None or found.walks.level[lane] == wanted.level, case
    assert len(shown) >= 9


def bits_of(together: str) -> int:
    return 0 if together == "none" else sum(1 << int(bit) for bit in together.split("+"))


def entry_of(one: Family, value: dict[str, Any], page: int, table: int, user: bool) -> Any:
    """The entry that varies, by the axes, of a page at an address or a table at another: V, R, W,
    X, U, G, A and D are its bits from 0 up, and the page number begins at 10."""
    flags = {"V": 1, "R": 1, "W": 1, "X": 1, "U": int(user), "G": 0, "A": 1, "D": 1}
    low = sum((value.get(name, usual)) << bit for bit, (name, usual) in enumerate(flags.items()))
    leaf, pointer = page >> 12 << 10, table >> 12 << 10
    match one.name:
        case "entry":
            return low | (pointer if one.level and not low & 0b1110 else leaf)
        case "nowhere":
            word = pointer | 1 if value["table"] else leaf | low
            return word | 1 << value["beyond"] - 12 + 10
        case "reserved" if value["points"]:
            return pointer | 1 | low & 0xD0 | bits_of(value["set"])
        case "reserved":
            high = bits_of(value["set"])
            return leaf | low | high | (0x8 << 10 if high >> 63 and not one.level else 0)
        case "superpage":
            return leaf | low | bits_of(value["set"])
        case "napot" | "span":
            return leaf | low | value["ppn"] << 10 | value["N"] << 63
        case "place" if not one.level:
            return (leaf | low) + (value["offset"] >> 12 << 10)
    return leaf | low


@pytest.mark.parametrize("mode", MODES)
def test_entries_and_addresses_are_what_the_axes_say(mode: str) -> None:
    hart, source, tops = hart_of(mode), np.random.default_rng(2), set[int]()
    chain = chain_of(hart)
    index, width = (10, 32) if mode == "sv32" else (9, 12 + 9 * hart.levels)
    shifts = [12 + index * level for level in range(hart.levels)]
    for one in families("full", hart):
        numbers = source.choice(np.prod(one.product.shape), 24, replace=False)
        made, places = lanes(one, chain, numbers), one.product.places(numbers)
        for lane in range(len(made)):
            value: dict[str, Any] = {
                axis.name: axis.values[int(places[axis.name][lane])] for axis in one.product.axes
            }
            access, user = ACCESSES[made.access[lane]], bool(made.user[lane])
            assert (access, user) == (value["access"], value["by"] == "user")
            for flag in ("sum", "mxr", "mprv"):
                assert getattr(made, flag)[lane] == value[flag]
            there = chain.code if access == "fetch" else chain.data
            words, level = made.words[:, lane].tolist(), one.level
            page, table = there >> shifts[level] << shifts[level], chain.tables[max(0, level - 1)]
            assert words[level] == entry_of(one, value, page, table, user), (one.name, value)
            for above in range(level + 1, hart.levels):
                assert words[above] == chain.tables[above - 1] >> 2 | 1
            goes_on = level and (one.name == "entry" or value.get("points"))
            assert not goes_on or words[0] == there >> 12 << 10 | 0xCF | user << 4
            missing = level - 1 if one.name == "nowhere" and value["table"] else 255
            assert made.missing[lane] == missing
            address = int(made.address[lane])
            if one.name == "canonical":
                address ^= bits_of(value["set"])
                assert address >> width - 1 == (value["half"] == "upper") * ((1 << 65 - width) - 1)
                address &= (1 << width - 1) - 1
            address -= value.get("offset", 0) + (value.get("vpn", 0) << 12)
            assert address & (1 << shifts[-1]) - 1 == there & (1 << shifts[-1]) - 1
            if one.name != "canonical":
                tops.add(address >> shifts[-1])
    assert len(tops) == 1 and tops != {0}


def test_every_bit_and_every_combination_that_the_rules_name_is_there() -> None:
    hart = hart_of("sv48")
    assert np.prod(family("entry", 2, hart).product.shape) == 2**8 * 5 * 2 * 2**3
    reserved = {axis.name: axis.values for axis in family("reserved", 1, hart).product.axes}
    assert {str(bit) for bit in range(54, 64)} <= set(reserved["set"])
    assert reserved["points"] == (0, 1)
    superpage = {axis.name: axis.values for axis in family("superpage", 3, hart).product.axes}
    assert superpage["set"] == ("none", *map(str, range(10, 37)))
    napot = {axis.name: axis.values for axis in family("napot", 0, hart).product.axes}
    assert napot["N"] == (0, 1) and napot["ppn"] == tuple(range(16))
    span = {axis.name: axis.values for axis in family("span", 0, hart).product.axes}
    assert span["vpn"] == tuple(range(16))
    canonical = {axis.name: axis.values for axis in family("canonical", 0, hart).product.axes}
    assert canonical["set"] == ("none", *map(str, range(47, 64)))
    assert canonical["half"] == ("lower", "upper")
    for one in families("quick", hart):
        names = {axis.name for axis in one.product.axes}
        assert {"access", "by", "sum", "mxr", "mprv", "U", "A", "D"} <= names, one.name
        assert {control.adue for control in one.controls} == {False, True}
    assert [one.level for one in families("quick", hart) if one.name == "entry"] == [0, 1, 2, 3]


def test_the_full_preset_tries_every_place_of_a_64k_page_with_every_number() -> None:
    hart = hart_of("sv39")
    [napot] = [one for one in families("full", hart) if (one.name, one.level) == ("napot", 0)]
    assert {axis.name: len(axis.values) for axis in napot.product.axes}["vpn"] == 16


def test_code_loads_its_own_token_wherever_it_is_fetched() -> None:
    first = RAM + 48 * MIB
    code = code_in(first)
    assert len(code) * 4 == REGION
    for at in (0, 16, 4096, REGION - 16):
        lui, addi, ecall, nothing = code[at // 4 : at // 4 + 4].tolist()
        assert (lui & 0xFFF, addi & 0xFFFFF, ecall, nothing) == (0x537, 0x50513, 0x73, 0)
        low = addi >> 20
        value = (lui & 0xFFFFF000) + (low - 0x1000 if low & 0x800 else low)
        assert value == token(np.array([first + at], np.uint64))[0]
    tokens = token(np.arange(first, first + REGION, 16, dtype=np.uint64))
    assert len(set(tokens.tolist())) == len(tokens)


@pytest.mark.parametrize("width", [4, 8])
def test_words_of_the_data_differ_by_where_they_are(width: int) -> None:
    words = content(np.arange(0, REGION, 16, dtype=np.uint64) + np.uint64(RAM), width)
    assert len(set(words.tolist())) == len(words) and int(words.max()) < 1 << 8 * width


def test_a_hart_that_lacks_what_a_control_state_sets_is_not_asked() -> None:
    hart = Hart("sv39", adue=False, pbmte=False, masks=False)
    assert Control().lacks(hart) is None
    assert "ADUE" in (Control(adue=True).lacks(hart) or "")
    assert "PBMTE" in (Control(pbmte=True).lacks(hart) or "")
    assert "masks no pointers" in (Control(pmm_u=2).lacks(hart) or "")
    assert Control(True, True, 2, 3).lacks(replace(hart, adue=True, pbmte=True, masks=True)) is None
