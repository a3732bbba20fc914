"""Every shipped layout, at each of its numbers of levels, on every engine that this host has."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from harness.check.compare import PROBE
from harness.check.layouts import Layout, find, load, parse, shipped
from harness.check.tables import TABLE_BYTES
from harness.check.translations import GVA2GPA
from harness.check.validation import SpaceReport
from harness.check.x86 import quirks, verdicts
from harness.check.x86 import validate as module_of_validate
from harness.check.x86.cases import Cases
from harness.check.x86.debugger import INFO_TLB, MEMSAVE
from harness.check.x86.replay import ORACLES
from harness.check.x86.validate import (
    PROBES_IN_SOFTWARE,
    build_in,
    compare_space,
    executed,
    lacking,
    validate,
)
from harness.machine.x86.guest import FEATURES, Guest, MachineInfo
from harness.machine.x86.registry import ENGINES
from harness.paging import bulk
from harness.paging.address import Physical
from harness.paging.bulk import End, Walks
from harness.paging.memory import BufferMemory
from harness.paging.x86.cpu import Cpu
from harness.report.run import Finding
from harness.report.text import finding_lines

QEMU = os.environ.get("QEMU", "qemu-system-x86_64")
LAYOUTS = [load(path) for path in shipped()]
SPACES = [(layout, levels) for layout in LAYOUTS for levels in layout.levels]

NEEDS_ALL = """
title = "Needs everything"
levels = [5]
ram = "64M"
[cpu]
maxphyaddr = 40
smep = true
smap = true
lass = true
[[map]]
virtual = 0x4000_0000
size = "1G"
physical = 0x4000_0000
"""


OF_8_2 = (quirks.NON_CANONICAL_SETS_CR2, quirks.USER_ADDRESS_UNCHECKED)

BIT_8 = """
title = "Bit 8 of a PML4E, which AMD's processors reserve"
levels = [4]
ram = "64M"
[[map]]
virtual = 0x4000_0000
size = "4K"
[[map]]
virtual = 0x80_4000_0000
size = "4K"
"""


SELF_MAPS = """
title = "a self-map that the user may use, of a space that has the upper half alone"
levels = [4]
ram = "64M"
[[map]]
virtual = 0xffff_ff80_0010_0000
size = "4K"
rights = "wx"
[[share]]
virtual = 0xffff_ff00_0000_0000
root = true
"""


def name(value: object) -> str | None:
    return value.name if isinstance(value, Layout) else None


def validated(layout: Layout, levels: int, engine: str) -> SpaceReport:
    report = validate(layout, levels, engine)
    if report.skipped is not None:
        pytest.skip(f"pagetable: {engine}: {report.skipped}")
    return report


NO_MEMORY = "the page has no memory behind it"
OWN = "the page holds the harness's own memory"
NO_ENTRY = "an entry of the path has no memory behind it"
SCATTERED = "not asked: a sample of scattered pages is read"
SAMPLE = "executes a sample"
NOT_ASKED: dict[tuple[str, int], dict[str, int]] = {
    # Three pages at the end of all addresses: the first and the last word of each is read by the
    # supervisor and by the user.  One pointer leads there too, and gva2gpa is asked about the ends
    # of what it spans.
    ("maxphyaddr", 4): {NO_MEMORY: 3 * 2 * 2, NO_ENTRY: 2},
    ("maxphyaddr", 5): {NO_MEMORY: 3 * 2 * 2, NO_ENTRY: 2},
    ("malformed", 4): {NO_ENTRY: 2},
    ("malformed", 5): {NO_ENTRY: 2},
    # Pages of devices, the supervisor's: the first and the last word of each is read and written,
    # with AC=0 and AC=1.
    ("linux-4", 4): {NO_MEMORY: 5 * 2 * 2 * 2},
    ("linux-5", 5): {NO_MEMORY: 5 * 2 * 2 * 2},
    # The window's tables, seen as pages.
    ("self-map", 4): {OWN: 68},
    ("self-map", 5): {OWN: 68},
    # What memsave would copy beyond its sample of 200 runs.
    ("aliases", 4): {SCATTERED: 65_345},
    ("aliases", 5): {SCATTERED: 65_345},
    ("five-level-only", 5): {SCATTERED: 310},
    ("sparse", 4): {SCATTERED: 256 - 200},
    ("sparse", 5): {SCATTERED: 496 - 200},
}
"""What the machine is not asked about a space, by the reason: all that may be left out."""


@pytest.mark.hw
def test_the_guest_runs_beside_a_self_map_and_not_in_it(paging_engine: str) -> None:
    report = validated(parse(SELF_MAPS, "self-maps.toml"), 4, paging_engine)
    assert not report.disagreed, report.disagreements
    assert report.compared > 1000


@pytest.mark.hw
@pytest.mark.parametrize(("layout", "levels"), SPACES, ids=name)
def test_the_machine_reads_a_layout_as_the_reference_does(
    layout: Layout, levels: int, paging_engine: str, pytestconfig: pytest.Config
) -> None:
    report = validated(layout, levels, paging_engine)
    findings = [Finding(report, found, None) for found in report.disagreements]
    assert not report.disagreed, "\n".join(line for one in findings for line in finding_lines(one))
    assert not report.count("news")
    left_out = dict(report.count("not_comparable"))
    if any(quirks.USER_ADDRESS_UNCHECKED.name in one.quirks for one in report.comparisons):
        left_out.pop("the engine takes the address for another, where there is a page", None)
    asked = {comparison.oracle: comparison.compared for comparison in report.comparisons}
    if ENGINES[paging_engine].maker == "Bochs":  # which has no monitor
        assert set(asked) == {PROBE}
        assert asked[PROBE] > 800
        assert Counter(left_out) <= Counter(NOT_ASKED.get((layout.name, levels), {}))
        return
    if any(reason.endswith(SAMPLE) for reason in left_out):  # of what is left out on other engines
        left_out = {reason: n for reason, n in left_out.items() if not reason.endswith(SAMPLE)}
        assert Counter(left_out) <= Counter(NOT_ASKED.get((layout.name, levels), {}))
    else:
        assert left_out == NOT_ASKED.get((layout.name, levels), {})
    assert report.compared > 1000
    assert set(asked) == set(ORACLES)
    assert min(asked[PROBE], asked[TABLE_BYTES], asked[GVA2GPA]) > 0
    if layout.name == "dense":
        assert min(asked[MEMSAVE], asked[INFO_TLB]) >= 65_536
        assert asked[GVA2GPA] >= 400


GIGABYTE_PAGE = """
title = "Data in a page of 1 GiB"
levels = [4]
ram = "2G"
[[map]]
virtual = 0x4000_0000
size = "1G"
physical = 0x4000_0000
rights = "wu"
"""

STRANGERS = {
    quirks.RESERVED_WITHOUT_PRESENT: load(find("malformed")),
    quirks.GIGABYTE_PAGE_ACCESSED: load(find("page-sizes")),
    quirks.GIGABYTE_PAGE_WITHOUT_CPUID: parse(GIGABYTE_PAGE, "gigabyte-page.toml"),
}
"""Each with a layout in which it shows, the last on a processor without 1-GByte pages: where the
rules have no page there is no code, so none is fetched from there."""


@pytest.mark.hw
@pytest.mark.parametrize("quirk", STRANGERS, ids=lambda quirk: quirk.name)
def test_a_departure_is_a_disagreement_and_named_where_its_quirk_begins_later(
    quirk: quirks.FaultQuirk, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = [one for one in quirks.FAULT_QUIRKS if one is not quirk]
    for module in (quirks, verdicts):
        monkeypatch.setattr(module, "FAULT_QUIRKS", (*others, replace(quirk, since=(99,))))
    if quirk is quirks.GIGABYTE_PAGE_WITHOUT_CPUID:
        monkeypatch.setattr(module_of_validate, "build_in", without_gigabyte_pages)
    report = validate(STRANGERS[quirk], 4, "tcg", program=QEMU)
    named = f"{quirk.name} shows on tcg {report.qemu}, which it does not name"
    probe = report.comparisons[0]
    assert report.disagreed > 0
    assert probe.news == {named: probe.disagreed}


def without_gigabyte_pages(guest: Guest, layout: Layout, levels: int) -> tuple[BufferMemory, Cpu]:
    """The layout for a processor that is not the guest's."""
    memory, cpu = build_in(guest, layout, levels)
    return memory, replace(cpu, page1gb=False)


