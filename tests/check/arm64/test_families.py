"""The cases of arm64's matrix hold what its rules need, and come to what the rules say."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import combinations, product
from types import SimpleNamespace

import numpy as np
import pytest

from harness.check.arm64.matrix.chain import ACCESSES, NOWHERE, REGION, Chain, content
from harness.check.arm64.matrix.families import (
    ALIGN,
    DEVICE,
    Family,
    address_of,
    descriptor_bit,
    families,
    lanes,
    lengths,
)
from harness.check.arm64.matrix.judged import expected
from harness.check.arm64.matrix.setting import MODES, Control, Setting
from harness.check.arm64.validate import state_of
from harness.machine.arm64.processor import SCTLR
from harness.machine.ram import MIB
from harness.paging.address import Span
from harness.paging.arm64.access import Kind, Reason
from harness.paging.arm64.bulk import REASONS
from harness.paging.arm64.cpu import Features
from harness.paging.arm64.formats import GRANULES
from tests.paging import arm64_rules
from tests.paging.arm64.beside import lane_agrees
from tests.paging.arm64_rules import KINDS, Machine

RAM = 0x4000_0000
ALL = Features()


def chain_of(setting: Setting, filled: int = 0) -> Chain:
    """A chain in the memory of a guest that does not run, and that held this everywhere."""
    arena = range(RAM + 4 * MIB, RAM + 8 * MIB)
    image = SimpleNamespace(table_arena=arena, user=range(RAM + MIB, RAM + MIB + 65536))
    buffer = np.full(64 * MIB, filled, np.uint8) if filled else np.zeros(64 * MIB, np.uint8)
    ram = SimpleNamespace(buffer=buffer, base=RAM)
    guest = SimpleNamespace(image=image, ram=ram, free=(range(RAM + 32 * MIB, RAM + 64 * MIB),))
    return Chain(guest, setting)  # type: ignore[arg-type]


def family(name: str, level: int, mode: str) -> Family:
    """A family of the quick preset."""
    some = families("quick", mode, ALL)
    return next(one for one in some if (one.name, one.level) == (name, level))


def aligned_families(mode: str) -> Iterator[Family]:
    """Those of the quick preset without `short` where its addresses end within an index."""
    for one in families("quick", mode, ALL):
        if one.name != "short" or one.setting.address_bits % 9 == 0:
            yield one


def by_the_rules(machine: Machine, chain: Chain, words: list[int], *asked: object) -> object:
    """What the rules, written a second time, say of a path with these descriptors."""
    pointer, kind, el0, aligned = asked
    memory = bytearray(MIB)
    address = np.array([pointer], np.uint64)
    for slot, word in zip(chain.slots(address), words, strict=True):
        at = int(slot[0]) - machine.ram
        memory[at : at + 8] = word.to_bytes(8, "little")
    return arm64_rules.access(machine, memory, pointer, kind, el0, aligned)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_expected_of_cases_is_what_the_rules_written_a_second_time_say(mode: str) -> None:
    source, shown = np.random.default_rng(1), set[Reason | None]()
    for one in families("quick", mode, ALL):
        chain = chain_of(one.setting)
        for place in source.choice(len(one.controls), min(16, len(one.controls)), replace=False):
            control = one.controls[int(place)]
            some = 64 if one.name in (ALIGN, DEVICE) else 8
            numbers = source.choice(int(np.prod(one.product.shape)), some)
            made = lanes(one, chain, control, numbers)
            cpu = chain.cpu(control)
            found = expected(one.setting, control, cpu, made).found
            for lane in range(len(made)):
                machine = Machine(
                    *(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr),
                    pan=bool(made.pan[lane]),
                    uao=bool(made.uao[lane]),
                    ram=RAM + 4 * MIB,
                )
                words, pointer = made.words[:, lane].tolist(), int(made.address[lane])
                kind, el0 = KINDS[made.kind[lane]], bool(made.el0[lane])
                asked = (pointer, kind, el0, bool(made.aligned[lane]))
                wanted = by_the_rules(machine, chain, words, *asked)
                case = one.case(control, int(numbers[lane]))
                assert lane_agrees(found, lane, wanted), case  # type: ignore[arg-type]
                shown.add(REASONS[found.reason[lane]])
    assert shown >= {None, *Reason} - {Reason.EL0_KEPT_OUT}


@pytest.mark.parametrize("mode", MODES)
def test_each_value_of_an_axis_makes_another_case(mode: str) -> None:
    """Of values that differ, neither does the path nor the access be the same."""
    source = np.random.default_rng(2)
    for one in aligned_families(mode):
        chain, control = chain_of(one.setting), one.controls[-1]
        shape = one.product.shape
        for place, axis in enumerate(one.product.axes):
            base = [int(source.integers(size)) for size in shape]
            along = [(*base[:place], value, *base[place + 1 :]) for value in range(shape[place])]
            numbers = np.ravel_multi_index(np.array(along).T, shape)
            made = lanes(one, chain, control, numbers)
            rows = {
                (*made.words[:, lane].tolist(), *(int(getattr(made, name)[lane]) for name in REST))
                for lane in range(len(made))
            }
            assert len(rows) == len(axis.values), (one.name, one.level, axis.name, base)


BITS = {
    **{"AP1": 6, "AP2": 7, "AF": 10, "DBM": 51, "PXN": 53, "UXN": 54},
    **{"PXNTABLE": 59, "UXNTABLE": 60, "APTABLE0": 61, "APTABLE1": 62},
}
"""Where descriptors have what axes are named after."""


@pytest.mark.parametrize("mode", MODES)
def test_descriptors_have_what_the_axes_are_named_after(mode: str) -> None:
    source = np.random.default_rng(3)
    for one in aligned_families(mode):
        chain, control = chain_of(one.setting), one.controls[0]
        for number in source.integers(int(np.prod(one.product.shape)), size=6):
            case = one.case(control, int(number)).split()
            axes = dict(text.split("=", 1) for text in case)
            made = lanes(one, chain, control, np.array([number]))
            words = made.words[:, 0].tolist()
            below = one.name == "table" or axes.get("points") == "1" or axes.get("type") == "3"
            page, here = words[0] if below else words[one.level], words[one.level]
            for name, bit in BITS.items():
                if name in axes:
                    told = here if "TABLE" in name else page
                    assert told >> bit & 1 == int(axes[name]), (case, name)
            if "type" in axes:
                assert here & 3 == int(axes["type"]), case
            if "valid" in axes:
                assert here & 3 == 3 * int(axes["valid"]), case
            if axes.get("outside") == "1":
                bits = arm64_rules.field(int(made.address[0]), 55, one.setting.address_bits)
                assert bits and bits != arm64_rules.field(~0, 55, one.setting.address_bits), case
            for name in ("el", "pan", "uao"):
                value = {"el": int(not made.el0[0])}.get(name, int(getattr(made, name, [0])[0]))
                assert value == int(axes.get(name, 0)), case


def test_every_two_control_bits_are_tried_together() -> None:
    for one in families("quick", "4k-52", ALL):
        fields = {name: {state[name] for state in states(one)} for name in states(one)[0]}
        assert len(set(one.controls)) == len(one.controls)
        assert fields["HIGH"] == {0, 1}, "each half"
        assert one.name in ("size", "root") or fields["IPS"] == {52}, "the widest that there is"
        for first, second in combinations((name for name in fields if len(fields[name]) > 1), 2):
            tried = {(state[first], state[second]) for state in states(one)}
            together = {"HA", "HD"} <= {first, second} and one.name != "leaf"
            root = one.name == "root" and {first, second} == {"IPS", "BEYOND"}
            size = one.name == "size" and {"HA", "HD", "HIGH"} >= {first, second}
            if not (together or root or size):
                assert tried == set(product(fields[first], fields[second])), (
                    one.name,
                    first,
                    second,
                )


def states(one: Family) -> list[dict[str, int | str]]:
    return [control.values() for control in one.controls]


@pytest.mark.parametrize("mode", MODES)
def test_descriptors_have_bits_of_an_address_where_the_rules_read_them(mode: str) -> None:
    setting = Setting(mode, MODES[mode].bits, ALL)
    cpu = setting.cpu(Control(ips=52), 0, 0)
    machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr)
    p = arm64_rules.params(machine, 0)
    for bit in range(32, 52):
        held = descriptor_bit(setting, bit)
        assert bool(held) == (bit < 48 or setting.wide)
        assert arm64_rules.base(machine, p, held, p.granulebits) == (1 << bit if held else 0)


REST = ("address", "kind", "el0", "pan", "uao", "size")
"""The fields of lanes but for the path."""


@pytest.mark.parametrize("mode", MODES)
def test_the_registers_say_of_the_half_what_the_control_state_has(mode: str) -> None:
    """As the rules read them; nothing of it is said of the other half, which has the window."""
    seen = Counter[str]()
    for one in families("full", mode, ALL):
        if one.name == "short" and one.setting.address_bits % 7:
            continue
        chain = chain_of(one.setting)
        for control in one.controls[:: max(1, len(one.controls) // 24)]:
            cpu = chain.cpu(control)
            machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr)
            low, high = (arm64_rules.params(machine, address) for address in (0, 1 << 55))
            here, beside = (high, low) if control.high else (low, high)
            for name in ("tbi", "tbid", "epd", "e0pd", "hpd", "ha", "hd", "wxn", "epan"):
                assert getattr(here, name) == getattr(control, name), (name, control)
                seen[name] += getattr(here, name)
            assert not any(getattr(beside, name) for name in ("tbi", "epd", "e0pd", "hpd"))
            page = 1 << GRANULES[one.setting.granule].page
            assert (1 << here.granulebits, 64 - here.txsz) == (page, one.setting.address_bits)
            assert 1 << beside.granulebits == 1 << GRANULES[control.beside].page
            assert (0, 1, 2, 3, 4, 5, 6)[here.ps] == (32, 36, 40, 42, 44, 48, 52).index(control.ips)
            root = arm64_rules.tt_base_address(machine, here)
            assert root == chain.root | (1 << control.beyond if control.beyond else 0)
            assert bool(cpu.tcr >> 59 & 1) == mode.endswith("-52")
            assert bool(cpu.sctlr >> 1 & 1) == control.aligns
            assert arm64_rules.is_device(machine, 0) == control.device
            assert not arm64_rules.is_device(machine, 1 << 2)
            # 0xff is write-back, and allocates; 0x00 is Device-nGnRnE, of the pages tried alone.
            assert cpu.mair == (0xFF00 if control.device else 0xFFFF)
    assert all(seen.values())


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_on_that_a_control_state_does_not_name(mode: str) -> None:
    cpu = chain_of(Setting(mode, MODES[mode].bits, ALL)).cpu(Control())
    machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr)
    for address in (0, 1 << 55):
        half = arm64_rules.params(machine, address)
        for name in ("tbi", "tbid", "epd", "e0pd", "hpd", "ha", "hd", "wxn", "epan"):
            assert not getattr(half, name), name
        assert half.ps == 5 and not arm64_rules.is_device(machine, 0)
    assert not cpu.aligns


@pytest.mark.parametrize("mode", MODES)
def test_addresses_lead_by_the_middle_of_the_root_to_what_has_their_lower_bits(mode: str) -> None:
    physical = np.array([0x4567_89A0, 0x1000_0010], np.uint64)
    for bits in lengths(Setting(mode, MODES[mode].bits, ALL)):
        setting = Setting(mode, bits, ALL)
        top = setting.shift(setting.levels - 1)
        for high in (False, True):
            found = address_of(setting, Control(high=high), physical).tolist()
            for address, there in zip(found, physical.tolist(), strict=True):
                assert arm64_rules.field(address, bits - 1, top) == (1 << bits - top) // 2
                assert (address ^ there) & (1 << top) - 1 == 0
                assert address >> bits == ((1 << 64 - bits) - 1 if high else 0)


@pytest.mark.parametrize("mode", MODES)
def test_where_no_axis_withholds_anything_every_access_is_made(mode: str) -> None:
    for one in families("quick", mode, ALL):
        if one.name not in ("place", "pair"):
            continue
        chain, control = chain_of(one.setting), one.controls[-1]
        made = lanes(one, chain, control, np.arange(int(np.prod(one.product.shape))))
        found = expected(one.setting, control, chain.cpu(control), made)
        assert found.made.all() and not found.changes.any()


@pytest.mark.parametrize("mode", MODES)
def test_the_window_is_executed_by_both_and_no_device(mode: str) -> None:
    """In every granule of the other half, at the address that the guest is told."""
    for high, beside, device in product((False, True), GRANULES, (False, True)):
        chain = chain_of(Setting(mode, MODES[mode].bits, ALL))
        control = Control(high=high, beside=beside, device=device)
        state, cpu = chain.state(control), chain.cpu(control)
        # Beside what translates there is what the stub's accesses need of any state.
        assert state.sctlr & SCTLR == SCTLR and state.sctlr & ~SCTLR == cpu.sctlr & ~SCTLR
        assert state_of(cpu, Span.of(state.window or 0, 1)) == state
        assert state.window == (0 if high else 2**64 - 2**39)  # where the half begins
        for el0 in (False, True):
            machine = Machine(
                *(state.ttbr0, state.ttbr1, state.tcr, state.mair, state.sctlr), ram=RAM
            )
            memory = chain.guest.ram.buffer
            for kind, answer in (("fetch", None), ("store", "permission")):
                found = arm64_rules.access(machine, memory, state.window, kind, el0)  # type: ignore[arg-type]
                assert (found.why or None) == answer and found.updated is None
            found = arm64_rules.access(machine, memory, state.window, "load", el0, aligned=False)  # type: ignore[arg-type]
            assert found.physical == chain.guest.image.user.start


def test_nothing_but_tables_and_code_is_written() -> None:
    chain = chain_of(Setting("64k", 52, ALL), filled=0xA5)
    buffer, last = chain.guest.ram.buffer, max(chain.window_roots.values()) + 2 * 65536
    tables = chain.guest.image.table_arena.start - RAM, last - RAM
    code = chain.code - RAM, chain.code + REGION - RAM
    [free] = chain.guest.free
    assert free.start <= chain.data == chain.code - REGION and chain.code + REGION <= free.stop
    assert not chain.data % 65536 and not chain.code % 65536  # each is the largest page there is
    for first, end in ((0, tables[0]), (tables[1], code[0]), (code[1], len(buffer))):
        assert (buffer[first:end] == 0xA5).all()
    for granule, root in chain.window_roots.items():  # each in a room of its own, of 128K
        room = buffer[root - RAM : root - RAM + 2 * 65536].view(np.uint64)
        assert np.count_nonzero(room) == {"4K": 3, "16K": 3, "64K": 2}[granule]
    held = buffer[tables[0] : tables[1]].view(np.uint64)
    assert (
        np.count_nonzero(held) == 3 + 3 + 2
    )  # the path of a window, of 39 bits, by 4K, 16K and 64K


def test_every_bit_and_every_combination_that_the_rules_name_is_there() -> None:
    leaf = family("leaf", 1, "4k")
    assert np.prod(leaf.product.shape) == 2**6 * len(ACCESSES) * 2**3
    table = {axis.name for axis in family("table", 3, "4k").product.axes}
    assert {"APTABLE0", "APTABLE1", "UXNTABLE", "PXNTABLE", "DBM", "el", "pan", "uao"} <= table
    for state in ("ha", "hd", "wxn", "epan", "high"):
        assert {getattr(one, state) for one in leaf.controls} == {False, True}
    assert {one.hpd for one in family("table", 1, "4k").controls} == {False, True}
    [kinds] = [one for one in family("type", 4, "4k-52").product.axes if one.name == "type"]
    assert kinds.values == (0, 1, 2, 3)
    [held] = [one for one in family("size", 0, "64k").product.axes if one.name == "beyond"]
    assert held.values == (0, *NOWHERE)
    assert {one.ips for one in family("size", 0, "4k").controls} == {32, 36, 40, 42, 44, 48, 52}
    assert set(range(32, 52)) - set(NOWHERE) == {38, 39}  # windows of virt for PCI
    [flips] = [one for one in family("hole", 0, "4k").product.axes if one.name == "set"]
    assert {str(bit) for bit in range(48, 64)} <= set(flips.values)
    for mode in MODES:
        pairs = {(one.high, one.beside) for one in family("pair", 0, mode).controls}
        plain = {(one.high, one.beside) for one in family("place", 0, mode).controls}
        assert pairs | plain == set(product((False, True), GRANULES))


@pytest.mark.parametrize("mode", MODES)
def test_tables_and_all_pages_and_blocks_that_can_be_are_varied(mode: str) -> None:
    cpu = Setting(mode, MODES[mode].bits, ALL).cpu(Control(ips=52), 0, 0)
    machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr)
    p = arm64_rules.params(machine, 0)
    every = range(Setting(mode, MODES[mode].bits, ALL).levels)
    leaves = {n for n in every if not n or arm64_rules.block_desc_supported(machine, p, 3 - n)}
    varied = defaultdict[str, set[int]](set)
    for one in families("quick", mode, ALL):
        varied[one.name].add(one.level)
        for axis in one.product.axes:
            if axis.name == "points":
                n = one.level
                assert axis.values == (*[0] * (n in leaves), *[1] * (n > 0))
    for name in ("type", "ignored", "size"):
        assert varied[name] == set(every)
    assert varied["table"] == set(every) - {0}
    for name in ("leaf", "place", "pair", "short"):
        assert varied[name] == leaves


@pytest.mark.parametrize("most", [36, 44, 52])
def test_output_sizes_are_tried_up_to_the_processor_s(most: int) -> None:
    widths = (32, 36, 40, 42, 44, 48, 52)
    for one in families("quick", "64k", Features(output_bits=most)):
        if one.name == "size":
            assert {control.ips for control in one.controls} == {*widths} - {*range(most + 1, 53)}


def test_a_control_state_is_told_in_numbers() -> None:
    said = {name: str(value) for name, value in Control(high=True, beside="16K").values().items()}
    assert said.pop("HIGH") == "1" and said.pop("BESIDE") == "16K" and said.pop("IPS") == "48"
    assert set(said.values()) == {"0"} and {"HA", "TBID", "BEYOND"} <= said.keys()


@pytest.mark.parametrize(("mode", "least"), [("4k", 16), ("16k-52", 16), ("64k", 17)])
def test_addresses_of_every_size_are_tried(mode: str, least: int) -> None:
    sizes = {one.setting.address_bits for one in families("quick", mode, ALL)}
    assert sizes == set(range(least, MODES[mode].bits + 1))
    older = {one.setting.address_bits for one in families("quick", mode, Features(ttst=False))}
    assert older == set(range(64 - 39, MODES[mode].bits + 1))


def test_quick_is_at_least_two_million_accesses_with_epan_and_without() -> None:
    for features in (ALL, Features(pan=2)):
        some = [one for mode in MODES for one in families("quick", mode, features)]
        tried = sum(
            sum(control.lacks(features) is None for control in one.controls)
            * int(one.product.legal().sum())
            for one in some
        )
        assert tried >= 2_000_000


def test_full_tries_every_control_state_of_rights() -> None:
    for name, level, states in (("leaf", 1, 32), ("table", 1, 32), (ALIGN, 0, 8), (DEVICE, 0, 8)):
        [one] = [
            one
            for one in families("full", "4k", ALL)
            if (one.name, one.level) == (name, level) and one.setting.address_bits == 48
        ]
        assert len(set(one.controls)) == states


def test_a_block_at_the_highest_level_is_left_out_where_it_ends_qemu() -> None:
    def types(new: bool) -> int:
        some = families("quick", "4k-52", ALL, new)
        [one] = [one for one in some if (one.name, one.level) == ("type", 4)]
        return int(one.product.legal().sum())

    assert types(new=False) * 4 == types(new=True) * 3


def test_what_is_left_to_the_machine_is_not_tried_and_nothing_else() -> None:
    """SWP of what is not aligned, in memory that need not be; and UAO is for LDTR and STTR."""
    for name in (ALIGN, DEVICE):
        one = family(name, 0, "4k")
        of, legal = one.product.grid, one.product.legal().reshape(one.product.shape)
        apart = (of["access"] == "swap") & np.isin(of["offset"], (1, 2)) & (name == DEVICE)
        uao = (of["uao"] == 1) & ~np.isin(of["access"], ("ldtr", "sttr"))
        assert (legal == ~(apart | uao)).all()


def test_words_of_the_data_differ_by_where_they_are() -> None:
    words = content(np.arange(0, REGION, 8, dtype=np.uint64) + np.uint64(RAM))
    assert len(set(words.tolist())) == len(words)
    assert (words & np.uint64(7) == 7).all(), "a read that loses its lowest bits agrees"


def test_a_short_root_begins_where_its_size_allows() -> None:
    for bits, after in ((25, 128), (48, 4096)):
        chain = chain_of(Setting("4k", bits, ALL))
        assert chain.root % 65536 == after and not chain.root % chain.setting.root_bytes


def test_a_processor_without_epan_is_not_asked() -> None:
    assert Control(epan=True).lacks(ALL) is None
    assert "EPAN" in (Control(epan=True).lacks(Features(pan=2)) or "")
    assert ACCESSES["swap"] is Kind.AMO


def test_a_processor_without_a_granule_has_none_in_the_other_half() -> None:
    some = Features(granules=frozenset({"4K", "64K"}), lpa2=frozenset({"4K"}))
    assert "no pages of 16K" in (Control(beside="16K").lacks(some) or "")
    assert Control(beside="64K").lacks(some) is None
