"""What is asked of guests, and made of their answers, with a guest that follows the rules as they
are written a second time, or departs from them as some QEMU does: versions that are not here, too.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from harness.check.arm64 import at, debugger, probes, quirks
from harness.check.arm64.cases import WAYS, Cases, Stated, each, of_places, of_space
from harness.check.arm64.layouts import build, features_of
from harness.check.arm64.matrix import run
from harness.check.arm64.matrix.chain import Chain
from harness.check.arm64.matrix.families import address_of, families, lanes, pointer_to
from harness.check.arm64.matrix.judged import expected
from harness.check.arm64.matrix.run import Work, tried_on
from harness.check.arm64.matrix.setting import MODES, Control, Setting
from harness.check.arm64.matrix.verdicts import agreeing, observed_text
from harness.check.arm64.replay import MatrixCase
from harness.check.arm64.replay import _of_matrix as of_matrix
from harness.check.arm64.validate import compare_one, compare_space, state_of
from harness.check.arm64.window import entries
from harness.check.compare import EXAMPLES, PROBE, Comparison
from harness.check.layouts import divided, load, shipped
from harness.check.matrix import Report
from harness.check.product import Values, evenly
from harness.check.tables import TABLE_BYTES, images_of
from harness.check.translations import GVA2GPA, SAMPLE
from harness.check.validation import Built, built_in
from harness.machine.arm64.processor import RAM_BASE
from harness.machine.ram import MIB
from harness.paging import bulk
from harness.paging.address import Physical, Span, Virtual
from harness.paging.arm64.access import Kind, Reason
from harness.paging.arm64.bulk import REASONS, Outcomes
from harness.paging.arm64.cpu import Features, Tcr
from harness.paging.memory import BufferMemory, Mask, within
from tests.check.arm64.by_rules import EPAN, MAX, ByRules
from tests.check.arm64.samples import UNSAID
from tests.check.by_rules import has_room_for_two
from tests.check.samples import total
from tests.check.tampered import Seen, looked_at, noted, passed_over, root_entry
from tests.check.tampered import entries as entries_of
from tests.paging import arm64_rules
from tests.paging.arm64_rules import KINDS, Machine

LAYOUTS = {path.stem: path for path in shipped("arm64")}

DEPARTS: dict[tuple[int, ...], set[str]] = {
    (7, 2, 22): {"BLOCK_ANYWHERE", "SIZE_64K", "SIZE_DS", "DBM_FETCH", "DEVICE_ALIGNED"},
    (10, 0, 13): {"SIZE_64K", "SIZE_DS", "DBM_FETCH", "DEVICE_ALIGNED", "EPAN_WXN"},
    (11, 1, 3): {"SIZE_64K", "SIZE_DS", "DBM_FETCH", "AT_DBM", "EPAN_WXN"},
}
"""What each version of QEMU departs in, as was seen of it."""

ALL = set[str]().union(*DEPARTS.values())


def qemu(version: tuple[int, ...], departs: Collection[str], ram_bytes: int = 64 * MIB) -> Any:
    return ByRules(version, departs, MAX if version < (10,) else EPAN, ram_bytes)


# ---- layouts ----


def asked(
    name: str, levels: int, version: tuple[int, ...], departs: Collection[str]
) -> tuple[Comparison, Comparison]:
    """What probes, and AT, make of some of the accesses to a layout."""
    layout = load(LAYOUTS[name])
    guest = qemu(version, departs, layout.ram)
    with built_in(guest, layout, levels, build, entries) as made:
        memory, cpu, frames, window = made
        leaves = bulk.leaves(memory, cpu.roots)
        every = of_space(cpu, memory, leaves.take(~within(leaves.virtual, window)), window)
        cases: Cases = every.take(evenly(len(every), 400))
        tables = memory.octets[: divided(layout)[0].last + 1 - memory.span.first].copy()
        state, written = state_of(cpu, window), images_of(memory, cpu.roots)
        probed = probes.ask_guest(guest, state, cpu, memory, frames, written, cases)
        translated = at.ask_at(guest, state, cpu, memory, cases)
        assert (tables == memory.octets[: len(tables)]).all(), "entries are put back"
        return probed, translated


SPACES = {
    "rights": ("rights", 3),
    "writes and executes": ("hardware-wxn", 4),
    "two granules": ("two-granules", 4),
    "LPA2": ("lpa2-16k", 4),
}


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("space", SPACES)
def test_a_guest_that_does_as_qemu_does_agrees(space: str, version: tuple[int, ...]) -> None:
    for one in asked(*SPACES[space], version, DEPARTS[version]):
        assert not one.disagreed, one.disagreements
        assert one.compared > 100 and not one.news and not one.not_comparable


@pytest.mark.parametrize("version", [(7, 2, 22), (11, 1, 3)])
def test_what_dirty_state_does_to_fetches_and_at_is_told_apart(version: tuple[int, ...]) -> None:
    """Each shows where it is expected, is news where it is gone, and a disagreement elsewhere."""
    fetch, at_writes = quirks.DBM_FETCH.name, quirks.AT_DBM.name
    expected = DEPARTS[version] & {"DBM_FETCH", "AT_DBM"}
    for departs in (set[str](), {"DBM_FETCH"}, {"AT_DBM"}, {"DBM_FETCH", "AT_DBM"}):
        probed, translated = asked("hardware-wxn", 4, version, departs)
        for one, here, name in (
            (probed, "DBM_FETCH", fetch),
            (translated, "AT_DBM", at_writes),
        ):
            shows, known = here in departs, here in expected
            assert bool(one.quirks) == (shows and known) and one.quirks.keys() <= {name}
            assert bool(one.news) == (known and not shows)
            assert one.news.keys() <= {f"{name} did not show"}
            assert bool(one.disagreed) == (shows and not known)


def test_every_field_of_a_result_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, lanes = noted(monkeypatch, probes, "_as_expected"), Counter[str]()
    assert not asked(*SPACES["rights"], (10, 0, 13), DEPARTS[10, 0, 13])[0].disagreed
    for one in batches:
        wanted, _ = one.asked
        allowed, fetch = wanted.reached.allowed, wanted.reached.fetch
        each, every = allowed | ~allowed, (0, 17, 63)
        seen: Seen = {
            **root_entry(wanted),
            "completed": (each, (0,)),
            "esr": (each, (26, 31, 0, 5, 6)),
            "far": (~allowed, every),
            "elr": (fetch, every),
            "data": (each, every),
        }
        lanes.update(looked_at(one, seen))
        passed_over(one, UNSAID)
    assert min(lanes.values()) > 20


class Never(ByRules):
    """A guest that says of each access the opposite of what came of it."""

    def tampered(self, results: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
        results["completed"] ^= 1
        results["data"] ^= np.uint64(1 << 4 | 1)
        return results


def test_a_quirk_excuses_nothing_but_what_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """In as many batches as there are."""
    monkeypatch.setattr("tests.check.arm64.test_by_rules.ByRules", Never)
    monkeypatch.setattr(bulk, "LANES", 60)
    for version in DEPARTS:
        for one in asked("hardware-wxn", 4, version, DEPARTS[version]):
            assert one.disagreed == one.compared > 100
            assert len(one.disagreements) == EXAMPLES
            assert all(
                told.walk and told.walk.address == told.address for told in one.disagreements
            )
            assert not one.quirks
        mode, family, where = SHOWN["DEVICE_ALIGNED"]
        some = those(family, where, mode, version)
        found = tried(qemu(version, DEPARTS[version]), some)
        assert found.disagreed.total() == found.comparison.compared == found.by_rule.total()
        assert found.comparison.disagreed == found.comparison.compared
        assert not found.comparison.quirks and not found.comparison.news and not found.departed
        assert len(found.failures) == EXAMPLES


def test_what_a_machine_says_is_put_into_words() -> None:
    words = r"(made|not made), (no exception|ESR (0x\w+), FAR 0x\w+), data 0x\w+, entries then (.+)"
    ended, seen = DEPARTS[10, 0, 13], set[str]()
    for name in ("rights", "hardware"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tests.check.arm64.test_by_rules.ByRules", Never)
            probed, _ = asked(name, 4, (10, 0, 13), ended)
        for one in probed.disagreements:
            says = re.fullmatch(words, one.observed)
            assert says is not None and says[4].count("0x") in (0, 2, 3, 4)
            fault = one.expected.startswith("ESR")
            assert says[1] == ("made" if fault else "not made")
            if fault:
                assert says[3] == one.expected.removeprefix("ESR ").partition(":")[0]
            seen.add(says[2][:3])
    assert seen == {"no ", "ESR"}


def test_a_reference_that_takes_what_is_absent_for_a_page_disagrees() -> None:
    """It is asked, although by the descriptors there is nothing that the access could reach."""
    plain, _ = asked(*SPACES["rights"], (10, 0, 13), DEPARTS[10, 0, 13])
    absent = 0

    def without_faults(*cases: Any) -> Outcomes:
        nonlocal absent
        found = of_cases(*cases)
        invalid = found.reason == REASONS.index(Reason.INVALID)
        absent = int(invalid.sum())
        return replace(found, reason=np.where(invalid, np.uint8(0), found.reason))

    of_cases = probes.of_cases
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probes, "of_cases", without_faults)
        probed, _ = asked(*SPACES["rights"], (10, 0, 13), DEPARTS[10, 0, 13])
    assert (probed.compared, probed.disagreed) == (plain.compared, absent) and absent > 10
    assert probed.not_comparable == plain.not_comparable


def test_a_walk_without_memory_ends_at_with_an_exception() -> None:
    guest, layout = qemu((10, 0, 13), ()), load(LAYOUTS["rights"])
    with built_in(guest, layout, 3, build, entries) as (memory, cpu, _, window):
        slots = bulk.paths(memory, cpu.roots[0], np.array([0x1_0000_0000], np.uint64)).slot
        memory.store(Physical(int(slots[2, 0])), 8, 0x7_0000_0003)
        cases = each(np.array([0x1_0000_0000], np.uint64), Stated(Kind.WRITE, el0=False))
        state = state_of(cpu, window)
        found = at.ask_at(guest, state, cpu, memory, cases)
        assert (found.compared, found.disagreed) == (1, 0)
        [fault] = probes.of_cases(cpu, memory, cases).syndrome.tolist()
        for wrong in (0x24 << 26 | fault & 0x3F, 0x25 << 26 | fault & 0x3F ^ 1, 0):
            guest.tampered = lambda results, esr=wrong: saying(results, esr=esr)
            assert at.ask_at(guest, state, cpu, memory, cases).disagreed == 1
        guest.tampered = lambda results: saying(
            results, esr=0x25 << 26 | 0x3FF & ~0x3F | fault & 0x3F
        )
        assert not at.ask_at(guest, state, cpu, memory, cases).disagreed


@contextmanager
def smallest(guest: Any) -> Iterator[Built[Any]]:
    with built_in(guest, load(LAYOUTS["smallest"]), 3, build, entries) as made:
        yield made


def test_every_oracle_is_asked_about_a_space() -> None:
    guest = qemu((7, 2, 22), DEPARTS[7, 2, 22], load(LAYOUTS["smallest"]).ram)
    with smallest(guest) as made:
        found = compare_space(guest, made)
        assert [one.oracle for one in found] == [PROBE, at.AT, GVA2GPA, TABLE_BYTES]
        assert not any(one.disagreed for one in found)
        page, way = Virtual(0x40_0000), Stated(Kind.READ, el0=False)
        root = made.cpu.roots[1].table.address
        for oracle, address, access in (
            (PROBE, page, way),
            (at.AT, page, way),
            (GVA2GPA, page, None),
            (TABLE_BYTES, root + 8, None),
        ):
            one = compare_one(guest, made, oracle, address, access)
            assert (one.oracle, one.compared, one.disagreed) == (oracle, 1, 0)
        more = compare_space(guest, made, np.array([0x1238, made.window.first + 8], np.uint64))
        # the word in each way of data, the code of its page in each of fetches; not the window
        assert more[0].compared - found[0].compared == len(WAYS)
        assert more[1].compared - found[1].compared == sum(way.kind in at.KINDS for way in WAYS)
        assert more[2].compared - found[2].compared == 1
        assert more[3] == found[3]


@pytest.mark.parametrize(("name", "levels"), [("smallest", 3), ("two-granules", 4)])
def test_the_window_is_executed_by_both_and_written_by_nobody(name: str, levels: int) -> None:
    """Whether or not the processor sets AF, which is there."""
    layout = load(LAYOUTS[name])
    guest = qemu((10, 0, 13), (), layout.ram)
    with built_in(guest, layout, levels, build, entries) as (memory, cpu, _, window):
        tcr = cpu.tcr & ~int(Tcr.HA | Tcr.HD)
        machine = Machine(cpu.ttbr0, cpu.ttbr1, tcr, cpu.mair, cpu.sctlr, ram=RAM_BASE)
        for el0, kind in product((False, True), ("fetch", "load", "store")):
            found = arm64_rules.access(machine, memory.octets, window.first, kind, el0)  # type: ignore[arg-type]
            assert found.why == ("permission" if kind == "store" else "")
            assert kind == "store" or found.physical == guest.image.user.start


class Elsewhere(ByRules):
    """A guest of which the monitor reads the words of tables otherwise, and finds another page."""

    @contextmanager
    def parked(self, state: Any) -> Iterator[Any]:
        with super().parked(state) as monitor:
            led, read = monitor.translations, monitor.read_physical
            other: Any = SimpleNamespace(
                translations=lambda some: [one and one ^ 0x1000 for one in led(some)],
                read_physical=lambda at, size: bytes(8) + read(at + 8, size - 8),
            )
            yield other


def test_what_the_monitor_says_otherwise_disagrees_with_nothing_else() -> None:
    guest: Any = Elsewhere((10, 0, 13), DEPARTS[10, 0, 13], ram_bytes=load(LAYOUTS["smallest"]).ram)
    with smallest(guest) as made:
        probed, translated, led, kept = compare_space(guest, made)
        assert not probed.disagreed and not translated.disagreed
        assert led.disagreed == 2  # the first word and the last
        assert {one.observed for one in led.disagreements} == {
            hex(int(one.expected, 16) ^ 0x1000) for one in led.disagreements
        }
        assert kept.disagreed > 2
        first = next(iter(kept.disagreements))
        one = compare_one(guest, made, TABLE_BYTES, first.address, None)
        assert (one.compared, one.disagreements) == (1, [first])
        again = compare_one(guest, made, GVA2GPA, led.disagreements[0].address, None)
        assert again.disagreements == led.disagreements[:1]


@pytest.mark.parametrize("name", ["hardware", "malformed"])
def test_what_the_reference_says_is_put_into_words(name: str) -> None:
    layout = load(LAYOUTS[name])
    guest, said = qemu((10, 0, 13), (), layout.ram), set[str]()
    with built_in(guest, layout, 3, build, entries) as (memory, cpu, _, window):
        leaves = bulk.leaves(memory, cpu.roots)
        every = of_space(cpu, memory, leaves, window)
        cases: Cases = every.take(evenly(len(every), 500))
        found = probes.of_cases(cpu, memory, cases)
        machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr, ram=RAM_BASE)
        for lane in range(len(cases)):
            way, octets = cases.stated(lane), memory.octets
            asked = replace(machine, pan=way.pan, uao=way.uao)
            address, kind = int(cases.address[lane]), KINDS[way.kind]
            by = arm64_rules.access(asked, octets, address, kind, way.el0)  # type: ignore[arg-type]
            told = probes.rules_say(found, lane)
            if by.esr is not None:
                assert told.startswith(f"ESR {by.esr:#x}: ") and len(told) > 20
                said.add("fault")
                continue
            slot, now = by.updated or (0, 0)
            was = memory.load(Physical(slot), 8) if slot else 0
            assert was is not None
            marks = [" sets AF"] * (now & ~was != 0) + [" clears AP[2]"] * (was & ~now != 0)
            assert told.split(",") == [f"reaches {by.physical:#x}", *marks]
            said.update(marks, ["allowed"])
    assert said >= {"fault", "allowed", " sets AF"}


NARROW = {
    "64K": ("lva-64k", 3, 12, quirks.SIZE_64K),
    "4K": ("lpa2", 5, 9, quirks.SIZE_DS),
    "16K": ("lpa2-16k", 4, 8, quirks.SIZE_DS),
}
"""Layouts of 52 bits, a bit of a descriptor that is one of those above 48, and who ignores it."""


def beyond(granule: str, bit: int, ips: int, widest: int = 6) -> tuple[Comparison, Comparison]:
    """What probes, and AT, make of a page with this bit besides, and of one without, under an
    output size of TCR_EL1.IPS, and under the widest of the processor (PARange)."""
    name, levels, _, _ = NARROW[granule]
    layout = load(LAYOUTS[name])
    guest = qemu((11, 1, 3), DEPARTS[11, 1, 3], layout.ram)
    with built_in(guest, layout, levels, build, entries) as (memory, cpu, frames, window):
        leaves = bulk.leaves(memory, cpu.roots)
        pages = np.flatnonzero(within(leaves.physical, *frames))[:2]
        first, second = leaves.virtual[pages]
        path = bulk.paths(memory, next(r for r in cpu.roots if int(first) in r.span), first[None])
        slot, raw = path.slot[leaves.level[pages[0]], 0], int(leaves.raw[pages[0]])
        memory.store(Physical(int(slot)), 8, raw | 1 << bit)
        cpu = replace(cpu, tcr=cpu.tcr & ~(7 << 32) | ips << 32)
        mmfr = guest.info.mmfr
        guest.info = replace(guest.info, mmfr=(mmfr[0] & ~0xF | widest, *mmfr[1:]))
        cpu = replace(cpu, features=features_of(guest.info))
        cases = each(np.array([first, second]), Stated(Kind.READ, el0=False))
        state, written = state_of(cpu, window), images_of(memory, cpu.roots)
        probed = probes.ask_guest(guest, state, cpu, memory, frames, written, cases)
        return probed, at.ask_at(guest, state, cpu, memory, cases)


@pytest.mark.parametrize("ips", [5, 6])
@pytest.mark.parametrize("granule", NARROW)
def test_what_qemu_reads_otherwise_below_52_bits_is_not_asked(granule: str, ips: int) -> None:
    """With IPS of 52 bits it is asked, and has no memory; a page without such bits is asked."""
    _, _, bit, quirk = NARROW[granule]
    probed, translated = beyond(granule, bit, ips)
    otherwise = {f"descriptors that QEMU reads otherwise ({quirk.name})": 1}
    nowhere = {"the page has no memory behind it": 1}
    assert probed.not_comparable == (nowhere if ips == 6 else otherwise)
    assert translated.not_comparable == ({} if ips == 6 else otherwise)
    assert (probed.compared, translated.compared) == (1, 2 if ips == 6 else 1)
    assert not probed.disagreed and not translated.disagreed


@pytest.mark.parametrize("granule", ["4K", "16K"])
def test_the_output_size_is_the_processor_s_where_ips_says_more(granule: str) -> None:
    """With PARange of 48 bits; without 52, descriptors of 64K have no such bits."""
    _, _, bit, quirk = NARROW[granule]
    otherwise = {f"descriptors that QEMU reads otherwise ({quirk.name})": 1}
    for one in beyond(granule, bit, 6, widest=5):
        assert (one.not_comparable, one.compared, one.disagreed) == (otherwise, 1, 0)


@pytest.mark.parametrize("granule", NARROW)
def test_what_is_beyond_the_output_size_otherwise_is_asked(granule: str) -> None:
    """Bit 46 of a descriptor is that of the address, with IPS of 44 bits."""
    for one in beyond(granule, 46, 4):
        assert not one.not_comparable and (one.compared, one.disagreed) == (2, 0)


@pytest.mark.parametrize("mode", MODES)
def test_where_raw_leaves_lead_is_what_the_rules_say(mode: str) -> None:
    """With every bit of an address set in some: no memory of a guest is at most of them."""
    setting = Setting(mode, MODES[mode].bits, Features())
    source = np.random.default_rng(8)
    for high in (False, True):
        cpu = setting.cpu(Control(high=high, ips=52), 0, 0)
        machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr)
        inside = 1 << setting.address_bits
        addresses = source.integers(inside, size=200, dtype=np.uint64)
        addresses |= np.uint64((1 << 64) - inside if high else 0)
        p = arm64_rules.params(machine, int(addresses[0]))
        shape = (setting.levels, len(addresses))
        raw = source.integers(1 << 64, size=shape, dtype=np.uint64)
        ends = source.integers(setting.levels, size=len(addresses))
        used = np.arange(setting.levels)[:, None] >= ends
        raw[used] |= np.uint64(3)  # a table
        for lane, level in enumerate(ends.tolist()):
            raw[level, lane] &= ~np.uint64(3 if lane % 3 == 0 else 2 if level else 0)
        leaf, physical = probes.reached_by(cpu, bulk.Paths(raw, raw, used), addresses)
        for lane, level in enumerate(ends.tolist()):
            descriptor = int(raw[level, lane])
            lowest = p.granulebits + (p.granulebits - 3) * level
            there = descriptor & 3 == (1 if level else 3)
            assert leaf[lane] == there
            if there:
                below = arm64_rules.field(int(addresses[lane]), lowest - 1, 0)
                led = arm64_rules.base(machine, p, descriptor, lowest) | below
                assert int(physical[lane]) == led


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("version", DEPARTS)
def test_descriptors_of_every_type_are_asked_but_for_what_a_quirk_names(
    version: tuple[int, ...], mode: str
) -> None:
    """A block where none can be is left out of QEMU 7.2, and of later ones nothing is."""
    setting = Setting(mode, MODES[mode].bits, Features())
    guest = qemu(version, ())
    chain, control = Chain(guest, setting), Control(ips=52)
    cpu, data = chain.cpu(control), np.array([chain.data], np.uint64)
    machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr)
    p = arm64_rules.params(machine, 0)
    memory = BufferMemory(guest.ram.buffer, guest.ram.base)
    cases = each(address_of(setting, control, data), Stated(Kind.READ, el0=False))
    slots = chain.slots(cases.address)[:, 0].tolist()
    for level, kind in product(range(setting.levels), range(4)):
        for above, slot in enumerate(slots):
            memory.store(Physical(slot), 8, pointer_to(chain.tables[above - 1]) if above else 3)
        memory.store(Physical(slots[level]), 8, chain.data & ~0xFFFF | kind)
        comparison = Comparison(PROBE)
        found = probes.of_cases(cpu, memory, cases)
        [left] = probes.left_out("tcg", version, cpu, found, comparison)
        block = level > 0 and kind == 1
        odd = block and not arm64_rules.block_desc_supported(machine, p, 3 - level)
        assert left == (odd and version < (10,)), (level, kind)
        name = f"descriptors that QEMU reads otherwise ({quirks.BLOCK_ANYWHERE.name})"
        assert comparison.not_comparable == ({name: 1} if left else {})


@pytest.mark.parametrize("mode", ["4k", "4k-52", "16k", "16k-52", "64k"])
def test_a_block_where_none_can_be_is_read_as_blocks_are(mode: str) -> None:
    setting = Setting(mode, MODES[mode].bits, Features())
    cpu = setting.cpu(Control(ips=52), 0, 0)
    machine = Machine(cpu.ttbr0, cpu.ttbr1, cpu.tcr, cpu.mair, cpu.sctlr)
    p = arm64_rules.params(machine, 0)
    plain = setting.format(Control(), cpu)
    assert quirks.BLOCK_ANYWHERE.reads
    read = quirks.BLOCK_ANYWHERE.reads(cpu, plain)
    raws = np.random.default_rng(7).integers(1 << 62, size=64).tolist()
    for level, (now, was) in enumerate(zip(read.levels, plain.levels, strict=True)):
        for raw in (raw & ~2 | 1 for raw in raws):
            if not level or arm64_rules.block_desc_supported(machine, p, 3 - level):
                assert now == was
            else:
                shape, lowest = now.shape(raw), now.shift
                assert not shape.points
                assert shape.address_of(raw) == arm64_rules.base(machine, p, raw, lowest)


def saying(results: npt.NDArray[np.void], **fields: int) -> npt.NDArray[np.void]:
    for name, value in fields.items():
        results[name] = value
    return results


@pytest.mark.parametrize("bit", [0, 1, 6, 7, 9, 11, 12, 30, 47, 48, 51, 52, 56, 63])
def test_par_is_held_to_the_address_or_the_fault_alone(bit: int) -> None:
    """PA is bits 51:12 of PAR_EL1, FST bits 6:1 of one with F=1, bit 0."""
    layout = load(LAYOUTS["rights"])
    guest = qemu((10, 0, 13), (), layout.ram)
    with built_in(guest, layout, 3, build, entries) as (memory, cpu, _, window):
        leaves = bulk.leaves(memory, cpu.roots)
        cases = of_space(cpu, memory, leaves.take(~within(leaves.virtual, window)), window)
        cases = cases.take(evenly(len(cases), 90))
        asked = cases.take(np.isin(cases.kind, at.KINDS))
        faults = int((probes.of_cases(cpu, memory, asked).reason != 0).sum())
        assert 3 < faults < len(asked) - 3
        guest.tampered = lambda results: with_bit(results, bit)
        found = at.ask_at(guest, state_of(cpu, window), cpu, memory, cases)
        assert found.compared == len(asked)
        wrong = {0: len(asked), **dict.fromkeys(range(1, 7), faults)}
        wrong |= dict.fromkeys(range(12, 52), len(asked) - faults)
        assert found.disagreed == wrong.get(bit, 0)
        for one in found.disagreements:
            assert one.observed.startswith("PAR 0x") and one.observed.endswith(", ESR 0x0")
            assert one.access in {asked.stated(lane) for lane in range(len(asked))}


def with_bit(results: npt.NDArray[np.void], bit: int) -> npt.NDArray[np.void]:
    results["data"] ^= np.uint64(1 << bit)
    return results


def test_each_access_is_tried_under_what_plays_a_part_in_it() -> None:
    """PAN of data and fetches of EL1, UAO of LDTR and STTR, which are EL1's alone; else they are
    0."""
    every = set[Stated]()
    for kind in Kind:
        unprivileged = kind in (Kind.LDTR, Kind.STTR)
        for el0, pan, uao in product((False, True), repeat=3):
            if not (el0 and (unprivileged or pan)) and (unprivileged or not uao):
                every.add(Stated(kind, el0, pan, uao))
    assert set(WAYS) == every and len(WAYS) == len(every)
    assert str(Stated(Kind.READ, el0=True)).endswith(" with PAN=0 UAO=0")


def test_of_loads_the_monitor_is_asked_about_a_sample_or_all() -> None:
    loads = np.arange(0x1000, 0x1000 + 8 * (SAMPLE + 50), 8, dtype=np.uint64)
    read, write = Stated(Kind.READ, el0=False), Stated(Kind.WRITE, el0=False)
    cases = each(loads, read) + each(loads, replace(read, el0=True)) + each(loads + 1, write)
    assert debugger.asked_of(cases, thorough=True).tolist() == loads.tolist()
    some = debugger.asked_of(cases, thorough=False).tolist()
    assert len(set(some)) == len(some) == SAMPLE and set(some) < set(loads.tolist())
    assert (some[0], some[-1]) == (loads[0], loads[-1])


def test_the_words_and_the_code_of_places_are_tried_in_every_way() -> None:
    places = np.array([0x8765_4321_0000_1239, 0x8765_4321_0000_123F, 0x1FFF, 0x5008], np.uint64)
    made = of_places(places, Span(0x5000, 0x5FFF))
    tried = {(int(made.address[lane]), made.stated(lane)) for lane in range(len(made))}
    data, code = (0x8765_4321_0000_1238, 0x1FF8), (0x8765_4321_0000_1010, 0x1010)
    assert tried == {
        (address, way) for way in WAYS for address in (code if way.kind is Kind.FETCH else data)
    }
    assert len(made) == len(tried) == 2 * len(WAYS)


# ---- the matrix ----

Where = Callable[[Values], Mask]


def work(mode: str, version: tuple[int, ...]) -> list[Work]:
    """Some cases of all families, of each under one of its control states, of addresses of few
    sizes."""
    source, found = np.random.default_rng(5), list[Work]()
    for one in families("quick", mode, features_of(qemu(version, ()).info)):
        if one.name == "short" and one.setting.address_bits % 16:
            continue
        able = [control for control in one.controls if one.lacks(control) is None]
        control = able[int(source.integers(len(able)))]
        numbers = source.choice(np.flatnonzero(one.product.legal()), 12)
        found.append(Work(one, control, np.sort(numbers)))
    return found


def those(name: str, where: Where, mode: str, version: tuple[int, ...]) -> list[Work]:
    """Some of the cases of a family that satisfy a condition, under most of its control states."""
    source, found = np.random.default_rng(6), list[Work]()
    for one in families("quick", mode, features_of(qemu(version, ()).info)):
        if one.name == name:
            chosen = where(one.product.grid) & one.product.legal().reshape(one.product.shape)
            places = np.flatnonzero(chosen)
            able = [control for control in one.controls if one.lacks(control) is None]
            able = able[:: 3 if name == "size" else 1]
            found += [Work(one, control, np.sort(source.choice(places, 6))) for control in able]
    return found


def tried(guest: Any, some: list[Work]) -> Report:
    return total(tried_on(guest, some))


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("mode", ["4k", "16k-52", "64k"])
def test_the_matrix_agrees_with_a_guest_that_does_as_qemu_does(
    mode: str, version: tuple[int, ...]
) -> None:
    found = tried(qemu(version, DEPARTS[version]), work(mode, version))
    assert not found.failures, found.failures
    assert not found.comparison.news
    assert found.comparison.compared == found.by_rule.total() > 300
    assert found.qemu == ".".join(map(str, version)) and found.executor == f"tcg {found.qemu}"


def test_every_field_of_a_case_s_result_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ESR_EL1 the class, WnR, and the fault status code."""
    batches, lanes = noted(monkeypatch, run, "agreeing"), Counter[str]()
    places, left, version = set[int](), 0, (11, 1, 3)
    assert not tried(qemu(version, DEPARTS[version]), work("4k-52", version)).failures
    for one in batches:
        chain, made, jobs, _, wanted = one.asked
        done, fetch, levels, every = wanted.made, made.fetch, len(made.words), (0, 17, 63)
        seen: Seen = {
            **entries_of(levels, done),
            f"after {levels}": (~fetch, every),
            "completed": (done | ~done, (0,)),
            "esr": (done | ~done, (26, 31, 0, 5, 6)),
            "far": (~done, every),
            "elr": (fetch, every),
            "data": (done | ~done, every),
        }
        lanes.update(looked_at(one, seen))
        passed_over(one, UNSAID)
        reached, words = (jobs[name][~fetch, levels].tolist() for name in ("where", "word"))
        assert len(set(words)) == len(set(reached))  # a read tells where it was made
        walks, other = wanted.found.walks, one.results.copy()
        for level in range(levels):
            free = np.where(walks.level == level, wanted.free, np.uint64(0))
            other["after"][:, level] ^= free
            left += int((free != 0).sum())
        assert (one.judge(other) == one.agree).all()
        walks = replace(walks, physical=walks.physical ^ np.uint64(8))
        elsewhere = replace(wanted, found=replace(wanted.found, walks=walks))
        assert not (agreeing(chain, made, jobs, one.results, elsewhere) & done).any()
        places.update(reached)
    assert min(lanes.values()) > 20 and len(places) > 4 and left > 4