def in_walks(change: Callable[[Walks], Walks]) -> Callable[[pytest.MonkeyPatch], None]:
    true = bulk.walk
    return lambda patch: patch.setattr(bulk, "walk", lambda *given: change(true(*given)))


TOO_FAR = {
    "pages are beyond memory": in_walks(
        lambda walks: replace(walks, physical=walks.physical | np.uint64(1 << 38))
    ),
    "pages are in the harness's memory": in_walks(
        lambda walks: replace(walks, physical=walks.physical & np.uint64(0xFFFF))
    ),
    "entries have no memory": in_walks(
        lambda walks: replace(
            walks, end=np.where(walks.end == End.LEAF, np.uint8(End.UNBACKED), walks.end)
        )
    ),
}


@pytest.mark.hw
@pytest.mark.parametrize("fault", TOO_FAR)
def test_a_reference_that_goes_where_the_machine_is_not_asked_disagrees(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = load(find("smallest"))
    TOO_FAR[fault](monkeypatch)
    probe = validate(layout, 4, "tcg", program=QEMU).comparisons[0]
    assert probe.oracle == PROBE
    assert probe.disagreed > 0
    assert not probe.not_comparable


def info(**changed: bool) -> MachineInfo:
    """A processor with MAXPHYADDR 40 and every feature but those that are changed to False."""
    leaves = {0x8000_0008: [40, 0, 0, 0]}
    for feature, (leaf, register, bit) in FEATURES.items():
        words = leaves.setdefault(leaf, [0, 0, 0, 0])
        words["abcd".index(register)] |= int(changed.get(feature, True)) << bit
    return MachineInfo({leaf: (a, b, c, d) for leaf, (a, b, c, d) in leaves.items()})


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ("la57", "five-level"),
        ("gigabyte_pages", "1-GByte"),
        ("smep", "SMEP"),
        ("smap", "SMAP"),
        ("lass", "LASS"),
        ("nx", "NX"),
    ],
)
def test_a_feature_that_the_processor_lacks_is_a_reason_to_skip(feature: str, said: str) -> None:
    layout = parse(NEEDS_ALL, "needs-all.toml")
    assert lacking(layout, 5, info()) is None
    reason = lacking(layout, 5, info(**{feature: False}))
    assert reason is not None
    assert said in reason


