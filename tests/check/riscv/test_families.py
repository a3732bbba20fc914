"""The cases of RISC-V's matrix hold what its rules need, and come to what the rules say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import permutations, product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness.check.compare import EXAMPLES
from harness.check.riscv.layouts import cpu_of
from harness.check.riscv.matrix.chain import (
    ACCESSES,
    REGION,
    WINDOW_INDEX,
    Chain,
    Lanes,
    code_in,
    content,
    token,
)
from harness.check.riscv.matrix.families import Family, families, lanes
from harness.check.riscv.matrix.hart import MODES, Control, Hart
from harness.check.riscv.matrix.judged import Expected, RiscvQuirk, expected
from harness.check.riscv.matrix.run import MASKED, Batch, _news, _report, _shown, planned
from harness.check.riscv.matrix.verdicts import expected_text, observed_text
from harness.check.riscv.quirks import JUDGED
from harness.check.riscv.replay import MatrixCase
from harness.machine.errors import Misuse
from harness.machine.ram import MIB
from harness.machine.riscv.processor import MachineInfo
from harness.paging.format import Format
from harness.paging.memory import Mask
from harness.paging.riscv.access import Reason
from harness.paging.riscv.bulk import ALLOWED, REASONS
from harness.paging.riscv.cpu import Cpu
from tests.check.riscv.guests import family
from tests.paging import riscv_rules
from tests.paging.riscv_rules import Answer, Machine

RAM = 0x8000_0000


def hart_of(mode: str) -> Hart:
    wide = mode != "sv32"
    return Hart(mode, svnapot=wide, pbmte=wide, masks=wide)


def chain_of(hart: Hart, fill: int = 0) -> Chain:
    """A chain in the memory of a guest that does not run, which is full of something."""
    arena = range(RAM + 4 * MIB, RAM + 8 * MIB)
    image = SimpleNamespace(table_arena=arena, user=range(RAM + MIB, RAM + MIB + 4096))
    ram = SimpleNamespace(buffer=np.full(64 * MIB, fill, np.uint8), base=RAM)
    free = (range(RAM + 32 * MIB, RAM + 64 * MIB),)
    guest = SimpleNamespace(image=image, ram=ram, free=free)
    return Chain(guest, hart.format)  # type: ignore[arg-type]


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
                control.adue << 61 | control.pbmte << 62 | control.pmm_s << 32,
                control.pmm_u << 32,
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
            faults = f"cause {found.cause[lane]}, tval {found.walks.address[lane]:#x}"
            case = one.case(control, int(numbers[lane]))
            assert wanted.cause is None or found.cause[lane] == wanted.cause, case
            assert (reason is None) == (wanted.cause is None), case
            if reason is None:
                assert found.walks.physical[lane] == wanted.physical, case
                before = int(made.words[found.walks.level[lane], lane])
                after = before | int(found.sets[lane])
                if found.backed[lane]:
                    assert after == (wanted.updated[1] if wanted.updated else before), case
                    said = f"reaches {wanted.physical:#x}"
                else:
                    after = before
                    said = f"{faults}, level {one.level}: no memory is where the page would be"
                    assert found.free[lane] == (wanted.updated[1] if wanted.updated else 0) ^ (
                        before if wanted.updated else 0
                    ), case
            else:
                assert found.sets[lane] == 0, case
                assert wanted.level is None or found.walks.level[lane] == wanted.level, case
                after = -1
                said = f"{faults}, level {found.walks.level[lane]}: {reason.value}"
            words = made.words[:, lane].tolist()
            if reason is None:
                words[found.walks.level[lane]] = after
            entries = " ".join(map(hex, words))
            assert expected_text(made, found, lane) == f"{said}; entries {entries}"
    assert len(shown) >= 9


def drawn(one: Family, hart: Hart, control: Control, count: int) -> tuple[Lanes, Cpu]:
    """Some cases of a family."""
    source, chain = np.random.default_rng(3), chain_of(hart)
    numbers = source.choice(np.prod(one.product.shape), count, replace=False)
    return lanes(one, chain, numbers), hart.cpu(control, chain.root)


@pytest.mark.parametrize("mode", MODES)
def test_a_walk_that_ends_above_a_missing_table_does_not_read_it(mode: str) -> None:
    hart = hart_of(mode)
    made, cpu = drawn(family("nowhere", hart.levels - 1, hart), hart, Control(), 64)
    top = hart.levels - 1
    missing = np.arange(len(made)) % 2 == 0
    absent = made.words.copy()
    absent[top] = 0
    made = replace(made, words=absent, missing=np.where(missing, top - 1, 255).astype(np.uint8))
    found = expected(hart, cpu, made)
    assert {REASONS[code] for code in found.reason} == {Reason.NOT_PRESENT}
    assert set(found.walks.level.tolist()) == {top}
    root = replace(made, missing=np.full(len(made), top, np.uint8))
    found = expected(hart, cpu, root)
    assert {REASONS[code] for code in found.reason} == {Reason.NO_MEMORY}
    assert not found.walks.raw.any() and not found.walks.physical.any()


def test_outcomes_differ_in_what_can_be_seen_and_in_nothing_else() -> None:
    """Where what is allowed leads, and tval of what is not."""
    hart = hart_of("sv39")
    made, cpu = drawn(family("nowhere", 0, hart), hart, Control(adue=True), 400)
    one, bit = expected(hart, cpu, made), np.uint64(1 << 10)
    allowed, walks = one.cause == ALLOWED, one.walks
    one = replace(one, sets=np.where(one.backed, one.sets, np.uint64(0)))
    assert not one.differs(one).any()
    every = np.ones_like(allowed)
    for changed, seen in (
        (replace(one, cause=one.cause ^ np.uint8(2)), every),
        (replace(one, sets=one.sets ^ bit), every),
        (replace(one, free=one.free ^ bit), every),
        (replace(one, walks=replace(walks, physical=walks.physical ^ bit)), allowed),
        (replace(one, walks=replace(walks, address=walks.address ^ bit)), ~allowed),
        (replace(one, walks=replace(walks, raw=walks.raw ^ bit)), ~every),
    ):
        assert (one.differs(changed) == seen).all()


def test_without_an_emulator_nothing_can_be_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    missing = "mode sv32: there is no qemu-system-riscv32 in PATH; mode sv48: there is no .*64 in"
    with pytest.raises(Misuse, match=f"^{missing} PATH: name one with --qemu$"):
        planned("quick", ["sv32", "sv48"], "tcg")


VARIED = ("nowhere", "reserved", "napot", "canonical")
"""The families in which quirks show."""


def departing_of(one: RiscvQuirk) -> Iterator[tuple[Hart, Lanes, Cpu, Mask]]:
    """Cases in which a quirk departs, of harts with and without what it depends on."""
    whole = hart_of("sv39")
    harts = whole, replace(whole, svnapot=False), replace(whole, pbmte=False), hart_of("sv32")
    for hart in harts:
        for each in families("quick", hart):
            for control in each.controls if each.name in VARIED and each.level < 2 else ():
                made, cpu = drawn(each, hart, control, 64)
                differs = expected(hart, cpu, made).differs(expected(hart, cpu, made, [one]))
                if differs.any():
                    yield hart, made, cpu, differs


@pytest.mark.parametrize("one", JUDGED, ids=lambda one: one.name)
def test_a_quirk_shows_where_the_guest_saw_what_it_says_and_is_news_elsewhere(
    one: RiscvQuirk,
) -> None:
    hart, made, cpu, differs = next(departing_of(one))
    assert (hart.xlen == 32) == ("riscv32" in one.name)
    asked = partial(expected, hart, cpu, made)
    for agree in (np.ones_like(differs), np.zeros_like(differs), np.arange(len(made)) % 2 == 0):
        none: Any = None
        batch = Batch(none, made, none, asked, asked(), asked([one]), agree, agree)
        count = int((differs & agree).sum())
        assert _shown(batch, [one]) == {one.name: count}
        absent = Batch(none, made, none, asked, asked(), asked(), agree, agree)
        news = {f"{one.name} did not show": count} if count else {}
        assert _news(absent, [], [one]) == news and not _shown(absent, [])


def test_a_quirk_of_masking_masks_what_the_manual_exempts() -> None:
    """Where MXR is in effect nothing is masked; the quirk asks for MPRV besides."""
    [one] = [quirk for quirk in JUDGED if quirk.unmasked]
    found = 0
    for hart, made, cpu, differs in departing_of(one):
        seen = expected(hart, cpu, made, [one])
        for turns in permutations(([], [one])):  # those that were worked out before are no other's
            known: dict[Format, Expected] = {}
            shared = [expected(hart, cpu, made, of, known) for of in turns]
            assert (shared[0].differs(shared[1]) == differs).all()
        for lane in range(len(made)):
            mxr, mprv = bool(made.mxr[lane]), bool(made.mprv[lane])
            kind = ("load", "store", "fetch", "AMO")[made.kind[lane]]
            asked = (int(made.address[lane]), kind, bool(made.user[lane]))
            registers = (cpu.xlen, cpu.satp, (mxr and mprv) << 19, cpu.menvcfg, cpu.senvcfg)
            assert seen.walks.address[lane] == riscv_rules.without_tag(Machine(*registers), *asked)
            assert not differs[lane] or (mxr and not mprv)
        found += int(differs.sum())
    assert found > 2


def test_a_report_counts_what_is_told_of_a_batch_and_nothing_else() -> None:
    hart, control = hart_of("sv39"), Control(adue=True)
    one, [quirk] = family("nowhere", 0, hart), [it for it in JUDGED if it.amo and not it.until]
    made, cpu = drawn(one, hart, control, 2000)
    asked = partial(expected, hart, cpu, made)
    rules, by_engine, lane = asked(), asked([quirk]), np.arange(2000)
    agree, told = lane % 5 > 0, lane % 7 > 1
    fields = [("cause", "u4"), ("completed", "u4"), ("tval", "u8"), ("data", "u8")]
    results = np.zeros(2000, [*fields, ("after", "u8", 4)])
    results["tval"], numbers = lane, lane * 3
    part: Any = SimpleNamespace(family=one, control=control, numbers=numbers)
    engine = SimpleNamespace(name="tcg")
    chain: Any = SimpleNamespace(guest=SimpleNamespace(version=(9, 2, 1), engine=engine))
    found = _report(chain, Batch(part, made, results, asked, rules, by_engine, agree, told))
    differs, reasons = rules.differs(by_engine), [REASONS[code] for code in rules.reason]
    wrong = told & ~agree

    def counted(chosen: Mask) -> Counter[tuple[str, Reason | None]]:
        return Counter(("sv39", reasons[at]) for at in np.flatnonzero(chosen))

    assert (found.engine, found.qemu, found.executor) == ("tcg", "9.2.1", "tcg 9.2.1")
    assert len(found.not_run_on) == 1
    assert found.comparison.compared == told.sum()
    assert found.comparison.disagreed == wrong.sum()
    assert found.by_rule == counted(told) and found.disagreed == counted(wrong)
    assert found.departed == counted(differs & agree) and found.departed.total() > 0
    assert found.masked == {MASKED: (told & (by_engine.free != 0)).sum()}
    assert 0 < found.masked[MASKED] < (by_engine.free != 0).sum()
    assert len(found.failures) == EXAMPLES
    for at, case in zip(np.flatnonzero(wrong).tolist(), found.failures, strict=False):
        assert isinstance(case, MatrixCase)
        assert case.words == tuple(made.words[:, at].tolist()) and len(case.words) == 3
        assert (case.values, case.qemu) == (one.case(control, 3 * at), "9.2.1")
        assert case.observed == f"cause 0, tval {at:#x}, data 0x0; entries 0x0 0x0 0x0"
        assert case.expected == expected_text(made, by_engine, at)


def test_what_a_guest_saw_is_told_for_people() -> None:
    after = np.array([0x11, 0x22, 0x33], np.uint64)
    seen: Any = {"cause": 13, "tval": 0x1238, "data": 0x5, "after": after, "completed": 0}
    said = "data 0x5; entries 0x11 0x22"
    assert observed_text(seen, 2) == f"cause 13, tval 0x1238, {said}"
    seen["completed"] = 1
    assert observed_text(seen, 2) == f"made, {said}"


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
    assert len(tops) == 1 and not tops & {0, WINDOW_INDEX}


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
    above = {axis.name: axis.values for axis in family("napot", 1, hart).product.axes}
    assert (above["N"], above["ppn"]) == ((0, 1), (0, 8))  # there is no page of 64K there
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
    quick = {axis.name: axis.values for axis in family("napot", 0, hart).product.axes}["vpn"]
    assert len(quick) == 2 and quick[0] == 0 and quick[1] in range(1, 16)


@pytest.mark.parametrize("mode", MODES)
def test_what_pages_lead_to_is_the_machine_s_free_memory(mode: str) -> None:
    chain = chain_of(hart_of(mode))
    [free] = chain.guest.free
    assert free.start <= chain.data < chain.data + REGION <= chain.code
    assert chain.code + REGION <= free.stop
    arena = chain.guest.image.table_arena
    assert all(table in arena and table % 4096 == 0 for table in chain.tables)
    assert len(set(chain.tables)) == len(chain.tables)
    assert chain.data % REGION == chain.code % REGION == 0


@pytest.mark.parametrize("mode", MODES)
def test_the_tables_lead_to_the_stub_s_pages_and_nowhere_else(mode: str) -> None:
    """To one page by two entries: S-mode's, and U-mode's."""
    hart = hart_of(mode)
    chain = chain_of(hart, fill=0xA5)
    user, ram = chain.guest.image.user.start, chain.guest.ram.buffer
    machine = Machine(
        hart.xlen, hart.cpu(Control(), chain.root).satp, svnapot=hart.svnapot, ram=RAM
    )
    for page, by_user in ((0, False), (4096, True)):
        for who in (False, True):
            octets: Any = ram
            found = riscv_rules.access(machine, octets, chain.window + page + 8, "fetch", who)
            assert (found.cause is None) == (who is by_user)
            assert found.physical == (user + 8 if who is by_user else 0)
            assert found.updated is None  # it is accessed
    first = chain.tables[0] - RAM
    words = ram[first : first + 2 * 4096 * hart.levels].view(f"<u{hart.xlen // 8}")
    assert np.count_nonzero(words) == hart.levels - 1 + 2


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
    assert token(np.array([0], np.uint64))[0], "what a register holds that nothing has loaded"


@pytest.mark.parametrize("width", [4, 8])
def test_words_of_the_data_differ_by_where_they_are(width: int) -> None:
    words = content(np.arange(0, REGION, width, dtype=np.uint64) + np.uint64(RAM), width)
    assert len(set(words.tolist())) == len(words) and int(words.max()) < 1 << 8 * width
    lowest = np.uint64(width - 1)
    assert (words & lowest == lowest).all(), "a read that loses its lowest bits agrees"


@pytest.mark.parametrize("xlen", [32, 64])
@pytest.mark.parametrize("extension", ["svnapot", "svpbmt", "svrsw60t59b", "svade", "zicsr"])
def test_a_hart_has_the_extensions_and_the_registers_that_its_guest_says(
    xlen: int, extension: str
) -> None:
    adue, pbmte, pmm = 1 << 61, 1 << 62, 3 << 32
    wide, mode, root = xlen == 64, "sv48" if xlen == 64 else "sv32", 0x8012_3000
    has = {name: wide and name == extension for name in ("svnapot", "svrsw60t59b", "svpbmt")}
    for menvcfg, senvcfg in product((0, adue, pbmte, pmm, adue | pbmte | pmm), (0, pmm)):
        isa = f"rv{xlen}imac_{extension}"
        info = MachineInfo(xlen, frozenset({mode}), 9, menvcfg, senvcfg, isa)
        faults = extension == "svade" or bool(menvcfg & adue)
        types = has["svpbmt"] and bool(menvcfg & pbmte)
        assert Hart.of(mode, info, "rv64") == Hart(
            mode,
            "rv64",
            svnapot=has["svnapot"],
            svrsw60t59b=has["svrsw60t59b"],
            adue=bool(menvcfg & adue),
            pbmte=types,
            masks=wide and bool(menvcfg & pmm) and bool(senvcfg & pmm),
            svade=faults,
        )
        assert cpu_of(mode, info, root) == Cpu(
            (9 << 60 if wide else 1 << 31) | root >> 12,
            menvcfg=menvcfg & adue | (pbmte if types else 0),
            xlen=xlen,
            svnapot=has["svnapot"],
            svrsw60t59b=has["svrsw60t59b"],
            svade=faults,
        )


@pytest.mark.parametrize("mode", MODES)
def test_control_states_are_bits_of_registers(mode: str) -> None:
    """ADUE is bit 61 of menvcfg, PBMTE bit 62, and PMM bits 33:32 of it and of senvcfg."""
    hart = hart_of(mode)
    for adue, pbmte, (s, u) in product((0, 1), (0, 1), ((0, 0), (2, 3), (3, 2))):
        if hart.masks or not s:
            cpu = hart.cpu(Control(bool(adue), bool(pbmte), s, u), RAM)
            assert cpu.menvcfg == adue << 61 | pbmte << 62 | s << 32
            assert (cpu.senvcfg, cpu.base, cpu.mode.value) == (u << 32, RAM, mode)


def test_a_hart_that_lacks_what_a_control_state_sets_is_not_asked() -> None:
    hart = Hart("sv39", adue=False, pbmte=False, masks=False)
    assert Control().lacks(hart) is None
    assert "ADUE" in (Control(adue=True).lacks(hart) or "")
    assert "PBMTE" in (Control(pbmte=True).lacks(hart) or "")
    for masking in (Control(pmm_u=2), Control(pmm_s=2)):
        assert "masks no pointers" in (masking.lacks(hart) or "")
    assert Control(True, True, 2, 3).lacks(replace(hart, adue=True, pbmte=True, masks=True)) is None