SHOWN: dict[str, tuple[str, str, Where]] = {
    "BLOCK_ANYWHERE": ("4k", "type", lambda of: of["type"] == 1),
    "SIZE_64K": ("64k", "size", lambda of: of["beyond"] >= 48),
    "SIZE_DS": ("4k-52", "size", lambda of: of["beyond"] >= 50),
    "DBM_FETCH": (
        "16k",
        "leaf",
        lambda of: (of["access"] == "fetch") & (of["DBM"] == 1) & (of["AP2"] == 1),
    ),
    "EPAN_WXN": (
        "4k-52",
        "leaf",
        lambda of: (
            (of["access"] == "fetch") & (of["el"] == 1) & (of["UXN"] == 0) & (of["pan"] == 1)
        ),
    ),
    "DEVICE_ALIGNED": (
        "4k",
        "device",
        lambda of: (of["offset"] == 1) & (of["valid"] == 1) & (of["outside"] == 0),
    ),
}
"""A mode, a family and cases of it in which departures show."""


@pytest.mark.parametrize("version", DEPARTS)
@pytest.mark.parametrize("name", SHOWN)
def test_each_departure_is_told_by_its_quirk_alone(name: str, version: tuple[int, ...]) -> None:
    """Where it is expected it shows, and that it is gone is news; elsewhere it disagrees."""
    mode, family, where = SHOWN[name]
    some, departs = those(family, where, mode, version), DEPARTS[version]
    reports = [
        [*tried_on(qemu(version, one), some)] for one in (departs | {name}, departs - {name})
    ]
    for one in (*reports[0], *reports[1]):
        counters = one.comparison.news, one.comparison.quirks
        for counts in (*counters, one.by_rule, one.departed, one.disagreed):
            assert all(counts.values())  # what does not show has no entry
    with_it, without = (total(one) for one in reports)
    quirk = getattr(quirks, name).name
    if name in departs:
        assert not with_it.comparison.disagreed and not with_it.comparison.news
        assert min(with_it.comparison.quirks[quirk], with_it.departed.total()) > 4
        assert not without.comparison.disagreed and not without.comparison.quirks[quirk]
        news = {f"{quirk} did not show": with_it.comparison.quirks[quirk]}
        assert without.comparison.news == news
    else:
        has = name != "EPAN_WXN" or version >= (10,)  # which has no EPAN
        assert bool(with_it.comparison.disagreed) is has
        assert not without.comparison.disagreed
        assert with_it.comparison.disagreed == with_it.disagreed.total()