def test_another_maxphyaddr_than_the_layout_asks_for_is_a_reason_to_skip() -> None:
    layout = parse(NEEDS_ALL.replace("maxphyaddr = 40", "maxphyaddr = 46"), "needs-46.toml")
    assert lacking(layout, 5, info()) == (
        "the engine's processor has MAXPHYADDR 40, and the layout asks for 46"
    )


def test_all_is_executed_but_where_kvm_interprets() -> None:
    n = PROBES_IN_SOFTWARE + 1000
    none = np.zeros(n, np.bool_)
    cases = Cases(np.arange(n, dtype=np.uint64), np.zeros(n, np.uint8), none, none)
    for name in ("tcg", "kvm_amd", "kvm_intel", "kvm"):
        assert executed(cases, name) is cases
    sample = executed(cases, "kvm_pvm").address
    assert len(np.unique(sample)) == PROBES_IN_SOFTWARE
    assert (sample[0], sample[-1]) == (0, n - 1)


def test_an_engine_is_asked_for_what_a_layout_needs_at_its_levels_alone() -> None:
    text = NEEDS_ALL.replace("levels = [5]", "levels = [4, 5]") + "levels = [5]\n"
    layout = parse(text, "needs-less.toml")
    assert lacking(layout, 4, info(la57=False, gigabyte_pages=False)) is None


@pytest.mark.hw
@pytest.mark.parametrize(
    ("vendor", "amd"), [(None, False), ("GenuineIntel", False), ("AuthenticAMD", True)]
)
def test_entries_are_read_as_those_of_the_vendor_that_the_guest_sees(
    vendor: str | None, amd: bool
) -> None:
    layout = parse(BIT_8, "bit-8")
    processor = f"max,vendor={vendor}" if vendor else None
    with Guest("tcg", ram_bytes=layout.ram, cpu=processor, program=QEMU) as guest:
        memory, cpu = build_in(guest, layout, 4)
        slot = Physical(cpu.cr3 + 8)
        memory.store(slot, 8, (memory.load(slot, 8) or 0) | 1 << 8)
        [probed, *_] = compare_space(guest, memory, cpu)
        assert (guest.info.vendor == "AuthenticAMD") is amd
        version = guest.version
    assert cpu.amd is amd
    shown = {quirks.PML4E_BIT_8_IGNORED.name} if amd else set()  # TCG goes by no vendor
    shown |= {one.name for one in quirks.fault_quirks("tcg", version) if one in OF_8_2}
    assert (set(probed.quirks), probed.disagreed) == (shown, 0)