def cleaning(of: Values) -> Mask:
    """Stores of EL1 that clear AP[2], where the processor keeps the dirty state."""
    clean = (of["DBM"] == 1) & (of["AP2"] == 1)
    found: Mask = (of["access"] == "write") & (of["el"] == 1) & clean
    return found


def test_a_guest_has_room_for_the_batches_of_the_matrix() -> None:
    has_room_for_two(lambda: qemu((10, 0, 13), ()), run.BATCH)


@pytest.mark.parametrize(("mode", "name"), [("4k", "DEVICE_ALIGNED"), ("64k", "SIZE_64K")])
def test_cases_are_put_into_words_and_asked_again(mode: str, name: str) -> None:
    """What is expected by the rules, what was seen, and the same of a case that is replayed."""
    version, said = (7, 2, 22), {"engine": "tcg", "qemu": "7.2.22", "expected": "", "observed": ""}
    guest, opposite = qemu(version, DEPARTS[version]), Never(version, DEPARTS[version])
    shown, (_, family, where) = set[str](), SHOWN[name]
    cleaned = [one for one in those("leaf", cleaning, mode, version) if one.control.hd]
    some = those(family, where, mode, version)[:4]
    for part in (*work(mode, version)[::3], *some, *cleaned[-1:]):
        setting, control, chain = (
            part.family.setting,
            part.control,
            Chain(guest, part.family.setting),
        )
        made, cpu = lanes(part.family, chain, control, part.numbers[:3]), chain.cpu(control)
        wanted = expected(setting, control, cpu, made, quirks.judged_of("tcg", version))
        for lane in range(len(made)):
            case = MatrixCase.of(setting, control, made, lane, values="", **said)
            found = of_matrix(guest, case)
            assert (found.compared, found.disagreed) == (1, 0)
            shown |= found.quirks.keys()
            [wrong] = of_matrix(opposite, case).disagreements  # type: ignore[arg-type]
            assert wrong.address == case.address
            assert wrong.observed.startswith("made, ESR" if not wanted.made[lane] else "not made, ")
            words = [int(word, 16) for word in wrong.expected.split("descriptors ")[1].split()]
            by = guest.last
            if by.updated:
                slots = chain.slots(wanted.found.walks.address[lane : lane + 1])[:, 0].tolist()
                level = slots.index(by.updated[0])
                assert words.pop(level) == by.updated[1]
                assert words == [one for n, one in enumerate(case.words) if n != level]
            else:
                assert words == list(case.words)
            if by.esr is None:
                assert wrong.expected.startswith(f"reaches {by.physical:#x}; ")
            else:
                start = f"ESR {by.esr:#x}, FAR {by.far:#x}: "
                told = wrong.expected.partition("; descriptors")[0]
                assert told.startswith(start) and len(told) > len(start)
    assert shown == {getattr(quirks, name).name}


def test_outcomes_differ_in_what_can_be_seen_and_in_nothing_else() -> None:
    """FAR_EL1 of a fault, the address of what is allowed, and what descriptors become or may."""
    guest, some = qemu((10, 0, 13), ()), work("4k", (10, 0, 13))
    part = next(one for one in some if one.family.name == "leaf")
    chain = Chain(guest, part.family.setting)
    made, cpu = lanes(part.family, chain, part.control, part.numbers), chain.cpu(part.control)
    one = expected(part.family.setting, part.control, cpu, made)
    faults = one.found.reason != 0
    assert faults.any() and not faults.all()
    every, bit = np.ones_like(faults), np.uint64(1 << 10)
    assert not one.differs(one).any()
    walks = one.found.walks
    for changed, seen in (
        ({"syndrome": one.found.syndrome ^ np.uint32(1)}, every),
        ({"far": one.found.far ^ bit}, faults),
        ({"walks": replace(walks, physical=walks.physical ^ bit)}, ~faults),
        ({"changes": one.found.changes ^ bit}, every),
        ({"may": one.found.may ^ bit}, every),
        ({"walks": replace(walks, raw=walks.raw ^ bit)}, ~every),
    ):
        other = replace(one, found=replace(one.found, **changed))
        assert (one.differs(other) == seen).all(), changed.keys()


def test_what_was_seen_is_put_into_words() -> None:
    result = np.zeros(1, qemu((7, 2, 22), ()).image.result_dtype)[0]
    result["after"][:3] = 0x11, 0x22, 0x33
    assert observed_text(result, 2) == "not made, no exception, data 0x0; descriptors 0x11 0x22"
    for name, value in {"esr": 1, "far": 2, "elr": 3, "data": 4, "completed": 1}.items():
        result[name] = value
    words = "made, ESR 0x1, FAR 0x2, ELR 0x3, data 0x4; descriptors 0x11"
    assert observed_text(result, 1) == words


def test_the_engine_and_its_version_are_in_each_report() -> None:
    for version, said in (((7, 2, 22), 0), ((12, 0, 0), 1)):
        [one, *_] = tried_on(qemu(version, ()), work("64k", version)[:1])
        dotted = ".".join(map(str, version))
        assert (one.engine, one.qemu, one.executor) == ("tcg", dotted, f"tcg {dotted}")
        assert len(one.not_run_on) == said
